//! Value rules (`required`, `enum`, `minimum` ...) of schemas given at run time.

use copepod_api::FieldError;
use serde_json::Value;

use super::{Node, Schema, Type};

/// Most errors that one check reports.
const MAX_ERRORS: usize = 100;

/// The rules of one place.
#[derive(Debug)]
pub(crate) struct Rules {
    minimum: Option<(f64, bool)>,
    maximum: Option<(f64, bool)>,
    /// Bounds on length: characters, items or properties.
    lengths: [(Option<u64>, Option<u64>); 3],
    allowed: Vec<Value>,
}

impl Rules {
    pub(crate) fn of(schema: &Value) -> Option<Box<Self>> {
        let number = |key| schema.get(key).and_then(Value::as_f64);
        let length = |key: String| schema.get(key).and_then(Value::as_u64);
        let strict = |key| schema.get(key).and_then(Value::as_bool).unwrap_or(false);
        let rules = Self {
            minimum: number("minimum").map(|n| (n, strict("exclusiveMinimum"))),
            maximum: number("maximum").map(|n| (n, strict("exclusiveMaximum"))),
            lengths: ["Length", "Items", "Properties"].map(|w| (length(format!("min{w}")), length(format!("max{w}")))),
            allowed: schema.get("enum").and_then(Value::as_array).cloned().unwrap_or_default(),
        };
        let none = rules.minimum.is_none()
            && rules.maximum.is_none()
            && rules.lengths == [(None, None); 3]
            && rules.allowed.is_empty();
        (!none).then(|| Box::new(rules))
    }

    fn check(&self, path: &str, value: &Value, errors: &mut Vec<FieldError>) {
        let mut invalid =
            |what: String| errors.push(FieldError::invalid(path, value, &format!("{path} in body {what}")));
        if let Some(n) = value.as_f64() {
            match self.minimum {
                Some((min, true)) if n <= min => invalid(format!("should be greater than {min}")),
                Some((min, false)) if n < min => invalid(format!("should be greater than or equal to {min}")),
                _ => {}
            }
            match self.maximum {
                Some((max, true)) if n >= max => invalid(format!("should be less than {max}")),
                Some((max, false)) if n > max => invalid(format!("should be less than or equal to {max}")),
                _ => {}
            }
        }
        let (length, bounds, verb, unit) = match value {
            Value::String(s) => (s.chars().count(), 0, "be at", "chars long"),
            Value::Array(items) => (items.len(), 1, "have at", "items"),
            Value::Object(object) => (object.len(), 2, "have at", "properties"),
            _ => (0, 3, "", ""),
        };
        let length = length as u64;
        match self.lengths.get(bounds) {
            Some((Some(min), _)) if length < *min => invalid(format!("should {verb} least {min} {unit}")),
            Some((_, Some(max))) if length > *max => invalid(format!("should {verb} most {max} {unit}")),
            _ => {}
        }
        if !self.allowed.is_empty() && !self.allowed.contains(value) {
            let valid: Vec<String> =
                self.allowed.iter().map(|v| v.as_str().map_or_else(|| v.to_string(), str::to_owned)).collect();
            let valid: Vec<&str> = valid.iter().map(String::as_str).collect();
            errors.push(FieldError::not_supported(path, value, &valid));
        }
    }
}

impl Schema {
    /// Checks required fields and value rules (bounds, lengths, enums) of a schema given at run time, on a decoded
    /// object. Built-in kinds have strategies instead. At most 100 errors.
    pub fn validate_values(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if self.source.is_some() {
            check(self.root(), "", object, &mut errors);
        }
        errors.truncate(MAX_ERRORS);
        errors
    }
}

/// The object was decoded: its depth is bounded.
fn check(node: Node<'_>, path: &str, value: &Value, errors: &mut Vec<FieldError>) {
    if errors.len() >= MAX_ERRORS {
        return;
    }
    if let Some(rules) = &node.data().rules {
        rules.check(path, value, errors);
    }
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match (node.kind(), value) {
        (Type::Struct, Value::Object(object)) => {
            for field in node.fields() {
                match object.get(field.name()) {
                    Some(value) => check(field.node(), &join(field.name()), value, errors),
                    // Built-in types inside (ObjectMeta) are checked by the generic code.
                    None if field.required() => errors.push(FieldError::required(join(field.name()), "")),
                    None => {}
                }
            }
        }
        (Type::Map, Value::Object(object)) => {
            let Some(element) = node.element() else { return };
            for (key, value) in object {
                check(element, &join(key), value, errors);
            }
        }
        (Type::List, Value::Array(items)) => {
            let Some(element) = node.element() else { return };
            for (i, value) in items.iter().enumerate() {
                check(element, &format!("{path}[{i}]"), value, errors);
            }
        }
        _ => {}
    }
}
