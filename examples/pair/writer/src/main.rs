//! Writes a file that the pod shares, then answers on the pod's own loopback.

use std::io::{Read, Write};
use std::net::TcpListener;

fn main() -> std::io::Result<()> {
    std::fs::write("/shared/greeting.txt", "written by the writer\n")?;
    let listener = TcpListener::bind("127.0.0.1:9000")?;
    println!("listening on {}", listener.local_addr()?);
    for connection in listener.incoming() {
        let mut connection = connection?;
        let mut question = [0; 64];
        let n = connection.read(&mut question)?;
        let question = String::from_utf8_lossy(&question[..n]);
        println!("asked: {}", question.trim());
        write!(connection, "the writer heard: {}", question.trim())?;
    }
    Ok(())
}
