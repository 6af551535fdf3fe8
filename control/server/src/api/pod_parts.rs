//! The parts of a running pod that change through subresources of their own: ephemeral containers and the containers'
//! resources. Everything else of a write to them is ignored.

use axum::response::Response;
use copepod_api::{ApiError, FieldError};
use copepod_core::kinds::pod::{changed_ephemeral_containers, changed_resources};
use serde_json::Value;

use super::object::meta_mut;
use super::patch::Patch;
use super::request::{Request, Verb};
use super::update::{Part, check_names, update};
use super::{body, present, read};

/// Serves `pods/ephemeralcontainers` and `pods/resize`.
///
/// # Errors
/// 422 if the part is not valid or changes what is fixed.
pub(crate) async fn serve(request: &Request, sub: &str) -> Result<Response, ApiError> {
    if request.verb == Verb::Get {
        return read::get(request);
    }
    let (patch, whole) = match request.verb {
        Verb::Patch => (Some(Patch::of(request)?), Value::Null),
        _ => (None, body::decode(request)?),
    };
    if patch.is_none() {
        check_names(request, &whole)?;
    }
    let outcome = update(request, request.name(), Part::Internal, |old| {
        let new = match &patch {
            Some(patch) => patch.apply_checked(request, old)?,
            None => whole.clone(),
        };
        let changed: Result<Value, Vec<FieldError>> = match sub {
            "resize" => changed_resources(&new, old),
            _ => changed_ephemeral_containers(&new, old),
        };
        let mut changed = changed.map_err(|errors| request.invalid(request.name(), &errors))?;
        // The precondition is the client's.
        let meta = meta_mut(&mut changed);
        match new.pointer("/metadata/resourceVersion") {
            Some(given) => meta.insert("resourceVersion".into(), given.clone()),
            None => meta.remove("resourceVersion"),
        };
        Ok(changed)
    })
    .await?;
    present::object(request, 200, &outcome)
}
