//! A guest's UDP socket, whichever WASI it speaks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;

use super::generated::wasi::sockets::network::{ErrorCode, IpAddressFamily};
use super::tcp_socket::positive;
use super::{SocketResult, address};
use crate::network::NetError;
use crate::sockets::bindings::{Datagram, UdpBinding};
use crate::sockets::podnet::{PodNet, SocketPermit};
use crate::transfer::MAX_TRANSFER;

/// Largest buffer size a socket reports back; the real buffer is the pod's datagram queue.
const MAX_BUFFER: u64 = 1 << 20;

/// A guest's UDP socket.
pub struct UdpSocket {
    family: IpAddressFamily,
    binding: Option<Arc<Mutex<UdpBinding>>>,
    /// WASI 0.2 wants the binding finished by a second call.
    pub(super) is_binding: bool,
    /// Where it is connected to.
    pub(super) remote: Option<SocketAddr>,
    /// Those who receive by calls of their own, one after the other.
    pub(super) receivers: Arc<tokio::sync::Mutex<()>>,
    pub(super) hop_limit: u8,
    pub(super) receive_buffer: u64,
    pub(super) send_buffer: u64,
    _permit: SocketPermit,
}

impl UdpSocket {
    pub(super) fn new(family: IpAddressFamily, net: &PodNet) -> SocketResult<Self> {
        Ok(Self {
            family,
            binding: None,
            is_binding: false,
            remote: None,
            receivers: Arc::default(),
            hop_limit: 64,
            receive_buffer: MAX_TRANSFER as u64,
            send_buffer: MAX_TRANSFER as u64,
            _permit: net.socket_permit()?,
        })
    }

    pub(super) fn family(&self) -> IpAddressFamily {
        self.family
    }

    pub(super) fn bind(&mut self, net: &PodNet, local: SocketAddr) -> SocketResult<()> {
        match self.binding {
            Some(_) if self.is_binding => Err(ErrorCode::ConcurrencyConflict.into()),
            Some(_) => Err(ErrorCode::InvalidState.into()),
            None => {
                let local = address::of_family(local, self.family)?;
                self.binding = Some(Arc::new(Mutex::new(net.bind_udp(local)?)));
                Ok(())
            }
        }
    }

    /// Binds to a free port, unless it is bound.
    pub(super) fn bind_if_new(&mut self, net: &PodNet) -> SocketResult<()> {
        if self.binding.is_none() {
            self.bind(net, address::any(self.family))?;
        }
        Ok(())
    }

    /// What a bound socket receives from.
    pub(super) fn binding(&self) -> SocketResult<&Arc<Mutex<UdpBinding>>> {
        self.binding.as_ref().filter(|_| !self.is_binding).ok_or(ErrorCode::InvalidState.into())
    }

    pub(super) fn local_address(&self) -> SocketResult<SocketAddr> {
        Ok(self.binding()?.lock().local_addr())
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

/// The next datagram. What a connected socket gets from others than `remote` is dropped.
pub(super) fn poll_receive(
    binding: &Mutex<UdpBinding>,
    remote: Option<SocketAddr>,
    cx: &mut Context<'_>,
) -> Poll<Result<Datagram, NetError>> {
    loop {
        let received = ready!(binding.lock().poll_receive(cx));
        if received.as_ref().map_or(true, |datagram| remote.is_none_or(|remote| remote == datagram.from)) {
            return Poll::Ready(received);
        }
    }
}

/// Where a datagram goes: connected sockets name no other address.
pub(super) fn target(
    family: IpAddressFamily,
    remote: Option<SocketAddr>,
    named: Option<SocketAddr>,
) -> Result<SocketAddr, ErrorCode> {
    let named = named.map(|named| address::remote(named, family)).transpose()?;
    match (remote, named) {
        (Some(remote), Some(named)) if remote != named => Err(ErrorCode::InvalidArgument),
        (Some(remote), _) => Ok(remote),
        (None, Some(named)) => Ok(named),
        (None, None) => Err(ErrorCode::InvalidArgument),
    }
}
