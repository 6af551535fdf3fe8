//! Endpoints of a Service: the older form of EndpointSlices, one object, still read by many clients.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service};
use serde_json::json;

use super::endpointslice::{LABEL_HEADLESS, address, headless, hostname, reference, selector, target_port};
use super::meta::{self, text};
use super::pod;
use super::{Action, Plan, Propagation, Target};

/// The most addresses in an Endpoints object, as upstream's; the rest are left out and an annotation says so.
pub const MAX_ADDRESSES: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const LABEL_MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

/// Decides for one Service.
pub fn reconcile(service: &Service, pods: &[Arc<Pod>], current: Option<&Endpoints>) -> Plan {
    let Some(selector) = selector(service) else { return Plan::nothing("no selector: endpoints are the user's") };
    if service.metadata.deletion_timestamp.is_some() {
        return Plan::nothing("being deleted");
    }
    let ipv6 = service.spec.as_ref().and_then(|s| s.ip_families.as_ref()).and_then(|f| f.first());
    let family = if ipv6.map(String::as_str) == Some("IPv6") { "IPv6" } else { "IPv4" };
    let publish = service.spec.as_ref().and_then(|s| s.publish_not_ready_addresses) == Some(true);
    let mut room = MAX_ADDRESSES;
    let mut over = false;
    // (ports) -> (ready, not ready), both by address.
    type Sides = (Vec<EndpointAddress>, Vec<EndpointAddress>);
    let mut groups: BTreeMap<Vec<(String, i32, String)>, Sides> = BTreeMap::new();
    for pod in pods.iter().filter(|p| meta::selects(&selector, &p.metadata)) {
        if pod::terminal(pod) || (pod::terminating(pod) && !publish) {
            continue;
        }
        let Some(ip) = address(pod, family) else { continue };
        if room == 0 {
            over = true;
            break;
        }
        room -= 1;
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
        let group = groups.entry(ports.collect()).or_default();
        if publish || pod::ready(pod) { group.0.push(address) } else { group.1.push(address) }
    }
    let subsets: Vec<EndpointSubset> = groups
        .into_iter()
        .map(|(ports, (mut ready, mut not_ready))| {
            ready.sort_by(|a, b| a.ip.cmp(&b.ip));
            not_ready.sort_by(|a, b| a.ip.cmp(&b.ip));
            let port = |(name, port, protocol): (String, i32, String)| EndpointPort {
                name: Some(name).filter(|n| !n.is_empty()),
                port,
                protocol: Some(protocol),
                app_protocol: None,
            };
            EndpointSubset {
                addresses: (!ready.is_empty()).then_some(ready),
                not_ready_addresses: (!not_ready.is_empty()).then_some(not_ready),
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
}
