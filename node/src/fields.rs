//! PURE: the downward API: a pod's own fields and resources, as environment and files show them.
//! Source: <https://kubernetes.io/docs/concepts/workloads/pods/downward-api/>.

use std::collections::BTreeMap;
use std::net::IpAddr;

use copepod_api::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;

/// Facts of the pod that are not in its spec.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The node's addresses.
    pub host_ips: Vec<IpAddr>,
    /// The pod's addresses.
    pub pod_ips: Vec<IpAddr>,
    /// The node's cores, for containers without a CPU limit.
    pub node_cpus: u64,
    /// The node's memory in bytes, for containers without a memory limit.
    pub node_memory: u64,
}

/// The value of a `fieldRef` path, or why it has none.
pub fn field(pod: &Pod, place: &Place, path: &str) -> Result<String, String> {
    let m = &pod.metadata;
    let spec = pod.spec.as_ref();
    let first = |ips: &[IpAddr]| ips.first().map(ToString::to_string).unwrap_or_default();
    let all = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let text = |s: Option<&String>| s.cloned().unwrap_or_default();
    Ok(match path {
        "metadata.name" => text(m.name.as_ref()),
        "metadata.namespace" => text(m.namespace.as_ref()),
        "metadata.uid" => text(m.uid.as_ref()),
        "metadata.labels" => pairs(m.labels.as_ref()),
        "metadata.annotations" => pairs(m.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|s| s.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|s| s.service_account_name.as_ref())),
        "status.hostIP" => first(&place.host_ips),
        "status.hostIPs" => all(&place.host_ips),
        "status.podIP" => first(&place.pod_ips),
        "status.podIPs" => all(&place.pod_ips),
        _ => {
            let (map, key) = match path.strip_suffix("']").and_then(|p| p.split_once("['")) {
                Some(("metadata.labels", key)) => (m.labels.as_ref(), key),
                Some(("metadata.annotations", key)) => (m.annotations.as_ref(), key),
                _ => return Err(format!("unsupported fieldPath: {path}")),
            };
            text(map.and_then(|map| map.get(key)))
        }
    })
}

/// `key="value"` lines, as the downward API writes maps into files.
fn pairs(map: Option<&BTreeMap<String, String>>) -> String {
    map.into_iter().flatten().map(|(k, v)| format!("{k}={v:?}")).collect::<Vec<_>>().join("\n")
}

/// The value of a `resourceFieldRef`, rounded up to the divisor.
pub fn resource(container: &Container, place: &Place, selector: &ResourceFieldSelector) -> Result<String, String> {
    let resources = container.resources.clone().unwrap_or_default();
    let (kind, name) = selector.resource.split_once('.').unwrap_or(("", ""));
    let map = match kind {
        "limits" => resources.limits,
        "requests" => resources.requests,
        _ => return Err(format!("unsupported container resource: {}", selector.resource)),
    };
    let asked = map.unwrap_or_default().get(name).map(parse).transpose()?;
    let divisor = selector.divisor.as_ref().map(parse).transpose()?.filter(|d| !d.is_zero());
    let limit = kind == "limits";
    let ceil = |value: i64, unit: i64| ((value + unit - 1) / unit.max(1)).to_string();
    match name {
        "cpu" => {
            let fallback = if limit { i64::try_from(place.node_cpus).unwrap_or(i64::MAX / 1000) * 1000 } else { 0 };
            Ok(ceil(asked.map_or(fallback, |q| q.milli()), divisor.map_or(1000, |d| d.milli())))
        }
        "memory" | "ephemeral-storage" => {
            let whole = if limit && name == "memory" { place.node_memory } else { 0 };
            let fallback = i64::try_from(whole).unwrap_or(i64::MAX);
            Ok(ceil(asked.map_or(fallback, |q| q.value()), divisor.map_or(1, |d| d.value())))
        }
        _ => Err(format!("unsupported container resource: {}", selector.resource)),
    }
}

fn parse(q: &WireQuantity) -> Result<Quantity, String> {
    Quantity::parse(&q.0)
}

/// A container's limit or request of a resource.
pub fn quantity(container: &Container, limits: bool, name: &str) -> Option<Quantity> {
    let resources = container.resources.as_ref()?;
    let map = if limits { resources.limits.as_ref() } else { resources.requests.as_ref() };
    Quantity::parse(&map?.get(name)?.0).ok()
}

/// Bytes of memory that a container may use, if it says.
pub fn memory_limit(container: &Container) -> Option<u64> {
    quantity(container, true, "memory").map(|q| q.as_bytes()).filter(|bytes| *bytes > 0)
}

/// Bytes of memory that a pod's containers, files and buffers may take together: the pod's own limit, or else those of
/// the containers that may run at the same time and `shared` for the rest. A container without a limit has `default`.
pub fn pod_memory_limit(spec: &PodSpec, default: u64, shared: u64) -> u64 {
    let own = spec.resources.as_ref().and_then(|r| r.limits.as_ref()?.get("memory"));
    if let Some(own) = own.and_then(|q| Quantity::parse(&q.0).ok()).map(|q| q.as_bytes()).filter(|bytes| *bytes > 0) {
        return own;
    }
    let limit = |container: &Container| memory_limit(container).unwrap_or(default);
    let runs_on = |container: &Container| container.restart_policy.as_deref() == Some("Always");
    let (mut sidecars, mut at_start) = (0_u64, 0_u64);
    for init in spec.init_containers.iter().flatten() {
        at_start = at_start.max(sidecars.saturating_add(limit(init)));
        if runs_on(init) {
            sidecars = sidecars.saturating_add(limit(init));
        }
    }
    let running = spec.containers.iter().map(limit).fold(sidecars, u64::saturating_add);
    running.max(at_start).saturating_add(shared)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pods_memory_is_its_own_or_its_containers() {
        let with = |memory: &str| json!({"name": "c", "resources": {"limits": {"memory": memory}}});
        let sidecar = json!({"name": "s", "restartPolicy": "Always", "resources": {"limits": {"memory": "40"}}});
        for (spec, expected) in [
            (json!({"containers": [{"name": "a"}]}), 1000 + 7),
            (json!({"containers": [with("100"), {"name": "a"}]}), 1100 + 7),
            (json!({"containers": [with("100")], "initContainers": [with("300"), with("200")]}), 300 + 7),
            (json!({"containers": [with("100")], "initContainers": [sidecar, with("90")]}), 140 + 7),
            (json!({"containers": [with("50")], "initContainers": [sidecar, with("90")]}), 130 + 7),
            (json!({"containers": [with("100")], "resources": {"limits": {"memory": "1Ki"}}}), 1024),
            (json!({"containers": [with("bad")], "resources": {"limits": {"memory": "bad"}}}), 1000 + 7),
        ] {
            let parsed: PodSpec = serde_json::from_value(spec.clone()).unwrap();
            assert_eq!(pod_memory_limit(&parsed, 1000, 7), expected, "{spec}");
        }
    }
}
