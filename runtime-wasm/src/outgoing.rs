//! Requests that guests make (`wasi:http/outgoing-handler`, `wasi:http/client`): through the pod's network, never
//! through the host's.

mod error;
pub(crate) mod tls;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks};

pub(crate) use error::body_error;
use error::{in_body, net_error, of_hyper};
use tls::Tls;

use crate::http::{Bounded, Lingering, MAX_HEADER_BYTES, check_headers};
use crate::network::{ByteStream, Endpoint, HttpBody};
use crate::sockets::PodNet;

/// How long a guest that says nothing else waits for a connection, TLS included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a guest that says nothing else waits for response headers.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes of a body that a guest hands over in one write: a body has two of them waiting in memory.
pub const BODY_CHUNK: usize = 16 << 10;
/// How long a guest that says nothing else waits for the next bytes of a response.
pub const READ_TIMEOUT: Duration = Duration::from_secs(600);
/// Most addresses of a name that are tried.
const MAX_ADDRESSES_TRIED: usize = 4;

type Driver = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(http::Response<WasiBody>, Driver), Error>;

/// The way out of one instance.
pub(crate) struct OutgoingHttp {
    pub(crate) net: Arc<PodNet>,
    pub(crate) tls: Arc<Tls>,
}

impl WasiHttpHooks for OutgoingHttp {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _consumed: Driver,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let (net, tls) = (self.net.clone(), self.tls.clone());
        Box::new(async move { send(&net, &tls, request, options.unwrap_or_default()).await })
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK
    }
}

async fn send(net: &PodNet, tls: &Tls, request: http::Request<WasiBody>, options: RequestOptions) -> Sent {
    if request.method() == Method::CONNECT {
        return Err(Error::HttpRequestMethodInvalid);
    }
    check_headers(request.headers()).map_err(|bytes| Error::HttpRequestHeaderSectionSize(Some(bytes)))?;
    let target = Target::of(request.uri())?;
    let connecting = connect(net, tls, &target);
    let connection = tokio::time::timeout(options.connect_timeout.unwrap_or(CONNECT_TIMEOUT), connecting)
        .await
        .map_err(|_| Error::ConnectionTimeout)??;
    let exchange = async {
        match connection {
            Connection::Handler(handler) => {
                let response = handler.handle(request.map(|body| HttpBody::new(body.map_err(Into::into)))).await;
                let driver: Driver = Box::new(async { Ok(()) });
                Ok((response.map(|body| WasiBody::new(body.map_err(body_error))), driver))
            }
            Connection::Http1(stream) => send_http1(stream, request).await,
            Connection::Http2(stream) => send_http2(stream, request).await,
        }
    };
    let (response, driver) = tokio::time::timeout(options.first_byte_timeout.unwrap_or(RESPONSE_TIMEOUT), exchange)
        .await
        .map_err(|_| Error::HttpResponseTimeout)??;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Error::HttpUpgradeFailed);
    }
    check_headers(response.headers()).map_err(|bytes| Error::HttpResponseHeaderSectionSize(Some(bytes)))?;
    let silence = options.between_bytes_timeout.unwrap_or(READ_TIMEOUT);
    Ok((response.map(|body| WasiBody::new(Bounded::new(body, u64::MAX, silence))), driver))
}

/// How long a connection that takes no request may take to say why.
const ENDING: Duration = Duration::from_secs(1);

/// Why there is no response. A connection that ended before it was asked knows more than the request that found it so.
async fn unsent(error: hyper::Error, connection: &mut AbortOnDropHandle<Result<(), hyper::Error>>) -> Error {
    if (error.is_canceled() || error.is_closed())
        && let Ok(Ok(Err(why))) = tokio::time::timeout(ENDING, connection).await
    {
        return of_hyper(why);
    }
    of_hyper(error)
}

/// What a request is sent over.
enum Connection {
    Handler(Arc<dyn crate::network::HttpHandler>),
    Http1(ByteStream),
    Http2(ByteStream),
}

/// HTTP/1.1, one request per connection.
async fn send_http1(stream: ByteStream, mut request: http::Request<WasiBody>) -> Sent {
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| http::Uri::from_static("/"), http::Uri::from);
    if request.headers().contains_key(header::TE) {
        // Which is this connection's matter, and the guest cannot say so itself.
        request.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    let mut client = http1::Builder::new();
    client.max_buf_size(MAX_HEADER_BYTES as usize);
    let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.map_err(of_hyper)?;
    let mut connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let response = match sender.send_request(request.map(Lingering::new)).await {
        Ok(response) => response,
        Err(error) => return Err(unsent(error, &mut connection).await),
    };
    let driver: Driver =
        Box::new(async move { connection.await.map_err(|_| Error::ConnectionTerminated)?.map_err(of_hyper) });
    Ok((response.map(|body| WasiBody::new(body.map_err(in_body))), driver))
}

/// HTTP/2, one request per connection.
async fn send_http2(stream: ByteStream, mut request: http::Request<WasiBody>) -> Sent {
    request.headers_mut().remove(header::HOST);
    let mut client = http2::Builder::new(TokioExecutor::new());
    client.timer(TokioTimer::new()).max_header_list_size(MAX_HEADER_BYTES);
    let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.map_err(of_hyper)?;
    let mut connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let response = match sender.send_request(request.map(Lingering::new)).await {
        Ok(response) => response,
        Err(error) => return Err(unsent(error, &mut connection).await),
    };
    let driver: Driver = Box::new(async move {
        let _sender = sender;
        connection.await.map_err(|_| Error::ConnectionTerminated)?.map_err(of_hyper)
    });
    Ok((response.map(|body| WasiBody::new(body.map_err(in_body))), driver))
}

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    host: String,
    port: u16,
    tls: bool,
}

impl Target {
    fn of(uri: &http::Uri) -> Result<Target, Error> {
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(Error::HttpProtocolError),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or(Error::HttpRequestUriInvalid)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        Ok(Target { host: host.to_owned(), port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }), tls })
    }
}

async fn connect(net: &PodNet, tls: &Tls, target: &Target) -> Result<Connection, Error> {
    let endpoint = open(net, target).await?;
    if !target.tls {
        return Ok(match endpoint {
            Endpoint::Http(handler) => Connection::Handler(handler),
            Endpoint::Stream(stream) => Connection::Http1(stream),
        });
    }
    let (stream, is_http2) = tls.connect(&target.host, net.into_stream(endpoint)).await?;
    Ok(if is_http2 { Connection::Http2(stream) } else { Connection::Http1(stream) })
}

async fn open(net: &PodNet, target: &Target) -> Result<Endpoint, Error> {
    let addresses = match target.host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => net.resolve(&target.host).await.map_err(net_error)?,
    };
    let mut last = Error::DestinationNotFound;
    for address in addresses.into_iter().take(MAX_ADDRESSES_TRIED) {
        match net.connect_endpoint(SocketAddr::new(address, target.port)).await {
            Ok(endpoint) => return Ok(endpoint),
            Err(error) => last = net_error(error),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests;
