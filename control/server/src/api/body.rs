//! Request bodies: read within bounds, decoded by content type, checked against the schema.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use copepod_api::{ApiError, Gvk};
use copepod_core::codec::{self, CodecError, Decoded};
use copepod_core::schema::{self, DecodeError};
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

use super::ApiState;
use super::fairness::Places;
use super::object::meta_mut;
use super::request::{FieldValidation, Request};

/// How long a client may take to send a body; upstream's limit for a whole request.
const MAX_READ_TIME: Duration = Duration::from_secs(60);

/// Bytes of an unreadable body that its refusal shows.
const SHOWN: usize = 30;

/// A body, and its room among all bodies in memory.
pub(crate) struct Received<'a> {
    pub bytes: Bytes,
    _room: Option<Places<'a>>,
}

/// Reads a user's whole body of at most [`codec::MAX_BODY`] bytes. It takes room as its bytes arrive: a slow client holds what
/// it has sent and no more.
///
/// # Errors
/// 413 beyond the limit, 504 if it takes longer than a minute, 429 if there is no room.
pub(crate) async fn read<'a>(
    state: &'a ApiState,
    user: &str,
    headers: &HeaderMap,
    body: Body,
) -> Result<Received<'a>, ApiError> {
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > codec::MAX_BODY as u64) {
        return Err(too_large());
    }
    let reading = tokio::time::timeout(MAX_READ_TIME, collect(state, user, body)).await;
    reading.map_err(|_| ApiError::timeout("request did not complete within the allotted timeout"))?
}

async fn collect<'a>(state: &'a ApiState, user: &str, body: Body) -> Result<Received<'a>, ApiError> {
    let (mut body, mut bytes, mut room) = (Limited::new(body, codec::MAX_BODY), BytesMut::new(), None);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| match e.is::<LengthLimitError>() {
            true => too_large(),
            false => ApiError::bad_request(format!("unable to read the body of the request: {e}")),
        })?;
        let Ok(data) = frame.into_data() else { continue };
        bytes.extend_from_slice(&data);
        let held = room.as_ref().map_or(0, Places::len);
        let more = bytes.len().div_ceil(1024).saturating_sub(held);
        if more > 0 {
            let more = state.body_room.enter(user, more).await?;
            match &mut room {
                Some(room) => room.merge(more),
                None => room = Some(more),
            }
        }
    }
    Ok(Received { bytes: bytes.freeze(), _room: room })
}

/// 413.
pub(crate) fn too_large() -> ApiError {
    ApiError::too_large(format!("Request entity too large: limit is {}", codec::MAX_BODY))
}

/// Decodes the body as an object of the request's kind, checked and pruned by its schema.
pub(crate) fn decode(request: &Request) -> Result<Value, ApiError> {
    let gvk = request.resource.gvk();
    let Decoded { mut value, duplicate_fields } = decode_any(request, &gvk)?;
    // A built-in kind that the body does not name is the URL's; other objects have to say what they are.
    if request.resource.schema.source().is_none()
        && let Some(fields) = value.as_object_mut()
    {
        for (field, meant) in [("apiVersion", gvk.api_version()), ("kind", gvk.kind.clone())] {
            if fields.get(field).is_none_or(|v| v.is_null() || *v == "") {
                fields.insert(field.into(), meant.into());
            }
        }
    }
    check_kind(&value, &gvk)?;
    check_schema(request, &mut value, &duplicate_fields).map_err(|e| ApiError::bad_request(e.bad_request(&gvk)))?;
    Ok(value)
}

/// Decodes the body as one of the server's own kinds (DeleteOptions, Binding, Scale, ...); an absent kind is taken as
/// meant, another one is refused.
pub(crate) fn decode_options(request: &Request, kind: &str) -> Result<Value, ApiError> {
    let mut gvk = request.resource.gvk();
    gvk.kind = kind.to_string();
    let value = decode_any(request, &gvk)?.value;
    let given = value.get("kind").and_then(Value::as_str).unwrap_or_default();
    if !value.is_object() || !(given.is_empty() || given == kind) {
        return Err(ApiError::bad_request(format!("{given:?} in the body of the request: it must be a {kind}")));
    }
    Ok(value)
}

fn decode_any(request: &Request, hint: &Gvk) -> Result<Decoded, ApiError> {
    codec::decode(request.media_type(), &request.body, Some(hint)).map_err(|e| match e {
        CodecError::TooLarge => too_large(),
        CodecError::UnsupportedMediaType(_) | CodecError::NoProtobuf(_) => {
            ApiError::unsupported_media_type(e.to_string())
        }
        CodecError::Malformed(why) => ApiError::bad_request(format!(
            "the object provided is unrecognized (must be of type {}): couldn't get version/kind; parse error: {why} ({})",
            hint.kind,
            summary(&request.body)
        )),
    })
}

/// The beginning of a body that cannot be read, as upstream shows it.
fn summary(body: &[u8]) -> String {
    let (start, more) = match body.get(..SHOWN) {
        Some(start) if body.len() > SHOWN => (start, " ..."),
        _ => (body, ""),
    };
    match start.first() {
        None => "<empty>".into(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(start)),
        Some(_) => start.iter().map(|b| format!("{b:02x}")).chain([more.into()]).collect(),
    }
}

/// Upstream's refusals of a body that is not what the URL says.
fn check_kind(value: &Value, want: &Gvk) -> Result<(), ApiError> {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let (api_version, kind) = (text("apiVersion"), text("kind"));
    if !value.is_object() {
        return Err(ApiError::bad_request("the object provided is not a JSON map"));
    }
    if kind.is_empty() {
        return Err(ApiError::bad_request("Object 'Kind' is missing in the body of the request"));
    }
    if api_version.is_empty() {
        return Err(ApiError::bad_request("Object 'apiVersion' is missing in the body of the request"));
    }
    if kind != want.kind {
        return Err(ApiError::bad_request(format!(
            "{kind} in version {:?} cannot be handled as a {}: converting ({api_version}.{kind}) to ({}.{}): unknown conversion",
            Gvk::from_api_version(api_version, kind).version,
            want.kind,
            want.api_version(),
            want.kind
        )));
    }
    if api_version != want.api_version() {
        return Err(ApiError::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            want.api_version()
        )));
    }
    Ok(())
}

/// Checks types and unknown fields by the kind's schema, in place, as `fieldValidation` asks.
///
/// # Errors
/// In Go's words; the caller knows which error it makes of them.
pub(crate) fn check_schema(request: &Request, value: &mut Value, duplicates: &[String]) -> Result<(), DecodeError> {
    // Judged by those who use it: what is no managedFields there is passed over.
    let managed = meta_mut(value).remove("managedFields");
    let found = request.resource.schema.decode(value)?;
    if let Some(managed) = managed {
        meta_mut(value).insert("managedFields".into(), managed);
    }
    match request.field_validation {
        FieldValidation::Ignore => {}
        FieldValidation::Warn => {
            duplicates.iter().chain(&found.unknown).for_each(|line| request.warn(line));
        }
        FieldValidation::Strict => {
            if let Some(e) = schema::strict_error(duplicates, &found.unknown) {
                return Err(e);
            }
        }
    }
    Ok(())
}
