//! Objects between their stored bytes and their decoded form. Stored bytes lack `metadata.resourceVersion`; it is
//! spliced in at [`Attrs::splice`] when they are served, so that reads never decode: neither whole objects in JSON nor
//! their metadata alone, which is cut out. What is decoded nevertheless is counted, by the verb of its request.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use copepod_api::ApiError;
use copepod_core::resource::{Registry, Resource};
use copepod_store::{Attrs, Record};
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::request::Request;

/// Room for the spliced resourceVersion.
const SPLICE_ROOM: usize = 48;

/// The store's key of an object.
pub(crate) fn key(resource: &Resource, namespace: Option<&str>, name: &str) -> String {
    format!("{}{name}", prefix(resource, namespace))
}

/// The store's prefix of a resource's objects, in one namespace or all. A view has its storage resource's.
pub(crate) fn prefix(resource: &Resource, namespace: Option<&str>) -> String {
    let (group, plural) = match &resource.storage {
        Some(view) => (view.group.as_str(), &view.plural),
        None => (resource.names.group.as_str(), &resource.names.plural),
    };
    let group = if group.is_empty() { "core" } else { group };
    match namespace {
        Some(ns) if resource.namespaced() => format!("/{group}/{plural}/{ns}/"),
        _ => format!("/{group}/{plural}/"),
    }
}

/// Encodes an object for the store, with what the index knows of it.
pub(crate) fn encode(registry: &Registry, resource: &Resource, object: &Value) -> Result<(Bytes, Attrs), ApiError> {
    if let Some(view) = &resource.storage {
        let stored = resource.strategy.to_storage(object.clone());
        let home = registry
            .find(&view.group, &view.version, &view.plural)
            .ok_or_else(|| ApiError::internal(format!("no storage resource {} {}", view.group, view.plural)))?;
        return encode_plain(home, &stored);
    }
    encode_plain(resource, object)
}

fn encode_plain(resource: &Resource, object: &Value) -> Result<(Bytes, Attrs), ApiError> {
    let fields = object.as_object().ok_or_else(|| ApiError::internal("an object is not a JSON map"))?;
    let mut out = Vec::with_capacity(512);
    let json = |out: &mut Vec<u8>, v: &Value| serde_json::to_writer(out, v).map_err(ApiError::internal);
    out.extend_from_slice(b"{\"apiVersion\":");
    json(&mut out, &Value::String(resource.gvk().api_version()))?;
    out.extend_from_slice(b",\"kind\":");
    json(&mut out, &Value::String(resource.names.kind.clone()))?;
    out.extend_from_slice(b",\"metadata\":");
    let splice = u32::try_from(out.len() + 1).map_err(ApiError::internal)?;
    let mut metadata = fields.get("metadata").cloned().unwrap_or_default();
    if let Some(m) = metadata.as_object_mut() {
        m.remove("resourceVersion");
        m.retain(|_, v| !v.is_null());
    }
    json(&mut out, &metadata)?;
    for (name, value) in fields {
        if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
            out.push(b',');
            json(&mut out, &Value::String(name.clone()))?;
            out.push(b':');
            json(&mut out, value)?;
        }
    }
    out.push(b'}');
    // No spare room: the bytes stay in memory as they are.
    let bytes = Bytes::from(out.into_boxed_slice());
    Ok((bytes, Attrs { labels: labels(object), fields: selectable(resource, object), splice }))
}

/// The values that field selectors may name, besides name and namespace, which the key says.
pub(crate) fn selectable(resource: &Resource, object: &Value) -> BTreeMap<String, String> {
    resource.strategy.fields(object).into_iter().map(|(k, v)| (k.to_string(), v)).collect()
}

fn labels(object: &Value) -> BTreeMap<String, String> {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    labels.into_iter().flatten().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_string()))).collect()
}

/// A record's bytes as clients of the resource see them.
pub(crate) fn served(request: &Request, record: &Record) -> Result<Bytes, ApiError> {
    let mut out = BytesMut::with_capacity(record.value.len() + SPLICE_ROOM);
    served_into(request, record, &mut out)?;
    Ok(out.freeze())
}

/// Appends a record's bytes as clients of the resource see them. Only views decode.
pub(crate) fn served_into(request: &Request, record: &Record, out: &mut BytesMut) -> Result<(), ApiError> {
    if request.resource.storage.is_some() {
        let bytes = serde_json::to_vec(&decode(request, record)?).map_err(ApiError::internal)?;
        out.put_slice(&bytes);
        return Ok(());
    }
    let (head, tail) = record.value.split_at(splice(record));
    out.put_slice(head);
    put_revision(out, record.revision);
    out.put_slice(tail);
    Ok(())
}

/// Appends a record's `PartialObjectMetadata` in JSON. Only views decode.
pub(crate) fn metadata_into(
    request: &Request,
    version: &str,
    record: &Record,
    out: &mut BytesMut,
) -> Result<(), ApiError> {
    if request.resource.storage.is_some() {
        let partial = metadata_only(&decode(request, record)?, version);
        out.put_slice(&serde_json::to_vec(&partial).map_err(ApiError::internal)?);
        return Ok(());
    }
    // The splice is behind the brace that opens the metadata.
    let at = splice(record);
    let tail = record.value.get(at.saturating_sub(1)..).unwrap_or_default();
    let mut values = serde_json::Deserializer::from_slice(tail).into_iter::<IgnoredAny>();
    let whole = values.next().is_some_and(|v| v.is_ok());
    let metadata = tail.get(1..values.byte_offset()).filter(|_| whole);
    let metadata = metadata.ok_or_else(|| ApiError::internal(format!("{}: no metadata", record.key)))?;
    out.put_slice(b"{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/");
    out.put_slice(version.as_bytes());
    out.put_slice(b"\",\"metadata\":{");
    put_revision(out, record.revision);
    out.put_slice(metadata);
    out.put_slice(b"}");
    Ok(())
}

fn splice(record: &Record) -> usize {
    usize::try_from(record.attrs.splice).unwrap_or(usize::MAX).min(record.value.len())
}

/// Metadata is never empty: a name follows.
fn put_revision(out: &mut BytesMut, revision: u64) {
    out.put_slice(b"\"resourceVersion\":\"");
    out.put_slice(revision.to_string().as_bytes());
    out.put_slice(b"\",");
}

/// An object's `PartialObjectMetadata`.
pub(crate) fn metadata_only(object: &Value, version: &str) -> Value {
    let meta = object.get("metadata").cloned().unwrap_or_else(|| json!({}));
    json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": meta})
}

/// A record of whatever kind as it is stored.
pub(crate) fn stored(request: &Request, record: &Record) -> Result<Value, ApiError> {
    request.state.metrics.decoded(request.verb);
    serde_json::from_slice(&record.value).map_err(|e| ApiError::internal(format!("{}: {e}", record.key)))
}

/// A record decoded into the version of the request's resource, `metadata.resourceVersion` included.
pub(crate) fn decode(request: &Request, record: &Record) -> Result<Value, ApiError> {
    let resource = &request.resource;
    let mut object = stored(request, record)?;
    if resource.storage.is_some() {
        object = resource.strategy.from_storage(object);
    }
    meta_mut(&mut object).insert("resourceVersion".into(), record.revision.to_string().into());
    Ok(object)
}

/// An object's metadata, made if it is not there.
pub(crate) fn meta_mut(object: &mut Value) -> &mut Map<String, Value> {
    child_mut(as_map(object), "metadata")
}

/// A member that is a map, made if it is not one.
pub(crate) fn child_mut<'a>(map: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    as_map(map.entry(name).or_insert(Value::Null))
}

/// A value as a map, replaced by an empty one if it is something else.
pub(crate) fn as_map(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made a map above"),
    }
}

/// A string of the metadata, `""` if unset.
pub(crate) fn meta_str<'a>(object: &'a Value, name: &str) -> &'a str {
    object.get("metadata").and_then(|m| m.get(name)).and_then(Value::as_str).unwrap_or_default()
}

/// A number of the metadata.
pub(crate) fn meta_i64(object: &Value, name: &str) -> Option<i64> {
    object.get("metadata")?.get(name)?.as_i64()
}

/// Whether deletion has begun.
pub(crate) fn is_deleting(object: &Value) -> bool {
    !meta_str(object, "deletionTimestamp").is_empty()
}

/// The strings of `metadata.finalizers`.
pub(crate) fn finalizers(object: &Value) -> Vec<String> {
    let list = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|v| v.as_str().map(str::to_string)).collect()
}

/// The value at a dotted path, such as `spec.replicas`.
pub(crate) fn at_path<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.trim_start_matches('.').split('.').try_fold(object, |v, part| v.get(part))
}

/// Sets the value at a dotted path, making maps on the way.
pub(crate) fn set_path(object: &mut Value, path: &str, value: Value) {
    let mut at = object;
    for part in path.trim_start_matches('.').split('.') {
        at = as_map(at).entry(part).or_insert(Value::Null);
    }
    *at = value;
}
