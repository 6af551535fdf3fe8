//! A work queue of keys: each key is queued at most once and worked on by at most one worker; failures come back after
//! a back-off; a key that changes all the time is worked on at most once per [`Settings::min_interval`].
//!
//! Runs on tokio's clock and a seeded jitter, so tests with a paused clock are deterministic.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How a queue spaces its work.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The delay after a first failure; doubles with each further one.
    pub base: Duration,
    /// The longest back-off.
    pub cap: Duration,
    /// The least time between the end of a key's work and its next start, unless asked for by a delay.
    pub min_interval: Duration,
    /// Seed of the jitter.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            base: Duration::from_millis(5),
            cap: Duration::from_secs(60),
            min_interval: Duration::from_millis(10),
            seed: 0,
        }
    }
}

/// How work on a key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing more to do until the key is added again.
    Done,
    /// Look again after this delay.
    After(Duration),
    /// It failed: look again after a back-off.
    Retry,
}

/// The queue; a handle to be cloned.
pub struct WorkQueue<K> {
    inner: Arc<Inner<K>>,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

struct Inner<K> {
    state: Mutex<State<K>>,
    wake: Notify,
    settings: Settings,
}

struct State<K> {
    ready: VecDeque<K>,
    /// Keys in `ready`, and keys that changed while being worked on.
    dirty: HashSet<K>,
    working: HashSet<K>,
    failures: HashMap<K, u32>,
    delayed: BTreeMap<(Instant, u64), K>,
    delayed_at: HashMap<K, (Instant, u64)>,
    /// Until when a key that was just worked on rests.
    resting: HashMap<K, Instant>,
    sequence: u64,
    jitter: StdRng,
}

/// Above this many resting keys, those whose rest is over are dropped.
const RESTING_SWEEP: usize = 4096;

impl<K: Clone + Eq + Hash + Send + 'static> WorkQueue<K> {
    /// An empty queue.
    pub fn new(settings: Settings) -> Self {
        let state = State {
            ready: VecDeque::new(),
            dirty: HashSet::new(),
            working: HashSet::new(),
            failures: HashMap::new(),
            delayed: BTreeMap::new(),
            delayed_at: HashMap::new(),
            resting: HashMap::new(),
            sequence: 0,
            jitter: StdRng::seed_from_u64(settings.seed),
        };
        Self { inner: Arc::new(Inner { state: Mutex::new(state), wake: Notify::new(), settings }) }
    }

    /// Queues a key for work now, or as soon as its present work and rest are over.
    pub fn add(&self, key: K) {
        self.inner.state.lock().add(key, Instant::now());
        self.inner.wake.notify_one();
    }

    /// Queues a key for later; an earlier appointment stands.
    pub fn add_after(&self, key: K, delay: Duration) {
        self.inner.state.lock().delay(key, Instant::now() + delay);
        self.inner.wake.notify_one();
    }

    /// Keys that wait for work now.
    pub fn len(&self) -> usize {
        self.inner.state.lock().ready.len()
    }

    /// Whether no key waits for work now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Works on keys, at most `concurrency` at once, until cancelled; then drops unfinished work. A panic in `work` is
    /// contained and counts as [`Outcome::Retry`].
    pub async fn run<F, Fut>(self, concurrency: usize, token: CancellationToken, work: F)
    where
        F: Fn(K) -> Fut,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        let mut keys = HashMap::new();
        loop {
            tokio::select! {
                biased;
                () = token.cancelled() => return,
                Some(ended) = tasks.join_next_with_id(), if !tasks.is_empty() => {
                    let (id, outcome) = match ended {
                        Ok((id, outcome)) => (id, outcome),
                        Err(error) => {
                            tracing::error!(%error, "work ended abnormally");
                            (error.id(), Outcome::Retry)
                        }
                    };
                    if let Some(key) = keys.remove(&id) {
                        self.finish(key, outcome);
                    }
                }
                key = self.next(), if tasks.len() < concurrency => {
                    let handle = tasks.spawn(work(key.clone()));
                    keys.insert(handle.id(), key);
                }
            }
        }
    }

    /// Takes the next key; it must be given back with `finish`. Safe to cancel.
    async fn next(&self) -> K {
        loop {
            let due = match self.inner.state.lock().take(Instant::now()) {
                Ok(key) => return key,
                Err(due) => due,
            };
            match due {
                Some(at) => tokio::select! {
                    () = self.inner.wake.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => self.inner.wake.notified().await,
            }
        }
    }

    fn finish(&self, key: K, outcome: Outcome) {
        let now = Instant::now();
        let settings = &self.inner.settings;
        let mut state = self.inner.state.lock();
        state.working.remove(&key);
        if !settings.min_interval.is_zero() {
            state.resting.insert(key.clone(), now + settings.min_interval);
            if state.resting.len() > RESTING_SWEEP {
                state.resting.retain(|_, until| *until > now);
            }
        }
        match outcome {
            Outcome::Retry => {
                let failures = state.failures.entry(key.clone()).or_insert(0);
                *failures = failures.saturating_add(1);
                let doublings = (*failures - 1).min(20);
                let delay = settings.base.saturating_mul(1 << doublings).min(settings.cap);
                let jittered = delay.mul_f64(state.jitter.random_range(0.5..=1.0));
                state.delay(key.clone(), now + jittered);
            }
            Outcome::Done => {
                state.failures.remove(&key);
            }
            Outcome::After(delay) => {
                state.failures.remove(&key);
                state.delay(key.clone(), now + delay);
            }
        }
        if state.dirty.remove(&key) {
            state.add(key, now);
        }
        drop(state);
        self.inner.wake.notify_one();
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn add(&mut self, key: K, now: Instant) {
        if self.working.contains(&key) {
            self.dirty.insert(key);
            return;
        }
        match self.resting.get(&key) {
            Some(until) if *until > now => {
                let until = *until;
                self.delay(key, until);
            }
            _ => {
                self.resting.remove(&key);
                self.enqueue(key);
            }
        }
    }

    fn enqueue(&mut self, key: K) {
        if let Some(appointment) = self.delayed_at.remove(&key) {
            self.delayed.remove(&appointment);
        }
        if self.dirty.insert(key.clone()) {
            self.ready.push_back(key);
        }
    }

    fn delay(&mut self, key: K, at: Instant) {
        if let Some(earlier) = self.delayed_at.get(&key).copied() {
            if earlier.0 <= at {
                return;
            }
            self.delayed.remove(&earlier);
        }
        self.sequence += 1;
        let appointment = (at, self.sequence);
        self.delayed_at.insert(key.clone(), appointment);
        self.delayed.insert(appointment, key);
    }

    /// The next key, or when the next appointment is.
    fn take(&mut self, now: Instant) -> Result<K, Option<Instant>> {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let key = entry.remove();
            self.delayed_at.remove(&key);
            if self.working.contains(&key) {
                self.dirty.insert(key);
            } else {
                self.enqueue(key);
            }
        }
        match self.ready.pop_front() {
            Some(key) => {
                self.dirty.remove(&key);
                self.working.insert(key.clone());
                Ok(key)
            }
            None => Err(self.delayed.first_key_value().map(|((at, _), _)| *at)),
        }
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
