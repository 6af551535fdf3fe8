//! Query to answer, and host names to addresses for guests.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::records::{Data, Records, View};

/// A host name with this many dots is tried as it stands first (`ndots:5`, the kubelet's resolv.conf).
const NDOTS: usize = 5;
/// Longest chain of CNAMEs followed inside the zone.
const MAX_CNAMES: usize = 8;

/// What a query asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryType {
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Aliases.
    Cname,
    /// Service ports.
    Srv,
    /// Reverse names.
    Ptr,
    /// Text.
    Txt,
    /// Name servers.
    Ns,
    /// Start of authority.
    Soa,
    /// Everything.
    Any,
    /// A type that the zone never has: NODATA or NXDOMAIN.
    Other,
}

impl QueryType {
    fn wants(self, data: &Data) -> bool {
        match data {
            Data::A(_) => matches!(self, Self::A | Self::Any),
            Data::Aaaa(_) => matches!(self, Self::Aaaa | Self::Any),
            Data::Cname(_) => !matches!(self, Self::Srv | Self::Other | Self::Ptr),
            Data::Srv { .. } => matches!(self, Self::Srv | Self::Any),
            Data::Ptr(_) => matches!(self, Self::Ptr | Self::Any),
            Data::Txt(_) => matches!(self, Self::Txt | Self::Any),
            Data::Ns(_) => matches!(self, Self::Ns | Self::Any),
            Data::Soa => matches!(self, Self::Soa | Self::Any),
        }
    }
}

/// How a query ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rcode {
    /// The name exists; no answers mean NODATA.
    NoError,
    /// The name does not exist.
    NxDomain,
    /// Not a name of the cluster.
    Refused,
}

/// An answer: owner names with data; a negative one carries the zone's SOA in its authority section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The code.
    pub rcode: Rcode,
    /// Answer section.
    pub answers: Vec<(String, Data)>,
    /// Additional section: addresses of SRV targets.
    pub additionals: Vec<(String, Data)>,
}

/// What a guest's lookup of a host name found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostAnswer {
    /// Addresses in the cluster.
    Addresses(Vec<IpAddr>),
    /// The name belongs to the cluster and does not exist, or has no addresses.
    NotFound,
    /// A name of the world (or an ExternalName's target): ask the host's resolver for it.
    External(String),
}

impl Records {
    /// Answers one query as the given view sees the zone. Names may be in any case, with or without a trailing dot.
    pub fn resolve(&self, view: View, name: &str, qtype: QueryType) -> Answer {
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let reverse = name.ends_with(".in-addr.arpa") || name.ends_with(".ip6.arpa");
        let known_reverse = reverse && self.pods.contains_key(&name);
        if !self.owns(&name) && !known_reverse {
            let rcode = if reverse { Rcode::NxDomain } else { Rcode::Refused };
            return Answer { rcode, answers: Vec::new(), additionals: Vec::new() };
        }
        let mut answers = Vec::new();
        let mut owner = name;
        for _ in 0..MAX_CNAMES {
            let Some(all) = self.rrset(view, &owner) else {
                let rcode = if answers.is_empty() { Rcode::NxDomain } else { Rcode::NoError };
                return Answer { rcode, answers, additionals: Vec::new() };
            };
            let wanted: Vec<Data> = all.into_iter().filter(|d| qtype.wants(d)).collect();
            let next = match wanted.as_slice() {
                [Data::Cname(target)] if qtype != QueryType::Cname && self.owns(target) => Some(target.clone()),
                _ => None,
            };
            answers.extend(wanted.into_iter().map(|d| (owner.clone(), d)));
            match next {
                Some(target) => owner = target,
                None => break,
            }
        }
        let additionals = self.srv_addresses(view, &answers);
        Answer { rcode: Rcode::NoError, answers, additionals }
    }

    /// Resolves a host name for a pod of `namespace`, with the search path `NS.svc.ZONE`, `svc.ZONE`, `ZONE`.
    pub fn lookup_host(&self, namespace: &str, name: &str) -> HostAnswer {
        let absolute = name.ends_with('.');
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if name.is_empty() {
            return HostAnswer::NotFound;
        }
        let as_it_stands_first = absolute || name.matches('.').count() >= NDOTS;
        if as_it_stands_first && (absolute || self.owns(&name)) {
            return self.host(&name);
        }
        if !as_it_stands_first {
            let search =
                [format!("{namespace}.svc.{}", self.domain), format!("svc.{}", self.domain), self.domain.clone()];
            for suffix in search {
                match self.host(&format!("{name}.{suffix}")) {
                    HostAnswer::NotFound => {}
                    found => return found,
                }
            }
        }
        self.host(&name)
    }

    /// One absolute name.
    fn host(&self, name: &str) -> HostAnswer {
        if !self.owns(name) {
            return HostAnswer::External(name.to_string());
        }
        let mut addresses = Vec::new();
        for qtype in [QueryType::A, QueryType::Aaaa] {
            for (_, data) in self.resolve(View::Pods, name, qtype).answers {
                match data {
                    Data::A(ip) => addresses.push(IpAddr::V4(ip)),
                    Data::Aaaa(ip) => addresses.push(IpAddr::V6(ip)),
                    Data::Cname(target) if !self.owns(&target) => return HostAnswer::External(target),
                    _ => {}
                }
            }
        }
        if addresses.is_empty() { HostAnswer::NotFound } else { HostAnswer::Addresses(addresses) }
    }

    /// Whether a name lies in the cluster's zone.
    pub fn owns(&self, name: &str) -> bool {
        name == self.domain || name.strip_suffix(self.domain.as_str()).is_some_and(|rest| rest.ends_with('.'))
    }

    /// All records of a name; `None`: no such name.
    fn rrset(&self, view: View, name: &str) -> Option<Vec<Data>> {
        if let (View::Outside, Some(set)) = (view, self.outside.get(name)) {
            return Some(set.iter().cloned().collect());
        }
        if let Some(set) = self.pods.get(name) {
            return Some(set.iter().cloned().collect());
        }
        // Pod records: `10-64-0-7.NS.pod.ZONE` spells its own address (CoreDNS's `pods insecure`).
        let rest = name.strip_suffix(self.domain.as_str())?.strip_suffix(".pod.")?;
        let (label, _namespace) = rest.split_once('.').filter(|(_, ns)| !ns.is_empty() && !ns.contains('.'))?;
        let v4: Option<Ipv4Addr> = label.replace('-', ".").parse().ok();
        let v6: Option<Ipv6Addr> = label.replace('-', ":").parse().ok();
        v4.map(Data::A).or(v6.map(Data::Aaaa)).map(|d| vec![d])
    }

    fn srv_addresses(&self, view: View, answers: &[(String, Data)]) -> Vec<(String, Data)> {
        let mut additionals = Vec::new();
        for (_, data) in answers {
            if let Data::Srv { target, .. } = data {
                let addresses = self.rrset(view, target).unwrap_or_default();
                for d in addresses.into_iter().filter(|d| matches!(d, Data::A(_) | Data::Aaaa(_))) {
                    if !additionals.contains(&(target.clone(), d.clone())) {
                        additionals.push((target.clone(), d));
                    }
                }
            }
        }
        additionals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::NodeAddresses;
    use k8s_openapi::api::core::v1::Service;
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use k8s_openapi::serde_json::{from_value, json};

    fn table() -> Records {
        let services: Vec<Service> = [
            json!({"metadata": {"name": "web", "namespace": "shop"}, "spec": {"clusterIP": "10.43.0.10",
                "clusterIPs": ["10.43.0.10"], "type": "NodePort",
                "ports": [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080}]}}),
            json!({"metadata": {"name": "db", "namespace": "shop"}, "spec": {"clusterIP": "None",
                "ports": [{"name": "sql", "port": 5432}]}}),
            json!({"metadata": {"name": "empty", "namespace": "shop"}, "spec": {"clusterIP": "None"}}),
            json!({"metadata": {"name": "ext", "namespace": "shop"},
                "spec": {"type": "ExternalName", "externalName": "db.example.com"}}),
            json!({"metadata": {"name": "alias", "namespace": "shop"},
                "spec": {"type": "ExternalName", "externalName": "web.shop.svc.cluster.local"}}),
            json!({"metadata": {"name": "api", "namespace": "default"}, "spec": {"clusterIP": "10.43.0.11",
                "clusterIPs": ["10.43.0.11", "fd00::11"], "ports": [{"port": 8080}]}}),
        ]
        .into_iter()
        .map(|v| from_value(v).unwrap())
        .collect();
        let slices: Vec<EndpointSlice> = [json!({
            "metadata": {"name": "db-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "db"}},
            "addressType": "IPv4",
            "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
            "endpoints": [
                {"addresses": ["10.64.0.7"], "hostname": "db-0", "conditions": {"ready": true}},
                {"addresses": ["10.64.0.8"], "conditions": {"ready": true}},
                {"addresses": ["10.64.0.9"], "conditions": {"ready": false}}
            ]
        })]
        .into_iter()
        .map(|v| from_value(v).unwrap())
        .collect();
        let nodes = [NodeAddresses { addresses: vec!["192.0.2.1".parse().unwrap()] }];
        Records::build("cluster.local", &services, &slices, &nodes)
    }

    /// `rcode; answers; additionals` in one line, for tables.
    fn show(view: View, name: &str, qtype: QueryType) -> String {
        let a = table().resolve(view, name, qtype);
        let list =
            |v: &[(String, Data)]| v.iter().map(|(n, d)| format!("{n} {}", text(d))).collect::<Vec<_>>().join(", ");
        format!("{:?}; {}; {}", a.rcode, list(&a.answers), list(&a.additionals))
    }

    fn text(d: &Data) -> String {
        match d {
            Data::A(ip) => ip.to_string(),
            Data::Aaaa(ip) => ip.to_string(),
            Data::Srv { port, target } => format!("{port} {target}"),
            Data::Cname(n) | Data::Ptr(n) | Data::Txt(n) | Data::Ns(n) => n.clone(),
            Data::Soa => "soa".into(),
        }
    }

    #[test]
    fn answers_follow_the_specification() {
        use QueryType::*;
        use View::*;
        let web = "web.shop.svc.cluster.local";
        let cases: &[(View, &str, QueryType, &str)] = &[
            (Pods, "web.shop.svc.cluster.local.", A, "NoError; web.shop.svc.cluster.local 10.43.0.10; "),
            (Pods, "WEB.Shop.SVC.cluster.LOCAL", A, "NoError; web.shop.svc.cluster.local 10.43.0.10; "),
            (Outside, web, A, "NoError; web.shop.svc.cluster.local 192.0.2.1; "),
            (Pods, web, Aaaa, "NoError; ; "),
            (Outside, web, Aaaa, "NoError; ; "),
            (Pods, "api.default.svc.cluster.local", Aaaa, "NoError; api.default.svc.cluster.local fd00::11; "),
            (Outside, "api.default.svc.cluster.local", A, "NoError; api.default.svc.cluster.local 10.43.0.11; "),
            (Pods, "nosuch.shop.svc.cluster.local", A, "NxDomain; ; "),
            (Pods, "shop.svc.cluster.local", A, "NoError; ; "),
            (Pods, "nosuch.svc.cluster.local", A, "NxDomain; ; "),
            (Pods, "svc.cluster.local", A, "NoError; ; "),
            (Pods, "empty.shop.svc.cluster.local", A, "NxDomain; ; "),
            (Pods, "example.com", A, "Refused; ; "),
            (Pods, "notcluster.local", A, "Refused; ; "),
            (
                Pods,
                "_http._tcp.web.shop.svc.cluster.local",
                Srv,
                "NoError; _http._tcp.web.shop.svc.cluster.local 80 web.shop.svc.cluster.local; web.shop.svc.cluster.local 10.43.0.10",
            ),
            (
                Outside,
                "_http._tcp.web.shop.svc.cluster.local",
                Srv,
                "NoError; _http._tcp.web.shop.svc.cluster.local 30080 web.shop.svc.cluster.local; web.shop.svc.cluster.local 192.0.2.1",
            ),
            (Pods, "_nope._tcp.web.shop.svc.cluster.local", Srv, "NxDomain; ; "),
            (
                Pods,
                "db.shop.svc.cluster.local",
                A,
                "NoError; db.shop.svc.cluster.local 10.64.0.7, db.shop.svc.cluster.local 10.64.0.8; ",
            ),
            (Pods, "db-0.db.shop.svc.cluster.local", A, "NoError; db-0.db.shop.svc.cluster.local 10.64.0.7; "),
            (
                Pods,
                "10-64-0-8.db.shop.svc.cluster.local",
                A,
                "NoError; 10-64-0-8.db.shop.svc.cluster.local 10.64.0.8; ",
            ),
            (
                Pods,
                "_sql._tcp.db.shop.svc.cluster.local",
                Srv,
                "NoError; _sql._tcp.db.shop.svc.cluster.local 5432 10-64-0-8.db.shop.svc.cluster.local, \
                 _sql._tcp.db.shop.svc.cluster.local 5432 db-0.db.shop.svc.cluster.local; \
                 10-64-0-8.db.shop.svc.cluster.local 10.64.0.8, db-0.db.shop.svc.cluster.local 10.64.0.7",
            ),
            (Pods, "9.9.43.10.in-addr.arpa", Ptr, "NxDomain; ; "),
            (Pods, "10.0.43.10.in-addr.arpa.", A, "NoError; ; "),
            (Pods, "ext.shop.svc.cluster.local", A, "NoError; ext.shop.svc.cluster.local db.example.com; "),
            (
                Pods,
                "alias.shop.svc.cluster.local",
                A,
                "NoError; alias.shop.svc.cluster.local web.shop.svc.cluster.local, web.shop.svc.cluster.local 10.43.0.10; ",
            ),
            (Pods, "dns-version.cluster.local", Txt, "NoError; dns-version.cluster.local 1.1.0; "),
            (Pods, "10-64-0-99.shop.pod.cluster.local", A, "NoError; 10-64-0-99.shop.pod.cluster.local 10.64.0.99; "),
            (Pods, "nonsense.shop.pod.cluster.local", A, "NxDomain; ; "),
            (Pods, "cluster.local", Soa, "NoError; cluster.local soa; "),
        ];
        for (view, name, qtype, expect) in cases {
            assert_eq!(&show(*view, name, *qtype), expect, "{name} {qtype:?} {view:?}");
        }
    }

    #[test]
    fn reverse_names_point_back() {
        for (ip, name) in [
            ("10.43.0.10", "web.shop.svc.cluster.local"),
            ("10.64.0.7", "db-0.db.shop.svc.cluster.local"),
            ("fd00::11", "api.default.svc.cluster.local"),
        ] {
            let owner = crate::records::reverse_name(ip.parse().unwrap());
            let answer = table().resolve(View::Pods, &owner, QueryType::Ptr);
            assert_eq!(answer.answers, vec![(owner, Data::Ptr(name.into()))], "{ip}");
        }
    }

    #[test]
    fn guests_find_hosts_by_search_path() {
        let found = |ip: &str| HostAnswer::Addresses(vec![ip.parse().unwrap()]);
        let cases = [
            ("shop", "web", found("10.43.0.10")),
            ("default", "web", HostAnswer::External("web".into())),
            ("default", "web.shop", found("10.43.0.10")),
            ("default", "web.shop.svc", found("10.43.0.10")),
            ("default", "web.shop.svc.cluster.local", found("10.43.0.10")),
            ("default", "web.shop.svc.cluster.local.", found("10.43.0.10")),
            ("default", "nosuch.shop.svc.cluster.local", HostAnswer::NotFound),
            ("shop", "db-0.db", found("10.64.0.7")),
            ("shop", "ext", HostAnswer::External("db.example.com".into())),
            ("shop", "alias", found("10.43.0.10")),
            ("shop", "example.com", HostAnswer::External("example.com".into())),
            ("shop", "", HostAnswer::NotFound),
        ];
        for (ns, name, expect) in cases {
            assert_eq!(table().lookup_host(ns, name), expect, "{name} from {ns}");
        }
    }
}
