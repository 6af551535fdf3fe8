//! EndpointSlices of a Service: which pods answer for it, on which ports, and in what state.
//! Source: <https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/>.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use copepod_api::LabelSelector;
use copepod_api::names::{LABEL_MANAGED_BY, LABEL_SERVICE_NAME};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::meta::{self, text};
use super::pod;
use super::{Action, Plan, Propagation, Target};

/// The most endpoints in one slice; more are split over several.
pub const MAX_ENDPOINTS: usize = 1000;
/// Who manages the slices made here.
pub const MANAGER: &str = "endpointslice-controller.k8s.io";
/// Marks slices and endpoints of Services without a cluster IP.
pub const LABEL_HEADLESS: &str = "service.kubernetes.io/headless";

/// A port of an endpoint: name, number, protocol, application protocol.
type Ports = Vec<(String, i32, String, Option<String>)>;

/// Decides for one Service. `pods` are all pods of its namespace, `slices` those labelled with the Service's name.
pub fn reconcile(service: &Service, pods: &[Arc<Pod>], slices: &[Arc<EndpointSlice>]) -> Plan {
    let Some(selector) = selector(service) else { return Plan::nothing("no selector: endpoints are the user's") };
    if service.metadata.deletion_timestamp.is_some() {
        return Plan::nothing("being deleted");
    }
    let mut plan = Plan { why: "in sync".into(), ..Plan::default() };
    let mut stale: BTreeMap<&str, &Arc<EndpointSlice>> = slices
        .iter()
        .filter(|s| {
            let manager = s.metadata.labels.as_ref().and_then(|l| l.get(LABEL_MANAGED_BY));
            manager.map(String::as_str) == Some(MANAGER) && s.metadata.deletion_timestamp.is_none()
        })
        .map(|s| (text(&s.metadata.name), s))
        .collect();
    for family in families(service) {
        let mut groups: BTreeMap<Ports, BTreeMap<String, Endpoint>> = BTreeMap::new();
        for pod in pods.iter().filter(|p| meta::selects(&selector, &p.metadata)) {
            if let Some((ports, endpoint)) = endpoint(service, pod, family) {
                groups.entry(ports).or_default().insert(text(&pod.metadata.uid).to_string(), endpoint);
            }
        }
        // A Service without endpoints still has one slice, so that consumers see that it was looked at.
        if groups.is_empty() {
            groups.insert(Vec::new(), BTreeMap::new());
        }
        for (ports, wanted) in groups {
            place(service, family, &ports, wanted, &mut stale, &mut plan);
        }
    }
    for slice in stale.values() {
        plan.actions.push(Action::Delete {
            target: target(service, text(&slice.metadata.name)),
            propagation: Propagation::Background,
            uid: slice.metadata.uid.clone(),
            grace: None,
        });
    }
    if !plan.actions.is_empty() {
        plan.why = format!("{} writes to slices", plan.actions.len());
    }
    plan
}

/// Puts a group's endpoints into slices: each stays where it is, new ones fill what has room, the rest get new slices.
fn place(
    service: &Service,
    family: &str,
    ports: &Ports,
    mut wanted: BTreeMap<String, Endpoint>,
    stale: &mut BTreeMap<&str, &Arc<EndpointSlice>>,
    plan: &mut Plan,
) {
    let wire_ports = wire_ports(ports);
    let mine: Vec<&Arc<EndpointSlice>> = stale
        .values()
        .filter(|s| s.address_type == family && same_ports(s.ports.as_deref().unwrap_or_default(), &wire_ports))
        .copied()
        .collect();
    let mut kept: Vec<(&Arc<EndpointSlice>, Vec<Endpoint>)> = Vec::new();
    for slice in mine {
        let uids = slice.endpoints.iter().flatten().filter_map(|e| e.target_ref.as_ref()?.uid.clone());
        let stay: Vec<Endpoint> = uids.filter_map(|uid| wanted.remove(&uid)).collect();
        kept.push((slice, stay));
    }
    let mut rest = wanted.into_values();
    for (_, endpoints) in &mut kept {
        let room = MAX_ENDPOINTS.saturating_sub(endpoints.len());
        endpoints.extend(rest.by_ref().take(room));
    }
    let any = kept.iter().any(|(_, endpoints)| !endpoints.is_empty());
    let mut placeholder = false;
    for (slice, endpoints) in kept {
        // An emptied slice goes, but for the one placeholder.
        if endpoints.is_empty() && (any || placeholder) {
            continue;
        }
        placeholder = true;
        stale.remove(text(&slice.metadata.name));
        update(service, slice, &endpoints, plan);
    }
    let mut rest = rest.peekable();
    while rest.peek().is_some() || !(any || placeholder) {
        placeholder = true;
        let endpoints: Vec<Endpoint> = rest.by_ref().take(MAX_ENDPOINTS).collect();
        plan.actions.push(create(service, family, &wire_ports, &endpoints));
    }
}

fn update(service: &Service, slice: &EndpointSlice, endpoints: &[Endpoint], plan: &mut Plan) {
    let labels = labels(service);
    let before = json!({"endpoints": slice.endpoints.clone().unwrap_or_default(), "metadata": {"labels": slice.metadata.labels}});
    let after = json!({"endpoints": endpoints, "metadata": {"labels": labels}});
    if let Some(mut patch) = copepod_api::merge::diff(&before, &after) {
        if let Some(object) = patch.as_object_mut() {
            let meta = object.entry("metadata").or_insert_with(|| json!({}));
            if let Some(meta) = meta.as_object_mut() {
                meta.insert("uid".into(), json!(slice.metadata.uid));
                meta.insert("resourceVersion".into(), json!(slice.metadata.resource_version));
            }
        }
        plan.actions.push(Action::Patch {
            target: target(service, text(&slice.metadata.name)),
            subresource: "",
            patch,
        });
    }
}

fn create(service: &Service, family: &str, ports: &[EndpointPort], endpoints: &[Endpoint]) -> Action {
    let reference = meta::controller_ref("v1", "Service", &service.metadata);
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "generateName": format!("{}-", text(&service.metadata.name)),
            "labels": labels(service),
            "ownerReferences": [reference],
        },
        "addressType": family, "ports": ports, "endpoints": endpoints,
    });
    Action::Create { target: target(service, ""), object }
}

fn target(service: &Service, name: &str) -> Target {
    Target::new(meta::v1("discovery.k8s.io", "endpointslices"), text(&service.metadata.namespace), name)
}

/// The Service's labels and ours.
fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = meta::labels(&service.metadata);
    labels.remove(LABEL_HEADLESS);
    labels.insert(LABEL_SERVICE_NAME.into(), text(&service.metadata.name).into());
    labels.insert(LABEL_MANAGED_BY.into(), MANAGER.into());
    if headless(service) {
        labels.insert(LABEL_HEADLESS.into(), String::new());
    }
    labels
}

/// Whether the Service has no cluster IP by choice.
pub(super) fn headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|s| s.cluster_ip.as_deref()) == Some("None")
}

/// The Service's selector; `None` if endpoints are not ours to keep.
pub(super) fn selector(service: &Service) -> Option<LabelSelector> {
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

fn endpoint(service: &Service, pod: &Pod, family: &str) -> Option<(Ports, Endpoint)> {
    if pod::terminal(pod) {
        return None;
    }
    let address = address(pod, family)?;
    let (ready, terminating) = (pod::ready(pod), pod::terminating(pod));
    let spec = service.spec.as_ref()?;
    let publish = spec.publish_not_ready_addresses == Some(true);
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        let number = target_port(port, pod)?;
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
        Some((text(&port.name).to_string(), number, protocol, port.app_protocol.clone()))
    });
    let endpoint = Endpoint {
        addresses: vec![address],
        conditions: Some(EndpointConditions {
            ready: Some(publish || (ready && !terminating)),
            serving: Some(ready),
            terminating: Some(terminating),
        }),
        hostname: hostname(service, pod),
        node_name: Some(pod::node_name(pod).to_string()).filter(|n| !n.is_empty()),
        target_ref: Some(reference(pod)),
        ..Endpoint::default()
    };
    Some((ports.collect(), endpoint))
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

fn wire_ports(ports: &Ports) -> Vec<EndpointPort> {
    let wire = |(name, port, protocol, app): &(String, i32, String, Option<String>)| EndpointPort {
        name: Some(name.clone()),
        port: Some(*port),
        protocol: Some(protocol.clone()),
        app_protocol: app.clone(),
    };
    ports.iter().map(wire).collect()
}

fn same_ports(a: &[EndpointPort], b: &[EndpointPort]) -> bool {
    let key = |ports: &[EndpointPort]| -> BTreeSet<String> {
        let normal = |p: &EndpointPort| {
            let name = text(&p.name);
            json!([name, p.port, p.protocol.as_deref().unwrap_or("TCP"), p.app_protocol]).to_string()
        };
        ports.iter().map(normal).collect()
    };
    key(a) == key(b)
}

/// A plan's slices for tests and logs: the endpoints of a create or patch.
pub fn endpoints_of(action: &Action) -> Option<&Value> {
    match action {
        Action::Create { object, .. } => object.get("endpoints"),
        Action::Patch { patch, .. } => patch.get("endpoints"),
        Action::Delete { .. } => None,
    }
}

#[cfg(test)]
#[path = "endpointslice_tests.rs"]
mod tests;
