//! JSON with a report of duplicate fields.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{CodecError, Decoded, MAX_DUPLICATES};

/// Decodes JSON. Nesting is bounded by the parser (128).
///
/// # Errors
/// [`CodecError::Malformed`] with line and column.
pub fn decode(bytes: &[u8]) -> Result<Decoded, CodecError> {
    let mut builder = Builder::default();
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let malformed = |e: serde_json::Error| CodecError::Malformed(format!("invalid JSON: {e}"));
    let value = Place(&mut builder).deserialize(&mut deserializer).map_err(malformed)?;
    deserializer.end().map_err(malformed)?;
    Ok(Decoded { value, duplicate_fields: builder.duplicates })
}

/// The path of the place being read, and what was found twice.
#[derive(Default)]
struct Builder {
    path: String,
    duplicates: Vec<String>,
}

/// Reads one value.
struct Place<'a>(&'a mut Builder);

impl<'de> DeserializeSeed<'de> for Place<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Place<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E: Error>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E: Error>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E: Error>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("number is not finite"))
    }
    fn visit_str<E: Error>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_string<E: Error>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        let length = self.0.path.len();
        loop {
            self.0.path.push_str(&format!("[{}]", items.len()));
            let item = seq.next_element_seed(Place(self.0))?;
            self.0.path.truncate(length);
            match item {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        let length = self.0.path.len();
        while let Some(key) = map.next_key::<String>()? {
            if length > 0 {
                self.0.path.push('.');
            }
            self.0.path.push_str(&key);
            if object.contains_key(&key) && self.0.duplicates.len() < MAX_DUPLICATES {
                let line = format!("duplicate field \"{}\"", self.0.path);
                self.0.duplicates.push(line);
            }
            let value = map.next_value_seed(Place(self.0))?;
            self.0.path.truncate(length);
            object.insert(key, value);
        }
        Ok(Value::Object(object))
    }
}
