//! The threads that give guests their turns.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::account::CpuAccount;
use super::queue::{AccountId, Counters, RunQueue, Time};
use super::task::{After, Task};
use crate::ticker::{Running, Ticker};

/// Threads that run guests and nothing else. Without runnable guests they sleep in the kernel.
pub(crate) struct GuestPool(Arc<Shared>);

/// What the threads and the accounts share.
pub(super) struct Shared {
    start: Instant,
    state: Mutex<State>,
    runnable: Condvar,
    ticker: Arc<Ticker>,
}

struct State {
    queue: RunQueue<Arc<Task>>,
    /// Tasks that are not done, by address: nobody else need hold one that waits.
    live: HashMap<usize, Arc<Task>>,
    idle: usize,
    /// When the idle thread that watches the clock looks again.
    alarm: Option<Time>,
    stopped: bool,
}

impl GuestPool {
    /// Starts the threads. Guests' timers and sockets are those of the tokio runtime `io`.
    pub(crate) fn start(
        threads: usize,
        io: &tokio::runtime::Handle,
        ticker: Arc<Ticker>,
    ) -> std::io::Result<GuestPool> {
        let state = State { queue: RunQueue::new(), live: HashMap::new(), idle: 0, alarm: None, stopped: false };
        let (state, runnable) = (Mutex::new(state), Condvar::new());
        let pool = GuestPool(Arc::new(Shared { start: Instant::now(), state, runnable, ticker }));
        for number in 0..threads {
            let (shared, io) = (pool.0.clone(), io.clone());
            let work = move || {
                let _io = io.enter();
                shared.work();
            };
            std::thread::Builder::new().name(format!("guest-{number}")).spawn(work)?;
        }
        Ok(pool)
    }

    /// An account with this weight, and a quota in thousandths of a core if it has one.
    pub(crate) fn account(&self, weight: u64, quota: Option<u64>) -> Arc<CpuAccount> {
        let id = self.0.state.lock().queue.open(weight, quota, self.0.now());
        CpuAccount::new(self.0.clone(), id)
    }

    /// Drops all tasks; threads that are in the middle of one end after its turn.
    pub(crate) fn stop(&self) {
        let mut state = self.0.state.lock();
        state.stopped = true;
        let (live, queue) = (std::mem::take(&mut state.live), std::mem::replace(&mut state.queue, RunQueue::new()));
        drop(state);
        self.0.runnable.notify_all();
        live.into_values().for_each(|task| task.abandon());
        drop(queue);
    }
}

impl Drop for GuestPool {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn now(&self) -> Time {
        self.start.elapsed()
    }

    /// Held while a task is on a thread.
    pub(super) fn running(&self) -> Running<'_> {
        self.ticker.running()
    }

    pub(super) fn counters(&self, id: AccountId) -> Counters {
        self.state.lock().queue.counters(id)
    }

    /// Queues a new task; false when the pool has stopped.
    pub(super) fn start(&self, id: AccountId, task: &Arc<Task>) -> bool {
        let mut state = self.state.lock();
        if state.stopped {
            return false;
        }
        state.live.insert(key(task), task.clone());
        self.enqueue(state, id, task.clone());
        true
    }

    /// Queues a task that was woken.
    pub(super) fn push(&self, id: AccountId, task: Arc<Task>) {
        let state = self.state.lock();
        if !state.stopped {
            self.enqueue(state, id, task);
        }
    }

    fn enqueue(&self, mut state: MutexGuard<'_, State>, id: AccountId, task: Arc<Task>) {
        state.queue.push(id, task, self.now());
        self.call_a_thread(state);
    }

    pub(super) fn expedite(&self, id: AccountId) {
        let mut state = self.state.lock();
        state.queue.expedite(id);
        self.call_a_thread(state);
    }

    pub(super) fn close(&self, id: AccountId) {
        let left = self.state.lock().queue.close(id);
        drop(left);
    }

    fn call_a_thread(&self, state: MutexGuard<'_, State>) {
        let sleeping = state.idle > 0;
        drop(state);
        if sleeping {
            self.runnable.notify_one();
        }
    }

    /// A thread's life.
    fn work(&self) {
        // The task of the last turn. This may be all that is left of it, since another thread may have given it a turn and
        // forgotten it by now, and of an account, whose end takes the lock: it is dropped without the lock.
        let mut last: Option<Arc<Task>> = None;
        let mut state = self.state.lock();
        while !state.stopped {
            let Some((id, task)) = state.queue.pop(self.now()) else {
                match last.take() {
                    Some(last) => MutexGuard::unlocked(&mut state, || drop(last)),
                    None => self.sleep(&mut state),
                }
                continue;
            };
            let (spent, after) = MutexGuard::unlocked(&mut state, || {
                drop(last.take());
                task.run()
            });
            let again = (after == After::Queue && !state.stopped).then(|| task.clone());
            if after == After::Forget {
                state.live.remove(&key(&task));
            }
            state.queue.settle(id, spent, again, self.now());
            last = Some(task);
        }
    }

    /// Waits for something to run, or for the end of the next quota pause if no other thread waits for that.
    fn sleep(&self, state: &mut MutexGuard<'_, State>) {
        let next = state.queue.next_release().filter(|&next| state.alarm.is_none_or(|alarm| next < alarm));
        state.idle += 1;
        match next {
            Some(next) => {
                state.alarm = Some(next);
                self.runnable.wait_until(state, self.start + next);
                if state.alarm == Some(next) {
                    state.alarm = None;
                }
            }
            None => self.runnable.wait(state),
        }
        state.idle -= 1;
        // A thread that watched the clock and was called for work hands the watch on.
        if next.is_some() && state.idle > 0 && state.queue.next_release().is_some() {
            self.runnable.notify_one();
        }
    }
}

fn key(task: &Arc<Task>) -> usize {
    Arc::as_ptr(task).addr()
}
