//! The built-in kinds' definitions: generated data (`data/README.md`), compiled once into one shared arena.

use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, LazyLock};

use copepod_api::Gvk;
use serde_json::{Map, Value};

use super::Schema;
use super::compile::{self, Arena};

/// OpenAPI definitions by name, `$ref`s in v3 form, no descriptions.
static OPENAPI: &[u8] = include_bytes!("../../data/openapi.json.gz");
/// What Kubernetes says of types (under the empty name) and of their fields, by definition.
static DESCRIPTIONS: &[u8] = include_bytes!("../../data/descriptions.json.gz");
/// Where a definition's reference starts.
pub(crate) const REF_PREFIX: &str = "#/components/schemas/";

struct Builtin {
    arena: Arc<Arena>,
    kinds: HashMap<Gvk, Box<str>>,
}

static BUILTIN: LazyLock<Builtin> = LazyLock::new(|| {
    let definitions = definitions();
    let mut kinds = HashMap::new();
    for (name, definition) in &definitions {
        for gvk in definition.get("x-kubernetes-group-version-kind").and_then(Value::as_array).into_iter().flatten() {
            let part = |key| gvk.get(key).and_then(Value::as_str).unwrap_or_default();
            kinds.insert(Gvk::new(part("group"), part("version"), part("kind")), name.as_str().into());
        }
    }
    Builtin { arena: Arc::new(compile::definitions(&definitions)), kinds }
});

/// All definitions, parsed anew: they are needed at start and for the published documents, which callers cache.
pub(crate) fn definitions() -> Map<String, Value> {
    inflate(OPENAPI).and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default()
}

/// All definitions with what Kubernetes says of them, for the published documents. Nothing of it is kept.
pub(crate) fn described() -> Map<String, Value> {
    let mut all = definitions();
    let texts: Option<Map<String, Value>> = inflate(DESCRIPTIONS).and_then(|json| serde_json::from_slice(&json).ok());
    for (name, texts) in texts.into_iter().flatten() {
        let (Some(definition), Value::Object(texts)) = (all.get_mut(&name), texts) else { continue };
        for (field, text) in texts {
            let place = match field.as_str() {
                "" => Some(&mut *definition),
                field => definition.get_mut("properties").and_then(|fields| fields.get_mut(field)),
            };
            if let Some(place) = place.and_then(Value::as_object_mut) {
                place.insert("description".into(), text);
            }
        }
    }
    all
}

/// Unpacks embedded data.
pub(crate) fn inflate(gz: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    flate2::read::GzDecoder::new(gz).read_to_end(&mut out).ok()?;
    Some(out)
}

/// The definition name of a built-in kind, such as `io.k8s.api.apps.v1.Deployment`.
pub fn builtin_name(gvk: &Gvk) -> Option<&'static str> {
    BUILTIN.kinds.get(gvk).map(|name| &**name)
}

/// The compiled schema of a built-in kind, lists included; `None` if Kubernetes has no such kind.
pub fn builtin(gvk: &Gvk) -> Option<Arc<Schema>> {
    builtin_definition(builtin_name(gvk)?)
}

/// The compiled schema of a definition by its name, such as `io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta`.
pub fn builtin_definition(name: &str) -> Option<Arc<Schema>> {
    let root = BUILTIN.arena.by_name(name)?;
    Some(Arc::new(Schema { arena: BUILTIN.arena.clone(), root, source: None }))
}

/// The shared arena, for schemas that refer to `ObjectMeta`.
pub(crate) fn arena() -> &'static Arena {
    &BUILTIN.arena
}
