//! The approval of certificate signing requests.

use axum::response::Response;
use copepod_api::ApiError;
use copepod_core::kinds::certificate_signing_request::approval;
use serde_json::Value;

use super::patch::Patch;
use super::request::{Request, Verb};
use super::update::{Part, check_names, update};
use super::{body, present, read};

/// GET, PUT and PATCH of `/approval`: only the conditions change.
pub(crate) async fn approve(request: &Request) -> Result<Response, ApiError> {
    let outcome = match request.verb {
        Verb::Get => return read::get(request),
        Verb::Update => {
            let given = body::decode(request)?;
            check_names(request, &given)?;
            update(request, request.name(), Part::Internal, |old| approved(request, old, &given)).await?
        }
        Verb::Patch => {
            let patch = Patch::of(request)?;
            update(request, request.name(), Part::Internal, |old| {
                let mut given = patch.apply(request, old)?;
                patch.check(request, &mut given)?;
                approved(request, old, &given)
            })
            .await?
        }
        verb => return Err(ApiError::method_not_allowed(&request.group_resource(), verb.name())),
    };
    present::object(request, 200, &outcome)
}

fn approved(request: &Request, old: &Value, given: &Value) -> Result<Value, ApiError> {
    let mut new = approval(old, given, &request.now());
    // The precondition is the client's.
    match given.pointer("/metadata/resourceVersion") {
        Some(revision) => super::object::meta_mut(&mut new).insert("resourceVersion".into(), revision.clone()),
        None => super::object::meta_mut(&mut new).remove("resourceVersion"),
    };
    let strategy = &request.resource.strategy;
    let mut errors = strategy.validate(&new);
    errors.extend(strategy.validate_update(&new, old));
    if errors.is_empty() { Ok(new) } else { Err(request.invalid(request.name(), &errors)) }
}
