//! What waiting pods hold, and how fast many of them start and stop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use copepod_runtime::engine::pooled_config;
use copepod_runtime::{Container, OutputSink, Program};
use tokio::task::JoinHandle;

use super::bare::{self, Bare};
use super::pod::{self, Pod};
use super::side::number_of;
use super::{Bench, child, row};
use crate::process;
use crate::report::{Row, Samples};

/// CPU seconds in [`PAUSE`] below which nothing more happens.
const STILL: f64 = 0.011;
const PAUSE: Duration = Duration::from_millis(200);
/// How long that may take to come about.
const SETTLES: Duration = Duration::from_secs(20);

/// Starts many, and tells what they hold.
#[derive(clap::Args)]
pub struct Park {
    /// What is started.
    #[arg(long)]
    side: What,
    /// How many.
    #[arg(long)]
    count: u32,
    /// How many different modules they are of.
    #[arg(long)]
    modules: usize,
    /// The component.
    #[arg(long)]
    component: PathBuf,
    /// Where compiled code is kept.
    #[arg(long)]
    cache: PathBuf,
}

#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum What {
    /// Pods with a command that sleeps.
    Commands,
    /// Pods with an HTTP component that has answered a request.
    Http,
    /// The same commands under bare wasmtime; the code is what Copepod compiled before.
    Bare,
}

enum Held {
    Pod(Box<(Pod, Container)>),
    Task(JoinHandle<Result<()>>),
}

/// In KiB.
struct Memory {
    pss: f64,
    dirty: f64,
    tables: f64,
}

impl Memory {
    fn read() -> Result<Self> {
        let me = std::process::id();
        let all = process::memory(me)?;
        let own = all.first().context("no process")?;
        Ok(Self { pss: own.pss * 1024.0, dirty: own.dirty * 1024.0, tables: process::page_tables(me)? * 1024.0 })
    }
}

/// The child: prints what it found, a name and a number a line.
///
/// # Errors
/// One of them does not start.
pub fn park(park: &Park) -> Result<()> {
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    threads.block_on(async {
        let mut count = park.count;
        let started: Box<dyn Fn() -> usize>;
        let mut held = Vec::new();
        let (before, begin, cpu);
        if park.side == What::Bare {
            let artifact = std::fs::read_dir(&park.cache)?.next().context("nothing was compiled")??.path();
            let bare = Arc::new(Bare::map(&pooled_config(count), &artifact)?);
            before = Memory::read()?;
            (begin, cpu) = (Instant::now(), process::own_cpu_seconds(std::process::id())?);
            let mut outputs = Vec::new();
            for _ in 0..count {
                let (bare, output) = (bare.clone(), bare::output());
                outputs.push(output.clone());
                held.push(Held::Task(tokio::spawn(async move { bare.run(&["park"], output).await })));
            }
            started = Box::new(move || outputs.iter().take_while(|output| !output.contents().is_empty()).count());
        } else {
            let runtime = pod::runtime(&park.cache, count)?;
            if runtime.capacity().instances < count {
                count = runtime.capacity().instances;
                eprintln!("    {count} pods: {}", runtime.capacity().why);
            }
            let mut programs = Vec::new();
            for path in variants(&park.component, park.modules, &park.cache.with_extension("modules"))? {
                programs.push(pod::load(&runtime, &path).await?);
            }
            before = Memory::read()?;
            (begin, cpu) = (Instant::now(), process::own_cpu_seconds(std::process::id())?);
            let counter = Arc::new(Counter::default());
            for (_, program) in (0..count).zip(programs.iter().cycle()) {
                held.push(one(&runtime, program, park.side, &counter).await?);
            }
            started = Box::new(move || counter.0.load(Ordering::Relaxed));
        }
        let expected = if park.side == What::Http { 0 } else { held.len() };
        while started() < expected {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        println!("start {}", begin.elapsed().as_secs_f64());
        println!("start-cpu {}", process::own_cpu_seconds(std::process::id())? - cpu);
        settle().await?;
        let (after, each) = (Memory::read()?, f64::from(count));
        println!("pods {count}");
        println!("pss {}", (after.pss - before.pss) / each);
        println!("dirty {}", (after.dirty - before.dirty) / each);
        println!("tables {}", (after.tables - before.tables) / each);
        let begin = Instant::now();
        stop(held).await;
        println!("stop {}", begin.elapsed().as_secs_f64());
        settle().await?;
        println!("left {}", (Memory::read()?.pss - before.pss) / each);
        println!("end 0");
        Ok(())
    })
}

async fn one(
    runtime: &Arc<copepod_runtime::Runtime>,
    program: &Arc<Program>,
    what: What,
    counter: &Arc<Counter>,
) -> Result<Held> {
    let pod = Pod::new(runtime)?;
    let container = pod.start(program, &["park"], counter.clone())?;
    if what == What::Http {
        pod.ask("/hello").await?;
    }
    Ok(Held::Pod(Box::new((pod, container))))
}

/// Ends all of them, and waits until they are gone.
async fn stop(held: Vec<Held>) {
    for one in &held {
        match one {
            Held::Pod(pod) => pod.1.kill(),
            Held::Task(task) => task.abort(),
        }
    }
    for one in held {
        match one {
            Held::Pod(pod) => drop(pod.1.wait().await),
            Held::Task(task) => drop(task.await),
        }
    }
}

/// Counts what is printed: each prints once.
#[derive(Default)]
struct Counter(AtomicUsize);

#[async_trait::async_trait]
impl OutputSink for Counter {
    async fn write(&self, data: Bytes) {
        let lines = data.iter().filter(|&&byte| byte == b'\n').count();
        self.0.fetch_add(lines, Ordering::Relaxed);
    }
}

/// Waits until the process does nothing.
async fn settle() -> Result<()> {
    let me = std::process::id();
    let end = Instant::now() + SETTLES;
    while Instant::now() < end {
        let before = process::own_cpu_seconds(me)?;
        tokio::time::sleep(PAUSE).await;
        if process::own_cpu_seconds(me)? - before < STILL {
            break;
        }
    }
    Ok(())
}

/// The component, so many times, each with bytes of its own in a custom section.
fn variants(component: &Path, modules: usize, folder: &Path) -> Result<Vec<PathBuf>> {
    if modules <= 1 {
        return Ok(vec![component.into()]);
    }
    std::fs::create_dir_all(folder)?;
    let bytes = std::fs::read(component).with_context(|| format!("no component {}", component.display()))?;
    let mut paths = Vec::new();
    for number in 0..u32::try_from(modules)? {
        let mut bytes = bytes.clone();
        // Section 0 of six bytes: a name of one byte, then what differs.
        bytes.extend([0, 6, 1, b'n']);
        bytes.extend(number.to_le_bytes());
        let path = folder.join(format!("{number}.wasm"));
        std::fs::write(&path, bytes)?;
        paths.push(path);
    }
    Ok(paths)
}

/// What children of one kind said.
#[derive(Default)]
struct Taken {
    pods: f64,
    values: [Samples; NAMES.len()],
}

const NAMES: [&str; 7] = ["start", "start-cpu", "pss", "dirty", "tables", "stop", "left"];

impl Taken {
    fn round(&mut self, bench: &Bench, side: &str, guest: &str, count: u32, modules: usize) -> Result<()> {
        let cache = child::cache(&bench.scratch).join(format!("{guest}-{modules}"));
        let (count, modules) = (count.to_string(), modules.to_string());
        let options = [("--side", side), ("--count", &count), ("--modules", &modules)];
        let parked = child::start("park", &options, &[("--component", &bench.guest(guest)), ("--cache", &cache)])?;
        let mut text = String::new();
        parked.line(child::ready_by(), "its end", |line| {
            text.push_str(line);
            text.push('\n');
            line.starts_with("end ").then_some(())
        })?;
        let value = |name: &str| number_of(&text, name).with_context(|| format!("no {name} in {text}"));
        for (name, samples) in NAMES.into_iter().zip(&mut self.values) {
            samples.push(value(name)?);
        }
        self.pods = value("pods")?;
        Ok(())
    }

    fn of(&self, name: &str) -> Samples {
        let found = NAMES.iter().zip(&self.values).find(|(known, _)| **known == name);
        found.map(|(_, samples)| samples.clone()).unwrap_or_default()
    }
}

/// Pods and bare instances in turn.
///
/// # Errors
/// One of them does not start.
pub fn run(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for size in bench.of([1_000, 10_000], [3, 5]) {
        let (mut ours, mut bare, mut idle) = (Taken::default(), Taken::default(), Taken::default());
        // Compiles, so that no measured process does.
        Taken::default().round(bench, "commands", "bench", 1, 1)?;
        Taken::default().round(bench, "http", "web", 1, 1)?;
        for _ in 0..bench.of(3, 1) {
            ours.round(bench, "commands", "bench", size, 1)?;
            let granted = ours.pods as u32;
            bare.round(bench, "bare", "bench", granted, 1)?;
            idle.round(bench, "http", "web", granted, 1)?;
        }
        let pods = ours.pods;
        for (name, what, unit) in [
            ("pss", "parked commands: memory of each (PSS)", "KiB"),
            ("dirty", "parked commands: private dirty memory of each", "KiB"),
            ("tables", "parked commands: page tables of each", "KiB"),
            ("start", "parked commands: to start them all", "s"),
            ("start-cpu", "parked commands: CPU to start them all", "s"),
            ("stop", "parked commands: to stop them all", "s"),
            ("left", "parked commands: memory that stays when they have ended, of each", "KiB"),
        ] {
            rows.push(row(
                format!("{pods} {what}"),
                unit,
                &ours.of(name),
                Some(("bare wasmtime, same engine", &bare.of(name))),
            ));
        }
        let peer = Some(("a parked command", &ours.of("pss")));
        rows.push(row(format!("{pods} idle HTTP pods: memory of each (PSS)"), "KiB", &idle.of("pss"), peer));
    }
    let (size, modules) = bench.of((1_000, 200), (4, 2));
    let (mut one, mut many) = (Taken::default(), Taken::default());
    Taken::default().round(bench, "commands", "bench", 1, modules)?;
    for _ in 0..bench.of(3, 1) {
        one.round(bench, "commands", "bench", size, 1)?;
        many.round(bench, "commands", "bench", size, modules)?;
    }
    for (name, unit) in [("pss", "KiB"), ("dirty", "KiB"), ("start", "s")] {
        let what = format!("{} parked commands of {modules} modules: {name}", many.pods);
        rows.push(row(what, unit, &many.of(name), Some(("of one module", &one.of(name)))));
    }
    Ok(rows)
}
