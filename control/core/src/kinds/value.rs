//! Reading and defaulting decoded objects. A value of the wrong type reads as absent: types are the schema's business.

use serde_json::{Map, Value};

/// The string at a JSON pointer, or `""`.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The integer at a JSON pointer.
pub(crate) fn int(value: &Value, pointer: &str) -> Option<i64> {
    value.pointer(pointer).and_then(Value::as_i64)
}

/// Whether the value at a JSON pointer is `true`.
pub(crate) fn flag(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).and_then(Value::as_bool).unwrap_or_default()
}

/// The list at a JSON pointer, or an empty one.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The strings of the list at a JSON pointer.
pub(crate) fn strings<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a str> {
    list(value, pointer).iter().filter_map(Value::as_str)
}

/// The entries of the object at a JSON pointer.
pub(crate) fn entries<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value.pointer(pointer).and_then(Value::as_object).into_iter().flatten()
}

/// Whether a pointer leads to something other than null.
pub(crate) fn has(value: &Value, pointer: &str) -> bool {
    value.pointer(pointer).is_some_and(|v| !v.is_null())
}

/// Sets `key` of an object where it is absent or null. Does nothing to other types.
pub(crate) fn set_default(object: &mut Value, key: &str, default: impl Into<Value>) {
    if let Some(map) = object.as_object_mut() {
        let slot = map.entry(key).or_insert(Value::Null);
        if slot.is_null() {
            *slot = default.into();
        }
    }
}

/// As [`set_default`], also over an empty string or 0: Go's zero values.
pub(crate) fn set_default_nonzero(object: &mut Value, key: &str, default: impl Into<Value>) {
    if object.get(key).is_some_and(|v| *v == "" || *v == 0)
        && let Some(map) = object.as_object_mut()
    {
        map.remove(key);
    }
    set_default(object, key, default);
}

/// Sets `key` of an object, making the value an object if it is null.
pub(crate) fn set(object: &mut Value, key: &str, value: impl Into<Value>) {
    if object.is_null() {
        *object = Value::Object(Map::new());
    }
    if let Some(map) = object.as_object_mut() {
        map.insert(key.to_string(), value.into());
    }
}

/// Removes `key` from the object at `pointer`.
pub(crate) fn remove(value: &mut Value, pointer: &str, key: &str) -> Option<Value> {
    value.pointer_mut(pointer).and_then(Value::as_object_mut).and_then(|m| m.remove(key))
}

/// The value under `key`, made an empty object where it is absent or null. `None` if `object` is no object.
pub(crate) fn child<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    set_default(object, key, Value::Object(Map::new()));
    object.get_mut(key)
}

/// The items of the list under a pointer, to be changed.
pub(crate) fn items_mut<'a>(value: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Value> {
    value.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Adds a finalizer to an object's metadata, unless it is there.
pub(crate) fn add_finalizer(object: &mut Value, finalizer: &str) {
    let Some(metadata) = child(object, "metadata") else { return };
    set_default(metadata, "finalizers", Value::Array(Vec::new()));
    if !strings(metadata, "/finalizers").any(|f| f == finalizer)
        && let Some(list) = metadata.get_mut("finalizers").and_then(Value::as_array_mut)
    {
        list.push(finalizer.into());
    }
}
