//! Rules of one container.

use std::collections::HashSet;

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::pod_volumes::relative_path;
use super::service_ports::protocol;
use super::value::{entries, has, int, list, strings, text};
use crate::validate::{
    NON_NEGATIVE, config_key, dns1123_label, dns1123_subdomain, env_name, port, port_name, qualified_name, quantity,
    report,
};

const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: [&str; 2] = ["FallbackToLogsOnError", "File"];
const SCHEMES: [&str; 2] = ["HTTP", "HTTPS"];
const ENV_FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const STANDARD_RESOURCES: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];

/// Which list of the pod a container stands in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    App,
    Init,
    Ephemeral,
}

/// The rules of a container at `field`, in a pod with these volumes.
pub(super) fn container(container: &Value, field: &str, role: Role, volumes: &HashSet<&str>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let e = &mut errors;
    match text(container, "/name") {
        "" => e.push(FieldError::required(format!("{field}.name"), "")),
        name => report(e, format!("{field}.name"), &json!(name), dns1123_label(name)),
    }
    match text(container, "/image") {
        "" => e.push(FieldError::required(format!("{field}.image"), "")),
        image if image.trim() != image => {
            let message = "must not have leading or trailing whitespace";
            e.push(FieldError::invalid(format!("{field}.image"), &json!(image), message));
        }
        _ => {}
    }
    one_of(e, container, field, "imagePullPolicy", &PULL_POLICIES);
    one_of(e, container, field, "terminationMessagePolicy", &MESSAGE_POLICIES);
    ports(e, list(container, "/ports"), &format!("{field}.ports"));
    for (i, variable) in list(container, "/env").iter().enumerate() {
        env(e, variable, &format!("{field}.env[{i}]"));
    }
    for (i, source) in list(container, "/envFrom").iter().enumerate() {
        env_from(e, source, &format!("{field}.envFrom[{i}]"));
    }
    mounts(e, list(container, "/volumeMounts"), &format!("{field}.volumeMounts"), volumes);
    resources(e, container.get("resources").unwrap_or(&Value::Null), &format!("{field}.resources"));
    let sidecar = text(container, "/restartPolicy") == "Always";
    if role == Role::Init && has(container, "/restartPolicy") && !sidecar {
        let value = json!(text(container, "/restartPolicy"));
        e.push(FieldError::not_supported(format!("{field}.restartPolicy"), &value, &["Always"]));
    }
    for key in ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle"] {
        let Some(value) = container.get(key).filter(|v| !v.is_null()) else { continue };
        let field = format!("{field}.{key}");
        match role {
            Role::Init if !sidecar => {
                e.push(FieldError::forbidden(field, "may not be set for init containers without restartPolicy=Always"));
            }
            Role::Ephemeral => {
                e.push(FieldError::forbidden(field, "cannot be set for an Ephemeral Container"));
            }
            _ if key == "lifecycle" => {
                for (hook, value) in entries(value, "").filter(|(k, _)| *k == "postStart" || *k == "preStop") {
                    handler(e, value, &format!("{field}.{hook}"), &["exec", "httpGet", "tcpSocket", "sleep"]);
                }
            }
            _ => probe(e, value, &field, key != "readinessProbe"),
        }
    }
    errors
}

fn one_of(errors: &mut Vec<FieldError>, object: &Value, field: &str, key: &str, valid: &[&str]) {
    match text(object, &format!("/{key}")) {
        "" => errors.push(FieldError::required(format!("{field}.{key}"), "")),
        value if !valid.contains(&value) => {
            errors.push(FieldError::not_supported(format!("{field}.{key}"), &json!(value), valid));
        }
        _ => {}
    }
}

fn ports(errors: &mut Vec<FieldError>, ports: &[Value], field: &str) {
    let (mut names, mut host_ports) = (HashSet::new(), HashSet::new());
    for (i, item) in ports.iter().enumerate() {
        let field = format!("{field}[{i}]");
        let name = text(item, "/name");
        if !name.is_empty() {
            report(errors, format!("{field}.name"), &json!(name), port_name(name));
            if !names.insert(name) {
                errors.push(FieldError::duplicate(format!("{field}.name"), &json!(name)));
            }
        }
        match int(item, "/containerPort").unwrap_or(0) {
            0 => errors.push(FieldError::required(format!("{field}.containerPort"), "")),
            number => report(errors, format!("{field}.containerPort"), &json!(number), port(number)),
        }
        if let Some(number) = int(item, "/hostPort").filter(|n| *n != 0) {
            report(errors, format!("{field}.hostPort"), &json!(number), port(number));
            let key = (text(item, "/hostIP"), number, text(item, "/protocol"));
            if !host_ports.insert(key) {
                let value = json!(format!("{}/{}/{}", key.2, key.0, key.1));
                errors.push(FieldError::duplicate(format!("{field}.hostPort"), &value));
            }
        }
        protocol(errors, &field, item);
    }
}

fn env(errors: &mut Vec<FieldError>, variable: &Value, field: &str) {
    match text(variable, "/name") {
        "" => errors.push(FieldError::required(format!("{field}.name"), "")),
        name => report(errors, format!("{field}.name"), &json!(name), env_name(name)),
    }
    let Some(source) = variable.get("valueFrom").filter(|v| !v.is_null()) else { return };
    let field = format!("{field}.valueFrom");
    if !text(variable, "/value").is_empty() {
        errors.push(FieldError::invalid(&field, &json!(""), "may not be specified when `value` is not empty"));
    }
    let sources: Vec<_> = entries(source, "").filter(|(_, v)| !v.is_null()).collect();
    match sources.as_slice() {
        [] => {
            let message = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`";
            errors.push(FieldError::invalid(&field, &json!(""), message));
        }
        [(kind, source)] => value_from(errors, kind, source, &format!("{field}.{kind}")),
        _ => {
            let message = "may not have more than one field specified at a time";
            errors.push(FieldError::invalid(&field, &json!(""), message));
        }
    }
}

fn value_from(errors: &mut Vec<FieldError>, kind: &str, source: &Value, field: &str) {
    match kind {
        "configMapKeyRef" | "secretKeyRef" => {
            for key in ["name", "key"] {
                if text(source, &format!("/{key}")).is_empty() {
                    errors.push(FieldError::required(format!("{field}.{key}"), ""));
                }
            }
            let key = text(source, "/key");
            if !key.is_empty() {
                report(errors, format!("{field}.key"), &json!(key), config_key(key));
            }
        }
        "fieldRef" => {
            let path = text(source, "/fieldPath");
            let of_map = path
                .strip_suffix("']")
                .is_some_and(|p| p.starts_with("metadata.labels['") || p.starts_with("metadata.annotations['"));
            if path.is_empty() {
                errors.push(FieldError::required(format!("{field}.fieldPath"), ""));
            } else if !of_map && !ENV_FIELDS.contains(&path) {
                errors.push(FieldError::not_supported(format!("{field}.fieldPath"), &json!(path), &ENV_FIELDS));
            }
        }
        "resourceFieldRef" if text(source, "/resource").is_empty() => {
            errors.push(FieldError::required(format!("{field}.resource"), ""));
        }
        _ => {}
    }
}

fn env_from(errors: &mut Vec<FieldError>, source: &Value, field: &str) {
    let prefix = text(source, "/prefix");
    if !prefix.is_empty() {
        report(errors, format!("{field}.prefix"), &json!(prefix), env_name(prefix));
    }
    let given: Vec<&str> =
        ["configMapRef", "secretRef"].into_iter().filter(|k| has(source, &format!("/{k}"))).collect();
    match given.as_slice() {
        [] => {
            let message = "must specify one of: `configMapRef` or `secretRef`";
            errors.push(FieldError::invalid(field, &json!(""), message));
        }
        [one] => match text(source, &format!("/{one}/name")) {
            "" => errors.push(FieldError::required(format!("{field}.{one}.name"), "")),
            name => report(errors, format!("{field}.{one}.name"), &json!(name), dns1123_subdomain(name)),
        },
        _ => {
            let message = "may not have more than one field specified at a time";
            errors.push(FieldError::invalid(field, &json!(""), message));
        }
    }
}

fn mounts(errors: &mut Vec<FieldError>, mounts: &[Value], field: &str, volumes: &HashSet<&str>) {
    let mut paths = HashSet::new();
    for (i, mount) in mounts.iter().enumerate() {
        let field = format!("{field}[{i}]");
        match text(mount, "/name") {
            "" => errors.push(FieldError::required(format!("{field}.name"), "")),
            name if !volumes.contains(name) => {
                errors.push(FieldError::not_found(format!("{field}.name"), &json!(name)));
            }
            _ => {}
        }
        match text(mount, "/mountPath") {
            "" => errors.push(FieldError::required(format!("{field}.mountPath"), "")),
            path if !paths.insert(path) => {
                errors.push(FieldError::invalid(format!("{field}.mountPath"), &json!(path), "must be unique"));
            }
            _ => {}
        }
        for key in ["subPath", "subPathExpr"] {
            let path = text(mount, &format!("/{key}"));
            relative_path(errors, path, &format!("{field}.{key}"));
        }
        if !text(mount, "/subPath").is_empty() && !text(mount, "/subPathExpr").is_empty() {
            let value = json!(text(mount, "/subPathExpr"));
            let message = "subPathExpr and subPath are mutually exclusive";
            errors.push(FieldError::invalid(format!("{field}.subPathExpr"), &value, message));
        }
    }
}

fn resources(errors: &mut Vec<FieldError>, resources: &Value, field: &str) {
    for kind in ["limits", "requests"] {
        for (name, value) in entries(resources, &format!("/{kind}")) {
            let field = format!("{field}.{kind}[{name}]");
            match qualified_name(name) {
                Ok(()) if !name.contains('/') && !is_standard(name) => {
                    let message = "must be a standard resource type or fully qualified";
                    errors.push(FieldError::invalid(&field, &json!(name), message));
                }
                check => report(errors, &field, &json!(name), check),
            }
            match quantity(value) {
                Ok(amount) if amount.is_negative() => {
                    errors.push(FieldError::invalid(&field, value, NON_NEGATIVE));
                }
                check => report(errors, &field, value, check.map(|_| ())),
            }
        }
    }
    for (name, request) in entries(resources, "/requests") {
        let limit = resources.get("limits").and_then(|l| l.get(name));
        if let (Some(Ok(limit)), Ok(amount)) = (limit.map(quantity), quantity(request))
            && amount > limit
        {
            let message = format!("must be less than or equal to {name} limit of {limit}");
            errors.push(FieldError::invalid(format!("{field}.requests"), request, &message));
        }
    }
}

fn is_standard(resource: &str) -> bool {
    STANDARD_RESOURCES.contains(&resource) || resource.starts_with("hugepages-")
}

/// `once`: the probe's first success decides, so that `successThreshold` must be 1.
fn probe(errors: &mut Vec<FieldError>, probe: &Value, field: &str, once: bool) {
    handler(errors, probe, field, &["exec", "httpGet", "tcpSocket", "grpc"]);
    for key in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        if let Some(n) = int(probe, &format!("/{key}")).filter(|n| *n < 0) {
            errors.push(FieldError::invalid(format!("{field}.{key}"), &json!(n), NON_NEGATIVE));
        }
    }
    if let Some(grace) = int(probe, "/terminationGracePeriodSeconds").filter(|n| *n <= 0) {
        let field = format!("{field}.terminationGracePeriodSeconds");
        errors.push(FieldError::invalid(field, &json!(grace), "must be greater than 0"));
    }
    if let Some(n) = int(probe, "/successThreshold").filter(|n| once && *n != 1) {
        errors.push(FieldError::invalid(format!("{field}.successThreshold"), &json!(n), "must be 1"));
    }
}

fn handler(errors: &mut Vec<FieldError>, handler: &Value, field: &str, kinds: &[&str]) {
    let mut given = kinds.iter().filter(|k| has(handler, &format!("/{k}")));
    let Some(kind) = given.next() else {
        errors.push(FieldError::required(field, "must specify a handler type"));
        return;
    };
    for other in given {
        errors.push(FieldError::forbidden(format!("{field}.{other}"), "may not specify more than 1 handler type"));
    }
    let action = handler.get(kind).unwrap_or(&Value::Null);
    let field = format!("{field}.{kind}");
    match *kind {
        "exec" if strings(action, "/command").next().is_none() => {
            errors.push(FieldError::required(format!("{field}.command"), ""));
        }
        "httpGet" | "tcpSocket" | "grpc" => {
            let value = action.get("port").unwrap_or(&Value::Null);
            let check = match value.as_str() {
                Some(name) => port_name(name),
                None => port(value.as_i64().unwrap_or(0)),
            };
            report(errors, format!("{field}.port"), value, check);
            if *kind == "httpGet" {
                one_of(errors, action, &field, "scheme", &SCHEMES);
            }
        }
        _ => {}
    }
}
