//! From client JSON to the stored form, as Go's decoder would do it.

use std::fmt::Write;

use copepod_api::Gvk;
use serde_json::{Map, Value};

use super::scalar::{self, go_value};
use super::{MAX_DEPTH, MAX_UNKNOWN, Node, Schema, Type};

/// What a decode found besides errors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Fields that the schema does not know, worded `unknown field "spec.foo"`. They were removed from the object
    /// (unless the schema preserves them). At most [`super::MAX_UNKNOWN`].
    pub unknown: Vec<String>,
}

/// A value of a wrong type or form, worded as Go's decoder words it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    /// Such as `json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32`.
    pub message: String,
}

impl DecodeError {
    /// The whole message of the BadRequest: `Deployment in version "v1" cannot be handled as a Deployment: ...`.
    pub fn bad_request(&self, gvk: &Gvk) -> String {
        format!("{} in version {:?} cannot be handled as a {}: {}", gvk.kind, gvk.version, gvk.kind, self.message)
    }
}

/// The error of strict field validation from `unknown field "..."` and `duplicate field "..."` lines; use with
/// [`DecodeError::bad_request`]'s wording. `None` if there are no lines.
pub fn strict_error(duplicates: &[String], unknown: &[String]) -> Option<DecodeError> {
    if duplicates.is_empty() && unknown.is_empty() {
        return None;
    }
    let lines: Vec<&str> = duplicates.iter().chain(unknown).map(String::as_str).collect();
    Some(DecodeError { message: format!("strict decoding error: {}", lines.join(", ")) })
}

impl Schema {
    /// Brings a client's object into the stored form, in place: nulls are dropped, and zero values where Go would not
    /// print them; quantities become canonical, unknown fields are removed and reported. The caller decides by the fieldValidation parameter what the report
    /// means.
    ///
    /// # Errors
    /// The first value of a wrong type or form, and nesting deeper than [`super::MAX_DEPTH`].
    pub fn decode(&self, object: &mut Value) -> Result<Decoded, DecodeError> {
        let mut walker = Walker::new(Mode::Decode);
        walker.root(self.root(), object)?;
        Ok(Decoded { unknown: walker.unknown })
    }

    /// Removes unknown fields and nulls without judging types: for merged objects whose parts were checked.
    pub fn prune(&self, object: &mut Value) {
        let mut walker = Walker::new(Mode::Prune);
        // In this mode only the depth can fail; what lies deeper stays, and decoding refuses it.
        let _ = walker.root(self.root(), object);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Decode,
    Prune,
}

/// One pass over an object.
struct Walker<'s> {
    mode: Mode,
    unknown: Vec<String>,
    /// Where the pass is, as strict errors print it: `spec.containers[0]`.
    path: String,
    /// The same as Go's type errors print it: struct fields only.
    fields: Vec<&'s str>,
    /// The innermost struct's name.
    inside: &'s str,
    depth: usize,
}

impl<'s> Walker<'s> {
    fn new(mode: Mode) -> Self {
        Self { mode, unknown: Vec::new(), path: String::new(), fields: Vec::new(), inside: "", depth: 0 }
    }

    fn root(&mut self, node: Node<'s>, object: &mut Value) -> Result<(), DecodeError> {
        if !object.is_object() && self.mode == Mode::Decode {
            return Err(self.mismatch(go_value(object).to_owned(), node));
        }
        self.value(node, object)
    }

    fn value(&mut self, node: Node<'s>, value: &mut Value) -> Result<(), DecodeError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(DecodeError { message: format!("exceeded max depth of {MAX_DEPTH} at {}", self.path) });
        }
        match (node.kind(), &mut *value) {
            (Type::Any, other) => self.any(other, self.depth)?,
            (Type::Struct, Value::Object(object)) => self.object(node, object)?,
            (Type::Map, Value::Object(object)) => {
                for (key, item) in object.iter_mut() {
                    let length = self.push(key);
                    self.element(node, item)?;
                    self.path.truncate(length);
                }
            }
            (Type::List, Value::Array(items)) => {
                for (i, item) in items.iter_mut().enumerate() {
                    let length = self.path.len();
                    // Writing to a string cannot fail.
                    let _ = write!(self.path, "[{i}]");
                    self.element(node, item)?;
                    self.path.truncate(length);
                }
            }
            _ if self.mode == Mode::Prune => {}
            _ => self.scalar(node, value)?,
        }
        self.depth -= 1;
        Ok(())
    }

    /// A list item or map value: null stands for the type's zero value, as in Go.
    fn element(&mut self, node: Node<'s>, value: &mut Value) -> Result<(), DecodeError> {
        let Some(element) = node.element() else { return Ok(()) };
        if value.is_null() && !element.nullable() {
            *value = zero(element.kind());
        }
        self.value(element, value)
    }

    fn object(&mut self, node: Node<'s>, object: &mut Map<String, Value>) -> Result<(), DecodeError> {
        let outside = self.inside;
        if !node.name().is_empty() {
            self.inside = node.name();
        }
        let mut failed = None;
        object.retain(|key, value| {
            if failed.is_some() {
                return true;
            }
            let Some(field) = node.field(key) else {
                if node.preserves_unknown() {
                    failed = self.any(value, self.depth).err();
                    return true;
                }
                if self.unknown.len() < MAX_UNKNOWN {
                    let length = self.push(key);
                    self.unknown.push(format!("unknown field \"{}\"", self.path));
                    self.path.truncate(length);
                }
                return false;
            };
            if value.is_null() && field.node().kind() != Type::Any {
                return field.node().nullable();
            }
            let length = self.push(key);
            self.fields.push(field.name());
            failed = self.value(field.node(), value).err();
            self.fields.pop();
            self.path.truncate(length);
            !(field.omits_zero() && is_zero(field.node().kind(), value))
        });
        self.inside = outside;
        failed.map_or(Ok(()), Err)
    }

    /// Raw JSON: only its depth is checked.
    fn any(&self, value: &Value, depth: usize) -> Result<(), DecodeError> {
        if depth > MAX_DEPTH {
            return Err(DecodeError { message: format!("exceeded max depth of {MAX_DEPTH} at {}", self.path) });
        }
        match value {
            Value::Array(items) => items.iter().try_for_each(|v| self.any(v, depth + 1)),
            Value::Object(object) => object.values().try_for_each(|v| self.any(v, depth + 1)),
            _ => Ok(()),
        }
    }

    fn scalar(&mut self, node: Node<'s>, value: &mut Value) -> Result<(), DecodeError> {
        let own = |message| DecodeError { message };
        match (node.kind(), &*value) {
            // Nullable places, and times in maps: elsewhere null never gets here.
            (_, Value::Null) if self.depth > 1 => {}
            (Type::Bool, Value::Bool(_)) | (Type::String, Value::String(_)) | (Type::Float, Value::Number(_)) => {}
            (Type::Int32, Value::Number(n)) if scalar::fits_int32(n) => {}
            (Type::Int64, Value::Number(n)) if n.is_i64() => {}
            (Type::Int32 | Type::Int64, Value::Number(n)) => return Err(self.mismatch(format!("number {n}"), node)),
            (Type::Bytes, Value::String(text)) => {
                if let Some(joined) = scalar::bytes(text).map_err(own)? {
                    *value = Value::String(joined);
                }
            }
            (Type::Quantity, _) => *value = scalar::quantity(value).map_err(own)?,
            (Type::IntOrString, _) => scalar::int_or_string(value).map_err(own)?,
            (Type::Time, _) => *value = scalar::time(value, false).map_err(own)?,
            (Type::MicroTime, _) => *value = scalar::time(value, true).map_err(own)?,
            _ => return Err(self.mismatch(go_value(value).to_owned(), node)),
        }
        Ok(())
    }

    fn mismatch(&self, found: String, node: Node<'_>) -> DecodeError {
        let ty = go_type(node, 0);
        let message = if self.fields.is_empty() {
            format!("json: cannot unmarshal {found} into Go value of type {ty}")
        } else {
            let path = self.fields.join(".");
            format!("json: cannot unmarshal {found} into Go struct field {}.{path} of type {ty}", self.inside)
        };
        DecodeError { message }
    }

    /// Adds a key to the path and returns the length to truncate to.
    fn push(&mut self, key: &str) -> usize {
        let length = self.path.len();
        if length > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        length
    }
}

/// Whether Go's `omitempty` (`omitzero` of structs) leaves a value out.
fn is_zero(ty: Type, value: &Value) -> bool {
    match ty {
        Type::Bool | Type::Int32 | Type::Int64 | Type::Float | Type::String | Type::Bytes => match value {
            Value::Bool(b) => !b,
            Value::Number(n) => n.as_f64() == Some(0.0),
            Value::String(s) => s.is_empty(),
            _ => false,
        },
        Type::List | Type::Map | Type::Struct => match value {
            Value::Array(items) => items.is_empty(),
            Value::Object(fields) => fields.is_empty(),
            _ => false,
        },
        Type::Any | Type::Time | Type::MicroTime | Type::Quantity | Type::IntOrString => false,
    }
}

/// What Go decodes null to in a list or map.
fn zero(ty: Type) -> Value {
    match ty {
        Type::Any | Type::Time | Type::MicroTime => Value::Null,
        Type::Struct | Type::Map => Value::Object(Map::new()),
        Type::List => Value::Array(Vec::new()),
        Type::Bool => Value::Bool(false),
        Type::Int32 | Type::Int64 | Type::Float | Type::IntOrString => Value::from(0),
        Type::String | Type::Bytes => Value::String(String::new()),
        Type::Quantity => Value::String("0".to_owned()),
    }
}

/// Go's name of a type.
fn go_type(node: Node<'_>, depth: usize) -> String {
    let element = || match node.element() {
        Some(e) if depth < 4 => go_type(e, depth + 1),
        _ => "interface {}".to_owned(),
    };
    let data = node.data();
    match data.ty {
        Type::Struct if !data.go_type.is_empty() => data.go_type.clone(),
        Type::Struct => "map[string]interface {}".to_owned(),
        Type::Map => format!("map[string]{}", element()),
        Type::List => format!("[]{}", element()),
        Type::Any => "interface {}".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Int32 => "int32".to_owned(),
        Type::Int64 => "int64".to_owned(),
        Type::Float => "float64".to_owned(),
        Type::String => "string".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::Quantity => "resource.Quantity".to_owned(),
        Type::IntOrString => "intstr.IntOrString".to_owned(),
        Type::Time => "v1.Time".to_owned(),
        Type::MicroTime => "v1.MicroTime".to_owned(),
    }
}
