//! PURE: which pods stand behind a Service's address, built from Services and EndpointSlices.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use copepod_api::names::LABEL_SERVICE_NAME;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

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
    by_node_port: HashMap<(Protocol, u16), Arc<ServicePort>>,
    service_ips: HashMap<IpAddr, ()>,
}

impl ServiceTable {
    /// Builds the table. `before` hands on whose turn it is, so that a change of endpoints does not favour the first.
    pub fn build<'a>(
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
            table.add(ns, name, service, slices, before);
        }
        table
    }

    fn add(&mut self, ns: &str, name: &str, service: &Service, slices: &[&EndpointSlice], before: &Self) {
        let Some(spec) = &service.spec else { return };
        if spec.type_.as_deref() == Some("ExternalName") {
            return;
        }
        let single = spec.cluster_ip.as_slice();
        let listed = spec.cluster_ips.as_deref().unwrap_or(single);
        let ips: Vec<IpAddr> = listed.iter().filter_map(|ip| ip.parse().ok()).collect();
        let outside: Vec<IpAddr> = spec.external_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).collect();
        for port in spec.ports.iter().flatten() {
            let Some(protocol) = Protocol::parse(port.protocol.as_deref()) else { continue };
            let Ok(number) = u16::try_from(port.port) else { continue };
            let port_name = port.name.clone().unwrap_or_default();
            let node_port = port.node_port.and_then(|p| u16::try_from(p).ok()).filter(|p| *p != 0);
            let turn = ips
                .first()
                .and_then(|ip| before.by_address.get(&(*ip, protocol, number)))
                .map(|old| old.turn.clone())
                .unwrap_or_default();
            let entry = Arc::new(ServicePort {
                namespace: ns.into(),
                service: name.into(),
                endpoints: endpoints(slices, &port_name, protocol),
                port_name,
                protocol,
                port: number,
                node_port,
                client_ip_affinity: spec.session_affinity.as_deref() == Some("ClientIP"),
                turn,
            });
            for ip in ips.iter().chain(&outside) {
                self.service_ips.insert(*ip, ());
                self.by_address.insert((*ip, protocol, number), entry.clone());
            }
            if let Some(node_port) = node_port {
                self.by_node_port.insert((protocol, node_port), entry);
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
    /// The Service port behind a node's port.
    pub fn at_node_port(&self, protocol: Protocol, port: u16) -> Option<&Arc<ServicePort>> {
        self.by_node_port.get(&(protocol, port))
    }
    /// The ports that every node must listen on.
    pub fn node_ports(&self) -> Vec<NodePort> {
        let mut all: Vec<NodePort> = self
            .by_node_port
            .iter()
            .map(|((protocol, node_port), p)| NodePort {
                node_port: *node_port,
                protocol: *protocol,
                namespace: p.namespace.clone(),
                service: p.service.clone(),
            })
            .collect();
        all.sort();
        all
    }
}

/// The endpoints of one port: the ready ones, or, if there are none, those that still serve while they terminate.
fn endpoints(slices: &[&EndpointSlice], port_name: &str, protocol: Protocol) -> Vec<SocketAddr> {
    let (mut ready, mut leaving) = (Vec::new(), Vec::new());
    for slice in slices {
        let port = slice.ports.iter().flatten().find(|p| {
            p.name.as_deref().unwrap_or_default() == port_name
                && Protocol::parse(p.protocol.as_deref()) == Some(protocol)
        });
        let Some(port) = port.and_then(|p| p.port).and_then(|p| u16::try_from(p).ok()) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let c = endpoint.conditions.clone().unwrap_or_default();
            let addresses = endpoint.addresses.iter().filter_map(|a| a.parse::<IpAddr>().ok());
            let addresses = addresses.map(|ip| SocketAddr::new(ip, port));
            if c.ready.unwrap_or(true) {
                ready.extend(addresses);
            } else if c.serving.unwrap_or(false) && c.terminating.unwrap_or(false) {
                leaving.extend(addresses);
            }
        }
    }
    let mut out = if ready.is_empty() { leaving } else { ready };
    out.sort();
    out.dedup();
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(extra: serde_json::Value) -> Service {
        let mut spec = json!({"clusterIP": "10.43.0.9", "ports": [{"name": "web", "port": 80, "nodePort": 30080}]});
        spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec})).unwrap()
    }
    fn slice(endpoints: serde_json::Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": "s-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4", "ports": [{"name": "web", "port": 8080}], "endpoints": endpoints,
        }))
        .unwrap()
    }
    fn table(extra: serde_json::Value, endpoints: serde_json::Value, before: &ServiceTable) -> ServiceTable {
        ServiceTable::build([&service(extra)], [&slice(endpoints)], before)
    }
    fn vip() -> SocketAddr {
        "10.43.0.9:80".parse().unwrap()
    }
    fn client(n: u8) -> IpAddr {
        IpAddr::from([10, 64, 0, n])
    }
    fn shown(p: &ServicePort) -> Vec<String> {
        p.endpoints.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn only_ready_endpoints_then_serving_ones_that_leave() {
        let ready = json!({"addresses": ["10.64.0.2"]});
        let unready = json!({"addresses": ["10.64.0.3"], "conditions": {"ready": false}});
        let leaving =
            json!({"addresses": ["10.64.0.4"], "conditions": {"ready": false, "serving": true, "terminating": true}});
        let cases = [
            (json!([ready, unready, leaving]), vec!["10.64.0.2:8080"]),
            (json!([unready, leaving]), vec!["10.64.0.4:8080"]),
            (json!([unready]), vec![]),
        ];
        for (endpoints, expected) in cases {
            let t = table(json!({}), endpoints, &ServiceTable::default());
            assert_eq!(shown(t.at(vip(), Protocol::Tcp).unwrap()), expected);
        }
    }

    #[test]
    fn turns_go_round_and_survive_a_rebuild() {
        let both = json!([{"addresses": ["10.64.0.2"]}, {"addresses": ["10.64.0.3"]}]);
        let one = table(json!({}), both.clone(), &ServiceTable::default());
        let first =
            |t: &ServiceTable| t.at(vip(), Protocol::Tcp).unwrap().candidates(client(9)).next().unwrap().to_string();
        assert_eq!(
            (first(&one), first(&one), first(&one)),
            ("10.64.0.2:8080".into(), "10.64.0.3:8080".into(), "10.64.0.2:8080".into())
        );
        let two = table(json!({}), both, &one);
        assert_eq!(first(&two), "10.64.0.3:8080");
        assert_eq!(two.at(vip(), Protocol::Tcp).unwrap().candidates(client(9)).count(), 2);
    }

    #[test]
    fn affinity_keeps_a_client_until_its_endpoint_goes() {
        let all: Vec<_> = (2..10).map(|n| json!({"addresses": [format!("10.64.0.{n}")]})).collect();
        let t = table(json!({"sessionAffinity": "ClientIP"}), json!(all), &ServiceTable::default());
        let port = t.at(vip(), Protocol::Tcp).unwrap();
        let mine = port.candidates(client(1)).next().unwrap();
        assert!((0..10).all(|_| port.candidates(client(1)).next().unwrap() == mine));
        let others: std::collections::HashSet<_> =
            (1..40).map(|n| port.candidates(client(n)).next().unwrap()).collect();
        assert!(others.len() > 2, "clients spread");
        let last = all.iter().filter(|e| !mine.to_string().starts_with(e["addresses"][0].as_str().unwrap()));
        let fewer = json!(last.take(7).collect::<Vec<_>>());
        let t2 = table(json!({"sessionAffinity": "ClientIP"}), fewer, &t);
        assert_ne!(t2.at(vip(), Protocol::Tcp).unwrap().candidates(client(1)).next().unwrap(), mine);
    }

    #[test]
    fn addresses_ports_and_types() {
        let ep = json!([{"addresses": ["10.64.0.2"]}]);
        let t = table(json!({}), ep.clone(), &ServiceTable::default());
        assert!(t.at("10.43.0.9:81".parse().unwrap(), Protocol::Tcp).is_none());
        assert!(t.at(vip(), Protocol::Udp).is_none());
        assert!(t.is_service_ip(vip().ip()) && !t.is_service_ip(client(2)));
        assert_eq!(t.node_ports().len(), 1);
        assert_eq!(t.at_node_port(Protocol::Tcp, 30080).unwrap().service, "s");
        let headless =
            table(json!({"clusterIP": "None", "ports": [{"port": 80}]}), ep.clone(), &ServiceTable::default());
        assert!(headless.node_ports().is_empty() && !headless.is_service_ip(vip().ip()));
        let external = table(json!({"type": "ExternalName"}), ep, &ServiceTable::default());
        assert!(external.at(vip(), Protocol::Tcp).is_none());
    }
}
