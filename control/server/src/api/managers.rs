//! Field managers: to whom the fields belong that a request writes.

use bytes::Bytes;
use copepod_api::{ApiError, FieldError};
use copepod_core::apply::{self, MAX_MANAGER_NAME, Writer};
use copepod_core::codec::MAX_BODY;
use copepod_store::Attrs;
use http::{HeaderMap, header};
use serde_json::{Value, json};

use super::error::invalid_options;
use super::object;
use super::request::{Query, Request};
use super::update::Part;

/// Content type of a configuration to apply.
pub(crate) const APPLY: &str = "application/apply-patch+yaml";

/// The manager that the request names, or the program that sent it. `kind` is the options' kind in errors; `patch` is
/// the content type of a patch.
pub(crate) fn name_of(kind: &str, patch: Option<&str>, query: &Query, headers: &HeaderMap) -> Result<String, ApiError> {
    let given = query.get("fieldManager");
    match patch {
        Some(APPLY) if given.is_none() => {
            return Err(invalid_options(kind, FieldError::required("fieldManager", "is required for apply patch")));
        }
        Some(other) if other != APPLY && query.has("force") => {
            let e = FieldError::forbidden("force", "may not be specified for non-apply patch");
            return Err(invalid_options(kind, e));
        }
        _ => {}
    }
    let Some(given) = given else { return Ok(program(headers)) };
    if given.len() > MAX_MANAGER_NAME {
        let message = format!("Too long: may not be more than {MAX_MANAGER_NAME} bytes");
        let e = FieldError { field: "fieldManager".into(), reason: "FieldValueTooLong", message };
        return Err(invalid_options(kind, e));
    }
    if let Some((at, odd)) = given.char_indices().find(|(_, c)| !is_printable(*c)) {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(odd));
        return Err(invalid_options(kind, FieldError::invalid("fieldManager", &json!(given), &why)));
    }
    Ok(given.to_owned())
}

/// The program's name in the User-Agent header: what comes before the first slash.
fn program(headers: &HeaderMap) -> String {
    let agent = headers.get(header::USER_AGENT).map(|v| String::from_utf8_lossy(v.as_bytes())).unwrap_or_default();
    let mut name = String::new();
    for c in agent.split('/').next().unwrap_or_default().chars().filter(|c| is_printable(*c)) {
        if name.len() + c.len_utf8() > MAX_MANAGER_NAME {
            break;
        }
        name.push(c);
    }
    name
}

fn is_printable(c: char) -> bool {
    c == ' ' || !(c.is_control() || c.is_whitespace())
}

/// Who writes a part of an object by this request.
pub(crate) fn writer<'a>(request: &'a Request, api_version: &'a str, part: Part) -> Writer<'a> {
    let subresource = match part {
        Part::Main | Part::Internal | Part::Binding => "",
        Part::Status => "status",
        Part::Scale => "scale",
    };
    Writer { name: &request.manager, api_version, subresource, time: request.state.now() }
}

/// Largest object that is stored, managedFields included, in bytes.
pub(crate) const MAX_OBJECT: usize = 2 * MAX_BODY;

/// Encodes an object for the store. One that is too large for it loses its managedFields, as upstream's do; an apply
/// needs them, and is refused.
pub(crate) fn encode(request: &Request, object: &mut Value) -> Result<(Bytes, Attrs), ApiError> {
    let encode = |object: &Value| object::encode(&request.state.registry, &request.resource, object);
    let mut encoded = encode(object)?;
    if encoded.0.len() > MAX_OBJECT && !request.is_apply() {
        object::meta_mut(object).remove("managedFields");
        encoded = encode(object)?;
    }
    if encoded.0.len() > MAX_OBJECT {
        let size = encoded.0.len();
        return Err(ApiError::too_large(format!(
            "Request entity too large: the object would have {size} bytes, the limit is {MAX_OBJECT}"
        )));
    }
    Ok(encoded)
}

/// `metadata.managedFields` after a write, from those of the old object (none of a new one) and those that the new one
/// came with. Neither object has them in it.
pub(crate) fn track(
    request: &Request,
    part: Part,
    (old, had): (Option<&Value>, Option<&Value>),
    (new, given): (&Value, Option<Value>),
) -> Option<Value> {
    match part {
        // The server's own doing belongs to nobody.
        Part::Internal | Part::Binding => had.cloned(),
        // An apply has said already who owns what.
        _ if request.is_apply() => given,
        _ => {
            let version = request.resource.gvk().api_version();
            let start = apply::given_or_had(given, had);
            apply::track(&request.resource.schema, old, new, start, &writer(request, &version, part))
        }
    }
}
