//! Runs seeds: each in a thread of its own, on a paused clock, so that it comes out the same each time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use crate::entropy::seed_thread;

/// What happened, for people.
pub type Log = Arc<Mutex<Vec<String>>>;

/// Room for the deep futures of a build that is not optimised.
const STACK: usize = 32 << 20;

/// Runs one seed; what it did is printed if it fails. Returns whether it passed.
pub fn run_seed<F: Future<Output = ()> + 'static>(
    test: &str,
    seed: u64,
    scenario: impl FnOnce(u64, Log) -> F + Send + 'static,
) -> bool {
    let log = Log::default();
    let shared = log.clone();
    let thread = std::thread::Builder::new().stack_size(STACK).spawn(move || {
        seed_thread(seed);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(scenario(seed, shared));
    });
    let passed = thread.unwrap().join().is_ok();
    if !passed {
        let log = log.lock().join("\n");
        eprintln!("{log}\nseed {seed} fails; again: COPEPOD_SIM_SEED={seed} cargo test -p copepod-sim {test}\n");
    }
    passed
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}

/// Runs as many seeds as `COPEPOD_SIM_SEEDS` says (or `usual`) from `first` on, or the one that `COPEPOD_SIM_SEED` names,
/// on all cores.
///
/// # Panics
/// Some fail; their seeds and histories are printed.
pub fn run<F: Future<Output = ()> + 'static>(test: &str, first: u64, usual: u64, scenario: fn(u64, Log) -> F) {
    let seeds = match variable("COPEPOD_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => first..first + variable("COPEPOD_SIM_SEEDS").unwrap_or(usual),
    };
    let began = Instant::now();
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(BTreeSet::new());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        return;
                    }
                    if !run_seed(test, seed, scenario) {
                        failed.lock().insert(seed);
                    }
                }
            });
        }
    });
    println!("{test}: seeds {seeds:?} in {:?}", began.elapsed());
    let failed = failed.into_inner();
    assert!(failed.is_empty(), "of the seeds {seeds:?} fail: {failed:?}");
}
