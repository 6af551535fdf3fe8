//! ValidatingAdmissionPolicyBinding and MutatingAdmissionPolicyBinding.

use std::collections::HashSet;

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::admission_rules::{default_match, match_resources};
use super::fields::{format_selector, required_one_of};
use super::plain;
use super::value::{has, list, strings, text};
use super::webhook_configuration::extension;
use super::workload::label_selector;
use crate::resource::{Resource, Strategy};
use crate::table::{self, Column};
use crate::validate::{dns1123_subdomain, report};

const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];

/// ValidatingAdmissionPolicyBindings.
pub fn validating() -> Option<Resource> {
    let names = extension("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding");
    super::built_in(names, plain(), Binding { mutating: false })
}

/// MutatingAdmissionPolicyBindings.
pub fn mutating() -> Option<Resource> {
    let names = extension("mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding");
    super::built_in(names, plain(), Binding { mutating: true })
}

struct Binding {
    mutating: bool,
}

impl Strategy for Binding {
    fn allows_unconditional_update(&self) -> bool {
        false
    }
    fn default(&self, object: &mut Value) {
        if let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) {
            default_match(spec, "matchResources", false);
        }
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        match text(object, "/spec/policyName") {
            "" => errors.push(FieldError::required("spec.policyName", "")),
            name => report(&mut errors, "spec.policyName", &json!(name), dns1123_subdomain(name)),
        }
        if has(object, "/spec/paramRef") {
            param_ref(&mut errors, object);
        }
        if let Some(resources) = object.pointer("/spec/matchResources").filter(|r| !r.is_null()) {
            match_resources(&mut errors, resources, "spec.matchResources");
        }
        if !self.mutating {
            actions(&mut errors, object);
        }
        errors
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("PolicyName", "string", "The policy that it puts in force."),
            Column::new("ParamRef", "string", "The objects with the policy's parameters."),
            Column::age(),
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let of = |key: &str| text(object, &format!("/spec/paramRef/{key}"));
        let parameters = match (has(object, "/spec/paramRef"), of("namespace"), of("name")) {
            (false, ..) => "<unset>".to_string(),
            (true, _, "") => format_selector(object.pointer("/spec/paramRef/selector").unwrap_or(&Value::Null)),
            (true, "", name) => format!("*/{name}"),
            (true, namespace, name) => format!("{namespace}/{name}"),
        };
        let policy = json!(text(object, "/spec/policyName"));
        vec![table::name(object), policy, json!(parameters), table::age(object, now)]
    }
}

fn param_ref(errors: &mut Vec<FieldError>, object: &Value) {
    const FIELD: &str = "spec.paramRef";
    let name = text(object, "/spec/paramRef/name");
    let selector = object.pointer("/spec/paramRef/selector").filter(|s| !s.is_null());
    match (name, selector) {
        ("", None) => errors.push(FieldError::required(FIELD, "one of name or selector must be specified")),
        ("", Some(selector)) => errors.extend(label_selector(selector, "spec.paramRef.selector")),
        (_, Some(_)) => {
            errors.push(FieldError::forbidden(format!("{FIELD}.selector"), "name and selector are mutually exclusive"))
        }
        (name, None) => report(errors, format!("{FIELD}.name"), &json!(name), crate::validate::path_segment(name)),
    }
    let reference = object.pointer("/spec/paramRef").unwrap_or(&Value::Null);
    required_one_of(errors, reference, FIELD, "parameterNotFoundAction", &["Allow", "Deny"]);
}

fn actions(errors: &mut Vec<FieldError>, object: &Value) {
    const FIELD: &str = "spec.validationActions";
    let all = list(object, "/spec/validationActions");
    let mut seen = HashSet::new();
    for (i, action) in strings(object, "/spec/validationActions").enumerate() {
        let field = format!("{FIELD}[{i}]");
        if !ACTIONS.contains(&action) {
            errors.push(FieldError::not_supported(&field, &json!(action), &ACTIONS));
        }
        if !seen.insert(action) {
            errors.push(FieldError::duplicate(field, &json!(action)));
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let message = "must not contain both Deny and Warn (repeating the same validation failure information in the \
                       API response and headers serves no purpose)";
        errors.push(FieldError::invalid(FIELD, &json!(all), message));
    }
    if all.is_empty() {
        errors.push(FieldError::required(FIELD, "at least one validation action is required"));
    }
}
