//! Which guest runs next. Pure: no clock, no threads; `now` comes from the caller.
//!
//! Fair queueing: every account has a virtual time, which advances by the CPU time it used divided by its weight, and
//! the runnable account whose next turn would end first in that time is next. The queue's own virtual time is the mean,
//! by weight, of those that run or may run: what all would have had by now if turns were infinitely short. Who was idle
//! starts there, so that nobody saves up turns by sleeping; and who never sleeps is behind the latest to be chosen by
//! [`MAX_LAG`] at most, so that a guest which cannot use its share (one thread is all it has) saves none either.
//!
//! Who was idle and has not used up its share has its first turn before all who are in the queue: it waits for a turn
//! to end and for others like itself, however many never sleep.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use super::quota::Quota;
use crate::ticker::TICK;

/// The weight of an account that asks for nothing: cgroup's least number of shares.
pub const DEFAULT_WEIGHT: u64 = 2;
/// The largest weight: cgroup's largest number of shares.
pub const MAX_WEIGHT: u64 = 1 << 18;
/// An account of this weight has a virtual time that advances as its CPU time does.
const ONE_CORE: u64 = 1024;
/// How much CPU time an account that is always runnable may be behind the queue; it may make that up in one go.
const MAX_LAG: Duration = Duration::from_millis(4);
/// How much CPU time an account that was idle may be ahead of the queue and still not have to queue: a turn. What the
/// others use is known at the end of their turns only.
const MAX_LEAD: Duration = TICK;

/// The weight of an account that asks for so many thousandths of a core: 1,024 shares a core, as cgroups count them.
pub fn weight_of(millicores: u64) -> u64 {
    (millicores.saturating_mul(ONE_CORE) / 1000).clamp(DEFAULT_WEIGHT, MAX_WEIGHT)
}

/// Wall time since some fixed moment.
pub(super) type Time = Duration;
/// Virtual time: nanoseconds of CPU time at the weight of one core.
type Virtual = u128;

/// The order of runnable accounts: who comes from idleness within its share goes before all others; then by the virtual
/// time at which a turn would end, then by arrival.
type Rank = (bool, Virtual, u64);

/// Names an account in its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct AccountId(u64);

/// What happened to one account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counters {
    pub(super) used: Duration,
    /// Time that its tasks were runnable and did not run, quota pauses left out.
    pub(super) waited: Duration,
    pub(super) longest_wait: Duration,
    pub(super) throttled_periods: u64,
    pub(super) throttled: Duration,
}

/// Runnable tasks by account.
pub(super) struct RunQueue<T> {
    accounts: HashMap<AccountId, Account<T>>,
    ready: BTreeSet<(Rank, AccountId)>,
    /// The weights of accounts that run or may run, and the sum of their virtual times times weight.
    active: (u128, u128),
    throttled: BTreeSet<(Time, AccountId)>,
    virtual_time: Virtual,
    /// The latest virtual time at which an account was chosen.
    front: Virtual,
    last_id: u64,
    arrivals: u64,
}

struct Account<T> {
    weight: u64,
    quota: Option<Quota>,
    tasks: VecDeque<(Time, T)>,
    running: usize,
    virtual_time: Virtual,
    /// Has used up its share, or had a turn since it was idle.
    queues: bool,
    place: Place,
    active: Option<Virtual>,
    throttled_until: Option<Time>,
    urgent: bool,
    counters: Counters,
}

/// Where an account with runnable tasks stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Nowhere,
    Ready(Rank),
    Throttled(Time),
}

impl<T> RunQueue<T> {
    pub(super) fn new() -> RunQueue<T> {
        RunQueue {
            accounts: HashMap::new(),
            ready: BTreeSet::new(),
            active: (0, 0),
            throttled: BTreeSet::new(),
            virtual_time: 0,
            front: 0,
            last_id: 0,
            arrivals: 0,
        }
    }

    /// An account with this weight, and a quota in thousandths of a core if it has one.
    pub(super) fn open(&mut self, weight: u64, quota: Option<u64>, now: Time) -> AccountId {
        self.last_id += 1;
        let id = AccountId(self.last_id);
        let account = Account {
            weight: weight.clamp(DEFAULT_WEIGHT, MAX_WEIGHT),
            quota: quota.map(|millicores| Quota::new(millicores, now)),
            tasks: VecDeque::new(),
            running: 0,
            virtual_time: self.virtual_time,
            queues: false,
            place: Place::Nowhere,
            active: None,
            throttled_until: None,
            urgent: false,
            counters: Counters::default(),
        };
        self.accounts.insert(id, account);
        id
    }

    /// Forgets an account; what it still had to run is returned.
    pub(super) fn close(&mut self, id: AccountId) -> Vec<T> {
        self.unplace(id);
        let account = self.accounts.remove(&id);
        account.into_iter().flat_map(|account| account.tasks).map(|(_, task)| task).collect()
    }

    /// What an account has used up to its last turn.
    pub(super) fn counters(&self, id: AccountId) -> Counters {
        self.accounts.get(&id).map(|account| account.counters).unwrap_or_default()
    }

    /// A task became runnable.
    pub(super) fn push(&mut self, id: AccountId, task: T, now: Time) {
        let virtual_time = self.virtual_time;
        let Some(account) = self.accounts.get_mut(&id) else { return };
        if account.running == 0 && account.tasks.is_empty() {
            account.queues = account.virtual_time > virtual_time.saturating_add(account.scaled(MAX_LEAD));
            account.virtual_time = account.virtual_time.max(virtual_time);
        }
        account.tasks.push_back((now, task));
        if account.place == Place::Nowhere {
            self.place(id);
        }
    }

    /// The task that is to run now. [`RunQueue::settle`] must follow when its turn is over.
    pub(super) fn pop(&mut self, now: Time) -> Option<(AccountId, T)> {
        self.release(now);
        let &(_, id) = self.ready.first()?;
        let account = self.accounts.get_mut(&id)?;
        let (since, task) = account.tasks.pop_front()?;
        account.running += 1;
        account.queues = true;
        let waited = now.saturating_sub(since);
        account.counters.waited = account.counters.waited.saturating_add(waited);
        account.counters.longest_wait = account.counters.longest_wait.max(waited);
        self.front = self.front.max(account.virtual_time);
        self.place(id);
        Some((id, task))
    }

    /// A task of the account ran for `spent`; `again` if it is runnable still.
    pub(super) fn settle(&mut self, id: AccountId, spent: Duration, again: Option<T>, now: Time) {
        let front = self.front;
        let Some(account) = self.accounts.get_mut(&id) else { return };
        account.running = account.running.saturating_sub(1);
        account.counters.used = account.counters.used.saturating_add(spent);
        account.virtual_time = account
            .virtual_time
            .saturating_add(account.scaled(spent))
            .max(front.saturating_sub(account.scaled(MAX_LAG)));
        if let Some(until) = account.quota.as_mut().and_then(|quota| quota.charge(spent, now)) {
            let paused_from = account.throttled_until.unwrap_or(now);
            account.counters.throttled_periods += u64::from(account.throttled_until.is_none());
            account.counters.throttled = account.counters.throttled.saturating_add(until.saturating_sub(paused_from));
            account.throttled_until = Some(until);
        }
        account.tasks.extend(again.map(|task| (now, task)));
        self.place(id);
    }

    /// From now on the account goes first and its quota does not count: it is being ended, and only has to be told.
    pub(super) fn expedite(&mut self, id: AccountId) {
        if let Some(account) = self.accounts.get_mut(&id) {
            account.urgent = true;
            account.throttled_until = None;
            account.quota = None;
            self.place(id);
        }
    }

    /// When the next account comes back from its quota's pause.
    pub(super) fn next_release(&self) -> Option<Time> {
        self.throttled.first().map(|&(until, _)| until)
    }

    /// Lets accounts back in whose pause is over.
    fn release(&mut self, now: Time) {
        while let Some(&(until, id)) = self.throttled.first()
            && until <= now
        {
            self.throttled.pop_first();
            let virtual_time = self.virtual_time;
            if let Some(account) = self.accounts.get_mut(&id) {
                account.place = Place::Nowhere;
                account.throttled_until = None;
                account.virtual_time = account.virtual_time.max(virtual_time);
                // The pause was not the queue's doing.
                account.tasks.iter_mut().for_each(|(since, _)| *since = (*since).max(until));
            }
            self.place(id);
        }
    }

    /// Puts the account where it belongs.
    fn place(&mut self, id: AccountId) {
        self.unplace(id);
        let Some(account) = self.accounts.get_mut(&id) else { return };
        let may_run = !account.tasks.is_empty() && account.throttled_until.is_none();
        if (may_run || account.running > 0) && !account.urgent {
            let weight = u128::from(account.weight);
            account.active = Some(account.virtual_time);
            self.active.0 += weight;
            self.active.1 += weight.saturating_mul(account.virtual_time);
        }
        if may_run {
            self.arrivals += 1;
            let rank = match account.urgent {
                true => (false, 0, self.arrivals),
                false => (account.queues, account.virtual_time.saturating_add(account.scaled(TICK)), self.arrivals),
            };
            account.place = Place::Ready(rank);
            self.ready.insert((rank, id));
        } else if let Some(until) = account.throttled_until.filter(|_| !account.tasks.is_empty()) {
            account.place = Place::Throttled(until);
            self.throttled.insert((until, id));
        }
        if let Some(mean) = self.active.1.checked_div(self.active.0) {
            self.virtual_time = self.virtual_time.max(mean);
        }
    }

    fn unplace(&mut self, id: AccountId) {
        let Some(account) = self.accounts.get_mut(&id) else { return };
        if let Some(virtual_time) = account.active.take() {
            let weight = u128::from(account.weight);
            self.active.0 -= weight;
            self.active.1 -= weight.saturating_mul(virtual_time);
        }
        match std::mem::replace(&mut account.place, Place::Nowhere) {
            Place::Nowhere => {}
            Place::Ready(rank) => {
                self.ready.remove(&(rank, id));
            }
            Place::Throttled(until) => {
                self.throttled.remove(&(until, id));
            }
        }
    }
}

impl<T> Account<T> {
    fn scaled(&self, spent: Duration) -> Virtual {
        spent.as_nanos().saturating_mul(u128::from(ONE_CORE)) / u128::from(self.weight)
    }
}
