//! Rules on single fields that many kinds share. A field is named by its dotted path from the object's root, as it
//! stands in messages (`spec.replicas`); none of its keys has a dot.

use std::collections::HashSet;

use copepod_api::{FieldError, LabelSelector};
use serde_json::{Map, Value, json};

use super::value::{int, list, text};
use crate::validate::{IMMUTABLE, NON_NEGATIVE, dns1123_subdomain, path_segment, quantity, report};

const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', \
    regex used for validation is '[0-9]+%')";

/// The value of a field of `object`, null if there is none.
pub(super) fn at<'a>(object: &'a Value, field: &str) -> &'a Value {
    field.split('.').try_fold(object, |v, key| v.get(key)).unwrap_or(&Value::Null)
}

/// The numbers at `keys` of `object`, which stands at `field` (`""`: the root), must not be negative.
pub(super) fn non_negative(errors: &mut Vec<FieldError>, object: &Value, field: &str, keys: &[&str]) {
    for key in keys {
        if let Some(n) = int(object, &format!("/{key}")).filter(|n| *n < 0) {
            errors.push(FieldError::invalid(join(field, key), &json!(n), NON_NEGATIVE));
        }
    }
}

/// The text at `key` of `object`, which stands at `field`, must be one of `valid`; an empty one is left to others.
pub(super) fn one_of(errors: &mut Vec<FieldError>, object: &Value, field: &str, key: &str, valid: &[&str]) {
    let value = text(object, &format!("/{key}"));
    if !value.is_empty() && !valid.contains(&value) {
        errors.push(FieldError::not_supported(join(field, key), &json!(value), valid));
    }
}

/// Refuses a text.
pub(super) fn invalid(errors: &mut Vec<FieldError>, field: &str, value: &str, message: &str) {
    errors.push(FieldError::invalid(field, &json!(value), message));
}

/// The texts at `keys` of `object`, which stands at `field`, must not be empty.
pub(super) fn required(errors: &mut Vec<FieldError>, object: &Value, field: &str, keys: &[&str]) {
    for key in keys {
        if text(object, &format!("/{key}")).is_empty() {
            errors.push(FieldError::required(join(field, key), ""));
        }
    }
}

/// The text at `key` of `object`, if there is one, must be a name as most objects have it.
pub(super) fn object_name(errors: &mut Vec<FieldError>, object: &Value, field: &str, key: &str) {
    let name = text(object, &format!("/{key}"));
    if !name.is_empty() {
        report(errors, join(field, key), &json!(name), dns1123_subdomain(name));
    }
}

/// The quantities of a map at `field` must not be negative.
pub(super) fn amounts(errors: &mut Vec<FieldError>, map: &Value, field: &str) {
    for (name, value) in map.as_object().into_iter().flatten() {
        let field = format!("{field}[{name}]");
        match quantity(value) {
            Ok(amount) if amount.is_negative() => errors.push(FieldError::invalid(field, value, NON_NEGATIVE)),
            check => report(errors, field, value, check.map(|_| ())),
        }
    }
}

/// These fields may not change.
pub(super) fn immutable(new: &Value, old: &Value, fields: &[&str]) -> Vec<FieldError> {
    let changed = fields.iter().filter(|f| !same(at(new, f), at(old, f)));
    changed.map(|f| FieldError::invalid(*f, at(new, f), IMMUTABLE)).collect()
}

/// Equal as Go compares values: nothing, null, an empty list, map or text are all the same.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let covered = |a: &Map<String, Value>, b: &Map<String, Value>| {
                a.iter().all(|(k, v)| same(v, b.get(k).unwrap_or(&Value::Null)))
            };
            covered(a, b) && covered(b, a)
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        _ => a == b || is_empty(a) && is_empty(b),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
        _ => false,
    }
}

/// The number in an integer or a percentage (null: 0).
///
/// # Errors
/// It is negative, no percentage, or, with `at_most_all`, above 100 %.
pub(super) fn amount(value: &Value, at_most_all: bool) -> Result<i64, String> {
    let Some(text) = value.as_str() else {
        let n = value.as_i64().unwrap_or(0);
        return if n < 0 { Err(NON_NEGATIVE.into()) } else { Ok(n) };
    };
    let digits = text.strip_suffix('%').filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()));
    let Some(percent) = digits.and_then(|d| d.parse::<i64>().ok()) else { return Err(PERCENT.into()) };
    if at_most_all && percent > 100 { Err("must not be greater than 100%".into()) } else { Ok(percent) }
}

fn join(field: &str, key: &str) -> String {
    if field.is_empty() { key.into() } else { format!("{field}.{key}") }
}

/// The text at `key` of `object`, which stands at `field`, must be there and be one of `valid`.
pub(super) fn required_one_of(errors: &mut Vec<FieldError>, object: &Value, field: &str, key: &str, valid: &[&str]) {
    required(errors, object, field, &[key]);
    one_of(errors, object, field, key, valid);
}

/// The text at `key` of `object`, which stands at `field`, must be there and could be a part of a URL.
pub(super) fn segment(errors: &mut Vec<FieldError>, object: &Value, field: &str, key: &str) {
    required(errors, object, field, &[key]);
    let given = text(object, &format!("/{key}"));
    report(errors, join(field, key), &json!(given), path_segment(given));
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
    dns1123_subdomain(domain)?;
    let path_ok = path.bytes().all(|b| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b));
    if path_ok { Ok(()) } else { Err("Invalid path".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_values_are_the_same() {
        for (a, b, equal) in [
            (json!(null), json!({}), true),
            (json!({"a": {"b": []}}), json!({"a": {}}), true),
            (json!({"a": ""}), json!({}), true),
            (json!({"a": 0}), json!({}), false),
            (json!({"a": false}), json!({}), false),
            (json!([{}]), json!([]), false),
            (json!({"a": [1, {"b": null}]}), json!({"a": [1, {}]}), true),
            (json!({"a": 1}), json!({"a": 2}), false),
        ] {
            assert_eq!(same(&a, &b), equal, "{a} {b}");
            assert_eq!(same(&b, &a), equal, "{b} {a}");
        }
    }
}
