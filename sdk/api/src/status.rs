//! `metav1.Status`: how every error of the API reaches a client.
//! Source: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/>.

use serde_json::{Value, json};
use std::fmt;

use crate::GroupResource;

/// Most fields that one error tells about: a body of a few megabytes can have a hundred thousand wrong ones.
pub const MAX_FIELD_ERRORS: usize = 100;

/// What is wrong with one field, worded as upstream's `field.Error`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// JSON path from the object's root, such as `spec.template.spec.containers[0].image`.
    pub field: String,
    /// `FieldValueRequired`, `FieldValueInvalid`, `FieldValueNotSupported`, `FieldValueForbidden`,
    /// `FieldValueDuplicate`, `FieldValueNotFound`, `FieldValueTooLong`, `FieldValueTypeInvalid`.
    pub reason: &'static str,
    /// The message without the field's path, such as `Required value` or `Invalid value: -1: must be positive`.
    pub message: String,
}

impl FieldError {
    /// A field that must be set is not.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        Self::build(field, "FieldValueRequired", "Required value", None, detail)
    }
    /// A value that breaks the field's rules.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        Self::build(field, "FieldValueInvalid", "Invalid value", Some(value), detail)
    }
    /// A value outside the field's enumeration.
    pub fn not_supported(field: impl Into<String>, value: &Value, valid: &[&str]) -> Self {
        let list = valid.iter().map(|v| format!("\"{v}\"")).collect::<Vec<_>>().join(", ");
        Self::build(
            field,
            "FieldValueNotSupported",
            "Unsupported value",
            Some(value),
            &format!("supported values: {list}"),
        )
    }
    /// A field that may not be set here, or may not change.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::build(field, "FieldValueForbidden", "Forbidden", None, detail)
    }
    /// A value that stands twice in a list of unique values.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        Self::build(field, "FieldValueDuplicate", "Duplicate value", Some(value), "")
    }
    /// A reference to something that is not there.
    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        Self::build(field, "FieldValueNotFound", "Not found", Some(value), "")
    }

    fn build(field: impl Into<String>, reason: &'static str, lead: &str, value: Option<&Value>, detail: &str) -> Self {
        let mut message = lead.to_string();
        if let Some(value) = value {
            message.push_str(&format!(": {value}"));
        }
        if !detail.is_empty() {
            message.push_str(&format!(": {detail}"));
        }
        Self { field: field.into(), reason, message }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// An error of the API, free of transport; `status()` is its wire form and `code` its HTTP status.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason, such as `NotFound`; upstream's `StatusReason`. Empty if there is none.
    pub reason: &'static str,
    /// For people: what, where, what to do.
    pub message: String,
    /// `Status.details`, if any.
    pub details: Option<Value>,
}

impl ApiError {
    /// An error with no details.
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: None }
    }
    fn named(mut self, r: &GroupResource, name: &str) -> Self {
        let mut d = json!({"name": name, "kind": r.resource});
        if !r.group.is_empty() {
            set(&mut d, "group", json!(r.group));
        }
        self.details = Some(d);
        self
    }
    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }
    /// 401.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(401, "Unauthorized", message)
    }
    /// 403.
    pub fn forbidden(r: &GroupResource, name: &str, why: impl fmt::Display) -> Self {
        let quoted = if name.is_empty() { String::new() } else { format!(" \"{name}\"") };
        Self::new(403, "Forbidden", format!("{r}{quoted} is forbidden: {why}")).named(r, name)
    }
    /// 404 of an object.
    pub fn not_found(r: &GroupResource, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{r} \"{name}\" not found")).named(r, name)
    }
    /// 404 of a path.
    pub fn no_such_path() -> Self {
        let mut e = Self::new(404, "NotFound", "the server could not find the requested resource");
        e.details = Some(json!({}));
        e
    }
    /// 405.
    pub fn method_not_allowed(r: &GroupResource, verb: &str) -> Self {
        Self::new(405, "MethodNotAllowed", format!("{verb} is not supported on resources of kind \"{r}\"")).named(r, "")
    }
    /// 409 of a create.
    pub fn already_exists(r: &GroupResource, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{r} \"{name}\" already exists")).named(r, name)
    }
    /// 409 of a write whose precondition failed.
    pub fn conflict(r: &GroupResource, name: &str, why: impl fmt::Display) -> Self {
        Self::new(409, "Conflict", format!("Operation cannot be fulfilled on {r} \"{name}\": {why}")).named(r, name)
    }
    /// 409 of an update against an old resourceVersion, in upstream's words.
    pub fn stale(r: &GroupResource, name: &str) -> Self {
        Self::conflict(
            r,
            name,
            "the object has been modified; please apply your changes to the latest version and try again",
        )
    }
    /// 410: the asked revision is compacted.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }
    /// 422: the object breaks its kind's rules. The first [`MAX_FIELD_ERRORS`] are shown.
    pub fn invalid(group: &str, kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let errors = errors.get(..MAX_FIELD_ERRORS).unwrap_or(errors);
        let shown = if group.is_empty() { kind.to_string() } else { format!("{kind}.{group}") };
        let list = match errors {
            [one] => one.to_string(),
            many => format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
        };
        let mut e = Self::new(422, "Invalid", format!("{shown} \"{name}\" is invalid: {list}"));
        let causes: Vec<Value> =
            errors.iter().map(|f| json!({"reason": f.reason, "message": f.message, "field": f.field})).collect();
        let mut d = json!({"causes": causes});
        for (key, value) in [("name", name), ("group", group), ("kind", kind)] {
            if !value.is_empty() {
                set(&mut d, key, json!(value));
            }
        }
        e.details = Some(d);
        e
    }
    /// 406.
    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(406, "NotAcceptable", message)
    }
    /// 413.
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::new(413, "RequestEntityTooLarge", message)
    }
    /// 415.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }
    /// 429: try again after `seconds`.
    pub fn too_many_requests(message: impl Into<String>, seconds: u32) -> Self {
        let mut e = Self::new(429, "TooManyRequests", message);
        e.details = Some(json!({"retryAfterSeconds": seconds}));
        e
    }
    /// 500.
    pub fn internal(message: impl fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
    }
    /// 504: what was asked for did not happen in time.
    pub fn timeout(why: impl fmt::Display) -> Self {
        let mut e = Self::new(504, "Timeout", format!("Timeout: {why}"));
        e.details = Some(json!({}));
        e
    }
    /// 503.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// The wire form.
    pub fn status(&self) -> Value {
        let mut s = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "code": self.code,
        });
        if !self.reason.is_empty() {
            set(&mut s, "reason", json!(self.reason));
        }
        if let Some(d) = &self.details {
            set(&mut s, "details", d.clone());
        }
        s
    }
}

fn set(object: &mut Value, key: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(key.to_string(), value);
    }
}
