//! Codecs: JSON, YAML and Kubernetes' protobuf to and from the JSON value form. All are bounded; none trusts its input.

pub mod json;
pub mod protobuf;
pub mod yaml;

use copepod_api::Gvk;
use serde_json::Value;

pub use protobuf::encode as encode_protobuf;

/// Content type of JSON.
pub const JSON: &str = "application/json";
/// Content type of YAML.
pub const YAML: &str = "application/yaml";
/// Content type of protobuf.
pub const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// Largest body that is decoded, in bytes: upstream's default request limit.
pub const MAX_BODY: usize = 3 * 1024 * 1024;
/// Most duplicate fields that one decode reports.
pub const MAX_DUPLICATES: usize = 100;

/// A decoded body.
#[derive(Debug, Clone, PartialEq)]
pub struct Decoded {
    /// The object, not yet judged by its schema.
    pub value: Value,
    /// Keys given twice (the last wins), worded as strict field validation reports them: `duplicate field "spec.x"`.
    pub duplicate_fields: Vec<String>,
}

/// Why a body was not decoded or an object not encoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Bad syntax: 400.
    #[error("{0}")]
    Malformed(String),
    /// No codec for the content type: 415.
    #[error(
        "the body of the request was in an unknown format - accepted media types include: {JSON}, {YAML}, {PROTOBUF}"
    )]
    UnsupportedMediaType(String),
    /// More than [`MAX_BODY`] bytes: 413.
    #[error("limit is {MAX_BODY}")]
    TooLarge,
    /// The kind has no protobuf form: 415 for a body, 406 for an answer.
    #[error("{0} has no protobuf form")]
    NoProtobuf(String),
}

/// Decodes a body by its content type (parameters are ignored; none means JSON). `hint` names the kind of a protobuf
/// body that does not say it itself.
///
/// # Errors
/// See [`CodecError`].
pub fn decode(content_type: &str, bytes: &[u8], hint: Option<&Gvk>) -> Result<Decoded, CodecError> {
    if bytes.len() > MAX_BODY {
        return Err(CodecError::TooLarge);
    }
    let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match media.as_str() {
        "" | JSON => json::decode(bytes),
        YAML | "application/x-yaml" | "text/yaml" => yaml::decode(bytes),
        PROTOBUF => protobuf::decode(bytes, hint).map(|value| Decoded { value, duplicate_fields: Vec::new() }),
        _ => Err(CodecError::UnsupportedMediaType(media)),
    }
}

#[cfg(test)]
mod tests;
