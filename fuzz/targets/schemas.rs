//! Objects of built-in kinds and of schemas that clients give: to decode or to default twice is to do it once, what is
//! valid has a protobuf form. An object, or an object and an OpenAPI schema divided by a tab.
#![no_main]

use std::sync::LazyLock;

use copepod_core::codec;
use copepod_core::resource::{Registry, Resource};
use copepod_core::schema::Schema;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

static KINDS: LazyLock<Registry> = LazyLock::new(copepod_core::kinds::builtin);

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(2, |b| *b == b'\t');
    let Some(Ok(object)) = parts.next().map(codec::json::decode) else { return };
    let object = object.value;
    match parts.next().map(codec::json::decode) {
        Some(Ok(openapi)) => {
            if let Ok(schema) = Schema::from_openapi("Fuzz", &openapi.value) {
                decode_twice(&schema, object);
            }
        }
        Some(Err(_)) => {}
        None => {
            let named = |r: &&std::sync::Arc<Resource>| {
                object["kind"] == *r.names.kind && object["apiVersion"] == *r.gvk().api_version()
            };
            if let Some(resource) = KINDS.all().iter().find(named) {
                create(resource, object);
            }
        }
    }
});

fn decode_twice(schema: &Schema, mut object: Value) {
    if schema.decode(&mut object).is_ok() {
        let mut again = object.clone();
        let decoded = schema.decode(&mut again).expect("decodes again");
        assert!(decoded.unknown.is_empty());
        assert_eq!(object, again);
    }
}

/// What the server does with a new object of a built-in kind.
fn create(resource: &Resource, mut object: Value) {
    decode_twice(&resource.schema, object.clone());
    if resource.schema.decode(&mut object).is_err() || !object.is_object() {
        return;
    }
    let strategy = &resource.strategy;
    strategy.default(&mut object);
    let mut again = object.clone();
    strategy.default(&mut again);
    assert_eq!(again, object, "defaults");
    strategy.prepare_create(&mut object);
    let _ = strategy.cells(&object, 0);
    let _ = strategy.fields(&object);
    if strategy.validate(&object).is_empty() {
        let mut again = object.clone();
        strategy.prepare_update(&mut again, &object);
        let _ = strategy.validate_update(&again, &object);
        if codec::protobuf::supports(&resource.gvk()) {
            codec::encode_protobuf(&object).expect("a valid object has a protobuf form");
        }
    }
}
