//! Cluster IPs and node ports of Services. What is taken is what the stored Services say; one write that may take an
//! address runs at a time, from the choice to the commit.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use async_trait::async_trait;
use copepod_api::{ApiError, Cidr, FieldError};
use copepod_store::ListOptions;
use parking_lot::Mutex as SyncMutex;
use rand::Rng;
use serde_json::{Map, Value, json};
use tokio::sync::Mutex;

use super::{Admission, Operation, Review};
use crate::api::error;
use crate::api::object::{self, as_map, child_mut};
use crate::api::request::Request;

const SERVICES: &str = "/core/services/";
/// Random draws before the ranges are scanned.
const DRAWS: usize = 16;

/// Gives Services their addresses and ports.
pub(super) struct Addresses {
    cidr: Cidr,
    ports: RangeInclusive<u16>,
    lock: Arc<Mutex<()>>,
    seen: SyncMutex<BTreeMap<Arc<str>, (u64, Taken)>>,
}

/// What one Service, or all, hold. A port is taken per protocol.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Taken {
    addresses: BTreeSet<Ipv4Addr>,
    ports: BTreeSet<(String, u16)>,
}

impl Addresses {
    pub fn new(cidr: Cidr, ports: RangeInclusive<u16>) -> Self {
        Self { cidr, ports, lock: Arc::default(), seen: SyncMutex::default() }
    }

    /// What all Services but one hold; only those that changed since the last look are decoded.
    fn taken(&self, request: &Request, except: &str) -> Result<Taken, ApiError> {
        let services = copepod_api::GroupResource { group: String::new(), resource: "services".into() };
        let page = request
            .state
            .store
            .list(SERVICES, &ListOptions::default())
            .map_err(|e| error::from_store(e, &services, ""))?;
        let mut seen = self.seen.lock();
        let mut next = BTreeMap::new();
        let mut all = Taken::default();
        // The first address is the `kubernetes` Service's, also while it does not exist.
        if except != format!("{SERVICES}default/kubernetes") {
            all.addresses.extend(self.cidr.at(1));
        }
        for record in page.records {
            let known = seen.remove(&record.key).filter(|(revision, _)| *revision == record.revision);
            let held = match known {
                Some((_, held)) => held,
                None => Taken::of(&object::stored(request, &record)?),
            };
            if *record.key != *except {
                all.addresses.extend(&held.addresses);
                all.ports.extend(held.ports.iter().cloned());
            }
            next.insert(record.key.clone(), (record.revision, held));
        }
        *seen = next;
        Ok(all)
    }

    /// Fills in and checks a Service's addresses and ports against what others hold.
    fn assign(&self, service: &mut Value, taken: &Taken) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let kind = service_type(service).to_string();
        let spec = child_mut(as_map(service), "spec");
        if kind != "ExternalName" {
            self.assign_address(spec, taken, &mut errors);
        }
        if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
            let mut used = taken.ports.clone();
            self.assign_ports(spec, &mut used, &mut errors);
            if has_health_check(&kind, spec) {
                self.assign_health_check(spec, &used, &mut errors);
            }
        }
        errors
    }

    fn assign_address(&self, spec: &mut Map<String, Value>, taken: &Taken, errors: &mut Vec<FieldError>) {
        let listed = spec.get("clusterIPs").and_then(|l| l.get(0)).and_then(Value::as_str).unwrap_or_default();
        let given = spec.get("clusterIP").and_then(Value::as_str).filter(|s| !s.is_empty()).unwrap_or(listed);
        let mut fail = |ip: &str, why: String| {
            let detail = format!("failed to allocate IP {ip}: {why}");
            errors.push(FieldError::invalid("spec.clusterIPs", &json!([ip]), &detail));
        };
        let address = if given == "None" {
            given.to_string()
        } else if given.is_empty() {
            match self.free_address(taken) {
                Some(free) => free.to_string(),
                None => {
                    let why = format!("range is full: no address of {} is free", self.cidr);
                    errors.push(FieldError::invalid("spec.clusterIPs", &json!([]), &why));
                    return;
                }
            }
        } else {
            // An unparsable address is the kind's validation's to refuse.
            let Ok(ip) = given.parse::<Ipv4Addr>() else { return };
            if !self.cidr.contains(ip) {
                let why = format!(
                    "the provided IP ({given}) is not in the valid range. The range of valid IPs is {}",
                    self.cidr
                );
                return fail(given, why);
            }
            if taken.addresses.contains(&ip) {
                return fail(given, "provided IP is already allocated".into());
            }
            given.to_string()
        };
        spec.insert("clusterIP".into(), json!(address));
        spec.insert("clusterIPs".into(), json!([address]));
        spec.entry("ipFamilies").or_insert_with(|| json!(["IPv4"]));
        spec.entry("ipFamilyPolicy").or_insert_with(|| json!("SingleStack"));
    }

    /// A free address; the first few stay for those who ask for them (upstream's static band).
    fn free_address(&self, taken: &Taken) -> Option<Ipv4Addr> {
        let size = self.cidr.size();
        let (low, high) = (if size > 32 { (size / 16).clamp(16, 256) } else { 1 }, size.saturating_sub(1));
        let free = |offset: u64| self.cidr.at(offset).filter(|ip| !taken.addresses.contains(ip));
        let mut rng = rand::rng();
        (0..DRAWS)
            .filter(|_| low < high)
            .find_map(|_| free(rng.random_range(low..high)))
            .or_else(|| (low..high).find_map(free))
            .or_else(|| (1..low.min(high)).find_map(free))
    }

    fn assign_ports(
        &self,
        spec: &mut Map<String, Value>,
        used: &mut BTreeSet<(String, u16)>,
        errors: &mut Vec<FieldError>,
    ) {
        let skip = spec.get("allocateLoadBalancerNodePorts") == Some(&json!(false));
        let ports = spec.get_mut("ports").and_then(Value::as_array_mut);
        // Ports that the client chose come first, so that none is given away to another port of the same Service.
        let mut without = Vec::new();
        for (i, port) in ports.into_iter().flatten().enumerate() {
            let (protocol, field) = (protocol(port), format!("spec.ports[{i}].nodePort"));
            let given = port.get("nodePort").and_then(Value::as_i64).unwrap_or(0);
            if given == 0 {
                without.push((protocol, port));
                continue;
            }
            let mut fail = |why: String| errors.push(FieldError::invalid(&field, &json!(given), &why));
            match u16::try_from(given).ok().filter(|p| self.ports.contains(p)) {
                None => fail(self.out_of_range()),
                Some(p) if !used.insert((protocol, p)) => fail("provided port is already allocated".into()),
                Some(_) => {}
            }
        }
        for (protocol, port) in without.into_iter().filter(|_| !skip) {
            let Some(free) = self.free_port(used) else {
                let (first, last) = (self.ports.start(), self.ports.end());
                let why = format!("range is full: no node port of {first}-{last} is free");
                errors.push(FieldError::invalid("spec.ports", &Value::Null, &why));
                return;
            };
            used.insert((protocol, free));
            as_map(port).insert("nodePort".into(), json!(free));
        }
    }

    /// The port at which a load balancer asks a node whether it has pods of the Service.
    fn assign_health_check(
        &self,
        spec: &mut Map<String, Value>,
        used: &BTreeSet<(String, u16)>,
        errors: &mut Vec<FieldError>,
    ) {
        const FIELD: &str = "spec.healthCheckNodePort";
        let given = spec.get("healthCheckNodePort").and_then(Value::as_i64).unwrap_or(0);
        if given == 0 {
            match self.free_port(used) {
                Some(free) => drop(spec.insert("healthCheckNodePort".into(), json!(free))),
                None => errors.push(FieldError::invalid(FIELD, &json!(0), "range is full: no node port is free")),
            }
            return;
        }
        let why = match u16::try_from(given).ok().filter(|p| self.ports.contains(p)) {
            None => self.out_of_range(),
            Some(port) if used.iter().any(|(_, p)| *p == port) => "provided port is already allocated".into(),
            Some(_) => return,
        };
        errors.push(FieldError::invalid(FIELD, &json!(given), &why));
    }

    fn out_of_range(&self) -> String {
        let (first, last) = (self.ports.start(), self.ports.end());
        format!("provided port is not in the valid range. The range of valid ports is {first}-{last}")
    }

    /// A port that no protocol uses.
    fn free_port(&self, used: &BTreeSet<(String, u16)>) -> Option<u16> {
        let busy: BTreeSet<u16> = used.iter().map(|(_, p)| *p).collect();
        let free = |p: &u16| !busy.contains(p);
        let mut rng = rand::rng();
        (0..DRAWS)
            .filter(|_| !self.ports.is_empty())
            .map(|_| rng.random_range(self.ports.clone()))
            .find(|p| free(p))
            .or_else(|| self.ports.clone().find(|p| free(p)))
    }
}

impl Taken {
    fn of(service: &Value) -> Self {
        let mut taken = Self::default();
        let list = |pointer: &str| service.pointer(pointer).and_then(Value::as_array).into_iter().flatten();
        taken.addresses.extend(list("/spec/clusterIPs").filter_map(|v| v.as_str()?.parse::<Ipv4Addr>().ok()));
        let single = service.pointer("/spec/clusterIP").and_then(Value::as_str);
        taken.addresses.extend(single.and_then(|s| s.parse::<Ipv4Addr>().ok()));
        for port in list("/spec/ports") {
            let number = port.get("nodePort").and_then(Value::as_u64).and_then(|p| u16::try_from(p).ok());
            taken.ports.extend(number.filter(|p| *p > 0).map(|p| (protocol(port), p)));
        }
        let health = service.pointer("/spec/healthCheckNodePort").and_then(Value::as_u64);
        let health = health.and_then(|p| u16::try_from(p).ok()).filter(|p| *p > 0);
        taken.ports.extend(health.map(|p| ("TCP".to_string(), p)));
        taken
    }
}

fn protocol(port: &Value) -> String {
    port.get("protocol").and_then(Value::as_str).unwrap_or("TCP").to_string()
}

fn service_type(service: &Value) -> &str {
    service.pointer("/spec/type").and_then(Value::as_str).unwrap_or("ClusterIP")
}

/// Whether a load balancer must know which nodes have pods of the Service.
fn has_health_check(kind: &str, spec: &Map<String, Value>) -> bool {
    kind == "LoadBalancer" && spec.get("externalTrafficPolicy").and_then(Value::as_str) == Some("Local")
}

fn text<'a>(v: &'a Value, pointer: &str) -> &'a str {
    v.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// Carries what was given before into an update that does not say it, and drops what the new type has no use for.
fn carry(new: &mut Value, old: &Value) {
    let (had, has) = (service_type(old).to_string(), service_type(new).to_string());
    let (old_ip, new_ip) = (text(old, "/spec/clusterIP").to_string(), text(new, "/spec/clusterIP").to_string());
    let node_ports = |t: &str| matches!(t, "NodePort" | "LoadBalancer");
    let spec = child_mut(as_map(new), "spec");
    if has == "ExternalName" {
        if had != "ExternalName" && (new_ip == old_ip || new_ip.is_empty()) {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                spec.remove(field);
            }
        }
    } else if had != "ExternalName" && new_ip.is_empty() && !old_ip.is_empty() {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if let Some(value) = old.pointer(&format!("/spec/{field}")) {
                spec.insert(field.into(), value.clone());
            }
        }
    }
    let before = old.pointer("/spec/ports").and_then(Value::as_array);
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        let key = |p: &Value| (protocol(p), p.get("port").cloned());
        let given = port.get("nodePort").and_then(Value::as_i64).unwrap_or(0);
        let kept = before
            .into_iter()
            .flatten()
            .find(|p| key(p) == key(port))
            .and_then(|p| p.get("nodePort"))
            .filter(|p| p.as_i64().unwrap_or(0) != 0);
        match kept {
            Some(kept) if node_ports(&has) && given == 0 => {
                as_map(port).insert("nodePort".into(), kept.clone());
            }
            // Left over from the old type; a client who sets one anyway is told by validation.
            Some(kept) if !node_ports(&has) && node_ports(&had) && kept.as_i64() == Some(given) => {
                as_map(port).remove("nodePort");
            }
            _ => {}
        }
    }
}

#[async_trait]
impl Admission for Addresses {
    async fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        if !review.is("", "services") || review.operation == Operation::Delete {
            return Ok(());
        }
        if let Some(old) = review.old {
            carry(review.object, old);
            let shape = |s: &Value| (service_type(s).to_string(), text(s, "/spec/externalTrafficPolicy").to_string());
            if Taken::of(review.object) == Taken::of(old) && shape(review.object) == shape(old) {
                return Ok(());
            }
        }
        review.hold(self.lock.clone().lock_owned().await);
        let taken = self.taken(review.request, &review.request.key(review.name))?;
        let errors = self.assign(review.object, &taken);
        if errors.is_empty() { Ok(()) } else { Err(review.request.invalid(review.name, &errors)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses() -> Addresses {
        Addresses::new("10.43.0.0/16".parse().unwrap(), 30000..=30001)
    }

    #[test]
    fn assigns_and_refuses() {
        let a = addresses();
        let mut taken = Taken::default();
        taken.addresses.insert(Ipv4Addr::new(10, 43, 0, 9));
        taken.ports.insert(("TCP".into(), 30000));
        let cases = [
            (json!({"clusterIP": "10.43.0.9"}), "provided IP is already allocated"),
            (json!({"clusterIP": "1.2.3.4"}), "is not in the valid range"),
            (
                json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30000}]}),
                "provided port is already allocated",
            ),
            (
                json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 99}]}),
                "The range of valid ports is 30000-30001",
            ),
            (json!({"type": "NodePort", "ports": [{"port": 1}, {"port": 2}]}), "no node port of 30000-30001 is free"),
            (json!({"clusterIP": "None"}), ""),
            (json!({"type": "ExternalName"}), ""),
            (json!({"type": "NodePort", "ports": [{"port": 1, "nodePort": 30000, "protocol": "UDP"}]}), ""),
            (
                json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 30000}),
                "spec.healthCheckNodePort: Invalid value: 30000: provided port is already allocated",
            ),
            (
                json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 99}),
                "spec.healthCheckNodePort: Invalid value: 99: provided port is not in the valid range",
            ),
            (
                json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 1}]}),
                "spec.healthCheckNodePort: Invalid value: 0: range is full",
            ),
        ];
        for (spec, want) in cases {
            let mut service = json!({"spec": spec});
            let errors = a.assign(&mut service, &taken);
            let text = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            assert!(if want.is_empty() { text.is_empty() } else { text.contains(want) }, "{spec}: {text}");
        }
        let mut service = json!({"spec": {"type": "NodePort", "ports": [{"port": 80}]}});
        assert!(a.assign(&mut service, &taken).is_empty());
        assert_eq!(service["spec"]["ports"][0]["nodePort"], 30001);
        let mut local = json!({"spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}});
        assert!(a.assign(&mut local, &taken).is_empty());
        assert_eq!(local["spec"]["healthCheckNodePort"], 30001);
        assert!(Taken::of(&local).ports.contains(&("TCP".into(), 30001)));
        let ip: Ipv4Addr = service["spec"]["clusterIP"].as_str().unwrap().parse().unwrap();
        assert!(a.cidr.contains(ip) && u32::from(ip) - u32::from(Ipv4Addr::new(10, 43, 0, 0)) >= 256);
    }

    #[test]
    fn carries_and_releases() {
        let old = json!({"spec": {"type": "NodePort", "clusterIP": "10.43.1.1", "clusterIPs": ["10.43.1.1"],
            "ports": [{"port": 80, "nodePort": 30001}]}});
        let mut same = json!({"spec": {"type": "NodePort", "ports": [{"port": 80}]}});
        carry(&mut same, &old);
        assert_eq!(same["spec"]["clusterIP"], "10.43.1.1");
        assert_eq!(same["spec"]["ports"][0]["nodePort"], 30001);
        let mut cluster = json!({"spec": {"type": "ClusterIP", "clusterIP": "10.43.1.1",
            "ports": [{"port": 80, "nodePort": 30001}]}});
        carry(&mut cluster, &old);
        assert_eq!(cluster["spec"]["ports"][0].get("nodePort"), None);
        let mut external = json!({"spec": {"type": "ExternalName", "clusterIP": "10.43.1.1", "externalName": "x.y"}});
        carry(&mut external, &old);
        assert_eq!(external["spec"].get("clusterIP"), None);
    }
}
