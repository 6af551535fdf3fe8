use super::*;

#[test]
fn targets() {
    for (uri, expected) in [
        ("http://web/x", Ok(("web", 80, false))),
        ("http://web.shop:8080/", Ok(("web.shop", 8080, false))),
        ("http://[::1]:81/", Ok(("::1", 81, false))),
        ("https://web/", Ok(("web", 443, true))),
        ("https://web:8443/", Ok(("web", 8443, true))),
        ("ftp://web/", Err("protocol")),
        ("/only/a/path", Err("protocol")),
    ] {
        match (Target::of(&uri.parse().unwrap()), expected) {
            (Ok(Target { host, port, tls }), Ok(expected)) => assert_eq!((host.as_str(), port, tls), expected),
            (Err(error), Err(word)) => assert!(error.to_string().contains(word), "{uri}: {error}"),
            (got, _) => panic!("{uri}: {got:?}"),
        }
    }
}

/// Knows nobody.
struct Nowhere;

#[async_trait::async_trait]
impl crate::network::Uplink for Nowhere {
    async fn connect(&self, _from: SocketAddr, _to: SocketAddr) -> Result<Endpoint, crate::network::NetError> {
        Err(crate::network::NetError::Unreachable)
    }
    async fn resolve(&self, _name: &str) -> Result<Vec<IpAddr>, crate::network::NetError> {
        Err(crate::network::NetError::NameUnresolvable)
    }
    async fn send_datagram(
        &self,
        _from: SocketAddr,
        _to: SocketAddr,
        _data: bytes::Bytes,
    ) -> Result<(), crate::network::NetError> {
        Err(crate::network::NetError::Unreachable)
    }
}

#[tokio::test(start_paused = true)]
async fn silence_has_an_end_and_a_name() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let net = PodNet::new(vec![], Arc::new(Nowhere), Default::default());
    let files = Arc::new(crate::vfs::Mounts::new(crate::vfs::Vfs::new(Default::default()).root()));
    let tls = Tls::new(&[], files, Arc::new(crate::stdio::Discard));
    for (scheme, said, expected) in [
        ("https", "", "connection timeout"),
        ("http", "", "HTTP response timeout"),
        ("http", "HTTP/1.1 200 OK\r\nx: y\r\n", "HTTP response timeout"),
        ("http", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", "connection read timeout"),
    ] {
        let mut listener = net.listen("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let uri = format!("{scheme}://{}/", listener.local_addr());
        let server = tokio::spawn(async move {
            let mut stream = listener.accept().await.unwrap().stream;
            let _ = stream.read(&mut [0; 4096]).await;
            stream.write_all(said.as_bytes()).await.unwrap();
            std::future::pending::<()>().await;
        });
        let body = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
        let request = http::Request::get(uri).body(body).unwrap();
        let error = match send(&net, &tls, request, RequestOptions::default()).await {
            Ok((response, _driver)) => response.into_body().collect().await.err(),
            Err(error) => Some(error),
        };
        assert_eq!(error.unwrap().to_string(), expected, "{scheme} {said:?}");
        server.abort();
        while net.socket_count() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
