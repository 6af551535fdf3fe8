//! A container: what it is to be, and its handle once started.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::exit::Exit;
use crate::fair::{CpuAccount, CpuUsage};
use crate::http::{HttpLimits, HttpServer};
use crate::instance::Template;
use crate::limits::MemoryBudget;
use crate::program::Program;
use crate::rate::{LOG_RATE, Rate};
use crate::sockets::PodNet;
use crate::stdio::{Discard, InputSource, OutputSink};
use crate::vfs::Mounts;

/// One container.
pub struct ContainerSpec {
    /// For logs and errors.
    pub name: String,
    /// What it runs.
    pub program: Arc<Program>,
    /// Arguments, the program's own name first.
    pub args: Vec<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Directory that relative paths start from.
    pub working_dir: Option<String>,
    /// What it sees at `/`: the pod's files with its volumes mounted over them. `None`: the pod's files alone.
    pub files: Option<Arc<Mounts>>,
    /// Most bytes of memory its instances may have together.
    pub memory_limit: Option<u64>,
    /// Its share of CPU time when there is not enough for all, in thousandths of a core; see [`weight_of`].
    pub cpu_request: u64,
    /// Most CPU time its instances may use together, in thousandths of a core.
    pub cpu_limit: Option<u64>,
    /// How fast its output may come; a guest that writes more waits.
    pub log_rate: Rate,
    /// Standard input of a command; empty if `None`.
    pub stdin: Option<InputSource>,
    /// The standard streams are a terminal's.
    pub tty: bool,
    /// Takes standard output.
    pub stdout: Arc<dyn OutputSink>,
    /// Takes standard error, and this node's remarks on failed requests.
    pub stderr: Arc<dyn OutputSink>,
    /// Where an HTTP component is served on all of the pod's addresses; [`DEFAULT_HTTP_PORT`] if none is said.
    pub http_port: Option<u16>,
    /// Bounds of an HTTP component.
    pub http_limits: HttpLimits,
}

impl ContainerSpec {
    /// A container without arguments but its own name, environment, limits or output.
    pub fn new(name: impl Into<String>, program: Arc<Program>) -> ContainerSpec {
        let name = name.into();
        ContainerSpec {
            args: vec![name.clone()],
            name,
            program,
            env: Vec::new(),
            working_dir: None,
            files: None,
            memory_limit: None,
            cpu_request: 0,
            cpu_limit: None,
            stdin: None,
            tty: false,
            log_rate: LOG_RATE,
            stdout: Arc::new(Discard),
            stderr: Arc::new(Discard),
            http_port: None,
            http_limits: HttpLimits::default(),
        }
    }
}

/// A further process of a running container.
pub struct ExecSpec {
    /// What it runs; `None`: the container's own component, as a fresh instance.
    pub program: Option<Arc<Program>>,
    /// Arguments, the program's own name first.
    pub args: Vec<String>,
    /// Added to the container's environment, replacing what has the same name.
    pub env: Vec<(String, String)>,
    /// Standard input; empty if `None`.
    pub stdin: Option<InputSource>,
    /// The standard streams are a terminal's.
    pub tty: bool,
    /// Takes standard output.
    pub stdout: Arc<dyn OutputSink>,
    /// Takes standard error.
    pub stderr: Arc<dyn OutputSink>,
}

/// A started container. Dropping it kills it.
pub struct Container {
    pub(crate) name: String,
    /// What it runs, and as what: for further processes.
    pub(crate) program: Arc<Program>,
    pub(crate) template: Template,
    /// An HTTP container's port and handler, for draining.
    pub(crate) http: Option<(Arc<PodNet>, u16, HttpServer)>,
    pub(crate) ended: watch::Receiver<Option<Exit>>,
    pub(crate) cancel: CancellationToken,
    pub(crate) budget: Arc<MemoryBudget>,
    pub(crate) cpu: Arc<CpuAccount>,
    /// Whether all that runs on its CPU account ends with it.
    pub(crate) is_whole_account: bool,
}

impl Container {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits for its end; any number of times.
    pub async fn wait(&self) -> Exit {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(exit) => exit.clone().unwrap_or_else(Exit::killed),
            Err(_) => Exit::node_fault("runtime stopped"),
        }
    }

    /// Its end, if it has ended.
    pub fn exit(&self) -> Option<Exit> {
        self.ended.borrow().clone()
    }

    #[cfg(test)]
    pub(crate) fn ended_for_tests(&self) -> watch::Receiver<Option<Exit>> {
        self.ended.clone()
    }

    /// Ends it gracefully: an HTTP container refuses new connections and gets `grace` for the requests it serves; then,
    /// and any command at once (WASI has no signal that a guest could handle), it is killed.
    pub async fn stop(&self, grace: Duration) {
        if let Some((net, port, server)) = &self.http {
            net.stop_http(*port);
            tokio::select! {
                () = server.quiet() => {}
                () = tokio::time::sleep(grace) => {}
                () = self.cancel.cancelled() => {}
            }
        }
        self.kill();
    }

    /// Ends it within an epoch tick, whatever it is doing; [`Container::wait`] tells when.
    pub fn kill(&self) {
        self.cancel.cancel();
        if self.is_whole_account {
            self.cpu.expedite();
        }
    }

    /// Bytes of memory its instances have now.
    pub fn memory_bytes(&self) -> u64 {
        self.budget.used()
    }

    /// The most memory its instances had at any time, in bytes.
    pub fn peak_memory_bytes(&self) -> u64 {
        self.budget.peak()
    }

    /// CPU time its instances used.
    pub fn cpu_time(&self) -> Duration {
        self.cpu.usage().used
    }

    /// CPU time its instances used and waited for, and the pauses by its quota.
    pub fn cpu_usage(&self) -> CpuUsage {
        self.cpu.usage()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        self.kill();
    }
}
