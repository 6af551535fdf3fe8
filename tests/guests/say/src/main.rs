//! Says what it was given: arguments, environment, standard input. `say exit N` exits with N; `say lines N`
//! prints N lines; `say sleep MS` sleeps; `say panic` panics.

use std::io::Read;
use std::time::{Duration, Instant, SystemTime};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let number = args.get(2).and_then(|arg| arg.parse().ok()).unwrap_or(0);
    match args.get(1).map(String::as_str) {
        Some("exit") => std::process::exit(number as i32),
        Some("lines") => (0..number).for_each(|line| println!("line {line}")),
        Some("sleep") => {
            let before = Instant::now();
            std::thread::sleep(Duration::from_millis(number));
            assert!(before.elapsed() >= Duration::from_millis(number));
            println!("slept");
        }
        Some("panic") => panic!("asked to"),
        _ => {
            println!("args {args:?}");
            for (name, value) in std::env::vars() {
                println!("env {name}={value}");
            }
            let mut input = String::new();
            let read = std::io::stdin().read_to_string(&mut input).expect("standard input");
            println!("stdin {read}");
            let since_1970 = SystemTime::UNIX_EPOCH.elapsed().expect("a clock");
            println!("after 2020 {}", since_1970 > Duration::from_secs(50 * 365 * 24 * 3600));
            eprintln!("this is standard error");
        }
    }
}
