//! PURE: which pods stand behind a Service's address for clients of this node, built from Services and EndpointSlices.

mod endpoints;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use copepod_api::names::LABEL_SERVICE_NAME;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

pub use self::endpoints::Locality;
use self::endpoints::{Endpoints, Reach};

/// Transport of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Kubernetes' name for it; `None` for SCTP, which is not carried.
    pub fn parse(text: Option<&str>) -> Option<Self> {
        match text.unwrap_or("TCP") {
            "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            _ => None,
        }
    }
}

/// One port of one Service with the endpoints that may answer now.
#[derive(Debug)]
pub struct ServicePort {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub service: String,
    /// The port's name; empty if it has none.
    pub port_name: String,
    /// Transport.
    pub protocol: Protocol,
    /// The Service's port.
    pub port: u16,
    /// The port on every node, for NodePort and LoadBalancer.
    pub node_port: Option<u16>,
    /// A client keeps its endpoint.
    pub client_ip_affinity: bool,
    /// Where connections go.
    pub endpoints: Vec<SocketAddr>,
    turn: Arc<AtomicUsize>,
}

impl ServicePort {
    /// The endpoints in the order in which this connection should try them: round-robin, or by the client's address
    /// under ClientIP affinity.
    pub fn candidates(&self, client: IpAddr) -> impl Iterator<Item = SocketAddr> + '_ {
        let len = self.endpoints.len().max(1);
        let first = if self.client_ip_affinity {
            self.stickiest(client)
        } else {
            self.turn.fetch_add(1, Ordering::Relaxed) % len
        };
        self.endpoints.iter().cycle().skip(first).take(self.endpoints.len()).copied()
    }

    /// Rendezvous hashing: a client moves only if its own endpoint goes away.
    fn stickiest(&self, client: IpAddr) -> usize {
        let weigh = |endpoint: &SocketAddr| {
            let mut h = DefaultHasher::new();
            (client, endpoint).hash(&mut h);
            h.finish()
        };
        self.endpoints.iter().enumerate().max_by_key(|(_, e)| weigh(e)).map_or(0, |(i, _)| i)
    }
}

/// Where clients of a node's port are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// In the cluster, the node itself included: the Service's external policy does not concern them.
    Inside,
    /// Anywhere else.
    Outside,
}

/// What a node's port leads to, from either side.
#[derive(Debug)]
struct Sides {
    inside: Arc<ServicePort>,
    outside: Arc<ServicePort>,
}

/// A port on every node that leads to a Service.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodePort {
    /// The port on the node.
    pub node_port: u16,
    /// Transport.
    pub protocol: Protocol,
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub service: String,
}

/// All Services' ports; an immutable snapshot.
#[derive(Debug, Default)]
pub struct ServiceTable {
    by_address: HashMap<(IpAddr, Protocol, u16), Arc<ServicePort>>,
    by_node_port: HashMap<(Protocol, u16), Sides>,
    service_ips: HashMap<IpAddr, ()>,
}

impl ServiceTable {
    /// Builds the table for clients that are `here`. `before` hands on whose turn it is, so that a change of endpoints does not favour the first.
    pub fn build<'a>(
        here: &Locality,
        services: impl IntoIterator<Item = &'a Service>,
        slices: impl IntoIterator<Item = &'a EndpointSlice>,
        before: &Self,
    ) -> Self {
        let mut by_service: HashMap<(&str, &str), Vec<&EndpointSlice>> = HashMap::new();
        for slice in slices {
            let owner = slice.metadata.labels.as_ref().and_then(|l| l.get(LABEL_SERVICE_NAME));
            if let (Some(owner), Some(ns)) = (owner, &slice.metadata.namespace) {
                by_service.entry((ns, owner)).or_default().push(slice);
            }
        }
        let mut table = Self::default();
        for service in services {
            let m = &service.metadata;
            let (Some(name), Some(ns)) = (&m.name, &m.namespace) else { continue };
            let slices = by_service.get(&(ns.as_str(), name.as_str())).map(Vec::as_slice).unwrap_or_default();
            table.add(here, service, (ns, name), slices, before);
        }
        table
    }

    fn add(
        &mut self,
        here: &Locality,
        service: &Service,
        (namespace, name): (&str, &str),
        slices: &[&EndpointSlice],
        before: &Self,
    ) {
        let Some(spec) = &service.spec else { return };
        if spec.type_.as_deref() == Some("ExternalName") {
            return;
        }
        let single = spec.cluster_ip.as_slice();
        let listed = spec.cluster_ips.as_deref().unwrap_or(single);
        let ips: Vec<IpAddr> = listed.iter().filter_map(|ip| ip.parse().ok()).collect();
        let external: Vec<IpAddr> = spec.external_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).collect();
        for port in spec.ports.iter().flatten() {
            let Some(protocol) = Protocol::parse(port.protocol.as_deref()) else { continue };
            let Ok(number) = u16::try_from(port.port) else { continue };
            let port_name = port.name.clone().unwrap_or_default();
            let node_port = port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0);
            let endpoints = Endpoints::of(slices, &port_name, protocol, here);
            let reaching = |reach, old: Option<&Arc<ServicePort>>| {
                Arc::new(ServicePort {
                    namespace: namespace.into(),
                    service: name.into(),
                    port_name: port_name.clone(),
                    protocol,
                    port: number,
                    node_port,
                    client_ip_affinity: spec.session_affinity.as_deref() == Some("ClientIP"),
                    endpoints: endpoints.within(reach),
                    turn: old.map(|old| old.turn.clone()).unwrap_or_default(),
                })
            };
            let at_ip = ips.first().and_then(|ip| before.by_address.get(&(*ip, protocol, number)));
            let at_node = node_port.and_then(|p| before.by_node_port.get(&(protocol, p)));
            let anywhere = reaching(Reach::Cluster, at_node.map(|old| &old.inside).or(at_ip));
            let or_local = |policy: &Option<String>, old| match policy.as_deref() {
                Some("Local") => reaching(Reach::Node, old),
                _ => anywhere.clone(),
            };
            let inside = or_local(&spec.internal_traffic_policy, at_ip);
            for (ip, entry) in ips.iter().map(|ip| (ip, &inside)).chain(external.iter().map(|ip| (ip, &anywhere))) {
                self.service_ips.insert(*ip, ());
                self.by_address.insert((*ip, protocol, number), entry.clone());
            }
            if let Some(node_port) = node_port {
                let outside = or_local(&spec.external_traffic_policy, at_node.map(|old| &old.outside));
                self.by_node_port.insert((protocol, node_port), Sides { inside: anywhere.clone(), outside });
            }
        }
    }

    /// The Service port at a cluster IP.
    pub fn at(&self, to: SocketAddr, protocol: Protocol) -> Option<&Arc<ServicePort>> {
        self.by_address.get(&(to.ip(), protocol, to.port()))
    }
    /// Whether any Service has this address: its unknown ports refuse.
    pub fn is_service_ip(&self, ip: IpAddr) -> bool {
        self.service_ips.contains_key(&ip)
    }
    /// The Service port behind a node's port for clients of one side.
    pub fn at_node_port(&self, protocol: Protocol, port: u16, from: Side) -> Option<&Arc<ServicePort>> {
        let sides = self.by_node_port.get(&(protocol, port))?;
        Some(match from {
            Side::Inside => &sides.inside,
            Side::Outside => &sides.outside,
        })
    }
    /// The ports that every node must listen on.
    pub fn node_ports(&self) -> Vec<NodePort> {
        let mut all: Vec<NodePort> = self
            .by_node_port
            .iter()
            .map(|((protocol, node_port), p)| NodePort {
                node_port: *node_port,
                protocol: *protocol,
                namespace: p.outside.namespace.clone(),
                service: p.outside.service.clone(),
            })
            .collect();
        all.sort();
        all
    }
}
