//! One request to a resource: what every handler takes.

use std::num::{IntErrorKind, ParseIntError};
use std::sync::Arc;

use bytes::Bytes;
use copepod_api::{ApiError, FieldError, GroupResource};
use copepod_core::resource::Resource;
use http::{HeaderMap, header};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::ApiState;
use super::accept::{Accept, Format, Shape};
use super::error::invalid_options;
use super::managers;
use super::path::Target;
use crate::identity::Identity;

/// What a request does, in the words of authorization and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

impl Verb {
    /// The verb as discovery names it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::List => "list",
            Self::Watch => "watch",
            Self::Create => "create",
            Self::Update => "update",
            Self::Patch => "patch",
            Self::Delete => "delete",
            Self::DeleteCollection => "deletecollection",
        }
    }
    /// The verb as metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::List => "LIST",
            Self::Watch => "WATCH",
            Self::Create => "POST",
            Self::Update => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::DeleteCollection => "DELETECOLLECTION",
        }
    }
}

/// What to do about unknown and duplicate fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FieldValidation {
    /// Drop them silently.
    Ignore,
    /// Drop them with a Warning header.
    Warn,
    /// Refuse the object.
    Strict,
}

/// The decoded query string.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Parses a URI's query; a malformed one is a bad request.
    pub fn of(uri: &http::Uri) -> Result<Self, ApiError> {
        let parsed = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri);
        parsed.map(|q| Self(q.0)).map_err(|e| ApiError::bad_request(format!("invalid query string: {e}")))
    }
    /// The first value of a parameter, unless empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }
    /// All values of a parameter.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.0.iter().filter(|(k, _)| k == name).map(|(_, v)| v.as_str()).collect()
    }
    /// Whether a parameter is there, with whatever value.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(k, _)| k == name)
    }
    /// A boolean parameter: present and neither `false` nor `0`.
    pub fn flag(&self, name: &str) -> bool {
        let value = self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str());
        value.is_some_and(|v| v != "false" && v != "0")
    }
    /// Adds a requirement to the field selector.
    pub fn select(&mut self, requirement: &str) {
        let given = self.get("fieldSelector").map(|given| format!("{given},")).unwrap_or_default();
        self.0.insert(0, ("fieldSelector".into(), format!("{given}{requirement}")));
    }
    /// An integer parameter.
    pub fn integer(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.get(name).map(|v| v.parse().map_err(|e| ApiError::bad_request(strconv("ParseInt", v, &e)))).transpose()
    }
    /// A resourceVersion parameter; `None` if unset.
    pub fn revision(&self, name: &str) -> Result<Option<u64>, ApiError> {
        self.get(name).map(parse_revision).transpose()
    }
}

/// Parses a client's resourceVersion.
pub(crate) fn parse_revision(text: &str) -> Result<u64, ApiError> {
    // Go takes no sign here.
    let digits = if text.starts_with('+') { "" } else { text };
    digits.parse().map_err(|e| {
        let e = FieldError::invalid("resourceVersion", &json!(text), &strconv("ParseUint", text, &e));
        ApiError::bad_request(format!("invalid resource version: {e}"))
    })
}

/// Why a text is no integer, in Go's words.
fn strconv(function: &str, text: &str, error: &ParseIntError) -> String {
    let why = match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    format!("strconv.{function}: parsing {text:?}: {why}")
}

/// One request.
pub(crate) struct Request {
    pub state: Arc<ApiState>,
    pub identity: Identity,
    pub resource: Arc<Resource>,
    pub target: Target,
    pub verb: Verb,
    pub query: Query,
    pub headers: HeaderMap,
    pub accept: Accept,
    pub body: Bytes,
    pub dry_run: bool,
    pub field_validation: FieldValidation,
    /// The field manager: the one named in the query, or the client's program.
    pub manager: String,
    warnings: Mutex<Vec<String>>,
}

/// At most this many Warning headers go with one response.
const MAX_WARNINGS: usize = 32;

impl Request {
    /// Checks the options that all writes share.
    pub fn new(
        state: Arc<ApiState>,
        identity: Identity,
        resource: Arc<Resource>,
        target: Target,
        verb: Verb,
        query: Query,
        headers: HeaderMap,
    ) -> Result<Self, ApiError> {
        // Logs are text, and streams what they carry, whatever the client accepts.
        let streams = ["log", "attach", "exec", "portforward", "proxy"];
        let accept = if target.subresource.as_deref().is_some_and(|sub| streams.contains(&sub)) {
            Accept { format: Format::Json, shape: Shape::Full }
        } else {
            Accept::negotiate(headers.get(header::ACCEPT).and_then(|v| v.to_str().ok()), false)?
        };
        let shown = query.get("includeObject").unwrap_or("Metadata");
        if matches!(accept.shape, Shape::Table(_)) && !matches!(shown, "None" | "Metadata" | "Object") {
            let e =
                FieldError::invalid("includeObject", &json!(shown), "must be 'Metadata', 'Object', 'None', or empty");
            return Err(ApiError::bad_request(format!("Unable to convert to Table as requested: {e}")));
        }
        let kind = match verb {
            Verb::Create => "CreateOptions",
            Verb::Patch => "PatchOptions",
            Verb::Update => "UpdateOptions",
            _ => "DeleteOptions",
        };
        let patch = (verb == Verb::Patch).then(|| media_type(&headers));
        let changes = matches!(verb, Verb::Create | Verb::Update | Verb::Patch);
        let manager = if changes { managers::name_of(kind, patch, &query, &headers)? } else { String::new() };
        let writes = !matches!(verb, Verb::Get | Verb::List | Verb::Watch);
        let dry_run = writes && dry_run(kind, query.all("dryRun"))?;
        let field_validation = match query.get("fieldValidation").filter(|_| changes) {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(v) => {
                let valid = ["", "Ignore", "Strict", "Warn"];
                return Err(invalid_options(kind, FieldError::not_supported("fieldValidation", &json!(v), &valid)));
            }
        };
        let (body, warnings) = (Bytes::new(), Mutex::default());
        Ok(Self {
            state,
            identity,
            resource,
            target,
            verb,
            query,
            headers,
            accept,
            body,
            dry_run,
            field_validation,
            manager,
            warnings,
        })
    }

    /// The media type of the body, without parameters.
    pub fn media_type(&self) -> &str {
        media_type(&self.headers)
    }
    /// Whether this is a server-side apply.
    pub fn is_apply(&self) -> bool {
        self.verb == Verb::Patch && self.media_type() == managers::APPLY
    }
    /// The resource's name in messages.
    pub fn group_resource(&self) -> GroupResource {
        self.resource.group_resource()
    }
    /// The object's name in the URL, `""` if it has none.
    pub fn name(&self) -> &str {
        self.target.name.as_deref().unwrap_or_default()
    }
    /// The namespace in the URL.
    pub fn namespace(&self) -> Option<&str> {
        self.target.namespace.as_deref()
    }
    /// The store's key of an object of this resource and namespace.
    pub fn key(&self, name: &str) -> String {
        super::object::key(&self.resource, self.namespace(), name)
    }
    /// Adds a Warning header to the response.
    pub fn warn(&self, text: impl Into<String>) {
        let mut warnings = self.warnings.lock();
        if warnings.len() < MAX_WARNINGS {
            warnings.push(text.into());
        }
    }
    /// The warnings so far.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.lock().clone()
    }
    /// The present time as objects carry it.
    pub fn now(&self) -> String {
        timestamp(self.state.now())
    }
    /// 422 of an object of this kind.
    pub fn invalid(&self, name: &str, errors: &[FieldError]) -> ApiError {
        ApiError::invalid(&self.resource.names.group, &self.resource.names.kind, name, errors)
    }
    /// The object of a body that must be one of this server's option kinds.
    pub fn is_empty_body(&self) -> bool {
        self.body.iter().all(u8::is_ascii_whitespace)
    }
}

/// Whether nothing may be changed: `All` is the one value of `dryRun`. `kind` is the options' kind in errors.
pub(crate) fn dry_run(kind: &str, given: Vec<&str>) -> Result<bool, ApiError> {
    let given: Vec<&str> = given.into_iter().filter(|v| !v.is_empty()).collect();
    if given.iter().all(|v| *v == "All") {
        return Ok(!given.is_empty());
    }
    let list: Vec<String> = given.iter().map(|v| format!("{v:?}")).collect();
    let message = format!("Unsupported value: []string{{{}}}: supported values: \"All\"", list.join(", "));
    Err(invalid_options(kind, FieldError { field: "dryRun".into(), reason: "FieldValueNotSupported", message }))
}

fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// RFC 3339 in whole seconds, as `metav1.Time` prints it.
pub(crate) fn timestamp(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The successful Status of an operation on an object.
pub(crate) fn success(details: Value) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// The successful Status of a create that makes no object (a binding, an eviction).
pub(crate) fn created() -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})
}
