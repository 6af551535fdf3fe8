//! A body that may be only so long, and whose sender may be silent only so long.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Sleep;
use wasmtime_wasi_http::Error;

/// A body of at most so many bytes ([`Error::HttpRequestBodySize`] beyond them) that never keeps who waits for its next
/// frame waiting for longer than it may ([`Error::ConnectionReadTimeout`]).
pub(crate) struct Bounded<B> {
    body: B,
    limit: u64,
    left: u64,
    idle: Duration,
    /// Runs while somebody waits for a frame.
    timer: Option<Pin<Box<Sleep>>>,
}

impl<B> Bounded<B> {
    pub(crate) fn new(body: B, limit: u64, idle: Duration) -> Bounded<B> {
        Bounded { body, limit, left: limit, idle, timer: None }
    }
}

impl<B> Body for Bounded<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: From<Error>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            let idle = this.idle;
            let timer = this.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(idle)));
            std::task::ready!(timer.as_mut().poll(cx));
            return Poll::Ready(Some(Err(Error::ConnectionReadTimeout.into())));
        };
        this.timer = None;
        if let Some(data) = frame.as_ref().and_then(|frame| frame.as_ref().ok()).and_then(Frame::data_ref) {
            match this.left.checked_sub(data.len() as u64) {
                Some(left) => this.left = left,
                None => return Poll::Ready(Some(Err(Error::HttpRequestBodySize(Some(this.limit)).into()))),
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use http_body_util::channel::Channel;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bodies_are_neither_too_long_nor_silent() {
        let idle = Duration::from_secs(9);
        let (mut sender, body) = Channel::<Bytes, anyhow::Error>::new(1);
        let mut body = Bounded::new(body, 10, idle);
        let writer = tokio::spawn(async move {
            for data in ["12345", "67890"] {
                tokio::time::sleep(idle - Duration::from_millis(10)).await;
                sender.send_data(Bytes::from(data)).await.unwrap();
            }
            std::future::pending::<()>().await;
            drop(sender);
        });
        for _ in 0..2 {
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 5);
        }
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(matches!(error.downcast(), Ok(Error::ConnectionReadTimeout)));
        writer.abort();

        let long = http_body_util::Full::new(Bytes::from_static(b"12345678901")).map_err(|never| match never {});
        let long: http_body_util::combinators::UnsyncBoxBody<Bytes, anyhow::Error> = long.boxed_unsync();
        let error = Bounded::new(long, 10, idle).collect().await.unwrap_err();
        assert!(matches!(error.downcast(), Ok(Error::HttpRequestBodySize(Some(10)))));
    }
}
