//! PATCH: JSON patch, merge patch and strategic merge patch, applied to the present object inside the update loop.

use axum::response::Response;
use copepod_api::{ApiError, FieldError};
use copepod_core::patch::{self, PatchKind};
use serde_json::{Value, json};

use super::managers::APPLY;
use super::present;
use super::request::Request;
use super::update::{Part, check_names, update};
use super::{apply, body, object};

/// Characters of an object or patch that an error shows.
const MAX_SHOWN: usize = 4096;

/// PATCH of an object or its status.
pub(crate) async fn patch(request: &Request, part: Part) -> Result<Response, ApiError> {
    if request.is_apply() {
        return apply::apply(request, part).await;
    }
    let patch = Patch::of(request)?;
    let outcome = update(request, request.name(), part, |old| patch.apply_checked(request, old)).await?;
    present::object(request, 200, &outcome)
}

/// A decoded patch.
pub(crate) struct Patch {
    kind: PatchKind,
    body: Value,
    duplicates: Vec<String>,
}

impl Patch {
    /// Decodes the body by its content type.
    pub fn of(request: &Request) -> Result<Self, ApiError> {
        let kind = match request.media_type() {
            "application/json-patch+json" => PatchKind::Json,
            "application/merge-patch+json" => PatchKind::Merge,
            "application/strategic-merge-patch+json" => PatchKind::Strategic,
            _ => {
                // Strategic merge is for built-in kinds only.
                let strategic = match request.resource.schema.source() {
                    None => ", application/strategic-merge-patch+json",
                    Some(_) => "",
                };
                return Err(ApiError::unsupported_media_type(format!(
                    "the body of the request was in an unknown format - accepted media types include: \
                     application/json-patch+json, application/merge-patch+json{strategic}, {APPLY}"
                )));
            }
        };
        let decoded = copepod_core::codec::json::decode(&request.body).map_err(|e| match kind {
            PatchKind::Strategic => ApiError::bad_request(e.to_string()),
            PatchKind::Json | PatchKind::Merge => ApiError::bad_request(format!("error decoding patch: {e}")),
        })?;
        Ok(Self { kind, body: decoded.value, duplicates: decoded.duplicate_fields })
    }

    /// Applies it to an object of the request's kind, which the result must still be.
    pub fn apply_checked(&self, request: &Request, old: &Value) -> Result<Value, ApiError> {
        let mut new = self.apply(request, old)?;
        self.check_kind(request, &mut new)?;
        // What was patched is made again for the message: a check changes it in place.
        body::check_schema(request, &mut new, &self.duplicates).map_err(|e| match self.apply(request, old) {
            Ok(patched) => self.unfit(&patched, &e.message),
            Err(again) => again,
        })?;
        check_names(request, &new)?;
        Ok(new)
    }

    fn apply(&self, request: &Request, old: &Value) -> Result<Value, ApiError> {
        patch::apply(self.kind, &request.resource.schema, old, &self.body).map_err(|e| e.api_error())
    }

    /// Applies it to a Scale, which has no lists or maps: strategic merge is merge there.
    pub fn apply_plain(&self, request: &Request, old: &Value) -> Result<Value, ApiError> {
        let kind = if self.kind == PatchKind::Strategic { PatchKind::Merge } else { self.kind };
        patch::apply(kind, &request.resource.schema, old, &self.body).map_err(|e| e.api_error())
    }

    /// 422 of a result that is no object of its kind: shown with the object, or with a strategic patch.
    fn unfit(&self, patched: &Value, why: &str) -> ApiError {
        let shown = match self.kind {
            PatchKind::Strategic => patch::go_value(&self.body),
            PatchKind::Json | PatchKind::Merge => patched.to_string(),
        };
        let start: String = shown.chars().take(MAX_SHOWN).collect();
        let shown = if start.len() < shown.len() { format!("{start} ...") } else { shown };
        ApiError::invalid("", "", "", &[FieldError::invalid("patch", &json!(shown), why)])
    }

    /// The patched object must still be one of its kind.
    fn check_kind(&self, request: &Request, new: &mut Value) -> Result<(), ApiError> {
        if !new.is_object() {
            return Err(ApiError::bad_request("the patched object is not a JSON map"));
        }
        let gvk = request.resource.gvk();
        for (field, want) in [("apiVersion", gvk.api_version()), ("kind", gvk.kind.clone())] {
            match new.get(field).and_then(Value::as_str) {
                Some(given) if given != want => {
                    return Err(ApiError::bad_request(format!(
                        "a patch may not change {field} from {want} to {given}"
                    )));
                }
                Some(_) => {}
                None => {
                    object::as_map(new).insert(field.into(), json!(want));
                }
            }
        }
        Ok(())
    }
}
