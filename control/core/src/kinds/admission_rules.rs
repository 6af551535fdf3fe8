//! What webhook configurations and admission policies share: which requests they are about.

use std::collections::HashSet;

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{one_of, required_one_of};
use super::value::{child, items_mut, list, set_default, set_default_nonzero, strings, text};
use super::workload::label_selector;
use crate::validate::{path_segment, qualified_name, report, too_many};

/// Group and version of these kinds.
pub(super) const API: &str = "admissionregistration.k8s.io/v1";
/// What happens when the check itself fails.
pub(super) const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
/// Whether rules match a request's other versions too.
pub(super) const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
/// Whether a mutation runs again after others.
pub(super) const REINVOCATIONS: [&str; 2] = ["IfNeeded", "Never"];

const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
const MAX_CONDITIONS: usize = 64;

/// Defaults of a `MatchResources` under `key`, made if it is absent and `make` says so.
pub(super) fn default_match(spec: &mut Value, key: &str, make: bool) {
    if !make && spec.get(key).is_none_or(Value::is_null) {
        return;
    }
    let Some(resources) = child(spec, key) else { return };
    default_selectors(resources);
    for rules in ["/resourceRules", "/excludeResourceRules"] {
        default_rules(resources, rules);
    }
}

/// Defaults that webhooks and `MatchResources` share.
pub(super) fn default_selectors(object: &mut Value) {
    set_default_nonzero(object, "matchPolicy", "Equivalent");
    set_default(object, "namespaceSelector", json!({}));
    set_default(object, "objectSelector", json!({}));
}

/// Defaults of a list of rules.
pub(super) fn default_rules(object: &mut Value, pointer: &str) {
    for rule in items_mut(object, pointer) {
        set_default_nonzero(rule, "scope", "*");
    }
}

/// Rules of a `MatchResources` at `field`.
pub(super) fn match_resources(errors: &mut Vec<FieldError>, resources: &Value, field: &str) {
    selectors(errors, resources, field);
    for key in ["resourceRules", "excludeResourceRules"] {
        for (i, item) in list(resources, &format!("/{key}")).iter().enumerate() {
            let field = format!("{field}.{key}[{i}]");
            let mut seen = HashSet::new();
            for (j, name) in strings(item, "/resourceNames").enumerate() {
                let field = format!("{field}.resourceNames[{j}]");
                report(errors, &field, &json!(name), path_segment(name));
                if !seen.insert(name) {
                    errors.push(FieldError::duplicate(field, &json!(name)));
                }
            }
            rule(errors, item, &field);
        }
    }
}

/// Rules of the fields that [`default_selectors`] fills.
pub(super) fn selectors(errors: &mut Vec<FieldError>, object: &Value, field: &str) {
    one_of(errors, object, field, "matchPolicy", &MATCH_POLICIES);
    for key in ["namespaceSelector", "objectSelector"] {
        let selector = object.get(key).unwrap_or(&Value::Null);
        errors.extend(label_selector(selector, &format!("{field}.{key}")));
    }
}

/// Rules of one rule: operations, groups, versions, resources.
pub(super) fn rule(errors: &mut Vec<FieldError>, rule: &Value, field: &str) {
    members(errors, rule, field, "operations", "operations");
    for (i, operation) in strings(rule, "/operations").enumerate().filter(|(_, o)| !OPERATIONS.contains(o)) {
        errors.push(FieldError::not_supported(format!("{field}.operations[{i}]"), &json!(operation), &OPERATIONS));
    }
    members(errors, rule, field, "apiGroups", "API groups");
    members(errors, rule, field, "apiVersions", "API versions");
    for (i, _) in strings(rule, "/apiVersions").enumerate().filter(|(_, v)| v.is_empty()) {
        errors.push(FieldError::required(format!("{field}.apiVersions[{i}]"), ""));
    }
    resources(errors, rule, &format!("{field}.resources"));
    one_of(errors, rule, field, "scope", &SCOPES);
}

fn members(errors: &mut Vec<FieldError>, rule: &Value, field: &str, key: &str, what: &str) {
    let all = list(rule, &format!("/{key}"));
    if all.is_empty() {
        errors.push(FieldError::required(format!("{field}.{key}"), ""));
    } else if all.len() > 1 && all.iter().any(|v| v == "*") {
        let message = format!("if '*' is present, must not specify other {what}");
        errors.push(FieldError::invalid(format!("{field}.{key}"), &json!(all), &message));
    }
}

fn resources(errors: &mut Vec<FieldError>, rule: &Value, field: &str) {
    let all: Vec<&str> = strings(rule, "/resources").collect();
    if all.is_empty() {
        errors.push(FieldError::required(field, ""));
    }
    let (mut whole, mut parts) = (HashSet::new(), HashSet::new());
    for (i, item) in all.iter().enumerate() {
        let field = format!("{field}[{i}]");
        if item.is_empty() {
            errors.push(FieldError::required(field, ""));
            continue;
        }
        let Some((resource, sub)) = item.split_once('/') else { continue };
        if whole.contains(resource) {
            let message = format!("if '{resource}/*' is present, must not specify {item}");
            errors.push(FieldError::invalid(&field, &json!(item), &message));
        }
        if parts.contains(sub) {
            let message = format!("if '*/{sub}' is present, must not specify {item}");
            errors.push(FieldError::invalid(&field, &json!(item), &message));
        }
        if sub == "*" {
            whole.insert(resource);
        }
        if resource == "*" {
            parts.insert(sub);
        }
    }
    if all.len() > 1 && all.contains(&"*/*") {
        let message = "if '*/*' is present, must not specify other resources";
        errors.push(FieldError::invalid(field, &json!(all), message));
    }
    if all.contains(&"*") && all.iter().any(|r| *r != "*" && !r.contains('/')) {
        let message = "if '*' is present, must not specify other resources without subresources";
        errors.push(FieldError::invalid(field, &json!(all), message));
    }
}

/// Rules of `matchConditions`: names and, until expressions are evaluated, that there is an expression.
pub(super) fn match_conditions(errors: &mut Vec<FieldError>, object: &Value, field: &str) {
    let all = list(object, "/matchConditions");
    if all.len() > MAX_CONDITIONS {
        errors.push(too_many(field, all.len(), MAX_CONDITIONS));
    }
    let mut seen = HashSet::new();
    for (i, item) in all.iter().enumerate() {
        let (field, name) = (format!("{field}[{i}]"), text(item, "/name"));
        if text(item, "/expression").trim().is_empty() {
            errors.push(FieldError::required(format!("{field}.expression"), ""));
        }
        if name.is_empty() {
            errors.push(FieldError::required(format!("{field}.name"), ""));
            continue;
        }
        report(errors, format!("{field}.name"), &json!(name), qualified_name(name));
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(format!("{field}.name"), &json!(name)));
        }
    }
}

/// Rules of `failurePolicy`.
pub(super) fn failure_policy(errors: &mut Vec<FieldError>, object: &Value, field: &str) {
    required_one_of(errors, object, field, "failurePolicy", &FAILURE_POLICIES);
}
