//! wasi:sockets/udp and udp-create-socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use parking_lot::Mutex;
use wasmtime::component::Resource;
use wasmtime_wasi_io::poll::{DynPollable, Pollable, subscribe};

use super::generated::wasi::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress};
use super::generated::wasi::sockets::udp::{
    Host, HostIncomingDatagramStream, HostOutgoingDatagramStream, HostUdpSocket, IncomingDatagram, OutgoingDatagram,
};
use super::generated::wasi::sockets::udp_create_socket;
use super::task::Task;
use super::{Network, SocketFailure, SocketResult, SocketsCtxView, address};
use crate::network::NetError;
use crate::sockets::bindings::{Datagram, UdpBinding};
use crate::sockets::podnet::{DATAGRAM_COST, MAX_DATAGRAM, SocketPermit};

/// Datagrams received or sent by one call at most.
const MAX_BATCH: usize = 16;
/// Bytes received by one call, beyond which no further datagram is taken.
const MAX_BATCH_BYTES: usize = 64 << 10;
/// Largest buffer size a socket reports back; the real buffer is the pod's datagram queue.
const MAX_BUFFER: u64 = 1 << 20;

/// A guest's UDP socket.
pub struct UdpSocket {
    family: IpAddressFamily,
    state: State,
    remote: Option<SocketAddr>,
    hop_limit: u8,
    receive_buffer: u64,
    send_buffer: u64,
    _permit: SocketPermit,
}

enum State {
    New,
    BindStarted(UdpBinding),
    Bound(Arc<Mutex<UdpBinding>>),
}

impl UdpSocket {
    fn binding(&self) -> Option<&Arc<Mutex<UdpBinding>>> {
        match &self.state {
            State::Bound(binding) => Some(binding),
            _ => None,
        }
    }
}

/// The receiving side.
pub struct Incoming {
    binding: Arc<Mutex<UdpBinding>>,
    remote: Option<SocketAddr>,
    next: Option<Result<Datagram, NetError>>,
}

impl Incoming {
    /// Whether a datagram waits; keeps it. What a connected socket gets from others is dropped.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.next.is_none() {
            let received = ready!(self.binding.lock().poll_receive(cx));
            let is_ours = |datagram: &Datagram| self.remote.is_none_or(|remote| remote == datagram.from);
            if received.as_ref().map_or(true, is_ours) {
                self.next = Some(received);
            }
        }
        Poll::Ready(())
    }
}

/// The sending side.
pub struct Outgoing {
    local: SocketAddr,
    family: IpAddressFamily,
    remote: Option<SocketAddr>,
    permits: usize,
    /// A batch on its way out.
    sending: Option<Task<()>>,
}

impl Outgoing {
    fn is_busy(&mut self) -> bool {
        if let Some(task) = &mut self.sending
            && task.take().is_some()
        {
            self.sending = None;
        }
        self.sending.is_some()
    }

    /// Where a datagram goes: connected sockets name no other address.
    fn target(&self, named: Option<IpSocketAddress>) -> Result<SocketAddr, ErrorCode> {
        let named = named.map(|named| address::remote(named, self.family)).transpose()?;
        match (self.remote, named) {
            (Some(remote), Some(named)) if remote != named => Err(ErrorCode::InvalidArgument),
            (Some(remote), _) => Ok(remote),
            (None, Some(named)) => Ok(named),
            (None, None) => Err(ErrorCode::InvalidArgument),
        }
    }
}

impl udp_create_socket::Host for SocketsCtxView<'_> {
    fn create_udp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        let socket = UdpSocket {
            family,
            state: State::New,
            remote: None,
            hop_limit: 64,
            receive_buffer: MAX_BATCH_BYTES as u64,
            send_buffer: MAX_BATCH_BYTES as u64,
            _permit: self.net.socket_permit()?,
        };
        Ok(self.table.push(socket)?)
    }
}

impl Host for SocketsCtxView<'_> {}

impl HostUdpSocket for SocketsCtxView<'_> {
    fn start_bind(
        &mut self,
        socket: Resource<UdpSocket>,
        network: Resource<Network>,
        local: IpSocketAddress,
    ) -> SocketResult<()> {
        self.table.get(&network)?;
        let socket = self.table.get_mut(&socket)?;
        match socket.state {
            State::New => {}
            State::BindStarted(_) => return Err(ErrorCode::ConcurrencyConflict.into()),
            State::Bound(_) => return Err(ErrorCode::InvalidState.into()),
        }
        let local = address::of_family(local, socket.family)?;
        socket.state = State::BindStarted(self.net.bind_udp(local)?);
        Ok(())
    }

    fn finish_bind(&mut self, socket: Resource<UdpSocket>) -> SocketResult<()> {
        let socket = self.table.get_mut(&socket)?;
        match std::mem::replace(&mut socket.state, State::New) {
            State::BindStarted(binding) => {
                socket.state = State::Bound(Arc::new(Mutex::new(binding)));
                Ok(())
            }
            other => {
                socket.state = other;
                Err(ErrorCode::NotInProgress.into())
            }
        }
    }

    fn stream(
        &mut self,
        this: Resource<UdpSocket>,
        remote: Option<IpSocketAddress>,
    ) -> SocketResult<(Resource<Incoming>, Resource<Outgoing>)> {
        if self.table.iter_children(&this)?.any(|child| child.is::<Incoming>() || child.is::<Outgoing>()) {
            return Err(SocketFailure::trap("the socket's earlier datagram streams are not dropped yet"));
        }
        let socket = self.table.get_mut(&this)?;
        let remote = remote.map(|remote| address::remote(remote, socket.family)).transpose()?;
        let binding = socket.binding().ok_or(ErrorCode::InvalidState)?.clone();
        socket.remote = remote;
        let (local, family) = (binding.lock().local_addr(), socket.family);
        let incoming = self.table.push_child(Incoming { binding, remote, next: None }, &this)?;
        let outgoing = Outgoing { local, family, remote, permits: 0, sending: None };
        Ok((incoming, self.table.push_child(outgoing, &this)?))
    }

    fn local_address(&mut self, socket: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        let binding = self.table.get(&socket)?.binding().ok_or(ErrorCode::InvalidState)?;
        Ok(address::to_wasi(binding.lock().local_addr()))
    }

    fn remote_address(&mut self, socket: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(address::to_wasi(self.table.get(&socket)?.remote.ok_or(ErrorCode::InvalidState)?))
    }

    fn address_family(&mut self, socket: Resource<UdpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.table.get(&socket)?.family)
    }

    fn unicast_hop_limit(&mut self, socket: Resource<UdpSocket>) -> SocketResult<u8> {
        Ok(self.table.get(&socket)?.hop_limit)
    }

    fn set_unicast_hop_limit(&mut self, socket: Resource<UdpSocket>, value: u8) -> SocketResult<()> {
        if value == 0 {
            return Err(ErrorCode::InvalidArgument.into());
        }
        self.table.get_mut(&socket)?.hop_limit = value;
        Ok(())
    }

    fn receive_buffer_size(&mut self, socket: Resource<UdpSocket>) -> SocketResult<u64> {
        Ok(self.table.get(&socket)?.receive_buffer)
    }

    fn set_receive_buffer_size(&mut self, socket: Resource<UdpSocket>, value: u64) -> SocketResult<()> {
        self.table.get_mut(&socket)?.receive_buffer = buffer_size(value)?;
        Ok(())
    }

    fn send_buffer_size(&mut self, socket: Resource<UdpSocket>) -> SocketResult<u64> {
        Ok(self.table.get(&socket)?.send_buffer)
    }

    fn set_send_buffer_size(&mut self, socket: Resource<UdpSocket>, value: u64) -> SocketResult<()> {
        self.table.get_mut(&socket)?.send_buffer = buffer_size(value)?;
        Ok(())
    }

    fn subscribe(&mut self, socket: Resource<UdpSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, socket)
    }

    fn drop(&mut self, socket: Resource<UdpSocket>) -> wasmtime::Result<()> {
        self.table.delete(socket)?;
        Ok(())
    }
}

fn buffer_size(value: u64) -> SocketResult<u64> {
    if value == 0 { Err(ErrorCode::InvalidArgument.into()) } else { Ok(value.min(MAX_BUFFER)) }
}

#[async_trait::async_trait]
impl Pollable for UdpSocket {
    /// Nothing on the socket itself takes time.
    async fn ready(&mut self) {}
}

impl HostIncomingDatagramStream for SocketsCtxView<'_> {
    fn receive(&mut self, stream: Resource<Incoming>, max: u64) -> SocketResult<Vec<IncomingDatagram>> {
        let stream = self.table.get_mut(&stream)?;
        let max = usize::try_from(max).unwrap_or(usize::MAX).min(MAX_BATCH);
        let cx = &mut Context::from_waker(Waker::noop());
        let mut received = Vec::new();
        let mut bytes = 0;
        while received.len() < max && bytes < MAX_BATCH_BYTES && stream.poll_next(cx).is_ready() {
            match stream.next.take() {
                Some(Ok(datagram)) => {
                    bytes += datagram.data.len();
                    let remote_address = address::to_wasi(datagram.from);
                    received.push(IncomingDatagram { data: datagram.data.into(), remote_address });
                }
                Some(Err(error)) if received.is_empty() => return Err(error.into()),
                _ => break,
            }
        }
        Ok(received)
    }

    fn subscribe(&mut self, stream: Resource<Incoming>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, stream)
    }

    fn drop(&mut self, stream: Resource<Incoming>) -> wasmtime::Result<()> {
        self.table.delete(stream)?;
        Ok(())
    }
}

#[async_trait::async_trait]
impl Pollable for Incoming {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll_next(cx)).await;
    }
}

impl HostOutgoingDatagramStream for SocketsCtxView<'_> {
    fn check_send(&mut self, stream: Resource<Outgoing>) -> SocketResult<u64> {
        let stream = self.table.get_mut(&stream)?;
        stream.permits = if stream.is_busy() { 0 } else { MAX_BATCH };
        Ok(stream.permits as u64)
    }

    fn send(&mut self, stream: Resource<Outgoing>, datagrams: Vec<OutgoingDatagram>) -> SocketResult<u64> {
        let net = self.net.clone();
        let stream = self.table.get_mut(&stream)?;
        if datagrams.len() > stream.permits {
            return Err(SocketFailure::trap("more datagrams than check-send permitted"));
        }
        stream.permits = 0;
        let mut batch = Vec::with_capacity(datagrams.len());
        for OutgoingDatagram { data, remote_address } in datagrams {
            let checked = stream.target(remote_address).and_then(|to| match data.len() {
                ..=MAX_DATAGRAM => crate::sockets::policy::decide(crate::sockets::policy::Op::Send, to)
                    .map(|()| to)
                    .map_err(|error| super::code(&error)),
                _ => Err(ErrorCode::DatagramTooLarge),
            });
            match checked {
                Ok(to) => batch.push((to, Bytes::from(data))),
                Err(code) if batch.is_empty() => return Err(code.into()),
                // What was good before it is sent; the guest meets the error when it tries the rest.
                Err(_) => break,
            }
        }
        let count = batch.len() as u64;
        let bytes: usize = batch.iter().map(|(_, data): &(_, Bytes)| data.len().saturating_add(DATAGRAM_COST)).sum();
        let buffers = net.buffers().clone();
        let local = stream.local;
        let mut sending = Box::pin(async move {
            for (to, data) in batch {
                if let Err(error) = net.send_datagram(local, to, data).await {
                    tracing::debug!(%to, %error, "datagram not sent");
                }
            }
        });
        // Within the pod it is done at once; only what the uplink holds up goes on in the background, and is dropped if
        // the pod's buffers have no room for it.
        if sending.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
            && let Some(room) = buffers.borrow(bytes as u64)
        {
            stream.sending = Some(Task::spawn(async move {
                sending.await;
                drop(room);
            }));
        }
        Ok(count)
    }

    fn subscribe(&mut self, stream: Resource<Outgoing>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, stream)
    }

    fn drop(&mut self, stream: Resource<Outgoing>) -> wasmtime::Result<()> {
        let stream = self.table.delete(stream)?;
        if let Some(task) = stream.sending {
            let closed = self.net.closed();
            tokio::spawn(async move { closed.run_until_cancelled(task.result()).await.map(drop) });
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Pollable for Outgoing {
    async fn ready(&mut self) {
        if let Some(task) = &mut self.sending {
            task.ready().await;
        }
    }
}
