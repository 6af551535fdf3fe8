//! What one object uses, by the names that quotas count it under.

use std::collections::BTreeMap;

use copepod_api::{GroupResource, Quantity};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::super::amounts::{self, Amounts, Ask};
use super::super::classes::claim_class;
use crate::kinds::value::{int, list, text};

const CLASS_SUFFIX: &str = ".storageclass.storage.k8s.io/";
const CLAIM_RESOURCES: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];
const SERVICE_RESOURCES: [&str; 3] = ["services", "services.loadbalancers", "services.nodeports"];
const POD_RESOURCES: [&str; 10] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
];
/// Kinds that are also counted under their own name, from before there was `count/`.
const OWN_NAME: [&str; 4] = ["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];
/// What every container must say where a quota counts it.
const MUST_SAY: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

/// The name under which objects of a resource are counted, such as `count/deployments.apps`.
pub fn count_name(resource: &GroupResource) -> String {
    let GroupResource { group, resource } = resource;
    if group.is_empty() { format!("count/{resource}") } else { format!("count/{resource}.{group}") }
}

/// Whether a name in a quota counts objects of this resource.
pub fn counts(resource: &GroupResource, name: &str) -> bool {
    if name == count_name(resource) {
        return true;
    }
    if !resource.group.is_empty() {
        return false;
    }
    match resource.resource.as_str() {
        "pods" => {
            let extended = name.starts_with("requests.") && name.contains('/') && !name.contains("kubernetes.io/");
            let huge = name.starts_with("hugepages-") || name.starts_with("requests.hugepages-");
            POD_RESOURCES.contains(&name) || extended || huge
        }
        "services" => SERVICE_RESOURCES.contains(&name),
        "persistentvolumeclaims" => {
            let by_class = name.split_once(CLASS_SUFFIX).is_some_and(|(_, of)| CLAIM_RESOURCES.contains(&of));
            CLAIM_RESOURCES.contains(&name) || by_class
        }
        own => OWN_NAME.contains(&own) && name == own,
    }
}

/// What an object uses.
pub fn usage(resource: &GroupResource, object: &Value, now: Timestamp) -> Amounts {
    let mut used = Amounts::from([(count_name(resource), one())]);
    if !resource.group.is_empty() {
        return used;
    }
    match resource.resource.as_str() {
        "pods" if runs(object, now) => {
            let ask = |ask| amounts::of_pod_with_overhead(object, ask);
            used.extend(compute(&ask(Ask::Requests), &ask(Ask::Limits)));
            used.insert("pods".into(), one());
        }
        "services" => service(&mut used, object),
        "persistentvolumeclaims" => claim(&mut used, object),
        own if OWN_NAME.contains(&own) => drop(used.insert(own.into(), one())),
        _ => {}
    }
    used
}

fn one() -> Quantity {
    Quantity::from_units(1)
}

/// Whether a pod counts for what it asks for: it has not ended, nor should it have been gone by now.
fn runs(pod: &Value, now: Timestamp) -> bool {
    if matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
        return false;
    }
    let deleted: Option<Timestamp> = text(pod, "/metadata/deletionTimestamp").parse().ok();
    let grace = int(pod, "/metadata/deletionGracePeriodSeconds");
    let over =
        |(at, grace): (Timestamp, i64)| at.checked_add(SignedDuration::from_secs(grace)).is_ok_and(|until| now > until);
    !deleted.zip(grace).is_some_and(over)
}

/// What requests and limits count as.
fn compute(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut used = Amounts::new();
    for (name, amount) in requests {
        let plain = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
        if plain {
            used.insert(name.clone(), *amount);
        }
        if plain || (name.contains('/') && !name.contains("kubernetes.io/")) {
            used.insert(format!("requests.{name}"), *amount);
        }
    }
    for name in ["cpu", "memory", "ephemeral-storage"] {
        if let Some(amount) = limits.get(name) {
            used.insert(format!("limits.{name}"), *amount);
        }
    }
    used
}

fn service(used: &mut Amounts, service: &Value) {
    let ports = list(service, "/spec/ports");
    let given = ports.iter().filter(|p| int(p, "/nodePort").unwrap_or(0) != 0).count();
    let unallocated = service.pointer("/spec/allocateLoadBalancerNodePorts") == Some(&Value::Bool(false));
    let (balancers, node_ports) = match text(service, "/spec/type") {
        "NodePort" => (0, ports.len()),
        "LoadBalancer" if unallocated => (1, given),
        "LoadBalancer" => (1, ports.len()),
        _ => (0, 0),
    };
    used.insert("services".into(), one());
    used.insert("services.loadbalancers".into(), Quantity::from_units(balancers));
    used.insert("services.nodeports".into(), Quantity::from_units(i64::try_from(node_ports).unwrap_or(i64::MAX)));
}

fn claim(used: &mut Amounts, claim: &Value) {
    let class = claim_class(claim).filter(|class| !class.is_empty());
    let mut count = |name: &str, amount: Quantity| {
        used.insert(name.into(), amount);
        if let Some(class) = class {
            used.insert(format!("{class}{CLASS_SUFFIX}{name}"), amount);
        }
    };
    count("persistentvolumeclaims", one());
    let asked = amounts::at(claim, "/spec/resources/requests").get("storage").copied();
    let allocated = amounts::at(claim, "/status/allocatedResources").get("storage").copied();
    if let Some(asked) = asked {
        let most = allocated.map_or(asked, |allocated| asked.max(allocated));
        // In whole bytes, as quotas are.
        let whole = if most.milli() % 1000 == 0 { most } else { Quantity::from_units(most.value()) };
        count("requests.storage", whole);
    }
}

/// Whether each container says what a quota counts of cpu and memory, unless the pod as a whole does.
pub(super) fn constraints(resource: &GroupResource, object: &Value, counted: &[&String]) -> Result<(), String> {
    if !resource.group.is_empty() || resource.resource != "pods" {
        return Ok(());
    }
    let whole = compute(&amounts::whole(object, Ask::Requests), &amounts::whole(object, Ask::Limits));
    let wanted = |name: &&&String| MUST_SAY.contains(&name.as_str()) && !whole.contains_key(name.as_str());
    let wanted: Vec<&&String> = counted.iter().filter(wanted).collect();
    let mut missing: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for container in list(object, "/spec/containers").iter().chain(list(object, "/spec/initContainers")) {
        let said = compute(&Ask::Requests.of(container), &Ask::Limits.of(container));
        for name in wanted.iter().filter(|name| !said.contains_key(name.as_str())) {
            missing.entry(name.as_str()).or_default().push(text(container, "/name"));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let each = missing.into_iter().map(|(name, mut containers)| {
        containers.sort_unstable();
        containers.dedup();
        format!("{name} for: {}", containers.join(","))
    });
    Err(format!("must specify {}", each.collect::<Vec<_>>().join("; ")))
}
