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

/// The documents made so far, by path and media type. Only paths that exist are kept.
#[derive(Default)]
pub(crate) struct Documents {
    made: Mutex<BTreeMap<(String, &'static str), Document>>,
    /// Held while one is made: that takes some megabytes.
    making: tokio::sync::Mutex<()>,
}

impl Documents {
    fn get(&self, key: &(String, &'static str)) -> Option<Document> {
        self.made.lock().get(key).cloned()
    }
}

#[derive(Clone)]
struct Document {
    gzip: Bytes,
    etag: String,
    media_type: &'static str,
}

/// The form in which client-go asks for `/openapi/v2`: a gnostic `openapi.v2.Document`.
const PROTOBUF_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// Its older name, which is no valid media type and which kubectl still sends.
const PROTOBUF_V2_OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// GET below `/openapi/`: JSON, and for `/openapi/v2` protobuf, too.
pub(crate) async fn serve(state: &Arc<ApiState>, url: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
    let accepted = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    let url = url.trim_end_matches('/').to_string();
    let media_type = if url == "/openapi/v2" && wants_protobuf(accepted.unwrap_or_default()) {
        PROTOBUF_V2
    } else if Accept::negotiate(accepted, true)?.format == Format::Json {
        "application/json"
    } else {
        return Err(ApiError::not_acceptable("only the following media types are accepted: application/json"));
    };
    let key = (url, media_type);
    if let Some(document) = state.documents.get(&key) {
        return respond(headers, &document);
    }
    let _one = state.documents.making.lock().await;
    let document = match state.documents.get(&key) {
        Some(document) => document,
        None => make_apart(state.clone(), key).await?,
    };
    respond(headers, &document)
}

/// Makes a document on a thread that ends with it: it takes a while, and the next such thread finds the memory that
/// this one's allocator keeps, while each of a pool's threads would keep its own.
async fn make_apart(state: Arc<ApiState>, key: (String, &'static str)) -> Result<Document, ApiError> {
    let (done, made) = tokio::sync::oneshot::channel();
    let work = move || drop(done.send(make(&state, key)));
    std::thread::Builder::new().name("openapi".into()).spawn(work).map_err(ApiError::internal)?;
    made.await.map_err(ApiError::internal)?
}

/// Whether a protobuf form stands before JSON in an Accept header.
fn wants_protobuf(accepted: &str) -> bool {
    let first = accepted.split(',').map(|clause| clause.split(';').next().unwrap_or_default().trim());
    let mut served = first.filter(|t| matches!(*t, PROTOBUF_V2 | PROTOBUF_V2_OLD | "application/json" | "*/*"));
    served.next().is_some_and(|t| t == PROTOBUF_V2 || t == PROTOBUF_V2_OLD)
}

fn make(state: &ApiState, key: (String, &'static str)) -> Result<Document, ApiError> {
    let registry = &state.registry;
    let (url, media_type) = &key;
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
    let bytes = if *media_type == PROTOBUF_V2 { openapi::v2_protobuf(&value) } else { value.to_string().into_bytes() };
    drop(value);
    let etag = format!("\"{}\"", openapi::hash(&bytes));
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&bytes).map_err(ApiError::internal)?;
    let gzip = encoder.finish().map_err(ApiError::internal)?.into();
    let document = Document { gzip, etag, media_type };
    state.documents.made.lock().insert(key, document.clone());
    Ok(document)
}

fn respond(request: &HeaderMap, document: &Document) -> Result<Response, ApiError> {
    let known = request.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let fresh = known.is_some_and(|k| k.split(',').any(|tag| tag.trim().trim_start_matches("W/") == document.etag));
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(document.media_type));
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
