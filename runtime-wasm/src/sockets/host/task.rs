//! Work that goes on while the guest does something else.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::task::JoinHandle;

use crate::network::NetError;

/// Work whose result is taken once; dropping it stops the work.
pub(super) struct Task<T> {
    /// `None` if the work was done at once.
    handle: Option<JoinHandle<T>>,
    done: Option<Result<T, NetError>>,
}

impl<T: Send + 'static> Task<T> {
    pub(super) fn spawn(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self { handle: Some(tokio::spawn(work)), done: None }
    }

    /// As [`Self::spawn`], but what need not wait is done here and now.
    pub(super) fn start(work: impl Future<Output = T> + Send + 'static) -> Self {
        let mut work = Box::pin(work);
        match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Self { handle: None, done: Some(Ok(result)) },
            Poll::Pending => Self::spawn(work),
        }
    }

    /// Whether [`Self::take`] has something to give. A panic of the work is a reset.
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.done.is_none()
            && let Some(handle) = &mut self.handle
        {
            let result = ready!(Pin::new(handle).poll(cx));
            self.done = Some(result.map_err(|_| NetError::ConnectionReset));
        }
        Poll::Ready(())
    }

    pub(super) fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, NetError>> {
        ready!(self.poll_ready(cx));
        Poll::Ready(self.done.take().unwrap_or(Err(NetError::ConnectionReset)))
    }

    /// Waits until [`Self::take`] has something to give.
    pub(super) async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.poll_ready(cx)).await;
    }

    /// The result, if the work is done. Not to be called again once it gave one.
    pub(super) fn take(&mut self) -> Option<Result<T, NetError>> {
        match self.poll_take(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    /// Waits for the result.
    pub(super) async fn result(mut self) -> Result<T, NetError> {
        std::future::poll_fn(|cx| self.poll_take(cx)).await
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        if let Some(handle) = &self.handle {
            handle.abort();
        }
    }
}
