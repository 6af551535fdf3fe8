//! TCP sockets of WASI 0.3.

use std::future::poll_fn;

use wasmtime::component::{Access, Accessor, Resource, StreamReader};

use super::streams::{Accepting, Receiving, Sending};
use super::types::{Duration, ErrorCode, HostTcpSocket, HostTcpSocketWithStore, IpAddressFamily, IpSocketAddress};
use super::{address, told};
use crate::sockets::host::tcp_socket::Options;
use crate::sockets::host::{SocketResult, Sockets, SocketsCtxView, TcpSocket};
use crate::transfer::{Outcome, Pace, stream_of};

type Socket = Resource<TcpSocket>;
type Outcomes = crate::transfer::Outcomes<ErrorCode>;

impl<T: Send + 'static> HostTcpSocketWithStore<T> for Sockets {
    async fn connect(store: &Accessor<T, Self>, socket: Socket, remote: IpSocketAddress) -> SocketResult<()> {
        store.with(|mut store| {
            let ctx = store.get();
            ctx.table.get_mut(&socket)?.connect(ctx.net, address::from_wasi(remote))
        })?;
        poll_fn(|cx| {
            store.with(|mut store| {
                let ctx = store.get();
                ctx.table.get_mut(&socket)?.poll_connected(cx, ctx.net)
            })
        })
        .await
    }

    fn listen(mut store: Access<'_, T, Self>, socket: Socket) -> SocketResult<StreamReader<Socket>> {
        let sockets = store.getter();
        let ctx = store.get();
        let socket = ctx.table.get_mut(&socket)?;
        socket.bind_if_new(ctx.net)?;
        socket.listen()?;
        let (acceptor, permits) = (socket.acceptor()?.clone(), ctx.net.socket_permits());
        let (family, options) = (socket.family(), socket.options.clone());
        Ok(StreamReader::new(&mut store, Accepting { acceptor, permits, family, options, sockets })?)
    }

    fn send(mut store: Access<'_, T, Self>, socket: Socket, mut data: StreamReader<u8>) -> wasmtime::Result<Outcomes> {
        match told(store.get().table.get_mut(&socket)?.take_sender())? {
            Ok(duplex) => {
                let (outcome, future) = Outcome::new(&mut store)?;
                data.pipe(&mut store, Sending { duplex, outcome, pace: Pace::default() })?;
                Ok(future)
            }
            Err(error) => {
                data.close(&mut store)?;
                Outcome::failed(&mut store, error)
            }
        }
    }

    fn receive(mut store: Access<'_, T, Self>, socket: Socket) -> wasmtime::Result<(StreamReader<u8>, Outcomes)> {
        let duplex = told(store.get().table.get_mut(&socket)?.take_receiver())?;
        stream_of(&mut store, duplex.map(|duplex| |outcome| Receiving { duplex, outcome, pace: Pace::default() }))
    }
}

impl SocketsCtxView<'_> {
    fn settings(&mut self, socket: &Socket) -> SocketResult<&mut Options> {
        Ok(&mut self.table.get_mut(socket)?.options)
    }
}

impl HostTcpSocket for SocketsCtxView<'_> {
    fn create(&mut self, family: IpAddressFamily) -> SocketResult<Socket> {
        let socket = TcpSocket::new(address::family(family), self.net)?;
        Ok(self.table.push(socket)?)
    }

    fn bind(&mut self, socket: Socket, local: IpSocketAddress) -> SocketResult<()> {
        self.table.get_mut(&socket)?.bind(self.net, address::from_wasi(local))
    }

    fn get_local_address(&mut self, socket: Socket) -> SocketResult<IpSocketAddress> {
        Ok(address::to_wasi(self.table.get(&socket)?.local_address()?))
    }

    fn get_remote_address(&mut self, socket: Socket) -> SocketResult<IpSocketAddress> {
        Ok(address::to_wasi(self.table.get(&socket)?.remote_address()?))
    }

    fn get_is_listening(&mut self, socket: Socket) -> wasmtime::Result<bool> {
        Ok(self.table.get(&socket)?.acceptor().is_ok())
    }

    fn get_address_family(&mut self, socket: Socket) -> wasmtime::Result<IpAddressFamily> {
        Ok(address::family_of(self.table.get(&socket)?.family()))
    }

    fn set_listen_backlog_size(&mut self, socket: Socket, value: u64) -> SocketResult<()> {
        self.table.get_mut(&socket)?.set_backlog(value)
    }

    fn get_keep_alive_enabled(&mut self, socket: Socket) -> SocketResult<bool> {
        Ok(self.settings(&socket)?.keep_alive)
    }

    fn set_keep_alive_enabled(&mut self, socket: Socket, value: bool) -> SocketResult<()> {
        self.settings(&socket)?.keep_alive = value;
        Ok(())
    }

    fn get_keep_alive_idle_time(&mut self, socket: Socket) -> SocketResult<Duration> {
        Ok(self.settings(&socket)?.keep_alive_idle)
    }

    fn set_keep_alive_idle_time(&mut self, socket: Socket, value: Duration) -> SocketResult<()> {
        self.settings(&socket)?.set_keep_alive_idle(value)
    }

    fn get_keep_alive_interval(&mut self, socket: Socket) -> SocketResult<Duration> {
        Ok(self.settings(&socket)?.keep_alive_interval)
    }

    fn set_keep_alive_interval(&mut self, socket: Socket, value: Duration) -> SocketResult<()> {
        self.settings(&socket)?.set_keep_alive_interval(value)
    }

    fn get_keep_alive_count(&mut self, socket: Socket) -> SocketResult<u32> {
        Ok(self.settings(&socket)?.keep_alive_count)
    }

    fn set_keep_alive_count(&mut self, socket: Socket, value: u32) -> SocketResult<()> {
        self.settings(&socket)?.set_keep_alive_count(value)
    }

    fn get_hop_limit(&mut self, socket: Socket) -> SocketResult<u8> {
        Ok(self.settings(&socket)?.hop_limit)
    }

    fn set_hop_limit(&mut self, socket: Socket, value: u8) -> SocketResult<()> {
        self.settings(&socket)?.set_hop_limit(value)
    }

    fn get_receive_buffer_size(&mut self, socket: Socket) -> SocketResult<u64> {
        Ok(self.settings(&socket)?.receive_buffer)
    }

    fn set_receive_buffer_size(&mut self, socket: Socket, value: u64) -> SocketResult<()> {
        self.settings(&socket)?.set_receive_buffer(value)
    }

    fn get_send_buffer_size(&mut self, socket: Socket) -> SocketResult<u64> {
        Ok(self.settings(&socket)?.send_buffer)
    }

    fn set_send_buffer_size(&mut self, socket: Socket, value: u64) -> SocketResult<()> {
        self.settings(&socket)?.set_send_buffer(value)
    }

    fn drop(&mut self, socket: Socket) -> wasmtime::Result<()> {
        self.table.delete(socket)?;
        Ok(())
    }
}
