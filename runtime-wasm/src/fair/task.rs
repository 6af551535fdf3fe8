//! A future of a guest, and its turns on a guests' thread.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;

use super::account::CpuAccount;
use crate::ticker::TICK;

/// Pending, and nobody has woken it.
const WAITING: u8 = 0;
/// In the run queue, or about to be.
const QUEUED: u8 = 1;
/// On a thread.
const RUNNING: u8 = 2;
/// On a thread, and woken meanwhile.
const WOKEN: u8 = 3;
const DONE: u8 = 4;

/// CPU time that a turn has at least, whenever the clock ticks: what takes less is never cut in two, and a guest that
/// slept, and finds its epoch deadline long past, is not sent to the queue for that. A turn takes at most a tick more.
pub(super) const MIN_TURN: Duration = Duration::from_micros(TICK.as_micros() as u64 / 2);

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

thread_local! {
    /// The turn that this thread is giving.
    static TURN: RefCell<Option<Turn>> = const { RefCell::new(None) };
}

struct Turn {
    account: Arc<CpuAccount>,
    /// CPU time of this thread when it began.
    began: Duration,
}

/// The account whose task this thread runs.
pub(crate) fn current() -> Option<Arc<CpuAccount>> {
    TURN.with_borrow(|turn| turn.as_ref().map(|turn| turn.account.clone()))
}

/// Whether the running task has had its turn, asked at a tick.
pub(crate) fn used_its_turn() -> bool {
    TURN.with_borrow(|turn| {
        turn.as_ref()
            .is_none_or(|turn| turn.account.is_ending() || thread_cpu_time().saturating_sub(turn.began) >= MIN_TURN)
    })
}

/// As [`used_its_turn`], of work that no tick interrupts; false outside of any turn.
pub(crate) fn has_overrun() -> bool {
    TURN.with_borrow(Option::is_some) && used_its_turn()
}

/// Ends the running task's turn; it is runnable still.
pub(crate) async fn until_next_turn() {
    let mut ended = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut ended, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

pub(super) struct Task {
    account: Arc<CpuAccount>,
    state: AtomicU8,
    aborted: AtomicBool,
    work: Mutex<Option<Work>>,
}

/// What is to be done with a task after its turn.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum After {
    Forget,
    Wait,
    Queue,
}

impl Task {
    /// A task that is about to be queued.
    pub(super) fn new(account: Arc<CpuAccount>, work: Work) -> Arc<Task> {
        let (state, aborted) = (AtomicU8::new(QUEUED), AtomicBool::new(false));
        Arc::new(Task { account, state, aborted, work: Mutex::new(Some(work)) })
    }

    /// Gives it a turn on this thread: what it used, and what comes next. A panic ends the task, not the thread.
    pub(super) fn run(self: &Arc<Self>) -> (Duration, After) {
        let before = thread_cpu_time();
        let pool = self.account.pool();
        TURN.set(Some(Turn { account: self.account.clone(), began: before }));
        let running = pool.running();
        self.state.store(RUNNING, Ordering::SeqCst);
        let waker = Waker::from(self.clone());
        let polled = catch_unwind(AssertUnwindSafe(|| self.poll(&mut Context::from_waker(&waker))));
        let done = polled.unwrap_or_else(|_| {
            tracing::error!("a task of a guest panicked outside the guest");
            true
        });
        // Aborting while the work was on this thread leaves the rest to this thread.
        let after = if done || self.aborted.load(Ordering::SeqCst) {
            self.clear();
            After::Forget
        } else if self.state.compare_exchange(RUNNING, WAITING, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            After::Wait
        } else {
            self.state.store(QUEUED, Ordering::SeqCst);
            After::Queue
        };
        drop(running);
        TURN.set(None);
        (thread_cpu_time().saturating_sub(before), after)
    }

    /// True when there is nothing left to do.
    fn poll(&self, cx: &mut Context<'_>) -> bool {
        let mut work = self.work.lock();
        match work.as_mut() {
            Some(work) if !self.aborted.load(Ordering::SeqCst) => work.as_mut().poll(cx).is_ready(),
            _ => true,
        }
    }

    /// Drops the work, if it is not on another thread just now: that one drops it then.
    fn clear(&self) {
        self.state.store(DONE, Ordering::SeqCst);
        let work = self.work.try_lock().and_then(|mut work| work.take());
        if catch_unwind(AssertUnwindSafe(|| drop(work))).is_err() {
            tracing::error!("dropping a task of a guest panicked");
        }
    }

    /// Drops the work without giving it another turn.
    pub(super) fn abandon(&self) {
        self.aborted.store(true, Ordering::SeqCst);
        self.clear();
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let woken = self.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |state| match state {
            WAITING => Some(QUEUED),
            RUNNING => Some(WOKEN),
            _ => None,
        });
        if woken == Ok(WAITING) {
            self.account.pool().push(self.account.id(), self.clone());
        }
    }
}

/// A spawned task, which runs on when this is dropped.
pub(crate) struct TaskHandle(pub(super) Arc<Task>);

impl TaskHandle {
    /// Ends the task with its owner.
    pub(crate) fn abort_on_drop(self) -> AbortOnDrop {
        AbortOnDrop(Some(self.0))
    }
}

/// Drops its task's work, at the task's next turn, when it is dropped itself.
pub(crate) struct AbortOnDrop(Option<Arc<Task>>);

impl AbortOnDrop {
    /// Lets the task go on by itself.
    pub(crate) fn release(mut self) {
        self.0 = None;
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.aborted.store(true, Ordering::SeqCst);
            task.wake_by_ref();
        }
    }
}

/// The CPU time this thread has used.
fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.clamp(0, 999_999_999) as u32)
}
