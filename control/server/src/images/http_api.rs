//! The image store over HTTP.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use bytes::Bytes;
use copepod_api::ApiError;
use copepod_api::image::{Digest, Tag};
use copepod_api::names::{GROUP_NODES, IMAGES_PATH};
use http::{HeaderMap, Method, StatusCode, header};
use tokio_util::io::ReaderStream;

use super::{ImageStore, unknown};
use crate::api::error::response as error_response;
use crate::identity::Identity;

/// Largest body of a tag.
const MAX_TAG_BODY: usize = 4096;
/// Bytes read from disk at a time.
const READ_CHUNK: usize = 64 * 1024;

impl ImageStore {
    /// The store's routes; behind [`crate::auth::guard`]. Node agents may read only.
    pub fn routes(self: &Arc<Self>) -> Router {
        Router::new()
            .route(&format!("{IMAGES_PATH}/blobs/{{digest}}"), get(get_blob).put(put_blob))
            .route(
                &format!("{IMAGES_PATH}/tags/{{name}}/{{tag}}"),
                get(get_tag).put(put_tag).layer(DefaultBodyLimit::max(MAX_TAG_BODY)),
            )
            .with_state(self.clone())
    }
}

/// An error as the client reads it.
struct Refused(ApiError);

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}
impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        error_response(&self.0, None)
    }
}

type Store = State<Arc<ImageStore>>;

async fn get_blob(State(store): Store, Path(digest): Path<String>, method: Method) -> Result<Response, Refused> {
    let digest = parse(&digest)?;
    let found = store.blob(&digest).await?;
    let (file, size) = found.ok_or_else(|| unknown(format!("the image store has no {digest}")))?;
    let body = match method {
        Method::HEAD => Body::empty(),
        _ => Body::from_stream(ReaderStream::with_capacity(file, READ_CHUNK)),
    };
    let headers = [
        (header::CONTENT_TYPE, "application/wasm".to_string()),
        (header::CONTENT_LENGTH, size.to_string()),
        (header::ETAG, format!("\"{digest}\"")),
    ];
    Ok((headers, body).into_response())
}

async fn put_blob(
    State(store): Store,
    Path(digest): Path<String>,
    Extension(identity): Extension<Identity>,
    request: Request,
) -> Result<StatusCode, Refused> {
    may_write(&identity)?;
    let length = content_length(request.headers());
    store.put_blob(&parse(&digest)?, length, request.into_body().into_data_stream()).await?;
    Ok(StatusCode::CREATED)
}

async fn get_tag(State(store): Store, Path((name, tag)): Path<(String, String)>) -> Result<Json<Tag>, Refused> {
    Ok(Json(store.tag(&name, &tag).await?))
}

async fn put_tag(
    State(store): Store,
    Path((name, tag)): Path<(String, String)>,
    Extension(identity): Extension<Identity>,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Refused> {
    may_write(&identity)?;
    let body = body.map_err(|e| match e.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::too_large(format!("a tag has at most {MAX_TAG_BODY} bytes")),
        _ => ApiError::bad_request(e.body_text()),
    })?;
    let expected = r#"expected {"digest": "sha256:HEX", "file": "NAME.wasm"}"#;
    let record: Tag = serde_json::from_slice(&body)
        .map_err(|e| ApiError::bad_request(format!("the tag is malformed: {e}; {expected}")))?;
    store.put_tag(&name, &tag, &record).await?;
    Ok(StatusCode::CREATED)
}

fn parse(digest: &str) -> Result<Digest, ApiError> {
    Ok(digest.parse::<Digest>()?)
}

/// Whoever runs guests must not change what others run.
fn may_write(identity: &Identity) -> Result<(), ApiError> {
    if identity.in_group(GROUP_NODES) {
        let why = format!("forbidden: User \"{}\" may read images only", identity.user);
        return Err(ApiError::new(403, "Forbidden", why));
    }
    Ok(())
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
