//! Keeps the guestbook's entries in a file of its volume and serves them over HTTP on plain sockets:
//! `GET /` lists them, `POST /` adds the body as one line.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

const BOOK: &str = "/data/entries.txt";
const MAX_ENTRY: u64 = 1024;

fn main() -> std::io::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:8080")?;
    println!("keeping the book at {BOOK}, listening on {}", listener.local_addr()?);
    for connection in listener.incoming() {
        if let Err(error) = connection.and_then(answer) {
            eprintln!("a visitor left early: {error}");
        }
    }
    Ok(())
}

fn answer(connection: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new((&connection).take(16 * 1024));
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? == 0 || header.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse::<u64>().unwrap_or(0).min(MAX_ENTRY);
        }
    }
    if request.starts_with("POST") {
        let mut entry = Vec::new();
        reader.take(length).read_to_end(&mut entry)?;
        let entry = String::from_utf8_lossy(&entry).replace('\n', " ");
        writeln!(OpenOptions::new().create(true).append(true).open(BOOK)?, "{entry}")?;
        println!("new entry: {entry}");
    }
    let book = std::fs::read_to_string(BOOK).unwrap_or_default();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", book.len());
    (&connection).write_all(head.as_bytes())?;
    (&connection).write_all(book.as_bytes())
}
