//! How old what the controllers see may be: followed watch by watch, so that rules allow for the lag that there is and
//! for no other.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long it takes from a decision to its last write, when no request is slow.
const PROMPT: Duration = Duration::from_secs(2);
/// Batches of one plan's writes, each of which may wait for a slow request.
const BATCHES: u32 = 8;
/// A write that failed is tried again within this.
const RETRIED: Duration = Duration::from_secs(60);
/// For how long it is remembered how far behind a view was.
const MEMORY: Duration = Duration::from_secs(600);

/// What controllers see of one resource.
#[derive(Debug)]
struct View {
    /// Watches that wait for news, having given all there was.
    current: usize,
    /// All before this has been seen.
    fresh: Instant,
    /// Until when it was behind, and since when.
    past: VecDeque<(Instant, Instant)>,
}

/// See the module.
#[derive(Debug)]
pub struct Views {
    by_resource: BTreeMap<String, View>,
    /// By who asked and path: since when a write has failed.
    failing: BTreeMap<(String, String), Instant>,
    /// Writes that failed, until they succeeded or were given up.
    failed: VecDeque<(String, Instant, Instant)>,
    /// Until when requests may be slow, and how slow.
    slow: (Instant, Duration),
}

impl Default for Views {
    fn default() -> Self {
        let (by_resource, failing, failed) = Default::default();
        Self { by_resource, failing, failed, slow: (Instant::now(), Duration::ZERO) }
    }
}

impl Views {
    /// Those who look start anew: what others saw does not matter any more.
    pub fn anew(&self) -> Self {
        Self { slow: self.slow, ..Self::default() }
    }

    /// Requests may take so long from now on.
    pub fn set_delay(&mut self, delay: Duration) {
        let now = Instant::now();
        let lasting = if self.slow.0 >= now { self.slow.1 } else { Duration::ZERO };
        let until = if delay.is_zero() { now + lasting * BATCHES } else { now + Duration::from_secs(1 << 30) };
        self.slow = (until, delay.max(lasting));
    }

    fn view(&mut self, resource: &str) -> &mut View {
        let now = Instant::now();
        self.by_resource.entry(resource.into()).or_insert_with(|| View {
            current: 0,
            fresh: now,
            past: VecDeque::new(),
        })
    }

    /// A list was answered now.
    pub fn listed(&mut self, resource: &str) {
        let now = Instant::now();
        self.view(resource).caught_up(now);
    }

    /// A watch has given all there is, and waits.
    fn waits(&mut self, resource: &str) {
        let view = self.view(resource);
        view.current += 1;
        view.caught_up(Instant::now());
    }

    /// A watch waits no more.
    fn moves(&mut self, resource: &str) {
        let view = self.view(resource);
        view.current = view.current.saturating_sub(1);
        view.fresh = Instant::now();
    }

    /// Notes how a write ended.
    pub fn wrote(&mut self, user: &str, path: &str, passed: bool) {
        let (key, now) = ((user.to_string(), path.to_string()), Instant::now());
        if !passed {
            self.failing.entry(key).or_insert(now);
        } else if let Some(since) = self.failing.remove(&key) {
            self.failed.push_back((key.1, since, now));
        }
        let given_up = |since: &Instant| *since + RETRIED < now;
        let (old, failing) = std::mem::take(&mut self.failing).into_iter().partition(|(_, since)| given_up(since));
        self.failing = failing;
        let old: BTreeMap<(String, String), Instant> = old;
        self.failed.extend(old.into_iter().map(|((_, path), since)| (path, since, since + RETRIED)));
        while self.failed.front().is_some_and(|(_, _, until)| *until + MEMORY < now) {
            self.failed.pop_front();
        }
    }

    /// The oldest state on which a write of now may rest: decided on `steps` (the last first), each of which sees some
    /// resources, of a workload of this name.
    pub fn oldest(&self, name: &str, steps: &[&[&str]]) -> Instant {
        let now = Instant::now();
        let slow = if self.slow.0 >= now { self.slow.1 } else { Duration::ZERO };
        steps.iter().fold(now, |at, resources| {
            let decided = at.checked_sub(PROMPT + slow * BATCHES).unwrap_or(at);
            let decided = self.unwritten(name, decided);
            let seen = resources.iter().filter_map(|r| self.by_resource.get(*r)).map(|v| v.oldest(decided));
            seen.min().unwrap_or(decided).min(decided)
        })
    }

    /// Since when writes about a workload that were due then or later have failed, if some have.
    fn unwritten(&self, name: &str, at: Instant) -> Instant {
        let about = |path: &str| path.split('/').any(|part| part == name || is_of(part, name));
        let failing = self.failing.iter().filter(|((_, path), _)| about(path)).map(|(_, since)| *since);
        let failed = self.failed.iter().filter(|(path, _, until)| *until >= at && about(path));
        failing.chain(failed.map(|(_, since, _)| *since)).fold(at, Instant::min)
    }
}

/// Whether a name is of something that a workload made.
fn is_of(part: &str, workload: &str) -> bool {
    part.strip_prefix(workload).is_some_and(|rest| rest.starts_with('-'))
}

impl View {
    fn caught_up(&mut self, now: Instant) {
        if self.fresh < now {
            self.past.push_back((now, self.fresh));
        }
        self.fresh = now;
        while self.past.front().is_some_and(|(until, _)| *until + MEMORY < now) {
            self.past.pop_front();
        }
    }

    /// The oldest state that it showed from `at` on.
    fn oldest(&self, at: Instant) -> Instant {
        let behind = if self.current > 0 { None } else { Some(self.fresh) };
        let past = self.past.iter().filter(|(until, _)| *until >= at).map(|(_, since)| *since);
        past.chain(behind).fold(at, Instant::min)
    }
}

/// One watch's place among the views. Dropped, it is over.
pub struct Watching {
    views: Arc<Mutex<Views>>,
    resource: String,
    waits: bool,
}

impl Watching {
    /// A watch that has given nothing yet.
    pub fn new(views: Arc<Mutex<Views>>, resource: &str) -> Self {
        Self { views, resource: resource.into(), waits: false }
    }
    /// Says whether it waits for news.
    pub fn set(&mut self, waits: bool) {
        if self.waits != waits {
            self.waits = waits;
            let mut views = self.views.lock();
            if waits { views.waits(&self.resource) } else { views.moves(&self.resource) }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.set(false);
    }
}
