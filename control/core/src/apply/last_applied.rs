//! From client-side to server-side apply: kubectl's annotation says what it applied before.

use serde_json::Value;

use super::place::Place;
use super::set::FieldSet;
use super::walk::{changes, fields_of};
use crate::schema::Schema;

/// The annotation with the last configuration that kubectl applied.
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The manager that the annotation belongs to.
pub(super) const MANAGER: &str = "kubectl";
/// Bytes that all annotations of an object may have; the annotation goes if they would have more.
const MAX_ANNOTATIONS: usize = 256 << 10;

fn annotation(object: &Value) -> Option<&str> {
    let annotations = object.get("metadata")?.get("annotations")?;
    annotations.get(ANNOTATION)?.as_str().filter(|text| !text.is_empty())
}

/// What kubectl owns by its annotation: fields that it applied client-side and that are still as it applied them.
pub(super) fn owned(schema: &Schema, live: &Value, api_version: &str) -> FieldSet {
    let Some(text) = annotation(live) else { return FieldSet::default() };
    let Ok(mut last) = serde_json::from_str::<Value>(text) else { return FieldSet::default() };
    if last.get("apiVersion").and_then(Value::as_str) != Some(api_version) || schema.decode(&mut last).is_err() {
        return FieldSet::default();
    }
    let place = Place::root(schema);
    match (fields_of(place, &last), changes(place, &last, live)) {
        (Ok(fields), Ok(changes)) => fields.difference(&changes.set()).difference(&changes.removed),
        _ => FieldSet::default(),
    }
}

/// Keeps an object's annotation, if it has one, at what was applied server-side.
pub(super) fn renew(object: &mut Value, sent: &Value) {
    if annotation(object).is_none() {
        return;
    }
    let mut config = sent.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(ANNOTATION);
    }
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else { return };
    // Upstream's encoder ends with a line break.
    annotations.insert(ANNOTATION.into(), format!("{config}\n").into());
    let size: usize = annotations.iter().map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
    if size > MAX_ANNOTATIONS {
        annotations.remove(ANNOTATION);
    }
}
