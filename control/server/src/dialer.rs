//! How the server reaches nodes (invariant 3): only over connections that agents opened.

use async_trait::async_trait;

/// A byte stream to a node agent's HTTP server.
pub trait NodeStream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> NodeStream for T {}

/// Opens byte streams to node agents. The agent speaks HTTP/1.1 on each, with the kubelet's paths
/// (`/containerLogs/{namespace}/{pod}/{container}?...`).
#[async_trait]
pub trait NodeDialer: Send + Sync + 'static {
    /// A fresh stream to the named node.
    async fn dial(&self, node: &str) -> Result<Box<dyn NodeStream>, DialError>;
}

/// Why a node cannot be reached.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DialError {
    /// The node's agent has no tunnel open.
    #[error("node {0} is not connected: its agent has no tunnel to this server")]
    NotConnected(String),
    /// The tunnel broke while opening the stream.
    #[error("cannot open a stream to node {node}: {why}")]
    Broken {
        /// The node.
        node: String,
        /// What happened.
        why: String,
    },
}
