//! Sockets of guests: the pod's network core ([`PodNet`]) and the wasi:sockets 0.2 and
//! 0.3 hosts over it.
//!
//! No socket of the host is touched here. Loopback and the pod's own addresses stay in this process; everything else
//! goes through the pod's [`crate::network::Uplink`]. Every address passes [`policy::decide`] first.

mod bindings;
mod held;
mod host;
mod pipe;
mod podnet;
pub mod policy;
mod ports;
#[cfg(test)]
mod tests;

pub use bindings::{Accepted, Datagram, TcpBinding, TcpListener, UdpBinding};
pub(crate) use host::Lookup;
pub use host::{SocketsCtxView, SocketsView, add_to_linker, p3};
pub use pipe::{PIPE_BYTES, PIPE_MIN_BYTES, http as http_pipe};
pub use podnet::{
    Connection, DATAGRAM_COST, EXCHANGE_BYTES, HTTP_CONNECTION_BYTES, HttpPermit, LOOKUP_RATE, MAX_DATAGRAM, NetLimits,
    PodNet, SOCKET_BYTES, SocketPermit,
};
pub use ports::EPHEMERAL_PORTS;
