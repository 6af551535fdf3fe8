//! IngressClass.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{domain_path, immutable, required_one_of, segment};
use super::value::{has, set_default, text};
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{dns1123_label, dns1123_subdomain, report, too_long};

/// Longest controller name in bytes.
const MAX_CONTROLLER_BYTES: usize = 250;

/// IngressClasses.
pub fn resource() -> Option<Resource> {
    let names = names("networking.k8s.io/v1", "ingressclasses", "IngressClass", &[], Scope::Cluster);
    super::built_in(names, plain(), IngressClass)
}

struct IngressClass;

impl Strategy for IngressClass {
    fn default(&self, object: &mut Value) {
        if let Some(parameters) = object.pointer_mut("/spec/parameters") {
            set_default(parameters, "scope", "Cluster");
        }
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        match text(object, "/spec/controller") {
            "" => errors.push(FieldError::required("spec.controller", "")),
            name if name.len() > MAX_CONTROLLER_BYTES => {
                errors.push(too_long("spec.controller", MAX_CONTROLLER_BYTES));
            }
            name => report(&mut errors, "spec.controller", &json!(name), domain_path(name)),
        }
        if let Some(reference) = object.pointer("/spec/parameters").filter(|p| !p.is_null()) {
            parameters(&mut errors, reference);
        }
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        immutable(new, old, &["spec.controller"])
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Controller", "string", "Who serves ingresses of this class."),
            Column::new("Parameters", "string", "The object with its settings."),
            Column::age(),
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let of = |key: &str| text(object, &format!("/spec/parameters/{key}"));
        let parameters = match (has(object, "/spec/parameters"), of("apiGroup")) {
            (false, _) => "<none>".to_string(),
            (true, "") => format!("{}/{}", of("kind"), of("name")),
            (true, group) => format!("{}.{group}/{}", of("kind"), of("name")),
        };
        let controller = json!(text(object, "/spec/controller"));
        vec![table::name(object), controller, json!(parameters), table::age(object, now)]
    }
}

fn parameters(errors: &mut Vec<FieldError>, reference: &Value) {
    const FIELD: &str = "spec.parameters";
    let group = text(reference, "/apiGroup");
    if !group.is_empty() {
        report(errors, format!("{FIELD}.apiGroup"), &json!(group), dns1123_subdomain(group));
    }
    segment(errors, reference, FIELD, "kind");
    segment(errors, reference, FIELD, "name");
    required_one_of(errors, reference, FIELD, "scope", &["Cluster", "Namespace"]);
    let (namespace, field) = (text(reference, "/namespace"), format!("{FIELD}.namespace"));
    match (text(reference, "/scope"), namespace) {
        ("Namespace", "") => errors.push(FieldError::required(field, "`parameters.scope` is set to 'Namespace'")),
        ("Namespace", name) => report(errors, field, &json!(name), dns1123_label(name)),
        ("Cluster", name) if !name.is_empty() => {
            errors.push(FieldError::forbidden(field, "`parameters.scope` is set to 'Cluster'"));
        }
        _ => {}
    }
}
