//! One guest on three sides: in a pod, natively on the kernel, under wasmtime's command line.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use copepod_runtime::Container;

use super::pod::{self, Collect, Pod};
use super::{Bench, fresh, row};
use crate::program::{self, Output, Program};
use crate::report::{Row, Samples};

/// How long a server may take to listen.
const LISTENS: Duration = Duration::from_secs(60);
/// How long one run of the guest may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// A place where the guest runs.
pub enum Side {
    /// In one pod.
    Pod { threads: tokio::runtime::Runtime, program: Arc<copepod_runtime::Program>, pod: Pod },
    /// As a program of this machine; the folder is on tmpfs.
    Native { dir: PathBuf },
    /// Under wasmtime's command line, with the folder as `/data`.
    Wasmtime { command: Box<dyn Fn() -> Command>, dir: PathBuf },
}

/// A server that ends when this is dropped.
pub enum Server {
    /// In the pod.
    Pod(#[allow(dead_code, reason = "held")] Box<Container>),
    /// A process.
    Process(#[allow(dead_code, reason = "held")] Program),
}

impl Side {
    /// All sides that there are.
    ///
    /// # Errors
    /// The guest cannot be compiled.
    pub fn all(bench: &Bench) -> Result<Vec<Side>> {
        let component = bench.guest("bench");
        let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let runtime = pod::runtime(&bench.scratch.join("sides"), 16)?;
        let program = threads.block_on(pod::load(&runtime, &component))?;
        let pod = Pod::new(&runtime)?;
        let memory = Path::new("/dev/shm").join(format!("copepod-bench-{}", std::process::id()));
        let mut all =
            vec![Side::Pod { threads, program, pod }, Side::Native { dir: fresh(&memory.with_extension("native"))? }];
        if let Some(wasmtime) = &bench.wasmtime {
            let dir = fresh(&memory.with_extension("wasmtime"))?;
            let compiled = bench.scratch.join("bench.cwasm");
            wasmtime.compile(&component, &compiled)?;
            let (wasmtime, mapping) = (wasmtime.clone(), format!("{}::/data", dir.display()));
            let command = Box::new(move || wasmtime.command(Some(&mapping), &compiled));
            all.push(Side::Wasmtime { command, dir });
        }
        Ok(all)
    }

    /// Its name in the table.
    pub fn name(&self) -> &'static str {
        match self {
            Side::Pod { .. } => "Copepod",
            Side::Native { .. } => "the kernel, natively",
            Side::Wasmtime { .. } => "wasmtime run",
        }
    }

    /// The folder for files as the guest sees it.
    pub fn dir(&self) -> &str {
        match self {
            Side::Pod { .. } => "/tmp",
            Side::Native { dir } => dir.to_str().unwrap_or_default(),
            Side::Wasmtime { .. } => "/data",
        }
    }

    /// Starts a server; the port at which it listens.
    ///
    /// # Errors
    /// It does not listen.
    pub fn serve(&self, work: &str) -> Result<(Server, String)> {
        let args = [work, "127.0.0.1:0"];
        let end = Instant::now() + LISTENS;
        let (server, port) = match self {
            Side::Pod { program, pod, .. } => {
                let output = Arc::new(Collect::default());
                let container = pod.start(program, &args, output.clone())?;
                let port = loop {
                    if let Some(port) = number_of(&output.text(), "listening") {
                        break port;
                    }
                    if let Some(exit) = container.exit() {
                        bail!("{work} ended: {exit:?}");
                    }
                    std::thread::sleep(Duration::from_millis(1));
                };
                (Server::Pod(Box::new(container)), port)
            }
            Side::Native { .. } | Side::Wasmtime { .. } => {
                let server = Program::start("a server", self.command()?.args(args), Output::Out)?;
                let (_, port) = server.line(end, "its port", |line| number_of(line, "listening"))?;
                (Server::Process(server), port)
            }
        };
        Ok((server, format!("127.0.0.1:{port}")))
    }

    /// Runs the guest to its end; what it printed.
    ///
    /// # Errors
    /// It failed.
    pub fn call(&self, args: &[&str]) -> Result<String> {
        match self {
            Side::Pod { threads, program, pod, .. } => {
                let output = Arc::new(Collect::default());
                let container = pod.start(program, args, output.clone())?;
                let exit = threads.block_on(async { tokio::time::timeout(PATIENCE, container.wait()).await })?;
                if exit.code != 0 {
                    bail!("{args:?} in a pod: {exit:?}");
                }
                Ok(output.text())
            }
            Side::Native { .. } | Side::Wasmtime { .. } => {
                program::output(self.command()?.args(args).stderr(Stdio::inherit()))
            }
        }
    }

    fn command(&self) -> Result<Command> {
        match self {
            Side::Wasmtime { command, .. } => Ok(command()),
            _ => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["child", "guest"]);
                Ok(command)
            }
        }
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        if let Side::Native { dir } | Side::Wasmtime { dir, .. } = self {
            let _ = std::fs::remove_dir_all(dir);
        }
    }
}

/// The number that a guest printed after this name.
pub fn number_of(text: &str, name: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// One value that the guest prints: its name, what it is, its unit, and the divisor that makes that of it.
pub type Value = (&'static str, &'static str, &'static str, f64);

/// Microseconds of the guest's nanoseconds.
pub const MICROS: f64 = 1000.0;

/// Runs the guest on all sides in turn, and compares.
///
/// # Errors
/// A run failed or did not print a value.
pub fn compare(
    bench: &Bench,
    sides: &[Side],
    values: &[Value],
    run: impl Fn(usize, &Side) -> Result<String>,
) -> Result<Vec<Row>> {
    let mut taken = vec![vec![Samples::default(); values.len()]; sides.len()];
    for _ in 0..bench.rounds() {
        for (at, (side, taken)) in sides.iter().zip(&mut taken).enumerate() {
            let text = run(at, side).with_context(|| side.name())?;
            for ((name, _, _, divisor), samples) in values.iter().zip(taken) {
                samples.push(number_of(&text, name).with_context(|| format!("no {name} in {text}"))? / divisor);
            }
        }
    }
    let Some((ours, peers)) = taken.split_first() else { bail!("no side") };
    let mut rows = Vec::new();
    for (at, (_, what, unit, _)) in values.iter().enumerate() {
        let pick = |taken: &Vec<Samples>| taken.get(at).cloned().unwrap_or_default();
        for (side, theirs) in sides.iter().skip(1).zip(peers) {
            rows.push(row(*what, unit, &pick(ours), Some((side.name(), &pick(theirs)))));
        }
    }
    Ok(rows)
}
