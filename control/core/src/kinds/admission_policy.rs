//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy. Their expressions are checked for presence only: nothing
//! evaluates them yet.

use std::collections::HashSet;

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::admission_rules::{REINVOCATIONS, default_match, failure_policy, match_conditions, match_resources};
use super::fields::{conditions, one_of, required_one_of};
use super::value::{child, has, list, set, set_default_nonzero, text};
use super::webhook_configuration::extension;
use super::{plain, with_status};
use crate::resource::{Resource, Strategy};
use crate::table::{self, Column};
use crate::validate::{dns1035_label, dns1123_subdomain, qualified_name, report};

const REASONS: [&str; 4] = ["Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"];
const PATCH_TYPES: [&str; 2] = ["ApplyConfiguration", "JSONPatch"];
const MAX_AUDIT_ANNOTATIONS: usize = 20;

/// ValidatingAdmissionPolicies.
pub fn validating() -> Option<Resource> {
    let names = extension("validatingadmissionpolicies", "ValidatingAdmissionPolicy");
    super::built_in(names, with_status(), Policy { mutating: false })
}

/// MutatingAdmissionPolicies.
pub fn mutating() -> Option<Resource> {
    let names = extension("mutatingadmissionpolicies", "MutatingAdmissionPolicy");
    super::built_in(names, plain(), Policy { mutating: true })
}

struct Policy {
    mutating: bool,
}

impl Strategy for Policy {
    fn allows_unconditional_update(&self) -> bool {
        false
    }
    fn default(&self, object: &mut Value) {
        let Some(spec) = child(object, "spec") else { return };
        set_default_nonzero(spec, "failurePolicy", "Fail");
        default_match(spec, "matchConstraints", false);
    }
    fn prepare_create(&self, object: &mut Value) {
        if !self.mutating {
            set(object, "status", json!({}));
        }
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let null = Value::Null;
        let spec = object.get("spec").unwrap_or(&null);
        failure_policy(&mut errors, spec, "spec");
        if has(spec, "/paramKind") {
            param_kind(&mut errors, spec);
        }
        match spec.get("matchConstraints").filter(|m| !m.is_null()) {
            None => errors.push(FieldError::required("spec.matchConstraints", "")),
            Some(constraints) => {
                match_resources(&mut errors, constraints, "spec.matchConstraints");
                if list(constraints, "/resourceRules").is_empty() {
                    errors.push(FieldError::required("spec.matchConstraints.resourceRules", ""));
                }
            }
        }
        match_conditions(&mut errors, spec, "spec.matchConditions");
        for (i, item) in list(spec, "/variables").iter().enumerate() {
            for (key, message) in [("name", "name is not specified"), ("expression", "expression is not specified")] {
                if text(item, &format!("/{key}")).trim().is_empty() {
                    errors.push(FieldError::required(format!("spec.variables[{i}].{key}"), message));
                }
            }
        }
        if self.mutating {
            mutations(&mut errors, spec)
        } else {
            validations(&mut errors, spec)
        }
        conditions(&mut errors, object);
        errors
    }
    fn columns(&self) -> Vec<Column> {
        let (name, what) = match self.mutating {
            true => ("Mutations", "How many mutations it makes."),
            false => ("Validations", "How many rules it checks."),
        };
        vec![
            Column::name(),
            Column::new(name, "integer", what),
            Column::new("ParamKind", "string", "Kind of the objects with its parameters."),
            Column::age(),
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let of = |key: &str| text(object, &format!("/spec/paramKind/{key}"));
        let kind = match has(object, "/spec/paramKind") {
            true => format!("{}/{}", of("apiVersion"), of("kind")),
            false => "<unset>".into(),
        };
        let items = if self.mutating { "/spec/mutations" } else { "/spec/validations" };
        vec![table::name(object), json!(list(object, items).len()), json!(kind), table::age(object, now)]
    }
}

fn param_kind(errors: &mut Vec<FieldError>, spec: &Value) {
    const FIELD: &str = "spec.paramKind";
    let at = format!("{FIELD}.apiVersion");
    match text(spec, "/paramKind/apiVersion") {
        "" => errors.push(FieldError::required(at, "")),
        given => {
            let (group, version) = given.split_once('/').unwrap_or(("", given));
            if version.contains('/') {
                let message = format!("unexpected GroupVersion string: {given}");
                errors.push(FieldError::invalid(at, &json!(given), &message));
            } else if version.is_empty() {
                errors.push(FieldError::invalid(at, &json!(given), "version must be specified"));
            } else {
                if !group.is_empty() {
                    report(errors, &at, &json!(group), dns1123_subdomain(group));
                }
                report(errors, at, &json!(version), dns1035_label(version));
            }
        }
    }
    match text(spec, "/paramKind/kind") {
        "" => errors.push(FieldError::required(format!("{FIELD}.kind"), "")),
        kind => {
            let check = dns1035_label(&kind.to_lowercase())
                .map_err(|m| format!("may have mixed case, but should otherwise match: {m}"));
            report(errors, format!("{FIELD}.kind"), &json!(kind), check);
        }
    }
}

fn validations(errors: &mut Vec<FieldError>, spec: &Value) {
    let (rules, audits) = (list(spec, "/validations"), list(spec, "/auditAnnotations"));
    if rules.is_empty() && audits.is_empty() {
        for key in ["validations", "auditAnnotations"] {
            let message = "validations or auditAnnotations must contain at least one item";
            errors.push(FieldError::required(format!("spec.{key}"), message));
        }
    }
    for (i, item) in rules.iter().enumerate() {
        let field = format!("spec.validations[{i}]");
        if text(item, "/expression").trim().is_empty() {
            errors.push(FieldError::required(format!("{field}.expression"), "expression is not specified"));
        }
        let message = text(item, "/message");
        if !message.is_empty() && message.trim().is_empty() {
            let why = "message must be non-empty if specified";
            errors.push(FieldError::invalid(format!("{field}.message"), &json!(message), why));
        } else if message.trim().contains('\n') {
            let why = "message must not contain line breaks";
            errors.push(FieldError::invalid(format!("{field}.message"), &json!(message), why));
        }
        one_of(errors, item, &field, "reason", &REASONS);
    }
    if audits.len() > MAX_AUDIT_ANNOTATIONS {
        let message = format!("must not have more than {MAX_AUDIT_ANNOTATIONS} auditAnnotations");
        errors.push(FieldError::invalid("spec.auditAnnotations", &json!(audits), &message));
    }
    let mut seen = HashSet::new();
    for (i, item) in audits.iter().enumerate() {
        let (field, key) = (format!("spec.auditAnnotations[{i}]"), text(item, "/key"));
        report(errors, format!("{field}.key"), &json!(key), qualified_name(key));
        if text(item, "/valueExpression").trim().is_empty() {
            let message = "valueExpression is not specified";
            errors.push(FieldError::required(format!("{field}.valueExpression"), message));
        }
        if !seen.insert(key) {
            errors.push(FieldError::duplicate(format!("{field}.key"), &json!(key)));
        }
    }
}

fn mutations(errors: &mut Vec<FieldError>, spec: &Value) {
    required_one_of(errors, spec, "spec", "reinvocationPolicy", &REINVOCATIONS);
    let all = list(spec, "/mutations");
    if all.is_empty() {
        errors.push(FieldError::required("spec.mutations", "mutations must contain at least one item"));
    }
    for (i, item) in all.iter().enumerate() {
        let field = format!("spec.mutations[{i}]");
        required_one_of(errors, item, &field, "patchType", &PATCH_TYPES);
        for (type_, key) in [("ApplyConfiguration", "applyConfiguration"), ("JSONPatch", "jsonPatch")] {
            let given = has(item, &format!("/{key}"));
            if text(item, "/patchType") != type_ {
                if given {
                    let message = format!("must not be specified unless patchType is {type_}");
                    errors.push(FieldError::forbidden(format!("{field}.{key}"), &message));
                }
            } else if !given {
                let message = format!("must be specified when patchType is {type_}");
                errors.push(FieldError::required(format!("{field}.{key}"), &message));
            } else if text(item, &format!("/{key}/expression")).trim().is_empty() {
                let message = "expression is not specified";
                errors.push(FieldError::required(format!("{field}.{key}.expression"), message));
            }
        }
    }
}
