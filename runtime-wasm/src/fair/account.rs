//! A container's CPU account.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::pool::Shared;
use super::queue::AccountId;
use super::task::{Task, TaskHandle};
use crate::limits::OutOfMemory;

type End = Box<dyn Fn(&OutOfMemory) + Send + Sync>;

/// A container's CPU account: its weight, its quota, what it used. All that runs for the container is spawned on it.
pub struct CpuAccount {
    pool: Arc<Shared>,
    id: AccountId,
    on_out_of_memory: OnceLock<End>,
    ending: AtomicBool,
}

/// What a container did with the guests' threads, exact up to its latest turn (a turn is two epoch ticks at most).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuUsage {
    /// CPU time, by the clock of the thread that ran it.
    pub used: Duration,
    /// Time that it had something to run and was not its turn, summed over its tasks; pauses by its quota left out.
    pub waited: Duration,
    /// The longest such wait.
    pub longest_wait: Duration,
    /// Quota periods whose quota was used up.
    pub throttled_periods: u64,
    /// Time that its quota kept it from running.
    pub throttled: Duration,
}

impl CpuAccount {
    pub(super) fn new(pool: Arc<Shared>, id: AccountId) -> Arc<CpuAccount> {
        Arc::new(CpuAccount { pool, id, on_out_of_memory: OnceLock::new(), ending: AtomicBool::new(false) })
    }

    /// What it used.
    pub fn usage(&self) -> CpuUsage {
        let counters = self.pool.counters(self.id);
        CpuUsage {
            used: counters.used,
            waited: counters.waited,
            longest_wait: counters.longest_wait,
            throttled_periods: counters.throttled_periods,
            throttled: counters.throttled,
        }
    }

    /// Runs `future` on the guests' threads at this account's cost; `None` when the pool has stopped.
    pub(crate) fn spawn(self: &Arc<Self>, future: impl Future<Output = ()> + Send + 'static) -> Option<TaskHandle> {
        let task = Task::new(self.clone(), Box::pin(future));
        self.pool.start(self.id, &task).then(|| TaskHandle(task))
    }

    /// What still runs is to be ended: it goes first from now on, whatever its weight and quota, to be told so.
    pub(crate) fn expedite(&self) {
        self.ending.store(true, Ordering::Relaxed);
        self.pool.expedite(self.id);
    }

    /// Whether what runs is to be ended.
    pub(super) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Sets how the container is ended when its pod's memory runs out in one of its turns.
    pub(crate) fn on_out_of_memory(&self, end: impl Fn(&OutOfMemory) + Send + Sync + 'static) {
        let _ = self.on_out_of_memory.set(Box::new(end));
    }

    /// The pod's memory ran out in one of the container's turns.
    pub(crate) fn out_of_memory(&self, error: &OutOfMemory) {
        if let Some(end) = self.on_out_of_memory.get() {
            end(error);
        }
    }

    pub(super) fn id(&self) -> AccountId {
        self.id
    }

    pub(super) fn pool(&self) -> &Shared {
        &self.pool
    }
}

impl Drop for CpuAccount {
    fn drop(&mut self) {
        self.pool.close(self.id);
    }
}
