//! Secret.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use copepod_api::FieldError;
use serde_json::{Value, json};

use super::config_map::{MAX_BYTES, decoded_len, immutable};
use super::value::{child, entries, set, set_default_nonzero, text};
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{IMMUTABLE, config_key, report, too_long};

/// Secrets.
pub fn resource() -> Option<Resource> {
    super::built_in(names("v1", "secrets", "Secret", &[], Scope::Namespaced), plain(), Secret)
}

struct Secret;

impl Strategy for Secret {
    /// `stringData` is for writing only: it becomes `data`.
    fn default(&self, object: &mut Value) {
        set_default_nonzero(object, "type", "Opaque");
        let given = object.as_object_mut().and_then(|o| o.remove("stringData"));
        let Some(Value::Object(given)) = given else { return };
        let Some(data) = child(object, "data") else { return };
        for (key, value) in given {
            set(data, &key, STANDARD.encode(value.as_str().unwrap_or_default()));
        }
    }
    fn prepare_update(&self, new: &mut Value, old: &Value) {
        set_default_nonzero(new, "type", text(old, "/type"));
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut total = 0;
        for (key, value) in entries(object, "/data") {
            report(&mut errors, format!("data[{key}]"), &json!(key), config_key(key));
            total += decoded_len(value.as_str().unwrap_or_default());
        }
        if total > MAX_BYTES {
            errors.push(too_long("data", MAX_BYTES));
        }
        errors.extend(of_type(object));
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if new.get("type") != old.get("type") {
            errors.push(FieldError::invalid("type", new.get("type").unwrap_or(&Value::Null), IMMUTABLE));
        }
        errors.extend(immutable(new, old, &["data"]));
        errors
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Type", "string", "What the secret is for; some types ask for certain keys."),
            Column::new("Data", "string", "How many keys it has."),
            Column::age(),
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let keys = entries(object, "/data").count().to_string();
        vec![table::name(object), json!(text(object, "/type")), json!(keys), table::age(object, now)]
    }
    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("type", text(object, "/type").into())]
    }
    fn field_names(&self) -> &'static [&'static str] {
        &["type"]
    }
}

/// The keys that some types ask for.
fn of_type(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let has = |key: &str| object.get("data").and_then(|d| d.get(key)).is_some_and(Value::is_string);
    let mut need = |key: &str| {
        if !has(key) {
            errors.push(FieldError::required(format!("data[{key}]"), ""));
        }
    };
    match text(object, "/type") {
        "kubernetes.io/dockercfg" => need(".dockercfg"),
        "kubernetes.io/dockerconfigjson" => need(".dockerconfigjson"),
        "kubernetes.io/ssh-auth" => need("ssh-privatekey"),
        "kubernetes.io/tls" => ["tls.crt", "tls.key"].into_iter().for_each(need),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            ["username", "password"].into_iter().for_each(need);
        }
        "kubernetes.io/service-account-token" => {
            const NAME: &str = "kubernetes.io/service-account.name";
            if text(object, "/metadata/annotations/kubernetes.io~1service-account.name").is_empty() {
                errors.push(FieldError::required(format!("metadata.annotations[{NAME}]"), ""));
            }
        }
        _ => {}
    }
    for (key, json_key) in
        [("kubernetes.io/dockercfg", ".dockercfg"), ("kubernetes.io/dockerconfigjson", ".dockerconfigjson")]
    {
        let stored = object.get("data").and_then(|d| d.get(json_key)).and_then(Value::as_str);
        if let (true, Some(stored)) = (text(object, "/type") == key, stored)
            && !STANDARD.decode(stored).is_ok_and(|bytes| serde_json::from_slice::<Value>(&bytes).is_ok())
        {
            let message = "<secret contents redacted>";
            errors.push(FieldError::invalid(format!("data[{json_key}]"), &json!(message), "must be valid json"));
        }
    }
    errors
}
