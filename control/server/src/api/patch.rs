//! PATCH: JSON patch, merge patch and strategic merge patch, applied to the present object inside the update loop.

use axum::response::Response;
use copepod_api::ApiError;
use copepod_core::patch::{self, PatchKind};
use serde_json::{Value, json};

use super::present;
use super::request::Request;
use super::update::{Part, check_names, update};
use super::{body, object};

/// PATCH of an object or its status.
pub(crate) async fn patch(request: &Request, part: Part) -> Result<Response, ApiError> {
    let patch = Patch::of(request)?;
    let outcome = update(request, request.name(), part, |old| {
        let mut new = patch.apply(request, old)?;
        patch.check(request, &mut new)?;
        Ok(new)
    })
    .await?;
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
        let kind = match body::content_type(request) {
            "application/json-patch+json" => PatchKind::Json,
            "application/merge-patch+json" => PatchKind::Merge,
            "application/strategic-merge-patch+json" => PatchKind::Strategic,
            "application/apply-patch+yaml" | "application/apply-patch+cbor" => {
                return Err(ApiError::unsupported_media_type(
                    "server-side apply (application/apply-patch+yaml) is not served by this version: use client-side \
                     apply, or a merge patch",
                ));
            }
            _ => {
                return Err(ApiError::unsupported_media_type(
                    "the body of the request was in an unknown format - accepted media types include: \
                     application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json",
                ));
            }
        };
        let decoded = copepod_core::codec::json::decode(&request.body)
            .map_err(|e| ApiError::bad_request(format!("error decoding patch: {e}")))?;
        Ok(Self { kind, body: decoded.value, duplicates: decoded.duplicate_fields })
    }

    /// Applies it to an object of the request's kind.
    pub fn apply(&self, request: &Request, old: &Value) -> Result<Value, ApiError> {
        patch::apply(self.kind, &request.resource.schema, old, &self.body).map_err(|e| e.api_error())
    }

    /// Applies it to a Scale, which has no lists or maps: strategic merge is merge there.
    pub fn apply_plain(&self, request: &Request, old: &Value) -> Result<Value, ApiError> {
        let kind = if self.kind == PatchKind::Strategic { PatchKind::Merge } else { self.kind };
        patch::apply(kind, &request.resource.schema, old, &self.body).map_err(|e| e.api_error())
    }

    /// The patched object must still be one of its kind and name.
    pub fn check(&self, request: &Request, new: &mut Value) -> Result<(), ApiError> {
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
        body::check_schema(request, new, &self.duplicates)?;
        check_names(request, new)
    }
}
