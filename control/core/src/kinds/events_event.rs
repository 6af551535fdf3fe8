//! Event of the events.k8s.io group: the core group's Events under newer field names. Stored as core Events.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::value::{has, text};
use super::{event, names, plain};
use crate::resource::{Resource, Scope, StorageView, Strategy};
use crate::table::Column;

/// events.k8s.io Events.
pub fn resource() -> Option<Resource> {
    let names = names("events.k8s.io/v1", "events", "Event", &["ev"], Scope::Namespaced);
    let mut resource = super::built_in(names, plain(), Event)?;
    resource.storage = Some(StorageView { group: String::new(), version: "v1".into(), plural: "events".into() });
    Some(resource)
}

struct Event;

/// (name here, name in core)
const RENAMED: [(&str, &str); 7] = [
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("reportingController", "reportingComponent"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
];

/// Longest `action` and `reason` in bytes.
const MAX_WORD_BYTES: usize = 128;
/// Longest `note` in bytes.
const MAX_NOTE_BYTES: usize = 1024;

impl Strategy for Event {
    fn creates_on_update(&self) -> bool {
        true
    }
    fn from_storage(&self, stored: Value) -> Value {
        rename(stored, "events.k8s.io/v1", RENAMED.iter().map(|(here, core)| (*core, *here)))
    }
    fn to_storage(&self, object: Value) -> Value {
        rename(object, "v1", RENAMED.iter().map(|(here, core)| (*here, *core)))
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (regarding, own) = (text(object, "/regarding/namespace"), text(object, "/metadata/namespace"));
        if !regarding.is_empty() && regarding != own
            || regarding.is_empty() && !matches!(own, "default" | "kube-system")
        {
            let message = "does not match event.namespace";
            errors.push(FieldError::invalid("regarding.namespace", &json!(regarding), message));
        }
        if !has(object, "/eventTime") && !has(object, "/deprecatedFirstTimestamp") {
            errors.push(FieldError::required("eventTime", ""));
        }
        if !has(object, "/eventTime") {
            // An event written through the core group: its rules are looser.
            return errors;
        }
        for (field, max) in [
            ("reportingController", MAX_WORD_BYTES),
            ("reportingInstance", MAX_WORD_BYTES),
            ("action", MAX_WORD_BYTES),
            ("reason", MAX_WORD_BYTES),
        ] {
            let value = text(object, &format!("/{field}"));
            if value.is_empty() {
                errors.push(FieldError::required(field, ""));
            } else if value.len() > max {
                let message = format!("can have at most {max} characters");
                errors.push(FieldError::invalid(field, &json!(value), &message));
            }
        }
        if text(object, "/note").len() > MAX_NOTE_BYTES {
            let message = format!("can have at most {MAX_NOTE_BYTES} characters");
            errors.push(FieldError::invalid("note", &json!(text(object, "/note")), &message));
        }
        if !matches!(text(object, "/type"), "Normal" | "Warning") {
            let message = "has invalid value: must be Normal or Warning";
            errors.push(FieldError::invalid("type", &json!(text(object, "/type")), message));
        }
        errors
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        event::Event.columns()
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        event::Event.cells(&self.to_storage(object.clone()), now)
    }
    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        FIELDS
            .iter()
            .map(|field| (*field, text(object, &format!("/{}", field.replace('.', "/"))).to_string()))
            .collect()
    }
    fn field_names(&self) -> &'static [&'static str] {
        &FIELDS
    }
}

const FIELDS: [&str; 10] = [
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reason",
    "reportingController",
    "type",
];

fn rename<'a>(mut object: Value, api_version: &str, names: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    if let Some(map) = object.as_object_mut() {
        for (from, to) in names {
            if let Some(value) = map.remove(from) {
                map.insert(to.into(), value);
            }
        }
        map.insert("apiVersion".into(), api_version.into());
    }
    object
}
