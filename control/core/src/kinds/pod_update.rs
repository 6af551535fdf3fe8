//! What may change in a pod.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::value::{int, items_mut, list, set, text};

const FORBIDDEN: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
    `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
    tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

pub(super) fn validate(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for key in ["containers", "initContainers"] {
        let pointer = format!("/spec/{key}");
        if list(new, &pointer).len() != list(old, &pointer).len() {
            errors.push(FieldError::forbidden(format!("spec.{key}"), "pod updates may not add or remove containers"));
        }
    }
    if !errors.is_empty() {
        return errors;
    }
    active_deadline(&mut errors, new, old);
    let kept = |t: &Value| list(new, "/spec/tolerations").iter().any(|n| same_toleration(n, t));
    if !list(old, "/spec/tolerations").iter().all(kept) {
        let message = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(FieldError::forbidden("spec.tolerations", message));
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
    let mut free = vec!["activeDeadlineSeconds", "tolerations"];
    let grace = |o: &Value| int(o, "/spec/terminationGracePeriodSeconds").unwrap_or(0);
    if grace(old) < 0 && grace(new) == 1 {
        free.push("terminationGracePeriodSeconds");
    }
    let gates: Vec<&Value> = list(before, "/schedulingGates").iter().collect();
    if list(new, "/spec/schedulingGates").iter().all(|g| gates.contains(&g)) {
        free.push("schedulingGates");
    }
    let keys = |v: &Value| v.as_object().into_iter().flatten().map(|(k, _)| k.clone()).collect::<Vec<_>>();
    let mut all = keys(&restored);
    all.extend(keys(before));
    all.sort();
    all.dedup();
    let at = |v: &Value, k: &str| v.get(k).filter(|x| !x.is_null() && **x != json!([])).cloned();
    all.retain(|k| !free.contains(&k.as_str()) && at(&restored, k) != at(before, k));
    all.into_iter().map(|k| format!("spec.{k}")).collect()
}
