//! A plain HTTP/1.1 client.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// One request on a connection of its own: the status code and the body, or why there is none.
pub fn call(authority: &str, method: &str, path: &str, body: &str) -> Result<(u16, String), String> {
    let mut stream = TcpStream::connect(authority).map_err(|e| format!("connect {authority}: {e}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).map_err(|e| e.to_string())?;
    let head = format!("{method} {path} HTTP/1.0\r\nhost: {authority}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).map_err(|e| format!("write: {e}"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|e| format!("read: {e}"))?;
    let code =
        answer.split_whitespace().nth(1).and_then(|c| c.parse().ok()).ok_or(format!("no status in {answer:?}"))?;
    let body = answer.split_once("\r\n\r\n").map(|(_, b)| b.to_string()).unwrap_or_default();
    Ok((code, body))
}

/// `GET`.
pub fn get(authority: &str, path: &str) -> Result<(u16, String), String> {
    call(authority, "GET", path, "")
}
