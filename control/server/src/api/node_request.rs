//! One request to a node's agent, over a stream of its own through the [`crate::dialer::NodeDialer`].

use std::time::Duration;

use copepod_api::ApiError;
use http::{header, request, response::Response};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde_json::Value;

use super::request::Request;

/// How long a node may take to begin its answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// Most bytes of a node's error text that reach the client.
const MAX_ERROR_BYTES: usize = 16 * 1024;

/// Sends a request without a body; the answer may be an upgrade.
///
/// # Errors
/// 503 for a node that cannot be reached or does not answer in time.
pub(crate) async fn send(request: &Request, node: &str, ask: request::Builder) -> Result<Response<Incoming>, ApiError> {
    let io = request.state.dialer.dial(node).await.map_err(|e| ApiError::unavailable(e.to_string()))?;
    let broken = |e: hyper::Error| ApiError::unavailable(format!("the connection to node {node} broke: {e}"));
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await.map_err(broken)?;
    // Ends when the response body is read or dropped, or with the upgraded stream.
    tokio::spawn(async move {
        if let Err(e) = connection.with_upgrades().await {
            tracing::debug!(error = %e, "connection to a node ended");
        }
    });
    let ask = ask.header(header::HOST, node).body(Empty::<bytes::Bytes>::new()).map_err(ApiError::internal)?;
    let silent = |_| ApiError::unavailable(format!("node {node} gave no answer within {} s", ANSWER_LIMIT.as_secs()));
    tokio::time::timeout(ANSWER_LIMIT, sender.send_request(ask)).await.map_err(silent)?.map_err(broken)
}

/// A node's refusal in upstream's form: its text is the message.
pub(crate) async fn refusal(answer: Response<Incoming>) -> ApiError {
    let code = answer.status().as_u16();
    let body = Limited::new(answer.into_body(), MAX_ERROR_BYTES).collect().await;
    let body = body.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    let text = text.trim();
    // The agent may answer with a Status already.
    let message = serde_json::from_str::<Value>(text).ok().and_then(|v| Some(v.get("message")?.as_str()?.to_string()));
    let message = message.unwrap_or_else(|| text.to_string());
    match code {
        400 => ApiError::bad_request(message),
        404 => ApiError::new(404, "NotFound", message),
        _ => ApiError::internal(message),
    }
}
