//! A request's body that is read to its end even when whoever receives it does not want it.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, SizeHint};

/// How long a body that nobody wants is read on.
const LINGER: Duration = Duration::from_secs(5);
/// Most bytes that are read and thrown away of a body that nobody wants.
const LINGER_BYTES: usize = 256 * 1024;

/// A body that does not end for its writer because its reader left.
///
/// A server may answer before it read a request's body, and a client that announced an empty one never asks for it.
/// The guest that still writes, flushes or finishes its stream then saw it closed, and took that for a broken
/// connection: a race between two tasks. So what the reader leaves is read on, within [`LINGER`] and
/// [`LINGER_BYTES`]; past them the writer sees the stream closed.
pub(crate) struct Lingering<B: Body<Data = Bytes> + Unpin + Send + 'static>(Option<B>);

impl<B: Body<Data = Bytes> + Unpin + Send + 'static> Lingering<B> {
    pub(crate) fn new(body: B) -> Lingering<B> {
        Lingering(Some(body))
    }
}

impl<B: Body<Data = Bytes> + Unpin + Send + 'static> Body for Lingering<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        let frame = std::task::ready!(Pin::new(body).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.0 = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B: Body<Data = Bytes> + Unpin + Send + 'static> Drop for Lingering<B> {
    fn drop(&mut self) {
        let Some(body) = self.0.take().filter(|body| !body.is_end_stream()) else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(LINGER, discard(body)));
        }
    }
}

async fn discard<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    let mut left = LINGER_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(less) => left = less,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::channel::{Channel, Sender};

    use super::*;

    fn body() -> (Sender<Bytes>, Lingering<Channel<Bytes>>) {
        let (sender, body) = Channel::new(1);
        (sender, Lingering::new(body))
    }

    #[tokio::test]
    async fn a_writer_may_finish_after_its_reader_left() {
        let (mut sender, body) = body();
        drop(body);
        for _ in 0..8 {
            sender.send_data(Bytes::from_static(b"late")).await.unwrap();
        }
        sender.send_trailers(http::HeaderMap::new()).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_that_goes_on_is_cut_off() {
        let (mut sender, body) = body();
        drop(body);
        let chunk = Bytes::from(vec![0; 64 * 1024]);
        let mut sent = 0;
        while sender.send_data(chunk.clone()).await.is_ok() {
            sent += chunk.len();
            assert!(sent <= LINGER_BYTES + 3 * chunk.len(), "{sent} bytes were taken");
        }

        let (mut sender, body) = self::body();
        drop(body);
        tokio::time::advance(LINGER).await;
        while sender.send_data(Bytes::new()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn what_is_read_is_what_was_written() {
        let (mut sender, body) = body();
        let writer = tokio::spawn(async move {
            for part in ["one ", "two ", "three"] {
                sender.send_data(Bytes::from(part)).await.unwrap();
            }
        });
        assert_eq!(body.collect().await.unwrap().to_bytes(), "one two three");
        writer.await.unwrap();
    }
}
