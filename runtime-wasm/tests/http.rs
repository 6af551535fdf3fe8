//! HTTP in and out of real guests: trailers, upgrades, limits, early answers, shared instances.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use copepod_runtime::sockets::{HTTP_CONNECTION_BYTES, SOCKET_BYTES};
use copepod_runtime::{ByteStream, ContainerSpec, Endpoint, MAX_HEADER_BYTES, MAX_HEADERS, serve_stream};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use support::Pod;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, anyhow::Error>;

fn full(text: &str) -> Body {
    Full::new(Bytes::from(text.to_owned())).map_err(|never| match never {}).boxed_unsync()
}

/// The text, and then a trailer.
fn with_trailer(text: &str, name: &'static str, value: &'static str) -> Body {
    let trailers = HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]);
    let frames = [Frame::data(Bytes::from(text.to_owned())), Frame::trailers(trailers)];
    StreamBody::new(futures::stream::iter(frames.map(Ok))).boxed_unsync()
}

/// A client's connection to the pod's port 80, through a socket of the machine.
async fn dial(pod: &Pod) -> TcpStream {
    let Ok(Endpoint::Http(handler)) = pod.net.connect_endpoint("127.0.0.1:80".parse().unwrap()).await else {
        panic!("port 80 is served")
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    tokio::spawn(serve_stream(handler, Box::new(far)));
    near
}

async fn http1(pod: &Pod) -> hyper::client::conn::http1::SendRequest<Body> {
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(dial(pod).await)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn http2(pod: &Pod) -> hyper::client::conn::http2::SendRequest<Body> {
    let io = TokioIo::new(dial(pod).await);
    let (sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it does not hang")
}

async fn text_of(response: Response<Incoming>) -> (u16, String, HeaderMap) {
    let status = response.status().as_u16();
    let body = soon(response.into_body().collect()).await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    (status, String::from_utf8(body.to_bytes().to_vec()).unwrap(), trailers)
}

#[tokio::test]
async fn trailers_go_both_ways() {
    for guest in ["web", "p3_web"] {
        let pod = Pod::new();
        let _web = pod.start(guest, &[], |_| {}).await;
        let check = |(status, text, trailers): (u16, String, HeaderMap), how: &str| {
            assert_eq!((status, text.as_str()), (200, "ping"), "{guest} {how}");
            assert_eq!(trailers["x-size"], "4", "{guest} {how}");
            assert_eq!(trailers["x-checked"], "crc", "{guest} {how}");
        };
        let request = |uri: &str| {
            let request = Request::post(uri).header("te", "trailers").header("trailer", "x-check");
            request.header("host", "web").body(with_trailer("ping", "x-check", "crc")).unwrap()
        };
        let mut client = http1(&pod).await;
        for _ in 0..2 {
            let response = soon(client.send_request(request("/trailers"))).await.unwrap();
            check(text_of(response).await, "http/1.1");
        }
        let response = soon(http2(&pod).await.send_request(request("http://web/trailers"))).await.unwrap();
        check(text_of(response).await, "h2c");

        // A client that does not say that it takes trailers gets none over HTTP/1.1.
        let mut without = request("/trailers");
        without.headers_mut().remove("te");
        let (_, text, trailers) = text_of(soon(client.send_request(without)).await.unwrap()).await;
        assert_eq!((text.as_str(), trailers.len()), ("ping", 0), "{guest}");

        // In process: what the guest sends and gets is the same.
        let expected = "200 4 x-size=4 x-checked=4";
        let (_, text) = pod.request("/post?http://127.0.0.1/trailers", "ping").await;
        assert_eq!(text, expected, "{guest} in process");
        let port = listen(&pod).await;
        let (_, text) = pod.request(&format!("/post?http://127.0.0.1:{port}/trailers"), "ping").await;
        assert_eq!(text, expected, "{guest} over a connection");
    }
}

/// Listens in the pod, on a port of its loopback, with HTTP/1.1 in front of the pod's port 80.
async fn listen(pod: &Pod) -> u16 {
    let Ok(Endpoint::Http(handler)) = pod.net.connect_endpoint("127.0.0.1:80".parse().unwrap()).await else {
        panic!("port 80 is served")
    };
    serve(pod, move |stream| {
        let handler = handler.clone();
        async move { drop(serve_stream(handler, stream).await) }
    })
}

/// Listens in the pod, on a port of its loopback.
fn serve<F, A>(pod: &Pod, each: F) -> u16
where
    F: Fn(ByteStream) -> A + Send + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    let listener = pod.net.listen("127.0.0.1:0".parse::<SocketAddr>().unwrap(), 16).unwrap();
    let port = listener.local_addr().port();
    tokio::spawn(async move {
        let mut listener = listener;
        while let Ok(accepted) = listener.accept().await {
            tokio::spawn(each(accepted.stream));
        }
    });
    port
}

#[tokio::test]
async fn upgrades_and_tunnels_are_refused() {
    let pod = Pod::new();
    let web = pod.start("web", &[], |_| {}).await;
    let mut client = http1(&pod).await;
    let upgrade = |path: &str| {
        let request = Request::get(path).header("host", "web").header("connection", "upgrade, http2-settings");
        request
            .header("upgrade", "websocket, h2c")
            .header("http2-settings", "AAMAAABkAAQAoAAAAAIAAAAA")
            .body(full(""))
            .unwrap()
    };
    let (status, text, _) = text_of(soon(client.send_request(upgrade("/hello"))).await.unwrap()).await;
    assert_eq!((status, text.as_str()), (200, "hello\n"), "ignored");
    let response = soon(client.send_request(upgrade("/switch"))).await.unwrap();
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "not for a guest to accept");
    web.stderr.wait_for("GET /switch: status 101 is no final response").await;

    let connect = Request::connect("web:443").body(full("")).unwrap();
    let response = soon(http1(&pod).await.send_request(connect)).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
    let connect = Request::connect("web:443").body(full("")).unwrap();
    let response = soon(http2(&pod).await.send_request(connect)).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);

    // Out of a guest.
    let (_, error) = pod.get("/fetch?CONNECT:http://127.0.0.1/hello").await;
    assert!(error.contains("HttpRequestMethodInvalid"), "{error}");
    let port = serve(&pod, |mut stream| async move {
        let _ = stream.read(&mut [0; 4096]).await;
        let _ =
            stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n").await;
        std::future::pending::<()>().await;
    });
    let (_, error) = soon(pod.get(&format!("/fetch?http://127.0.0.1:{port}/"))).await;
    assert!(error.contains("HttpUpgradeFailed"), "{error}");
}

#[tokio::test]
async fn answers_come_before_requests_are_read() {
    for guest in ["web", "p3_web"] {
        let pod = Pod::new();
        let web = pod.start(guest, &[], |_| {}).await;
        // What nobody read is read on: the connection serves the next request.
        let mut client = http1(&pod).await;
        for size in [10, 100_000, 200_000] {
            let request = Request::post("/hello").header("host", "web").body(full(&"x".repeat(size))).unwrap();
            let (status, text, _) = text_of(soon(client.send_request(request)).await.unwrap()).await;
            assert!((status, text.contains("hello")) == (200, true), "{guest} {size}: {status} {text}");
            soon(client.ready()).await.unwrap();
        }
        // Far more than is read on: the answer arrives all the same, whenever the client looks for it.
        let mut stream = dial(&pod).await;
        let size = 8 << 20;
        let head = format!("POST /hello HTTP/1.1\r\nhost: web\r\ncontent-length: {size}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        soon(stream.write_all(&vec![b'x'; size])).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        soon(stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("hello"), "{guest}: {answer}");
        assert_eq!(web.stderr.text(), "", "{guest} saw nothing wrong");
        // Nor is a method without a response's body a broken connection to a guest that writes one.
        let head = Request::head("/big?3000").header("host", "web").body(full("")).unwrap();
        let response = soon(http1(&pod).await.send_request(head)).await.unwrap();
        assert_eq!(text_of(response).await.1, "");
        web.no_instances().await;
        assert_eq!(web.stderr.text(), "", "{guest} saw nothing wrong");
    }
}

#[tokio::test]
async fn requests_have_limits() {
    let pod = Pod::new();
    let limit = |spec: &mut ContainerSpec| {
        spec.http_limits.max_body = 1000;
        spec.http_limits.idle = Duration::from_millis(300);
    };
    let web = pod.start("web", &[], limit).await;
    let many = |fields: usize, length: usize| {
        let mut request = Request::get("http://web/hello").body(full("")).unwrap();
        for at in 0..fields {
            let name: http::HeaderName = format!("x-{at}").parse().unwrap();
            request.headers_mut().insert(name, "v".repeat(length).parse().unwrap());
        }
        request
    };
    let large = MAX_HEADER_BYTES as usize;
    for (fields, length, expected) in [(10, 10, 200), (MAX_HEADERS + 1, 1, 431), (20, large / 20, 431), (1, large, 431)]
    {
        let response = soon(http2(&pod).await.send_request(many(fields, length))).await.unwrap();
        assert_eq!(response.status().as_u16(), expected, "h2c: {fields} of {length}");
        let response = soon(http1(&pod).await.send_request(many(fields, length))).await.unwrap();
        assert_eq!(response.status().as_u16(), expected, "http/1.1: {fields} of {length}");
    }
    // A body that says its length is refused, one that does not fails its reader.
    let request = || Request::post("/echo").header("host", "web");
    let (status, text, _) =
        text_of(soon(http1(&pod).await.send_request(request().body(full(&"x".repeat(1001))).unwrap())).await.unwrap())
            .await;
    assert_eq!((status, text.as_str()), (413, "the request's body is too large\n"));
    let chunks = futures::stream::iter((0..11).map(|_| Ok(Frame::data(Bytes::from(vec![b'x'; 100])))));
    let chunked = request().body(StreamBody::new(chunks).boxed_unsync()).unwrap();
    let response = soon(http1(&pod).await.send_request(chunked)).await.unwrap();
    assert!(soon(response.into_body().collect()).await.is_err(), "the guest traps on it");
    web.stderr.wait_for("request body size exceeds limit: 1000 bytes").await;

    // A client that does not go on with its request's body fails the guest's read.
    let mut stream = dial(&pod).await;
    stream.write_all(b"POST /echo HTTP/1.1\r\nhost: web\r\ncontent-length: 100\r\n\r\nhalf").await.unwrap();
    web.stderr.wait_for("connection read timeout").await;
    web.no_instances().await;

    // A client that takes nothing of a response loses it, and the instance is free.
    let mut stream = dial(&pod).await;
    stream.write_all(b"GET /flood HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    web.stderr.wait_for("GET /flood: the response was not read for").await;
    web.no_instances().await;
    let mut got = Vec::new();
    let _ = soon(stream.read_to_end(&mut got)).await;
    assert!(got.starts_with(b"HTTP/1.1 200 OK") && !got.ends_with(b"0\r\n\r\n"), "it was cut, not ended");

    // A guest's own head is bounded as well.
    let (_, text) = pod.get("/many?101").await;
    assert!(text.contains("application failed"), "{text}");
    web.stderr.wait_for("POST /many: response headers of").await;
    assert_eq!(pod.get("/hello").await.0, 200);
}

#[tokio::test]
async fn a_response_that_is_given_up_holds_no_buffers() {
    let pod = Pod::new();
    let web = pod.start("web", &[], |spec| spec.http_limits.idle = Duration::from_millis(500)).await;
    let mut stream = dial(&pod).await;
    // What a connection holds without a request.
    let before = HTTP_CONNECTION_BYTES + SOCKET_BYTES;
    stream.write_all(b"GET /flood HTTP/1.1\r\nhost: web\r\n\r\n").await.unwrap();
    soon(stream.read_exact(&mut [0; 100])).await.unwrap();
    assert!(pod.net.buffers().used() > before, "an exchange");
    web.stderr.wait_for("GET /flood: the response was not read for").await;
    // The client is still there.
    soon(async {
        while pod.net.buffers().used() > before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn responses_to_guests_have_limits() {
    let pod = Pod::new();
    let _web = pod.start("web", &[], |_| {}).await;
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n";
    let fields = |count: usize| (0..count).map(|at| format!("x-{at}: y\r\n")).collect::<String>();
    let long = "v".repeat(MAX_HEADER_BYTES as usize);
    for (answer, expected) in [
        (format!("{head}{}\r\n0\r\n\r\n", fields(MAX_HEADERS + 1)), "HttpResponseHeaderSectionSize"),
        (format!("{head}x: {long}\r\n\r\n0\r\n\r\n"), "HttpResponseHeaderSectionSize"),
        (format!("{head}\r\n0\r\nx: {long}\r\n\r\n"), "response trailer section size exceeds limit"),
        (format!("{head}\r\n5\r\nhel"), "incomplete HTTP response"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhel".into(), "incomplete HTTP response"),
        ("HTTP/1.1 OK\r\n\r\n".into(), "HttpProtocolError"),
        (String::new(), "ConnectionTerminated"),
    ] {
        let sent = answer.clone();
        let port = serve(&pod, move |mut stream| {
            let answer = answer.clone();
            async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        });
        let (_, error) = soon(pod.get(&format!("/fetch?http://127.0.0.1:{port}/"))).await;
        let start: String = sent.chars().take(60).collect();
        assert!(error.contains(expected), "{start:?}: {error}");
    }
    // More of its own than it may send.
    let (_, error) = pod.get("/heavy?http://127.0.0.1/hello").await;
    assert!(error.contains("HttpRequestHeaderSectionSize"), "{error}");
}

#[tokio::test]
async fn instances_of_wasi_03_are_shared_as_told() {
    let pod = Pod::new();
    let share = |spec: &mut ContainerSpec| {
        spec.http_limits.requests_per_instance = 100;
        spec.http_limits.requests_at_once = 3;
    };
    let web = pod.start("p3_web", &[], share).await;
    let answers = soon(futures::future::join_all((0..3).map(|_| pod.get("/meet?3")))).await;
    assert!(answers.iter().all(|answer| *answer == (200, "3 are here\n".into())), "{answers:?}");
    // The instance is reused, though no two requests are in it at once: as soon as it is through with one.
    soon(async { while pod.get("/count").await.1 == "0" {} }).await;

    // Room for three and no more.
    let asking = futures::future::join_all((0..4).map(|_| pod.get("/meet?7")));
    assert!(tokio::time::timeout(Duration::from_millis(300), asking).await.is_err(), "six were three and three");
    web.no_instances().await;

    // A trap takes those with it that are in the same instance, and nobody else.
    let waiting = tokio::spawn({
        let pod = Arc::new(pod);
        async move {
            let (wait, trap) = tokio::join!(pod.get("/wait"), async {
                let mut trap = pod.get("/trap").await;
                while trap.0 != 500 {
                    trap = pod.get("/trap").await;
                }
                trap
            });
            (wait.0, trap.0, pod.get("/you").await, pod)
        }
    });
    let (wait, trap, after, pod) = soon(waiting).await.unwrap();
    assert_eq!((wait, trap), (500, 500));
    assert_eq!(after, (200, "hello /you of web\n".into()));
    web.stderr.wait_for("copepod: POST /").await;
    drop(pod);
}

#[tokio::test]
async fn a_stuck_request_does_not_hold_its_instance_for_ever() {
    let pod = Pod::new();
    let share = |spec: &mut ContainerSpec| {
        spec.http_limits.requests_per_instance = 100;
        spec.http_limits.requests_at_once = 10;
        spec.http_limits.timeout = Duration::from_secs(2);
    };
    let web = pod.start("p3_web", &[], share).await;
    let (wait, spin) = soon(async { tokio::join!(pod.get("/wait"), pod.get("/spin")) }).await;
    assert_eq!((wait.0, spin.0), (504, 504));
    assert_eq!(soon(pod.get("/you")).await.0, 200, "in another instance");
    web.container.kill();
    web.ended().await;
    web.no_instances().await;
}
