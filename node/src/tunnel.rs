//! The agent's side of its tunnel: dials the API server, upgrades the connection, and serves HTTP/1.1 on every stream
//! that the server opens. No port on the node is needed.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use bytes::Bytes;
use copepod_api::names::{TUNNEL_PATH, TUNNEL_UPGRADE};
use http::{HeaderValue, StatusCode, header};
use http_body_util::Empty;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use kube::client::ConfigExt;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use tokio_util::sync::CancellationToken;

/// Streams at once; the server opens fewer.
const MAX_STREAMS: usize = 2048;
/// Receive windows of all streams together; yamux's least for that many streams.
const WINDOW: usize = MAX_STREAMS * 256 * 1024;
/// The first delay before dialling again; doubles up to [`RETRY_MAX`].
pub const RETRY_INITIAL: Duration = Duration::from_millis(250);
/// The longest delay before dialling again.
pub const RETRY_MAX: Duration = Duration::from_secs(10);
/// How long the connection may take to be set up.
const SETUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The kubeconfig gives no TLS client.
    #[error("cannot set up TLS from the kubeconfig: {0}")]
    Tls(String),
    /// The connection failed.
    #[error("cannot reach the server: {0}")]
    Connect(String),
    /// The server does not upgrade the connection.
    #[error("the server refused the tunnel with {0}")]
    Refused(StatusCode),
}

/// Keeps a tunnel open until cancelled.
pub async fn keep_open(config: kube::Config, router: Router, stop: CancellationToken) {
    let mut delay = RETRY_INITIAL;
    loop {
        let opened = tokio::select! {
            opened = tokio::time::timeout(SETUP_TIMEOUT, open(&config)) => opened,
            () = stop.cancelled() => return,
        };
        match opened {
            Ok(Ok(io)) => {
                delay = RETRY_INITIAL;
                tracing::info!("tunnel to the server is open");
                serve(io, router.clone(), &stop).await;
                if stop.is_cancelled() {
                    return;
                }
                tracing::info!("tunnel to the server is closed");
            }
            Ok(Err(error)) => tracing::debug!("no tunnel: {error}"),
            Err(_) => tracing::debug!("no tunnel: the server did not answer in time"),
        }
        tokio::select! {
            () = tokio::time::sleep(delay.mul_f64(rand::random_range(0.5..1.0))) => {}
            () = stop.cancelled() => return,
        }
        delay = (delay * 2).min(RETRY_MAX);
    }
}

/// Dials the server and upgrades the connection.
async fn open(config: &kube::Config) -> Result<TokioIo<hyper::upgrade::Upgraded>, TunnelError> {
    let fail = |e: &dyn std::fmt::Display| TunnelError::Connect(e.to_string());
    let mut tls = config.rustls_client_config().map_err(|e| TunnelError::Tls(e.to_string()))?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let (host, port) = server_address(config);
    let name = config.tls_server_name.clone().unwrap_or_else(|| host.clone());
    let name = ServerName::try_from(name).map_err(|e| TunnelError::Tls(e.to_string()))?;
    let tcp = TcpStream::connect((host.as_str(), port)).await.map_err(|e| fail(&e))?;
    let _ = tcp.set_nodelay(true);
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await.map_err(|e| fail(&e))?;

    let handshake = hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| fail(&e))?;
    tokio::spawn(connection.with_upgrades());
    let mut request = http::Request::post(TUNNEL_PATH)
        .header(header::CONNECTION, HeaderValue::from_static("Upgrade"))
        .header(header::UPGRADE, HeaderValue::from_static(TUNNEL_UPGRADE))
        .header(header::CONTENT_LENGTH, HeaderValue::from_static("0"))
        .body(Empty::new())
        .map_err(|e| fail(&e))?;
    if let Ok(authority) = HeaderValue::from_str(&format!("{host}:{port}")) {
        request.headers_mut().insert(header::HOST, authority);
    }
    let response = sender.send_request(request).await.map_err(|e| fail(&e))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(TunnelError::Refused(response.status()));
    }
    hyper::upgrade::on(response).await.map(TokioIo::new).map_err(|e| fail(&e))
}

/// Host and port of the API server in a client's configuration; IPv6 addresses without brackets.
pub fn server_address(config: &kube::Config) -> (String, u16) {
    let host = config.cluster_url.host().unwrap_or("localhost").trim_start_matches('[').trim_end_matches(']');
    (host.to_string(), config.cluster_url.port_u16().unwrap_or(443))
}

/// Serves every stream that the other side opens, until the connection breaks or the agent stops.
pub async fn serve(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, router: Router, stop: &CancellationToken) {
    let mut config = yamux::Config::default();
    config.set_max_num_streams(MAX_STREAMS).set_max_connection_receive_window(Some(WINDOW));
    let mut connection = yamux::Connection::new(io.compat(), config, yamux::Mode::Server);
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => {
                let _ = tokio::time::timeout(Duration::from_secs(1), poll_fn(|cx| connection.poll_close(cx))).await;
                return;
            }
            inbound = poll_fn(|cx| connection.poll_next_inbound(cx)) => match inbound {
                Some(Ok(stream)) => {
                    let service = TowerToHyperService::new(router.clone());
                    streams.spawn(async move {
                        let io = TokioIo::new(stream.compat());
                        let served = hyper::server::conn::http1::Builder::new().serve_connection(io, service).with_upgrades().await;
                        if let Err(error) = served {
                            tracing::debug!("stream of the tunnel: {error}");
                        }
                    });
                }
                Some(Err(error)) => {
                    tracing::debug!("tunnel broke: {error}");
                    return;
                }
                None => return,
            },
            Some(_) = streams.join_next() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn streams_opened_by_the_server_reach_the_router() {
        let (near, far) = tokio::io::duplex(1 << 16);
        let stop = CancellationToken::new();
        let agent_stop = stop.clone();
        let agent = tokio::spawn(async move {
            serve(far, Router::new().route("/healthz", get(|| async { "ok" })), &agent_stop).await;
        });
        let mut connection = yamux::Connection::new(near.compat(), yamux::Config::default(), yamux::Mode::Client);
        let stream = poll_fn(|cx| connection.poll_new_outbound(cx)).await.unwrap();
        let driver =
            tokio::spawn(
                async move { while let Some(Ok(_)) = poll_fn(|cx| connection.poll_next_inbound(cx)).await {} },
            );
        let (mut sender, conn) =
            hyper::client::conn::http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream.compat())).await.unwrap();
        tokio::spawn(conn);
        let request = http::Request::get("/healthz").header("host", "node").body(Empty::new()).unwrap();
        let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert_eq!(&body[..], b"ok");
        stop.cancel();
        agent.await.unwrap();
        driver.await.unwrap();
    }
}
