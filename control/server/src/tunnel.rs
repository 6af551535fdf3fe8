//! Tunnels to node agents. An agent asks for `POST /copepod/v1/tunnel` with `Upgrade: copepod-tunnel`; after 101 the
//! connection carries yamux, on which this side opens streams and the agent serves HTTP/1.1 on each.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use copepod_api::ApiError;
use copepod_api::names::{TUNNEL_PATH, TUNNEL_UPGRADE};
use http::{HeaderValue, StatusCode, header};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use tokio_util::sync::CancellationToken;

use crate::api::error::response as error_response;
use crate::auth::node_of;
use crate::dialer::{DialError, NodeDialer, NodeStream};
use crate::identity::Identity;

/// Streams to one node at once; a further `dial` fails.
pub const MAX_STREAMS: usize = 1024;
/// Streams that yamux itself allows: closed ones linger until both sides know.
const YAMUX_STREAMS: usize = 2 * MAX_STREAMS;
/// Receive windows of all streams of a tunnel together; yamux's least for that many streams.
const YAMUX_WINDOW: usize = YAMUX_STREAMS * 256 * 1024;
/// How long opening a stream may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the connection may take to change over after 101.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a tunnel may take to say goodbye.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Dials that wait for one tunnel's driver.
const QUEUE: usize = 64;

/// The tunnels that agents have open to this server, by node.
#[derive(Default)]
pub struct TunnelDialer {
    tunnels: Mutex<Tunnels>,
}

#[derive(Default)]
struct Tunnels {
    by_node: HashMap<String, Tunnel>,
    next_id: u64,
}

#[derive(Clone)]
struct Tunnel {
    id: u64,
    opener: mpsc::Sender<OpenRequest>,
    streams: Arc<Semaphore>,
    stop: CancellationToken,
}

type OpenRequest = oneshot::Sender<Result<yamux::Stream, yamux::ConnectionError>>;

impl TunnelDialer {
    /// No tunnels yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The route on which agents offer their tunnels; behind [`crate::auth::guard`].
    pub fn routes(self: &Arc<Self>) -> Router {
        Router::new().route(TUNNEL_PATH, post(offer)).with_state(self.clone())
    }

    /// Whether a node's agent has a tunnel open.
    pub fn is_connected(&self, node: &str) -> bool {
        self.tunnels.lock().by_node.contains_key(node)
    }

    /// Closes all tunnels, at shutdown.
    pub fn close(&self) {
        self.tunnels.lock().by_node.drain().for_each(|(_, tunnel)| tunnel.stop.cancel());
    }

    /// Uses a connection as a node's tunnel until it breaks or a newer one takes its place.
    pub async fn run(&self, node: &str, io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let mut config = yamux::Config::default();
        config.set_max_num_streams(YAMUX_STREAMS).set_max_connection_receive_window(Some(YAMUX_WINDOW));
        let connection = yamux::Connection::new(io.compat(), config, yamux::Mode::Client);
        let (opener, requests) = mpsc::channel(QUEUE);
        let (id, stop) = self.register(node, opener);
        tracing::info!(node, "the node's tunnel is open");
        let why = drive(connection, requests, stop.clone()).await;
        let mut tunnels = self.tunnels.lock();
        if tunnels.by_node.get(node).is_some_and(|t| t.id == id) {
            tunnels.by_node.remove(node);
        }
        tracing::info!(node, why, "the node's tunnel is closed");
    }

    fn register(&self, node: &str, opener: mpsc::Sender<OpenRequest>) -> (u64, CancellationToken) {
        let mut tunnels = self.tunnels.lock();
        let (id, stop) = (tunnels.next_id, CancellationToken::new());
        tunnels.next_id += 1;
        let tunnel = Tunnel { id, opener, streams: Arc::new(Semaphore::new(MAX_STREAMS)), stop: stop.clone() };
        if let Some(old) = tunnels.by_node.insert(node.into(), tunnel) {
            old.stop.cancel();
        }
        (id, stop)
    }
}

#[async_trait]
impl NodeDialer for TunnelDialer {
    async fn dial(&self, node: &str) -> Result<Box<dyn NodeStream>, DialError> {
        let tunnel = self.tunnels.lock().by_node.get(node).cloned();
        let tunnel = tunnel.ok_or_else(|| DialError::NotConnected(node.into()))?;
        let broken = |why: String| DialError::Broken { node: node.into(), why };
        let place = tunnel.streams.clone().try_acquire_owned();
        let place = place.map_err(|_| broken(format!("{MAX_STREAMS} streams are open already")))?;
        let open = async {
            let (reply, answer) = oneshot::channel();
            tunnel.opener.send(reply).await.map_err(|_| broken("the tunnel closed".into()))?;
            answer.await.map_err(|_| broken("the tunnel closed".into()))?.map_err(|e| broken(e.to_string()))
        };
        let stream =
            tokio::time::timeout(OPEN_TIMEOUT, open).await.map_err(|_| broken("it took too long".into()))??;
        Ok(Box::new(Dialed { stream: stream.compat(), _place: place }))
    }
}

/// A stream that gives its place back when dropped.
struct Dialed {
    stream: Compat<yamux::Stream>,
    _place: OwnedSemaphorePermit,
}

impl AsyncRead for Dialed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}
impl AsyncWrite for Dialed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Moves a tunnel's frames and opens streams on request, until it ends; says why.
async fn drive<T>(
    mut connection: yamux::Connection<T>,
    mut requests: mpsc::Receiver<OpenRequest>,
    stop: CancellationToken,
) -> String
where
    T: futures::AsyncRead + futures::AsyncWrite + Unpin,
{
    let mut waiting: Option<OpenRequest> = None;
    let ended = poll_fn(|cx| {
        loop {
            if waiting.is_none() {
                waiting = match requests.poll_recv(cx) {
                    Poll::Ready(Some(request)) => Some(request),
                    // The registry dropped this tunnel; `stop` says so too.
                    Poll::Ready(None) | Poll::Pending => None,
                };
            }
            if let Some(request) = waiting.take() {
                if request.is_closed() {
                    continue;
                }
                match connection.poll_new_outbound(cx) {
                    Poll::Ready(stream) => {
                        let _ = request.send(stream);
                        continue;
                    }
                    Poll::Pending => waiting = Some(request),
                }
            }
            return match connection.poll_next_inbound(cx) {
                // Agents open no streams; dropping one resets it.
                Poll::Ready(Some(Ok(_))) => continue,
                Poll::Ready(Some(Err(e))) => Poll::Ready(e.to_string()),
                Poll::Ready(None) => Poll::Ready("the agent closed it".into()),
                Poll::Pending => Poll::Pending,
            };
        }
    });
    tokio::select! {
        why = ended => return why,
        () = stop.cancelled() => {}
    }
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, poll_fn(|cx| connection.poll_close(cx))).await;
    "a newer one took its place, or the server is stopping".into()
}

/// Answers an agent's offer.
async fn offer(State(tunnels): State<Arc<TunnelDialer>>, request: Request) -> Response {
    match accept(&tunnels, request) {
        Ok(response) => response,
        Err(error) => error_response(&error, None),
    }
}

fn accept(tunnels: &Arc<TunnelDialer>, mut request: Request) -> Result<Response, ApiError> {
    let node = request.extensions().get::<Identity>().and_then(node_of).map(str::to_string);
    let node =
        node.ok_or_else(|| ApiError::new(403, "Forbidden", "forbidden: only a node's agent may offer a tunnel"))?;
    let asked = request
        .headers()
        .get(header::UPGRADE)
        .is_some_and(|u| u.as_bytes().eq_ignore_ascii_case(TUNNEL_UPGRADE.as_bytes()));
    if !asked {
        return Err(ApiError::bad_request(format!(
            "a tunnel is asked for with `Upgrade: {TUNNEL_UPGRADE}` over HTTP/1.1"
        )));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let tunnels = tunnels.clone();
    tokio::spawn(async move {
        match tokio::time::timeout(UPGRADE_TIMEOUT, upgrade).await {
            Ok(Ok(connection)) => tunnels.run(&node, TokioIo::new(connection)).await,
            Ok(Err(error)) => tracing::warn!(node, %error, "the node's tunnel did not come up"),
            Err(_) => tracing::warn!(node, "the node's tunnel did not come up in time"),
        }
    });
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static(TUNNEL_UPGRADE)),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers, Body::empty()).into_response())
}

#[cfg(test)]
mod tests;
