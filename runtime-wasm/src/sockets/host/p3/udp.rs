//! UDP sockets of WASI 0.3.

use std::future::poll_fn;

use bytes::Bytes;
use wasmtime::component::{Accessor, Resource};

use super::address;
use super::types::{HostUdpSocket, HostUdpSocketWithStore, IpAddressFamily, IpSocketAddress};
use crate::sockets::host::generated::wasi::sockets::network::ErrorCode;
use crate::sockets::host::task::Task;
use crate::sockets::host::udp_socket::{poll_receive, target};
use crate::sockets::host::{SocketResult, Sockets, SocketsCtxView, UdpSocket, address as checks};
use crate::sockets::policy::{Op, decide};

type Socket = Resource<UdpSocket>;

impl<T: Send + 'static> HostUdpSocketWithStore<T> for Sockets {
    async fn send(
        store: &Accessor<T, Self>,
        socket: Socket,
        data: Vec<u8>,
        remote: Option<IpSocketAddress>,
    ) -> SocketResult<()> {
        let sending = store.with(|mut store| -> SocketResult<_> {
            let ctx = store.get();
            let socket = ctx.table.get_mut(&socket)?;
            let to = target(socket.family(), socket.remote, remote.map(address::from_wasi))?;
            socket.bind_if_new(ctx.net)?;
            let (net, local) = (ctx.net.clone(), socket.local_address()?);
            Ok(Task::start(async move { net.send_datagram(local, to, Bytes::from(data)).await }))
        })?;
        Ok(sending.result().await.flatten()?)
    }

    async fn receive(store: &Accessor<T, Self>, socket: Socket) -> SocketResult<(Vec<u8>, IpSocketAddress)> {
        let (binding, remote, receivers) = store.with(|mut store| -> SocketResult<_> {
            let socket = store.get().table.get(&socket)?;
            Ok((socket.binding()?.clone(), socket.remote, socket.receivers.clone()))
        })?;
        let _turn = receivers.lock().await;
        let datagram = poll_fn(|cx| poll_receive(&binding, remote, cx)).await?;
        Ok((datagram.data.into(), address::to_wasi(datagram.from)))
    }
}

impl HostUdpSocket for SocketsCtxView<'_> {
    fn create(&mut self, family: IpAddressFamily) -> SocketResult<Socket> {
        let socket = UdpSocket::new(address::family(family), self.net)?;
        Ok(self.table.push(socket)?)
    }

    fn bind(&mut self, socket: Socket, local: IpSocketAddress) -> SocketResult<()> {
        self.table.get_mut(&socket)?.bind(self.net, address::from_wasi(local))
    }

    fn connect(&mut self, socket: Socket, remote: IpSocketAddress) -> SocketResult<()> {
        let socket = self.table.get_mut(&socket)?;
        let remote = checks::remote(address::from_wasi(remote), socket.family())?;
        decide(Op::Send, remote)?;
        socket.bind_if_new(self.net)?;
        socket.remote = Some(remote);
        Ok(())
    }

    fn disconnect(&mut self, socket: Socket) -> SocketResult<()> {
        self.table.get_mut(&socket)?.remote.take().map(drop).ok_or(ErrorCode::InvalidState.into())
    }

    fn get_local_address(&mut self, socket: Socket) -> SocketResult<IpSocketAddress> {
        Ok(address::to_wasi(self.table.get(&socket)?.local_address()?))
    }

    fn get_remote_address(&mut self, socket: Socket) -> SocketResult<IpSocketAddress> {
        Ok(address::to_wasi(self.table.get(&socket)?.remote.ok_or(ErrorCode::InvalidState)?))
    }

    fn get_address_family(&mut self, socket: Socket) -> wasmtime::Result<IpAddressFamily> {
        Ok(address::family_of(self.table.get(&socket)?.family()))
    }

    fn get_unicast_hop_limit(&mut self, socket: Socket) -> SocketResult<u8> {
        Ok(self.table.get(&socket)?.hop_limit)
    }

    fn set_unicast_hop_limit(&mut self, socket: Socket, value: u8) -> SocketResult<()> {
        self.table.get_mut(&socket)?.set_hop_limit(value)
    }

    fn get_receive_buffer_size(&mut self, socket: Socket) -> SocketResult<u64> {
        Ok(self.table.get(&socket)?.receive_buffer)
    }

    fn set_receive_buffer_size(&mut self, socket: Socket, value: u64) -> SocketResult<()> {
        self.table.get_mut(&socket)?.set_receive_buffer(value)
    }

    fn get_send_buffer_size(&mut self, socket: Socket) -> SocketResult<u64> {
        Ok(self.table.get(&socket)?.send_buffer)
    }

    fn set_send_buffer_size(&mut self, socket: Socket, value: u64) -> SocketResult<()> {
        self.table.get_mut(&socket)?.set_send_buffer(value)
    }

    fn drop(&mut self, socket: Socket) -> wasmtime::Result<()> {
        self.table.delete(socket)?;
        Ok(())
    }
}
