//! Patch algorithms: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge patch. All are pure and run in
//! time linear in their input; the result is still to be decoded, defaulted and validated like any other body.

mod json;
mod merge;
mod strategic;

use copepod_api::ApiError;
use serde_json::{Value, json};

use crate::schema::Schema;

pub use json::{MAX_COPY_BYTES, MAX_DEPTH, MAX_OPERATIONS};
pub use strategic::go_value;

/// The patch types, server-side apply aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    /// `application/json-patch+json`.
    Json,
    /// `application/merge-patch+json`.
    Merge,
    /// `application/strategic-merge-patch+json`; only for built-in kinds (`Schema::source` is `None`).
    Strategic,
}

/// Why a patch was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch is not of its type's form: 400.
    #[error("{0}")]
    Malformed(String),
    /// The patch does not fit this object, such as a failed `test`: 422.
    #[error("{0}")]
    Rejected(String),
    /// The patch is over a limit: 413.
    #[error("{0}")]
    TooLarge(String),
}

impl PatchError {
    /// The error as the API reports it.
    pub fn api_error(&self) -> ApiError {
        match self {
            Self::Malformed(message) => ApiError::bad_request(message),
            Self::TooLarge(message) => ApiError::too_large(message),
            Self::Rejected(message) => {
                let lead = "the server rejected our request due to an error in our request";
                let mut e = ApiError::new(422, "Invalid", lead);
                e.details = Some(json!({"causes": [{"reason": "UnexpectedServerResponse", "message": message}]}));
                e
            }
        }
    }
}

/// Applies a patch body to an object.
///
/// # Errors
/// [`PatchError`], whose `api_error` has the code that the API gives it.
pub fn apply(kind: PatchKind, schema: &Schema, original: &Value, patch: &Value) -> Result<Value, PatchError> {
    match kind {
        PatchKind::Json => json::apply(original, patch),
        PatchKind::Merge => merge::apply(original, patch),
        PatchKind::Strategic => strategic::apply(schema, original, patch),
    }
}
