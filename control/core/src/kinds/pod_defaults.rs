//! Defaults of pod specs.

use serde_json::{Value, json};

use super::value::{child, entries, flag, has, items_mut, list, set, set_default, set_default_nonzero, text};
use super::volume_defaults;

/// Where every container list of a pod spec is.
pub(super) const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Defaults that pods and pod templates share.
pub(super) fn pod_spec(spec: &mut Value) {
    set_default_nonzero(spec, "dnsPolicy", "ClusterFirst");
    set_default_nonzero(spec, "restartPolicy", "Always");
    set_default_nonzero(spec, "schedulerName", "default-scheduler");
    set_default(spec, "securityContext", json!({}));
    set_default(spec, "terminationGracePeriodSeconds", 30);
    let account = [text(spec, "/serviceAccountName"), text(spec, "/serviceAccount")]
        .into_iter()
        .find(|a| !a.is_empty())
        .map(String::from);
    if let Some(account) = account {
        // `serviceAccount` is the old name of the field; both are always shown.
        set(spec, "serviceAccountName", account.clone());
        set(spec, "serviceAccount", account);
    }
    let host_network = flag(spec, "/hostNetwork");
    for key in CONTAINER_LISTS {
        for item in items_mut(spec, &format!("/{key}")) {
            container(item, host_network);
        }
    }
    for item in items_mut(spec, "/volumes") {
        volume_defaults::volume(item);
    }
}

/// Defaults of pods alone, over [`pod_spec`].
pub(super) fn pod(object: &mut Value) {
    let Some(spec) = child(object, "spec") else { return };
    pod_spec(spec);
    set_default(spec, "enableServiceLinks", true);
    for key in ["containers", "initContainers"] {
        for item in items_mut(spec, &format!("/{key}")) {
            requests_from_limits(item);
        }
    }
}

/// A resource with a limit and no request asks for its limit.
fn requests_from_limits(container: &mut Value) {
    let limits: Vec<(String, Value)> =
        entries(container, "/resources/limits").map(|(k, v)| (k.clone(), v.clone())).collect();
    if limits.is_empty() {
        return;
    }
    if let Some(requests) = child(container, "resources").and_then(|r| child(r, "requests")) {
        for (name, limit) in limits {
            set_default(requests, &name, limit);
        }
    }
}

fn container(container: &mut Value, host_network: bool) {
    let image = text(container, "/image").to_string();
    set_default_nonzero(container, "imagePullPolicy", if is_latest(&image) { "Always" } else { "IfNotPresent" });
    set_default_nonzero(container, "terminationMessagePath", "/dev/termination-log");
    set_default_nonzero(container, "terminationMessagePolicy", "File");
    set_default(container, "resources", json!({}));
    for port in items_mut(container, "/ports") {
        set_default_nonzero(port, "protocol", "TCP");
        if host_network {
            let number = port.get("containerPort").cloned().unwrap_or_default();
            set_default_nonzero(port, "hostPort", number);
        }
    }
    for variable in items_mut(container, "/env") {
        if let Some(field) = variable.pointer_mut("/valueFrom/fieldRef") {
            set_default_nonzero(field, "apiVersion", "v1");
        }
        if let Some(file) = variable.pointer_mut("/valueFrom/fileKeyRef") {
            set_default(file, "optional", false);
        }
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = container.get_mut(key).filter(|p| p.is_object()) {
            for (field, default) in
                [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
            {
                set_default_nonzero(probe, field, default);
            }
            handler(probe);
        }
    }
    for key in ["postStart", "preStop"] {
        if let Some(hook) = container.pointer_mut(&format!("/lifecycle/{key}")) {
            handler(hook);
        }
    }
}

fn handler(handler: &mut Value) {
    if let Some(get) = handler.get_mut("httpGet") {
        set_default_nonzero(get, "path", "/");
        set_default_nonzero(get, "scheme", "HTTP");
    }
    if let Some(grpc) = handler.get_mut("grpc") {
        set_default(grpc, "service", "");
    }
}

/// Whether an image reference means the tag `latest`: it names it, or neither tag nor digest.
pub(super) fn is_latest(image: &str) -> bool {
    let (name, digest) = image.split_once('@').map_or((image, ""), |(n, d)| (n, d));
    let last = name.rsplit('/').next().unwrap_or_default();
    match last.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => digest.is_empty(),
    }
}

/// Taints that every pod tolerates for five minutes unless it says otherwise.
const TOLERATED: [&str; 2] = [copepod_api::names::TAINT_NOT_READY, copepod_api::names::TAINT_UNREACHABLE];
const TOLERATION_SECONDS: i64 = 300;

/// Adds the default tolerations to a new pod.
pub(super) fn tolerations(spec: &mut Value) {
    for taint in TOLERATED {
        let tolerates = |t: &Value| {
            let (key, effect) = (text(t, "/key"), text(t, "/effect"));
            (key == taint || key.is_empty()) && (effect == "NoExecute" || effect.is_empty())
        };
        if list(spec, "/tolerations").iter().any(tolerates) {
            continue;
        }
        let toleration = json!({"key": taint, "operator": "Exists", "effect": "NoExecute",
            "tolerationSeconds": TOLERATION_SECONDS});
        if !has(spec, "/tolerations") {
            set(spec, "tolerations", json!([]));
        }
        if let Some(list) = spec.get_mut("tolerations").and_then(Value::as_array_mut) {
            list.push(toleration);
        }
    }
}
