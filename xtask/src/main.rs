//! Project tasks. `cargo xtask demo` and `cargo xtask test` are all that a newcomer needs: they fetch the tools that
//! are missing, build the guests and the binary, and run.

mod aggregator;
mod bench;
mod cmd;
mod data;
mod demo;
mod foreign;
mod fuzz;
mod guests;
mod kubectl;
mod programs;
mod sim;
mod test;
mod wasm_rust;
mod wheels;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Project tasks: demo, test, bench, generated data")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build everything, start a one-node cluster, deploy examples/hello and stay until Ctrl-C.
    Demo {
        /// Call the URL, resolve the name, and exit with the result.
        #[arg(long)]
        check: bool,
    },
    /// Get what the tests need, then run all of them; further arguments go to the test runner.
    Test {
        /// Arguments for the test runner, such as a test's name.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Build the wasm components of examples/ and tests/guests/.
    Guests,
    /// Get the ready-made wasm programs that tests run.
    Programs,
    /// Build guests in C and Python, which takes heavy compilers, and run their tests.
    Foreign,
    /// Measure, side by side with a peer.
    Bench {
        /// Which benchmark: spine, api, runtime or workloads.
        name: String,
        /// Run only the parts whose names contain this (api, runtime, workloads).
        #[arg(long)]
        only: Option<String>,
        /// A few iterations of everything (runtime, workloads): shows that it works.
        #[arg(long)]
        quick: bool,
    },
    /// Feed the decoders, patches, schemas and server-side apply with made-up input; fails at the first crash of each.
    Fuzz {
        /// One target of fuzz/targets; all of them without it.
        target: Option<String>,
        /// How long each target runs.
        #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
    },
    /// Simulate many clusters of each kind, each from a seed, with faults; fails if one breaks a promise or does not heal.
    Sim {
        /// How many seeds of each kind of small clusters; of large ones a hundredth of that.
        #[arg(long, default_value_t = 2000)]
        seeds: u64,
    },
    /// Regenerate control/core/data from registry packages.
    GenData,
}

fn main() -> Result<()> {
    let root = root()?;
    match Cli::parse().task {
        Task::Demo { check } => demo::run(&root, check),
        Task::Test { args } => test::run(&root, &args),
        Task::Guests => guests::build(&root).map(drop),
        Task::Foreign => foreign::run(&root),
        Task::Programs => programs::ensure(&root).map(drop),
        Task::Bench { name, only, quick } => bench::run(&root, &name, only.as_deref(), quick),
        Task::Fuzz { target, seconds } => fuzz::run(&root, target.as_deref(), seconds),
        Task::Sim { seeds } => sim::run(&root, seeds),
        Task::GenData => data::generate(&root),
    }
}

/// The repository's top folder.
fn root() -> Result<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(manifest.parent().context("xtask has no parent folder")?.to_path_buf())
}

/// The target directory, absolute; fetched tools and built guests live below it, so `cargo clean` removes them.
fn target_dir(root: &Path) -> PathBuf {
    let named = std::env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty());
    // As cargo does, from the folder that the command was called in.
    named.and_then(|dir| std::path::absolute(dir).ok()).unwrap_or_else(|| root.join("target"))
}
