//! One request given to one instance, by the WASI it was built for.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Request, Response, Uri, header};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime::component::Accessor;
use wasmtime_wasi_http::p2::bindings::Proxy as ProxyP2;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, Scheme as SchemeP2};
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::p3::Request as RequestP3;
use wasmtime_wasi_http::p3::bindings::Service;
use wasmtime_wasi_http::{WasiBody, WasiHttpView};

use super::answer::{Answer, Failure};
use crate::ctx::GuestCtx;
use crate::network::HttpBody;
use crate::outgoing::body_error;

/// Why a call did not end well.
pub(super) enum Fault {
    /// The request is none that a guest can be given.
    Request(wasmtime::Error),
    /// The guest trapped, exited or was interrupted.
    Guest(wasmtime::Error),
}

/// Calls a handler of WASI 0.2 and sends its response as soon as there are headers; returns when the guest is done.
pub(super) async fn call_p2(
    guest: &ProxyP2,
    store: &mut Store<GuestCtx>,
    request: Request<HttpBody>,
    answer: Answer,
) -> Result<(), Fault> {
    let request = with_host(request).map(|body| body.map_err(body_error).boxed_unsync());
    let mut http = store.data_mut().http();
    let request = http.new_incoming_request(SchemeP2::Http, request).map_err(Fault::Request)?;
    let out = http
        .new_response_outparam_from_callback(move |guest: Result<Response<HyperOutgoingBody>, ErrorCode>| {
            answer.send(match guest {
                Ok(response) => Ok(response.map(|body| body.map_err(anyhow::Error::from).boxed_unsync())),
                Err(_) => Err(Failure::Guest),
            });
        })
        .map_err(Fault::Request)?;
    guest.wasi_http_incoming_handler().call_handle(store, request, out).await.map_err(Fault::Guest)
}

/// Calls a handler of WASI 0.3, which may serve other requests meanwhile, and sends its response as soon as there are
/// headers; returns when the response has ended. Fails when the guest did; the error that a handler returned, if it did,
/// is what is in the result.
pub(super) async fn call_p3(
    guest: &Service,
    store: &Accessor<GuestCtx>,
    request: Request<HttpBody>,
    answer: &Answer,
) -> wasmtime::Result<Result<(), String>> {
    let request = absolute(with_host(request)).map(|body| body.map_err(body_error).boxed_unsync());
    let (request, received) = store.with(|mut access| {
        let (request, received) = RequestP3::from_http(access.get().http().hooks, request);
        (request, Box::pin(received) as Received)
    });
    let response = match guest.handle(store, request).await? {
        Ok(response) => response,
        Err(code) => return Ok(Err(format!("the handler returned {code:?}"))),
    };
    let response = store.with(|access| response.into_http(access, received))?;
    // The guest writes the body while its store runs: so it does until the body has ended or nobody reads it.
    let (ended, end) = oneshot::channel();
    answer.send(Ok(response.map(|body| Watched { body, _ended: ended }.boxed_unsync())));
    let _ = end.await;
    Ok(Ok(()))
}

/// Whether the request's body arrived whole.
type Received = Pin<Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>>;

/// A response body that tells when it is dropped.
struct Watched {
    body: WasiBody,
    _ended: oneshot::Sender<()>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = anyhow::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, anyhow::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx).map_err(anyhow::Error::from)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

fn with_host<B>(mut request: Request<B>) -> Request<B> {
    if request.uri().authority().is_none() && !request.headers().contains_key(header::HOST) {
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
    }
    request
}

/// The request with scheme and authority in its URI; WASI 0.3 has no other place for them.
fn absolute<B>(mut request: Request<B>) -> Request<B> {
    let host = request.headers_mut().remove(header::HOST);
    let mut parts = request.uri().clone().into_parts();
    let named = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    parts.authority = parts.authority.or(named).or_else(|| Some(Authority::from_static("localhost")));
    parts.scheme = parts.scheme.or(Some(Scheme::HTTP));
    parts.path_and_query = parts.path_and_query.or_else(|| Some(PathAndQuery::from_static("/")));
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_become_absolute() {
        for (uri, host, expected) in [
            ("/a?b", Some("web:81"), "http://web:81/a?b"),
            ("/", None, "http://localhost/"),
            ("http://own/x", Some("other"), "http://own/x"),
            ("/x", Some("not a host"), "http://localhost/x"),
        ] {
            let mut request = Request::get(uri);
            if let Some(host) = host {
                request = request.header("host", host);
            }
            assert_eq!(absolute(request.body(()).unwrap()).uri().to_string(), expected);
        }
    }
}
