//! Server-side apply on objects with any managedFields: it never fails by itself, what it notes is bounded by what went
//! in, and to apply again changes nothing. The first byte says who applies what part and how; then come the live
//! object and the configuration, divided by a tab. An object of no built-in kind has every list and map type.
#![no_main]

use std::sync::{Arc, LazyLock};

use copepod_api::Gvk;
use copepod_core::apply::{self, Config, FieldSet, Part, Writer};
use copepod_core::codec;
use copepod_core::schema::{self, Schema};
use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

/// One byte of an object makes no more than this many of managedFields: `1,` in a set becomes `"v:1":{},`, an item
/// with its keys names them again.
const MANAGED_PER_BYTE: usize = 16;
/// Bytes of an entry's names and time, for the two that an apply may add.
const ENTRIES: usize = 1024;

static TOY: LazyLock<Arc<Schema>> = LazyLock::new(|| {
    let text = || json!({"type": "string"});
    let item = json!({"type": "object", "properties": {
        "name": text(), "value": {"type": "integer"}, "list": {"type": "array", "items": text()},
        "sub": {"type": "object", "properties": {"a": text(), "b": text()}}}});
    let port = json!({"type": "object", "properties": {
        "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}, "name": text()}});
    let fields = json!({
        "replicas": {"type": "integer"},
        "list": {"type": "array", "items": text()},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": text()},
        "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": item},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
            "items": port},
        "map": {"type": "object", "additionalProperties": text()},
        "atom": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": text(), "b": text()}},
        "free": {"x-kubernetes-preserve-unknown-fields": true}});
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": fields},
        "status": {"type": "object", "properties": {"ready": {"type": "integer"}}}}});
    Schema::from_openapi("Toy", &schema).expect("the toy schema")
});

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    let mut parts = rest.splitn(2, |b| *b == b'\t');
    let (Some(Ok(live)), Some(Ok(sent))) =
        (parts.next().map(codec::json::decode), parts.next().map(codec::json::decode))
    else {
        return;
    };
    let (live, sent) = (live.value, sent.value);
    let text = |field: &str| sent.get(field).and_then(Value::as_str).unwrap_or_default();
    let schema = schema::builtin(&Gvk::from_api_version(text("apiVersion"), text("kind")));
    let schema = schema.unwrap_or_else(|| TOY.clone());
    run(*choice, &schema, live, sent);
});

fn run(choice: u8, schema: &Schema, mut live: Value, sent: Value) {
    let force = choice & 1 != 0;
    let name = if choice & 2 != 0 { "kubectl" } else { "fuzz" };
    let part = [Part::Whole, Part::Main, Part::Status][usize::from(choice >> 2 & 3) % 3];
    let given = size(&live) + size(&sent);
    let api_version = sent.get("apiVersion").and_then(Value::as_str).unwrap_or("v1").to_owned();
    let writer = |second| {
        let time = Timestamp::from_second(second).expect("a time");
        Writer { name, api_version: &api_version, subresource: "", time }
    };

    let meta = live.get_mut("metadata").and_then(Value::as_object_mut);
    let managed = meta.and_then(|meta| meta.remove("managedFields"));
    managed.iter().filter_map(Value::as_array).flatten().for_each(check_set);
    // There is none yet, or it is as the server has decoded it.
    let live = (!live.is_null()).then_some(live);
    let live = match live.map(|mut live| schema.decode(&mut live).map(|_| live)).transpose() {
        Ok(live) if live.as_ref().is_none_or(Value::is_object) => live,
        _ => return,
    };
    let Ok(config) = Config::decode(schema, sent, part) else { return };
    let Ok(once) = apply::apply(schema, live.as_ref(), managed.clone(), &config, &writer(1), force) else { return };
    let notes = once.managed.as_ref().map_or(0, size);
    assert!(notes <= MANAGED_PER_BYTE * given + ENTRIES, "{notes} bytes of managedFields from {given}");

    // Who applies to an object without managers finds those from before; there are none as long as nobody owns anything.
    if once.managed.is_none() {
        return;
    }
    let twice = apply::apply(schema, Some(&once.object), once.managed.clone(), &config, &writer(2), false);
    assert_eq!(twice.as_ref(), Ok(&once), "applied again");

    let had = apply::given_or_had(once.managed.clone(), managed.as_ref());
    let tracked = apply::track(schema, live.as_ref(), &once.object, had, &writer(3));
    let notes = tracked.as_ref().map_or(0, size);
    assert!(notes <= 2 * (MANAGED_PER_BYTE * given + ENTRIES), "{notes} bytes of managedFields from {given}");
}

/// A set that can be parsed is the same once it is printed and parsed again.
fn check_set(entry: &Value) {
    if let Ok(set) = FieldSet::from_fields_v1(&entry["fieldsV1"]) {
        assert_eq!(FieldSet::from_fields_v1(&set.to_fields_v1()).as_ref(), Ok(&set));
    }
}

fn size(value: &Value) -> usize {
    value.to_string().len()
}
