//! Kubernetes' protobuf: a magic number, an envelope that names the kind, and the kind's message. One transcoder,
//! driven by descriptors and the Go types' JSON facts (`data/README.md`), serves every built-in kind.

mod facts;
mod from_json;
mod to_json;

use std::sync::LazyLock;

use copepod_api::Gvk;
use prost::Message;
use prost::bytes::Bytes;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::Value;

pub(crate) use facts::fact;

use super::CodecError;
use crate::schema;

/// What every body starts with.
const MAGIC: &[u8] = b"k8s\0";
/// The package of metadata types: options have no definition of their own in every group.
const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1";

static DESCRIPTORS: &[u8] = include_bytes!("../../../data/descriptors.pb.gz");

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    schema::inflate(DESCRIPTORS).and_then(|set| DescriptorPool::decode(set.as_slice()).ok()).unwrap_or_default()
});

/// The envelope (`runtime.Unknown`) around a message.
#[derive(Clone, PartialEq, Message)]
struct Unknown {
    #[prost(message, optional, tag = "1")]
    type_meta: Option<TypeMeta>,
    #[prost(bytes = "bytes", optional, tag = "2")]
    raw: Option<Bytes>,
    #[prost(string, optional, tag = "3")]
    content_encoding: Option<String>,
    #[prost(string, optional, tag = "4")]
    content_type: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeMeta {
    #[prost(string, optional, tag = "1")]
    api_version: Option<String>,
    #[prost(string, optional, tag = "2")]
    kind: Option<String>,
}

/// Whether a body has the protobuf magic number.
pub fn is_protobuf(bytes: &[u8]) -> bool {
    bytes.starts_with(MAGIC)
}

/// Decodes a body to the JSON form that Go's own types would print. Fields that this version does not know are
/// dropped, as upstream does.
///
/// # Errors
/// [`CodecError::Malformed`] for anything that is not a message of the named kind, [`CodecError::NoProtobuf`] if the
/// kind has no message here.
pub fn decode(bytes: &[u8], hint: Option<&Gvk>) -> Result<Value, CodecError> {
    let malformed = |e: prost::DecodeError| CodecError::Malformed(format!("invalid protobuf: {e}"));
    let Some(body) = bytes.strip_prefix(MAGIC) else {
        return Err(CodecError::Malformed(
            "provided data does not appear to be a protobuf message, expected prefix 6b 38 73 00".to_owned(),
        ));
    };
    let envelope = Unknown::decode(body).map_err(malformed)?;
    if envelope.content_encoding.is_some_and(|e| !e.is_empty()) {
        return Err(CodecError::Malformed("invalid protobuf: encoded content is not supported".to_owned()));
    }
    let meta = envelope.type_meta.unwrap_or_default();
    let gvk = match (meta.kind.filter(|k| !k.is_empty()), hint) {
        (Some(kind), _) => Gvk::from_api_version(meta.api_version.as_deref().unwrap_or_default(), &kind),
        (None, Some(hint)) => hint.clone(),
        (None, None) => return Err(CodecError::Malformed("invalid protobuf: the envelope names no kind".to_owned())),
    };
    let descriptor = message_of(&gvk)?;
    let message = DynamicMessage::decode(descriptor, envelope.raw.unwrap_or_default()).map_err(malformed)?;
    let mut value = to_json::message(&message)?;
    if let Some(object) = value.as_object_mut() {
        object.insert("apiVersion".to_owned(), gvk.api_version().into());
        object.insert("kind".to_owned(), gvk.kind.into());
    }
    Ok(value)
}

/// Encodes an object or list that names its apiVersion and kind.
///
/// # Errors
/// [`CodecError::NoProtobuf`] if the kind has no message (custom resources, tables), [`CodecError::Malformed`] if a
/// value is not of its field's type.
pub fn encode(object: &Value) -> Result<Vec<u8>, CodecError> {
    let text = |key| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let gvk = Gvk::from_api_version(text("apiVersion"), text("kind"));
    let message = from_json::message(&message_of(&gvk)?, object, 0)?;
    let envelope = Unknown {
        type_meta: Some(TypeMeta { api_version: Some(gvk.api_version()), kind: Some(gvk.kind) }),
        raw: Some(message.encode_to_vec().into()),
        content_encoding: Some(String::new()),
        content_type: Some(String::new()),
    };
    let mut out = Vec::with_capacity(MAGIC.len() + envelope.encoded_len());
    out.extend_from_slice(MAGIC);
    envelope.encode(&mut out).map_err(|e| CodecError::Malformed(e.to_string()))?;
    Ok(out)
}

/// Whether a kind has a protobuf form.
pub fn supports(gvk: &Gvk) -> bool {
    message_of(gvk).is_ok()
}

/// The protobuf message of an OpenAPI definition: `io.k8s.api.core.v1.Pod` is `k8s.io.api.core.v1.Pod`; packages have no
/// dashes.
pub(crate) fn message_name(definition: &str) -> Option<String> {
    definition.strip_prefix("io.k8s.").map(|name| format!("k8s.io.{}", name.replace('-', "_")))
}

fn message_of(gvk: &Gvk) -> Result<MessageDescriptor, CodecError> {
    let name = match schema::builtin_name(gvk).and_then(message_name) {
        Some(name) => name,
        // Options and Status are the same message in every group; metadata alone has a group of its own.
        None if gvk.kind.ends_with("Options") || gvk.kind == "Status" || gvk.group == "meta.k8s.io" => {
            format!("{META}.{}", gvk.kind)
        }
        None => return Err(CodecError::NoProtobuf(gvk.to_string())),
    };
    POOL.get_message_by_name(&name).ok_or_else(|| CodecError::NoProtobuf(gvk.to_string()))
}
