//! Rules of a container's environment, and of references to fields and resources, which downward volumes share.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::required;
use super::pod_volumes::no_backsteps;
use super::value::{entries, has, text};
use crate::validate::{config_key, dns1123_label, dns1123_subdomain, env_name, qualified_name, quantity, report};

/// Fields of the pod that a variable can have.
const FIELDS: [&str; 9] = [
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
/// Fields of the pod that a file can have.
const FILE_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// Fields that can be named, but of which not all can be had.
const KNOWN_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "spec.restartPolicy", "spec.schedulerName", "status.phase"];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const HUGE_PAGES: [&str; 2] = ["limits.hugepages-", "requests.hugepages-"];
const SIZES: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// The rules of one variable at `field`.
pub(super) fn env(errors: &mut Vec<FieldError>, variable: &Value, field: &str) {
    match text(variable, "/name") {
        "" => errors.push(FieldError::required(format!("{field}.name"), "")),
        name => report(errors, format!("{field}.name"), &json!(name), env_name(name)),
    }
    let Some(source) = variable.get("valueFrom").filter(|v| !v.is_null()) else { return };
    let field = format!("{field}.valueFrom");
    let sources: Vec<_> = entries(source, "").filter(|(_, v)| !v.is_null()).collect();
    for (kind, source) in &sources {
        value_from(errors, kind, source, &format!("{field}.{kind}"));
    }
    let message = if sources.is_empty() {
        "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
    } else if !text(variable, "/value").is_empty() {
        "may not be specified when `value` is not empty"
    } else if sources.len() > 1 {
        "may not have more than one field specified at a time"
    } else {
        return;
    };
    errors.push(FieldError::invalid(&field, &json!(""), message));
}

fn value_from(errors: &mut Vec<FieldError>, kind: &str, source: &Value, field: &str) {
    match kind {
        "fieldRef" => field_ref(errors, source, field, &FIELDS),
        "resourceFieldRef" => resource_ref(errors, source, field, false),
        "configMapKeyRef" | "secretKeyRef" => {
            let name = text(source, "/name");
            report(errors, format!("{field}.name"), &json!(name), dns1123_subdomain(name));
            checked(errors, source, field, "key", config_key);
        }
        "fileKeyRef" => {
            checked(errors, source, field, "key", env_name);
            checked(errors, source, field, "volumeName", dns1123_label);
            required(errors, source, field, &["path"]);
            no_backsteps(errors, text(source, "/path"), &format!("{field}.path"));
        }
        _ => {}
    }
}

fn checked(
    errors: &mut Vec<FieldError>,
    source: &Value,
    field: &str,
    key: &str,
    check: fn(&str) -> Result<(), String>,
) {
    match text(source, &format!("/{key}")) {
        "" => errors.push(FieldError::required(format!("{field}.{key}"), "")),
        value => report(errors, format!("{field}.{key}"), &json!(value), check(value)),
    }
}

/// The rules of a reference to a field of the pod that a file in a volume holds.
pub(super) fn file_field_ref(errors: &mut Vec<FieldError>, reference: &Value, field: &str) {
    field_ref(errors, reference, field, &FILE_FIELDS);
}

/// `valid`: the fields without a subscript that can be had.
fn field_ref(errors: &mut Vec<FieldError>, reference: &Value, field: &str, valid: &[&str]) {
    for key in ["apiVersion", "fieldPath"] {
        if text(reference, &format!("/{key}")).is_empty() {
            errors.push(FieldError::required(format!("{field}.{key}"), ""));
            return;
        }
    }
    let (version, path) = (text(reference, "/apiVersion"), text(reference, "/fieldPath"));
    let subscripted = path.strip_suffix("']").and_then(|p| p.split_once("['")).filter(|(parent, _)| !parent.is_empty());
    let problem = match subscripted {
        _ if version != "v1" => Some(format!("unsupported pod version: {version}")),
        Some(("metadata.annotations", key)) => {
            report(errors, field, &json!(key.to_lowercase()), qualified_name(&key.to_lowercase()));
            return;
        }
        Some(("metadata.labels", key)) => {
            report(errors, field, &json!(key), qualified_name(key));
            return;
        }
        Some(_) => Some(format!("field label does not support subscript: {path}")),
        None if FIELDS.contains(&path) || KNOWN_FIELDS.contains(&path) => None,
        None => Some(format!("field label not supported: {path}")),
    };
    let field = format!("{field}.fieldPath");
    if let Some(problem) = problem {
        let message = format!("error converting fieldPath: {problem}");
        errors.push(FieldError::invalid(field, &json!(path), &message));
    } else if !valid.contains(&path) {
        errors.push(FieldError::not_supported(field, &json!(path), valid));
    }
}

/// The rules of a reference to a resource of a container; in a `volume`, the container must be named.
pub(super) fn resource_ref(errors: &mut Vec<FieldError>, reference: &Value, field: &str, volume: bool) {
    let resource = text(reference, "/resource");
    let huge_pages = HUGE_PAGES.iter().any(|prefix| resource.starts_with(prefix));
    if volume && text(reference, "/containerName").is_empty() {
        errors.push(FieldError::required(format!("{field}.containerName"), ""));
    } else if resource.is_empty() {
        errors.push(FieldError::required(format!("{field}.resource"), ""));
    } else if !RESOURCES.contains(&resource) && !huge_pages {
        errors.push(FieldError::not_supported(format!("{field}.resource"), &json!(resource), &RESOURCES));
    }
    let Some(divisor) = reference.get("divisor").and_then(|d| quantity(d).ok()).filter(|d| !d.is_zero()) else {
        return;
    };
    let divisor = divisor.to_string();
    let of = match resource.split_once('.').map_or("", |(_, name)| name) {
        "cpu" if divisor != "1m" && divisor != "1" => {
            "only divisor's values 1m and 1 are supported with the cpu resource".into()
        }
        "cpu" => return,
        _ if SIZES.contains(&divisor.as_str()) => return,
        "memory" => sizes_only("memory"),
        "ephemeral-storage" => sizes_only("local ephemeral storage"),
        _ if huge_pages => sizes_only("hugepages"),
        _ => return,
    };
    errors.push(FieldError::invalid(format!("{field}.divisor"), &json!(resource), &of));
}

fn sizes_only(resource: &str) -> String {
    format!("only divisor's values {} are supported with the {resource} resource", SIZES.join(", "))
}

/// The rules of one source, with its index, of the list at `field`.
pub(super) fn env_from(errors: &mut Vec<FieldError>, (i, source): (usize, &Value), field: &str) {
    let prefix = text(source, "/prefix");
    if !prefix.is_empty() {
        report(errors, format!("{field}[{i}].prefix"), &json!(prefix), env_name(prefix));
    }
    let given: Vec<&str> =
        ["configMapRef", "secretRef"].into_iter().filter(|k| has(source, &format!("/{k}"))).collect();
    for kind in &given {
        let field = format!("{field}[{i}].{kind}");
        checked(errors, source.get(*kind).unwrap_or(&Value::Null), &field, "name", dns1123_subdomain);
    }
    let message = match given.len() {
        0 => "must specify one of: `configMapRef` or `secretRef`",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.push(FieldError::invalid(field, &json!(""), message));
}

/// Files of variables must be in volumes of the type emptyDir. `spec` is a pod's, at `field`.
pub(super) fn file_volumes(errors: &mut Vec<FieldError>, spec: &Value, field: &str) {
    super::pod_security::each_container(spec, field, &mut |container, field| {
        for (i, variable) in super::value::list(container, "/env").iter().enumerate() {
            let Some(name) = variable.pointer("/valueFrom/fileKeyRef").map(|r| text(r, "/volumeName")) else {
                continue;
            };
            let field = format!("{field}.env[{i}].valueFrom.fileKeyRef.volumeName");
            match super::value::list(spec, "/volumes").iter().find(|v| text(v, "/name") == name) {
                None => errors.push(FieldError::not_found(field, &json!(name))),
                Some(volume) if !has(volume, "/emptyDir") => {
                    errors.push(FieldError::invalid(field, &json!(name), "referenced volume must be of type emptyDir"));
                }
                Some(_) => {}
            }
        }
    });
}
