//! Rules of where a pod wants to run: affinity to nodes and pods, and how pods spread.

use std::collections::HashSet;

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::invalid;
use super::value::{entries, has, int, list, strings, text};
use super::workload::label_selector;
use crate::validate::{dns1123_label, dns1123_subdomain, label_value, qualified_name, report};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
const MAX_WEIGHT: i64 = 100;
const NOT_AN_OPERATOR: &str = "not a valid selector operator";
const NO_SELECTOR: &str = "must not be specified when labelSelector is not set";
const ACTIONS: [&str; 2] = ["DoNotSchedule", "ScheduleAnyway"];
const INCLUSION: [&str; 2] = ["Honor", "Ignore"];

/// The rules of the `affinity` of the pod spec at `field`.
pub(super) fn affinity(errors: &mut Vec<FieldError>, spec: &Value, field: &str) {
    let Some(affinity) = spec.get("affinity") else { return };
    let field = format!("{field}.affinity");
    if let Some(required) = affinity.pointer(&format!("/nodeAffinity/{REQUIRED}")).filter(|r| !r.is_null()) {
        node_selector(errors, required, &format!("{field}.nodeAffinity.{REQUIRED}"));
    }
    for (i, preferred) in list(affinity, &format!("/nodeAffinity/{PREFERRED}")).iter().enumerate() {
        let field = format!("{field}.nodeAffinity.{PREFERRED}[{i}]");
        weight(errors, preferred, &field);
        if let Some(term) = preferred.get("preference") {
            node_term(errors, term, &format!("{field}.preference"), false);
        }
    }
    for key in ["podAffinity", "podAntiAffinity"] {
        for (i, term) in list(affinity, &format!("/{key}/{REQUIRED}")).iter().enumerate() {
            pod_term(errors, term, &format!("{field}.{key}.{REQUIRED}[{i}]"));
        }
        for (i, preferred) in list(affinity, &format!("/{key}/{PREFERRED}")).iter().enumerate() {
            let field = format!("{field}.{key}.{PREFERRED}[{i}]");
            weight(errors, preferred, &field);
            let term = preferred.get("podAffinityTerm").unwrap_or(&Value::Null);
            pod_term(errors, term, &format!("{field}.podAffinityTerm"));
        }
    }
}

fn weight(errors: &mut Vec<FieldError>, preferred: &Value, field: &str) {
    let weight = int(preferred, "/weight").unwrap_or(0);
    if !(1..=MAX_WEIGHT).contains(&weight) {
        errors.push(FieldError::invalid(format!("{field}.weight"), &json!(weight), "must be in the range 1-100"));
    }
}

/// The rules of a selector of nodes at `field`.
pub(super) fn node_selector(errors: &mut Vec<FieldError>, selector: &Value, field: &str) {
    let (terms, field) = (list(selector, "/nodeSelectorTerms"), format!("{field}.nodeSelectorTerms"));
    if terms.is_empty() {
        errors.push(FieldError::required(&field, "must have at least one node selector term"));
    }
    for (i, term) in terms.iter().enumerate() {
        node_term(errors, term, &format!("{field}[{i}]"), true);
    }
}

/// `strict`: values must be such as labels can have.
fn node_term(errors: &mut Vec<FieldError>, term: &Value, field: &str, strict: bool) {
    for (i, item) in list(term, "/matchExpressions").iter().enumerate() {
        expression(errors, item, &format!("{field}.matchExpressions[{i}]"), strict);
    }
    for (i, item) in list(term, "/matchFields").iter().enumerate() {
        let field = format!("{field}.matchFields[{i}]");
        let (key, values) = (text(item, "/key"), list(item, "/values"));
        match text(item, "/operator") {
            "In" | "NotIn" if values.len() == 1 => {}
            "In" | "NotIn" => errors.push(FieldError::required(
                format!("{field}.values"),
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            )),
            other => invalid(errors, &format!("{field}.operator"), other, NOT_AN_OPERATOR),
        }
        if key != "metadata.name" {
            invalid(errors, &format!("{field}.key"), key, "not a valid field selector key");
            continue;
        }
        for (j, value) in values.iter().enumerate() {
            let check = dns1123_subdomain(value.as_str().unwrap_or_default());
            report(errors, format!("{field}.values[{j}]"), value, check);
        }
    }
}

fn expression(errors: &mut Vec<FieldError>, item: &Value, field: &str, strict: bool) {
    let (key, values) = (text(item, "/key"), list(item, "/values"));
    let value_field = format!("{field}.values");
    match text(item, "/operator") {
        "In" | "NotIn" if values.is_empty() => {
            let message = "must be specified when `operator` is 'In' or 'NotIn'";
            errors.push(FieldError::required(&value_field, message));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let message = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            errors.push(FieldError::forbidden(&value_field, message));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            let message = "must be specified single value when `operator` is 'Lt' or 'Gt'";
            errors.push(FieldError::required(&value_field, message));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => invalid(errors, &format!("{field}.operator"), other, NOT_AN_OPERATOR),
    }
    report(errors, format!("{field}.key"), &json!(key), qualified_name(key));
    for (i, value) in values.iter().enumerate().filter(|_| strict) {
        report(errors, format!("{value_field}[{i}]"), value, label_value(value.as_str().unwrap_or_default()));
    }
}

fn pod_term(errors: &mut Vec<FieldError>, term: &Value, field: &str) {
    for key in ["labelSelector", "namespaceSelector"] {
        if let Some(selector) = term.get(key).filter(|s| !s.is_null()) {
            errors.extend(label_selector(selector, &format!("{field}.{key}")));
        }
    }
    for namespace in strings(term, "/namespaces") {
        report(errors, format!("{field}.namespace"), &json!(namespace), dns1123_label(namespace));
    }
    label_keys(errors, term, field);
    let topology = text(term, "/topologyKey");
    let field = format!("{field}.topologyKey");
    if topology.is_empty() {
        errors.push(FieldError::required(&field, "can not be empty"));
    }
    report(errors, field, &json!(topology), qualified_name(topology));
}

/// The rules of `matchLabelKeys` and `mismatchLabelKeys` beside a `labelSelector`.
fn label_keys(errors: &mut Vec<FieldError>, term: &Value, field: &str) {
    for list_key in ["matchLabelKeys", "mismatchLabelKeys"] {
        let field = format!("{field}.{list_key}");
        let keys: Vec<&str> = strings(term, &format!("/{list_key}")).collect();
        if !keys.is_empty() && !has(term, "/labelSelector") {
            errors.push(FieldError::forbidden(field, NO_SELECTOR));
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            report(errors, format!("{field}[{i}]"), &json!(key), qualified_name(key));
        }
    }
    let matched: Vec<&str> = strings(term, "/matchLabelKeys").collect();
    let mut selected: HashSet<&str> =
        entries(term, "/labelSelector/matchLabels").map(|(key, _)| key.as_str()).collect();
    for expression in list(term, "/labelSelector/matchExpressions") {
        let key = text(expression, "/key");
        if let Some(i) = matched.iter().rposition(|k| *k == key).filter(|_| selected.contains(key)) {
            invalid(errors, &format!("{field}[{i}]"), key, "exists in both matchLabelKeys and labelSelector");
        }
        selected.insert(key);
    }
    let mismatched: HashSet<&str> = strings(term, "/mismatchLabelKeys").collect();
    for (i, key) in matched.iter().enumerate().filter(|(_, key)| mismatched.contains(*key)) {
        let message = "exists in both matchLabelKeys and mismatchLabelKeys";
        invalid(errors, &format!("{field}.matchLabelKeys[{i}]"), key, message);
    }
}

/// The rules of the `topologySpreadConstraints` of the pod spec at `field`.
pub(super) fn spread(errors: &mut Vec<FieldError>, spec: &Value, field: &str) {
    let constraints = list(spec, "/topologySpreadConstraints");
    for (i, constraint) in constraints.iter().enumerate() {
        let field = format!("{field}.topologySpreadConstraints[{i}]");
        positive(errors, constraint, &field, "maxSkew", Some(0));
        let pair = |c: &Value| format!("{{{}, {}}}", text(c, "/topologyKey"), text(c, "/whenUnsatisfiable"));
        if text(constraint, "/topologyKey").is_empty() {
            errors.push(FieldError::required(format!("{field}.topologyKey"), "can not be empty"));
        }
        let action = text(constraint, "/whenUnsatisfiable");
        if !ACTIONS.contains(&action) {
            let field = format!("{field}.whenUnsatisfiable");
            errors.push(FieldError::not_supported(field, &json!(action), &ACTIONS));
        }
        let this = pair(constraint);
        if constraints.iter().skip(i + 1).any(|other| pair(other) == this) {
            let field = format!("{field}.{{topologyKey, whenUnsatisfiable}}");
            errors.push(FieldError::duplicate(field, &json!(this)));
        }
        if let Some(domains) = int(constraint, "/minDomains") {
            positive(errors, constraint, &field, "minDomains", None);
            if action != "DoNotSchedule" {
                let message = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.push(FieldError::invalid(format!("{field}.minDomains"), &json!(domains), &message));
            }
        }
        for key in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            let policy = text(constraint, &format!("/{key}"));
            if has(constraint, &format!("/{key}")) && !INCLUSION.contains(&policy) {
                errors.push(FieldError::not_supported(format!("{field}.{key}"), &json!(policy), &INCLUSION));
            }
        }
        label_keys(errors, constraint, &field);
        if let Some(selector) = constraint.get("labelSelector").filter(|s| !s.is_null()) {
            errors.extend(label_selector(selector, &format!("{field}.labelSelector")));
        }
    }
}

fn positive(errors: &mut Vec<FieldError>, object: &Value, field: &str, key: &str, absent: Option<i64>) {
    if let Some(n) = int(object, &format!("/{key}")).or(absent).filter(|n| *n <= 0) {
        errors.push(FieldError::invalid(format!("{field}.{key}"), &json!(n), "must be greater than zero"));
    }
}
