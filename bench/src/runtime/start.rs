//! A command's whole life, in a pod of its own and under bare wasmtime.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use copepod_runtime::engine::pooled_config;
use copepod_runtime::{Program, Runtime};
use rustix::time::{ClockId, clock_gettime};
use wasmtime::Config;

use super::bare::{self, Bare};
use super::pod::{self, Collect, Pod};
use super::side::number_of;
use super::{Bench, row};
use crate::report::{Row, Samples};

/// Instances that may be alive at once.
const INSTANCES: u32 = 64;
/// Commands under way at once where many are.
const AT_ONCE: usize = 16;

/// Who runs the command.
#[derive(Clone)]
enum Side {
    Copepod(Arc<Runtime>, Arc<Program>),
    Bare(Arc<Bare>),
}

/// Of one command, in microseconds.
struct Life {
    /// From the decision to start it to its `main`.
    start: f64,
    /// To the end, everything dropped.
    whole: f64,
}

impl Side {
    async fn life(&self) -> Result<Life> {
        let (start, at) = (Instant::now(), since_1970()?);
        let text = match self {
            Side::Copepod(runtime, program) => {
                let pod = Pod::new(runtime)?;
                let output = Arc::new(Collect::default());
                let container = pod.start(program, &["now"], output.clone())?;
                container.wait().await;
                output.text()
            }
            Side::Bare(bare) => {
                // On another thread than the one that asks, as a pod is.
                let (bare, output) = (bare.clone(), bare::output());
                let run = {
                    let output = output.clone();
                    tokio::spawn(async move { bare.run(&["now"], output).await })
                };
                run.await??;
                String::from_utf8_lossy(&output.contents()).into_owned()
            }
        };
        let whole = start.elapsed().as_secs_f64() * 1e6;
        let main = number_of(&text, "now").with_context(|| format!("the guest said {text:?}"))?;
        Ok(Life { start: (main - at.as_nanos() as f64) / 1e3, whole })
    }
}

fn since_1970() -> Result<Duration> {
    Ok(SystemTime::UNIX_EPOCH.elapsed()?)
}

/// CPU time of this process, in microseconds.
fn cpu() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 * 1e6 + used.tv_nsec as f64 / 1e3
}

/// One of the values.
type Pick = fn(&Taken) -> &Samples;

#[derive(Default)]
struct Taken {
    start: Samples,
    whole: Samples,
    cpu: Samples,
    rate: Samples,
}

impl Taken {
    async fn round(&mut self, side: &Side, count: usize) -> Result<()> {
        let (mut start, mut whole) = (Vec::new(), Vec::new());
        let before = cpu();
        for _ in 0..count {
            let life = side.life().await?;
            start.push(life.start);
            whole.push(life.whole);
        }
        self.cpu.push((cpu() - before) / count as f64);
        self.start.push(Samples::from(start).median());
        self.whole.push(Samples::from(whole).median());

        let begin = Instant::now();
        let lanes: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let side = side.clone();
                tokio::spawn(async move {
                    for _ in 0..count.div_ceil(AT_ONCE) {
                        side.life().await?;
                    }
                    Ok::<_, anyhow::Error>(())
                })
            })
            .collect();
        for lane in lanes {
            lane.await??;
        }
        self.rate.push((count.div_ceil(AT_ONCE) * AT_ONCE) as f64 / begin.elapsed().as_secs_f64());
        Ok(())
    }
}

/// All sides in turn.
///
/// # Errors
/// A command failed.
pub fn run(bench: &Bench) -> Result<Vec<Row>> {
    let component = bench.guest("bench");
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    threads.block_on(async {
        let runtime = pod::runtime(&bench.scratch.join("start"), INSTANCES)?;
        let program = pod::load(&runtime, &component).await?;
        let sides = [
            Side::Copepod(runtime, program),
            Side::Bare(Arc::new(Bare::compile(&pooled_config(INSTANCES), &component)?)),
            Side::Bare(Arc::new(Bare::compile(&Config::new(), &component)?)),
        ];
        let mut taken: [Taken; 3] = Default::default();
        for round in 0..=bench.rounds() {
            for (side, taken) in sides.iter().zip(&mut taken) {
                taken.round(side, bench.of(1000, 4)).await?;
                if round == 0 {
                    // That was to warm up.
                    *taken = Taken::default();
                }
            }
        }
        let [ours, pooled, plain] = &taken;
        let values: [(&str, &str, Pick); 4] = [
            ("command in a pod of its own: start to its main", "us", |t| &t.start),
            ("command: start, run, drop", "us", |t| &t.whole),
            ("command: CPU for start, run, drop", "us", |t| &t.cpu),
            ("commands, 16 at once", "/s", |t| &t.rate),
        ];
        let peers = [("bare wasmtime, same engine", pooled), ("bare wasmtime, its defaults", plain)];
        let rows = values.into_iter().flat_map(|(what, unit, pick)| {
            peers.map(|(name, peer)| row(what, unit, pick(ours), Some((name, pick(peer)))))
        });
        Ok(rows.collect())
    })
}
