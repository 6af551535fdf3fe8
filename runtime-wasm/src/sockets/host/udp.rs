//! wasi:sockets/udp and udp-create-socket of WASI 0.2.

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
use super::udp_socket::{UdpSocket, poll_receive, target};
use super::{Network, SocketFailure, SocketResult, SocketsCtxView, address};
use crate::network::NetError;
use crate::sockets::bindings::{Datagram, UdpBinding};
use crate::sockets::podnet::MAX_DATAGRAM;

/// Datagrams received or sent by one call at most.
const MAX_BATCH: usize = 16;
/// Bytes received by one call, beyond which no further datagram is taken.
const MAX_BATCH_BYTES: usize = 64 << 10;
/// The receiving side.
pub struct Incoming {
    binding: Arc<Mutex<UdpBinding>>,
    remote: Option<SocketAddr>,
    next: Option<Result<Datagram, NetError>>,
}

impl Incoming {
    /// Whether a datagram waits; keeps it.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.next.is_none() {
            self.next = Some(ready!(poll_receive(&self.binding, self.remote, cx)));
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
}

impl udp_create_socket::Host for SocketsCtxView<'_> {
    fn create_udp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        let socket = UdpSocket::new(family, self.net)?;
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
        socket.bind(self.net, address::from_wasi(local))?;
        socket.is_binding = true;
        Ok(())
    }

    fn finish_bind(&mut self, socket: Resource<UdpSocket>) -> SocketResult<()> {
        let socket = self.table.get_mut(&socket)?;
        if !std::mem::replace(&mut socket.is_binding, false) {
            return Err(ErrorCode::NotInProgress.into());
        }
        Ok(())
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
        let family = socket.family();
        let remote = remote.map(|remote| address::remote(address::from_wasi(remote), family)).transpose()?;
        let (binding, local) = (socket.binding()?.clone(), socket.local_address()?);
        socket.remote = remote;
        let incoming = self.table.push_child(Incoming { binding, remote, next: None }, &this)?;
        let outgoing = Outgoing { local, family, remote, permits: 0, sending: None };
        Ok((incoming, self.table.push_child(outgoing, &this)?))
    }

    fn local_address(&mut self, socket: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(address::to_wasi(self.table.get(&socket)?.local_address()?))
    }

    fn remote_address(&mut self, socket: Resource<UdpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(address::to_wasi(self.table.get(&socket)?.remote.ok_or(ErrorCode::InvalidState)?))
    }

    fn address_family(&mut self, socket: Resource<UdpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.table.get(&socket)?.family())
    }

    fn unicast_hop_limit(&mut self, socket: Resource<UdpSocket>) -> SocketResult<u8> {
        Ok(self.table.get(&socket)?.hop_limit)
    }

    fn set_unicast_hop_limit(&mut self, socket: Resource<UdpSocket>, value: u8) -> SocketResult<()> {
        self.table.get_mut(&socket)?.set_hop_limit(value)
    }

    fn receive_buffer_size(&mut self, socket: Resource<UdpSocket>) -> SocketResult<u64> {
        Ok(self.table.get(&socket)?.receive_buffer)
    }

    fn set_receive_buffer_size(&mut self, socket: Resource<UdpSocket>, value: u64) -> SocketResult<()> {
        self.table.get_mut(&socket)?.set_receive_buffer(value)
    }

    fn send_buffer_size(&mut self, socket: Resource<UdpSocket>) -> SocketResult<u64> {
        Ok(self.table.get(&socket)?.send_buffer)
    }

    fn set_send_buffer_size(&mut self, socket: Resource<UdpSocket>, value: u64) -> SocketResult<()> {
        self.table.get_mut(&socket)?.set_send_buffer(value)
    }

    fn subscribe(&mut self, socket: Resource<UdpSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, socket)
    }

    fn drop(&mut self, socket: Resource<UdpSocket>) -> wasmtime::Result<()> {
        self.table.delete(socket)?;
        Ok(())
    }
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
            let checked =
                target(stream.family, stream.remote, remote_address.map(address::from_wasi)).and_then(|to| match data
                    .len()
                {
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
        let local = stream.local;
        // Within the pod it is done at once; only what the uplink holds up goes on in the background.
        stream.sending = Some(Task::start(async move {
            for (to, data) in batch {
                if let Err(error) = net.send_datagram(local, to, data).await {
                    tracing::debug!(%to, %error, "datagram not sent");
                }
            }
        }));
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
