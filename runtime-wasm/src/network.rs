//! A pod's network: its loopback, its port table, and what lies beyond it ([`Uplink`]).
//!
//! Guests never touch host sockets: every guest socket is a [`ByteStream`] or datagram queue of this module.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;

/// A bidirectional byte pipe with backpressure and half-close (`poll_shutdown` closes the write side).
pub trait Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Io for T {}
/// A boxed byte pipe.
pub type ByteStream = Box<dyn Io>;

/// Why a network call failed; maps one to one onto WASI socket error codes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetError {
    /// Policy denies it.
    #[error("access denied: {0}")]
    AccessDenied(String),
    /// The port is bound already in this pod.
    #[error("address in use")]
    AddressInUse,
    /// The address does not belong to this pod.
    #[error("address not bindable")]
    AddressNotBindable,
    /// Nothing listens there.
    #[error("connection refused")]
    ConnectionRefused,
    /// The peer reset the connection.
    #[error("connection reset")]
    ConnectionReset,
    /// No way to that address.
    #[error("remote unreachable")]
    Unreachable,
    /// It took too long.
    #[error("timed out")]
    Timeout,
    /// The name does not exist.
    #[error("name does not exist")]
    NameUnresolvable,
    /// The resolver cannot answer now.
    #[error("temporary resolver failure")]
    TemporaryResolverFailure,
    /// A bound (sockets per pod, backlog, datagram size) is reached.
    #[error("limit reached: {0}")]
    LimitReached(&'static str),
    /// Not supported here.
    #[error("not supported")]
    NotSupported,
}

/// What a pod's listener gives to someone who connects.
pub enum Endpoint {
    /// A byte pipe to the accepting guest.
    Stream(ByteStream),
    /// The node serves this port's `wasi:http` component: call it without serialising HTTP.
    Http(Arc<dyn HttpHandler>),
}

/// An in-process HTTP server (a `wasi:http` component in its sandbox).
#[async_trait]
pub trait HttpHandler: Send + Sync + 'static {
    /// Answers one request. Never fails: errors are HTTP statuses.
    async fn handle(&self, request: http::Request<HttpBody>) -> http::Response<HttpBody>;
    /// Admits one more connection that speaks HTTP to it in bytes, at the cost of its pod for as long as the result is
    /// held; [`NetError::LimitReached`] if that has no room. `None`: it belongs to no pod.
    fn admit(&self) -> Result<Option<crate::sockets::HttpPermit>, NetError> {
        Ok(None)
    }
}

/// A streamed HTTP body.
pub type HttpBody = http_body_util::combinators::UnsyncBoxBody<bytes::Bytes, anyhow::Error>;

/// What lies beyond a pod's loopback; the node's fabric implements it per pod (it knows the pod's identity) and
/// decides policy there. Addresses inside 127.0.0.0/8 and ::1 never reach it.
#[async_trait]
pub trait Uplink: Send + Sync + 'static {
    /// Opens a TCP connection from this pod to `to`.
    async fn connect(&self, from: SocketAddr, to: SocketAddr) -> Result<Endpoint, NetError>;
    /// Resolves a host name as this pod (search domains applied by the uplink).
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, NetError>;
    /// Sends one datagram from this pod to `to`; delivery is not promised.
    async fn send_datagram(&self, from: SocketAddr, to: SocketAddr, data: bytes::Bytes) -> Result<(), NetError>;
    /// Whether the pod may bind this address and port (policy), asked before the port table is.
    fn may_bind(&self, _address: SocketAddr) -> Result<(), NetError> {
        Ok(())
    }
}
