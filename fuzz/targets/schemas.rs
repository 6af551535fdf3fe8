//! Objects against built-in schemas, and schemas given by clients: decoding twice changes nothing more.
#![no_main]

use std::sync::LazyLock;

use copepod_core::codec;
use copepod_core::resource::Registry;
use copepod_core::schema::Schema;
use libfuzzer_sys::fuzz_target;

static KINDS: LazyLock<Registry> = LazyLock::new(copepod_core::kinds::builtin);

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    let mut parts = rest.splitn(2, |b| *b == 0);
    let Some(Ok(object)) = parts.next().map(codec::json::decode) else { return };
    match parts.next().map(codec::json::decode) {
        Some(Ok(openapi)) => {
            if let Ok(schema) = Schema::from_openapi("Fuzz", &openapi.value) {
                twice(&schema, object.value);
            }
        }
        _ => {
            let all = KINDS.all();
            let resource = &all[usize::from(*choice) % all.len()];
            twice(&resource.schema, object.value.clone());
            let mut defaulted = object.value;
            if resource.schema.decode(&mut defaulted).is_ok() && defaulted.is_object() {
                resource.strategy.default(&mut defaulted);
                resource.strategy.prepare_create(&mut defaulted);
                let _ = resource.strategy.validate(&defaulted);
                let _ = resource.strategy.cells(&defaulted, 0);
            }
        }
    }
});

fn twice(schema: &Schema, mut object: serde_json::Value) {
    if schema.decode(&mut object).is_ok() {
        let mut again = object.clone();
        let decoded = schema.decode(&mut again).expect("decodes again");
        assert!(decoded.unknown.is_empty());
        assert_eq!(object, again);
    }
}
