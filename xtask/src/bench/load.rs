//! A small load generator: HTTP/1.1 over kept connections, one thread each.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// The longest response taken, in bytes.
const MAX_RESPONSE: usize = 256 * 1024;
/// A server silent for so long has failed.
const SILENCE: Duration = Duration::from_secs(15);
/// A connection's thread gives up after so many failures.
const MAX_FAILURES: u64 = 20;

/// What a round of load gave.
#[derive(Debug, Default)]
pub struct Load {
    /// Answers with status 200.
    pub answers: u64,
    /// Other answers and broken connections.
    pub failures: u64,
    /// From the first request to the last answer, in seconds.
    pub seconds: f64,
    /// Of each answer, in microseconds, sorted.
    pub latencies: Vec<u32>,
}

impl Load {
    /// Answers per second.
    pub fn rate(&self) -> f64 {
        self.answers as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }
}

/// Sends `GET /` over so many connections for so long, each request after the answer to the one before.
///
/// # Errors
/// Nothing answered.
pub fn run(address: SocketAddr, connections: usize, length: Duration) -> Result<Load> {
    let start = Instant::now();
    let end = start + length;
    let threads: Vec<_> = (0..connections).map(|_| std::thread::spawn(move || one_connection(address, end))).collect();
    let mut all = Load::default();
    for thread in threads {
        let Ok(one) = thread.join() else { bail!("a connection's thread failed") };
        all.answers += one.answers;
        all.failures += one.failures;
        all.latencies.extend(one.latencies);
    }
    all.seconds = start.elapsed().as_secs_f64();
    all.latencies.sort_unstable();
    ensure!(all.answers > 0, "http://{address}/ gave no answer ({} failures)", all.failures);
    Ok(all)
}

fn one_connection(address: SocketAddr, end: Instant) -> Load {
    let mut load = Load::default();
    let request = format!("GET / HTTP/1.1\r\nhost: {address}\r\n\r\n").into_bytes();
    let mut open: Option<Connection> = None;
    while Instant::now() < end && load.failures < MAX_FAILURES {
        let begin = Instant::now();
        let answer = match open.take().map_or_else(|| Connection::open(address), Ok) {
            Ok(mut connection) => connection.exchange(&request).map(|response| (connection, response)),
            Err(error) => Err(error),
        };
        match answer {
            Ok((connection, response)) => {
                if response.status == 200 {
                    load.answers += 1;
                    load.latencies.push(u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX));
                } else {
                    load.failures += 1;
                }
                open = response.keep.then_some(connection);
            }
            Err(_) => load.failures += 1,
        }
    }
    load
}

/// A response's head, and how many bytes it takes in all.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Whether the connection may be used again.
    pub keep: bool,
    length: usize,
}

/// One HTTP/1.1 connection.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream =
            TcpStream::connect_timeout(&address, SILENCE).with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE))?;
        stream.set_write_timeout(Some(SILENCE))?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Sends a request and reads its response.
    ///
    /// # Errors
    /// The connection broke, nothing came for 15 s, or what came is no HTTP/1.1 response of at most 256 KiB.
    pub fn exchange(&mut self, request: &[u8]) -> Result<Response> {
        self.stream.write_all(request)?;
        self.buffer.clear();
        let mut part = [0; 16 * 1024];
        loop {
            let n = self.stream.read(&mut part)?;
            ensure!(n > 0, "the connection ended within a response");
            self.buffer.extend_from_slice(part.get(..n).unwrap_or_default());
            if let Some(response) = parse(&self.buffer)? {
                ensure!(response.length == self.buffer.len(), "more bytes than one response");
                return Ok(response);
            }
            ensure!(self.buffer.len() < MAX_RESPONSE, "a response of more than {MAX_RESPONSE} bytes");
        }
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
    Ok(Some(Response { status, keep, length: head_end + 4 + length }))
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
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    #[test]
    fn responses_are_cut_where_they_end() {
        let whole = |status, keep, length| Some(Response { status, keep, length });
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", whole(200, true, 40)),
            ("HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", whole(404, false, 64)),
            ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nhi", None),
            ("HTTP/1.1 200 OK\r\ncontent-le", None),
            ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", whole(200, true, 59)),
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

    /// Answers every request, and closes a connection after its third.
    fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                    for _ in 0..3 {
                        if lines.by_ref().find(|l| l.is_empty()).is_none()
                            || (&stream).write_all(answer.as_bytes()).is_err()
                        {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    #[test]
    fn load_counts_answers_and_reconnects() {
        let good = server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        let load = run(good, 2, Duration::from_millis(200)).unwrap();
        assert!(load.answers > 6, "{load:?}");
        assert_eq!(load.latencies.len() as u64, load.answers);
        assert!(load.rate() > 0.0);
    }

    #[test]
    fn other_answers_are_failures() {
        let bad = server("HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n");
        let error = run(bad, 2, Duration::from_secs(60)).unwrap_err().to_string();
        assert!(error.contains("(40 failures)"), "{error}");
    }
}
