//! The answer to one request: who gives it, what the client sees when nobody does, and when its body is cut.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::buffers::Room;
use crate::network::HttpBody;

/// Why there is no response from the guest, as its client is told.
pub(super) enum Failure {
    Unavailable(&'static str),
    BadRequest,
    Guest,
    Timeout,
}

impl Failure {
    pub(super) fn into_response(self) -> Response<HttpBody> {
        let (status, text) = match self {
            Failure::Unavailable(text) => (StatusCode::SERVICE_UNAVAILABLE, text),
            Failure::BadRequest => (StatusCode::BAD_REQUEST, "the request is not acceptable"),
            Failure::Guest => (StatusCode::INTERNAL_SERVER_ERROR, "the application failed; its log says why"),
            Failure::Timeout => (StatusCode::GATEWAY_TIMEOUT, "the application did not answer in time"),
        };
        let body = Full::new(Bytes::from(format!("{text}\n"))).map_err(|never| match never {}).boxed_unsync();
        let mut response = Response::new(body);
        *response.status_mut() = status;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response
    }
}

pub(super) type AnswerSender = oneshot::Sender<Result<Response<HttpBody>, Failure>>;

/// The one answer to a request, from the guest or from us, whoever is first.
#[derive(Clone)]
pub(super) struct Answer {
    pub(super) sender: Arc<Mutex<Option<AnswerSender>>>,
    /// Set when the guest ended in the middle of its body, which looks like the body's end otherwise.
    pub(super) cut: Arc<AtomicBool>,
}

impl Answer {
    /// True if there was no answer yet.
    pub(super) fn send(&self, answer: Result<Response<HttpBody>, Failure>) -> bool {
        let sender = self.sender.lock().take();
        sender.is_some_and(|sender| {
            let _ = sender.send(answer);
            true
        })
    }
}

/// Marks a body as cut unless the guest's handler returned.
pub(super) struct CutOnDrop(pub(super) Option<Arc<AtomicBool>>);

impl CutOnDrop {
    pub(super) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        if let Some(cut) = &self.0 {
            cut.store(true, Ordering::Release);
        }
    }
}

/// A response body whose end its guest's task notices.
pub(super) struct Listened {
    pub(super) body: HttpBody,
    pub(super) cut: Arc<AtomicBool>,
    pub(super) _listener: oneshot::Sender<()>,
    pub(super) _exchange: Arc<Room>,
}

impl http_body::Body for Listened {
    type Data = Bytes;
    type Error = anyhow::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, anyhow::Error>>> {
        match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            None if self.cut.swap(false, Ordering::AcqRel) => {
                Poll::Ready(Some(Err(anyhow::anyhow!("the application failed in the middle of its response"))))
            }
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && !self.cut.load(Ordering::Acquire)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
