//! Whether anything goes on on a connection: requests count until the last byte of their answer is gone.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::watch;

/// The number of open requests of one connection.
#[derive(Debug, Clone)]
pub(super) struct Activity(watch::Sender<usize>);

impl Activity {
    /// No request yet.
    pub fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    /// Counts a request in.
    pub fn begin(&self) -> OpenRequest {
        self.0.send_modify(|open| *open += 1);
        OpenRequest(self.clone())
    }

    /// Waits until there was no request for `first` from the start, or for `between` after others.
    pub async fn idle(&self, first: Duration, between: Duration) {
        let (mut requests, mut patience) = (self.0.subscribe(), first);
        loop {
            let open = *requests.borrow_and_update();
            // The sender is ours: it cannot be gone.
            let changed = requests.changed();
            if open > 0 {
                let _ = changed.await;
            } else if tokio::time::timeout(patience, changed).await.is_err() {
                return;
            }
            patience = between;
        }
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct OpenRequest(Activity);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.0.send_modify(|open| *open = open.saturating_sub(1));
    }
}

/// The body of an answer; its request is over when it is dropped.
pub(super) struct Answer {
    body: Body,
    _request: OpenRequest,
}

impl Answer {
    /// The response to a request.
    pub fn of(response: Response, request: OpenRequest) -> http::Response<Self> {
        response.map(|body| Self { body, _request: request })
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
