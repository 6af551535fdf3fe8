//! Event of the events.k8s.io group: the core group's Events under newer field names. Stored as core Events.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::immutable;
use super::value::{has, int, text};
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

/// What may not change, under the names of the core group.
const LASTING: [&str; 13] = [
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "type",
    "eventTime",
    "action",
    "related",
    "reportingComponent",
    "reportingInstance",
];

/// The rules of `series`.
fn series(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if has(object, "/series") && int(object, "/series/count").unwrap_or(0) < 2 {
        errors.push(FieldError::invalid("series.count", &json!(""), "should be at least 2"));
    }
    if has(object, "/series") && !has(object, "/series/lastObservedTime") {
        errors.push(FieldError::required("series.lastObservedTime", ""));
    }
    errors
}

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
        event::rules(&self.to_storage(object.clone()), "reportingController")
    }
    /// Upstream reports these, as all rules of events, under the names of the core group.
    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = series(object);
        if !has(object, "/eventTime") {
            errors.push(FieldError::required("eventTime", ""));
        }
        let kind = text(object, "/type");
        if !matches!(kind, "Normal" | "Warning") {
            errors.push(FieldError::invalid("type", &json!(""), &format!("has invalid value: {kind}")));
        }
        let core = self.to_storage(object.clone());
        for key in ["firstTimestamp", "lastTimestamp", "count", "source"] {
            let value = core.get(key).unwrap_or(&Value::Null);
            if !value.is_null() && *value != 0 && *value != json!({}) {
                errors.push(FieldError::invalid(key, &json!(""), "needs to be unset"));
            }
        }
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = if new.get("series") == old.get("series") { Vec::new() } else { series(new) };
        let (new, old) = (self.to_storage(new.clone()), self.to_storage(old.clone()));
        errors.extend(immutable(&new, &old, &LASTING).into_iter().map(|mut error| {
            if error.field == "reportingComponent" {
                error.field = "reportingController".into();
            }
            error
        }));
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
