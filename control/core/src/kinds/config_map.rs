//! ConfigMap.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::value::{entries, flag, has};
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{config_key, report, too_long};

/// Most bytes of all values of one ConfigMap or Secret.
pub const MAX_BYTES: usize = 1024 * 1024;
const IMMUTABLE_SET: &str = "field is immutable when `immutable` is set";

/// ConfigMaps.
pub fn resource() -> Option<Resource> {
    super::built_in(names("v1", "configmaps", "ConfigMap", &["cm"], Scope::Namespaced), plain(), ConfigMap)
}

struct ConfigMap;

impl Strategy for ConfigMap {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut total = 0;
        for (key, value) in entries(object, "/data") {
            report(&mut errors, format!("data[{key}]"), &json!(key), config_key(key));
            if has(object, "/binaryData") && object.get("binaryData").and_then(|b| b.get(key)).is_some() {
                let message = "duplicate of key present in binaryData";
                errors.push(FieldError::invalid(format!("data[{key}]"), &json!(key), message));
            }
            total += value.as_str().map_or(0, str::len);
        }
        for (key, value) in entries(object, "/binaryData") {
            report(&mut errors, format!("binaryData[{key}]"), &json!(key), config_key(key));
            total += decoded_len(value.as_str().unwrap_or_default());
        }
        if total > MAX_BYTES {
            errors.push(too_long("", MAX_BYTES));
        }
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        immutable(new, old, &["data", "binaryData"])
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![Column::name(), Column::new("Data", "string", "How many keys it has."), Column::age()]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let keys = entries(object, "/data").count() + entries(object, "/binaryData").count();
        vec![table::name(object), json!(keys.to_string()), table::age(object, now)]
    }
}

/// Bytes that a base64 string stands for.
pub(super) fn decoded_len(base64: &str) -> usize {
    base64.trim_end_matches('=').len() * 3 / 4
}

/// The rules of `immutable: true`: it stays, and so do the named fields.
pub(super) fn immutable(new: &Value, old: &Value, fields: &[&str]) -> Vec<FieldError> {
    if !flag(old, "/immutable") {
        return Vec::new();
    }
    let mut errors = Vec::new();
    if !flag(new, "/immutable") {
        errors.push(FieldError::forbidden("immutable", IMMUTABLE_SET));
    }
    let at = |o: &Value, f: &str| o.get(f).filter(|v| !v.is_null() && **v != json!({})).cloned();
    errors.extend(fields.iter().filter(|f| at(new, f) != at(old, f)).map(|f| FieldError::forbidden(*f, IMMUTABLE_SET)));
    errors
}
