//! Connections that speak HTTP to the node.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::{Notify, oneshot};

use super::answer::plain;
use super::limits::{MAX_HEADER_BYTES, check_headers};
use crate::network::{ByteStream, HttpBody, HttpHandler, Io};

/// How long a connection may take to send a request's head, and how long it is kept without requests.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Most requests at once on one HTTP/2 connection.
pub const MAX_STREAMS: u32 = 100;
/// How often an HTTP/2 connection is asked whether it is still there; it is closed if it does not answer as long.
const PING: Duration = Duration::from_secs(30);
/// How long a connection that is closed while its client still sends is read on.
const CLOSE_TIME: Duration = Duration::from_secs(5);
/// Most bytes that are read and thrown away of a connection that is closed.
const CLOSE_BYTES: usize = 16 << 20;

/// Serves HTTP/1.1 and HTTP/2 (prior knowledge) on a byte pipe by calling `handler`, until the peer closes.
///
/// Fails when the peer does not speak HTTP, is silent for too long, or goes away in the middle.
pub async fn serve_stream(handler: Arc<dyn HttpHandler>, stream: ByteStream) -> anyhow::Result<()> {
    let answer = move |request| {
        let handler = handler.clone();
        async move { handler.handle(request).await }
    };
    serve_with(stream, answer).await
}

/// As [`serve_stream`], by calling `answer` for each request. What is too large, and CONNECT, does not reach it; wishes
/// to upgrade the connection are ignored.
pub async fn serve_with<F, A>(stream: ByteStream, answer: F) -> anyhow::Result<()>
where
    F: Fn(Request<HttpBody>) -> A + Send + 'static,
    A: Future<Output = Response<HttpBody>> + Send + 'static,
{
    let asked = Arc::new(Notify::new());
    let service = hyper::service::service_fn({
        let asked = asked.clone();
        move |request: Request<hyper::body::Incoming>| {
            asked.notify_one();
            let answer = match refusal(&request) {
                Some(status) => Err(plain(status, status.canonical_reason().unwrap_or_default())),
                None => Ok(answer(request.map(|body| body.map_err(anyhow::Error::from).boxed_unsync()))),
            };
            async move {
                Ok::<_, Infallible>(match answer {
                    Ok(answer) => answer.await,
                    Err(refused) => refused,
                })
            }
        }
    });
    let mut server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    // What is too large is answered with 431 by hyper; 100 fields are its own default.
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_HEADER_BYTES as usize);
    let mut http2 = server.http2();
    http2.timer(TokioTimer::new()).max_header_list_size(MAX_HEADER_BYTES).max_concurrent_streams(MAX_STREAMS);
    http2.keep_alive_interval(PING).keep_alive_timeout(PING);
    http2.initial_connection_window_size(MAX_HEADER_BYTES).initial_stream_window_size(MAX_HEADER_BYTES);
    http2.max_send_buf_size(crate::outgoing::BODY_CHUNK);
    let (give_back, given_back) = oneshot::channel();
    let stream = Served { stream: Some(stream), ended: false, give_back: Some(give_back) };
    let served = {
        let serving = std::pin::pin!(server.serve_connection(TokioIo::new(stream), service));
        // Until the first request nothing else measures the client's time.
        let silent = async {
            if tokio::time::timeout(HEADER_TIMEOUT, asked.notified()).await.is_ok() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            served = serving => served.map_err(|error| anyhow::anyhow!("{error}")),
            () = silent => anyhow::bail!("no request within {} s", HEADER_TIMEOUT.as_secs()),
        }
    };
    if let Ok(stream) = given_back.await {
        let _ = tokio::time::timeout(CLOSE_TIME, discard(stream)).await;
    }
    served
}

/// Why a request is not even passed on.
fn refusal<B>(request: &Request<B>) -> Option<StatusCode> {
    if request.method() == Method::CONNECT {
        return Some(StatusCode::NOT_IMPLEMENTED);
    }
    check_headers(request.headers()).err().map(|_| StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE)
}

async fn discard(mut stream: ByteStream) {
    let _ = stream.shutdown().await;
    let mut left = CLOSE_BYTES;
    let mut buffer = vec![0; 8 << 10];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        match left.checked_sub(read) {
            Some(less) => left = less,
            None => return,
        }
    }
}

/// A connection that is given back when its server is done with it and the client is not: to close it at once would
/// reset it, and the client might lose the answer that was sent before.
struct Served {
    stream: Option<ByteStream>,
    /// The client is done.
    ended: bool,
    give_back: Option<oneshot::Sender<ByteStream>>,
}

impl Served {
    fn stream(&mut self) -> std::io::Result<Pin<&mut (dyn Io + 'static)>> {
        let gone = || std::io::Error::from(std::io::ErrorKind::NotConnected);
        self.stream.as_mut().map(|stream| Pin::new(stream.as_mut())).ok_or_else(gone)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let (Some(stream), false, Some(give_back)) = (self.stream.take(), self.ended, self.give_back.take()) {
            let _ = give_back.send(stream);
        }
    }
}

impl AsyncRead for Served {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, space: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let before = space.filled().len();
        let read = std::task::ready!(self.stream()?.poll_read(cx, space));
        self.ended |= read.is_err() || (space.filled().len() == before && space.remaining() > 0);
        Poll::Ready(read)
    }
}

impl AsyncWrite for Served {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        self.stream()?.poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        self.stream()?.poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.is_write_vectored())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn hello(_request: Request<HttpBody>) -> Response<HttpBody> {
        plain(StatusCode::OK, "hello")
    }

    #[tokio::test(start_paused = true)]
    async fn slow_clients_are_left() {
        for said in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\nx"]
        {
            let (mut near, far) = tokio::io::duplex(64);
            let server = tokio::spawn(serve_with(Box::new(far), hello));
            near.write_all(said.as_bytes()).await.unwrap();
            // Until the server closes; it may say why before.
            let started = tokio::time::Instant::now();
            let _ = near.read_to_end(&mut Vec::new()).await;
            assert!(started.elapsed() <= HEADER_TIMEOUT, "{said:?} took {:?}", started.elapsed());
            drop(near);
            assert!(server.await.unwrap().is_err(), "{said:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_are_closed() {
        let (mut near, far) = tokio::io::duplex(1024);
        let server = tokio::spawn(serve_with(Box::new(far), hello));
        for _ in 0..2 {
            near.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut answer = [0; 12];
            near.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200");
            tokio::time::sleep(HEADER_TIMEOUT - Duration::from_secs(1)).await;
            assert!(near.read(&mut [0; 1024]).await.unwrap() > 0, "kept alive");
        }
        near.read_to_end(&mut Vec::new()).await.unwrap();
        drop(near);
        let _ = server.await.unwrap();
    }
}
