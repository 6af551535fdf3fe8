//! A guest's TCP socket, whichever WASI it speaks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;

use super::generated::wasi::sockets::network::{ErrorCode, IpAddressFamily};
use super::stream::{Duplex, Held};
use super::task::Task;
use super::{SocketResult, address};
use crate::network::{ByteStream, NetError};
use crate::sockets::bindings::{Accepted, TcpBinding, TcpListener};
use crate::sockets::podnet::{PodNet, SocketPermit};

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
    /// What WASI 0.2 wants finished by a second call.
    pub(super) step: Option<Step>,
    pub(super) options: Options,
    permit: Arc<SocketPermit>,
}

/// A call of WASI 0.2 that has two parts, though nothing here takes time.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Bind,
    Listen,
}

enum State {
    New,
    Bound(TcpBinding),
    Listening(Acceptor),
    Connecting {
        task: Task<Result<(ByteStream, SocketAddr), NetError>>,
        remote: SocketAddr,
        binding: Option<TcpBinding>,
    },
    Connected {
        duplex: Duplex,
        local: SocketAddr,
        remote: SocketAddr,
        taken: Taken,
    },
    Closed,
}

/// Directions of which WASI 0.3 has made its only stream.
#[derive(Default)]
struct Taken {
    sender: bool,
    receiver: bool,
}

impl TcpSocket {
    pub(super) fn new(family: IpAddressFamily, net: &PodNet) -> SocketResult<Self> {
        let permit = Arc::new(net.socket_permit()?);
        Ok(Self { family, state: State::New, step: None, options: Options::default(), permit })
    }

    pub(super) fn family(&self) -> IpAddressFamily {
        self.family
    }

    /// Whether nothing is under way; the right error for calls that would start something, if not.
    pub(super) fn may_start(&self) -> SocketResult<()> {
        match (self.step, &self.state) {
            (Some(_), _) | (None, State::Connecting { .. }) => Err(ErrorCode::ConcurrencyConflict.into()),
            _ => Ok(()),
        }
    }

    pub(super) fn finish(&mut self, step: Step) -> SocketResult<()> {
        if self.step != Some(step) {
            return Err(ErrorCode::NotInProgress.into());
        }
        self.step = None;
        Ok(())
    }

    pub(super) fn bind(&mut self, net: &PodNet, local: SocketAddr) -> SocketResult<()> {
        if !matches!(self.state, State::New) {
            return Err(ErrorCode::InvalidState.into());
        }
        self.state = State::Bound(net.bind_tcp(address::unicast(local, self.family)?)?);
        Ok(())
    }

    /// Listens. Only a bound socket can.
    pub(super) fn listen(&mut self) -> SocketResult<()> {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Bound(binding) => {
                self.state =
                    State::Listening(Acceptor::new(binding.listen(self.options.backlog)?, self.permit.clone()));
                Ok(())
            }
            other => {
                self.state = other;
                Err(ErrorCode::InvalidState.into())
            }
        }
    }

    /// Binds to a free port, unless it is bound.
    pub(super) fn bind_if_new(&mut self, net: &PodNet) -> SocketResult<()> {
        if matches!(self.state, State::New) {
            self.bind(net, address::any(self.family))?;
        }
        Ok(())
    }

    /// What takes the connections of a listening socket.
    pub(super) fn acceptor(&self) -> SocketResult<&Acceptor> {
        match &self.state {
            State::Listening(acceptor) if self.step.is_none() => Ok(acceptor),
            _ => Err(ErrorCode::InvalidState.into()),
        }
    }

    /// A connection of this listening socket.
    pub(super) fn accepted(&self, accepted: Accepted, permit: SocketPermit, net: &PodNet) -> Self {
        Self::of_connection(accepted, permit, net, self.family, self.options.clone())
    }

    pub(super) fn of_connection(
        Accepted { stream, local, peer }: Accepted,
        permit: SocketPermit,
        net: &PodNet,
        family: IpAddressFamily,
        options: Options,
    ) -> Self {
        let permit = Arc::new(permit);
        let duplex =
            Duplex::new(stream, net.closed(), net.buffers().clone(), Held { _permit: permit.clone(), _binding: None });
        Self {
            family,
            state: State::Connected { duplex, local, remote: peer, taken: Taken::default() },
            step: None,
            options,
            permit,
        }
    }

    /// Begins to connect; [`Self::poll_connected`] goes on with it.
    pub(super) fn connect(&mut self, net: &Arc<PodNet>, remote: SocketAddr) -> SocketResult<()> {
        if !matches!(self.state, State::New | State::Bound(_)) {
            return Err(ErrorCode::InvalidState.into());
        }
        let remote = address::unicast(address::remote(remote, self.family)?, self.family)?;
        let binding = match std::mem::replace(&mut self.state, State::Closed) {
            State::Bound(binding) => Some(binding),
            _ => None,
        };
        let from = binding.as_ref().map(TcpBinding::local_addr);
        let net = net.clone();
        let task = Task::start(async move {
            let connection = net.connect_from(from, remote).await?;
            Ok((net.into_stream(connection.endpoint), connection.local))
        });
        self.state = State::Connecting { task, remote, binding };
        Ok(())
    }

    pub(super) fn is_connecting(&self) -> bool {
        matches!(self.state, State::Connecting { .. })
    }

    /// Waits for the connection. After a failure the socket is closed.
    pub(super) fn poll_connected(&mut self, cx: &mut Context<'_>, net: &PodNet) -> Poll<SocketResult<()>> {
        let State::Connecting { task, .. } = &mut self.state else {
            return Poll::Ready(Err(ErrorCode::InvalidState.into()));
        };
        let result = ready!(task.poll_take(cx)).flatten();
        if let State::Connecting { remote, binding, .. } = std::mem::replace(&mut self.state, State::Closed) {
            let (stream, local) = result?;
            let held = Held { _permit: self.permit.clone(), _binding: binding };
            let duplex = Duplex::new(stream, net.closed(), net.buffers().clone(), held);
            self.state = State::Connected { duplex, local, remote, taken: Taken::default() };
        }
        Poll::Ready(Ok(()))
    }

    /// The bytes of a connected socket.
    pub(super) fn duplex(&self) -> SocketResult<&Duplex> {
        match &self.state {
            State::Connected { duplex, .. } => Ok(duplex),
            _ => Err(ErrorCode::InvalidState.into()),
        }
    }

    /// As [`Self::duplex`], once, to send.
    pub(super) fn take_sender(&mut self) -> SocketResult<Duplex> {
        match &mut self.state {
            State::Connected { duplex, taken: Taken { sender: sender @ false, .. }, .. } => {
                *sender = true;
                Ok(duplex.clone())
            }
            _ => Err(ErrorCode::InvalidState.into()),
        }
    }

    /// As [`Self::duplex`], once, to receive.
    pub(super) fn take_receiver(&mut self) -> SocketResult<Duplex> {
        match &mut self.state {
            State::Connected { duplex, taken: Taken { receiver: receiver @ false, .. }, .. } => {
                *receiver = true;
                Ok(duplex.clone())
            }
            _ => Err(ErrorCode::InvalidState.into()),
        }
    }

    /// Whether something awaits the guest: a connection made or to be accepted.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.state {
            State::Connecting { task, .. } => task.poll_ready(cx),
            State::Listening(acceptor) => acceptor.poll_ready(cx),
            _ => Poll::Ready(()),
        }
    }

    pub(super) fn local_address(&self) -> SocketResult<SocketAddr> {
        match &self.state {
            State::Bound(binding) if self.step.is_none() => Ok(binding.local_addr()),
            State::Listening(acceptor) => Ok(acceptor.local_addr()),
            State::Connecting { binding: Some(binding), .. } => Ok(binding.local_addr()),
            State::Connected { local, .. } => Ok(*local),
            _ => Err(ErrorCode::InvalidState.into()),
        }
    }

    pub(super) fn remote_address(&self) -> SocketResult<SocketAddr> {
        match &self.state {
            State::Connected { remote, .. } => Ok(*remote),
            _ => Err(ErrorCode::InvalidState.into()),
        }
    }

    pub(super) fn set_backlog(&mut self, value: u64) -> SocketResult<()> {
        match self.state {
            State::New | State::Bound(_) => {
                self.options.backlog = usize::try_from(positive(value, u64::from(u16::MAX))?).unwrap_or(usize::MAX);
                Ok(())
            }
            // A queue keeps the size it was made with.
            State::Listening(_) => Err(ErrorCode::NotSupported.into()),
            _ => Err(ErrorCode::InvalidState.into()),
        }
    }
}

/// Takes a listening socket's connections, for the socket and for streams of it. The port is free again when all are gone.
#[derive(Clone)]
pub(super) struct Acceptor(Arc<Mutex<Queue>>);

struct Queue {
    listener: TcpListener,
    next: Option<Result<Accepted, NetError>>,
    _permit: Arc<SocketPermit>,
}

impl Acceptor {
    fn new(listener: TcpListener, permit: Arc<SocketPermit>) -> Self {
        Self(Arc::new(Mutex::new(Queue { listener, next: None, _permit: permit })))
    }

    fn local_addr(&self) -> SocketAddr {
        self.0.lock().listener.local_addr()
    }

    /// Whether a connection waits; keeps it for [`Self::take`].
    pub(super) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut queue = self.0.lock();
        if queue.next.is_none() {
            queue.next = Some(ready!(queue.listener.poll_accept(cx)));
        }
        Poll::Ready(())
    }

    /// The connection that waits.
    pub(super) fn take(&self) -> Option<Result<Accepted, NetError>> {
        self.0.lock().next.take()
    }
}

/// Stored, reported, and inherited by accepted sockets. Pipes in memory need none of them.
#[derive(Clone)]
pub(super) struct Options {
    backlog: usize,
    pub(super) keep_alive: bool,
    pub(super) keep_alive_idle: u64,
    pub(super) keep_alive_interval: u64,
    pub(super) keep_alive_count: u32,
    pub(super) hop_limit: u8,
    pub(super) receive_buffer: u64,
    pub(super) send_buffer: u64,
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

impl Options {
    pub(super) fn set_keep_alive_idle(&mut self, value: u64) -> SocketResult<()> {
        self.keep_alive_idle = positive(value, MAX_KEEP_ALIVE)?;
        Ok(())
    }

    pub(super) fn set_keep_alive_interval(&mut self, value: u64) -> SocketResult<()> {
        self.keep_alive_interval = positive(value, MAX_KEEP_ALIVE)?;
        Ok(())
    }

    pub(super) fn set_keep_alive_count(&mut self, value: u32) -> SocketResult<()> {
        self.keep_alive_count = positive(value, MAX_KEEP_ALIVE_COUNT)?;
        Ok(())
    }

    pub(super) fn set_hop_limit(&mut self, value: u8) -> SocketResult<()> {
        self.hop_limit = positive(value, u8::MAX)?;
        Ok(())
    }

    pub(super) fn set_receive_buffer(&mut self, value: u64) -> SocketResult<()> {
        self.receive_buffer = positive(value, MAX_BUFFER)?;
        Ok(())
    }

    pub(super) fn set_send_buffer(&mut self, value: u64) -> SocketResult<()> {
        self.send_buffer = positive(value, MAX_BUFFER)?;
        Ok(())
    }
}

/// A value within bounds; zero is invalid.
pub(super) fn positive<T: Ord + Default>(value: T, max: T) -> SocketResult<T> {
    if value == T::default() { Err(ErrorCode::InvalidArgument.into()) } else { Ok(value.min(max)) }
}
