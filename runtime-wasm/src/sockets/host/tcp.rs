//! wasi:sockets/tcp and tcp-create-socket of WASI 0.2.

use std::task::{Context, Poll, Waker};

use wasmtime::component::Resource;
use wasmtime_wasi_io::poll::{DynPollable, Pollable, subscribe};
use wasmtime_wasi_io::streams::{DynInputStream, DynOutputStream};

use super::generated::wasi::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress};
use super::generated::wasi::sockets::tcp::{Host, HostTcpSocket, ShutdownType};
use super::generated::wasi::sockets::tcp_create_socket;
use super::stream::Duplex;
use super::tcp_socket::{Options, Step, TcpSocket};
use super::{Network, SocketResult, SocketsCtxView, address};

#[async_trait::async_trait]
impl Pollable for TcpSocket {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await;
    }
}

impl tcp_create_socket::Host for SocketsCtxView<'_> {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        let socket = TcpSocket::new(family, self.net)?;
        Ok(self.table.push(socket)?)
    }
}

impl SocketsCtxView<'_> {
    fn push_streams(
        &mut self,
        socket: &Resource<TcpSocket>,
        duplex: &Duplex,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let input: DynInputStream = Box::new(duplex.input());
        let output: DynOutputStream = Box::new(duplex.output());
        let input = self.table.push_child(input, socket)?;
        Ok((input, self.table.push_child(output, socket)?))
    }

    fn options(&mut self, socket: &Resource<TcpSocket>) -> SocketResult<&mut Options> {
        Ok(&mut self.table.get_mut(socket)?.options)
    }
}

impl Host for SocketsCtxView<'_> {}

impl HostTcpSocket for SocketsCtxView<'_> {
    fn start_bind(
        &mut self,
        socket: Resource<TcpSocket>,
        network: Resource<Network>,
        local: IpSocketAddress,
    ) -> SocketResult<()> {
        self.table.get(&network)?;
        let socket = self.table.get_mut(&socket)?;
        socket.may_start()?;
        socket.bind(self.net, address::from_wasi(local))?;
        socket.step = Some(Step::Bind);
        Ok(())
    }

    fn finish_bind(&mut self, socket: Resource<TcpSocket>) -> SocketResult<()> {
        self.table.get_mut(&socket)?.finish(Step::Bind)
    }

    fn start_connect(
        &mut self,
        socket: Resource<TcpSocket>,
        network: Resource<Network>,
        remote: IpSocketAddress,
    ) -> SocketResult<()> {
        self.table.get(&network)?;
        let socket = self.table.get_mut(&socket)?;
        socket.may_start()?;
        socket.connect(self.net, address::from_wasi(remote))
    }

    fn finish_connect(
        &mut self,
        this: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let socket = self.table.get_mut(&this)?;
        if !socket.is_connecting() {
            return Err(ErrorCode::NotInProgress.into());
        }
        match socket.poll_connected(&mut Context::from_waker(Waker::noop()), self.net) {
            Poll::Ready(result) => result?,
            Poll::Pending => return Err(ErrorCode::WouldBlock.into()),
        }
        let duplex = socket.duplex()?.clone();
        self.push_streams(&this, &duplex)
    }

    fn start_listen(&mut self, socket: Resource<TcpSocket>) -> SocketResult<()> {
        let socket = self.table.get_mut(&socket)?;
        socket.may_start()?;
        socket.listen()?;
        socket.step = Some(Step::Listen);
        Ok(())
    }

    fn finish_listen(&mut self, socket: Resource<TcpSocket>) -> SocketResult<()> {
        self.table.get_mut(&socket)?.finish(Step::Listen)
    }

    fn accept(
        &mut self,
        socket: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<TcpSocket>, Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let listening = self.table.get(&socket)?;
        let acceptor = listening.acceptor()?;
        if acceptor.poll_ready(&mut Context::from_waker(Waker::noop())).is_pending() {
            return Err(ErrorCode::WouldBlock.into());
        }
        // Without a permit the connection stays in the backlog.
        let permit = self.net.socket_permit()?;
        let accepted = acceptor.take().ok_or(ErrorCode::WouldBlock)??;
        let accepted = listening.accepted(accepted, permit, self.net);
        let duplex = accepted.duplex()?.clone();
        let accepted = self.table.push(accepted)?;
        let (input, output) = self.push_streams(&accepted, &duplex)?;
        Ok((accepted, input, output))
    }

    fn local_address(&mut self, socket: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(address::to_wasi(self.table.get(&socket)?.local_address()?))
    }

    fn remote_address(&mut self, socket: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        Ok(address::to_wasi(self.table.get(&socket)?.remote_address()?))
    }

    fn is_listening(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<bool> {
        Ok(self.table.get(&socket)?.acceptor().is_ok())
    }

    fn address_family(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.table.get(&socket)?.family())
    }

    fn set_listen_backlog_size(&mut self, socket: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.table.get_mut(&socket)?.set_backlog(value)
    }

    fn keep_alive_enabled(&mut self, socket: Resource<TcpSocket>) -> SocketResult<bool> {
        Ok(self.options(&socket)?.keep_alive)
    }

    fn set_keep_alive_enabled(&mut self, socket: Resource<TcpSocket>, value: bool) -> SocketResult<()> {
        self.options(&socket)?.keep_alive = value;
        Ok(())
    }

    fn keep_alive_idle_time(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.options(&socket)?.keep_alive_idle)
    }

    fn set_keep_alive_idle_time(&mut self, socket: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.options(&socket)?.set_keep_alive_idle(value)
    }

    fn keep_alive_interval(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.options(&socket)?.keep_alive_interval)
    }

    fn set_keep_alive_interval(&mut self, socket: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.options(&socket)?.set_keep_alive_interval(value)
    }

    fn keep_alive_count(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u32> {
        Ok(self.options(&socket)?.keep_alive_count)
    }

    fn set_keep_alive_count(&mut self, socket: Resource<TcpSocket>, value: u32) -> SocketResult<()> {
        self.options(&socket)?.set_keep_alive_count(value)
    }

    fn hop_limit(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u8> {
        Ok(self.options(&socket)?.hop_limit)
    }

    fn set_hop_limit(&mut self, socket: Resource<TcpSocket>, value: u8) -> SocketResult<()> {
        self.options(&socket)?.set_hop_limit(value)
    }

    fn receive_buffer_size(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.options(&socket)?.receive_buffer)
    }

    fn set_receive_buffer_size(&mut self, socket: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.options(&socket)?.set_receive_buffer(value)
    }

    fn send_buffer_size(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.options(&socket)?.send_buffer)
    }

    fn set_send_buffer_size(&mut self, socket: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.options(&socket)?.set_send_buffer(value)
    }

    fn subscribe(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, socket)
    }

    fn shutdown(&mut self, socket: Resource<TcpSocket>, how: ShutdownType) -> SocketResult<()> {
        let duplex = self.table.get(&socket)?.duplex()?;
        if matches!(how, ShutdownType::Receive | ShutdownType::Both) {
            duplex.shutdown_receive();
        }
        if matches!(how, ShutdownType::Send | ShutdownType::Both) {
            duplex.shutdown_send();
        }
        Ok(())
    }

    fn drop(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<()> {
        self.table.delete(socket)?;
        Ok(())
    }
}
