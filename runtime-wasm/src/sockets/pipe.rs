//! Byte pipes between two ends in this process.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::bindings::Accepted;
use crate::http::serve_stream;
use crate::network::{ByteStream, HttpHandler, NetError};

/// Bytes that wait in each direction of a connection before its writer must wait.
pub const PIPE_BYTES: usize = 64 << 10;
/// Puts a new connection into a listener's backlog and returns the connecting side's end.
pub(super) fn offer(
    queue: &mpsc::Sender<Accepted>,
    local: SocketAddr,
    peer: SocketAddr,
) -> Result<ByteStream, NetError> {
    let slot = queue.try_reserve().map_err(|_| NetError::ConnectionRefused)?;
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    slot.send(Accepted { stream: Box::new(far), local, peer });
    Ok(Box::new(near))
}

/// A byte pipe to an in-process HTTP server, which speaks HTTP/1.1 and, with prior knowledge, HTTP/2 on it. The
/// connection ends when either side closes it or `closed` is cancelled.
pub fn http(handler: Arc<dyn HttpHandler>, closed: CancellationToken) -> ByteStream {
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    tokio::spawn(async move {
        if let Some(Err(error)) = closed.run_until_cancelled(serve_stream(handler, Box::new(far))).await {
            tracing::debug!(%error, "in-process HTTP connection ended");
        }
    });
    Box::new(near)
}
