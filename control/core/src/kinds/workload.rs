//! What workloads share: their selector and template rules, and their wide columns.

use std::collections::BTreeMap;

use copepod_api::{FieldError, LabelSelector};
use serde_json::{Value, json};

use super::fields::{at, invalid, non_negative};
use super::pod_template;
use super::value::{entries, int, list, text};
use crate::table::Column;
use crate::validate::{label_value, qualified_name, report};

/// Rules of the counts, `spec.selector` and a `spec.template` of pods that always run. `what` names the kind in
/// messages about the selector (`deployment`), `kind` in those about the template (`ReplicaSet`).
pub(super) fn validate(object: &Value, what: &str, kind: &str) -> Vec<FieldError> {
    let mut errors = selected(object, what);
    errors.extend(pod_template::validate_always(at(object, "spec.template"), "spec.template", kind));
    errors
}

/// Rules of the counts and of `spec.selector`, which must be there and match the template's labels.
pub(super) fn selected(object: &Value, what: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    non_negative(&mut errors, at(object, "spec"), "spec", &["replicas", "minReadySeconds"]);
    let selector = at(object, "spec.selector");
    if selector.is_null() {
        errors.push(FieldError::required("spec.selector", ""));
    } else {
        errors.extend(label_selector(selector, "spec.selector"));
        if entries(selector, "/matchLabels").next().is_none() && list(selector, "/matchExpressions").is_empty() {
            let message = format!("empty selector is invalid for {what}");
            errors.push(FieldError::invalid("spec.selector", selector, &message));
        }
    }
    if !selector.is_null()
        && let Ok(selector) = LabelSelector::from_json(selector)
    {
        matches_template(&mut errors, object, &selector);
    }
    errors
}

/// The template's labels must be such as `selector` selects; an empty selector is reported elsewhere.
pub(super) fn matches_template(errors: &mut Vec<FieldError>, object: &Value, selector: &LabelSelector) {
    let labels = at(object, "spec.template.metadata.labels");
    if !selector.is_empty() && !selector.matches(&label_map(labels)) {
        let message = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid("spec.template.metadata.labels", labels, message));
    }
}

/// The rules of the counts in a status: none is negative, and in each pair the first is at most the second, which the
/// message names so.
pub(super) fn status_counts(object: &Value, keys: &[&str], pairs: &[(&str, &str, &str)]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let status = at(object, "status");
    non_negative(&mut errors, status, "status", keys);
    let count = |key: &str| int(status, &format!("/{key}")).unwrap_or(0);
    for (key, _, shown) in pairs.iter().filter(|(key, other, _)| count(key) > count(other)) {
        let message = format!("cannot be greater than {shown}");
        errors.push(FieldError::invalid(format!("status.{key}"), &json!(count(key)), &message));
    }
    errors
}

/// The count of collisions in a status only grows.
pub(super) fn collisions(new: &Value, old: &Value) -> Option<FieldError> {
    const FIELD: &str = "status.collisionCount";
    let before = at(old, FIELD).as_i64()?;
    let after = at(new, FIELD).as_i64();
    if after.is_some_and(|after| after >= before) {
        return None;
    }
    Some(FieldError::invalid(FIELD, &json!(after.unwrap_or(0)), "cannot be decremented"))
}

/// The labels of a JSON map.
pub(super) fn label_map(labels: &Value) -> BTreeMap<String, String> {
    entries(labels, "").filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_string()))).collect()
}

/// Rules of a `metav1.LabelSelector` at `field`.
pub(super) fn label_selector(selector: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in entries(selector, "/matchLabels") {
        let field = format!("{field}.matchLabels");
        report(&mut errors, &field, &json!(key), qualified_name(key));
        report(&mut errors, &field, value, label_value(value.as_str().unwrap_or_default()));
    }
    for (i, expression) in list(selector, "/matchExpressions").iter().enumerate() {
        let field = format!("{field}.matchExpressions[{i}]");
        let values = list(expression, "/values");
        match text(expression, "/operator") {
            "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
                format!("{field}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
                format!("{field}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "Exists" | "DoesNotExist" => {}
            other => invalid(&mut errors, &format!("{field}.operator"), other, "not a valid selector operator"),
        }
        let key = text(expression, "/key");
        report(&mut errors, format!("{field}.key"), &json!(key), qualified_name(key));
        for (j, value) in values.iter().enumerate() {
            let check = label_value(value.as_str().unwrap_or_default());
            report(&mut errors, format!("{field}.values[{j}]"), value, check);
        }
    }
    errors
}

/// The wide columns: containers, images, selector.
pub(super) fn wide_columns() -> [Column; 3] {
    [
        Column::new("Containers", "string", "Names of the template's containers.").wide(),
        Column::new("Images", "string", "Their images.").wide(),
        Column::new("Selector", "string", "Labels of the pods it counts as its own.").wide(),
    ]
}

/// The cells of [`wide_columns`], for the spec of a workload.
pub(super) fn wide_cells(spec: &Value) -> [Value; 3] {
    let [names, images] = container_cells(at(spec, "template"));
    let selector = match LabelSelector::from_json(at(spec, "selector")).map(|s| s.to_string()) {
        Ok(s) if s.is_empty() => "<none>".into(),
        Ok(s) => s,
        Err(_) => "<error>".to_string(),
    };
    [names, images, json!(selector)]
}

/// Names and images of a template's containers.
pub(super) fn container_cells(template: &Value) -> [Value; 2] {
    let of = |key: &str| {
        let containers = list(template, "/spec/containers").iter();
        json!(containers.map(|c| text(c, key)).collect::<Vec<_>>().join(","))
    };
    [of("/name"), of("/image")]
}

/// Labels as `a=1,b=2`; `<none>` if there are none.
pub(super) fn format_labels(labels: &Value) -> String {
    let labels = label_map(labels);
    if labels.is_empty() {
        return "<none>".into();
    }
    labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}

/// An integer cell, 0 where it is absent.
pub(super) fn count(object: &Value, pointer: &str) -> Value {
    json!(int(object, pointer).unwrap_or(0))
}
