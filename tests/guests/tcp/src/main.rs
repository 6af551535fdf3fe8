//! `tcp serve ADDR`: echoes every connection, one after another. `tcp call ADDR TEXT`: sends TEXT and
//! the end of its side, prints the answer. `tcp ask ADDR TEXT`: the same, but its side stays open.
//! `tcp resolve NAME`: prints the addresses of NAME.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream, ToSocketAddrs};

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let arg = |index: usize| args.get(index).map(String::as_str).unwrap_or_default();
    match arg(1) {
        "serve" => {
            let listener = TcpListener::bind(arg(2))?;
            println!("listening on {}", listener.local_addr()?);
            loop {
                let (mut stream, peer) = listener.accept()?;
                println!("connection from {}", peer.ip());
                let mut buffer = [0; 16 << 10];
                loop {
                    let read = stream.read(&mut buffer)?;
                    if read == 0 {
                        break;
                    }
                    stream.write_all(&buffer[..read])?;
                }
            }
        }
        how @ ("call" | "ask") => {
            let mut stream = TcpStream::connect(arg(2))?;
            stream.write_all(arg(3).as_bytes())?;
            if how == "call" {
                stream.shutdown(Shutdown::Write)?;
            }
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            println!("answer {answer}");
        }
        "resolve" => {
            for address in (arg(2), 0).to_socket_addrs()? {
                println!("address {}", address.ip());
            }
        }
        other => panic!("serve, call, ask or resolve, not {other:?}"),
    }
    Ok(())
}
