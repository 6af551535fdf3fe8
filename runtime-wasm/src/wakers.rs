//! Tasks that wait for the same thing.

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

/// Most tasks that are remembered. One more wakes them all, and those that still wait ask again.
const MAX_WAITING: usize = 4096;

/// Wakes all who wait: what they wait for remembers only one.
#[derive(Default)]
pub(crate) struct Wakers(Mutex<Vec<Waker>>);

impl Wakers {
    /// Polls what several tasks wait for; once it is ready, the others are woken.
    pub(crate) fn poll<T>(
        self: &Arc<Self>,
        cx: &Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.add(cx.waker());
        let all = Waker::from(self.clone());
        let polled = poll(&mut Context::from_waker(&all));
        if polled.is_ready() {
            self.wake_but(Some(cx.waker()));
        }
        polled
    }

    fn add(&self, waker: &Waker) {
        let mut waiting = self.0.lock();
        if waker.will_wake(Waker::noop()) || waiting.iter().any(|known| known.will_wake(waker)) {
            return;
        }
        let full = if waiting.len() >= MAX_WAITING { std::mem::take(&mut *waiting) } else { Vec::new() };
        waiting.push(waker.clone());
        drop(waiting);
        full.into_iter().for_each(Waker::wake);
    }

    fn wake_but(&self, me: Option<&Waker>) {
        let waiting = std::mem::take(&mut *self.0.lock());
        for waker in waiting {
            if me.is_none_or(|me| !waker.will_wake(me)) {
                waker.wake();
            }
        }
    }
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_but(None);
    }
}
