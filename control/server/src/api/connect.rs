//! exec, attach, portforward and proxy: routes that connect a client to a pod, a Service or a node. exec and attach are
//! passed on to the node's agent as they come, WebSocket and all; the others are checked as upstream does and then
//! refused with 501, since the nodes do not serve them yet.

use axum::body::Body;
use axum::response::Response;
use copepod_api::image::encode_segment;
use copepod_api::{ApiError, GroupResource};
use http::{HeaderName, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::AsyncWriteExt;

use super::request::Request;
use super::{log, node_request, object};

/// Headers of a WebSocket's handshake, both ways.
const HANDSHAKE: [HeaderName; 6] = [
    header::CONNECTION,
    header::UPGRADE,
    header::SEC_WEBSOCKET_KEY,
    header::SEC_WEBSOCKET_VERSION,
    header::SEC_WEBSOCKET_PROTOCOL,
    header::SEC_WEBSOCKET_ACCEPT,
];
/// Parameters of `v1.PodExecOptions` and `v1.PodAttachOptions` that the node takes.
const PASSED: [&str; 5] = ["command", "stdin", "stdout", "stderr", "tty"];

/// Connects a client that may change its connection's protocol.
///
/// # Errors
/// 404 for an object that is not there, 400 for a container that the pod has not or a pod that runs nowhere, the
/// node's refusal, or 501 for what the nodes do not serve.
pub(crate) async fn connect(request: &Request, sub: &str, client: Option<OnUpgrade>) -> Result<Response, ApiError> {
    let place = check(request, sub)?;
    if let ("exec" | "attach", Some(Place { node, container })) = (sub, place) {
        let namespace = request.namespace().unwrap_or_default();
        let path = format!("/{sub}/{namespace}/{}/{container}{}", request.name(), query(request));
        return relay(request, &node, &path, client).await;
    }
    let GroupResource { resource, .. } = request.group_resource();
    let why = format!("{sub} of {resource} is not implemented: this server's nodes do not serve it yet");
    Err(ApiError::new(501, "NotImplemented", why))
}

/// Where a pod's container is.
struct Place {
    node: String,
    container: String,
}

fn check(request: &Request, sub: &str) -> Result<Option<Place>, ApiError> {
    // `scheme:name:port` of a proxy.
    let whole = request.name();
    let name = match (sub, whole.split(':').collect::<Vec<_>>().as_slice()) {
        ("proxy", [_, name, _] | [name, _]) => (*name).to_string(),
        _ => whole.to_string(),
    };
    let record = request.state.store.get(&request.key(&name));
    let record = record.ok_or_else(|| ApiError::not_found(&request.group_resource(), &name))?;
    if request.resource.names.plural != "pods" || sub == "proxy" {
        return Ok(None);
    }
    let pod = object::decode(request, &record)?;
    let asked = request.query.get("container");
    let container = if sub == "portforward" { "" } else { log::container(&pod, &name, asked)? };
    let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
    if node.is_empty() {
        return Err(ApiError::bad_request(format!("pod {name} does not have a host assigned")));
    }
    Ok(Some(Place { node: node.into(), container: container.into() }))
}

fn query(request: &Request) -> String {
    let pairs: Vec<String> = PASSED
        .iter()
        .flat_map(|name| request.query.all(name).into_iter().map(move |v| format!("{name}={}", encode_segment(v))))
        .collect();
    format!("?{}", pairs.join("&"))
}

/// Passes the handshake on to the node, then bytes both ways until either side ends, or the server does.
async fn relay(request: &Request, node: &str, path: &str, client: Option<OnUpgrade>) -> Result<Response, ApiError> {
    let mut ask = http::Request::get(path);
    // Without a connection that can change its protocol the node refuses, and says what to use.
    for name in HANDSHAKE.iter().filter(|_| client.is_some()) {
        for value in request.headers.get_all(name) {
            ask = ask.header(name, value);
        }
    }
    let answer = node_request::send(request, node, ask).await?;
    let (StatusCode::SWITCHING_PROTOCOLS, Some(client)) = (answer.status(), client) else {
        return Err(node_request::refusal(answer).await);
    };
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for name in &HANDSHAKE {
        if let Some(value) = answer.headers().get(name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    let shutdown = request.state.shutdown.clone();
    tokio::spawn(async move {
        let carry = async {
            let (client, node) =
                futures::try_join!(client, hyper::upgrade::on(answer)).map_err(std::io::Error::other)?;
            let (mut from_client, mut to_client) = tokio::io::split(TokioIo::new(client));
            let (mut from_node, mut to_node) = tokio::io::split(TokioIo::new(node));
            // A WebSocket has no half-closed state: who ends one direction ends both.
            tokio::select! {
                sent = tokio::io::copy(&mut from_client, &mut to_node) => sent,
                answered = tokio::io::copy(&mut from_node, &mut to_client) => {
                    to_client.shutdown().await?;
                    answered
                }
            }
        };
        tokio::select! {
            carried = carry => if let Err(error) = carried {
                tracing::debug!(%error, "a stream between a client and a node ended");
            },
            () = shutdown.cancelled() => {}
        }
    });
    Ok(response)
}
