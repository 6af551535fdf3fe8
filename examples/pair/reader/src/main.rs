//! Reads what the other container of its pod wrote, and calls it on 127.0.0.1.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

fn ask(question: &str) -> std::io::Result<String> {
    let mut connection = TcpStream::connect("127.0.0.1:9000")?;
    connection.write_all(question.as_bytes())?;
    connection.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    Ok(answer)
}

fn main() {
    let mut round = 0;
    loop {
        match (std::fs::read_to_string("/shared/greeting.txt"), ask(&format!("round {round}"))) {
            (Ok(file), Ok(answer)) => {
                println!("file: {} / call: {answer}", file.trim());
                round += 1;
                std::thread::sleep(Duration::from_secs(5));
            }
            (file, call) => {
                println!("waiting for the writer: file {:?}, call {:?}", file.err(), call.err());
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    }
}
