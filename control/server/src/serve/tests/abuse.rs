//! Clients that are slow, mute or in a flood: they are cut, and others are served.

use super::*;

/// Times so short that a client is cut soon, and others so long that they cut nobody here.
const SOON: Duration = Duration::from_millis(200);
const NEVER: Duration = Duration::from_secs(3600);

fn limits() -> Limits {
    Limits { handshake: NEVER, head: NEVER, idle: NEVER, drain: Duration::from_secs(5), ..Limits::default() }
}

/// What the server sends until it closes.
async fn rest(stream: &mut TlsStream<TcpStream>) -> Vec<u8> {
    let mut answer = Vec::new();
    // A server may close without a TLS farewell.
    let read = tokio::time::timeout(WAIT, stream.read_to_end(&mut answer)).await;
    let _ = read.expect("the server closes the connection");
    answer
}

async fn text(stream: &mut TlsStream<TcpStream>) -> String {
    String::from_utf8_lossy(&rest(stream).await).into_owned()
}

impl Server {
    /// Somebody else is served.
    async fn serves(&self) {
        let asked = tokio::time::timeout(WAIT, self.ask("/version", None)).await.expect("others are served");
        assert_eq!(asked, (200, "system:anonymous".into()));
    }
}

#[tokio::test]
async fn who_says_nothing_or_too_little_is_cut() {
    let server = start(Limits { head: SOON, ..limits() }, who()).await;
    for (alpn, said) in [
        (&b"h2"[..], &b""[..]),
        (b"h2", b"PRI * HTTP/2.0\r\n"),
        (b"h2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (b"h2", PREFACE),
        (b"http/1.1", b""),
        (b"http/1.1", b"G"),
        (b"http/1.1", b"GET /version HTTP/1.1\r\nhost: x\r\nx-slow: "),
    ] {
        let mut stream = server.connect(None, alpn).await.unwrap();
        stream.write_all(said).await.unwrap();
        let answer = text(&mut stream).await;
        assert!(!answer.contains("200"), "{answer}");
    }
    server.serves().await;
    server.stop().await;
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_cut() {
    let server = start(Limits { head: SOON, ..limits() }, who()).await;
    let stream = server.connect(None, b"http/1.1").await.unwrap();
    let (mut reader, mut writer) = tokio::io::split(stream);
    // A byte now and then does not buy more time.
    let drip = async {
        while writer.write_all(b"x").await.is_ok() && writer.flush().await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    let closed = async {
        let mut answer = Vec::new();
        let _ = reader.read_to_end(&mut answer).await;
    };
    tokio::time::timeout(WAIT, async {
        tokio::select! { () = drip => {}, () = closed => {} }
    })
    .await
    .expect("cut");
    server.serves().await;
    server.stop().await;
}

#[tokio::test]
async fn idle_connections_are_closed_and_busy_ones_are_not() {
    let (release, gate) = tokio::sync::oneshot::channel::<()>();
    let gate = Arc::new(tokio::sync::Mutex::new(Some(gate)));
    // A watch: its body goes on long after the head.
    let router = who().route(
        "/version/watch",
        get(move || async move {
            let gate = gate.lock().await.take().unwrap();
            Body::from_stream(futures::stream::once(async move { gate.await.map(|()| "end") }))
        }),
    );
    let server = start(Limits { idle: SOON, ..limits() }, router).await;
    for alpn in [&b"h2"[..], b"http/1.1"] {
        let stream = server.connect(None, alpn).await.unwrap();
        let ended = if alpn == b"h2" {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            let ended = tokio::spawn(connection);
            let request = Request::get("https://kubernetes/version").body(Body::empty()).unwrap();
            assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
            tokio::time::timeout(WAIT, ended).await.map(|_| sender.is_closed())
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            let ended = tokio::spawn(connection);
            let request = Request::get("/version").header("host", "x").body(Body::empty()).unwrap();
            assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
            tokio::time::timeout(WAIT, ended).await.map(|_| sender.is_closed())
        };
        assert_eq!(ended.ok(), Some(true), "closed while nothing was asked");
    }
    // Idle connections come and go while the watch is open.
    let stream = server.connect(None, b"h2").await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://kubernetes/version/watch").body(Body::empty()).unwrap();
    let watch = sender.send_request(request).await.unwrap();
    for _ in 0..3 {
        let mut idle = server.connect(None, b"h2").await.unwrap();
        idle.write_all(&[PREFACE, &headers(1, b"/version")].concat()).await.unwrap();
        assert!(!rest(&mut idle).await.is_empty());
    }
    release.send(()).unwrap();
    let body = axum::body::to_bytes(Body::new(watch.into_body()), 100).await.unwrap();
    assert_eq!(body, "end");
    server.stop().await;
}

#[tokio::test]
async fn handshakes_that_never_end_make_place_for_others() {
    let server = start(Limits { handshakes: 8, ..limits() }, who()).await;
    let mut mute = Vec::new();
    for _ in 0..100 {
        mute.push(TcpStream::connect(server.address).await.unwrap());
    }
    // Served at once, though none of the others is given up for its time.
    server.serves().await;
    for stream in &mut mute[..80] {
        let read = tokio::time::timeout(WAIT, stream.read(&mut [0])).await.expect("the oldest are closed");
        assert!(matches!(read, Ok(0) | Err(_)));
    }
    server.stop().await;
}

#[tokio::test]
async fn heads_are_bounded() {
    let server = start(limits(), who()).await;
    let long = "x".repeat(200_000);
    let many: String = (0..200).map(|i| format!("x-{i}: 1\r\n")).collect();
    for (request, code) in [
        (format!("GET /version?{long} HTTP/1.1\r\nhost: x\r\n\r\n"), "HTTP/1.1 4"),
        (format!("GET /version?{} HTTP/1.1\r\nhost: x\r\n\r\n", &long[..70_000]), "HTTP/1.1 414"),
        (format!("GET /version HTTP/1.1\r\nhost: x\r\nx-long: {long}\r\n\r\n"), "HTTP/1.1 431"),
        (format!("GET /version HTTP/1.1\r\nhost: x\r\n{many}\r\n"), "HTTP/1.1 431"),
        ("GET /version HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n".into(), "HTTP/1.1 400"),
        ("GET /version HTTP/1.1\r\nhost: x\r\nbad\0name: 1\r\n\r\n".into(), "HTTP/1.1 400"),
        ("\u{16}\u{3}garbage\r\n\r\n".into(), "HTTP/1.1 400"),
    ] {
        let mut stream = server.connect(None, b"http/1.1").await.unwrap();
        // The server may close before it has read all.
        let _ = stream.write_all(request.as_bytes()).await;
        let answer = text(&mut stream).await;
        // An answer may be lost when the server closes with bytes unread.
        assert!(answer.starts_with(code) || answer.is_empty(), "{code}: {answer}");
    }
    // Selectors may be long.
    let stream = server.connect(None, b"h2").await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let uri = format!("https://kubernetes/version?labelSelector={}", &long[..50_000]);
    let request = Request::get(uri).body(Body::empty()).unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    // Longer than the bound that the server announces: refused, if not by the client itself.
    let request = Request::get("https://kubernetes/version").header("x-long", &long).body(Body::empty()).unwrap();
    let refused = sender.send_request(request).await.map(|answer| answer.status().as_u16());
    assert!(refused.as_ref().is_err() || refused.as_ref().is_ok_and(|code| *code == 431), "{refused:?}");
    server.serves().await;
    server.stop().await;
}

/// The HTTP/2 preface and an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// GET of a path as a HEADERS frame: method and scheme by the static table of RFC 7541, path and authority literal.
fn headers(stream: u32, path: &[u8]) -> Vec<u8> {
    let length = u8::try_from(path.len()).unwrap();
    frame(1, END_STREAM | END_HEADERS, stream, &[&[0x82, 0x87, 0x04, length], path, &[0x01, 1, b'x']].concat())
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let server = start(limits(), who()).await;
    let mut stream = server.connect(None, b"h2").await.unwrap();
    let mut flood = PREFACE.to_vec();
    for n in 0..20_000 {
        flood.extend(headers(2 * n + 1, b"/version"));
        flood.extend(frame(3, 0, 2 * n + 1, &8_u32.to_be_bytes()));
    }
    let _ = stream.write_all(&flood).await;
    // GOAWAY with ENHANCE_YOUR_CALM.
    let answer = rest(&mut stream).await;
    let calm = answer.windows(4).any(|w| w == 11_u32.to_be_bytes());
    assert!(calm || answer.is_empty(), "{} bytes without it", answer.len());
    server.serves().await;
    server.stop().await;
}

#[tokio::test]
async fn floods_of_continuations_end_the_connection() {
    let server = start(limits(), who()).await;
    for payload in [&b""[..], &[0x40, 1, b'a', 1, b'b'].repeat(2000)] {
        let mut stream = server.connect(None, b"h2").await.unwrap();
        let _ = stream.write_all(&[PREFACE, &frame(1, 0, 1, &[0x82, 0x87, 0x84])].concat()).await;
        let more = frame(9, 0, 1, payload).repeat(20);
        // Endless: the server has to close.
        let flood = async { while stream.write_all(&more).await.is_ok() {} };
        tokio::time::timeout(WAIT, flood).await.expect("the server closes the connection");
    }
    server.serves().await;
    server.stop().await;
}
