//! EndpointSlices of Endpoints that a user keeps: consumers read slices only, so those of a Service without a selector
//! are mirrored.
//! Source: <https://kubernetes.io/docs/concepts/services-networking/service/#endpointslice-mirroring>.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointSlice};

use super::Plan;
use super::meta::{self, text};
use super::slices::{self, Common, Ports, Wanted, same_ports, wire_ports};

/// The most addresses mirrored of one subset, as upstream's default; an event tells of others.
pub const MAX_ADDRESSES: usize = 1000;
/// Who manages the slices made here.
pub const MANAGER: &str = "endpointslicemirroring-controller.k8s.io";
/// The label that says, with `true`, that Endpoints are not to be mirrored.
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
/// The annotation of Endpoints that are a lock and nothing else.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that slices do not get.
const OWN_ANNOTATIONS: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];

/// Decides for the Endpoints of one name. `service` is the Service of that name, `slices` are those labelled with it.
pub fn reconcile(
    namespace: &str,
    endpoints: Option<&Endpoints>,
    service: Option<&Service>,
    slices: &[Arc<EndpointSlice>],
) -> Plan {
    let mine = slices::managed_by(slices, MANAGER);
    match endpoints.filter(|endpoints| mirrors(endpoints, service)) {
        Some(endpoints) => mirror(endpoints, mine),
        None => Plan {
            actions: mine.into_iter().map(|slice| slices::delete(namespace, slice)).collect(),
            ..Plan::nothing("not mirrored")
        },
    }
}

fn mirrors(endpoints: &Endpoints, service: Option<&Service>) -> bool {
    let meta = &endpoints.metadata;
    let skipped = meta.labels.as_ref().and_then(|l| l.get(SKIP_MIRROR)).is_some_and(|v| v == "true");
    let lock = meta.annotations.as_ref().is_some_and(|a| a.contains_key(LEADER));
    let selector = |s: &Service| s.spec.as_ref().and_then(|s| s.selector.as_ref()).is_some_and(|s| !s.is_empty());
    !skipped && !lock && meta.deletion_timestamp.is_none() && service.is_some_and(|s| !selector(s))
}

/// One slice for each set of ports and kind of address.
fn mirror(endpoints: &Endpoints, mut mine: Vec<&EndpointSlice>) -> Plan {
    let mut plan = Plan::nothing("in sync");
    let mut groups: BTreeMap<(&'static str, Ports), Vec<Endpoint>> = BTreeMap::new();
    let mut seen: BTreeSet<(&'static str, Ports, String)> = BTreeSet::new();
    let (mut invalid, mut skipped) = (0, 0);
    for subset in endpoints.subsets.iter().flatten() {
        let ports: Ports = subset.ports.iter().flatten().map(port).collect();
        let ready = subset.addresses.iter().flatten().map(|a| (a, true));
        let mut room = MAX_ADDRESSES;
        for (address, ready) in ready.chain(subset.not_ready_addresses.iter().flatten().map(|a| (a, false))) {
            let Some((family, endpoint)) = endpoint(address, ready) else {
                invalid += 1;
                continue;
            };
            let group = groups.entry((family, ports.clone())).or_default();
            if room == 0 || group.len() >= MAX_ADDRESSES {
                skipped += 1;
                continue;
            }
            room -= 1;
            if seen.insert((family, ports.clone(), endpoint.addresses.concat())) {
                group.push(endpoint);
            }
        }
    }
    let (mut kept, mut new) = (Vec::new(), Vec::new());
    for ((family, ports), found) in groups {
        let ports = wire_ports(&ports);
        let fits = |s: &&EndpointSlice| {
            let same = s.address_type == family && same_ports(s.ports.as_deref().unwrap_or_default(), &ports);
            same && meta::controlled_by(&s.metadata, text(&endpoints.metadata.uid))
        };
        let slice = mine.iter().position(fits).map(|at| mine.remove(at));
        let wanted = Wanted { family, ports, endpoints: found };
        match slice {
            Some(slice) => kept.push((slice, wanted)),
            None => new.push(wanted),
        }
    }
    slices::write(&common(endpoints), kept, new, mine, &mut plan);
    if !plan.is_empty() {
        tell(invalid, skipped, &mut plan);
    }
    plan
}

fn tell(invalid: usize, skipped: usize, plan: &mut Plan) {
    if invalid > 0 {
        let message = format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
        plan.warn("InvalidIPAddress", message);
    }
    if skipped > 0 {
        let message = format!(
            "A max of {MAX_ADDRESSES} addresses can be mirrored to EndpointSlices per Endpoints subset. {skipped} \
             addresses were skipped"
        );
        plan.warn("TooManyAddressesToMirror", message);
    }
}

fn common(endpoints: &Endpoints) -> Common<'_> {
    let meta = &endpoints.metadata;
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !OWN_ANNOTATIONS.contains(&key.as_str()));
    let owner = meta::controller_ref("v1", "Endpoints", meta);
    Common::new(text(&meta.namespace), text(&meta.name), MANAGER, owner, meta::labels(meta)).annotated(annotations)
}

fn port(port: &EndpointPort) -> (String, i32, String, Option<String>) {
    let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
    (text(&port.name).into(), port.port, protocol, port.app_protocol.clone())
}

/// `None` if the address is none.
fn endpoint(address: &EndpointAddress, ready: bool) -> Option<(&'static str, Endpoint)> {
    let ip: IpAddr = address.ip.parse().ok()?;
    let endpoint = Endpoint {
        addresses: vec![ip.to_string()],
        conditions: Some(EndpointConditions { ready: Some(ready), ..EndpointConditions::default() }),
        hostname: address.hostname.clone().filter(|h| !h.is_empty()),
        node_name: address.node_name.clone(),
        target_ref: address.target_ref.clone(),
        ..Endpoint::default()
    };
    Some((if ip.is_ipv6() { "IPv6" } else { "IPv4" }, endpoint))
}

#[cfg(test)]
#[path = "endpointslice_mirroring_tests.rs"]
mod tests;
