//! A one-node cluster of the release binary on free ports.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::Tools;
use crate::program::{self, Output, Program};
use crate::target::Target;

/// How long the server may take until it is ready, and its node after it.
const START: Duration = Duration::from_secs(60);
/// How long any one call of kubectl may take, in seconds.
const KUBECTL_SECONDS: &str = "180";

/// What a cluster is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Parts {
    /// Server and node.
    Whole,
    /// The server alone (`--no-agent`).
    Control,
}

/// A running cluster; dropped, it stops as on SIGTERM.
pub struct Cluster<'t> {
    /// The server.
    pub server: Program,
    /// From starting the program to its line that says ready.
    pub started_in: Duration,
    kubeconfig: PathBuf,
    tools: &'t Tools,
}

impl<'t> Cluster<'t> {
    /// Starts the server on a data directory, new or used, and waits until it says that it is ready.
    ///
    /// # Errors
    /// It ended or was not ready within a minute; the end of its log is told.
    pub fn start(tools: &'t Tools, data: &Path, parts: Parts) -> Result<Self> {
        let log_path = tools.scratch.join("server.log");
        let mut command = Command::new(&tools.copepod);
        command.arg("server").arg("--data-dir").arg(data).args(["--listen", "127.0.0.1:0"]);
        command.args(["--dns-listen", "127.0.0.1:0", "--node-port-address", "127.0.0.1", "--node-name", "bench"]);
        if parts == Parts::Control {
            command.arg("--no-agent");
        }
        command.stderr(File::create(&log_path)?);
        let start = Instant::now();
        let server = Program::start("copepod server", &mut command, Output::Out)?;
        let ready = server.line(start + START, "the line `copepod ready`", kubeconfig_of);
        let (at, kubeconfig) = ready.with_context(|| format!("its log ends:\n{}", tail(&log_path)))?;
        Ok(Self { server, started_in: at.duration_since(start), kubeconfig: kubeconfig.into(), tools })
    }

    /// Ends the server as on SIGKILL.
    ///
    /// # Errors
    /// It has ended already.
    pub fn kill(self) -> Result<()> {
        self.server.kill()
    }

    /// kubectl with this cluster's credentials, ended after three minutes.
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new("timeout");
        command.args(["--foreground", KUBECTL_SECONDS]).arg(&self.tools.kubectl).env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// Runs kubectl; returns what it prints.
    ///
    /// # Errors
    /// It failed.
    pub fn kubectl(&self, args: &[&str]) -> Result<String> {
        program::output(self.kubectl_command().args(args))
    }

    /// Creates an object.
    ///
    /// # Errors
    /// kubectl failed.
    pub fn create(&self, object: &serde_json::Value) -> Result<()> {
        let file = self.tools.scratch.join("create.json");
        std::fs::write(&file, object.to_string())?;
        program::output(self.kubectl_command().args(["create", "-f"]).arg(&file)).map(drop)
    }

    /// Where the API answers, with the administrator's certificate.
    ///
    /// # Errors
    /// The kubeconfig does not say it.
    pub fn target(&self) -> Result<Target> {
        let config = self.kubectl(&["config", "view", "--raw", "--minify", "-o", "json"])?;
        Target::of_kubeconfig(&serde_json::from_str(&config)?)
    }

    /// Sends a component into the image store.
    ///
    /// # Errors
    /// `copepod push` failed.
    pub fn push(&self, component: &Path, name: &str) -> Result<()> {
        let mut command = Command::new("timeout");
        command.args(["--foreground", KUBECTL_SECONDS]).arg(&self.tools.copepod).arg("push").arg(component).arg(name);
        program::output(command.env("KUBECONFIG", &self.kubeconfig)).map(drop)
    }

    /// Waits until the node is Ready.
    ///
    /// # Errors
    /// It is not within a minute.
    pub fn node_ready(&self) -> Result<()> {
        poll(START, || self.kubectl(&["wait", "node/bench", "--for=condition=Ready", "--timeout=30s"]).map(drop))
            .context("the node does not become Ready")
    }

    /// Waits until no pod has the label.
    ///
    /// # Errors
    /// Some are left after two minutes.
    pub fn pods_gone(&self, label: &str) -> Result<()> {
        poll(Duration::from_secs(120), || {
            let left = self.kubectl(&["get", "pods", "-l", label, "-o", "name"])?;
            anyhow::ensure!(left.is_empty(), "{} pods with {label} are left", left.lines().count());
            Ok(())
        })
    }
}

/// Tries again until it works or the time is over; the last error then.
pub fn poll<T>(limit: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        match attempt() {
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(200)),
            outcome => return outcome,
        }
    }
}

/// The kubeconfig that the server's line names.
fn kubeconfig_of(line: &str) -> Option<String> {
    let rest = line.strip_prefix("copepod ready: ")?;
    rest.split(", ").find_map(|part| part.strip_prefix("kubeconfig ")).map(str::to_string)
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines.get(lines.len().saturating_sub(10)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ready_line_names_the_kubeconfig() {
        let line =
            "copepod ready: api https://127.0.0.1:4, kubeconfig /a b/admin.kubeconfig, dns 127.0.0.1:5, node bench";
        assert_eq!(kubeconfig_of(line).as_deref(), Some("/a b/admin.kubeconfig"));
        assert_eq!(kubeconfig_of("INFO copepod starts"), None);
    }
}
