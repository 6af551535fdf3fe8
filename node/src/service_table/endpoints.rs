//! PURE: which endpoints of a Service's port the clients of one node are led to.
//! Source: <https://kubernetes.io/docs/reference/networking/virtual-ips/#traffic-distribution>.

use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::Protocol;

/// Where the clients are: this node, and its zone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Locality {
    /// The node's name.
    pub node: String,
    /// The node's zone; empty if it is in none.
    pub zone: String,
}

/// How far a Service's traffic policy reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// All endpoints, near ones first where the hints say so.
    Cluster,
    /// This node's endpoints only.
    Node,
}

/// For whom an endpoint is meant: `None` if it does not say, else whether we are among them.
type Hint = Option<bool>;

struct Candidate {
    address: SocketAddr,
    /// It is ready; else it still serves while it terminates.
    ready: bool,
    on_this_node: bool,
    for_node: Hint,
    for_zone: Hint,
}

/// The endpoints of one port that can answer at all, as seen from one node.
pub(super) struct Endpoints(Vec<Candidate>);

impl Endpoints {
    /// Those in the slices of one Service.
    pub fn of(slices: &[&EndpointSlice], port_name: &str, protocol: Protocol, here: &Locality) -> Self {
        let mut all = Vec::new();
        for slice in slices {
            let port = slice.ports.iter().flatten().find(|p| {
                p.name.as_deref().unwrap_or_default() == port_name
                    && Protocol::parse(p.protocol.as_deref()) == Some(protocol)
            });
            let Some(port) = port.and_then(|p| p.port).and_then(|p| u16::try_from(p).ok()) else { continue };
            for endpoint in slice.endpoints.iter().flatten() {
                all.extend(candidates(endpoint, port, here));
            }
        }
        Self(all)
    }

    /// Where connections go: to the ready ones or, if there are none, to those that still serve while they terminate.
    /// Hints count only if every ready endpoint has one and at least one is for us, those for nodes first.
    pub fn within(&self, reach: Reach) -> Vec<SocketAddr> {
        let reached = |c: &&Candidate| reach == Reach::Cluster || c.on_this_node;
        let (ready, leaving): (Vec<&Candidate>, Vec<&Candidate>) = self.0.iter().filter(reached).partition(|c| c.ready);
        let hints: [fn(&Candidate) -> Hint; 2] = [|c| c.for_node, |c| c.for_zone];
        let hint = hints.into_iter().find(|hint| {
            let complete = ready.iter().all(|c| hint(c).is_some());
            reach == Reach::Cluster && complete && ready.iter().any(|c| hint(c) == Some(true))
        });
        let meant = |c: &&Candidate| hint.is_none_or(|hint| hint(c) == Some(true));
        let chosen = if ready.is_empty() { leaving } else { ready.into_iter().filter(meant).collect() };
        let mut out: Vec<SocketAddr> = chosen.into_iter().map(|c| c.address).collect();
        out.sort();
        out.dedup();
        out
    }
}

fn candidates(endpoint: &Endpoint, port: u16, here: &Locality) -> impl Iterator<Item = Candidate> {
    let (ready, leaving) = match &endpoint.conditions {
        None => (true, false),
        Some(c) => (c.ready.unwrap_or(true), c.serving.unwrap_or(false) && c.terminating.unwrap_or(false)),
    };
    let hints = endpoint.hints.as_ref();
    let nodes = hints.and_then(|h| h.for_nodes.as_ref()).filter(|nodes| !nodes.is_empty());
    let zones = hints.and_then(|h| h.for_zones.as_ref()).filter(|zones| !zones.is_empty());
    let for_node = nodes.map(|nodes| nodes.iter().any(|n| n.name == here.node));
    let for_zone = zones.map(|zones| zones.iter().any(|z| z.name == here.zone));
    let on_this_node = endpoint.node_name.as_ref() == Some(&here.node);
    let addresses: &[String] = if ready || leaving { &endpoint.addresses } else { &[] };
    addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok()).map(move |ip| Candidate {
        address: SocketAddr::new(ip, port),
        ready,
        on_this_node,
        for_node,
        for_zone,
    })
}
