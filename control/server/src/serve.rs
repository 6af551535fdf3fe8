//! The TLS listener: connections in, each with the identity of its client certificate.

mod activity;
mod handshakes;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use self::activity::{Activity, Answer};
use self::handshakes::{Handshake, Handshakes};
use crate::auth::identity_of_certificate;
use crate::identity::Identity;

/// Bounds of a listener.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// TLS handshakes at once; one more ends the oldest of them.
    pub handshakes: usize,
    /// How long a TLS handshake may take.
    pub handshake: Duration,
    /// How long a client may take to send a request's head: the first one of its connection, with HTTP/1.1 each.
    pub head: Duration,
    /// How long a connection may stay without a request, as upstream's.
    pub idle: Duration,
    /// How long requests may go on after shutdown begins.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8192,
            handshakes: 1024,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(30),
            idle: Duration::from_secs(90),
            drain: Duration::from_secs(10),
        }
    }
}

/// Most bytes of a request's head with HTTP/1.1; more give 431 (a longer URL than 64 KiB: 414).
const HTTP1_HEAD: usize = 128 << 10;
/// Most header lines of a request with HTTP/1.1; more give 431.
const HTTP1_HEADERS: usize = 128;
/// Most bytes of a request's headers with HTTP/2, unpacked; more give 431. Selectors may be long.
const HTTP2_HEADERS: u32 = 64 << 10;
/// Streams that a client may reset before the server took them up, and streams that the server may reset for a
/// client's faults; more end the connection (CVE-2023-44487).
const HTTP2_PENDING_RESETS: usize = 20;
const HTTP2_FAULTY_RESETS: usize = 1024;
/// Requests at once on one HTTP/2 connection; watches count.
const HTTP2_STREAMS: u32 = 1000;
/// Receive windows: a component of many megabytes uploads at full speed.
const HTTP2_STREAM_WINDOW: u32 = 1 << 20;
const HTTP2_CONNECTION_WINDOW: u32 = 4 << 20;
/// A silent HTTP/2 peer is asked whether it is there.
const HTTP2_PING: Duration = Duration::from_secs(30);
/// Pause after an accept failed (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The address of a request's client; an extension of every request that came over the network.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Serves until `shutdown`, then stops accepting, lets running requests end within `limits.drain`, and returns. The
/// router's guard decides about requests whose connection has no client certificate. Long requests (watches) should end
/// on `shutdown` themselves.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let acceptor = TlsAcceptor::from(tls);
    let places = Arc::new(Semaphore::new(limits.connections));
    let handshakes = Handshakes::new(limits.handshakes);
    let tasks = TaskTracker::new();
    // Cancelled when the drain is over.
    let abort = CancellationToken::new();
    let _abort_on_drop = abort.clone().drop_guard();
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, peer, place)) = accepted else { continue };
        let connection = serve_connection(
            stream,
            peer,
            acceptor.clone(),
            handshakes.begin(),
            router.clone(),
            limits.clone(),
            shutdown.clone(),
        );
        let abort = abort.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = connection => {}
                () = abort.cancelled() => {}
            }
            drop(place);
        });
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(limits.drain, tasks.wait()).await.is_err() {
        tracing::info!(connections = tasks.len(), "closing connections that are still busy");
        abort.cancel();
        tasks.wait().await;
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, place)),
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    pending: Handshake,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let stream = tokio::select! {
        () = shutdown.cancelled() => return,
        () = pending.cut.cancelled() => return tracing::debug!(%peer, "too many TLS handshakes at once"),
        handshake = tokio::time::timeout(limits.handshake, acceptor.accept(stream)) => match handshake {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => return tracing::debug!(%peer, "TLS handshake took too long"),
        },
    };
    drop(pending);
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let identity: Option<Identity> = certificate.and_then(|c| identity_of_certificate(c));
    if certificate.is_some() && identity.is_none() {
        return tracing::debug!(%peer, "the client certificate names no user");
    }
    let activity = Activity::new();
    let requests = activity.clone();
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(Peer(peer));
        if let Some(identity) = &identity {
            request.extensions_mut().insert(identity.clone());
        }
        let open = requests.begin();
        let response = router.clone().oneshot(request);
        async move { Ok::<_, Infallible>(Answer::of(response.await.unwrap_or_else(|never| match never {}), open)) }
    });
    let builder = connection_builder(&limits);
    let mut connection = std::pin::pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = activity.idle(limits.head, limits.idle) => {
            connection.as_mut().graceful_shutdown();
            // A request may have come in between; a silent peer gets no more time.
            tokio::time::timeout(limits.drain, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, error, "connection ended");
    }
}

fn connection_builder(limits: &Limits) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_buf_size(HTTP1_HEAD)
        .max_headers(HTTP1_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_header_list_size(HTTP2_HEADERS)
        .max_pending_accept_reset_streams(HTTP2_PENDING_RESETS)
        .max_local_error_reset_streams(HTTP2_FAULTY_RESETS)
        .initial_stream_window_size(HTTP2_STREAM_WINDOW)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING);
    builder
}

#[cfg(test)]
mod tests;
