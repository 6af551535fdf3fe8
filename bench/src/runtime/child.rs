//! What runs in a process of its own, so that its memory and CPU can be told: this program, started by itself.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::parked::{self, Park};
use super::serve::{self, Serve};
use crate::program::{Output, Program};

/// How long a child may take to be ready.
const READY: Duration = Duration::from_secs(600);

/// A part of a benchmark.
#[derive(clap::Subcommand)]
pub enum Child {
    /// The guest's source, natively.
    Guest {
        /// Its arguments.
        args: Vec<String>,
    },
    /// Many that wait.
    Park(Park),
    /// HTTP on a port of this machine.
    Serve(Serve),
}

/// Does that.
///
/// # Errors
/// It fails.
pub fn run(child: &Child) -> Result<()> {
    match child {
        Child::Guest { args } => {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            Ok(super::guest::run(&args)?)
        }
        Child::Park(park) => parked::park(park),
        Child::Serve(serve) => serve::serve(serve),
    }
}

/// This program as a child, with options and their values.
///
/// # Errors
/// It cannot be found or started.
pub fn start(name: &str, options: &[(&str, &str)], paths: &[(&str, &Path)]) -> Result<Program> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["child", name]);
    for (option, value) in options {
        command.args([option, value]);
    }
    for (option, path) in paths {
        command.arg(option).arg(path);
    }
    Program::start("a part of the benchmark", &mut command, Output::Out)
}

/// When a child must be ready.
pub fn ready_by() -> Instant {
    Instant::now() + READY
}

/// The folder of compiled code that children share.
pub fn cache(scratch: &Path) -> PathBuf {
    scratch.join("children")
}
