//! The pod network of this node: who stands behind an address, who may reach it, and the way there (invariant 7).
//! [`Fabric::connect`] alone decides and balances, for guests, node ports and probes alike.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use copepod_api::Cidr;
use copepod_dns::{HostAnswer, Records};
use copepod_runtime::network::{Endpoint, NetError, Uplink};
use copepod_runtime::rate::{Bucket, Rate};
use parking_lot::{Mutex, RwLock};
use tokio::net::TcpStream;

use crate::observed::PodKey;
use crate::policy::{self, Peer};
use crate::runtime::PodSandbox;
use crate::service_table::{Protocol, ServicePort, ServiceTable, Side};

/// A connection to the world that takes longer fails.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Lookups of names outside the cluster, which the machine's resolver is asked for: 100 a second for each pod, after 500.
pub const OUTSIDE_LOOKUPS: Rate = Rate { per_second: 100, burst: 500 };
/// Endpoints tried for one connection to a Service.
pub const MAX_ATTEMPTS: usize = 3;

struct LocalPod {
    uid: String,
    sandbox: Arc<dyn PodSandbox>,
}

/// What the fabric must know beforehand.
#[derive(Debug, Clone)]
pub struct FabricConfig {
    /// Host and port of the API server, as the node reaches it: behind the `kubernetes` Service.
    pub api_server: (String, u16),
    /// The node's own addresses.
    pub node_ips: Vec<IpAddr>,
    /// Ranges of pods and Services: nothing in them is ever looked for on the host's network.
    pub virtual_ranges: Vec<Cidr>,
}

/// The node's pod network.
pub struct Fabric {
    config: FabricConfig,
    pods: RwLock<HashMap<IpAddr, LocalPod>>,
    services: RwLock<Arc<ServiceTable>>,
    records: RwLock<Arc<Records>>,
}

impl Fabric {
    /// A network without pods, Services or names.
    pub fn new(config: FabricConfig) -> Arc<Self> {
        Arc::new(Self {
            config,
            pods: RwLock::default(),
            services: RwLock::default(),
            records: RwLock::new(Arc::new(Records::default())),
        })
    }

    /// Attaches a pod's sandbox at its addresses.
    pub fn attach(&self, uid: &str, ips: &[IpAddr], sandbox: Arc<dyn PodSandbox>) {
        let mut pods = self.pods.write();
        for ip in ips {
            pods.insert(*ip, LocalPod { uid: uid.into(), sandbox: sandbox.clone() });
        }
    }
    /// Detaches a pod.
    pub fn detach(&self, uid: &str) {
        self.pods.write().retain(|_, pod| pod.uid != uid);
    }
    /// Replaces the Services.
    pub fn set_services(&self, table: Arc<ServiceTable>) {
        *self.services.write() = table;
    }
    /// Replaces the names.
    pub fn set_records(&self, records: Arc<Records>) {
        *self.records.write() = records;
    }
    /// The Services now.
    pub fn services(&self) -> Arc<ServiceTable> {
        self.services.read().clone()
    }

    /// Opens a TCP connection for `from` to an address: a Service's, a pod's, the node's or the world's.
    pub async fn connect(&self, peer: &Peer, from: SocketAddr, to: SocketAddr) -> Result<Endpoint, NetError> {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        let services = self.services();
        if let Some(port) = services.at(to, Protocol::Tcp) {
            return self.connect_service(peer, from, port).await;
        }
        if services.is_service_ip(to.ip()) {
            return Err(NetError::ConnectionRefused);
        }
        if self.config.node_ips.contains(&to.ip())
            && let Some(port) = services.at_node_port(Protocol::Tcp, to.port(), Side::Inside)
        {
            return self.connect_service(peer, from, port).await;
        }
        self.connect_address(peer, from, to).await
    }

    /// Opens a connection from a client outside the node's process to the Service behind a node's port.
    ///
    /// # Errors
    /// There is no such Service any more, or none of its endpoints answers.
    pub async fn connect_node_port(&self, from: SocketAddr, node_port: u16) -> Result<Endpoint, NetError> {
        let client = from.ip().to_canonical();
        let own = client.is_loopback() || self.config.node_ips.contains(&client);
        let side = if own { Side::Inside } else { Side::Outside };
        let services = self.services();
        let port = services.at_node_port(Protocol::Tcp, node_port, side).ok_or(NetError::ConnectionRefused)?;
        self.connect_service(&Peer::Node, from, port).await
    }

    /// Opens a connection to one of a Service's endpoints; one that refuses is passed over.
    async fn connect_service(&self, peer: &Peer, from: SocketAddr, port: &ServicePort) -> Result<Endpoint, NetError> {
        if port.namespace == "default" && port.service == "kubernetes" {
            let (host, port) = &self.config.api_server;
            return dial((host.as_str(), *port)).await;
        }
        let mut last = NetError::ConnectionRefused;
        for endpoint in port.candidates(from.ip()).take(MAX_ATTEMPTS) {
            match self.connect_address(peer, from, endpoint).await {
                Ok(found) => return Ok(found),
                Err(denied @ NetError::AccessDenied(_)) => return Err(denied),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn connect_address(&self, peer: &Peer, from: SocketAddr, to: SocketAddr) -> Result<Endpoint, NetError> {
        policy::decide(peer, to)?;
        if let Some(sandbox) = self.local(to.ip()) {
            return sandbox.accept(from, to.port()).await;
        }
        // A pod that has gone, or one on another node.
        if self.config.virtual_ranges.iter().any(|range| range.contains(to.ip())) {
            return Err(NetError::Unreachable);
        }
        dial(to).await
    }

    /// Sends a datagram to a Service's or a pod's address on this node.
    pub async fn send_datagram(
        &self,
        peer: &Peer,
        from: SocketAddr,
        to: SocketAddr,
        data: Bytes,
    ) -> Result<(), NetError> {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        let services = self.services();
        let target = match services.at(to, Protocol::Udp) {
            Some(port) => port.candidates(from.ip()).next().ok_or(NetError::Unreachable)?,
            None => to,
        };
        policy::decide(peer, target)?;
        match self.local(target.ip()) {
            Some(sandbox) => sandbox.datagram(from, target.port(), data).await,
            None => Err(NetError::Unreachable),
        }
    }

    /// Resolves a name as a pod of this namespace; the outside is asked if `may_ask` says so.
    pub async fn resolve(
        &self,
        namespace: &str,
        name: &str,
        may_ask: impl FnOnce() -> bool,
    ) -> Result<Vec<IpAddr>, NetError> {
        if let Ok(ip) = name.parse() {
            return Ok(vec![ip]);
        }
        let records = self.records.read().clone();
        match records.lookup_host(namespace, name) {
            HostAnswer::Addresses(found) => Ok(found),
            HostAnswer::NotFound => Err(NetError::NameUnresolvable),
            HostAnswer::External(name) if may_ask() => resolve_outside(&name).await,
            HostAnswer::External(_) => Err(NetError::TemporaryResolverFailure),
        }
    }

    /// What a pod's sandbox calls.
    pub fn uplink(self: &Arc<Self>, key: &PodKey, hostname: &str, ips: &[IpAddr]) -> Arc<dyn Uplink> {
        Arc::new(PodUplink {
            fabric: Arc::downgrade(self),
            peer: Peer::Pod(key.clone()),
            namespace: key.namespace.clone(),
            hostname: hostname.into(),
            ips: ips.to_vec(),
            outside: Mutex::new(Bucket::new(OUTSIDE_LOOKUPS)),
            since: Instant::now(),
        })
    }

    fn local(&self, ip: IpAddr) -> Option<Arc<dyn PodSandbox>> {
        self.pods.read().get(&ip).map(|pod| pod.sandbox.clone())
    }
}

async fn dial(to: impl tokio::net::ToSocketAddrs) -> Result<Endpoint, NetError> {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(to)).await;
    let stream = connected.map_err(|_| NetError::Timeout)?.map_err(|e| net_error(&e))?;
    let _ = stream.set_nodelay(true);
    Ok(Endpoint::Stream(Box::new(stream)))
}

/// Lookups outside the cluster that the machine's resolver works on at once, for all pods: each holds a thread of the
/// pool that files use too. More fail as a resolver's passing failure.
const MAX_RESOLVING: usize = 64;
static RESOLVING: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(MAX_RESOLVING);

async fn resolve_outside(name: &str) -> Result<Vec<IpAddr>, NetError> {
    let place = RESOLVING.try_acquire().map_err(|_| NetError::TemporaryResolverFailure)?;
    let name = name.to_owned();
    // The place is given back when the resolver is done with it, however long nobody waits for it any more.
    let lookup = tokio::task::spawn_blocking(move || {
        let _place = place;
        std::net::ToSocketAddrs::to_socket_addrs(&(name.as_str(), 0)).map(|list| list.map(|a| a.ip()).collect())
    });
    let found =
        tokio::time::timeout(CONNECT_TIMEOUT, lookup).await.map(|ran| ran.map_err(std::io::Error::other).flatten());
    match found {
        Ok(Ok(list)) => {
            let mut ips: Vec<IpAddr> = list;
            ips.dedup();
            if ips.is_empty() { Err(NetError::NameUnresolvable) } else { Ok(ips) }
        }
        // The host's resolver does not tell a missing name from a failure in a portable way.
        Ok(Err(_)) => Err(NetError::NameUnresolvable),
        Err(_) => Err(NetError::TemporaryResolverFailure),
    }
}

fn net_error(error: &std::io::Error) -> NetError {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => NetError::ConnectionRefused,
        std::io::ErrorKind::ConnectionReset => NetError::ConnectionReset,
        std::io::ErrorKind::TimedOut => NetError::Timeout,
        std::io::ErrorKind::PermissionDenied => NetError::AccessDenied(error.to_string()),
        _ => NetError::Unreachable,
    }
}

/// One pod's view of the fabric; it knows the pod's identity.
struct PodUplink {
    fabric: Weak<Fabric>,
    peer: Peer,
    namespace: String,
    hostname: String,
    ips: Vec<IpAddr>,
    outside: Mutex<Bucket>,
    since: Instant,
}

impl PodUplink {
    fn fabric(&self) -> Result<Arc<Fabric>, NetError> {
        self.fabric.upgrade().ok_or(NetError::Unreachable)
    }
    /// The source address, made the pod's own: a guest cannot speak as another.
    fn own(&self, from: SocketAddr) -> SocketAddr {
        match self.ips.first() {
            Some(ip) if !self.ips.contains(&from.ip()) => SocketAddr::new(*ip, from.port()),
            _ => from,
        }
    }
}

#[async_trait]
impl Uplink for PodUplink {
    async fn connect(&self, from: SocketAddr, to: SocketAddr) -> Result<Endpoint, NetError> {
        self.fabric()?.connect(&self.peer, self.own(from), to).await
    }
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, NetError> {
        if name.eq_ignore_ascii_case(&self.hostname) {
            return Ok(self.ips.clone());
        }
        let may_ask = || self.outside.lock().try_take(1, self.since.elapsed());
        self.fabric()?.resolve(&self.namespace, name, may_ask).await
    }
    async fn send_datagram(&self, from: SocketAddr, to: SocketAddr, data: Bytes) -> Result<(), NetError> {
        self.fabric()?.send_datagram(&self.peer, self.own(from), to, data).await
    }
}

#[cfg(test)]
mod tests;
