//! What access, admission, networking, extension and device kinds share beyond `fields`.

use std::collections::HashSet;

use copepod_api::{FieldError, LabelSelector};
use serde_json::{Value, json};

use super::fields::{one_of, required};
use super::value::{list, text};
use crate::validate::{path_segment, report};

/// The text at `key` of `object`, which stands at `field`, must be there and be one of `valid`.
pub(super) fn required_one_of(errors: &mut Vec<FieldError>, object: &Value, field: &str, key: &str, valid: &[&str]) {
    required(errors, object, field, &[key]);
    one_of(errors, object, field, key, valid);
}

/// The text at `key` of `object`, which stands at `field`, must be there and could be a part of a URL.
pub(super) fn segment(errors: &mut Vec<FieldError>, object: &Value, field: &str, key: &str) {
    required(errors, object, field, &[key]);
    let given = text(object, &format!("/{key}"));
    report(errors, format!("{field}.{key}"), &json!(given), path_segment(given));
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
