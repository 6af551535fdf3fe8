//! The network of one pod: loopback and port table in process, the uplink beyond.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::{CancellationToken, PollSemaphore};

use super::bindings::{Datagram, ListenerEntry, TcpBinding, TcpListener, UdpBinding};
use super::held;
use super::pipe;
use super::policy::{Op, decide, normalise};
use super::ports::Ports;
use crate::buffers::{BUFFER_BYTES, Buffers, Room};
use crate::network::{ByteStream, Endpoint, HttpHandler, NetError, Uplink};
use crate::rate::{Bucket, Rate};

/// Largest UDP payload, in bytes.
pub const MAX_DATAGRAM: usize = 65_507;
/// Longest host name, in bytes.
const MAX_HOST_NAME: usize = 253;
/// Bytes of a pod's buffers that each of its sockets takes: what is read ahead and what is left to be written.
pub const SOCKET_BYTES: u64 = 8 << 10;
/// Bytes of a pod's buffers that a datagram takes besides its payload.
pub const DATAGRAM_COST: usize = 256;
/// Bytes of a pod's buffers that a connection which speaks HTTP to one of its components in bytes takes.
pub const HTTP_CONNECTION_BYTES: u64 = 2 * crate::http::MAX_HEADER_BYTES as u64;
/// Bytes of a pod's buffers that an HTTP exchange takes, incoming or outgoing: parts of both bodies.
pub const EXCHANGE_BYTES: u64 = 4 * crate::outgoing::BODY_CHUNK as u64;
/// Name lookups of a pod: 20,000 per second. In-cluster names are answered from memory.
pub const LOOKUP_RATE: Rate = Rate { per_second: 20_000, burst: 20_000 };

/// Limits of one pod's network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetLimits {
    /// Sockets that guests hold at once, TCP and UDP, listening or connected.
    pub sockets: usize,
    /// Largest backlog of a listener; what a guest asks for is cut to it.
    pub backlog: usize,
    /// Datagrams waiting in one socket; more are dropped.
    pub datagrams: usize,
    /// Bytes of datagrams waiting in all sockets of the pod, or on their way out of it, [`DATAGRAM_COST`] each included;
    /// more are dropped.
    pub datagram_bytes: usize,
    /// Name lookups under way at once; more fail as a resolver's passing failure.
    pub lookups: usize,
    /// Name lookups in a time; more fail as a resolver's passing failure.
    pub lookup_rate: Rate,
    /// Bytes of all buffers: of connections, datagrams and HTTP exchanges.
    pub buffer_bytes: u64,
}

impl Default for NetLimits {
    /// 1,024 sockets, a backlog of 128, 256 datagrams a socket, 1 MiB of datagrams, 256 lookups at once and
    /// [`LOOKUP_RATE`], [`BUFFER_BYTES`].
    fn default() -> Self {
        Self {
            sockets: 1024,
            backlog: 128,
            datagrams: 256,
            datagram_bytes: 1 << 20,
            lookups: 256,
            lookup_rate: LOOKUP_RATE,
            buffer_bytes: BUFFER_BYTES,
        }
    }
}

/// A connection as the side that opened it sees it.
pub struct Connection {
    /// What was reached.
    pub endpoint: Endpoint,
    /// This side's address.
    pub local: SocketAddr,
}

/// One pod's network. Shared by its containers and the node's fabric.
pub struct PodNet {
    me: Weak<PodNet>,
    ips: Vec<IpAddr>,
    uplink: Arc<dyn Uplink>,
    limits: NetLimits,
    tables: Mutex<Tables>,
    hosts: Mutex<HashMap<String, Vec<IpAddr>>>,
    sockets: Arc<Semaphore>,
    datagram_bytes: Arc<Semaphore>,
    buffers: Arc<Buffers>,
    lookups: Semaphore,
    lookups_left: Mutex<Bucket>,
    since: Instant,
    is_closed: AtomicBool,
    closed: CancellationToken,
}

#[derive(Default)]
struct Tables {
    tcp: Ports<ListenerEntry>,
    udp: Ports<mpsc::Sender<Datagram>>,
}

impl PodNet {
    /// The network of a pod with these addresses.
    pub fn new(ips: Vec<IpAddr>, uplink: Arc<dyn Uplink>, limits: NetLimits) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            ips,
            uplink,
            limits,
            tables: Mutex::default(),
            hosts: Mutex::default(),
            sockets: Arc::new(Semaphore::new(limits.sockets.min(Semaphore::MAX_PERMITS))),
            datagram_bytes: Arc::new(Semaphore::new(limits.datagram_bytes)),
            buffers: Buffers::new(limits.buffer_bytes),
            lookups: Semaphore::new(limits.lookups),
            lookups_left: Mutex::new(Bucket::new(limits.lookup_rate)),
            since: Instant::now(),
            is_closed: AtomicBool::new(false),
            closed: CancellationToken::new(),
        })
    }

    /// The pod's addresses.
    pub fn ips(&self) -> &[IpAddr] {
        &self.ips
    }

    /// The limits in force.
    pub fn limits(&self) -> NetLimits {
        self.limits
    }

    /// What its sockets and requests hold in memory.
    pub fn buffers(&self) -> &Arc<Buffers> {
        &self.buffers
    }

    /// Cancelled by [`Self::close`].
    pub fn closed(&self) -> CancellationToken {
        self.closed.clone()
    }

    /// Answers `name` with these addresses in process: the pod's host name and its host aliases.
    pub fn set_host(&self, name: &str, ips: Vec<IpAddr>) {
        self.hosts.lock().insert(name.to_ascii_lowercase(), ips);
    }

    /// Binds and listens. `address` may have port 0.
    pub fn listen(&self, address: SocketAddr, backlog: usize) -> Result<TcpListener, NetError> {
        self.bind_tcp(address)?.listen(backlog)
    }

    /// Reserves an address for a TCP socket until the binding is dropped.
    pub fn bind_tcp(&self, address: SocketAddr) -> Result<TcpBinding, NetError> {
        self.check_bind(address)?;
        let local = self.tables.lock().tcp.take(address, ListenerEntry::Reserved)?;
        Ok(TcpBinding::new(self.me.clone(), local))
    }

    /// Binds a UDP socket.
    pub fn bind_udp(&self, address: SocketAddr) -> Result<UdpBinding, NetError> {
        self.check_bind(address)?;
        let (sender, receiver) = mpsc::channel(self.limits.datagrams.max(1));
        let local = self.tables.lock().udp.take(address, sender)?;
        Ok(UdpBinding::new(self.me.clone(), local, receiver))
    }

    /// Serves `port` on all of the pod's addresses with an in-process HTTP server, until [`Self::stop_http`].
    pub fn serve_http(&self, port: u16, handler: Arc<dyn HttpHandler>) -> Result<(), NetError> {
        if port == 0 {
            return Err(NetError::AddressNotBindable);
        }
        let [v4, v6] = all_addresses(port);
        self.check_bind(v4)?;
        let mut tables = self.tables.lock();
        tables.tcp.take(v4, ListenerEntry::Http(handler.clone()))?;
        if let Err(error) = tables.tcp.take(v6, ListenerEntry::Http(handler)) {
            tables.tcp.release(v4);
            return Err(error);
        }
        Ok(())
    }

    /// Ends [`Self::serve_http`]; requests under way finish. Does nothing to a port that a guest listens on.
    pub fn stop_http(&self, port: u16) {
        let mut tables = self.tables.lock();
        for address in all_addresses(port) {
            if matches!(tables.tcp.held(address), Some(ListenerEntry::Http(_))) {
                tables.tcp.release(address);
            }
        }
    }

    /// Opens a TCP connection as this pod, as bytes.
    pub async fn connect(&self, to: SocketAddr) -> Result<ByteStream, NetError> {
        let endpoint = self.connect_endpoint(to).await?;
        Ok(self.into_stream(endpoint))
    }

    /// Opens a TCP connection as this pod, for HTTP; an in-process HTTP server stays one. Counts as a socket of the pod
    /// until the connection, or the last response of the server, is dropped.
    pub async fn connect_endpoint(&self, to: SocketAddr) -> Result<Endpoint, NetError> {
        let guard = (self.socket_permit()?, self.buffers.reserve(EXCHANGE_BYTES)?);
        Ok(held::endpoint(self.connect_from(None, to).await?.endpoint, guard))
    }

    /// Opens a TCP connection for a socket of this pod, from a bound address if one is given.
    pub async fn connect_from(&self, from: Option<SocketAddr>, to: SocketAddr) -> Result<Connection, NetError> {
        self.check_open()?;
        decide(Op::Connect, to)?;
        let to = SocketAddr::new(normalise(to.ip()), to.port());
        let local = self.source(from, to).ok_or(NetError::Unreachable)?;
        let endpoint =
            if self.is_own(to.ip()) { self.accept_at(to, local)? } else { self.uplink.connect(local, to).await? };
        Ok(Connection { endpoint, local })
    }

    /// An endpoint as bytes: in front of an in-process HTTP server runs a connection that speaks HTTP/1.1 and h2c.
    pub fn into_stream(&self, endpoint: Endpoint) -> ByteStream {
        match endpoint {
            Endpoint::Stream(stream) => stream,
            Endpoint::Http(handler) => pipe::http(handler, self.closed()),
        }
    }

    /// Delivers a connection from outside to whoever serves `to_port` on the pod's address of the peer's family.
    /// [`NetError::ConnectionRefused`] if nobody does, or its backlog or the pod's buffers are full.
    pub async fn accept_from(&self, to_port: u16, peer: SocketAddr) -> Result<Endpoint, NetError> {
        self.check_open()?;
        let ip = self.own_address(peer.is_ipv4()).ok_or(NetError::ConnectionRefused)?;
        self.accept_at(SocketAddr::new(ip, to_port), peer).map_err(|error| match error {
            // The peer's own limits are none of this.
            NetError::LimitReached(_) => NetError::ConnectionRefused,
            other => other,
        })
    }

    /// Delivers a datagram to the pod's socket at `to`. It is dropped silently if the socket's queue is full;
    /// [`NetError::ConnectionRefused`] if there is no socket.
    pub fn deliver_datagram(&self, from: SocketAddr, to: SocketAddr, data: Bytes) -> Result<(), NetError> {
        self.check_open()?;
        if data.len() > MAX_DATAGRAM {
            return Err(NetError::LimitReached("datagram size"));
        }
        let sender = self.tables.lock().udp.find(to).cloned().ok_or(NetError::ConnectionRefused)?;
        if let Some((permit, room)) = self.room_for(&data) {
            // A full queue drops it, as UDP does.
            let _ = sender.try_send(Datagram { from, data, _permit: permit, _room: room });
        }
        Ok(())
    }

    /// Sends a datagram of a socket bound to `local`. Within the pod it is delivered at once.
    pub async fn send_datagram(&self, local: SocketAddr, to: SocketAddr, data: Bytes) -> Result<(), NetError> {
        self.check_open()?;
        decide(Op::Send, to)?;
        if data.len() > MAX_DATAGRAM {
            return Err(NetError::LimitReached("datagram size"));
        }
        let to = SocketAddr::new(normalise(to.ip()), to.port());
        let from = self.source(Some(local), to).ok_or(NetError::Unreachable)?;
        if self.is_own(to.ip()) {
            // Nobody there: gone, like any datagram.
            let _ = self.deliver_datagram(from, to, data);
            return Ok(());
        }
        let Some(_permit) = self.room_for(&data) else { return Ok(()) };
        self.uplink.send_datagram(from, to, data).await
    }

    /// Resolves a host name as this pod: IP literals, `localhost` and the pod's own names in process, else by the uplink.
    /// Addresses the pod may not talk to are left out; [`NetError::AccessDenied`] if none is left.
    pub async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, NetError> {
        self.check_open()?;
        let ips = match self.resolve_locally(name)? {
            Some(ips) => ips,
            None => {
                if !self.lookups_left.lock().try_take(1, self.since.elapsed()) {
                    return Err(NetError::TemporaryResolverFailure);
                }
                let _place = self.lookups.try_acquire().map_err(|_| NetError::TemporaryResolverFailure)?;
                self.uplink.resolve(name).await?
            }
        };
        if ips.is_empty() {
            return Err(NetError::NameUnresolvable);
        }
        let allowed = |ip: &IpAddr| decide(Op::Lookup, SocketAddr::new(*ip, 0)).is_ok();
        let allowed: Vec<_> = ips.into_iter().filter(allowed).collect();
        if allowed.is_empty() {
            return Err(NetError::AccessDenied(format!("the addresses of {name}")));
        }
        Ok(allowed)
    }

    /// Drops every listener, socket queue and connection under way; everything after fails.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        self.closed.cancel();
        let mut tables = self.tables.lock();
        tables.tcp.clear();
        tables.udp.clear();
    }

    /// Counts one socket of a guest until the permit is dropped; [`NetError::LimitReached`] beyond the pod's limit.
    pub fn socket_permit(&self) -> Result<SocketPermit, NetError> {
        let permit = self.sockets.clone().try_acquire_owned();
        self.socket_of(permit.map_err(|_| NetError::LimitReached("sockets of the pod"))?)
    }

    /// Admits a connection that speaks HTTP in bytes to a component of this pod: a socket, with its buffers.
    pub(crate) fn http_permit(&self) -> Result<HttpPermit, NetError> {
        let room = self.buffers.reserve(HTTP_CONNECTION_BYTES)?;
        Ok(HttpPermit { _socket: self.socket_permit()?, _room: room, buffers: self.buffers.clone() })
    }

    /// The socket of one of [`Self::socket_permits`]; [`NetError::LimitReached`] if the pod's buffers are full.
    pub fn socket_of(&self, permit: OwnedSemaphorePermit) -> Result<SocketPermit, NetError> {
        Ok(SocketPermit { _room: self.buffers.reserve(SOCKET_BYTES)?, _socket: permit })
    }

    /// Permits for sockets, for who would rather wait than hear that there is none.
    pub fn socket_permits(&self) -> PollSemaphore {
        PollSemaphore::new(self.sockets.clone())
    }

    /// Addresses and ports that are bound now.
    pub fn ports_held(&self) -> usize {
        let tables = self.tables.lock();
        tables.tcp.len() + tables.udp.len()
    }

    /// Name lookups that wait for the uplink now.
    pub fn lookups_under_way(&self) -> usize {
        self.limits.lookups.saturating_sub(self.lookups.available_permits())
    }

    /// Sockets that guests hold now.
    pub fn socket_count(&self) -> usize {
        self.limits.sockets.min(Semaphore::MAX_PERMITS).saturating_sub(self.sockets.available_permits())
    }

    fn resolve_locally(&self, name: &str) -> Result<Option<Vec<IpAddr>>, NetError> {
        if let Ok(ip) = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Ok(Some(vec![ip]));
        }
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(|b| b.is_ascii_graphic());
        if name.len() > MAX_HOST_NAME || !name.split('.').all(is_label) {
            return Err(NetError::NameUnresolvable);
        }
        if name == "localhost" || name.ends_with(".localhost") {
            return Ok(Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]));
        }
        Ok(self.hosts.lock().get(&name).cloned())
    }

    /// A place among the pod's waiting datagrams, if there is one.
    fn room_for(&self, data: &Bytes) -> Option<(OwnedSemaphorePermit, Room)> {
        let cost = data.len().saturating_add(DATAGRAM_COST);
        let permit = self.datagram_bytes.clone().try_acquire_many_owned(u32::try_from(cost).ok()?).ok()?;
        Some((permit, self.buffers.borrow(cost as u64)?))
    }

    fn check_open(&self) -> Result<(), NetError> {
        if self.is_closed.load(Ordering::SeqCst) { Err(NetError::Unreachable) } else { Ok(()) }
    }

    fn check_bind(&self, address: SocketAddr) -> Result<(), NetError> {
        self.check_open()?;
        decide(Op::Bind, address)?;
        if !address.ip().is_unspecified() && !self.is_own(address.ip()) {
            return Err(NetError::AddressNotBindable);
        }
        self.uplink.may_bind(address)
    }

    fn is_own(&self, ip: IpAddr) -> bool {
        ip.is_loopback() || self.ips.contains(&ip)
    }

    fn own_address(&self, v4: bool) -> Option<IpAddr> {
        self.ips.iter().copied().find(|ip| ip.is_ipv4() == v4)
    }

    /// The address that `to` sees: the bound one, made specific, or the pod's (or loopback's) with an ephemeral port.
    fn source(&self, bound: Option<SocketAddr>, to: SocketAddr) -> Option<SocketAddr> {
        let bound_ip = bound.map(|bound| bound.ip()).filter(|ip| !ip.is_unspecified());
        let ip = match (bound_ip, to.ip()) {
            (Some(ip), _) if ip.is_ipv4() == to.is_ipv4() && ip.is_loopback() == to.ip().is_loopback() => ip,
            (Some(ip), to_ip) if ip.is_ipv4() == to.is_ipv4() && self.is_own(to_ip) => ip,
            (Some(_), _) => return None,
            (None, IpAddr::V4(ip)) if ip.is_loopback() => Ipv4Addr::LOCALHOST.into(),
            (None, IpAddr::V6(ip)) if ip.is_loopback() => Ipv6Addr::LOCALHOST.into(),
            (None, to_ip) if self.ips.contains(&to_ip) => to_ip,
            (None, _) => self.own_address(to.is_ipv4())?,
        };
        let port = match bound.map(|bound| bound.port()) {
            Some(port) if port > 0 => port,
            _ => self.tables.lock().tcp.ephemeral(ip)?,
        };
        Some(SocketAddr::new(ip, port))
    }

    fn accept_at(&self, to: SocketAddr, peer: SocketAddr) -> Result<Endpoint, NetError> {
        match self.tables.lock().tcp.find(to) {
            Some(ListenerEntry::Http(handler)) => Ok(Endpoint::Http(handler.clone())),
            Some(ListenerEntry::Queue(queue)) => Ok(Endpoint::Stream(pipe::offer(queue, to, peer, &self.buffers)?)),
            Some(ListenerEntry::Reserved) | None => Err(NetError::ConnectionRefused),
        }
    }

    pub(super) fn replace_listener(&self, local: SocketAddr, entry: ListenerEntry) -> Result<(), NetError> {
        self.check_open()?;
        match self.tables.lock().tcp.held(local) {
            Some(held) => {
                *held = entry;
                Ok(())
            }
            None => Err(NetError::Unreachable),
        }
    }

    pub(super) fn release_tcp(&self, local: SocketAddr) {
        self.tables.lock().tcp.release(local);
    }

    pub(super) fn release_udp(&self, local: SocketAddr) {
        self.tables.lock().udp.release(local);
    }
}

fn all_addresses(port: u16) -> [SocketAddr; 2] {
    [SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port)]
}

/// A socket of a pod, counted and paid for.
pub struct SocketPermit {
    _room: Room,
    _socket: OwnedSemaphorePermit,
}

/// A connection that speaks HTTP in bytes to a component, counted and paid for.
pub struct HttpPermit {
    _socket: SocketPermit,
    _room: Room,
    buffers: Arc<Buffers>,
}

impl HttpPermit {
    /// Whose it is.
    pub(super) fn buffers(&self) -> &Arc<Buffers> {
        &self.buffers
    }
}
