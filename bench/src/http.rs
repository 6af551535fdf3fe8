//! A small HTTP/1.1 client over kept connections, with and without TLS: cheap, since it shares the cores with the server
//! that it measures.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::{ClientConnection, StreamOwned};

use crate::target::Target;

/// The longest response taken, in bytes.
const MAX_RESPONSE: usize = 64 << 20;
/// A server silent for so long has failed.
const SILENCE: Duration = Duration::from_secs(15);

/// A response's head, and how many bytes it takes in all.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Whether the connection may be used again.
    pub keep: bool,
    head: usize,
    length: usize,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// One HTTP/1.1 connection.
pub struct Connection {
    stream: Box<dyn Stream>,
    buffer: Vec<u8>,
    /// What [`Self::stream`] gave last.
    spare: Vec<u8>,
}

impl Connection {
    /// Connects and shakes hands.
    ///
    /// # Errors
    /// Nobody listens, or TLS fails.
    pub fn open(target: &Target) -> Result<Self> {
        let address = target.address;
        let mut tcp =
            TcpStream::connect_timeout(&address, SILENCE).with_context(|| format!("cannot connect to {address}"))?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(SILENCE))?;
        tcp.set_write_timeout(Some(SILENCE))?;
        let stream: Box<dyn Stream> = match &target.tls {
            None => Box::new(tcp),
            Some((config, name)) => {
                let mut tls = ClientConnection::new(config.clone(), name.clone())?;
                while tls.is_handshaking() {
                    tls.complete_io(&mut tcp)?;
                }
                Box::new(StreamOwned::new(tls, tcp))
            }
        };
        Ok(Self { stream, buffer: Vec::new(), spare: Vec::new() })
    }

    /// Sends a request and reads its response.
    ///
    /// # Errors
    /// The connection broke, nothing came for 15 s, or what came is no HTTP/1.1 response of at most 64 MiB.
    pub fn exchange(&mut self, request: &[u8]) -> Result<Response> {
        self.stream.write_all(request)?;
        self.buffer.clear();
        loop {
            self.more()?;
            if let Some(response) = parse(&self.buffer)? {
                ensure!(response.length == self.buffer.len(), "more bytes than one response");
                return Ok(response);
            }
            ensure!(self.buffer.len() < MAX_RESPONSE, "a response of more than {MAX_RESPONSE} bytes");
        }
    }

    /// The body of the response that came last, if it had a length.
    pub fn body(&self, response: &Response) -> &[u8] {
        self.buffer.get(response.head..response.length).unwrap_or_default()
    }

    /// Sends a request whose response does not end, and reads its head; then [`Self::stream`] reads the rest.
    ///
    /// # Errors
    /// As [`Self::exchange`], or the status is not 200.
    pub fn start_stream(&mut self, request: &[u8]) -> Result<()> {
        self.stream.write_all(request)?;
        self.buffer.clear();
        loop {
            self.more()?;
            if let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                ensure!(self.buffer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&self.buffer));
                self.buffer.drain(..end + 4);
                return Ok(());
            }
        }
    }

    /// The next bytes of such a response, still in chunks.
    ///
    /// # Errors
    /// As [`Self::exchange`].
    pub fn stream(&mut self) -> Result<&[u8]> {
        if self.buffer.is_empty() {
            self.more()?;
        }
        let n = self.buffer.len();
        self.spare.clear();
        std::mem::swap(&mut self.buffer, &mut self.spare);
        Ok(self.spare.get(..n).unwrap_or_default())
    }

    fn more(&mut self) -> Result<()> {
        let mut part = [0; 16 * 1024];
        let n = self.stream.read(&mut part)?;
        ensure!(n > 0, "the connection ended within a response");
        self.buffer.extend_from_slice(part.get(..n).unwrap_or_default());
        Ok(())
    }
}

/// The response at the start of `bytes`; `None` while it is incomplete (RFC 9112 section 6.3).
fn parse(bytes: &[u8]) -> Result<Option<Response>> {
    let Some(head_end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
    let (head, body) = bytes.split_at(head_end + 4);
    let head = std::str::from_utf8(head).context("a head that is not text")?;
    let mut lines = head.split("\r\n");
    let status_line = lines.next().unwrap_or_default();
    let status = status_line.strip_prefix("HTTP/1.1 ").and_then(|l| l.get(..3)).and_then(|s| s.parse().ok());
    let status: u16 = status.with_context(|| format!("no HTTP/1.1 response: {status_line:?}"))?;
    let (mut length, mut keep) = (None, true);
    for (name, value) in lines.filter_map(|l| l.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            let n: usize = value.parse().with_context(|| format!("content-length {value:?}"))?;
            ensure!(n <= MAX_RESPONSE, "a response of {n} bytes");
            length = (body.len() >= n).then_some(n);
            if length.is_none() {
                return Ok(None);
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
            length = chunked(body)?;
            if length.is_none() {
                return Ok(None);
            }
        } else if name.eq_ignore_ascii_case("connection") {
            keep = !value.eq_ignore_ascii_case("close");
        }
    }
    let length = length.context("a response without a length")?;
    Ok(Some(Response { status, keep, head: head_end + 4, length: head_end + 4 + length }))
}

/// Length of a chunked body without trailers; `None` while it is incomplete.
fn chunked(body: &[u8]) -> Result<Option<usize>> {
    let mut at = 0;
    loop {
        let rest = body.get(at..).unwrap_or_default();
        let Some(line_end) = rest.windows(2).position(|w| w == b"\r\n") else { return Ok(None) };
        let line = String::from_utf8_lossy(rest.get(..line_end).unwrap_or_default());
        let digits = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(digits, 16).with_context(|| format!("chunk size {digits:?}"))?;
        ensure!(size <= MAX_RESPONSE, "a chunk of {size} bytes");
        at += line_end + 2 + size + 2;
        if body.len() < at {
            return Ok(None);
        }
        if size == 0 {
            return Ok(Some(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_are_cut_where_they_end() {
        let whole = |status, keep, head, length| Some(Response { status, keep, head, length });
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", whole(200, true, 38, 40)),
            ("HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", whole(404, false, 64, 64)),
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi", None),
            ("HTTP/1.1 200 OK\r\ncontent-le", None),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", whole(200, true, 47, 59)),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;x=y\r\nhi\r\n0\r\n\r", None),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nh", None),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap(), expected, "{text:?}");
        }
        for bad in [
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
