//! Pod templates: the PodTemplate kind, and what a workload's `spec.template` adds to a pod spec's own rules.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::at;
use super::value::{child, has, list, text};
use super::workload::{container_cells, format_labels};
use super::{names, plain, pod_annotations, pod_defaults, pod_validation};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate;

/// PodTemplates.
pub fn resource() -> Option<Resource> {
    super::built_in(names("v1", "podtemplates", "PodTemplate", &[], Scope::Namespaced), plain(), PodTemplate)
}

struct PodTemplate;

impl Strategy for PodTemplate {
    fn default(&self, object: &mut Value) {
        default(object);
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        validate(at(object, "template"), "template")
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Containers", "string", "Names of the template's containers."),
            Column::new("Images", "string", "Their images."),
            Column::new("Pod Labels", "string", "Labels of pods made of it."),
        ]
    }
    fn cells(&self, object: &Value, _now: i64) -> Vec<Value> {
        let template = at(object, "template");
        let [names, images] = container_cells(template);
        vec![table::name(object), names, images, json!(format_labels(at(template, "metadata.labels")))]
    }
}

/// Fills the defaults of the `template` in `parent`, a workload's spec or a PodTemplate.
pub(super) fn default(parent: &mut Value) {
    if let Some(pod) = child(parent, "template").and_then(|t| child(t, "spec")) {
        pod_defaults::pod_spec(pod);
    }
}

/// The rules of a template at `field`.
pub(super) fn validate(template: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = validate::labels(at(template, "metadata.labels"), &format!("{field}.metadata.labels"));
    let annotations = at(template, "metadata.annotations");
    errors.extend(validate::annotations(annotations, &format!("{field}.metadata.annotations")));
    let spec = at(template, "spec");
    errors.extend(pod_annotations::validate(annotations, spec, &format!("{field}.metadata.annotations")));
    errors.extend(pod_validation::pod_spec(spec, &format!("{field}.spec"), None));
    if !list(spec, "/ephemeralContainers").is_empty() {
        let message = "ephemeral containers not allowed in pod template";
        errors.push(FieldError::forbidden(format!("{field}.spec.ephemeralContainers"), message));
    }
    errors
}

/// The rules of a template whose pods always run; `kind` is the workload's in messages.
pub(super) fn validate_always(template: &Value, field: &str, kind: &str) -> Vec<FieldError> {
    let mut errors = validate(template, field);
    let policy = text(template, "/spec/restartPolicy");
    if policy != "Always" && pod_validation::RESTART_POLICIES.contains(&policy) {
        errors.push(FieldError::not_supported(format!("{field}.spec.restartPolicy"), &json!(policy), &["Always"]));
    }
    if has(template, "/spec/activeDeadlineSeconds") {
        let message = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.push(FieldError::forbidden(format!("{field}.spec.activeDeadlineSeconds"), &message));
    }
    errors
}
