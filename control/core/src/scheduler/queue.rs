//! Which pod is next. Pods come by priority, then in the order in which they came to wait. One that fits nowhere waits
//! until a change may help it, or for [`LONGEST_WAIT`]; one that was tried lately rests for a while that grows with its
//! tries. So no pod is tried without end, whatever happens around it.
//!
//! Pods that need the same fit the same nodes. So of those that wait, the one that came first is woken for all; once it is
//! placed, the next is. A change costs what asking one of each kind costs, and wakes no more than may be placed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::cycle::RefusedBy;
use super::pod_info::PodInfo;

/// A pod's rest after its first try; doubles with each further one...
pub const FIRST_REST: Duration = Duration::from_secs(1);
/// ...up to this.
pub const LONGEST_REST: Duration = Duration::from_secs(10);
/// After this time a pod that fits nowhere is tried again though nothing helped it.
pub const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// A pod to be placed.
#[derive(Debug, Clone)]
pub struct Next {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// Which try it is, from 1.
    pub attempt: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It has scheduling gates.
    Gated,
    /// It is to be tried; the number tells the order.
    Active(u64),
    /// It rests until then.
    Resting(Duration),
    /// It fits nowhere, since then.
    Waiting(Duration),
    /// It is being tried or bound.
    Trying,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    place: Place,
    attempts: u32,
    tried: Duration,
    /// When it came, as a number.
    came: u64,
    /// Its kind, if it fits nowhere or did when it was tried last.
    kind: Option<Kind>,
    /// It changed while it was tried.
    changed: bool,
}

/// What equal pods need, or the UID of a pod whose place is its own matter.
type Kind = Arc<str>;

/// Pods of one kind that fit nowhere.
#[derive(Debug, Default)]
struct Alike {
    /// The rules that refused the one that was tried last.
    refused_by: RefusedBy,
    /// In the order in which they came.
    waiting: BTreeMap<u64, Arc<str>>,
    /// The one that was woken for all, until it is placed or waits again.
    woken: Option<Arc<str>>,
}

/// The pods that have no node yet. Times count from any fixed moment.
#[derive(Debug, Default)]
pub struct Queue {
    pods: HashMap<Arc<str>, Entry>,
    active: BTreeSet<(Reverse<i32>, u64, Arc<str>)>,
    resting: BTreeSet<(Duration, Arc<str>)>,
    waiting: BTreeSet<(Duration, Arc<str>)>,
    kinds: HashMap<Kind, Alike>,
    sequence: u64,
}

impl Queue {
    /// Takes in a pod without a node, new or changed.
    pub fn set(&mut self, pod: Arc<PodInfo>, now: Duration) {
        let uid = pod.uid.clone();
        let first = if pod.gated() { Place::Gated } else { Place::Active(0) };
        let Some(entry) = self.pods.get_mut(&uid) else {
            self.sequence += 1;
            let came = self.sequence;
            let entry = Entry { pod, place: Place::Gated, attempts: 0, tried: now, came, kind: None, changed: false };
            self.pods.insert(uid.clone(), entry);
            self.to(&uid, first);
            return;
        };
        let (old, new) = (&entry.pod.pod, &pod.pod);
        // What the scheduler itself writes into the status is no reason to try again.
        let matters = old.spec != new.spec
            || old.metadata.labels != new.metadata.labels
            || old.metadata.annotations != new.metadata.annotations
            || old.metadata.deletion_timestamp != new.metadata.deletion_timestamp;
        let place = entry.place;
        let gated = pod.gated();
        if matters && place == Place::Trying {
            entry.changed = true;
        }
        if let Place::Active(_) = place {
            self.leave(&uid);
        }
        let Some(entry) = self.pods.get_mut(&uid) else { return };
        entry.pod = pod;
        match place {
            Place::Gated if !gated => self.to(&uid, Place::Active(0)),
            Place::Active(_) => self.to(&uid, if gated { Place::Gated } else { place }),
            Place::Waiting(_) if matters => {
                let until = entry.tried + entry.rest();
                self.to(&uid, if until <= now { Place::Active(0) } else { Place::Resting(until) });
            }
            _ => {}
        }
        if gated {
            self.pass_on(&uid, now);
        }
    }

    /// Takes in that a pod is gone, ended, or has its node.
    pub fn remove(&mut self, uid: &str, now: Duration) {
        self.leave(uid);
        self.pass_on(uid, now);
        self.pods.remove(uid);
    }

    /// The next pod to try. It must be given back with [`Self::unschedulable`] or [`Self::failed`], or removed; and
    /// [`Self::pass_on`] is due when it found a place.
    pub fn pop(&mut self, now: Duration) -> Option<Next> {
        while let Some((at, uid)) = self.resting.first().cloned()
            && at <= now
        {
            self.to(&uid, Place::Active(0));
        }
        while let Some((since, uid)) = self.waiting.first().cloned()
            && since + LONGEST_WAIT <= now
        {
            self.to(&uid, Place::Active(0));
        }
        let (_, _, uid) = self.active.first().cloned()?;
        self.to(&uid, Place::Trying);
        let entry = self.pods.get_mut(&uid)?;
        entry.attempts = entry.attempts.saturating_add(1);
        entry.changed = false;
        Some(Next { pod: entry.pod.clone(), attempt: entry.attempts })
    }

    /// When the next pod is due though nothing happens.
    pub fn due(&self) -> Option<Duration> {
        let resting = self.resting.first().map(|(at, _)| *at);
        let waiting = self.waiting.first().map(|(since, _)| *since + LONGEST_WAIT);
        resting.into_iter().chain(waiting).min()
    }

    /// A pod that was tried fits nowhere. Pods of equal `needs` would fit nowhere either.
    pub fn unschedulable(&mut self, uid: &str, refused_by: RefusedBy, needs: Option<&Arc<str>>, now: Duration) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        entry.tried = now;
        let (uid, rest, changed) = (entry.pod.uid.clone(), entry.rest(), entry.changed);
        let kind = needs.unwrap_or(&uid).clone();
        if entry.kind.as_ref() == Some(&kind) {
            self.settle(&uid);
        } else {
            // It was woken for others than it now is like.
            self.pass_on(&uid, now);
        }
        if let Some(entry) = self.pods.get_mut(&uid) {
            entry.kind = Some(kind.clone());
        }
        self.to(&uid, if changed { Place::Resting(now + rest) } else { Place::Waiting(now) });
        if let Some(alike) = self.kinds.get_mut(&kind) {
            alike.refused_by = refused_by;
        }
    }

    /// A pod that was tried could not be placed for a reason that may pass, such as a refused write.
    pub fn failed(&mut self, uid: &str, now: Duration) {
        let Some(entry) = self.pods.get_mut(uid) else { return };
        entry.tried = now;
        let (uid, rest) = (entry.pod.uid.clone(), entry.rest());
        self.to(&uid, Place::Resting(now + rest));
        self.pass_on(&uid, now);
    }

    /// If the pod was woken for all of its kind, the next of them is woken: this one found a place, or is out.
    pub fn pass_on(&mut self, uid: &str, now: Duration) {
        if let Some(kind) = self.settle(uid)
            && let Some(next) = self.kinds.get(&kind).and_then(|alike| alike.waiting.values().next()).cloned()
        {
            self.wake_one(&next, now, false);
        }
    }

    /// The pod is no longer the one that was woken for its kind. Returns the kind if it was.
    fn settle(&mut self, uid: &str) -> Option<Kind> {
        let kind = self.pods.get(uid)?.kind.clone()?;
        let alike = self.kinds.get_mut(&kind).filter(|alike| alike.woken.as_deref() == Some(uid))?;
        alike.woken = None;
        if alike.waiting.is_empty() {
            self.kinds.remove(&kind);
        }
        Some(kind)
    }

    /// Asks of each kind of pods that fits nowhere whether something helped it: `None`, or whether the first of them may
    /// be tried without rest.
    pub fn wake(&mut self, now: Duration, helped: impl Fn(&PodInfo, RefusedBy) -> Option<bool>) {
        let mut woken: Vec<(u64, Arc<str>, bool)> = Vec::new();
        for alike in self.kinds.values().filter(|alike| alike.woken.is_none()) {
            let Some((came, uid)) = alike.waiting.first_key_value() else { continue };
            let found = self.pods.get(uid).and_then(|entry| helped(&entry.pod, alike.refused_by));
            woken.extend(found.map(|at_once| (*came, uid.clone(), at_once)));
        }
        woken.sort_unstable();
        for (_, uid, at_once) in woken {
            self.wake_one(&uid, now, at_once);
        }
    }

    /// How many pods have no node yet.
    pub fn len(&self) -> usize {
        self.pods.len()
    }
    /// Whether all pods have a node.
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
    }

    /// Lets a pod that waits be tried, for all of its kind.
    fn wake_one(&mut self, uid: &Arc<str>, now: Duration, at_once: bool) {
        let Some(entry) = self.pods.get(uid) else { return };
        let (until, kind) = (entry.tried + entry.rest(), entry.kind.clone());
        if let Some(alike) = kind.and_then(|kind| self.kinds.get_mut(&kind)) {
            alike.woken = Some(uid.clone());
        }
        self.to(uid, if at_once || until <= now { Place::Active(0) } else { Place::Resting(until) });
    }

    fn leave(&mut self, uid: &str) {
        let Some(entry) = self.pods.get(uid) else { return };
        let uid = entry.pod.uid.clone();
        match entry.place {
            Place::Active(n) => {
                self.active.remove(&(Reverse(entry.pod.priority), n, uid));
            }
            Place::Resting(at) => {
                self.resting.remove(&(at, uid));
            }
            Place::Waiting(since) => {
                self.waiting.remove(&(since, uid));
                if let Some(kind) = &entry.kind
                    && let Some(alike) = self.kinds.get_mut(kind)
                {
                    alike.waiting.remove(&entry.came);
                    if alike.waiting.is_empty() && alike.woken.is_none() {
                        self.kinds.remove(kind);
                    }
                }
            }
            Place::Gated | Place::Trying => {}
        }
    }

    fn to(&mut self, uid: &Arc<str>, place: Place) {
        self.leave(uid);
        let Some(entry) = self.pods.get_mut(uid) else { return };
        entry.place = place;
        match place {
            Place::Active(n) => {
                self.sequence += 1;
                let n = if n == 0 { self.sequence } else { n };
                entry.place = Place::Active(n);
                self.active.insert((Reverse(entry.pod.priority), n, uid.clone()));
            }
            Place::Resting(at) => {
                self.resting.insert((at, uid.clone()));
            }
            Place::Waiting(since) => {
                self.waiting.insert((since, uid.clone()));
                if let Some(kind) = &entry.kind {
                    self.kinds.entry(kind.clone()).or_default().waiting.insert(entry.came, uid.clone());
                }
            }
            Place::Gated | Place::Trying => {}
        }
    }
}

impl Entry {
    fn rest(&self) -> Duration {
        FIRST_REST.saturating_mul(1 << self.attempts.saturating_sub(1).min(10)).min(LONGEST_REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::testing::*;

    fn pod(name: &str, priority: i32, gated: bool) -> Arc<PodInfo> {
        let mut pod = pod_yaml(name, "");
        let spec = pod.spec.as_mut().unwrap();
        spec.priority = Some(priority);
        spec.scheduling_gates = gated.then(|| yaml("[{name: a}]"));
        PodInfo::of(Arc::new(pod))
    }
    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }
    fn next(queue: &mut Queue, seconds: u64) -> Option<(String, u32)> {
        queue.pop(at(seconds)).map(|n| (n.pod.name().to_string(), n.attempt))
    }
    fn names(queue: &mut Queue, seconds: u64) -> Vec<String> {
        std::iter::from_fn(|| next(queue, seconds)).map(|(name, _)| name).collect()
    }

    #[test]
    fn priority_then_order() {
        let mut queue = Queue::default();
        for (name, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5), ("e", -1)] {
            queue.set(pod(name, priority, false), at(0));
        }
        queue.set(pod("c", 0, false), at(0));
        assert_eq!(names(&mut queue, 0), ["b", "d", "a", "c", "e"]);
    }

    #[test]
    fn gates_hold_until_they_are_gone() {
        let mut queue = Queue::default();
        queue.set(pod("a", 0, true), at(0));
        assert_eq!((next(&mut queue, 1000), queue.due()), (None, None));
        queue.set(pod("a", 0, false), at(0));
        assert_eq!(next(&mut queue, 0), Some(("a".into(), 1)));
    }

    #[test]
    fn what_fits_nowhere_rests_longer_each_time() {
        let mut queue = Queue::default();
        queue.set(pod("a", 0, false), at(0));
        let mut now = 0;
        for (attempt, rest) in [(1, 1), (2, 2), (3, 4), (4, 8), (5, 10), (6, 10)] {
            assert_eq!(next(&mut queue, now), Some(("a".into(), attempt)));
            queue.unschedulable("uid-a", RefusedBy::default(), None, at(now));
            assert_eq!(next(&mut queue, now + 299), None, "nothing helped");
            queue.wake(at(now), |_, _| None);
            queue.set(pod("a", 0, false), at(now));
            assert_eq!(queue.due(), Some(at(now + 300)), "neither did a change of nothing");
            queue.wake(at(now), |_, _| Some(false));
            assert_eq!(queue.due(), Some(at(now + rest)));
            now += rest;
        }
        queue.unschedulable("uid-a", RefusedBy::default(), None, at(now));
        queue.wake(at(now), |_, _| Some(true));
        assert!(next(&mut queue, now).is_some(), "its room was made");
        queue.unschedulable("uid-a", RefusedBy::default(), None, at(now));
        queue.wake(at(now + 11), |_, _| Some(false));
        assert!(next(&mut queue, now + 11).is_some(), "it rested long since");
        queue.unschedulable("uid-a", RefusedBy::default(), None, at(now));
        assert!(next(&mut queue, now + 300).is_some(), "the flush");
    }

    #[test]
    fn changes_count_though_it_is_being_tried() {
        let mut queue = Queue::default();
        queue.set(pod("a", 0, false), at(0));
        assert!(next(&mut queue, 0).is_some());
        queue.set(pod("a", 7, false), at(0));
        queue.unschedulable("uid-a", RefusedBy::default(), None, at(0));
        assert_eq!(queue.due(), Some(at(1)));
        assert_eq!(next(&mut queue, 1), Some(("a".into(), 2)));
        queue.failed("uid-a", at(1));
        assert_eq!(queue.due(), Some(at(3)));
        queue.remove("uid-a", at(1));
        assert_eq!((queue.due(), queue.is_empty()), (None, true));
        queue.failed("uid-a", at(1));
        assert_eq!(queue.due(), None);
    }
}
