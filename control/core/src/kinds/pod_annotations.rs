//! Rules of the annotations that mean something on a pod.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{at, invalid};
use super::pod_security::each_container;
use super::pod_volumes::descending_path;
use super::value::{entries, text};

const FIELD: &str = "metadata.annotations";
/// The pod is the copy of one that a node runs by itself.
const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

/// The rules of the annotations at `field` of a pod or a template with this spec.
pub(super) fn validate(annotations: &Value, spec: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let e = &mut errors;
    for (key, value) in entries(annotations, "") {
        let (value, item) = (value.as_str().unwrap_or_default(), format!("{field}[{key}]"));
        if key == MIRROR && text(spec, "/nodeName").is_empty() {
            invalid(e, &item, value, "must set spec.nodeName if mirror pod annotation is set");
        } else if key == DELETION_COST && !is_cost(value) {
            invalid(e, &item, value, "must be a 32bit integer");
        } else if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            seccomp(e, value, &format!("{field}.{key}"));
        } else if let Some(name) = key.strip_prefix(APP_ARMOR) {
            let mut found = false;
            each_container(spec, "", &mut |container, _| found |= text(container, "/name") == name);
            if !found {
                invalid(e, &item, name, "container not found");
            }
            if !matches!(value, "" | "runtime/default" | "unconfined") && !value.starts_with("localhost/") {
                invalid(e, &item, value, &format!("invalid AppArmor profile name: {value:?}"));
            }
        }
    }
    errors
}

/// The rules of a change of a pod's annotations.
pub(super) fn validate_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let (new, old) = (at(new, FIELD), at(old, FIELD));
    let what = |key: &str| {
        if key == MIRROR {
            Some("mirror pod annotation")
        } else if key.starts_with(APP_ARMOR) {
            Some("AppArmor annotations")
        } else {
            None
        }
    };
    let forbidden = |key: &String, verb: &str| {
        what(key).map(|w| FieldError::forbidden(format!("{FIELD}[{key}]"), &format!("may not {verb} {w}")))
    };
    let changed = entries(old, "").filter(|(key, value)| new.get(key.as_str()) != Some(value));
    let added = entries(new, "").filter(|(key, _)| old.get(key.as_str()).is_none());
    let mut errors: Vec<FieldError> = changed.filter_map(|(key, _)| forbidden(key, "remove or update")).collect();
    errors.extend(added.filter_map(|(key, _)| forbidden(key, "add")));
    errors
}

fn is_cost(value: &str) -> bool {
    let plain = value == "0" || !value.starts_with(['+', '0']) && !value.starts_with("-0");
    plain && value.parse::<i32>().is_ok()
}

fn seccomp(errors: &mut Vec<FieldError>, profile: &str, field: &str) {
    if let Some(path) = profile.strip_prefix("localhost/") {
        descending_path(errors, path, field);
    } else if !matches!(profile, "runtime/default" | "docker/default" | "unconfined") {
        errors.push(FieldError::invalid(field, &json!(profile), "must be a valid seccomp profile"));
    }
}
