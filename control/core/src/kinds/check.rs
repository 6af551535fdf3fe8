//! Checks that several kinds share. Fields are named by dotted paths, such as `spec.controller`.

use std::collections::HashSet;

use copepod_api::{FieldError, LabelSelector};
use serde_json::{Value, json};

use super::value::{list, text};
use crate::validate::{IMMUTABLE, path_segment, report};

/// The JSON pointer of a dotted path.
pub(super) fn pointer(field: &str) -> String {
    format!("/{}", field.replace('.', "/"))
}

/// The value of a field, null where it is absent.
pub(super) fn at<'a>(object: &'a Value, field: &str) -> &'a Value {
    object.pointer(&pointer(field)).unwrap_or(&Value::Null)
}

/// Refuses a change of a field.
pub(super) fn unchanged(errors: &mut Vec<FieldError>, new: &Value, old: &Value, field: &str) {
    if at(new, field) != at(old, field) {
        errors.push(FieldError::invalid(field, at(new, field), IMMUTABLE));
    }
}

/// Refuses a string outside an enumeration; a missing one is required.
pub(super) fn one_of(errors: &mut Vec<FieldError>, object: &Value, at: &str, field: String, valid: &[&str]) {
    match text(object, at) {
        "" => errors.push(FieldError::required(field, "")),
        given if !valid.contains(&given) => errors.push(FieldError::not_supported(field, &json!(given), valid)),
        _ => {}
    }
}

/// As [`one_of`], where the string may be missing.
pub(super) fn one_of_if_set(errors: &mut Vec<FieldError>, object: &Value, at: &str, field: String, valid: &[&str]) {
    if !text(object, at).is_empty() {
        one_of(errors, object, at, field, valid);
    }
}

/// Requires a string that could be a part of a URL.
pub(super) fn segment(errors: &mut Vec<FieldError>, object: &Value, at: &str, field: String) {
    match text(object, at) {
        "" => errors.push(FieldError::required(field, "")),
        given => report(errors, field, &json!(given), path_segment(given)),
    }
}

/// Refuses conditions without a type, and types that stand twice.
pub(super) fn conditions(errors: &mut Vec<FieldError>, object: &Value) {
    let mut seen = HashSet::new();
    for (i, condition) in list(object, "/status/conditions").iter().enumerate() {
        let (type_, field) = (text(condition, "/type"), format!("status.conditions[{i}].type"));
        if type_.is_empty() {
            errors.push(FieldError::required(field, "must not be empty"));
        } else if !seen.insert(type_) {
            errors.push(FieldError::duplicate(field, &json!(type_)));
        }
    }
}

/// A label selector for people; `<none>` if it selects everything.
pub(super) fn format_selector(selector: &Value) -> String {
    match LabelSelector::from_json(selector).map(|s| s.to_string()) {
        Ok(s) if s.is_empty() => "<none>".into(),
        Ok(s) => s,
        Err(_) => "<error>".into(),
    }
}

/// The status of a condition, `None` if there is no such condition.
pub(super) fn condition<'a>(object: &'a Value, type_: &str) -> Option<&'a Value> {
    list(object, "/status/conditions").iter().find(|c| text(c, "/type") == type_)
}

/// A name of one label or more: `example.com/name`, such as a controller's or a signer's.
pub(super) fn domain_path(value: &str) -> Result<(), String> {
    let Some((domain, path)) = value.split_once('/').filter(|(d, p)| !d.is_empty() && !p.is_empty()) else {
        return Err("must be a domain-prefixed path (such as \"acme.io/foo\")".into());
    };
    crate::validate::dns1123_subdomain(domain)?;
    let path_ok = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b));
    if path_ok { Ok(()) } else { Err("Invalid path".into()) }
}
