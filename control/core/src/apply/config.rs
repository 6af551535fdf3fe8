//! An applied configuration: what a client wants to own, decoded once per request.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::place::Place;
use super::set::FieldSet;
use super::walk::{check_unique, fields_of};
use crate::schema::Schema;

/// Fields of objects that nobody owns: they say which object it is, or are the server's.
pub(super) static NEVER_OWNED: LazyLock<FieldSet> = LazyLock::new(|| {
    let named = ["apiVersion", "kind", "metadata"].map(FieldSet::of_fields);
    let meta = ["name", "namespace", "resourceVersion", "uid"].iter().chain(SERVER_META);
    let meta = meta.map(|field| FieldSet::of_fields(&format!("metadata.{field}")));
    named.into_iter().chain(meta).fold(FieldSet::default(), |all, one| all.union(&one))
});

/// Fields of the metadata that only the server sets: what a configuration says of them is passed over.
const SERVER_META: &[&str] = &[
    "clusterName",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "generation",
    "managedFields",
    "selfLink",
];

/// Which part of an object a request may own. Upstream's strategies call the rest reset fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Everything.
    Whole,
    /// Everything but status, which has a subresource.
    Main,
    /// Status alone.
    Status,
}

/// A decoded configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// As the client sent it.
    pub(super) sent: Value,
    /// In the stored form, without what the request may not own. Nulls that take fields away are still there.
    pub(super) value: Value,
    /// What the manager will own.
    pub(super) fields: FieldSet,
}

impl Config {
    /// Decodes a configuration by its kind's schema.
    ///
    /// # Errors
    /// The first value of a wrong type, all fields that the schema does not know, or a list with two items of one key;
    /// worded as upstream words them after `failed to create typed patch object (...): `.
    pub fn decode(schema: &Schema, sent: Value, part: Part) -> Result<Self, String> {
        let mut value = sent.clone();
        restrict(&mut value, part);
        let mut nulls = Vec::new();
        find_nulls(Place::root(schema), &value, &mut Vec::new(), &mut nulls);
        let decoded = schema.decode(&mut value).map_err(|e| e.message)?;
        let unknown: Vec<String> = decoded.unknown.iter().map(|line| undeclared(line)).collect();
        match unknown.as_slice() {
            [] => {}
            [one] => return Err(one.clone()),
            many => return Err(format!("errors:\n  {}", many.join("\n  "))),
        }
        for path in &nulls {
            set_null(&mut value, path);
        }
        let place = Place::root(schema);
        check_unique(place, &value).map_err(|e| e.to_string())?;
        let fields = fields_of(place, &value).map_err(|e| e.to_string())?.difference(&NEVER_OWNED);
        Ok(Self { sent, value, fields })
    }

    /// A configuration of one field, such as a scale's count, or of none. `value` is the object's, not what was sent.
    pub fn of_field(sent: Value, value: Value, path: Option<&str>) -> Self {
        Self { sent, value, fields: path.map(FieldSet::of_fields).unwrap_or_default() }
    }
}

/// `unknown field "spec.x"` in the words of structured-merge-diff.
fn undeclared(line: &str) -> String {
    let path = line.strip_prefix("unknown field \"").and_then(|l| l.strip_suffix('"')).unwrap_or(line);
    format!(".{path}: field not declared in schema")
}

fn restrict(value: &mut Value, part: Part) {
    let Some(object) = value.as_object_mut() else { return };
    match part {
        Part::Whole => {}
        Part::Main => {
            object.remove("status");
        }
        Part::Status => object.retain(|k, _| matches!(k.as_str(), "apiVersion" | "kind" | "metadata" | "status")),
    }
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        let kept = |field: &str| match part {
            // The rest is preconditions.
            Part::Status => matches!(field, "name" | "namespace" | "uid" | "resourceVersion"),
            _ => !SERVER_META.contains(&field),
        };
        meta.retain(|field, _| kept(field));
    }
}

enum Step {
    Field(String),
    Item(usize),
}

/// The declared fields that are null. Decoding drops them, but to apply null is to own the field and to clear it.
fn find_nulls(place: Place<'_>, value: &Value, path: &mut Vec<Step>, found: &mut Vec<Vec<Step>>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let (below, declared) = place.field(name);
                path.push(Step::Field(name.clone()));
                if value.is_null() && declared {
                    found.push(path.iter().map(Step::copy).collect());
                } else {
                    find_nulls(below, value, path, found);
                }
                path.pop();
            }
        }
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                path.push(Step::Item(i));
                find_nulls(place.element(), item, path, found);
                path.pop();
            }
        }
        _ => {}
    }
}

impl Step {
    fn copy(&self) -> Self {
        match self {
            Self::Field(name) => Self::Field(name.clone()),
            Self::Item(i) => Self::Item(*i),
        }
    }
}

fn set_null(value: &mut Value, path: &[Step]) {
    let next = match path {
        [] => return,
        [Step::Field(name)] => {
            value.as_object_mut().map(|o: &mut Map<String, Value>| o.insert(name.clone(), Value::Null));
            return;
        }
        [Step::Field(name), ..] => value.get_mut(name),
        [Step::Item(i), ..] => value.get_mut(i),
    };
    if let (Some(next), Some((_, rest))) = (next, path.split_first()) {
        set_null(next, rest);
    }
}
