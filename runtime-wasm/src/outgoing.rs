//! Requests that guests make (`wasi:http/outgoing-handler`): through the pod's network, never through the host's.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

use crate::http::{AbortOnDrop, Lingering};
use crate::network::{ByteStream, Endpoint, NetError};
use crate::sockets::PodNet;

/// How long a guest that says nothing else waits for a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a guest that says nothing else waits for response headers.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes of a body that a guest hands over in one write: a body has two of them waiting in memory.
pub const BODY_CHUNK: usize = 16 << 10;
/// Most addresses of a name that are tried.
const MAX_ADDRESSES_TRIED: usize = 4;

type Driver = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(http::Response<WasiBody>, Driver), Error>;

/// The way out of one instance.
pub(crate) struct OutgoingHttp {
    pub(crate) net: Arc<PodNet>,
}

impl WasiHttpHooks for OutgoingHttp {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _consumed: Driver,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let net = self.net.clone();
        Box::new(async move { send(&net, request, options.unwrap_or_default()).await })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK
    }
}

async fn send(net: &PodNet, request: http::Request<WasiBody>, options: RequestOptions) -> Sent {
    let request = request.map(|body| WasiBody::new(Lingering::new(body)));
    let (host, port) = target(request.uri())?;
    let connecting = connect(net, &host, port);
    let endpoint = tokio::time::timeout(options.connect_timeout.unwrap_or(CONNECT_TIMEOUT), connecting)
        .await
        .map_err(|_| Error::ConnectionTimeout)??;
    let exchange = async {
        match endpoint {
            Endpoint::Http(handler) => {
                let response = handler.handle(request.map(|body| body.map_err(Into::into).boxed_unsync())).await;
                let driver: Driver = Box::new(async { Ok(()) });
                Ok((response.map(|body| body.map_err(body_error).boxed_unsync()), driver))
            }
            Endpoint::Stream(stream) => send_over(stream, request).await,
        }
    };
    tokio::time::timeout(options.first_byte_timeout.unwrap_or(RESPONSE_TIMEOUT), exchange)
        .await
        .map_err(|_| Error::HttpResponseTimeout)?
}

/// HTTP/1.1 over a byte pipe, one request per connection.
async fn send_over(stream: ByteStream, mut request: http::Request<WasiBody>) -> Sent {
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| http::Uri::from_static("/"), http::Uri::from);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = AbortOnDrop(tokio::spawn(connection));
    let response = sender.send_request(request).await?;
    let driver: Driver = Box::new(async move {
        let mut connection = connection;
        connection.join().await.ok_or(Error::ConnectionTerminated)?.map_err(Error::from)
    });
    Ok((response.map(|body| body.map_err(Error::from).boxed_unsync()), driver))
}

fn target(uri: &http::Uri) -> Result<(String, u16), Error> {
    if uri.scheme() != Some(&http::uri::Scheme::HTTP) {
        let scheme = uri.scheme_str().unwrap_or("no scheme");
        return Err(Error::InternalError(Some(format!(
            "{scheme} is not offered to guests by this node: use http, or speak TLS over a socket"
        ))));
    }
    let host = uri.host().filter(|host| !host.is_empty()).ok_or(Error::HttpRequestUriInvalid)?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Ok((host.to_owned(), uri.port_u16().unwrap_or(80)))
}

async fn connect(net: &PodNet, host: &str, port: u16) -> Result<Endpoint, Error> {
    let addresses = match host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => net.resolve(host).await.map_err(net_error)?,
    };
    let mut last = Error::DestinationNotFound;
    for address in addresses.into_iter().take(MAX_ADDRESSES_TRIED) {
        match net.connect_endpoint(SocketAddr::new(address, port)).await {
            Ok(endpoint) => return Ok(endpoint),
            Err(error) => last = net_error(error),
        }
    }
    Err(last)
}

fn net_error(error: NetError) -> Error {
    match error {
        NetError::AccessDenied(_) => Error::DestinationIpProhibited,
        NetError::ConnectionRefused => Error::ConnectionRefused,
        NetError::ConnectionReset => Error::ConnectionTerminated,
        NetError::Unreachable => Error::DestinationIpUnroutable,
        NetError::Timeout => Error::ConnectionTimeout,
        NetError::NameUnresolvable => Error::DnsError { rcode: Some("NXDOMAIN".into()), info_code: None },
        NetError::TemporaryResolverFailure => Error::DnsError { rcode: Some("SERVFAIL".into()), info_code: None },
        NetError::LimitReached(_) => Error::ConnectionLimitReached,
        NetError::AddressInUse | NetError::AddressNotBindable | NetError::NotSupported => {
            Error::InternalError(Some(error.to_string()))
        }
    }
}

/// A body's error as wasi:http knows it.
pub(crate) fn body_error(error: anyhow::Error) -> Error {
    error.downcast::<Error>().unwrap_or_else(|error| Error::InternalError(Some(error.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        for (uri, expected) in [
            ("http://web/x", Ok(("web", 80))),
            ("http://web.shop:8080/", Ok(("web.shop", 8080))),
            ("http://[::1]:81/", Ok(("::1", 81))),
            ("https://web/", Err("https is not offered")),
            ("/only/a/path", Err("no scheme")),
        ] {
            match (target(&uri.parse().unwrap()), expected) {
                (Ok((host, port)), Ok(expected)) => assert_eq!((host.as_str(), port), expected),
                (Err(error), Err(word)) => assert!(error.to_string().contains(word), "{uri}: {error}"),
                (got, _) => panic!("{uri}: {got:?}"),
            }
        }
    }

    #[tokio::test]
    async fn speaks_http_over_a_byte_pipe() {
        let (near, far) = tokio::io::duplex(4096);
        let server = tokio::spawn(async move {
            let echo = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                let path = request.uri().to_string();
                http::Response::builder().header("x-path", path).body(request.into_body())
            });
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(far), echo).await
        });
        let body = http_body_util::Full::new(bytes::Bytes::from_static(b"ping")).map_err(|never| match never {});
        let request =
            http::Request::post("http://pod:80/a?b=c").header("host", "pod").body(body.boxed_unsync()).unwrap();
        let (response, driver) = send_over(Box::new(near), request).await.unwrap();
        assert_eq!(response.headers().get("x-path").unwrap(), "/a?b=c");
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ping");
        drop(driver);
        let _ = server.await.unwrap();
    }
}
