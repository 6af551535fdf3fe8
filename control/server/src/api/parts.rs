//! Subresources that change one part of an object alone, such as a pod's ephemeral containers or the approval of a
//! certificate signing request. Everything else of a write to them is ignored.

use axum::response::Response;
use copepod_api::{ApiError, FieldError};
use copepod_core::kinds::certificate_signing_request::approval;
use copepod_core::kinds::pod::{changed_ephemeral_containers, changed_resources};
use serde_json::Value;

use super::object::meta_mut;
use super::patch::Patch;
use super::request::{Request, Verb};
use super::update::{Part, check_names, update};
use super::{body, present, read};

/// GET, PUT and PATCH of such a subresource.
///
/// # Errors
/// 405 for other verbs, 422 if the part is not valid or may not change so.
pub(crate) async fn serve(request: &Request, sub: &str) -> Result<Response, ApiError> {
    let patch = match request.verb {
        Verb::Get => return read::get(request),
        Verb::Patch => Some(Patch::of(request)?),
        Verb::Update => None,
        verb => return Err(ApiError::method_not_allowed(&request.group_resource(), verb.name())),
    };
    let whole = if patch.is_some() { Value::Null } else { body::decode(request)? };
    if patch.is_none() {
        check_names(request, &whole)?;
    }
    let outcome = update(request, request.name(), Part::Internal, |old| {
        let given = match &patch {
            Some(patch) => patch.apply_checked(request, old)?,
            None => whole.clone(),
        };
        let changed = change(request, sub, &given, old);
        let mut changed = changed.map_err(|errors| request.invalid(request.name(), &errors))?;
        // The precondition is the client's.
        let meta = meta_mut(&mut changed);
        match given.pointer("/metadata/resourceVersion") {
            Some(revision) => meta.insert("resourceVersion".into(), revision.clone()),
            None => meta.remove("resourceVersion"),
        };
        Ok(changed)
    })
    .await?;
    present::object(request, 200, &outcome)
}

/// The present object with the part that the given one sets.
fn change(request: &Request, sub: &str, given: &Value, old: &Value) -> Result<Value, Vec<FieldError>> {
    match sub {
        "resize" => changed_resources(given, old),
        "ephemeralcontainers" => changed_ephemeral_containers(given, old),
        _ => {
            let new = approval(old, given, &request.now());
            let strategy = &request.resource.strategy;
            let mut errors = strategy.validate(&new);
            errors.extend(strategy.validate_update(&new, old));
            if errors.is_empty() { Ok(new) } else { Err(errors) }
        }
    }
}
