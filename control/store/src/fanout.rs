//! Events to watchers. A watcher whose queue is full is cut off, never waited for.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::{Event, Watch};

/// The watchers of a store, by prefix.
#[derive(Default)]
pub(crate) struct Fanout {
    watchers: Mutex<Watchers>,
    /// The revision up to which every event is queued for every watcher that is not cut off.
    published: AtomicU64,
}

#[derive(Default)]
struct Watchers {
    by_prefix: HashMap<Box<str>, Vec<Watcher>>,
    next_id: u64,
}

struct Watcher {
    id: u64,
    /// Events up to here were queued when the watch began.
    start: u64,
    events: mpsc::Sender<Arc<Event>>,
}

/// Ends a watch when dropped.
pub(crate) struct Registration {
    fanout: Arc<Fanout>,
    prefix: Box<str>,
    id: u64,
}

impl Fanout {
    pub(crate) fn new(revision: u64) -> Arc<Self> {
        Arc::new(Self { published: AtomicU64::new(revision), ..Self::default() })
    }

    /// Begins a watch at `start` with the events before it that the watcher resumes with. The caller holds the index,
    /// so that no event above `start` is applied meanwhile.
    pub(crate) fn watch(self: &Arc<Self>, prefix: &str, replay: Vec<Arc<Event>>, start: u64, buffer: usize) -> Watch {
        let (sender, receiver) = mpsc::channel(replay.len() + buffer.max(1));
        for event in replay {
            // Never full: the queue has room for all of them.
            let _ = sender.try_send(event);
        }
        let mut watchers = self.watchers.lock();
        let id = watchers.next_id;
        watchers.next_id += 1;
        watchers.by_prefix.entry(prefix.into()).or_default().push(Watcher { id, start, events: sender });
        Watch { events: receiver, registration: Registration { fanout: self.clone(), prefix: prefix.into(), id } }
    }

    /// Queues events, in revision order, for their watchers; then all is published up to `revision`.
    pub(crate) fn publish(&self, events: &[Arc<Event>], revision: u64) {
        {
            let mut watchers = self.watchers.lock();
            if !watchers.by_prefix.is_empty() {
                events.iter().for_each(|event| watchers.send(event));
            }
            // Under the lock: a watch that begins later starts above `revision`.
            self.published.store(revision, Ordering::Release);
        }
    }

    /// Ends all watches.
    pub(crate) fn close(&self) {
        self.watchers.lock().by_prefix.clear();
    }
}

impl Watchers {
    fn send(&mut self, event: &Arc<Event>) {
        let key: &str = &event.record.key;
        let ends = std::iter::once(0).chain(key.match_indices('/').map(|(i, _)| i + 1));
        for prefix in ends.filter_map(|end| key.get(..end)) {
            if let Some(list) = self.by_prefix.get_mut(prefix) {
                list.retain(|w| event.record.revision <= w.start || w.events.try_send(event.clone()).is_ok());
            }
        }
    }
}

impl Registration {
    pub(crate) fn published(&self) -> u64 {
        self.fanout.published.load(Ordering::Acquire)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut watchers = self.fanout.watchers.lock();
        if let Some(list) = watchers.by_prefix.get_mut(&self.prefix) {
            list.retain(|w| w.id != self.id);
            if list.is_empty() {
                watchers.by_prefix.remove(&self.prefix);
            }
        }
    }
}
