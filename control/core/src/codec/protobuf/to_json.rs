//! From messages to the JSON that Go's types print.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use prost_reflect::{DynamicMessage, FieldDescriptor, MapKey, ReflectMessage, Value as Field};
use serde_json::{Map, Number, Value};

use super::facts::{Fact, Facts, Special};
use crate::codec::CodecError;
use crate::schema::print_time;

/// Converts a message. The parser bounded its depth.
pub(super) fn message(message: &DynamicMessage) -> Result<Value, CodecError> {
    let descriptor = message.descriptor();
    if let Some(special) = Special::of(&descriptor) {
        return special_value(special, message);
    }
    let mut object = Map::new();
    fields(message, &mut object)?;
    Ok(Value::Object(object))
}

fn fields(message: &DynamicMessage, object: &mut Map<String, Value>) -> Result<(), CodecError> {
    let facts = Facts::of(&message.descriptor());
    for field in message.descriptor().fields() {
        let fact = facts.field(&field);
        if !message.has_field(&field) {
            continue;
        }
        let value = message.get_field(&field);
        if fact.inline.is_some() {
            if let Some(inner) = value.as_message() {
                fields(inner, object)?;
            }
            continue;
        }
        let value = self::value(&value)?;
        if !omitted(&field, fact, &value) {
            let name = fact.name.as_deref().unwrap_or_else(|| field.name());
            object.insert(name.to_owned(), value);
        }
    }
    Ok(())
}

/// Whether Go leaves a value out.
fn omitted(field: &FieldDescriptor, fact: &Fact, value: &Value) -> bool {
    match value {
        // Zero times, which Go prints as null or not at all.
        Value::Null => true,
        Value::Object(o) if o.is_empty() && !field.is_map() => fact.omit_zero && !fact.pointer,
        Value::Array(a) if a.is_empty() => !fact.keep,
        Value::Object(o) if o.is_empty() => true,
        _ if fact.pointer || fact.keep => false,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0) && field.kind().as_message().is_none(),
        Value::String(s) => s.is_empty(),
        _ => false,
    }
}

fn value(field: &Field) -> Result<Value, CodecError> {
    Ok(match field {
        Field::Bool(b) => Value::Bool(*b),
        Field::I32(n) | Field::EnumNumber(n) => (*n).into(),
        Field::I64(n) => (*n).into(),
        Field::U32(n) => (*n).into(),
        Field::U64(n) => (*n).into(),
        Field::F32(n) => float(f64::from(*n))?,
        Field::F64(n) => float(*n)?,
        Field::String(s) => Value::String(s.clone()),
        Field::Bytes(b) => Value::String(STANDARD.encode(b)),
        Field::Message(m) => message(m)?,
        Field::List(items) => Value::Array(items.iter().map(value).collect::<Result<_, _>>()?),
        Field::Map(entries) => {
            let mut object = Map::new();
            for (key, item) in entries {
                let key = match key {
                    MapKey::String(s) => s.clone(),
                    MapKey::Bool(b) => b.to_string(),
                    MapKey::I32(n) => n.to_string(),
                    MapKey::I64(n) => n.to_string(),
                    MapKey::U32(n) => n.to_string(),
                    MapKey::U64(n) => n.to_string(),
                };
                object.insert(key, value(item)?);
            }
            Value::Object(object)
        }
    })
}

fn float(n: f64) -> Result<Value, CodecError> {
    Number::from_f64(n).map(Value::Number).ok_or_else(|| malformed("a number is not finite"))
}

fn malformed(what: &str) -> CodecError {
    CodecError::Malformed(format!("invalid protobuf: {what}"))
}

fn special_value(special: Special, message: &DynamicMessage) -> Result<Value, CodecError> {
    let int = |name: &str| {
        message.get_field_by_name(name).and_then(|v| v.as_i64().or_else(|| v.as_i32().map(i64::from))).unwrap_or(0)
    };
    let text =
        |name: &str| message.get_field_by_name(name).and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
    Ok(match special {
        Special::Time | Special::MicroTime => {
            let (seconds, nanos) = (int("seconds"), int("nanos"));
            if seconds == 0 && nanos == 0 {
                return Ok(Value::Null);
            }
            let nanos = i32::try_from(nanos).unwrap_or_default();
            let stamp = Timestamp::new(seconds, nanos).map_err(|_| malformed("a time is out of range"))?;
            Value::String(print_time(stamp, special == Special::MicroTime))
        }
        Special::Duration => Value::String(go_duration(int("duration"))),
        Special::Quantity => {
            let text = text("string");
            Value::String(if text.is_empty() { "0".to_owned() } else { text })
        }
        Special::IntOrString if int("type") == 1 => Value::String(text("strVal")),
        Special::IntOrString => int("intVal").into(),
        Special::Raw => {
            let raw = message.get_field_by_name("raw").or_else(|| message.get_field_by_name("Raw"));
            match raw.as_deref().and_then(Field::as_bytes) {
                Some(raw) if !raw.is_empty() => {
                    serde_json::from_slice(raw).map_err(|e| malformed(&format!("a raw object is not JSON: {e}")))?
                }
                _ => Value::Null,
            }
        }
        Special::List => match message.get_field_by_name("items") {
            Some(items) => value(&items)?,
            None => Value::Array(Vec::new()),
        },
        Special::SchemaOr(_) if message.has_field_by_name("schema") => {
            message.get_field_by_name("schema").map_or(Ok(Value::Null), |schema| value(&schema))?
        }
        Special::SchemaOr(other) => message.get_field_by_name(other).map_or(Ok(Value::Null), |v| value(&v))?,
    })
}

/// Go's text of a duration in nanoseconds: `1m0s`, `1.5s`, `250ms`.
fn go_duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let n = nanos.unsigned_abs();
    let fraction = |n: u64, unit: u64| {
        let rest = n % unit;
        let digits = unit.ilog10() as usize;
        let tail = format!("{rest:0digits$}");
        let tail = tail.trim_end_matches('0');
        if tail.is_empty() { (n / unit).to_string() } else { format!("{}.{tail}", n / unit) }
    };
    let text = match n {
        0 => return "0s".to_owned(),
        n if n < 1_000 => format!("{n}ns"),
        n if n < 1_000_000 => format!("{}µs", fraction(n, 1_000)),
        n if n < 1_000_000_000 => format!("{}ms", fraction(n, 1_000_000)),
        n => {
            let minutes = n / 60_000_000_000;
            let seconds = fraction(n % 60_000_000_000, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, m) => format!("{m}m{seconds}s"),
                (h, m) => format!("{h}h{m}m{seconds}s"),
            }
        }
    };
    format!("{sign}{text}")
}
