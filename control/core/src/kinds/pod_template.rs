//! Pod templates: what a workload's `spec.template` adds to a pod spec's own rules.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::value::{child, has, text};
use super::{pod_defaults, pod_validation};
use crate::validate;

/// Fills the defaults of `template` in a workload's spec.
pub(super) fn default(spec: &mut Value) {
    if let Some(pod) = child(spec, "template").and_then(|t| child(t, "spec")) {
        pod_defaults::pod_spec(pod);
    }
}

/// The rules of a template at `field`.
pub(super) fn validate(template: &Value, field: &str) -> Vec<FieldError> {
    let part = |pointer: &str| template.pointer(pointer).unwrap_or(&Value::Null);
    let mut errors = validate::labels(part("/metadata/labels"), &format!("{field}.metadata.labels"));
    errors.extend(validate::annotations(part("/metadata/annotations"), &format!("{field}.metadata.annotations")));
    let policy = text(template, "/spec/restartPolicy");
    let field = format!("{field}.spec");
    errors.extend(pod_validation::pod_spec(part("/spec"), &field));
    if policy != "Always" && pod_validation::RESTART_POLICIES.contains(&policy) {
        errors.push(FieldError::not_supported(format!("{field}.restartPolicy"), &json!(policy), &["Always"]));
    }
    if has(template, "/spec/activeDeadlineSeconds") {
        let message = "activeDeadlineSeconds in ReplicaSet is not Supported";
        errors.push(FieldError::forbidden(format!("{field}.activeDeadlineSeconds"), message));
    }
    errors
}
