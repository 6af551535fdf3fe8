//! Runs seeds: each in a process of its own and on a paused clock, so that it comes out the same each time. (Threads of
//! one process would share tables, and counters from which libraries draw.)

use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::entropy::seed_thread;

/// What happened, for people.
pub type Log = Arc<Mutex<Vec<String>>>;

/// Room for the deep futures of a build that is not optimised.
const STACK: usize = 32 << 20;
const SEED: &str = "COPEPOD_SIM_SEED";
const SEEDS: &str = "COPEPOD_SIM_SEEDS";

/// Runs one seed here and now, and prints what happened. Returns whether it passed.
pub fn run_here<F: Future<Output = ()> + 'static>(
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
    log.lock().iter().for_each(|line| println!("{line}"));
    passed
}

/// Runs one seed of a test in a process of its own. Returns whether it passed, and what was printed.
pub fn run_apart(test: &str, seed: u64) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(SEED, seed.to_string());
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), text)
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}

/// Runs as many seeds of `test` (its whole name) as `COPEPOD_SIM_SEEDS` says (or `usual`), one after the other: tests run
/// beside each other. Or runs here the one that `COPEPOD_SIM_SEED` names.
///
/// # Panics
/// Some fail; their seeds and histories are printed.
pub fn run<F: Future<Output = ()> + 'static>(test: &str, usual: u64, scenario: fn(u64, Log) -> F) {
    if let Some(seed) = variable(SEED) {
        return assert!(run_here(seed, scenario), "seed {seed} fails");
    }
    let seeds = variable(SEEDS).unwrap_or(usual);
    let (began, mut failed) = (Instant::now(), Vec::new());
    for seed in 1..=seeds {
        let (passed, printed) = run_apart(test, seed);
        if !passed {
            println!("{printed}\nseed {seed} fails; again: {SEED}={seed} cargo test -p copepod-sim {test}\n");
            failed.push(seed);
        }
    }
    println!("{test}: {seeds} seeds in {:?}", began.elapsed());
    assert!(failed.is_empty(), "of {seeds} seeds these fail: {failed:?}");
}
