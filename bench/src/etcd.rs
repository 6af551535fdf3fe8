//! The store's peer: a single etcd as it comes, and puts over its gRPC API, one HTTP/2 connection for each writer.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::cluster::poll;
use crate::load::{self, Ask};
use crate::program::{self, Output, Program};
use crate::target::Target;

const START: Duration = Duration::from_secs(60);
/// The field numbers of `etcdserverpb.PutRequest`.
const KEY: u8 = 1;
const VALUE: u8 = 2;

/// What `etcd --version` says first.
///
/// # Errors
/// There is none, or it does not run.
pub fn version(path: Option<&Path>) -> Result<String> {
    let said = program::output(Command::new(path.context("no etcd")?).arg("--version"))?;
    let line = said.lines().next().context("etcd --version says nothing")?;
    Ok(format!("etcd {}", line.trim_start_matches("etcd Version: ")))
}

/// A running etcd; dropped, it stops.
pub struct Etcd {
    address: SocketAddr,
    /// The program, ended when this is dropped.
    pub program: Program,
}

impl Etcd {
    /// Starts a member of its own cluster on free ports, with its data in a folder.
    ///
    /// # Errors
    /// It is not healthy within a minute.
    pub fn start(path: &Path, data: &Path) -> Result<Self> {
        let (address, peer) = (free()?, format!("http://{}", free()?));
        let url = format!("http://{address}");
        let mut command = Command::new(path);
        command.args(["--name", "bench", "--log-level", "warn", "--data-dir"]).arg(data);
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &format!("bench={peer}")]);
        command.stderr(File::create(data.with_extension("log"))?).stdout(Stdio::null());
        let program = Program::start("etcd", &mut command, Output::Out)?;
        let target = Target::plain(address);
        poll(START, || load::ask(&target, &Ask { request: target.request("GET", "/health", ""), expect: 200 }))?;
        Ok(Self { address, program })
    }

    /// A writer's connection.
    ///
    /// # Errors
    /// It cannot be made.
    pub async fn connect(&self) -> Result<Writer> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Writer { sender, url: format!("http://{}/etcdserverpb.KV/Put", self.address) })
    }
}

/// Puts, one after another.
pub struct Writer {
    sender: SendRequest<Full<Bytes>>,
    url: String,
}

impl Writer {
    /// Writes a value durably.
    ///
    /// # Errors
    /// etcd refuses or is gone.
    pub async fn put(&mut self, key: &str, value: &[u8]) -> Result<()> {
        let request = Request::post(&self.url)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(frame(key.as_bytes(), value)))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let body = response.into_body().collect().await?;
        let status = body.trailers().and_then(|t| t.get("grpc-status"));
        ensure!(status.is_some_and(|s| s == "0"), "etcd refused a put: {status:?}");
        Ok(())
    }
}

/// A gRPC message: not compressed, its length, and the `PutRequest`.
fn frame(key: &[u8], value: &[u8]) -> Bytes {
    let mut message = Vec::with_capacity(key.len() + value.len() + 16);
    for (number, bytes) in [(KEY, key), (VALUE, value)] {
        message.push(number << 3 | 2);
        let mut rest = bytes.len();
        while rest >= 0x80 {
            message.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        message.push(rest as u8);
        message.extend_from_slice(bytes);
    }
    let mut out = vec![0];
    out.extend((message.len() as u32).to_be_bytes());
    out.extend(message);
    out.into()
}

/// An address that nobody listens on at the moment.
fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_their_length_before_them() {
        assert_eq!(frame(b"k", b"vw").as_ref(), b"\0\0\0\0\x07\x0a\x01k\x12\x02vw");
        let long = frame(b"k", &[7; 300]);
        assert_eq!(long.get(..11).unwrap(), b"\0\0\0\x01\x32\x0a\x01k\x12\xac\x02");
    }
}
