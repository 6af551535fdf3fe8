//! The answer to one request: who gives it, what the client sees when nobody does, and when its body is cut.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Full};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::LINGER;
use super::complaints::name_of;
use super::limits::check_headers;
use super::lingering::Lingering;

use crate::buffers::Room;
use crate::network::HttpBody;

/// Why there is no response from the guest, as its client is told.
#[derive(Debug, Clone, Copy)]
pub(super) enum Failure {
    Unavailable(&'static str),
    BadRequest,
    HeadersTooLarge,
    BodyTooLarge,
    Guest,
    Timeout,
}

impl Failure {
    pub(super) fn into_response(self) -> Response<HttpBody> {
        let (status, text) = match self {
            Failure::Unavailable(text) => (StatusCode::SERVICE_UNAVAILABLE, text),
            Failure::BadRequest => (StatusCode::BAD_REQUEST, "the request is not acceptable"),
            Failure::HeadersTooLarge => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's header section is too large")
            }
            Failure::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "the request's body is too large"),
            Failure::Guest => (StatusCode::INTERNAL_SERVER_ERROR, "the application failed; its log says why"),
            Failure::Timeout => (StatusCode::GATEWAY_TIMEOUT, "the application did not answer in time"),
        };
        plain(status, text)
    }
}

/// A line of text as a response.
pub(super) fn plain(status: StatusCode, text: &str) -> Response<HttpBody> {
    let body = Full::new(Bytes::from(format!("{text}\n"))).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// The response without its body, which HTTP does not send for some methods and statuses; the guest may finish it.
pub(super) fn without_body(mut response: Response<HttpBody>, is_head: bool) -> Response<HttpBody> {
    if !is_head {
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response.map(|body| {
        drop(Lingering::new(body));
        Empty::new().map_err(|never| match never {}).boxed_unsync()
    })
}

/// Why a guest's response cannot be sent.
pub(super) fn unfit(response: &Response<HttpBody>) -> Option<String> {
    if response.status().is_informational() {
        return Some(format!("status {} is no final response", response.status().as_u16()));
    }
    check_headers(response.headers()).err().map(|bytes| format!("response headers of {bytes} bytes are too large"))
}

/// What a request holds: its turn, and its part of the pod's buffers.
pub(super) type Permit = (OwnedSemaphorePermit, Arc<Room>);

/// One request on its way to the guest.
pub(super) struct Job {
    pub(super) request: Request<HttpBody>,
    pub(super) answer: Answer,
    /// Ends when its client has all of the response, or has gone.
    pub(super) listening: oneshot::Receiver<()>,
    pub(super) permit: Permit,
}

impl Job {
    pub(super) fn name(&self) -> String {
        name_of(&self.request)
    }
}

/// Waits until nobody wants what a guest still does for a request; why, if its user may want to know.
pub(super) async fn given_up(answer: &Answer, listening: &mut oneshot::Receiver<()>, idle: Duration) -> Option<String> {
    tokio::select! {
        _ = listening => {
            if answer.is_sent() {
                tokio::time::sleep(LINGER).await;
            }
            None
        }
        () = answer.reading.stopped(idle) => {
            // What was paid for is gone with the guest; its client may stay as long as it likes.
            answer.reading.release();
            Some(format!("the response was not read for {} s, given up", idle.as_secs()))
        }
    }
}

pub(super) type AnswerSender = oneshot::Sender<Result<Response<HttpBody>, Failure>>;

/// The one answer to a request, from the guest or from us, whoever is first.
#[derive(Clone)]
pub(super) struct Answer {
    sender: Arc<Mutex<Option<AnswerSender>>>,
    /// Set when the guest ended in the middle of its body, which looks like the body's end otherwise.
    pub(super) cut: Arc<AtomicBool>,
    pub(super) reading: Arc<Reading>,
}

impl Answer {
    pub(super) fn new(sender: AnswerSender) -> Answer {
        Answer { sender: Arc::new(Mutex::new(Some(sender))), cut: Arc::default(), reading: Arc::default() }
    }

    /// True if there was no answer yet.
    pub(super) fn send(&self, answer: Result<Response<HttpBody>, Failure>) -> bool {
        let sender = self.sender.lock().take();
        sender.is_some_and(|sender| {
            let _ = sender.send(answer);
            true
        })
    }

    fn is_sent(&self) -> bool {
        self.sender.lock().is_none()
    }
}

/// How a response is being read.
#[derive(Default)]
pub(super) struct Reading {
    /// Since when it is not, though there is something to read.
    paused: Mutex<Option<Instant>>,
    /// Its part of the pod's buffers, until it is given up.
    exchange: Mutex<Option<Arc<Room>>>,
}

impl Reading {
    fn paused(&self) {
        *self.paused.lock() = Some(Instant::now());
    }

    fn resumed(&self) {
        *self.paused.lock() = None;
    }

    fn release(&self) {
        let exchange = self.exchange.lock().take();
        drop(exchange);
    }

    /// Waits until the response has not been read for so long.
    async fn stopped(&self, idle: Duration) {
        loop {
            let since = *self.paused.lock();
            match since {
                Some(since) if since.elapsed() >= idle => return,
                Some(since) => tokio::time::sleep_until(since + idle).await,
                None => tokio::time::sleep(idle).await,
            }
        }
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

/// A response body whose end, and whose reader's pauses, its guest's task notices.
pub(super) struct Listened {
    body: HttpBody,
    cut: Arc<AtomicBool>,
    reading: Arc<Reading>,
    _listener: oneshot::Sender<()>,
}

impl Listened {
    pub(super) fn new(
        body: HttpBody,
        cut: Arc<AtomicBool>,
        reading: Arc<Reading>,
        listener: oneshot::Sender<()>,
        exchange: Arc<Room>,
    ) -> Listened {
        *reading.exchange.lock() = Some(exchange);
        reading.paused();
        Listened { body, cut, reading, _listener: listener }
    }
}

impl Drop for Listened {
    fn drop(&mut self) {
        self.reading.resumed();
        self.reading.release();
    }
}

impl http_body::Body for Listened {
    type Data = Bytes;
    type Error = anyhow::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, anyhow::Error>>> {
        self.reading.resumed();
        match std::task::ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            None if self.cut.swap(false, Ordering::AcqRel) => {
                Poll::Ready(Some(Err(anyhow::anyhow!("the application failed in the middle of its response"))))
            }
            frame => {
                if frame.is_some() {
                    self.reading.paused();
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && !self.cut.load(Ordering::Acquire)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}
