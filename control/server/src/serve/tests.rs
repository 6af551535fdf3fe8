mod abuse;

use super::*;
use crate::authorization::Trusted;
use axum::Extension;
use axum::routing::{get, post};
use copepod_api::names::GROUP_MASTERS;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::pki::{Pki, ServerNames};

const WAIT: Duration = Duration::from_secs(20);

struct Server {
    pki: Pki,
    address: SocketAddr,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    _dir: tempfile::TempDir,
}

async fn start(limits: Limits, router: Router) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let pki = Pki::open(dir.path()).unwrap();
    let names =
        ServerNames { service_ip: "10.43.0.1".parse().unwrap(), cluster_domain: "cluster.local".into(), extra: vec![] };
    let tls = pki.server_config(&names).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let router = router.layer(axum::middleware::from_fn_with_state(Trusted::shared(), crate::auth::guard));
    let task = tokio::spawn(serve(listener, tls, router, limits, shutdown.clone()));
    Server { pki, address, shutdown, task, _dir: dir }
}

fn who() -> Router {
    let echo = async |Extension(who): Extension<Identity>, Extension(peer): Extension<Peer>| {
        assert!(peer.0.ip().is_loopback());
        who.user
    };
    Router::new().route("/version", get(echo)).route("/api/v1/pods", get(echo))
}

fn client_config(ca: &str, identity: Option<(String, String)>, alpn: &[u8]) -> Arc<rustls::ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match identity {
        Some((cert, key)) => builder
            .with_client_auth_cert(
                vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    Arc::new(config)
}

impl Server {
    async fn connect(&self, identity: Option<(String, String)>, alpn: &[u8]) -> std::io::Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(client_config(self.pki.ca_pem(), identity, alpn));
        let tcp = TcpStream::connect(self.address).await?;
        connector.connect(ServerName::try_from("kubernetes.default.svc").unwrap(), tcp).await
    }

    async fn ask(&self, path: &str, identity: Option<(String, String)>) -> (u16, String) {
        let stream = self.connect(identity, b"h2").await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let request = Request::get(format!("https://kubernetes{path}")).body(Body::empty()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        let code = response.status().as_u16();
        let body = axum::body::to_bytes(Body::new(response.into_body()), 10_000).await.unwrap();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(WAIT, self.task).await.expect("the listener must stop").unwrap();
    }
}

#[tokio::test]
async fn certificates_decide_who_asks() {
    let server = start(Limits::default(), who()).await;
    assert_eq!(server.ask("/version", None).await, (200, "system:anonymous".into()));
    assert_eq!(server.ask("/api/v1/pods", None).await.0, 401);
    let admin = server.pki.issue_client("admin", GROUP_MASTERS).unwrap();
    assert_eq!(server.ask("/api/v1/pods", Some(admin)).await, (200, "admin".into()));
    let alice = server.pki.issue_client("alice", "people").unwrap();
    let (code, body) = server.ask("/api/v1/pods", Some(alice)).await;
    assert!(code == 403 && body.contains("alice"), "{body}");

    // Another CA's certificate ends the connection: with TLS 1.3 the client learns at its first read.
    let other = tempfile::tempdir().unwrap();
    let stranger = Pki::open(other.path()).unwrap().issue_client("admin", GROUP_MASTERS).unwrap();
    if let Ok(mut stream) = server.connect(Some(stranger), b"http/1.1").await {
        let _ = stream.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n").await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
    }
    server.stop().await;
}

#[tokio::test]
async fn http1_works_and_slow_handshakes_are_cut() {
    let limits = Limits { handshake: Duration::from_secs(2), connections: 1, ..Limits::default() };
    let server = start(limits, who()).await;
    // The only place is taken by someone who never speaks TLS; the bound frees it.
    let mut mute = TcpStream::connect(server.address).await.unwrap();
    let mut stream = tokio::time::timeout(WAIT, server.connect(None, b"http/1.1")).await.unwrap().unwrap();
    assert_eq!(mute.read(&mut [0]).await.unwrap(), 0, "cut off");
    stream.write_all(b"GET /version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("system:anonymous"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn shutdown_lets_requests_end_and_cuts_those_that_do_not() {
    let (entered, mut started) = tokio::sync::mpsc::channel::<()>(2);
    let gate = Arc::new(Semaphore::new(0));
    let (release, tell) = (gate.clone(), entered.clone());
    let router = Router::new()
        .route("/version", post(async || ""))
        .route(
            "/version/slow",
            get(move || async move {
                tell.send(()).await.unwrap();
                drop(gate.acquire().await);
                "done"
            }),
        )
        .route(
            "/version/never",
            get(move || async move {
                entered.send(()).await.unwrap();
                std::future::pending::<()>().await;
            }),
        );
    let server = Arc::new(start(Limits { drain: Duration::from_secs(3), ..Limits::default() }, router).await);
    let (a, b) = (server.clone(), server.clone());
    let slow = tokio::spawn(async move { a.ask("/version/slow", None).await });
    let never = tokio::spawn(async move { b.ask("/version/never", None).await });
    for _ in 0..2 {
        tokio::time::timeout(WAIT, started.recv()).await.unwrap().unwrap();
    }
    server.shutdown.cancel();
    // The listener closes before the drain.
    let closed = async { while TcpStream::connect(server.address).await.is_ok() {} };
    tokio::time::timeout(WAIT, closed).await.expect("no new connections");
    release.add_permits(1);
    assert_eq!(tokio::time::timeout(WAIT, slow).await.unwrap().unwrap(), (200, "done".into()));
    assert!(tokio::time::timeout(WAIT, never).await.unwrap().is_err(), "cut at the end of the drain");
}
