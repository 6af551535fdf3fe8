//! A watch read by this process itself: cheap, for watches of many events.

use std::io::ErrorKind;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::http::Connection;
use crate::target::Target;

/// The events of a watch, in their order.
pub struct Events {
    connection: Connection,
    chunks: Chunks,
    /// Decoded bytes that were not taken yet, from `at` on.
    text: Vec<u8>,
    at: usize,
}

impl Events {
    /// Opens a watch; `path` has a query, `watch=1` in it. Without a revision in it, what is there comes first, as ADDED.
    ///
    /// # Errors
    /// It is refused.
    pub fn open(target: &Target, path: &str) -> Result<Self> {
        let mut connection = Connection::open(target)?;
        connection.start_stream(&target.request("GET", path, ""))?;
        Ok(Self { connection, chunks: Chunks::default(), text: Vec::new(), at: 0 })
    }

    /// The next event: its type and its object.
    ///
    /// # Errors
    /// None came before `end`, give or take the connection's patience; or the watch ended.
    pub fn next(&mut self, end: Instant) -> Result<(String, Value)> {
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            if let Some(length) = rest.iter().position(|&b| b == b'\n') {
                let line = rest.get(..length).unwrap_or_default();
                let event: Value = serde_json::from_slice(line).context("an event that is not JSON")?;
                self.at += length + 1;
                let Value::Object(mut event) = event else { bail!("an event that is no object") };
                let kind = event.get("type").and_then(Value::as_str).unwrap_or_default().to_string();
                return Ok((kind, event.remove("object").unwrap_or_default()));
            }
            self.text.drain(..self.at);
            self.at = 0;
            match self.connection.stream() {
                Ok(bytes) => self.chunks.decode(bytes, &mut self.text),
                Err(error) if silent(&error) && Instant::now() < end => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether nothing came, and the connection stands.
fn silent(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    matches!(kind, Some(ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

/// Takes the chunks of a body apart, however they are cut (RFC 9112 section 7.1).
#[derive(Default)]
struct Chunks {
    /// Bytes of the present chunk that are to come.
    left: usize,
    /// The size of the next, as far as it was read.
    size: Option<usize>,
}

impl Chunks {
    fn decode(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.left > 0 {
                let (data, rest) = bytes.split_at(self.left.min(bytes.len()));
                out.extend_from_slice(data);
                self.left -= data.len();
                bytes = rest;
                continue;
            }
            if let Some(digit) = char::from(first).to_digit(16) {
                self.size = Some(self.size.unwrap_or(0).saturating_mul(16).saturating_add(digit as usize));
            } else if first == b'\n' {
                self.left = self.size.take().unwrap_or(0);
            }
            bytes = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_decoded_however_they_are_cut() {
        let stream = b"14\r\n{\"type\":\"ADDED\"}\nabc\r\n3\r\nd\r\n\r\na\r\n0123456789\r\n0\r\n\r\n";
        for size in 1..stream.len() {
            let (mut chunks, mut out) = (Chunks::default(), Vec::new());
            stream.chunks(size).for_each(|part| chunks.decode(part, &mut out));
            assert_eq!(String::from_utf8(out).unwrap(), "{\"type\":\"ADDED\"}\nabcd\r\n0123456789", "{size}");
        }
    }
}
