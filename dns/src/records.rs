//! The record table: Services and EndpointSlices to names.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use copepod_api::names::LABEL_SERVICE_NAME;

/// TTL of every record, in seconds; CoreDNS's default for its kubernetes plugin.
pub const TTL: u32 = 5;
/// The version of the specification that the `dns-version` record announces.
pub const SPEC_VERSION: &str = "1.1.0";

/// Who asks. The same name may have an address that only one of them can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Pods: cluster IPs and pod IPs.
    Pods,
    /// Machines outside: node addresses for Services with node ports, and the pods' answer for all others.
    Outside,
}

/// One record's data. Names are lower-case, absolute, without the trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Data {
    /// IPv4 address.
    A(Ipv4Addr),
    /// IPv6 address.
    Aaaa(Ipv6Addr),
    /// Alias.
    Cname(String),
    /// A port of a service: priority 0, equal weights.
    Srv {
        /// Port number.
        port: u16,
        /// The name with the addresses.
        target: String,
    },
    /// Reverse name.
    Ptr(String),
    /// Text.
    Txt(String),
    /// Name server.
    Ns(String),
    /// Start of authority of the cluster's zone.
    Soa,
}

impl Data {
    /// The record for an address.
    pub fn address(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => Self::A(ip),
            IpAddr::V6(ip) => Self::Aaaa(ip),
        }
    }
}

/// A node that serves node ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeAddresses {
    /// The addresses at which machines outside reach the node.
    pub addresses: Vec<IpAddr>,
}

/// An immutable snapshot of all names; built anew when Services or slices change.
#[derive(Debug, Default)]
pub struct Records {
    pub(crate) domain: String,
    pub(crate) pods: HashMap<String, BTreeSet<Data>>,
    /// Only names whose answer differs for machines outside.
    pub(crate) outside: HashMap<String, BTreeSet<Data>>,
}

impl Records {
    /// Builds the table for a cluster domain such as `cluster.local`. `nodes` are the ready nodes' addresses.
    pub fn build<'a>(
        domain: &str,
        services: impl IntoIterator<Item = &'a Service>,
        slices: impl IntoIterator<Item = &'a EndpointSlice>,
        nodes: &[NodeAddresses],
    ) -> Self {
        let domain = domain.trim_matches('.').to_ascii_lowercase();
        let mut table = Self { domain: domain.clone(), ..Self::default() };
        table.insert(domain.clone(), Data::Soa);
        table.insert(domain.clone(), Data::Ns(format!("ns.dns.{domain}")));
        table.insert(format!("dns-version.{domain}"), Data::Txt(SPEC_VERSION.into()));
        table.pods.entry(format!("svc.{domain}")).or_default();
        table.pods.entry(format!("pod.{domain}")).or_default();

        let mut by_service: HashMap<(String, String), Vec<&EndpointSlice>> = HashMap::new();
        for slice in slices {
            let owner = slice.metadata.labels.as_ref().and_then(|l| l.get(LABEL_SERVICE_NAME));
            if let (Some(owner), Some(ns)) = (owner, &slice.metadata.namespace) {
                by_service.entry((ns.clone(), owner.clone())).or_default().push(slice);
            }
        }
        for service in services {
            let (Some(name), Some(ns)) = (&service.metadata.name, &service.metadata.namespace) else { continue };
            let slices = by_service.remove(&(ns.clone(), name.clone())).unwrap_or_default();
            table.add_service(name, ns, service, &slices, nodes);
        }
        table
    }

    /// The zone, without the trailing dot.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    fn add_service(
        &mut self,
        name: &str,
        ns: &str,
        service: &Service,
        slices: &[&EndpointSlice],
        nodes: &[NodeAddresses],
    ) {
        let Some(spec) = &service.spec else { return };
        let fqdn = format!("{name}.{ns}.svc.{}", self.domain);
        let ports = spec.ports.as_deref().unwrap_or_default();
        if spec.type_.as_deref() == Some("ExternalName") {
            if let Some(target) = &spec.external_name {
                self.insert(fqdn, Data::Cname(target.trim_end_matches('.').to_ascii_lowercase()));
            }
            return;
        }
        let cluster_ips: Vec<IpAddr> = spec
            .cluster_ips
            .clone()
            .or_else(|| spec.cluster_ip.clone().map(|ip| vec![ip]))
            .unwrap_or_default()
            .iter()
            .filter_map(|ip| ip.parse().ok())
            .collect();
        if cluster_ips.is_empty() {
            if spec.cluster_ip.as_deref() == Some("None") {
                self.add_headless(&fqdn, slices);
            }
            return;
        }
        for ip in &cluster_ips {
            self.insert(fqdn.clone(), Data::address(*ip));
            self.insert(reverse_name(*ip), Data::Ptr(fqdn.clone()));
        }
        for port in ports {
            let number = u16::try_from(port.port).unwrap_or_default();
            for owner in srv_names(&fqdn, port.name.as_deref(), port.protocol.as_deref()) {
                self.insert(owner, Data::Srv { port: number, target: fqdn.clone() });
            }
        }
        if matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer")) {
            self.add_outside(&fqdn, ports, nodes);
        }
    }

    /// Machines outside reach a Service with node ports at the nodes' addresses.
    fn add_outside(&mut self, fqdn: &str, ports: &[ServicePort], nodes: &[NodeAddresses]) {
        let addresses: BTreeSet<Data> = nodes.iter().flat_map(|n| &n.addresses).map(|ip| Data::address(*ip)).collect();
        if addresses.is_empty() {
            return;
        }
        self.outside.insert(fqdn.to_string(), addresses);
        for port in ports {
            let Some(number) = port.node_port.and_then(|p| u16::try_from(p).ok()) else { continue };
            for owner in srv_names(fqdn, port.name.as_deref(), port.protocol.as_deref()) {
                self.outside.entry(owner).or_default().insert(Data::Srv { port: number, target: fqdn.to_string() });
            }
        }
    }

    fn add_headless(&mut self, fqdn: &str, slices: &[&EndpointSlice]) {
        for slice in slices {
            for endpoint in slice.endpoints.iter().flatten().filter(|e| is_ready(e)) {
                for address in &endpoint.addresses {
                    let Ok(ip) = address.parse::<IpAddr>() else { continue };
                    let host = endpoint.hostname.clone().unwrap_or_else(|| dashed(ip));
                    let target = format!("{host}.{fqdn}");
                    self.insert(fqdn.to_string(), Data::address(ip));
                    self.insert(target.clone(), Data::address(ip));
                    self.insert(reverse_name(ip), Data::Ptr(target.clone()));
                    for port in slice.ports.as_deref().unwrap_or_default() {
                        let Some(number) = port.port.and_then(|p| u16::try_from(p).ok()) else { continue };
                        for owner in srv_names(fqdn, port.name.as_deref(), port.protocol.as_deref()) {
                            self.insert(owner, Data::Srv { port: number, target: target.clone() });
                        }
                    }
                }
            }
        }
    }

    /// Adds a record and the empty non-terminals above it, so that NODATA and NXDOMAIN are told apart.
    fn insert(&mut self, name: String, data: Data) {
        let mut rest = name.as_str();
        while let Some((_, parent)) = rest.split_once('.') {
            if parent.len() <= self.domain.len() || self.pods.contains_key(parent) {
                break;
            }
            self.pods.entry(parent.to_string()).or_default();
            rest = parent;
        }
        self.pods.entry(name).or_default().insert(data);
    }
}

/// The owners of a port's SRV record: `_name._protocol.service` if the port is named, and the service itself.
fn srv_names(fqdn: &str, port: Option<&str>, protocol: Option<&str>) -> Vec<String> {
    let protocol = protocol.unwrap_or("TCP").to_ascii_lowercase();
    let mut names = vec![fqdn.to_string()];
    if let Some(port) = port.filter(|p| !p.is_empty()) {
        names.push(format!("_{port}._{protocol}.{fqdn}"));
    }
    names
}

fn is_ready(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true)
}

/// An address as one label: `10-64-0-7`, the name of endpoints without a hostname.
pub fn dashed(ip: IpAddr) -> String {
    ip.to_string().replace(['.', ':'], "-")
}

/// The name that a PTR query asks for, without the trailing dot (RFC 1035 section 3.5, RFC 3596 section 2.5).
pub fn reverse_name(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let nibbles: Vec<String> =
                ip.octets().iter().rev().flat_map(|o| [format!("{:x}", o & 15), format!("{:x}", o >> 4)]).collect();
            format!("{}.ip6.arpa", nibbles.join("."))
        }
    }
}
