//! The benchmarks behind `cargo xtask bench NAME`, a program of their own so that load generators and the stores that
//! are measured in process are built like the binary that they stand beside. It prints Markdown tables, reports times
//! and asserts none; it fails only when something does not work at all.

mod api;
mod cluster;
mod etcd;
mod events;
mod fanout;
mod http;
mod load;
mod memory;
mod process;
mod program;
mod report;
mod runtime;
mod scheduler;
mod spine;
mod store;
mod target;
mod wasmtime;
mod watch;
mod workloads;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "copepod-bench", about = "Benchmarks; `cargo xtask bench` builds and starts them")]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Start, idle cost, size, Deployments, pods, and requests through a Service beside `wasmtime serve`.
    Spine {
        #[command(flatten)]
        tools: Tools,
        /// The component that is served.
        #[arg(long)]
        component: PathBuf,
        /// The peer; without it the part runs alone.
        #[arg(long)]
        wasmtime: Option<PathBuf>,
    },
    /// The API server's verbs, watch fan-out and memory; the store beside raw redb and etcd.
    Api {
        #[command(flatten)]
        tools: Tools,
        /// The peer; without it the part runs alone.
        #[arg(long)]
        etcd: Option<PathBuf>,
        /// Run only the parts whose names contain this.
        #[arg(long, default_value = "")]
        only: String,
    },
    /// What pods cost, beside bare wasmtime, the kernel and `wasmtime serve`.
    Runtime(runtime::Options),
    /// A part of `runtime` that is a process of its own.
    #[command(subcommand, hide = true)]
    Child(runtime::Child),
    /// Controllers and the scheduler.
    Workloads(workloads::Options),
}

/// The programs and files that all benchmarks use.
#[derive(clap::Args)]
pub struct Tools {
    /// The release binary.
    #[arg(long)]
    pub copepod: PathBuf,
    /// kubectl.
    #[arg(long)]
    pub kubectl: PathBuf,
    /// A folder of this run's own, on the disk that is measured.
    #[arg(long)]
    pub scratch: PathBuf,
}

fn main() -> Result<()> {
    match Cli::parse().bench {
        Bench::Spine { tools, component, wasmtime } => spine::run(&tools, &component, wasmtime.as_deref()),
        Bench::Api { tools, etcd, only } => api::run(&tools, etcd.as_deref(), &only),
        Bench::Runtime(options) => runtime::run(&options),
        Bench::Child(child) => runtime::run_child(&child),
        Bench::Workloads(options) => workloads::run(&options),
    }
}
