//! Errors on the wire: every one is a `metav1.Status`.

use axum::body::Body;
use axum::response::Response;
use copepod_api::{ApiError, GroupResource};
use copepod_store::StoreError;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::accept::{Accept, Format};
use super::{object, present};

/// The HTTP form of an error, in the format that an `Accept` header asks for if it can be had.
pub(crate) fn response(error: &ApiError, accept: Option<&HeaderValue>) -> Response {
    let mut status = error.status();
    // A list's 410 carries the token that continues it where `ListMeta` has it.
    if let Some(token) = status.pointer_mut("/details/continue").map(Value::take) {
        object::meta_mut(&mut status).insert("continue".into(), token);
        object::as_map(&mut status).remove("details");
    }
    let asked = Accept::negotiate(accept.and_then(|v| v.to_str().ok()), false);
    let format = asked.map_or(Format::Json, |accept| accept.format);
    let encoded = present::encode(format, &status).unwrap_or((Format::Json, status.to_string().into()));
    let (format, bytes) = encoded;
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = StatusCode::from_u16(error.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.media_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    let retry = error.details.as_ref().and_then(|d| d.get("retryAfterSeconds")).and_then(Value::as_u64);
    if let Some(seconds) = retry.and_then(|s| HeaderValue::from_str(&s.to_string()).ok()) {
        headers.insert(header::RETRY_AFTER, seconds);
    }
    response
}

/// What a failed store operation on an object means to a client.
pub(crate) fn from_store(error: StoreError, resource: &GroupResource, name: &str) -> ApiError {
    match error {
        StoreError::Conflict { current: None, .. } => ApiError::not_found(resource, name),
        StoreError::Conflict { .. } => ApiError::stale(resource, name),
        StoreError::Compacted { asked, oldest } => too_old(asked, oldest),
        StoreError::Future { asked, current } => too_large(asked, current),
        e @ (StoreError::ReadOnly(_) | StoreError::Broken(_)) => ApiError::internal(e),
    }
}

/// 410 of a watch.
pub(crate) fn too_old(asked: u64, oldest: u64) -> ApiError {
    ApiError::expired(format!("too old resource version: {asked} ({oldest})"))
}

/// 504 of a read at a revision that is not reached yet.
pub(crate) fn too_large(asked: u64, current: u64) -> ApiError {
    let mut e = ApiError::timeout(format!("Too large resource version: {asked}, current: {current}"));
    e.details = Some(json!({
        "retryAfterSeconds": 1,
        "causes": [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}],
    }));
    e
}

/// 422 of a request's options, such as `CreateOptions.meta.k8s.io "" is invalid: ...`.
pub(crate) fn invalid_options(kind: &str, error: copepod_api::FieldError) -> ApiError {
    ApiError::invalid("meta.k8s.io", kind, "", &[error])
}
