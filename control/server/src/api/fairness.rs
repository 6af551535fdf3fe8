//! Fairness between users: a [`Gate`] has so many places, and when they are short, those who wait enter in turns, one
//! user after the other, however many requests each has sent. Each user's queue is bounded.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use copepod_api::ApiError;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// How many may wait.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Altogether.
    pub all: usize,
    /// Of one user.
    pub user: usize,
    /// For how long.
    pub patience: Duration,
}

/// Those who wait, by user. The first user in turn is the one that has waited longest for its turn.
struct Turns<T> {
    waiting: HashMap<String, VecDeque<T>>,
    turn: VecDeque<String>,
    len: usize,
}

impl<T> Turns<T> {
    fn new() -> Self {
        Self { waiting: HashMap::new(), turn: VecDeque::new(), len: 0 }
    }

    /// How many of a user wait.
    fn of(&self, user: &str) -> usize {
        self.waiting.get(user).map_or(0, VecDeque::len)
    }

    fn push(&mut self, user: &str, item: T) {
        self.len += 1;
        if let Some(queue) = self.waiting.get_mut(user) {
            queue.push_back(item);
            return;
        }
        self.waiting.insert(user.to_string(), VecDeque::from([item]));
        self.turn.push_back(user.to_string());
    }

    /// Who is next.
    fn peek(&self) -> Option<&T> {
        self.waiting.get(self.turn.front()?)?.front()
    }

    /// Takes the next, and gives the turn to the next user.
    fn pop(&mut self) -> Option<T> {
        let user = self.turn.pop_front()?;
        let queue = self.waiting.get_mut(&user)?;
        let item = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(&user);
        } else {
            self.turn.push_back(user);
        }
        self.len -= usize::from(item.is_some());
        item
    }

    /// Forgets those of a user that are not worth keeping.
    fn retain(&mut self, user: &str, keep: impl Fn(&T) -> bool) {
        let Some(queue) = self.waiting.get_mut(user) else { return };
        let before = queue.len();
        queue.retain(keep);
        self.len -= before - queue.len();
        if queue.is_empty() {
            self.waiting.remove(user);
            self.turn.retain(|other| other != user);
        }
    }
}

/// A number of places that requests share.
pub(crate) struct Gate {
    capacity: usize,
    limits: Limits,
    inner: Mutex<Inner>,
}

struct Inner {
    free: usize,
    turns: Turns<Waiting>,
}

struct Waiting {
    places: usize,
    enter: oneshot::Sender<()>,
}

impl Inner {
    /// Lets in whom the free places suffice for, in turn.
    fn advance(&mut self) {
        while let Some(next) = self.turns.peek() {
            let gone = next.enter.is_closed();
            if !gone && next.places > self.free {
                return;
            }
            let Some(next) = self.turns.pop() else { return };
            if !gone && next.enter.send(()).is_ok() {
                self.free -= next.places;
            }
        }
    }
}

impl Gate {
    pub fn new(capacity: usize, limits: Limits) -> Self {
        Self { capacity, limits, inner: Mutex::new(Inner { free: capacity, turns: Turns::new() }) }
    }

    /// Takes places for a user's request, perhaps after a wait.
    ///
    /// # Errors
    /// 429 if too many wait, or the wait gets too long.
    pub async fn enter(&self, user: &str, places: usize) -> Result<Places<'_>, ApiError> {
        let busy = || ApiError::too_many_requests("Too many requests, please try again later.", 1);
        let places = places.min(self.capacity);
        let mut waiter = {
            let mut inner = self.inner.lock();
            if inner.turns.len == 0 && inner.free >= places {
                inner.free -= places;
                return Ok(Places { gate: self, places });
            }
            if inner.turns.of(user) >= self.limits.user {
                inner.turns.retain(user, |waiting| !waiting.enter.is_closed());
            }
            if inner.turns.len >= self.limits.all || inner.turns.of(user) >= self.limits.user {
                return Err(busy());
            }
            let (enter, entered) = oneshot::channel();
            inner.turns.push(user, Waiting { places, enter });
            Waiter { gate: self, places, entered }
        };
        match tokio::time::timeout(self.limits.patience, &mut waiter.entered).await {
            Ok(Ok(())) => Ok(Places { gate: self, places }),
            _ => Err(busy()),
        }
    }

    /// How many requests wait.
    #[cfg(test)]
    pub fn waiting(&self) -> usize {
        self.inner.lock().turns.len
    }

    fn leave(&self, places: usize) {
        let mut inner = self.inner.lock();
        inner.free += places;
        inner.advance();
    }
}

/// Places that are taken; they are free again when this is dropped.
pub(crate) struct Places<'a> {
    gate: &'a Gate,
    places: usize,
}

impl Places<'_> {
    /// How many.
    pub fn len(&self) -> usize {
        self.places
    }
    /// Takes over those of the same gate.
    pub fn merge(&mut self, mut more: Self) {
        self.places += std::mem::take(&mut more.places);
    }
}

impl Drop for Places<'_> {
    fn drop(&mut self) {
        self.gate.leave(self.places);
    }
}

/// A request that waits, until it enters or gives up.
struct Waiter<'a> {
    gate: &'a Gate,
    places: usize,
    entered: oneshot::Receiver<()>,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.entered.close();
        // Let in just when it gave up: the places are given back. Else it must not hold up those behind it.
        let unused = if self.entered.try_recv().is_ok() { self.places } else { 0 };
        self.gate.leave(unused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[test]
    fn users_take_turns() {
        // What comes (as user and number), and the order in which it goes.
        let cases: [(&[&str], &[&str]); 4] = [
            (&["a1", "a2", "a3", "b1"], &["a1", "b1", "a2", "a3"]),
            (&["a1", "b1", "a2", "c1", "b2"], &["a1", "b1", "c1", "a2", "b2"]),
            (&["a1", "a2"], &["a1", "a2"]),
            (&[], &[]),
        ];
        for (come, go) in cases {
            let mut turns = Turns::new();
            come.iter().for_each(|item| turns.push(&item[..1], *item));
            assert_eq!((turns.len, turns.peek()), (come.len(), go.first()));
            let went: Vec<&str> = std::iter::from_fn(|| turns.pop()).collect();
            assert_eq!(went, go);
            assert!(turns.len == 0 && turns.waiting.is_empty() && turns.turn.is_empty());
        }
        let mut turns = Turns::new();
        ["a1", "b1", "a2"].iter().for_each(|item| turns.push(&item[..1], *item));
        turns.pop();
        turns.push("a", "a3");
        turns.retain("b", |_| false);
        turns.retain("a", |item| *item != "a2");
        assert_eq!((turns.len, turns.of("a"), turns.of("b")), (1, 1, 0));
        assert_eq!((turns.pop(), turns.pop()), (Some("a3"), None));
    }

    fn gate(capacity: usize) -> Gate {
        Gate::new(capacity, Limits { all: 4, user: 2, patience: Duration::from_secs(1) })
    }

    #[tokio::test(start_paused = true)]
    async fn queues_are_bounded_and_waits_end() {
        let gate = gate(1);
        let held = gate.enter("a", 1).await.unwrap();
        let mut waiting: Vec<_> = ["a", "a", "b", "b"].map(|user| Box::pin(gate.enter(user, 1))).into();
        for wait in &mut waiting {
            assert!(wait.as_mut().now_or_never().is_none());
        }
        assert_eq!(gate.enter("a", 1).await.err().unwrap().code, 429, "a's queue is full");
        assert_eq!(gate.enter("c", 1).await.err().unwrap().code, 429, "all are full");
        // Those that go away make room, and are passed over.
        drop(waiting.remove(0));
        drop(waiting.remove(0));
        let mut third = Box::pin(gate.enter("a", 1));
        assert!(third.as_mut().now_or_never().is_none());
        for wait in waiting {
            assert_eq!(wait.await.err().unwrap().code, 429, "its patience ended");
        }
        drop(held);
        assert!(third.await.is_ok());
        assert!(gate.enter("d", 1).now_or_never().unwrap().is_ok(), "all places are free again");
    }

    #[tokio::test]
    async fn the_next_in_turn_gets_all_the_places_it_needs() {
        let gate = gate(3);
        let (one, two) = (gate.enter("a", 1).await.unwrap(), gate.enter("a", 2).await.unwrap());
        let mut large = Box::pin(gate.enter("b", 9));
        let mut small = Box::pin(gate.enter("c", 1));
        assert!(large.as_mut().now_or_never().is_none() && small.as_mut().now_or_never().is_none());
        drop(two);
        assert!(small.as_mut().now_or_never().is_none(), "it is not its turn");
        drop(one);
        let large = large.as_mut().now_or_never().expect("as many as there are").unwrap();
        assert!(small.as_mut().now_or_never().is_none());
        drop(large);
        assert!(small.await.is_ok());
    }
}
