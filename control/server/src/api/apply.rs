//! Server-side apply: PATCH with `application/apply-patch+yaml`, on an object, its status or its scale.

use axum::response::Response;
use copepod_api::{ApiError, Gvk};
use copepod_core::apply::{self, ApplyError, Config};
use copepod_core::codec;
use copepod_core::resource::ScalePaths;
use serde_json::{Value, json};

use super::create::create_object;
use super::managers;
use super::object::{meta_mut, meta_str, set_path};
use super::present::{self, Outcome};
use super::request::{FieldValidation, Request};
use super::update::{Part, check_names, update};

/// How often an apply is tried again when the object is created or deleted in between.
const MAX_TRIES: usize = 8;

/// Applies the body to an object, which is created if it is not there, or to its status.
pub(crate) async fn apply(request: &Request, part: Part) -> Result<Response, ApiError> {
    let sent = decode(request, &request.resource.gvk())?;
    let owned = match part {
        Part::Status => apply::Part::Status,
        _ if request.resource.subresources.status => apply::Part::Main,
        _ => apply::Part::Whole,
    };
    let config = Config::decode(&request.resource.schema, sent, owned).map_err(|why| untyped(request, &why))?;
    let name = request.name();
    for _ in 0..MAX_TRIES {
        let updated = update(request, name, part, |old| applied(request, Some(old), &config, part)).await;
        match updated {
            Err(e) if e.code == 404 && part == Part::Main && request.state.store.get(&request.key(name)).is_none() => {}
            outcome => return present::object(request, 200, &outcome?),
        }
        let new = applied(request, None, &config, part)?;
        let uid = meta_str(&new, "uid");
        if !uid.is_empty() {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(ApiError::conflict(&request.group_resource(), name, why));
        }
        match create_object(request, new).await {
            Err(e) if e.reason == "AlreadyExists" => {}
            outcome => return present::object(request, 201, &outcome?),
        }
    }
    Err(ApiError::stale(&request.group_resource(), name))
}

/// Applies the body, a Scale, to the count of an object.
pub(crate) async fn scale(request: &Request, paths: &ScalePaths) -> Result<Outcome, ApiError> {
    let sent = decode(request, &Gvk::new("autoscaling", "v1", "Scale"))?;
    let replicas = sent.pointer("/spec/replicas").filter(|v| !v.is_null());
    let replicas = replicas.map(|_| super::scale::replicas(request, &sent)).transpose()?;
    let mut value = json!({"metadata": {}});
    for field in ["name", "namespace", "resourceVersion", "uid"] {
        if let Some(given) = sent.get("metadata").and_then(|m| m.get(field)) {
            meta_mut(&mut value).insert(field.into(), given.clone());
        }
    }
    if let Some(replicas) = replicas {
        set_path(&mut value, &paths.spec_replicas, json!(replicas));
    }
    let config = Config::of_field(sent, value, replicas.map(|_| paths.spec_replicas.as_str()));
    update(request, request.name(), Part::Scale, |old| applied(request, Some(old), &config, Part::Scale)).await
}

/// The object with the configuration, and its new managedFields in it.
fn applied(request: &Request, old: Option<&Value>, config: &Config, part: Part) -> Result<Value, ApiError> {
    let names = &request.resource.names;
    let mut live = old.cloned();
    let managed = live.as_mut().and_then(|live| meta_mut(live).remove("managedFields"));
    let version = request.resource.gvk().api_version();
    let writer = managers::writer(request, &version, part);
    let force = request.query.flag("force");
    let outcome = apply::apply(&request.resource.schema, live.as_ref(), managed, config, &writer, force);
    let applied = outcome.map_err(|mut e| {
        if let (Part::Scale, ApplyError::Conflicts(conflicts)) = (part, &mut e) {
            conflicts.iter_mut().for_each(|c| c.path = ".spec.replicas".into());
        }
        e.api_error(&names.group, &names.kind, request.name())
    })?;
    let mut new = applied.object;
    if let Some(managed) = applied.managed {
        meta_mut(&mut new).insert("managedFields".into(), managed);
    }
    check_names(request, &new)?;
    Ok(new)
}

/// The body as a configuration of a kind.
fn decode(request: &Request, want: &Gvk) -> Result<Value, ApiError> {
    // Most clients send JSON, which is YAML too, but quicker to read.
    let first = request.body.iter().find(|b| !b.is_ascii_whitespace());
    let json = (first == Some(&b'{')).then(|| codec::json::decode(&request.body).ok()).flatten();
    let decoded = match json {
        Some(decoded) => decoded,
        None => codec::yaml::decode(&request.body)
            .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?,
    };
    let sent = decoded.value;
    if !sent.is_object() {
        return Err(ApiError::bad_request("error decoding patch: the configuration is not a map"));
    }
    if !decoded.duplicate_fields.is_empty() {
        match request.field_validation {
            FieldValidation::Ignore => {}
            FieldValidation::Warn => decoded.duplicate_fields.iter().for_each(|line| request.warn(line)),
            FieldValidation::Strict => {
                let lines = decoded.duplicate_fields.join(", ");
                return Err(ApiError::bad_request(format!("error strict decoding patch: {lines}")));
            }
        }
    }
    let text = |field: &str| sent.get(field).and_then(Value::as_str).unwrap_or_default();
    let given = Gvk::from_api_version(text("apiVersion"), text("kind"));
    if given != *want {
        return Err(ApiError::bad_request(format!("invalid object type: {}", shown(&given))));
    }
    if sent.pointer("/metadata/managedFields").is_some_and(|m| !m.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    Ok(sent)
}

/// A kind as Go prints it: `apps/v1, Kind=Deployment`.
fn shown(gvk: &Gvk) -> String {
    format!("{}/{}, Kind={}", gvk.group, gvk.version, gvk.kind)
}

/// A configuration that does not fit its kind: 500 without a reason, whatever the field validation, as upstream has it.
fn untyped(request: &Request, why: &str) -> ApiError {
    let (namespace, name) = (request.namespace().unwrap_or_default(), request.name());
    let gvk = shown(&request.resource.gvk());
    ApiError::new(500, "", format!("failed to create typed patch object ({namespace}/{name}; {gvk}): {why}"))
}
