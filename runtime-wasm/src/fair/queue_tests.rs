//! The run queue under a simulated clock: shares, waits, quotas, and that nothing is lost.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::queue::{AccountId, RunQueue, Time, weight_of};
use super::task::MIN_TURN;

const TICK: Duration = Duration::from_millis(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn us(us: u64) -> Duration {
    Duration::from_micros(us)
}

/// Runs for `burst` each time it is woken, then sleeps for `sleep`. A burst's delay is the time it takes beyond that.
struct Task {
    account: AccountId,
    burst: Duration,
    sleep: Duration,
    left: Duration,
    woken: Time,
    longest_delay: Duration,
}

/// Start and end of a turn, and whose it is.
type Turn = (Time, Time, usize);

/// Threads that work off a queue of tasks. Turns end at ticks of the clock, as guests' do.
struct Sim {
    queue: RunQueue<usize>,
    now: Time,
    tasks: Vec<Task>,
    threads: Vec<Option<Turn>>,
    asleep: BTreeSet<(Time, usize)>,
}

impl Sim {
    fn new(threads: usize) -> Sim {
        let (queue, asleep) = (RunQueue::new(), BTreeSet::new());
        Sim { queue, now: Time::ZERO, tasks: vec![], threads: vec![None; threads], asleep }
    }

    fn account(&mut self, weight: u64, quota: Option<u64>) -> AccountId {
        self.queue.open(weight, quota, self.now)
    }

    fn task(&mut self, account: AccountId, burst: Duration, sleep: Duration) -> usize {
        let woken = self.now;
        self.tasks.push(Task { account, burst, sleep, left: burst, woken, longest_delay: Duration::ZERO });
        self.queue.push(account, self.tasks.len() - 1, self.now);
        self.tasks.len() - 1
    }

    fn spin(&mut self, account: AccountId) {
        self.task(account, Duration::MAX, Duration::ZERO);
    }

    fn spinner(&mut self, weight: u64) -> AccountId {
        let account = self.account(weight, None);
        self.spin(account);
        account
    }

    fn used(&self, account: AccountId) -> Duration {
        self.queue.counters(account).used
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.give_turns();
            let idle = self.threads.iter().any(Option::is_none);
            let turns = self.threads.iter().flatten().map(|turn| turn.1);
            let wakes = self.asleep.first().map(|&(at, _)| at);
            let pauses = self.queue.next_release().filter(|_| idle);
            self.now = turns.chain(wakes).chain(pauses).chain([end]).min().unwrap().max(self.now);
            self.end_turns();
            while let Some(&(at, number)) = self.asleep.first()
                && at <= self.now
            {
                self.asleep.pop_first();
                let task = &mut self.tasks[number];
                (task.left, task.woken) = (task.burst, at);
                self.queue.push(task.account, number, self.now);
            }
        }
    }

    fn give_turns(&mut self) {
        for thread in self.threads.iter_mut().filter(|thread| thread.is_none()) {
            let Some((_, number)) = self.queue.pop(self.now) else { return };
            let task = &mut self.tasks[number];
            let into_tick = Duration::from_nanos((self.now.as_nanos() % TICK.as_nanos()) as u64);
            let to_tick = TICK - into_tick;
            let turn = task.left.min(if to_tick < MIN_TURN { to_tick + TICK } else { to_tick });
            task.left -= turn;
            *thread = Some((self.now, self.now + turn, number));
        }
    }

    fn end_turns(&mut self) {
        for thread in &mut self.threads {
            let Some((start, end, number)) = *thread else { continue };
            if end <= self.now {
                *thread = None;
                let task = &mut self.tasks[number];
                let again = (!task.left.is_zero()).then_some(number);
                if again.is_none() {
                    task.longest_delay = task.longest_delay.max(self.now - task.woken - task.burst);
                    self.asleep.insert((self.now + task.sleep, number));
                }
                self.queue.settle(task.account, end - start, again, self.now);
            }
        }
    }
}

/// CPU time per second that accounts which always want one thread each are entitled to: by weight, one core at most.
fn entitled(weights: &[u64], threads: usize) -> Vec<f64> {
    let mut shares = vec![None; weights.len()];
    loop {
        let free = threads as f64 - shares.iter().flatten().sum::<f64>();
        let open: u64 =
            weights.iter().zip(&shares).filter(|(_, share)| share.is_none()).map(|(weight, _)| weight).sum();
        let share = |weight: u64| free * weight as f64 / open as f64;
        let full: Vec<usize> =
            (0..weights.len()).filter(|&at| shares[at].is_none() && share(weights[at]) >= 1.0).collect();
        if full.is_empty() {
            return (0..weights.len()).map(|at| shares[at].unwrap_or_else(|| share(weights[at]))).collect();
        }
        full.into_iter().for_each(|at| shares[at] = Some(1.0));
    }
}

fn check_shares(weights: &[u64], threads: usize) {
    const SECONDS: u64 = 5;
    let mut sim = Sim::new(threads);
    let accounts: Vec<_> = weights.iter().map(|&weight| sim.spinner(weight)).collect();
    sim.run(ms(SECONDS * 1000));
    for ((account, entitled), weight) in accounts.iter().zip(entitled(weights, threads)).zip(weights) {
        let (got, entitled) = (sim.used(*account).as_secs_f64(), entitled * SECONDS as f64);
        let off = (got - entitled).abs();
        // Three per cent, and three turns for what is in progress.
        assert!(
            off <= entitled * 0.03 + 0.004,
            "{weight} of {weights:?} on {threads}: {got:.3} s, not {entitled:.3} s"
        );
    }
}

#[test]
fn shares_follow_weights() {
    for (threads, weights) in [
        (1, &[1024, 1024][..]),
        (1, &[1024, 2048, 512]),
        (1, &[2, 2, 2, 1024]),
        (1, &[1 << 18, 2, 1024]),
        (2, &[1024, 1024, 1024]),
        // The first is entitled to one whole thread of the two, no more and no less.
        (2, &[300, 100, 200]),
        (2, &[1024, 2, 2]),
        (2, &[1024, 2]),
        (4, &[5000, 4000, 10, 20, 30, 40, 50]),
        (8, &[102; 100]),
    ] {
        check_shares(weights, threads);
    }
}

#[test]
fn requests_are_weights_as_cgroups_count_them() {
    for (millicores, weight) in [(0, 2), (1, 2), (2, 2), (100, 102), (1000, 1024), (4000, 4096), (u64::MAX, 1 << 18)] {
        assert_eq!(weight_of(millicores), weight, "{millicores}");
    }
}

#[test]
fn many_tasks_are_no_larger_a_share() {
    let mut sim = Sim::new(2);
    let accounts = [sim.account(102, None), sim.account(102, None)];
    for _ in 0..50 {
        sim.spin(accounts[0]);
    }
    sim.spin(accounts[1]);
    sim.run(ms(1000));
    let used = accounts.map(|account| sim.used(account).as_millis());
    assert!(used.iter().all(|used| (980..=1020).contains(used)), "{used:?}");
}

#[test]
fn nobody_starves() {
    let mut sim = Sim::new(2);
    let heavy: Vec<_> = (0..20).map(|_| sim.spinner(102)).collect();
    let light = sim.spinner(2);
    // Beside requests for all there is it has one of 1,021 parts of two threads: a turn, of a tick and a half at most,
    // in 0.77 s; the first time it has to catch up with the others' turns as well.
    sim.run(ms(5000));
    let counters = sim.queue.counters(light);
    assert!(counters.used >= ms(4), "{counters:?}");
    assert!(counters.longest_wait <= ms(1400), "{counters:?}");
    assert!(heavy.iter().all(|account| sim.queue.counters(*account).longest_wait <= ms(20)));
}

#[test]
fn whoever_stays_within_its_share_waits_for_one_turn() {
    // In the one place where two threads' turns end at the same tick, the longest turn is a tick and a half.
    let turn = TICK + MIN_TURN;
    for spinners in [1, 8, 100] {
        for (threads, weight, burst, sleep, delay) in [
            (1, 2, us(200), ms(7), turn),
            (2, 2, us(200), us(9_130), turn),
            (2, 1800 / spinners, us(200), us(9_130), turn),
            (2, 2, us(1), us(300), turn),
            (2, 2, us(500), us(9_500), turn),
            // Longer bursts are taken in turns, with a few of others' between them.
            (2, 2, ms(3), ms(47), 6 * turn),
        ] {
            let mut sim = Sim::new(threads);
            for _ in 0..spinners {
                sim.spinner(weight);
            }
            sim.run(ms(500));
            let account = sim.account(weight_of(100), None);
            let probe = sim.task(account, burst, sleep);
            sim.run(ms(5000));
            assert!(sim.used(account) > burst * 50, "the probe ran");
            let longest = sim.tasks[probe].longest_delay;
            assert!(longest <= delay, "{burst:?} beside {spinners} of {weight} on {threads}: {longest:?} more");
        }
    }
}

#[test]
fn sleeping_earns_nothing() {
    let mut sim = Sim::new(1);
    let [sleeper, busy] = [sim.account(1024, None), sim.spinner(1024)];
    sim.task(sleeper, ms(10_000), ms(10_000));
    sim.run(ms(20_001));
    let before = (sim.used(sleeper), sim.used(busy));
    // Awake again after ten seconds' sleep.
    sim.run(ms(10_100));
    sim.run(ms(200));
    let (sleeper, busy) = (sim.used(sleeper) - before.0, sim.used(busy) - before.1);
    assert!(sleeper <= busy + ms(3), "{sleeper:?} beside {busy:?}");
}

#[test]
fn many_short_naps_earn_nothing() {
    for (weight, burst, share) in [(1024, us(900), 500), (1024, us(100), 500), (2, us(900), 2), (3072, us(1700), 750)] {
        let mut sim = Sim::new(1);
        let [napper, busy] = [sim.account(weight, None), sim.spinner(1024)];
        sim.task(napper, burst, us(3));
        sim.run(ms(10_000));
        let per_mille = sim.used(napper).as_millis() / 10;
        assert!(per_mille <= share + 10, "{weight}, {burst:?}: {per_mille} of 1000, not {share}");
        assert!(sim.used(busy) >= ms(10 * (1000 - share as u64) - 150), "{:?}", sim.used(busy));
    }
}

#[test]
fn an_unusable_share_is_not_saved() {
    let mut sim = Sim::new(2);
    let [heavy, light] = [sim.spinner(1024), sim.spinner(2)];
    sim.run(ms(10_000));
    // Now it could take both threads, and would for long if all it could not use had been saved.
    for _ in 0..10 {
        sim.spin(heavy);
    }
    let other = sim.spinner(1024);
    sim.run(ms(100));
    let used = sim.used(other);
    assert!(used >= ms(90), "{used:?} of 100 ms of a thread");
    assert!(sim.used(light) >= ms(9_990));
}

#[test]
fn quotas_hold_and_cost_nobody_else() {
    for (quota, tasks, threads, expected) in
        [(100, 1, 1, 100), (100, 4, 4, 100), (1500, 4, 4, 1500), (2000, 1, 2, 1000)]
    {
        let mut sim = Sim::new(threads);
        let account = sim.account(1024, Some(quota));
        for _ in 0..tasks {
            sim.spin(account);
        }
        let other = sim.spinner(1024);
        sim.run(ms(10_000));
        let per_second = sim.used(account).as_millis() / 10;
        assert!(per_second.abs_diff(expected) <= 8, "{quota}: {per_second} ms per second, not {expected}");
        let counters = sim.queue.counters(account);
        match expected < 1000 * tasks {
            true => assert!((90..=100).contains(&counters.throttled_periods), "{counters:?}"),
            false => assert_eq!(counters.throttled_periods, 0),
        }
        assert!(counters.throttled <= ms(10_100), "{counters:?}");
        let left = (threads as u128 * 1000 - expected).min(1000);
        assert!((sim.used(other).as_millis() / 10).abs_diff(left) <= 20, "{quota}: {:?}", sim.used(other));
    }
}

#[test]
fn pauses_are_not_waits() {
    let mut sim = Sim::new(1);
    let account = sim.account(1024, Some(50));
    sim.spin(account);
    sim.run(ms(1000));
    let counters = sim.queue.counters(account);
    assert_eq!(counters.waited, Duration::ZERO, "{counters:?}");
    assert!((ms(900)..=ms(1000)).contains(&counters.throttled), "{counters:?}");
}

#[test]
fn whoever_is_ended_goes_first() {
    let mut sim = Sim::new(1);
    for _ in 0..10 {
        sim.spinner(1024);
    }
    let (light, paused) = (sim.spinner(2), sim.account(1024, Some(1)));
    sim.spin(paused);
    sim.run(ms(3_000));
    assert!(sim.queue.next_release().is_some(), "in debt");
    let before = (sim.used(light), sim.used(paused));
    sim.queue.expedite(light);
    sim.queue.expedite(paused);
    sim.run(ms(2));
    assert!(sim.used(light) + sim.used(paused) >= before.0 + before.1 + ms(1));
    sim.run(ms(20));
    assert!(sim.used(light) > before.0 && sim.used(paused) > before.1);
    assert_eq!(sim.queue.next_release(), None);
}

#[test]
fn a_closed_account_leaves_nothing() {
    let mut queue = RunQueue::new();
    let [one, two] = [queue.open(2, Some(1), ms(0)), queue.open(2, None, ms(0))];
    queue.push(one, "a", ms(0));
    queue.push(one, "b", ms(0));
    assert_eq!(queue.pop(ms(0)), Some((one, "a")));
    queue.settle(one, ms(5), Some("a"), ms(5));
    assert!(queue.next_release().is_some());
    queue.push(two, "c", ms(6));
    assert_eq!(queue.close(one), ["b", "a"]);
    assert_eq!(queue.next_release(), None);
    assert_eq!(queue.pop(ms(7)), Some((two, "c")));
    queue.push(one, "nobody's", ms(8));
    queue.settle(one, ms(1), Some("nobody's"), ms(8));
    queue.expedite(one);
    assert_eq!(queue.pop(ms(8)), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn any_weights_on_any_threads(weights in prop::collection::vec(20_u64..5000, 1..12), threads in 1_usize..5) {
        check_shares(&weights, threads);
    }

    /// Whatever is pushed comes out, once, and an account that may run is never passed over for nothing.
    #[test]
    fn nothing_is_lost(steps in prop::collection::vec((0_u8..5, 0_usize..6, 0_u64..3_000), 1..400)) {
        let mut queue = RunQueue::new();
        let accounts: Vec<_> =
            [(2, None), (102, None), (1024, Some(20)), (1024, Some(500)), (300, None), (2, Some(1))]
                .map(|(weight, quota)| queue.open(weight, quota, ms(0))).into();
        let (mut now, mut pushed, mut inside) = (ms(0), 0_u32, BTreeSet::new());
        let mut out = Vec::new();
        for (step, which, micros) in steps {
            now += us(micros);
            match step {
                0 | 1 => {
                    queue.push(accounts[which], pushed, now);
                    inside.insert(pushed);
                    pushed += 1;
                }
                2 | 3 => match queue.pop(now) {
                    Some((account, task)) => {
                        prop_assert!(inside.remove(&task), "came out twice");
                        out.push((account, task));
                    }
                    None => prop_assert!(inside.is_empty() || queue.next_release().is_some_and(|at| at > now)),
                },
                _ => {
                    if let Some((account, task)) = out.pop() {
                        let again = (micros % 2 == 0).then_some(task);
                        inside.extend(again);
                        queue.settle(account, us(micros), again, now);
                    }
                }
            }
        }
        for (account, _) in out.drain(..) {
            queue.settle(account, ms(0), None, now);
        }
        while let Some((account, task)) = queue.pop(now) {
            prop_assert!(inside.remove(&task));
            queue.settle(account, ms(0), None, now);
            now = queue.next_release().unwrap_or(now).max(now);
        }
        while let Some(at) = queue.next_release() {
            now = at;
            while let Some((account, task)) = queue.pop(now) {
                prop_assert!(inside.remove(&task));
                queue.settle(account, ms(0), None, now);
            }
        }
        prop_assert!(inside.is_empty(), "lost: {inside:?}");
    }
}
