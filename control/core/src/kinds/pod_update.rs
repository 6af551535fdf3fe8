//! What may change in a pod.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{at, same};
use super::pod_annotations;
use super::value::{entries, int, items_mut, list, remove, set, text};

const NODE_AFFINITY: &str = "affinity.nodeAffinity";

const FORBIDDEN: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn validate(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = pod_annotations::validate_update(new, old);
    let before = errors.len();
    for key in ["containers", "initContainers"] {
        let pointer = format!("/spec/{key}");
        if list(new, &pointer).len() != list(old, &pointer).len() {
            errors.push(FieldError::forbidden(format!("spec.{key}"), "pod updates may not add or remove containers"));
        }
    }
    if errors.len() > before {
        return errors;
    }
    active_deadline(&mut errors, new, old);
    let kept = |t: &Value| list(new, "/spec/tolerations").iter().any(|n| same_toleration(n, t));
    if !list(old, "/spec/tolerations").iter().all(kept) {
        let message = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden("spec.tolerations", message));
    }
    let gates: Vec<&str> = list(old, "/spec/schedulingGates").iter().map(|g| text(g, "/name")).collect();
    for (i, gate) in list(new, "/spec/schedulingGates").iter().enumerate() {
        let name = text(gate, "/name");
        if !gates.contains(&name) {
            let message = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.push(FieldError::forbidden(format!("spec.schedulingGates[{i}].name"), &message));
        }
    }
    if !gates.is_empty() {
        gated(&mut errors, new, old);
    }
    let changed = other_changes(new, old);
    if !changed.is_empty() {
        let message = format!("{FORBIDDEN}\nchanged: {}", changed.join(", "));
        errors.push(FieldError::forbidden("spec", &message));
    }
    errors
}

fn active_deadline(errors: &mut Vec<FieldError>, new: &Value, old: &Value) {
    const FIELD: &str = "spec.activeDeadlineSeconds";
    let at = |o: &Value| int(o, "/spec/activeDeadlineSeconds");
    match (at(new), at(old)) {
        (Some(after), Some(before)) if after > before => {
            errors.push(FieldError::invalid(FIELD, &json!(after), "must be less than or equal to previous value"));
        }
        (None, Some(_)) => {
            errors.push(FieldError::invalid(
                FIELD,
                &Value::Null,
                "must not update from a positive integer to nil value",
            ));
        }
        _ => {}
    }
}

/// Equal but for `tolerationSeconds`.
fn same_toleration(a: &Value, b: &Value) -> bool {
    ["key", "operator", "value", "effect"].iter().all(|k| a.get(k) == b.get(k))
}

/// A pod that waits at a gate may be bound more closely to nodes, not more loosely.
fn gated(errors: &mut Vec<FieldError>, new: &Value, old: &Value) {
    let selector = at(new, "spec.nodeSelector");
    if entries(old, "/spec/nodeSelector").any(|(key, value)| selector.get(key) != Some(value)) {
        let message = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.push(FieldError::invalid("spec.nodeSelector", selector, message));
    }
    let field = format!("spec.{NODE_AFFINITY}.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms");
    let terms = |o: &Value| at(o, &field).as_array().cloned().unwrap_or_default();
    let (after, before) = (terms(new), terms(old));
    if !before.is_empty() && after.len() != before.len() {
        let message = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(FieldError::invalid(field, &json!(after), message));
        return;
    }
    for (i, (after, before)) in after.iter().zip(&before).enumerate() {
        let of = |term: &Value, key: &str| list(term, &format!("/{key}")).to_vec();
        let empty = |term: &Value| of(term, "matchExpressions").is_empty() && of(term, "matchFields").is_empty();
        let grown = |key: &str| of(after, key).starts_with(&of(before, key));
        if empty(before) && !empty(after) || !grown("matchExpressions") || !grown("matchFields") {
            let message = "only additions are allowed (no mutations or deletions)";
            errors.push(FieldError::invalid(format!("{field}[{i}]"), after, message));
        }
    }
}

/// Names of the fields of `spec` that differ once everything that may change is put back.
fn other_changes(new: &Value, old: &Value) -> Vec<String> {
    let mut restored = new.get("spec").cloned().unwrap_or_default();
    let before = old.get("spec").unwrap_or(&Value::Null);
    for key in ["containers", "initContainers"] {
        let images = list(before, &format!("/{key}")).iter().map(|c| text(c, "/image"));
        for (container, image) in items_mut(&mut restored, &format!("/{key}")).zip(images) {
            set(container, "image", image);
        }
    }
    let mut free = vec!["activeDeadlineSeconds", "tolerations", "schedulingGates"];
    let grace = |o: &Value| int(o, "/spec/terminationGracePeriodSeconds").unwrap_or(0);
    if grace(old) < 0 && grace(new) == 1 {
        free.push("terminationGracePeriodSeconds");
    }
    if !list(before, "/schedulingGates").is_empty() {
        free.push("nodeSelector");
        let other = |spec: &Value| {
            let mut affinity = at(spec, "affinity").clone();
            remove(&mut affinity, "", "nodeAffinity");
            affinity
        };
        if same(&other(&restored), &other(before)) {
            free.push("affinity");
        }
    }
    let keys = |v: &Value| v.as_object().into_iter().flatten().map(|(k, _)| k.clone()).collect::<Vec<_>>();
    let mut all = keys(&restored);
    all.extend(keys(before));
    all.sort();
    all.dedup();
    let given = |v: &Value, k: &str| v.get(k).filter(|x| !x.is_null() && **x != json!([])).cloned();
    all.retain(|k| !free.contains(&k.as_str()) && given(&restored, k) != given(before, k));
    all.into_iter().map(|k| format!("spec.{k}")).collect()
}
