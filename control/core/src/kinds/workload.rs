//! What Deployments and ReplicaSets share: their selector and template rules, and their wide columns.

use std::collections::BTreeMap;

use copepod_api::{FieldError, LabelSelector};
use serde_json::{Value, json};

use super::pod_template;
use super::value::{entries, int, list, text};
use crate::table::Column;
use crate::validate::{NON_NEGATIVE, label_value, qualified_name, report};

const OPERATORS: [&str; 4] = ["DoesNotExist", "Exists", "In", "NotIn"];

/// Rules of `spec.selector` and `spec.template`; `what` names the kind in messages (`deployment`).
pub(super) fn validate(object: &Value, what: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for field in ["replicas", "minReadySeconds"] {
        if let Some(n) = int(object, &format!("/spec/{field}")).filter(|n| *n < 0) {
            errors.push(FieldError::invalid(format!("spec.{field}"), &json!(n), NON_NEGATIVE));
        }
    }
    let selector = object.pointer("/spec/selector").unwrap_or(&Value::Null);
    if selector.is_null() {
        errors.push(FieldError::required("spec.selector", ""));
    } else {
        errors.extend(label_selector(selector, "spec.selector"));
        if entries(selector, "/matchLabels").next().is_none() && list(selector, "/matchExpressions").is_empty() {
            let message = format!("empty selector is invalid for {what}");
            errors.push(FieldError::invalid("spec.selector", selector, &message));
        }
    }
    let labels = object.pointer("/spec/template/metadata/labels").unwrap_or(&Value::Null);
    if let (Ok(selector), false) = (LabelSelector::from_json(selector), selector.is_null())
        && !selector.is_empty()
        && !selector.matches(&label_map(labels))
    {
        let message = "`selector` does not match template `labels`";
        errors.push(FieldError::invalid("spec.template.metadata.labels", labels, message));
    }
    let template = object.pointer("/spec/template").unwrap_or(&Value::Null);
    errors.extend(pod_template::validate(template, "spec.template"));
    errors
}

fn label_map(labels: &Value) -> BTreeMap<String, String> {
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
            other => {
                errors.push(FieldError::not_supported(format!("{field}.operator"), &json!(other), &OPERATORS));
            }
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

/// The cells of [`wide_columns`].
pub(super) fn wide_cells(object: &Value) -> [Value; 3] {
    let of = |key: &str| {
        let containers = list(object, "/spec/template/spec/containers").iter();
        containers.map(|c| text(c, key)).collect::<Vec<_>>().join(",")
    };
    let selector = object.pointer("/spec/selector").unwrap_or(&Value::Null);
    let selector = match LabelSelector::from_json(selector).map(|s| s.to_string()) {
        Ok(s) if s.is_empty() => "<none>".into(),
        Ok(s) => s,
        Err(_) => "<error>".to_string(),
    };
    [json!(of("/name")), json!(of("/image")), json!(selector)]
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
