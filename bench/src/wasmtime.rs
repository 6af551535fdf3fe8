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
#[derive(Clone)]
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
        self.serve_with(component, &[])
    }

    /// The same with further options.
    ///
    /// # Errors
    /// It does not start within a minute.
    pub fn serve_with(&self, component: &Path, options: &[&str]) -> Result<Serve> {
        let mut command = Command::new(&self.path);
        command
            .args(["serve", "-S", "cli", "--addr", "127.0.0.1:0"])
            .args(options)
            .arg(component)
            .stdout(Stdio::null());
        let program = Program::start("wasmtime serve", &mut command, Output::Err)?;
        let (_, address) = program.line(Instant::now() + START, "its address", |line| {
            line.split_once("http://")?.1.trim_end().trim_end_matches('/').parse().ok()
        })?;
        Ok(Serve { program, address })
    }

    /// Compiles a component, for [`Wasmtime::command`].
    ///
    /// # Errors
    /// It cannot be compiled.
    pub fn compile(&self, component: &Path, to: &Path) -> Result<()> {
        program::output(Command::new(&self.path).arg("compile").arg(component).arg("-o").arg(to)).map(drop)
    }

    /// A command on the host's network, from a compiled component; options and arguments are still to come.
    pub fn command(&self, dir: Option<&str>, compiled: &Path) -> Command {
        let mut command = Command::new(&self.path);
        command.args(["run", "--allow-precompiled", "-S", "inherit-network"]);
        if let Some(dir) = dir {
            command.arg("--dir").arg(dir);
        }
        command.arg(compiled);
        command
    }
}
