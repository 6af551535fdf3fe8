//! Responses: objects and lists in the negotiated format and shape.

use std::io::Write;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use copepod_api::ApiError;
use copepod_core::codec;
use copepod_core::resource::Resource;
use copepod_store::Record;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::accept::{Format, Shape};
use super::object::{self, metadata_only};
use super::read::ListPage;
use super::request::Request;

/// Responses at least this long are compressed for clients that accept gzip.
const GZIP_FROM: usize = 128 * 1024;

/// The object that an operation ended with.
pub(crate) enum Outcome {
    /// As stored.
    Stored(Record),
    /// Not in the store: a dry run's, or the last form of a deleted object.
    Unstored(Value),
}

impl Outcome {
    /// The object in JSON.
    pub fn bytes(&self, request: &Request) -> Result<Bytes, ApiError> {
        match self {
            Self::Stored(record) => object::served(request, record),
            Self::Unstored(value) => serde_json::to_vec(value).map(Into::into).map_err(ApiError::internal),
        }
    }
    /// The object decoded.
    pub fn value(&self, request: &Request) -> Result<Value, ApiError> {
        match self {
            Self::Stored(record) => object::decode(request, record),
            Self::Unstored(value) => Ok(value.clone()),
        }
    }
}

/// One object of the request's kind.
pub(crate) fn object(request: &Request, code: u16, outcome: &Outcome) -> Result<Response, ApiError> {
    match (&request.accept.format, &request.accept.shape, outcome) {
        (Format::Json, Shape::Full, _) => return Ok(respond(request, code, Format::Json, outcome.bytes(request)?)),
        (Format::Json, Shape::Metadata(version), Outcome::Stored(record)) => {
            let mut out = BytesMut::new();
            object::metadata_into(request, version, record, &mut out)?;
            return Ok(respond(request, code, Format::Json, out.freeze()));
        }
        _ => {}
    }
    let value = outcome.value(request)?;
    let value = match &request.accept.shape {
        Shape::Table(version) => Table::of(request, version).whole(
            std::slice::from_ref(&value),
            &json!({
                "resourceVersion": object::meta_str(&value, "resourceVersion")
            }),
        ),
        Shape::Metadata(version) => metadata_only(&value, version),
        Shape::Full | Shape::Discovery(_) => value,
    };
    plain(request, code, &value)
}

/// A list of objects of the request's kind.
pub(crate) fn list(request: &Request, page: &ListPage) -> Result<Response, ApiError> {
    if request.accept.format == Format::Json && matches!(request.accept.shape, Shape::Full | Shape::Metadata(_)) {
        return Ok(respond(request, 200, Format::Json, page.bytes(request)?.freeze()));
    }
    let items: Vec<Value> = page.records.iter().map(|r| object::decode(request, r)).collect::<Result<_, _>>()?;
    let meta = page.metadata();
    let value = match &request.accept.shape {
        Shape::Table(version) => Table::of(request, version).whole(&items, &meta),
        Shape::Metadata(version) => json!({
            "kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": meta,
            "items": items.iter().map(|o| metadata_only(o, version)).collect::<Vec<_>>(),
        }),
        Shape::Full | Shape::Discovery(_) => {
            let gvk = request.resource.gvk();
            json!({"kind": format!("{}List", gvk.kind), "apiVersion": gvk.api_version(), "metadata": meta, "items": items})
        }
    };
    plain(request, 200, &value)
}

/// Any value in the negotiated format.
pub(crate) fn plain(request: &Request, code: u16, value: &Value) -> Result<Response, ApiError> {
    let (format, bytes) = encode(request.accept.format, value)?;
    Ok(respond(request, code, format, bytes))
}

/// What is encoded in JSON already, in the negotiated format.
pub(crate) fn encoded(request: &Request, code: u16, json: Bytes) -> Result<Response, ApiError> {
    if request.accept.format == Format::Json {
        return Ok(respond(request, code, Format::Json, json));
    }
    let value = serde_json::from_slice(&json).map_err(ApiError::internal)?;
    plain(request, code, &value)
}

/// Encodes a value.
pub(crate) fn encode(format: Format, value: &Value) -> Result<(Format, Bytes), ApiError> {
    let bytes = match format {
        Format::Json => serde_json::to_vec(value).map_err(ApiError::internal)?,
        Format::Yaml => serde_saphyr::to_string(value).map_err(ApiError::internal)?.into_bytes(),
        Format::Protobuf => codec::encode_protobuf(value).map_err(|e| ApiError::not_acceptable(e.to_string()))?,
    };
    Ok((format, bytes.into()))
}

/// Turns objects into `meta.k8s.io` Tables.
pub(crate) struct Table<'a> {
    resource: &'a Resource,
    version: &'a str,
    include: Include,
    now: i64,
}

#[derive(Clone, Copy)]
enum Include {
    None,
    Metadata,
    Object,
}

impl<'a> Table<'a> {
    /// By the request's `includeObject`.
    pub fn of(request: &'a Request, version: &'a str) -> Self {
        let include = match request.query.get("includeObject") {
            Some("None") => Include::None,
            Some("Object") => Include::Object,
            _ => Include::Metadata,
        };
        Self { resource: &request.resource, version, include, now: request.state.now().as_second() }
    }
    /// A table with its column definitions.
    pub fn whole(&self, objects: &[Value], meta: &Value) -> Value {
        let mut table = self.rows_only(objects, meta);
        object::as_map(&mut table).insert("columnDefinitions".into(), json!(self.resource.strategy.columns()));
        table
    }
    /// A table as the later events of a watch carry it: no column definitions.
    pub fn rows_only(&self, objects: &[Value], meta: &Value) -> Value {
        let rows: Vec<Value> = objects.iter().map(|o| self.row(o)).collect();
        json!({
            "kind": "Table", "apiVersion": format!("meta.k8s.io/{}", self.version), "metadata": meta,
            "columnDefinitions": null, "rows": rows,
        })
    }
    fn row(&self, object: &Value) -> Value {
        let shown = match self.include {
            Include::None => Value::Null,
            Include::Metadata => metadata_only(object, self.version),
            Include::Object => object.clone(),
        };
        json!({"cells": self.resource.strategy.cells(object, self.now), "object": shown})
    }
}

fn respond(request: &Request, code: u16, format: Format, mut bytes: Bytes) -> Response {
    if format == Format::Json
        && request.query.flag("pretty")
        && let Ok(value) = serde_json::from_slice::<Value>(&bytes)
        && let Ok(pretty) = serde_json::to_vec_pretty(&value)
    {
        bytes = pretty.into();
    }
    let mut response = bytes_response(&request.headers, code, format.media_type(), bytes);
    for text in request.warnings() {
        let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
        let escaped: String = escaped.chars().filter(|c| !c.is_control()).collect();
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{escaped}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
    response
}

/// A response of bytes, compressed if they are long and the client takes it.
pub(crate) fn bytes_response(request: &HeaderMap, code: u16, media_type: &str, bytes: Bytes) -> Response {
    let gzip = bytes.len() >= GZIP_FROM && accepts_gzip(request);
    let compressed = if gzip { compress(&bytes) } else { None };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(media_type) {
        headers.insert(header::CONTENT_TYPE, value);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if compressed.is_some() {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    *response.body_mut() = Body::from(compressed.unwrap_or(bytes));
    response
}

/// Whether the client takes gzip.
pub(crate) fn accepts_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT_ENCODING).and_then(|v| v.to_str().ok()).unwrap_or_default();
    accepted.split(',').any(|part| {
        let mut words = part.split(';').map(str::trim);
        words.next() == Some("gzip") && words.all(|w| w != "q=0")
    })
}

fn compress(bytes: &[u8]) -> Option<Bytes> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(bytes.len() / 4), flate2::Compression::fast());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok().map(Into::into)
}
