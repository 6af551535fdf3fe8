//! From JSON to messages.

use std::collections::HashMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value as Field};
use serde_json::{Map, Value};

use super::facts::{Facts, Special};
use crate::codec::CodecError;
use crate::schema::MAX_DEPTH;

/// Converts an object; fields that the message does not have are left out.
pub(super) fn message(
    descriptor: &MessageDescriptor,
    value: &Value,
    depth: usize,
) -> Result<DynamicMessage, CodecError> {
    if depth > MAX_DEPTH {
        return Err(CodecError::Malformed(format!("exceeded max depth of {MAX_DEPTH}")));
    }
    let mut message = DynamicMessage::new(descriptor.clone());
    if let Some(special) = Special::of(descriptor) {
        fill_special(special, &mut message, value, depth)?;
        return Ok(message);
    }
    let Value::Object(object) = value else { return Err(mismatch(descriptor.name(), value)) };
    fill(&mut message, object, depth)?;
    Ok(message)
}

fn fill(message: &mut DynamicMessage, object: &Map<String, Value>, depth: usize) -> Result<(), CodecError> {
    let descriptor = message.descriptor();
    let facts = Facts::of(&descriptor);
    for field in descriptor.fields() {
        let fact = facts.field(&field);
        if fact.inline.is_some() {
            if let Kind::Message(inner) = field.kind() {
                let mut inner = DynamicMessage::new(inner);
                fill(&mut inner, object, depth + 1)?;
                message.set_field(&field, Field::Message(inner));
            }
            continue;
        }
        let name = fact.name.as_deref().unwrap_or_else(|| field.name());
        match object.get(name) {
            None | Some(Value::Null) => {}
            Some(value) => {
                let value = field_value(&field, value, depth + 1)?;
                message.try_set_field(&field, value).map_err(|e| CodecError::Malformed(e.to_string()))?;
            }
        }
    }
    Ok(())
}

fn field_value(field: &FieldDescriptor, value: &Value, depth: usize) -> Result<Field, CodecError> {
    if field.is_map() {
        let Value::Object(object) = value else { return Err(mismatch(field.name(), value)) };
        let Kind::Message(entry) = field.kind() else { return Err(mismatch(field.name(), value)) };
        let kind = entry.map_entry_value_field().kind();
        let mut entries = HashMap::with_capacity(object.len());
        for (key, value) in object {
            entries.insert(MapKey::String(key.clone()), scalar(&kind, field.name(), value, depth)?);
        }
        return Ok(Field::Map(entries));
    }
    if field.is_list() {
        let Value::Array(items) = value else { return Err(mismatch(field.name(), value)) };
        let kind = field.kind();
        let items = items.iter().map(|v| scalar(&kind, field.name(), v, depth)).collect::<Result<_, _>>()?;
        return Ok(Field::List(items));
    }
    scalar(&field.kind(), field.name(), value, depth)
}

fn scalar(kind: &Kind, name: &str, value: &Value, depth: usize) -> Result<Field, CodecError> {
    let wrong = || mismatch(name, value);
    let int = || value.as_i64().ok_or_else(wrong);
    Ok(match kind {
        Kind::Bool => Field::Bool(value.as_bool().ok_or_else(wrong)?),
        Kind::String => Field::String(value.as_str().ok_or_else(wrong)?.to_owned()),
        Kind::Bytes => {
            let text = value.as_str().ok_or_else(wrong)?;
            Field::Bytes(STANDARD.decode(text).map_err(|_| wrong())?.into())
        }
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Field::I32(i32::try_from(int()?).map_err(|_| wrong())?),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Field::I64(int()?),
        Kind::Uint32 | Kind::Fixed32 => Field::U32(u32::try_from(int()?).map_err(|_| wrong())?),
        Kind::Uint64 | Kind::Fixed64 => Field::U64(value.as_u64().ok_or_else(wrong)?),
        #[allow(clippy::cast_possible_truncation)]
        Kind::Float => Field::F32(value.as_f64().ok_or_else(wrong)? as f32),
        Kind::Double => Field::F64(value.as_f64().ok_or_else(wrong)?),
        Kind::Message(descriptor) => Field::Message(message(descriptor, value, depth)?),
        Kind::Enum(_) => Field::EnumNumber(i32::try_from(int()?).map_err(|_| wrong())?),
    })
}

fn mismatch(name: &str, value: &Value) -> CodecError {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    CodecError::Malformed(format!("cannot encode {found} as {name}"))
}

fn fill_special(special: Special, message: &mut DynamicMessage, value: &Value, depth: usize) -> Result<(), CodecError> {
    let wrong = || mismatch(message.descriptor().name(), value);
    let mut fields = Vec::new();
    match special {
        // Go's zero time.
        Special::Time | Special::MicroTime if value.is_null() => {}
        Special::Time | Special::MicroTime => {
            let stamp: Timestamp = value.as_str().and_then(|s| s.parse().ok()).ok_or_else(wrong)?;
            fields.push(("seconds", Field::I64(stamp.as_second())));
            let nanos = if special == Special::Time { 0 } else { stamp.subsec_nanosecond() };
            fields.push(("nanos", Field::I32(nanos)));
        }
        Special::Duration => {
            let span: jiff::SignedDuration = value.as_str().and_then(|s| s.parse().ok()).ok_or_else(wrong)?;
            fields.push(("duration", Field::I64(i64::try_from(span.as_nanos()).map_err(|_| wrong())?)));
        }
        Special::Quantity => {
            fields.push(("string", Field::String(value.as_str().map_or_else(|| value.to_string(), str::to_owned))));
        }
        Special::IntOrString => {
            let text = value.as_str();
            let number = if text.is_some() { Some(0) } else { value.as_i64().and_then(|n| i32::try_from(n).ok()) };
            fields.push(("type", Field::I64(i64::from(text.is_some()))));
            fields.push(("intVal", Field::I32(number.ok_or_else(wrong)?)));
            fields.push(("strVal", Field::String(text.unwrap_or_default().to_owned())));
        }
        Special::Raw => {
            let raw = Field::Bytes(value.to_string().into());
            let capital = message.descriptor().get_field_by_name("Raw").is_some();
            fields.push((if capital { "Raw" } else { "raw" }, raw));
        }
        Special::List => {
            if let Some(items) = message.descriptor().get_field_by_name("items") {
                fields.push(("items", field_value(&items, value, depth)?));
            }
        }
        Special::SchemaOr(other) => {
            let name = if value.is_object() { "schema" } else { other };
            let field = message.descriptor().get_field_by_name(name).ok_or_else(wrong)?;
            if name == "schema" && other == "allows" {
                fields.push((other, Field::Bool(true)));
            }
            fields.push((name, field_value(&field, value, depth)?));
        }
    }
    for (name, value) in fields {
        message.try_set_field_by_name(name, value).map_err(|e| CodecError::Malformed(e.to_string()))?;
    }
    Ok(())
}
