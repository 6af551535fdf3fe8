use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::network::{Endpoint, HttpBody, HttpHandler, NetError, Uplink};

/// Remembers what leaves the pod and answers with another pod, if there is one.
#[derive(Default)]
struct Fabric {
    peer: Mutex<Option<Arc<PodNet>>>,
    left: Mutex<Vec<(SocketAddr, SocketAddr)>>,
}

#[async_trait]
impl Uplink for Fabric {
    async fn connect(&self, from: SocketAddr, to: SocketAddr) -> Result<Endpoint, NetError> {
        self.left.lock().push((from, to));
        let peer = self.peer.lock().clone();
        match peer {
            Some(peer) => peer.accept_from(to.port(), from).await,
            None => Err(NetError::Unreachable),
        }
    }

    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, NetError> {
        match name {
            "web" => Ok(vec!["10.43.0.9".parse().unwrap()]),
            "rebind" => Ok(vec!["169.254.169.254".parse().unwrap()]),
            _ => Err(NetError::NameUnresolvable),
        }
    }

    async fn send_datagram(&self, from: SocketAddr, to: SocketAddr, data: Bytes) -> Result<(), NetError> {
        self.left.lock().push((from, to));
        let peer = self.peer.lock().clone();
        peer.map_or(Ok(()), |peer| peer.deliver_datagram(from, to, data))
    }

    fn may_bind(&self, address: SocketAddr) -> Result<(), NetError> {
        if address.port() == 22 { Err(NetError::AccessDenied("port 22".into())) } else { Ok(()) }
    }
}

fn pod(ip: &str, limits: NetLimits) -> (Arc<PodNet>, Arc<Fabric>) {
    let fabric = Arc::new(Fabric::default());
    (PodNet::new(vec![ip.parse().unwrap()], fabric.clone(), limits), fabric)
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

#[tokio::test]
async fn two_pods_bind_the_same_port_and_loopback_stays_inside() {
    let (one, fabric) = pod("10.64.0.1", NetLimits::default());
    let (two, _) = pod("10.64.0.2", NetLimits::default());
    let mut on_one = one.listen(addr("0.0.0.0:7777"), 8).unwrap();
    let _on_two = two.listen(addr("0.0.0.0:7777"), 8).unwrap();
    assert_eq!(one.listen(addr("127.0.0.1:7777"), 8).err(), Some(NetError::AddressInUse));

    for to in ["127.0.0.1:7777", "127.8.8.8:7777", "10.64.0.1:7777", "[::ffff:127.0.0.1]:7777"] {
        let mut client = one.connect(addr(to)).await.unwrap();
        let mut server = on_one.accept().await.unwrap();
        client.write_all(b"ping").await.unwrap();
        client.shutdown().await.unwrap();
        let mut text = String::new();
        server.stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "ping", "{to}");
        // Half-closed: the other direction still works.
        server.stream.write_all(b"pong").await.unwrap();
        drop(server);
        let mut text = String::new();
        client.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "pong", "{to}");
    }
    drop(on_one);
    assert_eq!(one.connect(addr("127.0.0.1:7777")).await.err(), Some(NetError::ConnectionRefused));
    assert_eq!(one.connect(addr("127.0.0.1:22")).await.err(), Some(NetError::ConnectionRefused));
    assert!(fabric.left.lock().is_empty(), "loopback and own addresses never reach the uplink");
    assert_eq!(one.connect(addr("10.64.0.9:80")).await.err(), Some(NetError::Unreachable));
    assert_eq!(fabric.left.lock().len(), 1);
}

#[tokio::test]
async fn pods_reach_each_other_through_the_uplink_but_not_their_loopback() {
    let (one, fabric) = pod("10.64.0.1", NetLimits::default());
    let (two, _) = pod("10.64.0.2", NetLimits::default());
    *fabric.peer.lock() = Some(two.clone());
    let mut public = two.listen(addr("0.0.0.0:80"), 1).unwrap();
    let _private = two.listen(addr("127.0.0.1:81"), 1).unwrap();
    let connection = one.connect_from(None, addr("10.64.0.2:80")).await.unwrap();
    assert_eq!(connection.local.ip(), one.ips()[0]);
    assert!(EPHEMERAL_PORTS.contains(&connection.local.port()));
    // The backlog of one is full now.
    assert_eq!(one.connect(addr("10.64.0.2:80")).await.err(), Some(NetError::ConnectionRefused));
    let accepted = public.accept().await.unwrap();
    assert_eq!((accepted.local, accepted.peer), (addr("10.64.0.2:80"), connection.local));
    assert_eq!(one.connect(addr("10.64.0.2:81")).await.err(), Some(NetError::ConnectionRefused));
}

#[tokio::test]
async fn binds_only_its_own_addresses_by_policy() {
    let (pod, _) = pod("10.64.0.1", NetLimits::default());
    for (address, expected) in [
        ("0.0.0.0:80", None),
        ("127.0.0.5:80", Some(NetError::AddressInUse)),
        ("[::1]:80", None),
        ("10.64.0.1:8080", None),
        ("10.64.0.2:80", Some(NetError::AddressNotBindable)),
        ("0.0.0.0:22", Some(NetError::AccessDenied("port 22".into()))),
    ] {
        let binding = pod.bind_tcp(addr(address));
        assert_eq!(binding.as_ref().err().cloned(), expected, "{address}");
        std::mem::forget(binding);
    }
    assert!(matches!(pod.connect(addr("169.254.169.254:80")).await.err(), Some(NetError::AccessDenied(_))));
}

#[tokio::test]
async fn a_writer_waits_for_its_reader_and_close_ends_everything() {
    let (pod, _) = pod("10.64.0.1", NetLimits::default());
    let mut listener = pod.listen(addr("127.0.0.1:0"), 1).unwrap();
    let mut client = pod.connect(listener.local_addr()).await.unwrap();
    let mut server = listener.accept().await.unwrap().stream;
    let mut written = 0;
    let fill = std::future::poll_fn(|cx| {
        use tokio::io::AsyncWrite as _;
        loop {
            match std::pin::Pin::new(&mut client).poll_write(cx, &[1; 4096]) {
                std::task::Poll::Ready(n) => written += n.unwrap(),
                std::task::Poll::Pending => return std::task::Poll::Ready(()),
            }
        }
    });
    tokio::task::unconstrained(fill).await;
    assert_eq!(written, PIPE_BYTES, "bounded");
    let mut space = vec![0; PIPE_BYTES];
    server.read_exact(&mut space).await.unwrap();
    client.write_all(b"more").await.unwrap();
    drop(server);
    assert!(client.write_all(&[0; 1]).await.is_err(), "the peer is gone");

    pod.close();
    assert_eq!(listener.accept().await.err(), Some(NetError::ConnectionReset));
    assert_eq!(pod.connect(addr("127.0.0.1:1")).await.err(), Some(NetError::Unreachable));
    assert_eq!(pod.listen(addr("127.0.0.1:0"), 1).err(), Some(NetError::Unreachable));
}

struct Hello;

#[async_trait]
impl HttpHandler for Hello {
    async fn handle(&self, request: http::Request<HttpBody>) -> http::Response<HttpBody> {
        let text = format!("hello {}", request.uri().path());
        http::Response::new(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync())
    }
}

#[tokio::test]
async fn an_http_port_answers_calls_and_bytes() {
    let (pod, _) = pod("10.64.0.1", NetLimits::default());
    pod.serve_http(80, Arc::new(Hello)).unwrap();
    assert_eq!(pod.listen(addr("0.0.0.0:80"), 1).err(), Some(NetError::AddressInUse));
    let to = addr("[::1]:80");
    assert!(matches!(pod.connect_endpoint(to).await, Ok(Endpoint::Http(_))));
    assert!(matches!(pod.accept_from(80, addr("10.64.0.2:5000")).await, Ok(Endpoint::Http(_))));
    let mut bytes = pod.connect(to).await.unwrap();
    bytes.write_all(b"GET /you HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    bytes.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello /you"), "{answer}");
    pod.stop_http(80);
    assert_eq!(pod.connect(to).await.err(), Some(NetError::ConnectionRefused));
    pod.listen(addr("0.0.0.0:80"), 1).unwrap();
}

#[tokio::test]
async fn datagrams_are_delivered_bounded_and_filtered() {
    let datagram_bytes = 1000 + 4 * DATAGRAM_COST;
    let limits = NetLimits { datagrams: 4, datagram_bytes, ..NetLimits::default() };
    let (one, fabric) = pod("10.64.0.1", limits);
    let (two, _) = pod("10.64.0.2", limits);
    *fabric.peer.lock() = Some(two.clone());
    let mut inner = one.bind_udp(addr("127.0.0.1:53")).unwrap();
    let sender = one.bind_udp(addr("0.0.0.0:0")).unwrap();
    let port = sender.local_addr().port();
    one.send_datagram(sender.local_addr(), addr("127.0.0.1:53"), "hi".into()).await.unwrap();
    let datagram = inner.receive().await.unwrap();
    assert_eq!((datagram.from, &datagram.data[..]), (SocketAddr::new("127.0.0.1".parse().unwrap(), port), &b"hi"[..]));

    let mut outer = two.bind_udp(addr("0.0.0.0:53")).unwrap();
    for i in 0..10u8 {
        one.send_datagram(sender.local_addr(), addr("10.64.0.2:53"), vec![i].into()).await.unwrap();
    }
    for i in 0..4u8 {
        let datagram = outer.receive().await.unwrap();
        assert_eq!((datagram.from, &datagram.data[..]), (SocketAddr::new(one.ips()[0], port), &[i][..]));
    }
    two.deliver_datagram(addr("10.64.0.1:1"), addr("10.64.0.2:53"), vec![0; 1500].into()).unwrap();
    two.deliver_datagram(addr("10.64.0.1:1"), addr("10.64.0.2:53"), vec![1; 1500].into()).unwrap();
    assert_eq!(outer.receive().await.unwrap().data[0], 0);
    two.deliver_datagram(addr("10.64.0.1:1"), addr("10.64.0.2:53"), vec![2; 1500].into()).unwrap();
    assert_eq!(
        outer.receive().await.unwrap().data[0],
        2,
        "the one that did not fit was dropped, its bytes are free again"
    );

    let too_long = vec![0; MAX_DATAGRAM + 1];
    let sent = one.send_datagram(sender.local_addr(), addr("10.64.0.2:53"), too_long.into()).await;
    assert_eq!(sent, Err(NetError::LimitReached("datagram size")));
    let sent = one.send_datagram(sender.local_addr(), addr("169.254.169.254:53"), "x".into()).await;
    assert!(matches!(sent, Err(NetError::AccessDenied(_))));
}

#[tokio::test]
async fn names_resolve_in_process_first() {
    let (pod, _) = pod("10.64.0.1", NetLimits::default());
    pod.set_host("Web-0", pod.ips().to_vec());
    for (name, expected) in [
        ("localhost", Ok(vec!["127.0.0.1", "::1"])),
        ("a.LOCALHOST.", Ok(vec!["127.0.0.1", "::1"])),
        ("web-0", Ok(vec!["10.64.0.1"])),
        ("10.1.2.3", Ok(vec!["10.1.2.3"])),
        ("[::1]", Ok(vec!["::1"])),
        ("web", Ok(vec!["10.43.0.9"])),
        ("nobody", Err(NetError::NameUnresolvable)),
        ("a..b", Err(NetError::NameUnresolvable)),
        ("a b", Err(NetError::NameUnresolvable)),
        ("rebind", Err(NetError::AccessDenied("the addresses of rebind".into()))),
        ("169.254.169.254", Err(NetError::AccessDenied("the addresses of 169.254.169.254".into()))),
    ] {
        let expected = expected.map(|ips| ips.into_iter().map(|ip| ip.parse::<IpAddr>().unwrap()).collect::<Vec<_>>());
        assert_eq!(pod.resolve(name).await, expected, "{name}");
    }
}

#[tokio::test]
async fn sockets_are_counted() {
    let (pod, _) = pod("10.64.0.1", NetLimits { sockets: 2, ..NetLimits::default() });
    let first = pod.socket_permit().unwrap();
    let _second = pod.socket_permit().unwrap();
    assert!(matches!(pod.socket_permit(), Err(NetError::LimitReached(_))));
    drop(first);
    assert!(pod.socket_permit().is_ok());
}

#[tokio::test]
async fn requests_of_guests_are_counted_as_sockets() {
    let (pod, _) = pod("10.64.0.1", NetLimits { sockets: 2, ..NetLimits::default() });
    let mut listener = pod.listen(addr("127.0.0.1:81"), 8).unwrap();
    pod.serve_http(80, Arc::new(Hello)).unwrap();
    let stream = pod.connect_endpoint(addr("127.0.0.1:81")).await.unwrap();
    let Ok(Endpoint::Http(handler)) = pod.connect_endpoint(addr("127.0.0.1:80")).await else { panic!("http") };
    let request = http::Request::get("/you").body(HttpBody::default()).unwrap();
    let response = handler.handle(request).await;
    drop(handler);
    assert_eq!(pod.socket_count(), 2, "one for the stream, one for the response that is not read yet");
    let denied = pod.connect_endpoint(addr("127.0.0.1:80")).await.err();
    assert_eq!(denied, Some(NetError::LimitReached("sockets of the pod")));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello /you");
    let accepted = listener.accept().await.unwrap();
    drop((stream, accepted));
    assert_eq!((pod.socket_count(), pod.buffers().used()), (0, 0));
}

#[tokio::test]
async fn full_buffers_refuse_connections() {
    let limits = NetLimits { buffer_bytes: 5 * PIPE_MIN_BYTES as u64, ..NetLimits::default() };
    let (pod, _) = pod("10.64.0.1", limits);
    let mut listener = pod.listen(addr("0.0.0.0:80"), 8).unwrap();
    let peer = addr("10.64.0.2:5000");
    let first = pod.accept_from(80, peer).await.unwrap();
    let _second = pod.accept_from(80, peer).await.unwrap();
    assert_eq!(pod.accept_from(80, peer).await.err(), Some(NetError::ConnectionRefused), "as the peer sees it");
    let own = pod.connect_from(None, addr("127.0.0.1:80")).await.err();
    assert_eq!(own, Some(NetError::LimitReached("buffers of the pod")), "as the pod itself sees it");
    drop((first, listener.accept().await.unwrap()));
    assert!(pod.accept_from(80, peer).await.is_ok());
}

/// Has no room for connections in bytes.
struct NoRoom;

#[async_trait]
impl HttpHandler for NoRoom {
    async fn handle(&self, _: http::Request<HttpBody>) -> http::Response<HttpBody> {
        unreachable!("nothing is let in")
    }
    fn admit(&self) -> Result<Option<HttpPermit>, NetError> {
        Err(NetError::LimitReached("sockets of the pod"))
    }
}

#[tokio::test]
async fn a_connection_to_a_full_http_server_is_reset() {
    let (pod, _) = pod("10.64.0.1", NetLimits::default());
    pod.serve_http(80, Arc::new(NoRoom)).unwrap();
    let mut stream = pod.connect(addr("127.0.0.1:80")).await.unwrap();
    let error = stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(stream.read(&mut [0; 9]).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn lookups_have_a_rate() {
    let lookup_rate = crate::rate::Rate { per_second: 1, burst: 3 };
    let (pod, _) = pod("10.64.0.1", NetLimits { lookup_rate, ..NetLimits::default() });
    for _ in 0..3 {
        assert!(pod.resolve("web").await.is_ok());
    }
    assert_eq!(pod.resolve("web").await, Err(NetError::TemporaryResolverFailure));
    assert!(pod.resolve("localhost").await.is_ok() && pod.resolve("10.1.2.3").await.is_ok(), "these ask nobody");
}

/// Never answers.
struct Silent;

#[async_trait]
impl Uplink for Silent {
    async fn connect(&self, _: SocketAddr, _: SocketAddr) -> Result<Endpoint, NetError> {
        std::future::pending().await
    }

    async fn resolve(&self, _: &str) -> Result<Vec<IpAddr>, NetError> {
        std::future::pending().await
    }

    async fn send_datagram(&self, _: SocketAddr, _: SocketAddr, _: Bytes) -> Result<(), NetError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn lookups_under_way_are_bounded() {
    let limits = NetLimits { lookups: 2, ..NetLimits::default() };
    let pod = PodNet::new(vec![addr("10.64.0.1:0").ip()], Arc::new(Silent), limits);
    let ask = |name: &'static str| {
        let pod = pod.clone();
        Box::pin(async move { pod.resolve(name).await })
    };
    let mut waiting = [ask("a.example"), ask("b.example")];
    for lookup in &mut waiting {
        assert!(futures::poll!(lookup).is_pending());
    }
    assert_eq!(pod.lookups_under_way(), 2);
    assert_eq!(ask("c.example").await, Err(NetError::TemporaryResolverFailure));
    assert!(ask("localhost").await.is_ok(), "what needs nobody else is not counted");
    drop(waiting);
    assert_eq!(pod.lookups_under_way(), 0);
}
