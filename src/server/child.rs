//! The local node's agent as a child process: the process that hosts guests holds no keys of the cluster (invariant 8).

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

use crate::cli::ServerArgs;

/// First pause before an agent that died is started again; doubled up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// An agent that ran this long starts again without a pause.
const HEALTHY: Duration = Duration::from_secs(30);
/// The agent has this long to stop.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// How to start it.
pub struct Agent {
    /// The server's own arguments.
    pub args: ServerArgs,
    /// The agent's data.
    pub home: PathBuf,
    /// Its kubeconfig.
    pub credentials: PathBuf,
    /// Its node.
    pub node_name: String,
    /// Its part of the cluster CIDR.
    pub pod_cidr: String,
}

impl Agent {
    fn start(&self) -> std::io::Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("agent").arg("--kubeconfig").arg(&self.credentials).arg("--data-dir").arg(&self.home);
        command.args(["--node-name", &self.node_name, "--pod-cidr", &self.pod_cidr]);
        command.args(["--virtual-cidrs", &format!("{},{}", self.args.cluster_cidr, self.args.service_cidr)]);
        command.args(["--cluster-domain", &self.args.cluster_domain]);
        command.args(["--node-port-address", &self.args.node_port_address.to_string()]);
        if let Some(server) = self.home.parent() {
            // The server's keys, too, are out of hostPath's reach.
            command.arg("--hide").arg(server);
        }
        if let Some(max) = self.args.max_pods {
            command.args(["--max-pods", &max.to_string()]);
        }
        // Its own group: Ctrl-C in a terminal reaches the server alone, which stops the agent in order. The agent ends
        // when its standard input does, so it never outlives us, not even a kill -9.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
        command.spawn()
    }
}

/// Keeps an agent running until `stop`; then stops it.
pub async fn keep_running(agent: Agent, stop: CancellationToken) {
    let mut pause = MIN_PAUSE;
    while !stop.is_cancelled() {
        let started = Instant::now();
        match agent.start() {
            Ok(mut child) => {
                // Held open while the agent is to run; `wait` would close it.
                let stdin = child.stdin.take();
                tokio::select! {
                    status = child.wait() => tracing::error!(?status, "the node's agent ended; starting another"),
                    () = stop.cancelled() => {
                        drop(stdin);
                        return end(child).await;
                    }
                }
            }
            Err(error) => tracing::error!(%error, "cannot start the node's agent"),
        }
        pause = if started.elapsed() > HEALTHY { MIN_PAUSE } else { (pause * 2).min(MAX_PAUSE) };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn end(mut child: Child) {
    if tokio::time::timeout(STOP_LIMIT, child.wait()).await.is_err() {
        tracing::warn!("the node's agent did not stop in time; killing it");
        let _ = child.kill().await;
    }
}
