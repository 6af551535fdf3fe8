use super::*;
use axum::routing::get;
use copepod_api::names::GROUP_NODES;
use http_body_util::BodyExt;
use hyper::service::service_fn;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};

const WAIT: Duration = Duration::from_secs(20);

/// The agent's side: accepts streams and serves a router over HTTP/1.1 on each, until the tunnel ends.
async fn agent(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, router: Router) {
    let mut connection = yamux::Connection::new(io.compat(), yamux::Config::default(), yamux::Mode::Server);
    while let Some(Ok(stream)) = poll_fn(|cx| connection.poll_next_inbound(cx)).await {
        let router = router.clone();
        let service = service_fn(move |r: http::Request<hyper::body::Incoming>| {
            tower::ServiceExt::oneshot(router.clone(), r.map(Body::new))
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream.compat()), service),
        );
    }
}

fn says(text: &'static str) -> Router {
    let big = get(|| async { "x".repeat(3 << 20) });
    Router::new().route("/hello", get(move || async move { text })).route("/big", big)
}

async fn ask(dialer: &TunnelDialer, path: &str) -> String {
    let stream = dialer.dial("n1").await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get(path).header("host", "n1").body(Body::empty()).unwrap();
    let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

async fn until(mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WAIT, wait).await.expect("the condition never held");
}

/// A tunnel over a pipe; the agent serves `router`.
fn connect(dialer: &Arc<TunnelDialer>, router: Router) -> (tokio::task::JoinHandle<()>, tokio::task::JoinHandle<()>) {
    let (ours, theirs): (DuplexStream, DuplexStream) = tokio::io::duplex(64 << 10);
    let dialer = dialer.clone();
    (tokio::spawn(async move { dialer.run("n1", ours).await }), tokio::spawn(agent(theirs, router)))
}

#[tokio::test]
async fn carries_http_both_small_and_large_at_once() {
    let dialer = TunnelDialer::new();
    assert!(matches!(dialer.dial("n1").await.err(), Some(DialError::NotConnected(node)) if node == "n1"));
    let (_server, _agent) = connect(&dialer, says("hello"));
    until(|| dialer.is_connected("n1")).await;
    let all = (0..20).map(|i| ask(&dialer, if i % 2 == 0 { "/hello" } else { "/big" }));
    for (i, body) in tokio::time::timeout(WAIT, futures::future::join_all(all)).await.unwrap().iter().enumerate() {
        assert_eq!(body.len(), if i % 2 == 0 { 5 } else { 3 << 20 });
    }
}

#[tokio::test]
async fn the_newest_tunnel_wins_and_a_dead_one_is_forgotten() {
    let dialer = TunnelDialer::new();
    let (first, first_agent) = connect(&dialer, says("first"));
    until(|| dialer.is_connected("n1")).await;
    assert_eq!(ask(&dialer, "/hello").await, "first");
    let (second, second_agent) = connect(&dialer, says("second"));
    tokio::time::timeout(WAIT, first).await.expect("the old tunnel ends").unwrap();
    tokio::time::timeout(WAIT, first_agent).await.expect("its agent is told").unwrap();
    assert!(dialer.is_connected("n1"), "the old tunnel's end must not remove the new one");
    assert_eq!(ask(&dialer, "/hello").await, "second");
    second_agent.abort();
    tokio::time::timeout(WAIT, second).await.expect("a broken tunnel ends").unwrap();
    assert!(matches!(dialer.dial("n1").await.err(), Some(DialError::NotConnected(_))));
}

#[tokio::test]
async fn streams_are_bounded() {
    let dialer = TunnelDialer::new();
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let run = dialer.clone();
    tokio::spawn(async move { run.run("n1", ours).await });
    let mut config = yamux::Config::default();
    config.set_max_num_streams(4096);
    let mut connection = yamux::Connection::new(theirs.compat(), config, yamux::Mode::Server);
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Some(Ok(stream)) = poll_fn(|cx| connection.poll_next_inbound(cx)).await {
            let mut stream = stream.compat();
            kept.push(tokio::spawn(async move {
                // A byte each way, so that the stream is known to both sides.
                stream.write_all(b"!").await.unwrap();
                let _ = stream.read(&mut [0]).await;
            }));
        }
    });
    until(|| dialer.is_connected("n1")).await;
    let mut open = Vec::new();
    for _ in 0..MAX_STREAMS {
        let mut stream = tokio::time::timeout(WAIT, dialer.dial("n1")).await.unwrap().unwrap();
        stream.write_all(b"?").await.unwrap();
        stream.read_exact(&mut [0]).await.unwrap();
        open.push(stream);
    }
    let refused = dialer.dial("n1").await.err().unwrap().to_string();
    assert!(refused.contains("1024 streams are open already"), "{refused}");
    open.pop();
    assert!(dialer.dial("n1").await.is_ok(), "the tunnel lives on");
}

/// The route over real TCP, with an identity as the listener attaches it.
async fn serve(dialer: &Arc<TunnelDialer>, identity: Identity) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = dialer.routes().layer(axum::Extension(identity));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

async fn offer_from(address: std::net::SocketAddr, upgrade: Option<&str>) -> http::Response<hyper::body::Incoming> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let mut request = http::Request::post(TUNNEL_PATH).header("host", "x").body(Body::empty()).unwrap();
    if let Some(upgrade) = upgrade {
        request.headers_mut().insert("connection", "Upgrade".parse().unwrap());
        request.headers_mut().insert("upgrade", upgrade.parse().unwrap());
    }
    sender.send_request(request).await.unwrap()
}

#[tokio::test]
async fn agents_offer_tunnels_by_upgrade() {
    let dialer = TunnelDialer::new();
    let address = serve(&dialer, Identity::new("system:node:n1", &[GROUP_NODES])).await;
    assert_eq!(offer_from(address, None).await.status(), 400);
    let mut response = offer_from(address, Some(TUNNEL_UPGRADE)).await;
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers().get("upgrade").unwrap(), TUNNEL_UPGRADE);
    let io = TokioIo::new(hyper::upgrade::on(&mut response).await.unwrap());
    tokio::spawn(agent(io, says("over tcp")));
    until(|| dialer.is_connected("n1")).await;
    assert_eq!(ask(&dialer, "/hello").await, "over tcp");
    dialer.close();
    until(|| !dialer.is_connected("n1")).await;
}

#[tokio::test]
async fn only_agents_may_offer() {
    let dialer = TunnelDialer::new();
    for identity in [Identity::new("admin", &["system:masters"]), Identity::new("system:node:n1", &[])] {
        let address = serve(&dialer, identity).await;
        let response = offer_from(address, Some(TUNNEL_UPGRADE)).await;
        assert_eq!(response.status(), 403);
    }
    assert!(!dialer.is_connected("n1"));
}
