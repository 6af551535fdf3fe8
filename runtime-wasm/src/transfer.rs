//! What the host's streams of WASI 0.3 have in common: how they end, and that none of them outlasts its guest's turn.

use std::task::{Context, Poll};

use tokio::sync::oneshot;
use wasmtime::AsContextMut;
use wasmtime::component::{FutureReader, Lift, Lower, StreamProducer, StreamReader};

/// Bytes moved by one call at most.
pub(crate) const MAX_TRANSFER: usize = 64 << 10;
/// Bytes that the host keeps for a stream which the guest joined to another.
pub(crate) const JOINED_BYTES: usize = 8 << 10;
/// Bytes moved before it is asked whether the guest's turn is over.
const STRIDE: usize = 1 << 20;

/// The future of an outcome.
pub(crate) type Outcomes<E> = FutureReader<Result<(), E>>;

/// How a stream ended, told once to the future that goes with it: well, if nothing else was said before this is dropped.
pub(crate) struct Outcome<E>(Option<oneshot::Sender<Result<(), E>>>);

impl<E: Send + Sync + 'static> Outcome<E>
where
    Result<(), E>: Lower + Lift,
{
    /// An outcome to come, and its future.
    pub(crate) fn new(store: impl AsContextMut) -> wasmtime::Result<(Self, Outcomes<E>)> {
        let (sender, receiver) = oneshot::channel();
        Ok((Self(Some(sender)), FutureReader::new(store, receiver)?))
    }

    /// The future of a stream that failed before it began.
    pub(crate) fn failed(store: impl AsContextMut, error: E) -> wasmtime::Result<Outcomes<E>> {
        FutureReader::new(store, async move { wasmtime::error::Ok(Err(error)) })
    }
}

impl<E> Outcome<E> {
    pub(crate) fn fail(&mut self, error: E) {
        if let Some(sender) = self.0.take() {
            // A guest that dropped the future does not care.
            let _ = sender.send(Err(error));
        }
    }
}

impl<E> Drop for Outcome<E> {
    fn drop(&mut self) {
        if let Some(sender) = self.0.take() {
            let _ = sender.send(Ok(()));
        }
    }
}

/// A stream that gives what `producer` makes, with the outcome as a future; or nothing and the reason, if there is none.
pub(crate) fn stream_of<S, P, T, E>(
    mut store: S,
    producer: Result<impl FnOnce(Outcome<E>) -> P, E>,
) -> wasmtime::Result<(StreamReader<T>, Outcomes<E>)>
where
    S: AsContextMut,
    P: StreamProducer<S::Data, Item = T>,
    T: Lower + Lift + Send + Sync + 'static,
    E: Send + Sync + 'static,
    Result<(), E>: Lower + Lift,
{
    match producer {
        Ok(producer) => {
            let (outcome, future) = Outcome::new(&mut store)?;
            Ok((StreamReader::new(&mut store, producer(outcome))?, future))
        }
        Err(error) => {
            let future = Outcome::failed(&mut store, error)?;
            Ok((StreamReader::new(&mut store, std::iter::empty())?, future))
        }
    }
}

/// Counts what a stream moves without ever having to wait. Streams that the guest joined to each other run in the host
/// alone, where no tick interrupts them: they end their guest's turn themselves.
#[derive(Default)]
pub(crate) struct Pace(usize);

impl Pace {
    /// Counts `bytes`, or as many of anything that costs as much.
    pub(crate) fn moved(&mut self, bytes: usize) {
        self.0 += bytes;
    }

    /// Whether to go on; pending, and awake, when it is another's turn. Not asked of a stream that is to `finish`.
    pub(crate) fn poll(&mut self, cx: &Context<'_>, finish: bool) -> Poll<()> {
        if self.0 >= STRIDE {
            self.0 = 0;
            if !finish && crate::fair::has_overrun() {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_told_once() {
        let told = |last_words: Option<&'static str>| {
            let (sender, mut receiver) = oneshot::channel();
            let mut outcome = Outcome(Some(sender));
            if let Some(error) = last_words {
                outcome.fail(error);
                outcome.fail("again");
            }
            drop(outcome);
            receiver.try_recv().unwrap()
        };
        assert_eq!((told(None), told(Some("reset"))), (Ok(()), Err("reset")));
    }
}
