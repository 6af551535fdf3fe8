//! What a pod within its CPU request notices of pods that never stop.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use copepod_runtime::{Container, Program, Runtime, TICK};

use super::pod::{self, Collect, Pod};
use super::serve::Up;
use super::{Bench, row};
use crate::http::Connection;
use crate::program::{self, Output};
use crate::report::{Row, Samples};
use crate::target::Target;

/// Instances that may be alive at once.
const INSTANCES: u32 = 256;
/// The probe's share, in thousandths of a core.
pub const REQUEST: u64 = 100;
/// Between two probes.
const PAUSE: Duration = Duration::from_millis(5);
/// Probes of one measurement.
const PROBES: usize = 400;
/// Requests before those that count.
const WARM_UP: usize = 20;

/// Commands that never stop, each in a pod of its own, all of them running.
///
/// # Errors
/// One does not start.
pub async fn spin(
    runtime: &Arc<Runtime>,
    program: &Arc<Program>,
    how: &str,
    count: usize,
) -> Result<Vec<(Pod, Container)>> {
    let mut all = Vec::new();
    for _ in 0..count {
        let pod = Pod::new(runtime)?;
        let container = pod.start(program, &[how], Arc::new(Collect::default()))?;
        all.push((pod, container));
    }
    while all.iter().any(|(_, container)| container.cpu_time().is_zero()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(all)
}

/// Latencies in milliseconds, and the longest time in the run queue.
#[derive(Default)]
struct Taken {
    p50: Samples,
    p99: Samples,
    queued: Samples,
    /// Ticks by which p99 is above that of the same round without neighbours.
    rise: Samples,
    /// Ticks by which p99 is above that of the same round's control.
    added: Samples,
}

/// In process: what Copepod decides, without the kernel's sockets.
async fn in_process(bench: &Bench, runtime: &Arc<Runtime>, beside: (&str, usize)) -> Result<(Samples, Duration)> {
    let web = pod::load(runtime, &bench.guest("web")).await?;
    let spinner = pod::load(runtime, &bench.guest("bench")).await?;
    let pod = Pod::new(runtime)?;
    let probe = pod.start_with(&web, |spec| spec.cpu_request = REQUEST)?;
    let spinners = spin(runtime, &spinner, beside.0, beside.1).await?;
    let (mut latencies, count) = (Vec::new(), bench.of(PROBES, 3));
    for at in 0..WARM_UP + count {
        let asked = Instant::now();
        pod.ask("/hello").await?;
        if at >= WARM_UP {
            latencies.push(asked.elapsed().as_secs_f64() * 1e3);
        }
        tokio::time::sleep(PAUSE).await;
    }
    for (_, container) in &spinners {
        container.kill();
    }
    for (_, container) in &spinners {
        container.wait().await;
    }
    Ok((latencies.into(), probe.cpu_usage().longest_wait))
}

/// The control: as many threads as guests have, which spin and look for a question all the time. What it takes to be
/// answered is what the machine and its other programs add to the time of any guest beside one that never stops.
fn control(bench: &Bench) -> Result<Samples> {
    let (asked, answered, ended) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let prober = std::thread::current();
    let mut latencies = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) {
                    let question = asked.load(Ordering::Acquire);
                    if answered.fetch_max(question, Ordering::AcqRel) < question {
                        prober.unpark();
                    }
                }
            });
        }
        for at in 1..=WARM_UP + bench.of(PROBES, 3) {
            let begin = Instant::now();
            asked.store(at, Ordering::Release);
            while answered.load(Ordering::Acquire) < at {
                std::thread::park();
            }
            if at > WARM_UP {
                latencies.push(begin.elapsed().as_secs_f64() * 1e3);
            }
            std::thread::sleep(PAUSE);
        }
        ended.store(true, Ordering::Relaxed);
    });
    Ok(latencies.into())
}

/// Over a socket of the kernel, as for the peer.
fn over_socket(bench: &Bench, server: &Up) -> Result<Samples> {
    let mut connection = Connection::open(&Target::plain(server.address))?;
    let (request, mut latencies) = (server.request(), Vec::new());
    for at in 0..WARM_UP + bench.of(PROBES, 3) {
        let asked = Instant::now();
        let response = connection.exchange(&request)?;
        anyhow::ensure!(response.status == 200, "the probe answered {}", response.status);
        if at >= WARM_UP {
            latencies.push(asked.elapsed().as_secs_f64() * 1e3);
        }
        if !response.keep {
            connection = Connection::open(&Target::plain(server.address))?;
        }
        std::thread::sleep(PAUSE);
    }
    Ok(latencies.into())
}

/// The whole table, in rounds.
///
/// # Errors
/// A guest fails.
pub fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let runtime = pod::runtime(&bench.scratch.join("fair"), INSTANCES)?;
    let counts = [0, 1, 8, 100];
    for (how, name) in [("spin", "spinners"), ("spin-calls", "spinners that call the host")] {
        let mut taken: [Taken; 4] = Default::default();
        let mut controls = Samples::default();
        for _ in 0..bench.rounds() {
            let mut alone = 0.0;
            let control = control(bench)?.quantile(0.99);
            controls.push(control);
            for (count, taken) in counts.into_iter().zip(&mut taken) {
                let (latencies, queued) = threads.block_on(in_process(bench, &runtime, (how, count)))?;
                let p99 = latencies.quantile(0.99);
                if count == 0 {
                    alone = p99;
                }
                taken.p50.push(latencies.median());
                taken.p99.push(p99);
                taken.queued.push(queued.as_secs_f64() * 1e3);
                taken.rise.push((p99 - alone) / (TICK.as_secs_f64() * 1e3));
                taken.added.push((p99 - control) / (TICK.as_secs_f64() * 1e3));
            }
        }
        for (count, taken) in counts.into_iter().zip(&taken) {
            let what = format!("probe in process beside {count} {name}");
            rows.push(row(format!("{what}: p50"), "ms", &taken.p50, None));
            let control = (count > 0).then_some(("the control", &controls));
            rows.push(row(format!("{what}: p99"), "ms", &taken.p99, control));
            rows.push(row(format!("{what}: longest wait in the run queue"), "ms", &taken.queued, None));
            if count > 0 {
                rows.push(row(format!("{what}: p99 above that alone"), "ticks", &taken.rise, None));
                rows.push(row(format!("{what}: p99 above the control's"), "ticks", &taken.added, None));
            }
        }
    }
    drop(runtime);
    for count in [0, bench.of(8, 2)] {
        rows.push(beside_peer(bench, count)?);
    }
    Ok(rows)
}

/// The probe over a socket, beside `wasmtime serve` with as many processes of the kernel that never stop.
fn beside_peer(bench: &Bench, count: usize) -> Result<Row> {
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    let mut is_there = false;
    for _ in 0..bench.of(3, 1) {
        let spinners = count.to_string();
        let copepod = Up::copepod(bench, "/hello", &[("--spinners", &spinners)])?;
        ours.push(over_socket(bench, &copepod)?.quantile(0.99));
        drop(copepod);
        if let Some(wasmtime) = Up::wasmtime(bench, "/hello", &[])? {
            is_there = true;
            let me = std::env::current_exe()?;
            let spin = || {
                program::Program::start("a spinner", Command::new(&me).args(["child", "guest", "spin"]), Output::Out)
            };
            let spinners: Vec<_> = (0..count).map(|_| spin()).collect::<Result<_>>().context("spinners")?;
            theirs.push(over_socket(bench, &wasmtime)?.quantile(0.99));
            for spinner in spinners {
                spinner.kill()?;
            }
        }
    }
    let name = "wasmtime serve beside processes";
    Ok(row(
        format!("probe over a socket beside {count} spinners: p99"),
        "ms",
        &ours,
        is_there.then_some((name, &theirs)),
    ))
}
