//! wasi:sockets/tcp and tcp-create-socket.

use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};

use wasmtime::component::Resource;
use wasmtime_wasi_io::poll::{DynPollable, Pollable, subscribe};
use wasmtime_wasi_io::streams::{DynInputStream, DynOutputStream};

use super::generated::wasi::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress};
use super::generated::wasi::sockets::tcp::{Host, HostTcpSocket, ShutdownType};
use super::generated::wasi::sockets::tcp_create_socket;
use super::stream::Duplex;
use super::task::Task;
use super::{Network, SocketResult, SocketsCtxView, address};
use crate::network::{ByteStream, NetError};
use crate::sockets::bindings::{Accepted, TcpBinding, TcpListener};
use crate::sockets::podnet::SocketPermit;

/// The backlog of a socket that asks for none.
const DEFAULT_BACKLOG: usize = 128;
/// Largest buffer size a socket reports back; the real buffers are the pipe's.
const MAX_BUFFER: u64 = 1 << 20;
/// Largest keep-alive interval, as on Linux, in nanoseconds.
const MAX_KEEP_ALIVE: u64 = 32_767 * 1_000_000_000;
/// Largest number of keep-alive probes, as on Linux.
const MAX_KEEP_ALIVE_COUNT: u32 = 127;

/// A guest's TCP socket.
pub struct TcpSocket {
    family: IpAddressFamily,
    state: State,
    options: Options,
    _permit: SocketPermit,
}

enum State {
    New,
    BindStarted(TcpBinding),
    Bound(TcpBinding),
    ListenStarted(TcpListener),
    Listening {
        listener: TcpListener,
        next: Option<Result<Accepted, NetError>>,
    },
    Connecting {
        task: Task<Result<(ByteStream, SocketAddr), NetError>>,
        remote: SocketAddr,
        binding: Option<TcpBinding>,
    },
    Connected {
        duplex: Duplex,
        local: SocketAddr,
        remote: SocketAddr,
        _binding: Option<TcpBinding>,
    },
    Closed,
}

/// Stored, reported, and inherited by accepted sockets. Pipes in memory need none of them.
#[derive(Clone)]
struct Options {
    backlog: usize,
    keep_alive: bool,
    keep_alive_idle: u64,
    keep_alive_interval: u64,
    keep_alive_count: u32,
    hop_limit: u8,
    receive_buffer: u64,
    send_buffer: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            backlog: DEFAULT_BACKLOG,
            keep_alive: false,
            keep_alive_idle: 7_200_000_000_000,
            keep_alive_interval: 75_000_000_000,
            keep_alive_count: 9,
            hop_limit: 64,
            receive_buffer: 65_536,
            send_buffer: 65_536,
        }
    }
}

impl TcpSocket {
    fn take(&mut self) -> State {
        std::mem::replace(&mut self.state, State::Closed)
    }

    /// The right error for `start-*` in a state that does not allow it.
    fn unstartable(&self) -> ErrorCode {
        match self.state {
            State::BindStarted(_) | State::ListenStarted(_) | State::Connecting { .. } => {
                ErrorCode::ConcurrencyConflict
            }
            _ => ErrorCode::InvalidState,
        }
    }

    /// Whether a connection waits; keeps it for `accept`.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let State::Listening { listener, next: next @ None } = &mut self.state {
            match listener.poll_accept(cx) {
                Poll::Ready(accepted) => *next = Some(accepted),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(())
    }
}

#[async_trait::async_trait]
impl Pollable for TcpSocket {
    async fn ready(&mut self) {
        match &mut self.state {
            State::Connecting { task, .. } => task.ready().await,
            State::Listening { .. } => std::future::poll_fn(|cx| self.poll_next(cx)).await,
            _ => {}
        }
    }
}

impl tcp_create_socket::Host for SocketsCtxView<'_> {
    fn create_tcp_socket(&mut self, family: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        let permit = self.net.socket_permit()?;
        let socket = TcpSocket { family, state: State::New, options: Options::default(), _permit: permit };
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

/// A value within bounds; zero is invalid.
fn positive<T: Ord + Default>(value: T, max: T) -> SocketResult<T> {
    if value == T::default() { Err(ErrorCode::InvalidArgument.into()) } else { Ok(value.min(max)) }
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
        if !matches!(socket.state, State::New) {
            return Err(socket.unstartable().into());
        }
        let local = address::of_family(local, socket.family)?;
        socket.state = State::BindStarted(self.net.bind_tcp(local)?);
        Ok(())
    }

    fn finish_bind(&mut self, socket: Resource<TcpSocket>) -> SocketResult<()> {
        let socket = self.table.get_mut(&socket)?;
        match socket.take() {
            State::BindStarted(binding) => {
                socket.state = State::Bound(binding);
                Ok(())
            }
            other => {
                socket.state = other;
                Err(ErrorCode::NotInProgress.into())
            }
        }
    }

    fn start_connect(
        &mut self,
        socket: Resource<TcpSocket>,
        network: Resource<Network>,
        remote: IpSocketAddress,
    ) -> SocketResult<()> {
        self.table.get(&network)?;
        let socket = self.table.get_mut(&socket)?;
        if !matches!(socket.state, State::New | State::Bound(_)) {
            return Err(socket.unstartable().into());
        }
        let remote = address::remote(remote, socket.family)?;
        let binding = match socket.take() {
            State::Bound(binding) => Some(binding),
            _ => None,
        };
        let from = binding.as_ref().map(TcpBinding::local_addr);
        let net = self.net.clone();
        let task = Task::spawn(async move {
            let connection = net.connect_from(from, remote).await?;
            Ok((net.into_stream(connection.endpoint), connection.local))
        });
        socket.state = State::Connecting { task, remote, binding };
        Ok(())
    }

    fn finish_connect(
        &mut self,
        this: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let (closed, buffers) = (self.net.closed(), self.net.buffers().clone());
        let socket = self.table.get_mut(&this)?;
        let State::Connecting { task, .. } = &mut socket.state else { return Err(ErrorCode::NotInProgress.into()) };
        let result = task.take().ok_or(ErrorCode::WouldBlock)?;
        let State::Connecting { remote, binding, .. } = socket.take() else {
            return Err(ErrorCode::NotInProgress.into());
        };
        let (stream, local) = result.flatten()?;
        let duplex = Duplex::new(stream, closed, buffers);
        socket.state = State::Connected { duplex: duplex.clone(), local, remote, _binding: binding };
        self.push_streams(&this, &duplex)
    }

    fn start_listen(&mut self, socket: Resource<TcpSocket>) -> SocketResult<()> {
        let socket = self.table.get_mut(&socket)?;
        match socket.take() {
            State::Bound(binding) => {
                socket.state = State::ListenStarted(binding.listen(socket.options.backlog)?);
                Ok(())
            }
            other => {
                socket.state = other;
                Err(socket.unstartable().into())
            }
        }
    }

    fn finish_listen(&mut self, socket: Resource<TcpSocket>) -> SocketResult<()> {
        let socket = self.table.get_mut(&socket)?;
        match socket.take() {
            State::ListenStarted(listener) => {
                socket.state = State::Listening { listener, next: None };
                Ok(())
            }
            other => {
                socket.state = other;
                Err(ErrorCode::NotInProgress.into())
            }
        }
    }

    fn accept(
        &mut self,
        socket: Resource<TcpSocket>,
    ) -> SocketResult<(Resource<TcpSocket>, Resource<DynInputStream>, Resource<DynOutputStream>)> {
        let (closed, buffers) = (self.net.closed(), self.net.buffers().clone());
        let listening = self.table.get_mut(&socket)?;
        let (family, options) = (listening.family, listening.options.clone());
        if listening.poll_next(&mut Context::from_waker(Waker::noop())).is_pending() {
            return Err(ErrorCode::WouldBlock.into());
        }
        let State::Listening { next, .. } = &mut listening.state else { return Err(ErrorCode::InvalidState.into()) };
        // Without a permit the connection stays in the backlog.
        let permit = self.net.socket_permit()?;
        let Accepted { stream, local, peer } = next.take().ok_or(ErrorCode::WouldBlock)??;
        let duplex = Duplex::new(stream, closed, buffers);
        let state = State::Connected { duplex: duplex.clone(), local, remote: peer, _binding: None };
        let accepted = self.table.push(TcpSocket { family, state, options, _permit: permit })?;
        let (input, output) = self.push_streams(&accepted, &duplex)?;
        Ok((accepted, input, output))
    }

    fn local_address(&mut self, socket: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        let local = match &self.table.get(&socket)?.state {
            State::Bound(binding) => binding.local_addr(),
            State::ListenStarted(listener) | State::Listening { listener, .. } => listener.local_addr(),
            State::Connecting { binding: Some(binding), .. } => binding.local_addr(),
            State::Connected { local, .. } => *local,
            _ => return Err(ErrorCode::InvalidState.into()),
        };
        Ok(address::to_wasi(local))
    }

    fn remote_address(&mut self, socket: Resource<TcpSocket>) -> SocketResult<IpSocketAddress> {
        match &self.table.get(&socket)?.state {
            State::Connected { remote, .. } => Ok(address::to_wasi(*remote)),
            _ => Err(ErrorCode::InvalidState.into()),
        }
    }

    fn is_listening(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<bool> {
        Ok(matches!(self.table.get(&socket)?.state, State::Listening { .. }))
    }

    fn address_family(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<IpAddressFamily> {
        Ok(self.table.get(&socket)?.family)
    }

    fn set_listen_backlog_size(&mut self, socket: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        let socket = self.table.get_mut(&socket)?;
        match socket.state {
            State::New | State::BindStarted(_) | State::Bound(_) => {
                socket.options.backlog = usize::try_from(positive(value, u64::from(u16::MAX))?).unwrap_or(usize::MAX);
                Ok(())
            }
            // A queue keeps the size it was made with.
            State::ListenStarted(_) | State::Listening { .. } => Err(ErrorCode::NotSupported.into()),
            _ => Err(ErrorCode::InvalidState.into()),
        }
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
        self.options(&socket)?.keep_alive_idle = positive(value, MAX_KEEP_ALIVE)?;
        Ok(())
    }

    fn keep_alive_interval(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.options(&socket)?.keep_alive_interval)
    }

    fn set_keep_alive_interval(&mut self, socket: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.options(&socket)?.keep_alive_interval = positive(value, MAX_KEEP_ALIVE)?;
        Ok(())
    }

    fn keep_alive_count(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u32> {
        Ok(self.options(&socket)?.keep_alive_count)
    }

    fn set_keep_alive_count(&mut self, socket: Resource<TcpSocket>, value: u32) -> SocketResult<()> {
        self.options(&socket)?.keep_alive_count = positive(value, MAX_KEEP_ALIVE_COUNT)?;
        Ok(())
    }

    fn hop_limit(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u8> {
        Ok(self.options(&socket)?.hop_limit)
    }

    fn set_hop_limit(&mut self, socket: Resource<TcpSocket>, value: u8) -> SocketResult<()> {
        self.options(&socket)?.hop_limit = positive(value, u8::MAX)?;
        Ok(())
    }

    fn receive_buffer_size(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.options(&socket)?.receive_buffer)
    }

    fn set_receive_buffer_size(&mut self, socket: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.options(&socket)?.receive_buffer = positive(value, MAX_BUFFER)?;
        Ok(())
    }

    fn send_buffer_size(&mut self, socket: Resource<TcpSocket>) -> SocketResult<u64> {
        Ok(self.options(&socket)?.send_buffer)
    }

    fn set_send_buffer_size(&mut self, socket: Resource<TcpSocket>, value: u64) -> SocketResult<()> {
        self.options(&socket)?.send_buffer = positive(value, MAX_BUFFER)?;
        Ok(())
    }

    fn subscribe(&mut self, socket: Resource<TcpSocket>) -> wasmtime::Result<Resource<DynPollable>> {
        subscribe(self.table, socket)
    }

    fn shutdown(&mut self, socket: Resource<TcpSocket>, how: ShutdownType) -> SocketResult<()> {
        let State::Connected { duplex, .. } = &self.table.get(&socket)?.state else {
            return Err(ErrorCode::InvalidState.into());
        };
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
