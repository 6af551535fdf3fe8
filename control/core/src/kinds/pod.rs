//! Pod.

use copepod_api::{FieldError, Quantity};
use serde_json::{Value, json};

pub use super::pod_parts::{changed_ephemeral_containers, changed_resources};
use super::value::{child, flag, int, list, set, set_default_nonzero, text};
use super::{in_all, names, pod_columns, pod_defaults, pod_update, pod_validation, with_status};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::Column;
use crate::validate::{self, quantity};

const DEFAULT_GRACE_SECONDS: i64 = 30;

/// Pods.
pub fn resource() -> Option<Resource> {
    let names = in_all(names("v1", "pods", "Pod", &["po"], Scope::Namespaced));
    super::built_in(names, with_status(), Pod)
}

struct Pod;

const FIELDS: [&str; 9] = [
    "spec.nodeName",
    "status.phase",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
];

impl Strategy for Pod {
    fn default(&self, object: &mut Value) {
        pod_defaults::pod(object);
    }
    fn prepare_create(&self, object: &mut Value) {
        if let Some(spec) = child(object, "spec") {
            set_default_nonzero(spec, "serviceAccountName", "default");
            let account = text(spec, "/serviceAccountName").to_string();
            set(spec, "serviceAccount", account);
            pod_defaults::tolerations(spec);
        }
        let qos = qos_class(object);
        set(object, "status", json!({"phase": "Pending", "qosClass": qos}));
        if !list(object, "/spec/schedulingGates").is_empty()
            && let Some(status) = child(object, "status")
        {
            let condition = json!({"type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates"});
            set(status, "conditions", json!([condition]));
        }
    }
    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        // Of the two forms of the pod's addresses, the old one counts where they differ.
        let address = text(new, "/status/podIP").to_string();
        if !address.is_empty()
            && list(new, "/status/podIPs").first().is_none_or(|first| text(first, "/ip") != address)
            && let Some(status) = child(new, "status")
        {
            set(status, "podIPs", json!([{"ip": address}]));
        }
        let qos = text(old, "/status/qosClass");
        let qos = if qos.is_empty() { qos_class(old) } else { qos };
        if let Some(status) = child(new, "status") {
            set(status, "qosClass", qos);
        }
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        pod_validation::pod(object)
    }
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        pod_validation::new_pod(object)
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        pod_update::validate(new, old)
    }
    fn bumps_generation(&self, new: &Value, old: &Value) -> bool {
        new.get("spec") != old.get("spec")
    }
    fn columns(&self) -> Vec<Column> {
        pod_columns::columns()
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        pod_columns::cells(object, now)
    }
    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let value = |field: &&'static str| match *field {
            "spec.hostNetwork" => flag(object, "/spec/hostNetwork").to_string(),
            "status.podIPs" => {
                let addresses = list(object, "/status/podIPs").iter().map(|item| text(item, "/ip"));
                addresses.collect::<Vec<_>>().join(",")
            }
            field => text(object, &format!("/{}", field.replace('.', "/"))).to_string(),
        };
        FIELDS.iter().map(|field| (*field, value(field))).collect()
    }
    fn field_names(&self) -> &'static [&'static str] {
        &FIELDS
    }
    /// The pod's own grace; none for a pod that no node runs, or that has ended.
    fn default_grace_seconds(&self, object: &Value) -> Option<i64> {
        let ended = matches!(text(object, "/status/phase"), "Succeeded" | "Failed");
        if ended || text(object, "/spec/nodeName").is_empty() {
            return Some(0);
        }
        let grace = int(object, "/spec/terminationGracePeriodSeconds").unwrap_or(DEFAULT_GRACE_SECONDS);
        // A pod may have a negative grace, which means one second.
        Some(if grace < 0 { 1 } else { grace })
    }
    fn validate_name(&self, name: &str) -> validate::Check {
        validate::dns1123_subdomain(name)
    }
}

/// `BestEffort`: no container asks for cpu or memory. `Guaranteed`: each has limits for both and asks for just these.
/// `Burstable`: all else.
pub(super) fn qos_class(pod: &Value) -> &'static str {
    let containers = || list(pod, "/spec/containers").iter().chain(list(pod, "/spec/initContainers"));
    let amount = |container: &Value, kind: &str, name: &str| -> Option<Quantity> {
        let value = container.pointer(&format!("/resources/{kind}/{name}"))?;
        quantity(value).ok().filter(|q| !q.is_zero())
    };
    let (mut any, mut guaranteed) = (false, true);
    for container in containers() {
        for name in ["cpu", "memory"] {
            let (request, limit) = (amount(container, "requests", name), amount(container, "limits", name));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
