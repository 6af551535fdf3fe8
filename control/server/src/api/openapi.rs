//! `/openapi/v3`, its documents, and `/openapi/v2`. Documents are made when first asked for and kept compressed: the
//! registry does not change while the server runs.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use copepod_api::ApiError;
use copepod_core::schema::openapi;
use flate2::Compression;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use parking_lot::Mutex;
use serde_json::Value;

use super::ApiState;
use super::accept::{Accept, Format};
use super::present::accepts_gzip;

/// The documents made so far, by path. Only paths that exist are kept.
#[derive(Default)]
pub(crate) struct Documents(Mutex<BTreeMap<String, Document>>);

#[derive(Clone)]
struct Document {
    gzip: Bytes,
    etag: String,
}

/// The form in which kubectl asks for `/openapi/v2`: a gnostic `openapi.v2.Document`.
const PROTOBUF_V2: &str = "application/com.github.proto-openapi.spec.v2";

/// A document without paths or definitions. kubectl falls back to it for kinds that `/openapi/v3` does not know; it
/// skips its own validation of kinds that are not in it, and the server's field validation decides.
fn bare_protobuf_v2() -> Response {
    let text = |field: u8, value: &str| {
        let mut bytes = vec![field << 3 | 2, u8::try_from(value.len()).unwrap_or(0)];
        bytes.extend_from_slice(value.as_bytes());
        bytes
    };
    let (title, version) = (text(1, "Kubernetes"), text(2, "v1.36"));
    let info = [title, version].concat();
    let mut document = text(1, "2.0");
    document.extend([2 << 3 | 2, u8::try_from(info.len()).unwrap_or(0)]);
    document.extend(info);
    document.extend([8 << 3 | 2, 0]);
    let mut response = Response::new(Body::from(document));
    let kind = HeaderValue::from_static("application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// GET below `/openapi/`: JSON, and for `/openapi/v2` the bare protobuf form.
pub(crate) async fn serve(state: &Arc<ApiState>, url: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
    let accepted = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    if url.trim_end_matches('/') == "/openapi/v2"
        && accepted.is_some_and(|a| a.contains(PROTOBUF_V2) && !a.contains("json"))
    {
        return Ok(bare_protobuf_v2());
    }
    if Accept::negotiate(accepted, true)?.format != Format::Json {
        return Err(ApiError::not_acceptable("only the following media types are accepted: application/json"));
    }
    let url = url.trim_end_matches('/').to_string();
    let known = state.documents.0.lock().get(&url).cloned();
    let document = match known {
        Some(document) => document,
        None => {
            // A large document takes a while to make.
            let state = state.clone();
            let made = tokio::task::spawn_blocking(move || make(&state, &url));
            made.await.map_err(ApiError::internal)??
        }
    };
    respond(headers, &document)
}

fn make(state: &ApiState, url: &str) -> Result<Document, ApiError> {
    let registry = &state.registry;
    let value: Option<Value> = match url.strip_prefix("/openapi/").unwrap_or_default() {
        "v2" => Some(openapi::v2(registry)),
        "v3" => Some(openapi::index(registry)),
        path => match path.split('/').collect::<Vec<_>>().as_slice() {
            ["v3", "api", version] => openapi::group_version_document(registry, "", version),
            ["v3", "apis", group, version] => openapi::group_version_document(registry, group, version),
            _ => None,
        },
    };
    let value = value.ok_or_else(ApiError::no_such_path)?;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(value.to_string().as_bytes()).map_err(ApiError::internal)?;
    let gzip = encoder.finish().map_err(ApiError::internal)?.into();
    let document = Document { gzip, etag: format!("\"{}\"", openapi::hash(&value)) };
    state.documents.0.lock().insert(url.to_string(), document.clone());
    Ok(document)
}

fn respond(request: &HeaderMap, document: &Document) -> Result<Response, ApiError> {
    let known = request.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let fresh = known.is_some_and(|k| k.split(',').any(|tag| tag.trim().trim_start_matches("W/") == document.etag));
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding"));
    if let Ok(etag) = HeaderValue::from_str(&document.etag) {
        headers.insert(header::ETAG, etag);
    }
    if fresh {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else if accepts_gzip(request) {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        *response.body_mut() = Body::from(document.gzip.clone());
    } else {
        let mut plain = Vec::new();
        flate2::read::GzDecoder::new(&*document.gzip).read_to_end(&mut plain).map_err(ApiError::internal)?;
        *response.body_mut() = Body::from(plain);
    }
    Ok(response)
}
