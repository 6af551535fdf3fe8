//! Endpoints of a Service: the older form of EndpointSlices, one object, still read by many clients.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use serde_json::json;

use super::endpointslice::{LABEL_HEADLESS, address, headless, hostname, publishes, reference, selector, target_port};
use super::meta::{self, text};
use super::pod;
use super::{Action, Plan, Propagation, Target};

/// The most addresses in an Endpoints object, as upstream's; the rest are left out and an annotation says so.
pub const MAX_ADDRESSES: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const LABEL_MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

/// Name, number and protocol of the ports of a pod.
type Ports = Vec<(String, i32, String)>;

/// Decides for one Service. `pods` are those of its namespace that it selects; others change nothing.
pub fn reconcile(service: &Service, pods: &[Arc<Pod>], current: Option<&Endpoints>) -> Plan {
    let Some(selector) = selector(service) else { return Plan::nothing("no selector: endpoints are the user's") };
    if service.metadata.deletion_timestamp.is_some() {
        return Plan::nothing("being deleted");
    }
    let ipv6 = service.spec.as_ref().and_then(|s| s.ip_families.as_ref()).and_then(|f| f.first());
    let family = if ipv6.map(String::as_str) == Some("IPv6") { "IPv6" } else { "IPv4" };
    let publish = publishes(service);
    let mut found: Vec<(bool, EndpointAddress, Ports)> = Vec::new();
    for pod in pods.iter().filter(|p| meta::selects(&selector, &p.metadata)) {
        if pod::terminal(pod) || (pod::terminating(pod) && !publish) {
            continue;
        }
        let Some(ip) = address(pod, family) else { continue };
        let address = EndpointAddress {
            ip,
            hostname: hostname(service, pod),
            node_name: Some(pod::node_name(pod).to_string()).filter(|n| !n.is_empty()),
            target_ref: Some(reference(pod)),
        };
        let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten()).filter_map(|port| {
            let number = target_port(port, pod)?;
            Some((text(&port.name).to_string(), number, port.protocol.clone().unwrap_or_else(|| "TCP".into())))
        });
        found.push((!publish && !pod::ready(pod), address, ports.collect()));
    }
    // Where there are too many, the ready ones come first, and always the same.
    found.sort_by(|(a_waits, a, _), (b_waits, b, _)| (a_waits, &a.ip).cmp(&(b_waits, &b.ip)));
    let over = found.len() > MAX_ADDRESSES;
    found.truncate(MAX_ADDRESSES);
    let mut groups: BTreeMap<Ports, [Vec<EndpointAddress>; 2]> = BTreeMap::new();
    for (waits, address, ports) in found {
        let [ready, not_ready] = groups.entry(ports).or_default();
        if waits { not_ready.push(address) } else { ready.push(address) }
    }
    let some = |addresses: Vec<EndpointAddress>| (!addresses.is_empty()).then_some(addresses);
    let subsets: Vec<EndpointSubset> = groups
        .into_iter()
        .map(|(ports, [ready, not_ready])| {
            let port = |(name, port, protocol): (String, i32, String)| EndpointPort {
                name: Some(name).filter(|n| !n.is_empty()),
                port,
                protocol: Some(protocol),
                app_protocol: None,
            };
            EndpointSubset {
                addresses: some(ready),
                not_ready_addresses: some(not_ready),
                ports: (!ports.is_empty()).then(|| ports.into_iter().map(port).collect()),
            }
        })
        .collect();
    let mut labels = meta::labels(&service.metadata);
    labels.insert(LABEL_MANAGED_BY.into(), "endpoint-controller".into());
    if headless(service) {
        labels.insert(LABEL_HEADLESS.into(), String::new());
    } else {
        labels.remove(LABEL_HEADLESS);
    }
    let mut annotations: BTreeMap<String, String> = BTreeMap::new();
    if over {
        annotations.insert(OVER_CAPACITY.into(), "truncated".into());
    }
    write(service, current, labels, annotations, subsets)
}

fn write(
    service: &Service,
    current: Option<&Endpoints>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    subsets: Vec<EndpointSubset>,
) -> Plan {
    let name = text(&service.metadata.name);
    let target = Target::new(meta::v1("", "endpoints"), text(&service.metadata.namespace), name);
    let mut plan = Plan::nothing("in sync");
    let Some(current) = current else {
        plan.why = "creating".into();
        let object = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": {"name": name, "labels": labels, "annotations": annotations}, "subsets": subsets,
        });
        plan.actions.push(Action::Create { target, object });
        return plan;
    };
    let noted = current.metadata.annotations.as_ref().and_then(|a| a.get(OVER_CAPACITY));
    let mut had_annotations = BTreeMap::new();
    if let Some(noted) = noted {
        had_annotations.insert(OVER_CAPACITY.to_string(), noted.clone());
    }
    let before = json!({
        "metadata": {"labels": meta::labels(&current.metadata), "annotations": had_annotations},
        "subsets": current.subsets.clone().unwrap_or_default(),
    });
    let after = json!({"metadata": {"labels": labels, "annotations": annotations}, "subsets": subsets});
    if let Some(patch) = copepod_api::merge::diff(&before, &after) {
        plan.why = "updating".into();
        plan.actions.push(Action::Patch { target, subresource: "", patch });
    }
    plan
}

/// Whether an Endpoints object was made by this controller, and not by a user or another one.
pub fn made_here(endpoints: &Endpoints) -> bool {
    let manager = endpoints.metadata.labels.as_ref().and_then(|l| l.get(LABEL_MANAGED_BY));
    manager.map(String::as_str) == Some("endpoint-controller")
}

/// The plan for a Service that is gone: its Endpoints go too.
pub fn service_gone(namespace: &str, name: &str, current: Option<&Endpoints>) -> Plan {
    let mut plan = Plan::nothing("the Service is gone");
    if let Some(current) = current {
        plan.actions.push(Action::Delete {
            target: Target::new(meta::v1("", "endpoints"), namespace, name),
            propagation: Propagation::Background,
            uid: current.metadata.uid.clone(),
            grace: None,
        });
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn ready_and_not_ready_pods() {
        let service: Service = yaml(
            "metadata: {name: web, namespace: shop}\nspec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}",
        );
        let pod = |name: &str, ip: &str, ready: Option<i64>| {
            let mut pod = pod_yaml(name, "labels: {app: web}");
            let mut status = pod_status("Running", ready);
            status.pod_ip = Some(ip.into());
            pod.status = Some(status);
            Arc::new(pod)
        };
        let pods = [pod("b", "10.64.0.2", Some(-1)), pod("a", "10.64.0.1", Some(-1)), pod("c", "10.64.0.3", None)];
        let plan = reconcile(&service, &pods, None);
        let [Action::Create { object, .. }] = plan.actions.as_slice() else { panic!("{plan:?}") };
        let subset = &object["subsets"][0];
        let ips = |side: &str| {
            subset[side].as_array().unwrap().iter().map(|a| a["ip"].as_str().unwrap().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            (ips("addresses"), ips("notReadyAddresses")),
            (vec!["10.64.0.1".into(), "10.64.0.2".into()], vec!["10.64.0.3".into()])
        );
        assert_eq!(subset["ports"], json!([{"port": 8080, "protocol": "TCP"}]));
        let current: Endpoints = serde_json::from_value(object.clone()).unwrap();
        assert!(reconcile(&service, &pods, Some(&current)).is_empty());
        assert_eq!(reconcile(&service, &pods[..1], Some(&current)).actions.len(), 1);
        assert!(made_here(&current));
        assert_eq!(service_gone("shop", "web", Some(&current)).actions.len(), 1);
    }

    #[test]
    fn more_than_a_thousand_are_cut_off_and_the_ready_ones_stay() {
        let service: Service =
            yaml("metadata: {name: web, namespace: shop}\nspec: {selector: {app: web}, ports: [{port: 80}]}");
        let pods = |unready: usize, ready: usize| -> Vec<Arc<Pod>> {
            let pod = |n: usize| {
                let mut pod = pod_yaml(&format!("p{n}"), "labels: {app: web}");
                let mut status = pod_status("Running", (n >= unready).then_some(-1));
                status.pod_ip = Some(format!("10.64.{}.{}", n / 250, n % 250 + 1));
                pod.status = Some(status);
                Arc::new(pod)
            };
            (0..unready + ready).map(pod).collect()
        };
        // (unready, ready, in the object: ready, unready, over capacity)
        for (unready, ready, kept, waiting, over) in
            [(10, 990, 990, 10, false), (600, 600, 600, 400, true), (5, 1200, 1000, 0, true)]
        {
            let pods = pods(unready, ready);
            let plan = reconcile(&service, &pods, None);
            let [Action::Create { object, .. }] = plan.actions.as_slice() else { panic!("{plan:?}") };
            let len = |side: &str| object["subsets"][0][side].as_array().map_or(0, Vec::len);
            assert_eq!((len("addresses"), len("notReadyAddresses")), (kept, waiting));
            assert_eq!(object["metadata"]["annotations"].get(OVER_CAPACITY).is_some(), over);
            let current: Endpoints = serde_json::from_value(object.clone()).unwrap();
            let other_order: Vec<Arc<Pod>> = pods.iter().rev().cloned().collect();
            assert!(reconcile(&service, &other_order, Some(&current)).is_empty());
            // With room again, the note goes.
            let plan = reconcile(&service, &pods[..5], Some(&current));
            let [Action::Patch { patch, .. }] = plan.actions.as_slice() else { panic!("{plan:?}") };
            assert_eq!(patch.pointer("/metadata/annotations").is_some(), over);
        }
    }
}
