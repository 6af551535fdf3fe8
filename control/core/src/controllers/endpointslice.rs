//! EndpointSlices of a Service: which pods answer for it, on which ports, where, and in what state.
//! Source: <https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/>.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use copepod_api::LabelSelector;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointSlice, ForNode, ForZone};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::Plan;
use super::meta::{self, text};
use super::pod;
use super::slices::{self, Common, Ports, Wanted, same_ports, wire_ports};

/// The most endpoints in one slice, as upstream's default; more are split over several.
pub const MAX_ENDPOINTS: usize = 100;
/// Who manages the slices made here.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Marks slices and endpoints of Services without a cluster IP.
pub const LABEL_HEADLESS: &str = "service.kubernetes.io/headless";
/// When to look again for the node of a pod that is bound to an unknown one.
const NODE_WAIT: Duration = Duration::from_secs(15);

/// Slices with what they are to hold.
type Filled<'a> = Vec<(&'a EndpointSlice, Vec<Endpoint>)>;

/// Tells a node's zone: `None` if there is no such node, empty if it is in none.
pub type ZoneOf<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Decides for one Service. `pods` are those of its namespace that it selects, in any order and with any others; `slices`
/// those labelled with the Service's name.
pub fn reconcile(service: &Service, pods: &[Arc<Pod>], slices: &[Arc<EndpointSlice>], zone_of: ZoneOf<'_>) -> Plan {
    let Some(selector) = selector(service) else { return Plan::nothing("no selector: endpoints are the user's") };
    if service.metadata.deletion_timestamp.is_some() {
        return Plan::nothing("being deleted");
    }
    let mut plan = Plan { why: "in sync".into(), ..Plan::default() };
    let (mine, mut stale): (Vec<&EndpointSlice>, Vec<&EndpointSlice>) = slices::managed_by(slices, MANAGER)
        .into_iter()
        // Those of a former Service of this name are of no use.
        .partition(|s| meta::controlled_by(&s.metadata, text(&service.metadata.uid)));
    let mut mine: BTreeMap<&str, &EndpointSlice> = mine.into_iter().map(|s| (text(&s.metadata.name), s)).collect();
    let (mut kept, mut new) = (Vec::new(), Vec::new());
    for family in families(service) {
        let mut groups: BTreeMap<Ports, BTreeMap<String, Endpoint>> = BTreeMap::new();
        for pod in pods.iter().filter(|p| meta::selects(&selector, &p.metadata)) {
            let zone = zone_of(pod::node_name(pod));
            let Some((ports, endpoint)) = endpoint(service, pod, family, zone.as_deref()) else { continue };
            if zone.is_none() && !publishes(service) {
                plan.requeue(NODE_WAIT);
            } else {
                groups.entry(ports).or_default().insert(text(&pod.metadata.uid).to_string(), endpoint);
            }
        }
        // A Service without endpoints still has one slice, so that consumers see that it was looked at.
        if groups.is_empty() {
            groups.insert(Vec::new(), BTreeMap::new());
        }
        for (ports, wanted) in groups {
            let ports = wire_ports(&ports);
            let fits = |s: &&EndpointSlice| {
                s.address_type == family && same_ports(s.ports.as_deref().unwrap_or_default(), &ports)
            };
            let group: Vec<&EndpointSlice> = mine.values().copied().filter(fits).collect();
            let (full, rest) = place(group, wanted);
            let wanted = |endpoints| Wanted { family, ports: ports.clone(), endpoints };
            for (slice, endpoints) in full {
                mine.remove(text(&slice.metadata.name));
                kept.push((slice, wanted(endpoints)));
            }
            new.extend(rest.into_iter().map(wanted));
        }
    }
    stale.extend(mine.into_values());
    slices::write(&common(service), kept, new, stale, &mut plan);
    plan
}

/// Puts a group's endpoints into its slices with few writes: each stays where it is, new ones go into slices that
/// change anyway, else all into the fullest that has room for them, else into new ones. Returns the slices that stay
/// with what they hold, and what new ones hold.
fn place(group: Vec<&EndpointSlice>, mut wanted: BTreeMap<String, Endpoint>) -> (Filled<'_>, Vec<Vec<Endpoint>>) {
    if wanted.is_empty() {
        return match group.first() {
            Some(placeholder) => (vec![(*placeholder, Vec::new())], Vec::new()),
            None => (Vec::new(), vec![Vec::new()]),
        };
    }
    let (mut changed, mut same) = (Vec::new(), Vec::new());
    for slice in group {
        let uids = slice.endpoints.iter().flatten().filter_map(|e| e.target_ref.as_ref()?.uid.as_ref());
        let stay: Vec<Endpoint> = uids.filter_map(|uid| wanted.remove(uid)).take(MAX_ENDPOINTS).collect();
        let as_before = slice.endpoints.as_deref().unwrap_or_default() == stay.as_slice();
        if as_before { same.push((slice, stay)) } else { changed.push((slice, stay)) }
    }
    let mut rest: Vec<Endpoint> = wanted.into_values().collect();
    let room = |endpoints: &Vec<Endpoint>| MAX_ENDPOINTS.saturating_sub(endpoints.len());
    changed.sort_by_key(|(_, endpoints)| room(endpoints));
    for (_, endpoints) in &mut changed {
        let fill = room(endpoints).min(rest.len());
        endpoints.extend(rest.drain(..fill));
    }
    let fitting = same.iter_mut().filter(|(_, e)| !rest.is_empty() && room(e) >= rest.len());
    if let Some((_, endpoints)) = fitting.min_by_key(|(_, e)| room(e)) {
        endpoints.append(&mut rest);
    }
    // What was emptied is free for another use.
    changed.retain(|(_, endpoints)| !endpoints.is_empty());
    changed.extend(same);
    (changed, rest.chunks(MAX_ENDPOINTS).map(<[Endpoint]>::to_vec).collect())
}

fn common(service: &Service) -> Common<'_> {
    let mut labels = meta::labels(&service.metadata);
    labels.remove(LABEL_HEADLESS);
    if headless(service) {
        labels.insert(LABEL_HEADLESS.into(), String::new());
    }
    let owner = meta::controller_ref("v1", "Service", &service.metadata);
    let (namespace, name) = (text(&service.metadata.namespace), text(&service.metadata.name));
    Common::new(namespace, name, MANAGER, owner, labels)
}

/// Whether the Service has no cluster IP by choice.
pub(super) fn headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

/// Whether pods that are not ready are endpoints like those that are.
pub(super) fn publishes(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses) == Some(true)
}

/// The Service's selector; `None` if endpoints are not ours to keep.
pub fn selector(service: &Service) -> Option<LabelSelector> {
    let spec = service.spec.as_ref()?;
    if spec.type_.as_deref() == Some("ExternalName") {
        return None;
    }
    let labels = spec.selector.as_ref().filter(|s| !s.is_empty())?;
    Some(LabelSelector::from_labels(labels))
}

fn families(service: &Service) -> Vec<&'static str> {
    let given = service.spec.as_ref().and_then(|s| s.ip_families.as_ref());
    let mut families: BTreeSet<&'static str> =
        given.into_iter().flatten().map(|f| if f == "IPv6" { "IPv6" } else { "IPv4" }).collect();
    if families.is_empty() {
        families.insert("IPv4");
    }
    families.into_iter().collect()
}

/// A pod's address of a family.
pub(super) fn address(pod: &Pod, family: &str) -> Option<String> {
    let status = pod.status.as_ref()?;
    let ips = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    ips.chain(status.pod_ip.as_deref())
        .find(|ip| !ip.is_empty() && ip.contains(':') == (family == "IPv6"))
        .map(Into::into)
}

fn endpoint(service: &Service, pod: &Pod, family: &str, zone: Option<&str>) -> Option<(Ports, Endpoint)> {
    if pod::terminal(pod) {
        return None;
    }
    let address = address(pod, family)?;
    let (serving, terminating) = (pod::ready(pod), pod::terminating(pod));
    let ready = publishes(service) || (serving && !terminating);
    let spec = service.spec.as_ref()?;
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        let number = target_port(port, pod)?;
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
        Some((text(&port.name).to_string(), number, protocol, port.app_protocol.clone()))
    });
    let zone = zone.filter(|zone| !zone.is_empty());
    let node_name = Some(pod::node_name(pod).to_string()).filter(|n| !n.is_empty());
    let hints = spec.traffic_distribution.as_deref().filter(|_| ready);
    let endpoint = Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        hints: hints.and_then(|wish| self::hints(wish, zone, node_name.as_deref())),
        node_name,
        zone: zone.map(Into::into),
        target_ref: Some(reference(pod)),
        ..Endpoint::default()
    };
    Some((ports.collect(), endpoint))
}

/// For whom an endpoint is meant under a Service's `trafficDistribution`: clients of its own zone, or first of its own
/// node.
fn hints(distribution: &str, zone: Option<&str>, node: Option<&str>) -> Option<EndpointHints> {
    let near = ["PreferClose", "PreferSameZone", "PreferSameNode"].contains(&distribution);
    let zone = zone.filter(|_| near).map(|name| vec![ForZone { name: name.into() }]);
    let node = node.filter(|_| distribution == "PreferSameNode").map(|name| vec![ForNode { name: name.into() }]);
    (zone.is_some() || node.is_some()).then_some(EndpointHints { for_zones: zone, for_nodes: node })
}

/// The pod as an endpoint's target.
pub(super) fn reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}

/// The host name that DNS gives the pod within this Service.
pub(super) fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    (spec.subdomain == service.metadata.name).then(|| spec.hostname.clone()).flatten().filter(|h| !h.is_empty())
}

/// The number that a Service's port has on a pod: itself, given, or looked up by name among the containers' ports
/// (sidecars among the init containers included). `None` if the pod has no such port.
pub(super) fn target_port(port: &ServicePort, pod: &Pod) -> Option<i32> {
    match &port.target_port {
        None => Some(port.port),
        Some(IntOrString::Int(0)) => Some(port.port),
        Some(IntOrString::Int(number)) => Some(*number),
        Some(IntOrString::String(name)) => {
            let spec = pod.spec.as_ref()?;
            let sidecars =
                spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            spec.containers.iter().chain(sidecars).flat_map(|c| c.ports.iter().flatten()).find_map(|p| {
                let matches = p.name.as_ref() == Some(name) && p.protocol.as_deref().unwrap_or("TCP") == protocol;
                matches.then_some(p.container_port)
            })
        }
    }
}

#[cfg(test)]
#[path = "endpointslice_tests.rs"]
mod tests;
