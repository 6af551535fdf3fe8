//! Endpoints that keep something alive for as long as they are used: a socket's permit.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::podnet::HttpPermit;
use crate::network::{ByteStream, Endpoint, HttpBody, HttpHandler, NetError};

/// The endpoint, holding `guard` until it is dropped; a server's, until its last response is read or dropped.
pub(super) fn endpoint(endpoint: Endpoint, guard: impl Send + Sync + Unpin + 'static) -> Endpoint {
    match endpoint {
        Endpoint::Stream(stream) => Endpoint::Stream(Box::new(HeldStream { stream, _guard: guard })),
        Endpoint::Http(handler) => Endpoint::Http(Arc::new(HeldHandler { handler, guard: Arc::new(guard) })),
    }
}

struct HeldStream<G> {
    stream: ByteStream,
    _guard: G,
}

impl<G: Unpin> AsyncRead for HeldStream<G> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, to)
    }
}

impl<G: Unpin> AsyncWrite for HeldStream<G> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

struct HeldHandler<G> {
    handler: Arc<dyn HttpHandler>,
    guard: Arc<G>,
}

#[async_trait]
impl<G: Send + Sync + 'static> HttpHandler for HeldHandler<G> {
    async fn handle(&self, request: http::Request<HttpBody>) -> http::Response<HttpBody> {
        let response = self.handler.handle(request).await;
        response.map(|body| HeldBody { body, _guard: self.guard.clone() }.boxed_unsync())
    }
    fn admit(&self) -> Result<Option<HttpPermit>, NetError> {
        self.handler.admit()
    }
}

struct HeldBody<G> {
    body: HttpBody,
    _guard: Arc<G>,
}

impl<G> http_body::Body for HeldBody<G> {
    type Data = Bytes;
    type Error = anyhow::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, anyhow::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
