//! The peer for HTTP: the same component under a plain `wasmtime serve`, without an orchestrator.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::program::{self, Output, Program};

/// How long a component may take to compile and serve.
const START: Duration = Duration::from_secs(60);

/// Wasmtime's CLI.
pub struct Wasmtime {
    path: PathBuf,
    /// What `wasmtime --version` says.
    pub version: String,
}

/// `wasmtime serve` of one component.
pub struct Serve {
    /// The program.
    pub program: Program,
    /// Where it answers.
    pub address: SocketAddr,
}

impl Wasmtime {
    /// The CLI at a path.
    ///
    /// # Errors
    /// There is none, or it does not run.
    pub fn at(path: Option<&Path>) -> Result<Self> {
        let path = path.context("no wasmtime")?;
        let said = program::output(Command::new(path).arg("--version"))?;
        let version = said.lines().next().context("wasmtime --version says nothing")?.to_string();
        Ok(Self { path: path.into(), version })
    }

    /// Serves a component on a free port.
    ///
    /// # Errors
    /// It does not start within a minute.
    pub fn serve(&self, component: &Path) -> Result<Serve> {
        let mut command = Command::new(&self.path);
        command.args(["serve", "-S", "cli", "--addr", "127.0.0.1:0"]).arg(component).stdout(Stdio::null());
        let program = Program::start("wasmtime serve", &mut command, Output::Err)?;
        let (_, address) = program.line(Instant::now() + START, "its address", |line| {
            line.split_once("http://")?.1.trim_end().trim_end_matches('/').parse().ok()
        })?;
        Ok(Serve { program, address })
    }
}
