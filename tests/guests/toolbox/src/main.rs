//! One component for end-to-end tests: the first argument says what to do.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::time::Duration;

fn hostname() -> String {
    std::env::var("HOSTNAME").unwrap_or_else(|_| "unknown".into())
}

/// Answers every connection on `address` with this pod's name, one line.
fn serve(address: &str) -> std::io::Result<()> {
    let listener = TcpListener::bind(address)?;
    println!("serving on {address} as {}", hostname());
    for connection in listener.incoming() {
        let mut connection = connection?;
        writeln!(connection, "{}", hostname())?;
    }
    Ok(())
}

/// Connects to `address` `count` times and prints what each connection says.
fn ask(address: &str, count: usize) {
    for _ in 0..count {
        let answer = TcpStream::connect(address).and_then(|mut c| {
            let mut text = String::new();
            c.read_to_string(&mut text)?;
            Ok(text)
        });
        match answer {
            Ok(text) => println!("answer: {}", text.trim()),
            Err(error) => println!("error: {error}"),
        }
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    match words.as_slice() {
        ["serve", address] => serve(address).expect("serve"),
        // One plain HTTP request, retried until the other side is there.
        ["http", address] => loop {
            let answer = TcpStream::connect(address).and_then(|mut c| {
                write!(c, "GET / HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n")?;
                let mut text = String::new();
                c.read_to_string(&mut text)?;
                Ok(text)
            });
            match answer {
                Ok(text) if text.starts_with("HTTP/1.1 200") => return println!("{text}"),
                other => println!("again: {other:?}"),
            }
            std::thread::sleep(Duration::from_millis(200));
        },
        ["ask", address, count] => ask(address, count.parse().expect("count")),
        // Asks forever, once a second, for watching a Service's endpoints move.
        ["poll", address] => loop {
            ask(address, 1);
            std::thread::sleep(Duration::from_millis(500));
        },
        ["resolve", names @ ..] => {
            for name in names {
                match (*name, 0).to_socket_addrs() {
                    Ok(found) => println!("{name}: {:?}", found.map(|a| a.ip().to_string()).collect::<Vec<_>>()),
                    Err(error) => println!("{name}: {error}"),
                }
            }
        }
        ["upper"] => {
            for line in std::io::stdin().lines() {
                println!("{}", line.expect("a line").to_uppercase());
            }
        }
        ["argv", ..] => println!("{args:?}"),
        ["env", names @ ..] => {
            for name in names {
                println!("{name}={}", std::env::var(name).unwrap_or_else(|_| "<unset>".into()));
            }
        }
        ["cat", paths @ ..] => {
            for path in paths {
                println!("{path}: {:?}", std::fs::read_to_string(path).map_err(|e| e.to_string()));
            }
        }
        ["write", path, text] => println!("{:?}", std::fs::write(path, text).map_err(|e| e.to_string())),
        // `count` numbered lines, then stays.
        ["lines", count] => {
            for i in 1..=count.parse::<usize>().expect("count") {
                println!("line {i}");
            }
            loop {
                std::thread::sleep(Duration::from_secs(1));
            }
        }
        ["tick"] => {
            for i in 1.. {
                println!("tick {i}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        ["sleep"] => loop {
            std::thread::sleep(Duration::from_secs(1));
        },
        ["spin"] => loop {
            std::hint::spin_loop();
        },
        // Notes each run in a file, and fails until there were more than so many.
        ["flaky", path, failures] => {
            let runs = std::fs::read_to_string(path).map_or(0, |text| text.lines().count()) + 1;
            let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).expect("open");
            writeln!(file, "run").expect("write");
            println!("run {runs}");
            std::process::exit(i32::from(runs <= failures.parse().expect("count")));
        }
        ["exit", code] => std::process::exit(code.parse().expect("code")),
        ["trap"] => panic!("deliberate trap of the toolbox"),
        ["alloc", mebibytes] => {
            let bytes = mebibytes.parse::<usize>().expect("size") << 20;
            let block = vec![1u8; bytes];
            println!("allocated {}", block.iter().map(|b| usize::from(*b)).sum::<usize>());
        }
        other => {
            eprintln!("toolbox: what is {other:?}?");
            std::process::exit(2);
        }
    }
}
