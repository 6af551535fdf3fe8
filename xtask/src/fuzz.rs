//! `cargo xtask fuzz [TARGET] [--seconds N]`: the fuzz targets of `fuzz/`, built on the stable compiler with LLVM's
//! coverage counters and no sanitizer (our own code has no `unsafe`; what is hunted is panics, broken promises and
//! unbounded work), and run one after the other. The corpus stays in the target directory: the next run goes on from it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;
use serde_json::Value;

use crate::{cmd, target_dir};

/// What `cargo fuzz build --sanitizer none` gives the compiler: counters at every edge with their places, and the
/// operands of comparisons. Overflows and debug assertions are checked.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg",
    "fuzzing",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Cllvm-args=-sanitizer-coverage-stack-depth",
    "-Cdebug-assertions",
    "-Ccodegen-units=1",
];
/// Longest input, in bytes: room for any two objects that matter.
const MAX_INPUT: usize = 8192;
/// Most memory of a run, in MiB; an input that needs more counts as a crash.
const MAX_MEMORY_MIB: usize = 2048;
/// Longest time for one input, in seconds; one that needs more counts as a crash.
const MAX_INPUT_SECONDS: usize = 10;

/// What one target's run came to.
#[derive(Default)]
struct Outcome {
    runs: String,
    per_second: String,
    coverage: String,
    corpus: String,
    /// The input at which it failed.
    crash: Option<PathBuf>,
}

/// Builds and runs one target, or all of them, for so many seconds each; prints a table.
///
/// # Errors
/// There is no such target, it cannot be built or started, or an input made it fail.
pub fn run(root: &Path, target: Option<&str>, seconds: u32) -> Result<()> {
    let mut targets = targets(root)?;
    if let Some(name) = target {
        if !targets.contains(name) {
            bail!("no fuzz target is called {name}: there are {}", Vec::from_iter(targets).join(", "));
        }
        targets = BTreeSet::from([name.to_owned()]);
    }
    let dir = target_dir(root).join("fuzz");
    let programs = build(root, &dir)?;
    let dictionary = dictionary(root, &dir)?;
    let mut table = vec!["| target | runs | runs/s | coverage (edges) | corpus (inputs/size) | crashes |".to_owned()];
    table.push("|---|---|---|---|---|---|".to_owned());
    let mut crashes = Vec::new();
    for name in &targets {
        cmd::step(&format!("fuzzing {name} for {seconds} s"));
        let program = programs.join(name);
        let o = fuzz(&program, name, &dir, &seeds(root, name, &dir)?, &dictionary, seconds)?;
        let count = u8::from(o.crash.is_some());
        table.push(format!("| {name} | {} | {} | {} | {} | {count} |", o.runs, o.per_second, o.coverage, o.corpus));
        crashes.extend(
            o.crash.map(|input| format!("{name} fails at {0}; again: {1} {0}", input.display(), program.display())),
        );
    }
    println!("{}", table.join("\n"));
    if !crashes.is_empty() {
        bail!("{}", crashes.join("\n"));
    }
    Ok(())
}

fn targets(root: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(root.join("fuzz/targets")).context("no fuzz/targets")? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    Ok(names)
}

/// Builds all targets; returns the folder of their programs.
fn build(root: &Path, dir: &Path) -> Result<PathBuf> {
    cmd::step("building the fuzz targets");
    let version = cmd::output(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|l| l.strip_prefix("host: ")).context("rustc names no host")?;
    let mut cargo = cmd::cargo();
    // Naming the platform keeps the flags from build scripts, which cannot be linked with them.
    cargo.args(["build", "--release", "--bins", "--target", host, "--target-dir"]).arg(dir);
    cargo.current_dir(root.join("fuzz")).env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    cmd::run(&mut cargo)?;
    Ok(dir.join(host).join("release"))
}

/// Writes a target's first inputs: the lines of `fuzz/seeds/TARGET.txt`, and the files of `fuzz/seeds/TARGET/` for those
/// that are no text.
fn seeds(root: &Path, name: &str, dir: &Path) -> Result<PathBuf> {
    let (from, to) = (root.join("fuzz/seeds"), dir.join("seeds").join(name));
    fs::create_dir_all(&to)?;
    let lines = fs::read_to_string(from.join(format!("{name}.txt"))).with_context(|| format!("no seeds of {name}"))?;
    for (i, line) in lines.lines().enumerate() {
        fs::write(to.join(format!("line-{i}")), line)?;
    }
    if let Ok(files) = fs::read_dir(from.join(name)) {
        for file in files {
            let file = file?;
            fs::copy(file.path(), to.join(file.file_name()))?;
        }
    }
    Ok(to)
}

/// Writes the words that inputs are made of: every field's name in the built-in schemas, as a JSON key.
fn dictionary(root: &Path, dir: &Path) -> Result<PathBuf> {
    let packed = fs::read(root.join("control/core/data/openapi.json.gz"))?;
    let mut text = String::new();
    GzDecoder::new(packed.as_slice()).read_to_string(&mut text)?;
    let schemas: Value = serde_json::from_str(&text)?;
    let fields =
        schemas.as_object().into_iter().flatten().filter_map(|(_, schema)| schema.get("properties")?.as_object());
    let names: BTreeSet<&String> = fields.flat_map(serde_json::Map::keys).collect();
    let path = dir.join("fields.dict");
    let lines: Vec<String> = names.into_iter().map(|name| format!("\"\\\"{name}\\\":\"\n")).collect();
    fs::write(&path, lines.concat())?;
    Ok(path)
}

fn fuzz(program: &Path, name: &str, dir: &Path, seeds: &Path, dictionary: &Path, seconds: u32) -> Result<Outcome> {
    let corpus = dir.join("corpus").join(name);
    let crashes = dir.join("crashes");
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&crashes)?;
    let log = dir.join(format!("{name}.log"));
    let mut command = Command::new(program);
    command
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={MAX_INPUT}"))
        .arg(format!("-rss_limit_mb={MAX_MEMORY_MIB}"))
        .arg(format!("-timeout={MAX_INPUT_SECONDS}"))
        .arg(format!("-artifact_prefix={}/{name}-", crashes.display()))
        .arg(format!("-dict={}", dictionary.display()))
        .arg("-print_final_stats=1")
        .args([&corpus, seeds])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
    let mut out = fs::File::create(&log)?;
    let mut outcome = Outcome::default();
    for line in BufReader::new(child.stderr.take().context("no standard error")?).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        writeln!(out, "{line}")?;
        outcome.note(&line);
    }
    let status = child.wait()?;
    if !status.success() && outcome.crash.is_none() {
        bail!("fuzzing {name} ended with {status}; see {}", log.display());
    }
    Ok(outcome)
}

impl Outcome {
    /// Takes what a line of libFuzzer's log says (<https://llvm.org/docs/LibFuzzer.html#output>).
    fn note(&mut self, line: &str) {
        let stat =
            |name: &str| line.strip_prefix("stat::")?.strip_prefix(name)?.strip_prefix(':').map(|v| v.trim().into());
        let counter = |name: &str| {
            let after = line.starts_with('#').then(|| line.split_once(name)).flatten()?.1;
            after.split_whitespace().next().map(str::to_owned)
        };
        let keep = |place: &mut String, found: Option<String>| {
            if let Some(found) = found {
                *place = found;
            }
        };
        keep(&mut self.runs, stat("number_of_executed_units"));
        keep(&mut self.per_second, stat("average_exec_per_sec"));
        keep(&mut self.coverage, counter(" cov: "));
        keep(&mut self.corpus, counter(" corp: "));
        if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.crash = Some(path.trim().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_are_read() {
        let mut o = Outcome::default();
        for line in [
            "#11811599\tREDUCE cov: 3266 ft: 8182 corp: 1640/353Kb lim: 8192 exec/s: 28808 rss: 35Mb L: 97/7506 MS: 2 Copy-",
            "stat::number_of_executed_units: 210764",
            "stat::average_exec_per_sec:     16212",
        ] {
            o.note(line);
        }
        let read = [o.runs.as_str(), &o.per_second, &o.coverage, &o.corpus];
        assert_eq!((read, &o.crash), (["210764", "16212", "3266", "1640/353Kb"], &None));
        o.note("artifact_prefix='/x/apply-'; Test unit written to /x/apply-crash-e69f");
        assert_eq!(o.crash, Some("/x/apply-crash-e69f".into()));
    }
}
