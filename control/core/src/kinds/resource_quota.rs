//! ResourceQuota.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{at, immutable};
use super::value::{entries, list, set, strings, text};
use super::{names, with_status};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{NON_NEGATIVE, qualified_name, quantity, report};

/// Counts of objects.
const COUNTS: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
/// What pods ask for.
const COMPUTE: [&str; 9] = [
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const STORAGE: &str = "requests.storage";
const HUGE_PAGES: [&str; 2] = ["hugepages-", "requests.hugepages-"];

/// ResourceQuotas.
pub fn resource() -> Option<Resource> {
    let names = names("v1", "resourcequotas", "ResourceQuota", &["quota"], Scope::Namespaced);
    super::built_in(names, with_status(), ResourceQuota)
}

struct ResourceQuota;

impl Strategy for ResourceQuota {
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({}));
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for field in ["spec.hard", "status.hard", "status.used"] {
            for (name, value) in entries(at(object, field), "") {
                amount(&mut errors, name, value, &format!("{field}[{name}]"));
            }
        }
        scopes(&mut errors, at(object, "spec"));
        for (i, requirement) in list(object, "/spec/scopeSelector/matchExpressions").iter().enumerate() {
            let field = format!("spec.scopeSelector.matchExpressions[{i}]");
            scope_requirement(&mut errors, requirement, &field, at(object, "spec.hard"));
        }
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        immutable(new, old, &["spec.scopes"])
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Request", "string", "What is asked for and counted, of what may be."),
            Column::new("Limit", "string", "Limits in use, of those that may be."),
            Column::age(),
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let used = |name: &str| at(object, "status.used").get(name).and_then(Value::as_str).unwrap_or("0");
        let (mut requests, mut limits) = (Vec::new(), Vec::new());
        for (name, hard) in entries(object, "/status/hard") {
            let cell = format!("{name}: {}/{}", used(name), hard.as_str().unwrap_or_default());
            if name.starts_with("limits.") { &mut limits } else { &mut requests }.push(cell);
        }
        // Maps may keep the order in which they were written.
        requests.sort();
        limits.sort();
        vec![table::name(object), json!(requests.join(", ")), json!(limits.join(", ")), table::age(object, now)]
    }
}

fn amount(errors: &mut Vec<FieldError>, name: &str, value: &Value, field: &str) {
    match qualified_name(name) {
        Ok(()) if !name.contains('/') && !is_standard(name) => {
            errors.push(FieldError::invalid(field, &json!(name), "must be a standard resource for quota"));
        }
        check => report(errors, field, &json!(name), check),
    }
    match quantity(value) {
        Ok(amount) if amount.is_negative() => errors.push(FieldError::invalid(field, value, NON_NEGATIVE)),
        Ok(amount) if COUNTS.contains(&name) && amount.milli() % 1000 != 0 => {
            errors.push(FieldError::invalid(field, value, "must be an integer"));
        }
        check => report(errors, field, value, check.map(|_| ())),
    }
}

fn is_standard(name: &str) -> bool {
    COUNTS.contains(&name)
        || COMPUTE.contains(&name)
        || name == STORAGE
        || HUGE_PAGES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a quota over pods of a scope may count the resource: their number, and but for the best-effort ones what
/// they ask for of CPU and memory.
fn counts_in(scope: &str, resource: &str) -> bool {
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => resource == STORAGE || resource == "persistentvolumeclaims",
        _ => resource == "pods" || COMPUTE.contains(&resource) && !resource.ends_with("ephemeral-storage"),
    }
}

fn is_scope(scope: &str) -> bool {
    matches!(
        scope,
        "BestEffort"
            | "CrossNamespacePodAffinity"
            | "NotBestEffort"
            | "NotTerminating"
            | "PriorityClass"
            | "Terminating"
            | "VolumeAttributesClass"
    )
}

fn scopes(errors: &mut Vec<FieldError>, spec: &Value) {
    const FIELD: &str = "spec.scopes";
    let given: Vec<&str> = strings(spec, "/scopes").collect();
    let mut wrong = |message: &str| errors.push(FieldError::invalid(FIELD, at(spec, "scopes"), message));
    for scope in &given {
        if !is_scope(scope) {
            wrong("unsupported scope");
        } else if entries(spec, "/hard").any(|(name, _)| is_standard(name) && !counts_in(scope, name)) {
            wrong("unsupported scope applied to resource");
        }
    }
    for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
        if pair.iter().all(|scope| given.contains(scope)) {
            wrong("conflicting scopes");
        }
    }
}

fn scope_requirement(errors: &mut Vec<FieldError>, requirement: &Value, field: &str, hard: &Value) {
    let (scope, operator) = (text(requirement, "/scopeName"), text(requirement, "/operator"));
    let values = at(requirement, "values");
    let has_values = strings(requirement, "/values").next().is_some();
    if !is_scope(scope) {
        errors.push(FieldError::invalid(format!("{field}.scopeName"), &json!(scope), "unsupported scope"));
    } else if entries(hard, "").any(|(name, _)| is_standard(name) && !counts_in(scope, name)) {
        let message = "unsupported scope applied to resource";
        errors.push(FieldError::invalid(format!("{field}.scopeName"), &json!(scope), message));
    }
    if operator != "Exists" && is_scope(scope) && !matches!(scope, "PriorityClass" | "VolumeAttributesClass") {
        let message = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, \
            ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
            ResourceQuotaScopeCrossNamespacePodAffinity";
        errors.push(FieldError::invalid(format!("{field}.operator"), &json!(operator), message));
    }
    match operator {
        "In" | "NotIn" if !has_values => {
            let message = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errors.push(FieldError::required(format!("{field}.values"), message));
        }
        "Exists" | "DoesNotExist" if has_values => {
            let message = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            errors.push(FieldError::invalid(format!("{field}.values"), values, message));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => {
            let message = "not a valid selector operator";
            errors.push(FieldError::invalid(format!("{field}.operator"), &json!(other), message));
        }
    }
}
