//! Event of the core group: what is stored. The events.k8s.io group shows the same objects (`events_event.rs`).

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::value::{has, int, text};
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column, since};

/// Core Events.
pub fn resource() -> Option<Resource> {
    super::built_in(names("v1", "events", "Event", &["ev"], Scope::Namespaced), plain(), Event)
}

/// The core kind's rules.
pub(super) struct Event;

const FIELDS: [&str; 11] = [
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

impl Strategy for Event {
    fn creates_on_update(&self) -> bool {
        true
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (involved, own) = (text(object, "/involvedObject/namespace"), text(object, "/metadata/namespace"));
        let matches = if involved.is_empty() { matches!(own, "default" | "kube-system") } else { involved == own };
        if matches {
            return Vec::new();
        }
        vec![FieldError::invalid("involvedObject.namespace", &json!(involved), "does not match event.namespace")]
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::new("Last Seen", "string", "Time since it last happened."),
            Column::new("Type", "string", "Normal or Warning."),
            Column::new("Reason", "string", "Why, in one word."),
            Column::new("Object", "string", "What it is about."),
            Column::new("Subobject", "string", "Which part of the object.").wide(),
            Column::new("Source", "string", "Who reported it.").wide(),
            Column::new("Message", "string", "What happened."),
            Column::new("First Seen", "string", "Time since it first happened.").wide(),
            Column::new("Count", "string", "How often it happened.").wide(),
            Column { format: "name".into(), ..Column::new("Name", "string", "Name of the event.").wide() },
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let at = |pointer: &str| text(object, pointer);
        let event_time = at("/eventTime");
        let or = |time: &str, fallback: String| if time.is_empty() { fallback } else { since(time, now) };
        let first = or(at("/firstTimestamp"), since(event_time, now));
        let (last, count) = if has(object, "/series") {
            (since(at("/series/lastObservedTime"), now), int(object, "/series/count").unwrap_or(0))
        } else {
            (or(at("/lastTimestamp"), first.clone()), int(object, "/count").filter(|n| *n != 0).unwrap_or(1))
        };
        let kind = at("/involvedObject/kind").to_lowercase();
        let target = match at("/involvedObject/name") {
            "" => kind,
            name => format!("{kind}/{name}"),
        };
        let (component, host) = (at("/source/component"), at("/source/host"));
        let component = if component.is_empty() { at("/reportingComponent") } else { component };
        let host = if host.is_empty() { at("/reportingInstance") } else { host };
        let source = if host.is_empty() { component.to_string() } else { format!("{component}, {host}") };
        vec![
            json!(last),
            json!(at("/type")),
            json!(at("/reason")),
            json!(target),
            json!(at("/involvedObject/fieldPath")),
            json!(source),
            json!(at("/message").trim()),
            json!(first),
            json!(count.to_string()),
            table::name(object),
        ]
    }
    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        let source = text(object, "/source/component");
        let source = if source.is_empty() { text(object, "/reportingComponent") } else { source };
        FIELDS
            .iter()
            .map(|field| match *field {
                "source" => (*field, source.to_string()),
                _ => (*field, text(object, &format!("/{}", field.replace('.', "/"))).to_string()),
            })
            .collect()
    }
    fn field_names(&self) -> &'static [&'static str] {
        &FIELDS
    }
}
