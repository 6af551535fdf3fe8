//! Event of the core group: what is stored. The events.k8s.io group shows the same objects (`events_event.rs`).

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::value::{has, int, text};
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column, since};
use crate::validate::{qualified_name, report};

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

/// Longest `reportingInstance`, `action`, `reason` and `message` in bytes.
const MAX_WORD_BYTES: usize = 128;
const MAX_MESSAGE_BYTES: usize = 1024;

/// The rules of a core Event of either group; `reporter` is what the group calls `reportingComponent`.
pub(super) fn rules(event: &Value, reporter: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let at = |key: &str| text(event, &format!("/{key}"));
    let (involved, own) = (text(event, "/involvedObject/namespace"), text(event, "/metadata/namespace"));
    let modern = has(event, "/eventTime");
    let fits = if involved.is_empty() {
        own == "default" || modern && own == "kube-system"
    } else {
        modern || involved == own
    };
    if !fits {
        let message = "does not match event.namespace";
        errors.push(FieldError::invalid("involvedObject.namespace", &json!(involved), message));
    }
    if !modern {
        return errors;
    }
    let component = at("reportingComponent");
    if component.is_empty() {
        errors.push(FieldError::required(reporter, ""));
    }
    report(&mut errors, reporter, &json!(component), qualified_name(component));
    for (key, max) in [
        ("reportingInstance", MAX_WORD_BYTES),
        ("action", MAX_WORD_BYTES),
        ("reason", MAX_WORD_BYTES),
        ("message", MAX_MESSAGE_BYTES),
    ] {
        if at(key).is_empty() && key != "message" {
            errors.push(FieldError::required(key, ""));
        }
        if at(key).len() > max {
            errors.push(FieldError::invalid(key, &json!(""), &format!("can have at most {max} characters")));
        }
    }
    errors
}

impl Strategy for Event {
    fn creates_on_update(&self) -> bool {
        true
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        rules(object, "reportingComponent")
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
