//! The published OpenAPI documents: v3 for each group version, its index, and v2. Pure and not cached: the server
//! keeps the results until the registry changes.

mod gnostic;
mod paths;

use std::collections::BTreeSet;

use copepod_api::Gvk;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::builtin::{REF_PREFIX, builtin_name, described};
use crate::resource::{Registry, Resource};
pub use gnostic::v2_protobuf;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// What documents say of the API as a whole.
fn info() -> Value {
    json!({"title": "Kubernetes", "version": "v1.36"})
}

/// The OpenAPI v3 document of one group version: schemas of everything that its resources refer to, and their paths.
/// `None` if nothing is served there.
pub fn group_version_document(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    Publisher::new(registry).v3(group, version)
}

/// The answer to `/openapi/v3`: each group version's path with the hash of its document.
pub fn index(registry: &Registry) -> Value {
    let publisher = Publisher::new(registry);
    let mut served = Map::new();
    for (group, version) in publisher.group_versions() {
        if let Some(document) = publisher.v3(group, version) {
            let path = root_path(group, version);
            let url = format!("/openapi/v3/{path}?hash={}", hash(document.to_string().as_bytes()));
            served.insert(path, json!({"serverRelativeURL": url}));
        }
    }
    json!({"paths": served})
}

/// The hash of a document as the index gives it: upper-case hexadecimal SHA-256 of its bytes (compact JSON).
pub fn hash(document: &[u8]) -> String {
    Sha256::digest(document).iter().map(|byte| format!("{byte:02X}")).collect()
}

/// The OpenAPI v2 (swagger) document of everything served.
pub fn v2(registry: &Registry) -> Value {
    let publisher = Publisher::new(registry);
    let resources: Vec<&Resource> = registry.all().iter().map(AsRef::as_ref).collect();
    let mut schemas = publisher.schemas(&resources);
    drop(publisher);
    // Version 2 knows no oneOf.
    if let Some(quantity) = schemas.get_mut("io.k8s.apimachinery.pkg.api.resource.Quantity") {
        *quantity = json!({"type": "string"});
    }
    if let Some(either) = schemas.get_mut("io.k8s.apimachinery.pkg.util.intstr.IntOrString") {
        *either = json!({"type": "string", "format": "int-or-string"});
    }
    let mut document = json!({
        "swagger": "2.0",
        "info": info(),
        "paths": paths::v2(&resources),
        "definitions": schemas,
    });
    rewrite_refs(&mut document);
    document
}

/// `api/v1` or `apis/apps/v1`.
fn root_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The name of a resource's schema: upstream's for built-in kinds, `com.example.v1.Widget` for others.
fn schema_name(resource: &Resource) -> String {
    let gvk = resource.gvk();
    match builtin_name(&gvk) {
        Some(name) if resource.schema.source().is_none() => name.to_owned(),
        _ => {
            let group: Vec<&str> = gvk.group.rsplit('.').collect();
            format!("{}.{}.{}", group.join("."), gvk.version, gvk.kind)
        }
    }
}

struct Publisher<'a> {
    registry: &'a Registry,
    definitions: Map<String, Value>,
}

impl<'a> Publisher<'a> {
    fn new(registry: &'a Registry) -> Self {
        Self { registry, definitions: described() }
    }

    fn group_versions(&self) -> BTreeSet<(&'a str, &'a str)> {
        self.registry.all().iter().map(|r| (r.names.group.as_str(), r.names.version.as_str())).collect()
    }

    fn v3(&self, group: &str, version: &str) -> Option<Value> {
        let resources: Vec<&Resource> = self
            .registry
            .all()
            .iter()
            .filter(|r| r.names.group == group && r.names.version == version)
            .map(AsRef::as_ref)
            .collect();
        if resources.is_empty() {
            return None;
        }
        let mut schemas = Value::Object(self.schemas(&resources));
        wrap_refs(&mut schemas);
        Some(json!({
            "openapi": "3.0.0",
            "info": info(),
            "paths": paths::v3(&resources),
            "components": {"schemas": schemas},
        }))
    }

    /// The schemas of resources and of all that they refer to.
    fn schemas(&self, resources: &[&Resource]) -> Map<String, Value> {
        let mut out = Map::new();
        let mut wanted: Vec<String> =
            ["DeleteOptions", "Patch", "Status"].map(|kind| format!("{META}.{kind}")).to_vec();
        for resource in resources {
            if resource.subresources.scale.is_some() {
                wanted.extend(builtin_name(&scale()).map(str::to_owned));
            }
            let name = schema_name(resource);
            if resource.schema.source().is_some() {
                let schema = custom_schema(resource);
                references(&schema, &mut wanted);
                out.insert(name.clone(), schema);
            } else {
                wanted.push(name.clone());
            }
            if !resource.serves("list") {
                continue;
            }
            let list = format!("{name}List");
            if self.definitions.contains_key(&list) {
                wanted.push(list);
            } else {
                let schema = list_schema(resource, &name);
                references(&schema, &mut wanted);
                out.insert(list, schema);
            }
        }
        while let Some(name) = wanted.pop() {
            if out.contains_key(&name) {
                continue;
            }
            if let Some(schema) = self.definitions.get(&name) {
                references(schema, &mut wanted);
                out.insert(name, schema.clone());
            }
        }
        out
    }
}

fn scale() -> Gvk {
    Gvk::new("autoscaling", "v1", "Scale")
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("{REF_PREFIX}{name}")})
}

/// Extension `x-kubernetes-group-version-kind` of one kind.
fn gvk_extension(gvk: &Gvk) -> Value {
    json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind})
}

/// A schema given at run time, with what every object has.
fn custom_schema(resource: &Resource) -> Value {
    let mut schema = resource.schema.source().cloned().unwrap_or_default();
    if let Some(object) = schema.as_object_mut() {
        object.insert("type".to_owned(), "object".into());
        object.insert("x-kubernetes-group-version-kind".to_owned(), json!([gvk_extension(&resource.gvk())]));
        let properties = object.entry("properties").or_insert_with(|| json!({}));
        if let Some(properties) = properties.as_object_mut() {
            properties.insert("apiVersion".to_owned(), json!({"type": "string"}));
            properties.insert("kind".to_owned(), json!({"type": "string"}));
            properties.insert("metadata".to_owned(), reference(&format!("{META}.ObjectMeta")));
        }
    }
    schema
}

fn list_schema(resource: &Resource, name: &str) -> Value {
    let mut gvk = resource.gvk();
    gvk.kind.push_str("List");
    json!({
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": reference(&format!("{META}.ListMeta")),
            "items": {"type": "array", "items": reference(name)},
        },
        "x-kubernetes-group-version-kind": [gvk_extension(&gvk)],
    })
}

/// Collects the names that a schema refers to. Schemas' depth was bounded when they were compiled.
fn references(schema: &Value, names: &mut Vec<String>) {
    match schema {
        Value::Object(object) => {
            for (key, value) in object {
                match value.as_str().and_then(|v| v.strip_prefix(REF_PREFIX)) {
                    Some(name) if key == "$ref" => names.push(name.to_owned()),
                    _ => references(value, names),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, names)),
        _ => {}
    }
}

/// A v3 reference stands alone: what else is said of the place stands beside an `allOf` of it.
fn wrap_refs(value: &mut Value) {
    match value {
        Value::Object(object) => {
            // A property may have that name, too; it is no string.
            if object.len() > 1 && object.get("$ref").is_some_and(Value::is_string) {
                let reference = object.remove("$ref");
                object.insert("allOf".to_owned(), json!([{"$ref": reference}]));
            }
            object.values_mut().for_each(wrap_refs);
        }
        Value::Array(items) => items.iter_mut().for_each(wrap_refs),
        _ => {}
    }
}

/// From v3 references to v2 ones.
fn rewrite_refs(value: &mut Value) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(to) if key == "$ref" => *to = to.replace(REF_PREFIX, "#/definitions/"),
                    _ => rewrite_refs(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(rewrite_refs),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
