//! What a socket holds of its pod's port table; dropping it gives the port back.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::podnet::PodNet;
use crate::buffers::Room;
use crate::network::{ByteStream, HttpHandler, NetError};

/// Who serves a TCP port.
pub(super) enum ListenerEntry {
    /// Bound, not listening.
    Reserved,
    /// A guest that accepts.
    Queue(mpsc::Sender<Accepted>),
    /// An in-process HTTP server.
    Http(Arc<dyn HttpHandler>),
}

/// A connection that waits in a backlog, or was accepted from it.
pub struct Accepted {
    /// The bytes.
    pub stream: ByteStream,
    /// This side's address.
    pub local: SocketAddr,
    /// The side that connected.
    pub peer: SocketAddr,
}

/// A reserved TCP address.
pub struct TcpBinding {
    pod: Weak<PodNet>,
    local: SocketAddr,
}

impl TcpBinding {
    pub(super) fn new(pod: Weak<PodNet>, local: SocketAddr) -> Self {
        Self { pod, local }
    }

    /// The address, with its real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Starts to listen; the backlog is cut to the pod's limit.
    pub fn listen(self, backlog: usize) -> Result<TcpListener, NetError> {
        let pod = self.pod.upgrade().ok_or(NetError::Unreachable)?;
        let (sender, queue) = mpsc::channel(backlog.clamp(1, pod.limits().backlog.max(1)));
        pod.replace_listener(self.local, ListenerEntry::Queue(sender))?;
        Ok(TcpListener { binding: self, queue })
    }
}

impl Drop for TcpBinding {
    fn drop(&mut self) {
        if let Some(pod) = self.pod.upgrade() {
            pod.release_tcp(self.local);
        }
    }
}

/// A listening TCP socket of the pod.
pub struct TcpListener {
    binding: TcpBinding,
    queue: mpsc::Receiver<Accepted>,
}

impl TcpListener {
    /// The address, with its real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.binding.local
    }

    /// The next connection; [`NetError::ConnectionReset`] once the pod's network is closed.
    pub async fn accept(&mut self) -> Result<Accepted, NetError> {
        self.queue.recv().await.ok_or(NetError::ConnectionReset)
    }

    /// As [`Self::accept`], polled.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Accepted, NetError>> {
        self.queue.poll_recv(cx).map(|accepted| accepted.ok_or(NetError::ConnectionReset))
    }
}

/// A datagram that waits in a socket's queue, or was received from it.
pub struct Datagram {
    /// The sender.
    pub from: SocketAddr,
    /// The payload.
    pub data: Bytes,
    pub(super) _permit: OwnedSemaphorePermit,
    pub(super) _room: Room,
}

/// A bound UDP socket of the pod.
pub struct UdpBinding {
    pod: Weak<PodNet>,
    local: SocketAddr,
    queue: mpsc::Receiver<Datagram>,
}

impl UdpBinding {
    pub(super) fn new(pod: Weak<PodNet>, local: SocketAddr, queue: mpsc::Receiver<Datagram>) -> Self {
        Self { pod, local, queue }
    }

    /// The address, with its real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The next datagram; [`NetError::ConnectionReset`] once the pod's network is closed.
    pub async fn receive(&mut self) -> Result<Datagram, NetError> {
        self.queue.recv().await.ok_or(NetError::ConnectionReset)
    }

    /// As [`Self::receive`], polled.
    pub fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Datagram, NetError>> {
        self.queue.poll_recv(cx).map(|datagram| datagram.ok_or(NetError::ConnectionReset))
    }
}

impl Drop for UdpBinding {
    fn drop(&mut self) {
        if let Some(pod) = self.pod.upgrade() {
            pod.release_udp(self.local);
        }
    }
}
