//! Create: one pipeline for every kind, in upstream's order: decode, default, admit, prepare, validate, check, commit.

use axum::response::Response;
use copepod_api::{ApiError, FieldError};
use copepod_core::validate::{object_meta, standard_finalizers};
use copepod_store::{Expect, StoreError};
use rand::Rng;
use serde_json::{Value, json};

use super::admission::{Operation, Review};
use super::object::{meta_mut, meta_str};
use super::present::{self, Outcome};
use super::request::Request;
use super::update::Part;
use super::{body, error, managers};

/// How often a create with `generateName` draws another name when the drawn one exists.
const GENERATE_NAME_TRIES: usize = 8;
/// Characters of generated suffixes: no vowels, nothing that looks alike (upstream's set).
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Length of generated suffixes.
const SUFFIX_LENGTH: usize = 5;
/// Names are cut to this length before the suffix.
const MAX_GENERATED_NAME: usize = 63;

/// POST of an object to a collection.
pub(crate) async fn create(request: &Request) -> Result<Response, ApiError> {
    let object = body::decode(request)?;
    let outcome = create_object(request, object).await?;
    present::object(request, 201, &outcome)
}

/// Runs a decoded object through the pipeline and commits it.
pub(crate) async fn create_object(request: &Request, decoded: Value) -> Result<Outcome, ApiError> {
    check_namespace(request, &decoded)?;
    if !matches!(meta_str(&decoded, "resourceVersion"), "" | "0") {
        return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
    }
    let generates = meta_str(&decoded, "name").is_empty() && !meta_str(&decoded, "generateName").is_empty();
    let mut tries = if generates { GENERATE_NAME_TRIES } else { 1 };
    loop {
        tries -= 1;
        match create_once(request, decoded.clone(), generates).await {
            Err(e) if e.reason == "AlreadyExists" && tries > 0 => {}
            other => return other,
        }
    }
}

async fn create_once(request: &Request, mut object: Value, generates: bool) -> Result<Outcome, ApiError> {
    let resource = &request.resource;
    if generates {
        let name = generate(meta_str(&object, "generateName"));
        meta_mut(&mut object).insert("name".into(), name.into());
    }
    let name = meta_str(&object, "name").to_string();
    if name.is_empty() {
        let e = FieldError::required("metadata.name", "name or generateName is required");
        return Err(request.invalid("", &[e]));
    }
    resource.strategy.default(&mut object);
    if resource.subresources.status
        && !resource.strategy.keeps_status()
        && let Some(fields) = object.as_object_mut()
    {
        fields.remove("status");
    }
    let given = meta_mut(&mut object).remove("managedFields").filter(|_| request.is_apply());
    stamp(request, &mut object);
    let managed = managers::track(request, Part::Main, (None, None), (&object, given));

    let mut review = Review::new(request, Operation::Create, &name, &mut object, None);
    request.state.admit(&mut review).await?;
    let _guards = review.into_guards();
    resource.strategy.prepare_create(&mut object);

    let name_rule = |n: &str| resource.strategy.validate_name(n);
    let mut errors = object_meta(&object, resource.namespaced(), &name_rule);
    errors.extend(standard_finalizers(&object, &resource.names.group));
    errors.extend(resource.strategy.validate(&object));
    errors.extend(resource.strategy.validate_create(&object));
    if !errors.is_empty() {
        return Err(request.invalid(&name, &errors));
    }

    if let Some(managed) = managed {
        meta_mut(&mut object).insert("managedFields".into(), managed);
    }
    let key = request.key(&name);
    let store = &request.state.store;
    if store.get(&key).is_some() {
        return Err(ApiError::already_exists(&request.group_resource(), &name));
    }
    let (bytes, attrs) = managers::encode(request, &mut object)?;
    // Last: what is charged to a quota here is to be stored.
    let mut review = Review::new(request, Operation::Create, &name, &mut object, None);
    request.state.check(&mut review).await?;
    let _checked = review.into_guards();
    if request.dry_run {
        return Ok(Outcome::Unstored(object));
    }
    let put = store.put(&key, bytes, attrs, Expect::Absent).await;
    put.map(Outcome::Stored).map_err(|e| match e {
        StoreError::Conflict { .. } => ApiError::already_exists(&request.group_resource(), &name),
        other => error::from_store(other, &request.group_resource(), &name),
    })
}

/// Sets what only the server may set on a new object.
fn stamp(request: &Request, object: &mut Value) {
    let strategy = &request.resource.strategy;
    let meta = meta_mut(object);
    for field in ["resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
        meta.remove(field);
    }
    meta.insert("uid".into(), uuid::Uuid::new_v4().to_string().into());
    meta.insert("creationTimestamp".into(), request.now().into());
    if strategy.has_generation() {
        meta.insert("generation".into(), json!(1));
    }
    match request.namespace() {
        Some(ns) => meta.insert("namespace".into(), ns.into()),
        None => meta.remove("namespace"),
    };
}

/// Refuses an object that says another namespace than the URL.
pub(crate) fn check_namespace(request: &Request, object: &Value) -> Result<(), ApiError> {
    let given = meta_str(object, "namespace");
    if given.is_empty() || Some(given) == request.namespace() {
        return Ok(());
    }
    Err(ApiError::bad_request("the namespace of the provided object does not match the namespace sent on the request"))
}

fn generate(base: &str) -> String {
    let keep =
        base.char_indices().map(|(i, c)| i + c.len_utf8()).take_while(|end| *end <= MAX_GENERATED_NAME - SUFFIX_LENGTH);
    let mut name = base.get(..keep.last().unwrap_or(0)).unwrap_or_default().to_string();
    let mut rng = rand::rng();
    for _ in 0..SUFFIX_LENGTH {
        let i = rng.random_range(0..SUFFIX_ALPHABET.len());
        name.extend(SUFFIX_ALPHABET.get(i).map(|b| char::from(*b)));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names() {
        assert!(generate("web-").starts_with("web-"));
        assert_eq!(generate("web-").len(), 9);
        assert_eq!(generate(&"a".repeat(100)).len(), MAX_GENERATED_NAME);
        assert_ne!(generate("x"), generate("x"));
    }
}
