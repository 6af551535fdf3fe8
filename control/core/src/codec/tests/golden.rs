//! Every built-in kind against the objects that upstream checks its own codecs with (`data/README.md`).

use std::collections::BTreeMap;

use base64::prelude::{BASE64_STANDARD, Engine as _};

use super::*;
use crate::kinds;

static OBJECTS: &[u8] = include_bytes!("../../../data/golden-objects.json.gz");

/// Kinds whose golden object leaves fields unset: Go writes those too, as zeros, which read the same.
const WITH_UNSET_FIELDS: [&str; 1] = ["apiextensions.k8s.io.v1.CustomResourceDefinition"];
/// Upstream has no golden object of these.
const WITHOUT: [&str; 1] = ["apiregistration.k8s.io.v1.APIService"];

#[derive(serde::Deserialize)]
struct Golden {
    json: Value,
    yaml: String,
    protobuf: String,
}

fn golden() -> BTreeMap<String, Golden> {
    serde_json::from_slice(&schema::inflate(OBJECTS).unwrap()).unwrap()
}

#[test]
fn every_kind_reads_and_writes_what_upstream_does() {
    let golden = golden();
    let mut wrong = Vec::new();
    // Those with a schema of their own are not of the generated data.
    for resource in kinds::builtin().all().iter().filter(|r| r.schema.source().is_none()) {
        let gvk = resource.gvk();
        let group = if gvk.group.is_empty() { "core" } else { &gvk.group };
        let name = format!("{group}.{}.{}", gvk.version, gvk.kind);
        if WITHOUT.contains(&name.as_str()) {
            continue;
        }
        let Golden { json, yaml, protobuf } = golden.get(&name).unwrap_or_else(|| panic!("no golden {name}"));
        let protobuf = BASE64_STANDARD.decode(protobuf).unwrap();
        if &decode(YAML, yaml.as_bytes(), None).unwrap().value != json {
            wrong.push(format!("{name}: YAML"));
        }
        match decode(PROTOBUF, &protobuf, None) {
            Ok(decoded) if &decoded.value == json => {}
            Ok(decoded) => wrong.push(format!("{name}: from protobuf: {}", difference("", json, &decoded.value))),
            Err(e) => wrong.push(format!("{name}: from protobuf: {e}")),
        }
        match encode_protobuf(json) {
            Ok(body) if body == protobuf => {}
            Ok(body) if WITH_UNSET_FIELDS.contains(&name.as_str()) => {
                assert_eq!(&decode(PROTOBUF, &body, None).unwrap().value, json);
            }
            Ok(body) => wrong.push(format!("{name}: to protobuf: {} bytes, not {}", body.len(), protobuf.len())),
            Err(e) => wrong.push(format!("{name}: to protobuf: {e}")),
        }
        match schema::builtin(&gvk).unwrap().decode(&mut json.clone()) {
            Ok(decoded) if decoded.unknown.is_empty() => {}
            Ok(decoded) => wrong.push(format!("{name}: unknown fields {:?}", decoded.unknown)),
            Err(e) => wrong.push(format!("{name}: schema: {e:?}")),
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// The first place where two values differ.
fn difference(path: &str, a: &Value, b: &Value) -> String {
    match (a, b) {
        (Value::Object(x), Value::Object(y)) => {
            let keys = x.keys().chain(y.keys().filter(|k| !x.contains_key(*k)));
            let parts = keys.map(|k| (k, x.get(k).unwrap_or(&Value::Null), y.get(k).unwrap_or(&Value::Null)));
            let differing = parts.filter(|(_, a, b)| a != b).map(|(k, a, b)| difference(&format!("{path}.{k}"), a, b));
            differing.collect::<Vec<_>>().join("; ")
        }
        (Value::Array(x), Value::Array(y)) if x.len() == y.len() => x
            .iter()
            .zip(y)
            .enumerate()
            .filter(|(_, (a, b))| a != b)
            .map(|(i, (a, b))| difference(&format!("{path}[{i}]"), a, b))
            .collect::<Vec<_>>()
            .join("; "),
        _ => format!("{path}: {a} is {b}"),
    }
}
