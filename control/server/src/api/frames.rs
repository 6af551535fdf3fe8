//! How a watch's events are framed: JSON lines, or lengths before protobuf messages
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/#alternate-representations-of-resources>).

use bytes::{BufMut, BytesMut};
use copepod_api::ApiError;
use copepod_core::codec;
use copepod_store::Record;
use serde_json::Value;

use super::accept::{Accept, Format, Shape};
use super::object;
use super::request::Request;

/// The field numbers of `metav1.WatchEvent`, and of the `runtime.RawExtension` in it.
const TYPE: u8 = 1;
const OBJECT: u8 = 2;
const RAW: u8 = 1;

/// The framing of one watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frames {
    /// An event is a JSON object and a newline.
    Json,
    /// An event is its length (32 bits, big-endian) and a `metav1.WatchEvent` in protobuf.
    Protobuf,
}

impl Frames {
    /// The framing for what a client accepts.
    ///
    /// # Errors
    /// 406 for YAML and for tables in protobuf, which have no stream form.
    pub fn of(accept: &Accept) -> Result<Self, ApiError> {
        match (accept.format, &accept.shape) {
            (Format::Json, _) => Ok(Self::Json),
            (Format::Protobuf, Shape::Full | Shape::Metadata(_)) => Ok(Self::Protobuf),
            _ => Err(ApiError::not_acceptable(
                "only the following media types are accepted: application/json, \
                 application/vnd.kubernetes.protobuf;stream=watch",
            )),
        }
    }

    /// The content type of the stream.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => codec::JSON,
            Self::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        }
    }

    /// Adds an event with a decoded object.
    pub fn object(self, out: &mut BytesMut, kind: &str, object: &Value) -> Result<(), ApiError> {
        match self {
            Self::Json => {
                let bytes = serde_json::to_vec(object).map_err(ApiError::internal)?;
                open(out, kind);
                out.extend_from_slice(&bytes);
                out.extend_from_slice(b"}\n");
            }
            Self::Protobuf => {
                let raw = codec::encode_protobuf(object).map_err(|e| ApiError::not_acceptable(e.to_string()))?;
                let mut event = BytesMut::with_capacity(raw.len() + kind.len() + 16);
                field(&mut event, TYPE, kind.as_bytes());
                put_key(&mut event, OBJECT, 1 + varint_len(raw.len()) + raw.len());
                field(&mut event, RAW, &raw);
                out.put_u32(u32::try_from(event.len()).map_err(ApiError::internal)?);
                out.extend_from_slice(&event);
            }
        }
        Ok(())
    }

    /// Adds an event with a stored object; JSON copies its bytes.
    pub fn record(self, out: &mut BytesMut, kind: &str, request: &Request, record: &Record) -> Result<(), ApiError> {
        match self {
            Self::Json => {
                open(out, kind);
                object::served_into(request, record, out)?;
                out.extend_from_slice(b"}\n");
                Ok(())
            }
            Self::Protobuf => self.object(out, kind, &object::decode(request, record)?),
        }
    }

    /// Adds an event with a stored object's `PartialObjectMetadata`; JSON copies its bytes.
    pub fn metadata(
        self,
        out: &mut BytesMut,
        kind: &str,
        version: &str,
        request: &Request,
        record: &Record,
    ) -> Result<(), ApiError> {
        match self {
            Self::Json => {
                open(out, kind);
                object::metadata_into(request, version, record, out)?;
                out.extend_from_slice(b"}\n");
                Ok(())
            }
            Self::Protobuf => {
                self.object(out, kind, &object::metadata_only(&object::decode(request, record)?, version))
            }
        }
    }
}

fn open(out: &mut BytesMut, kind: &str) {
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
}

fn field(out: &mut BytesMut, number: u8, bytes: &[u8]) {
    put_key(out, number, bytes.len());
    out.extend_from_slice(bytes);
}

/// The key of a length-delimited field (wire type 2), and its length.
fn put_key(out: &mut BytesMut, number: u8, length: usize) {
    out.put_u8(number << 3 | 2);
    let mut rest = length;
    while rest >= 0x80 {
        out.put_u8((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

fn varint_len(n: usize) -> usize {
    (usize::BITS - n.leading_zeros()).div_ceil(7).max(1) as usize
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn protobuf_events_have_their_length_before_them() {
        for size in [0, 100, 20_000] {
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"},
                "data": {"k": "x".repeat(size)}});
            let raw = codec::encode_protobuf(&object).unwrap();
            let mut out = BytesMut::new();
            Frames::Protobuf.object(&mut out, "ADDED", &object).unwrap();
            let (length, event) = out.split_at(4);
            assert_eq!(u32::from_be_bytes(length.try_into().unwrap()) as usize, event.len());
            assert_eq!(&event[..7], b"\x0a\x05ADDED");
            assert!(event.ends_with(&raw));
            assert_eq!(codec::decode(codec::PROTOBUF, &raw, None).unwrap().value["data"], object["data"]);
            // The lengths of the two wrappers around the object.
            let (mut n, mut at) = (0usize, 8);
            for shift in (0..).step_by(7) {
                n |= ((event[at] & 0x7f) as usize) << shift;
                at += 1;
                if event[at - 1] < 0x80 {
                    break;
                }
            }
            assert_eq!((event[7], n), (0x12, event.len() - at));
            assert_eq!(event[at], 0x0a);
        }
    }
}
