//! A pod's sandbox and its containers: start, wait, kill, account.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_config::WasiConfigVariables;

use crate::compile::bounded;
use crate::ctx::StartBudget;
use crate::engine::Runtime;
use crate::fair::{CpuAccount, CpuUsage, weight_of};
use crate::http::{HttpLimits, HttpServer};
use crate::instance::Template;
use crate::limits::{MemoryBudget, OutOfMemory};
use crate::network::NetError;
use crate::program::{Kind, Pre, Program};
use crate::rate::{LOG_RATE, Paced, Rate};
use crate::sockets::PodNet;
use crate::stdio::{Discard, Input, InputSource, OutputSink};
use crate::ticker::TICK;
use crate::vfs::{Mounts, Vfs};

/// The port of an HTTP container that names none.
pub const DEFAULT_HTTP_PORT: u16 = 80;
/// Exit code of a container that was killed or ran out of memory: 128 + SIGKILL.
pub const KILLED: i32 = 137;
/// Exit code of a container whose guest trapped: 128 + SIGABRT.
pub const TRAPPED: i32 = 134;
/// Exit code of a container that this node failed.
pub const NODE_FAULT: i32 = 128;
/// Frames of a trap's backtrace that are kept in its message.
const BACKTRACE_LINES: usize = 12;

/// What a pod's containers share.
pub struct SandboxSpec {
    /// For logs and errors.
    pub name: String,
    /// The pod's host name: `HOSTNAME` in the environment of containers that do not set it.
    pub hostname: String,
    /// The pod's network.
    pub net: Arc<PodNet>,
    /// The pod's files, shared by its containers.
    pub vfs: Vfs,
}

/// A pod's place on this node: its network and files, and the containers in it.
pub struct Sandbox {
    runtime: Arc<Runtime>,
    spec: SandboxSpec,
    memory: Arc<MemoryBudget>,
}

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

/// Why a container did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its HTTP port cannot be served.
    #[error("http port {port}: {source}")]
    Port {
        /// The port.
        port: u16,
        /// The pod's network's reason.
        source: NetError,
    },
    /// The node is going down.
    #[error("node is stopping")]
    Stopping,
    /// [`Sandbox::exec`] in a container that has ended.
    #[error("container not running ({0})")]
    NotRunning(String),
    /// [`Sandbox::exec`] of an HTTP component.
    #[error("the component serves HTTP requests and has no command to run")]
    NoCommand,
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

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The guest's own exit code, or [`KILLED`], [`TRAPPED`], [`NODE_FAULT`].
    pub code: i32,
    /// What happened.
    pub reason: ExitReason,
    /// For users: a trap's cause and the first frames of its backtrace, the limit that was hit.
    pub message: Option<String>,
}

/// What ended a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// The guest returned or exited with 0.
    Completed,
    /// The guest exited with another code, or the node failed it.
    Error,
    /// The guest wanted more memory than its limit, or its pod's.
    OutOfMemory,
    /// The guest was not instantiated: a start-up budget was used up, or the node is at its capacity of instances.
    NotStarted,
    /// The guest trapped.
    Trap,
    /// [`Container::kill`].
    Killed,
}

/// Instantiating took longer than it may, in seconds.
#[derive(Debug, thiserror::Error)]
#[error("start-up timeout: the instance was not ready after {0} s")]
struct StartTimeout(u64);

impl Exit {
    fn of_code(code: i32) -> Exit {
        let reason = if code == 0 { ExitReason::Completed } else { ExitReason::Error };
        Exit { code, reason, message: None }
    }

    fn killed() -> Exit {
        Exit { code: KILLED, reason: ExitReason::Killed, message: None }
    }

    fn out_of_memory(error: &OutOfMemory) -> Exit {
        Exit { code: KILLED, reason: ExitReason::OutOfMemory, message: Some(error.to_string()) }
    }

    fn not_started(why: String) -> Exit {
        Exit { code: NODE_FAULT, reason: ExitReason::NotStarted, message: Some(why) }
    }

    fn node_fault(what: &str) -> Exit {
        Exit { code: NODE_FAULT, reason: ExitReason::Error, message: Some(format!("node fault: {what}")) }
    }

    /// What an error out of a guest's call means.
    pub(crate) fn of_error(error: &wasmtime::Error) -> Exit {
        if let Some(I32Exit(code)) = error.downcast_ref() {
            return Exit::of_code(*code);
        }
        if let Some(memory) = error.downcast_ref::<OutOfMemory>() {
            return Exit::out_of_memory(memory);
        }
        if let Some(limit) = error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>() {
            return Exit::not_started(format!("node is at capacity: {limit}"));
        }
        if error.is::<StartBudget>() || error.is::<StartTimeout>() {
            return Exit::not_started(error.root_cause().to_string());
        }
        let mut message = error.root_cause().to_string();
        if let Some(backtrace) = error.downcast_ref::<wasmtime::WasmBacktrace>() {
            for line in backtrace.to_string().lines().take(BACKTRACE_LINES) {
                message.push('\n');
                message.push_str(line);
            }
        }
        Exit { code: TRAPPED, reason: ExitReason::Trap, message: Some(bounded(&message)) }
    }
}

/// Where a container's end is announced; the first end counts.
#[derive(Clone)]
pub(crate) struct Ending(Arc<watch::Sender<Option<Exit>>>);

impl Ending {
    fn new() -> (Ending, watch::Receiver<Option<Exit>>) {
        let (sender, receiver) = watch::channel(None);
        (Ending(Arc::new(sender)), receiver)
    }

    pub(crate) fn end(&self, exit: Exit) {
        self.0.send_if_modified(|ended| {
            let first = ended.is_none();
            if first {
                *ended = Some(exit);
            }
            first
        });
    }
}

/// A started container. Dropping it kills it.
pub struct Container {
    name: String,
    /// What it runs, and as what: for further processes.
    program: Arc<Program>,
    template: Template,
    /// An HTTP container's port and handler, for draining.
    http: Option<(Arc<PodNet>, u16, HttpServer)>,
    ended: watch::Receiver<Option<Exit>>,
    cancel: CancellationToken,
    budget: Arc<MemoryBudget>,
    cpu: Arc<CpuAccount>,
    /// Whether all that runs on its CPU account ends with it.
    is_whole_account: bool,
}

impl Sandbox {
    /// A sandbox without containers, whose memory is limited by theirs alone.
    pub fn new(runtime: &Arc<Runtime>, spec: SandboxSpec) -> Sandbox {
        Self::limited(runtime, spec, None)
    }

    /// A sandbox without containers. All of them together, their files and buffers included, may have so many bytes.
    pub fn limited(runtime: &Arc<Runtime>, spec: SandboxSpec, memory_limit: Option<u64>) -> Sandbox {
        let memory = MemoryBudget::of_pod(memory_limit);
        spec.vfs.charge_to(&memory);
        Sandbox { runtime: runtime.clone(), spec, memory }
    }

    /// The pod's memory account, for what its containers share.
    pub fn memory(&self) -> &Arc<MemoryBudget> {
        &self.memory
    }

    /// What was given to [`Sandbox::new`].
    pub fn spec(&self) -> &SandboxSpec {
        &self.spec
    }

    /// Starts a container and returns at once. A command runs until it exits; an HTTP component's port is served
    /// until [`Container::kill`], or until it runs out of memory.
    pub fn start(&self, spec: ContainerSpec) -> Result<Container, StartError> {
        let config = &self.runtime.config;
        let (ending, ended) = Ending::new();
        let budget = MemoryBudget::of_container(spec.memory_limit, &self.memory);
        let cpu = self.runtime.guests.account(weight_of(spec.cpu_request), spec.cpu_limit);
        let mut env = spec.env;
        if !env.iter().any(|(name, _)| name == "HOSTNAME") {
            env.push(("HOSTNAME".into(), self.spec.hostname.clone()));
        }
        let [stdout, stderr] = Paced::both([spec.stdout, spec.stderr], spec.log_rate);
        let template = Template {
            engine: self.runtime.engine.clone(),
            args: spec.args,
            config: config_of(&env),
            env,
            working_dir: spec.working_dir,
            stdin: None,
            stdout,
            stderr,
            tty: spec.tty,
            budget: budget.clone(),
            start_ticks: u32::try_from(config.start_cpu.as_nanos() / TICK.as_nanos()).unwrap_or(u32::MAX),
            net: self.spec.net.clone(),
            files: spec.files.unwrap_or_else(|| Arc::new(Mounts::new(self.spec.vfs.root()))),
        };
        let mut container = Container {
            name: spec.name,
            program: spec.program.clone(),
            template: template.clone(),
            http: None,
            ended,
            cancel: CancellationToken::new(),
            budget,
            cpu: cpu.clone(),
            is_whole_account: true,
        };
        let cancel = container.cancel.clone();
        cpu.on_out_of_memory({
            let (ending, cancel, cpu) = (ending.clone(), cancel.clone(), Arc::downgrade(&cpu));
            move |error| {
                ending.end(Exit::out_of_memory(error));
                cancel.cancel();
                if let Some(cpu) = cpu.upgrade() {
                    cpu.expedite();
                }
            }
        });
        let task = match &spec.program.pre {
            Pre::Command(_) | Pre::CommandP3(_) => {
                let stdin = spec.stdin.map(|source| Input::new(source, spec.tty));
                let template = Template { stdin, ..template };
                self.run(spec.program.clone(), template, &cpu, cancel, ending)
            }
            Pre::Http(pre) => {
                let port = spec.http_port.unwrap_or(DEFAULT_HTTP_PORT);
                let net = self.spec.net.clone();
                let server = HttpServer::new(
                    pre.clone(),
                    template,
                    cpu.clone(),
                    spec.http_limits,
                    cancel.clone(),
                    ending.clone(),
                );
                net.serve_http(port, Arc::new(server.clone())).map_err(|source| StartError::Port { port, source })?;
                container.http = Some((net.clone(), port, server.clone()));
                cpu.spawn(async move {
                    cancel.cancelled().await;
                    net.stop_http(port);
                    server.drop_idle();
                    ending.end(Exit::killed());
                })
                .map(drop)
            }
        };
        task.map(|()| container).ok_or(StartError::Stopping)
    }

    /// Runs a further process in a container: with its files, working directory and network, charged to its limits,
    /// killed with it. A fresh instance: nothing of the container's own memory is shared.
    pub fn exec(&self, container: &Container, spec: ExecSpec) -> Result<Container, StartError> {
        if let Some(exit) = container.exit() {
            return Err(StartError::NotRunning(format!("it ended with exit code {}", exit.code)));
        }
        let program = spec.program.unwrap_or_else(|| container.program.clone());
        if program.kind() == Kind::Http {
            return Err(StartError::NoCommand);
        }
        let mut env = container.template.env.clone();
        env.retain(|(name, _)| !spec.env.iter().any(|(new, _)| new == name));
        env.extend(spec.env);
        let template = Template {
            args: spec.args,
            config: config_of(&env),
            env,
            stdin: spec.stdin.map(|source| Input::new(source, spec.tty)),
            tty: spec.tty,
            stdout: spec.stdout,
            stderr: spec.stderr,
            ..container.template.clone()
        };
        let (ending, ended) = Ending::new();
        let process = Container {
            name: container.name.clone(),
            program: program.clone(),
            template: Template { stdin: None, ..template.clone() },
            http: None,
            ended,
            cancel: container.cancel.child_token(),
            budget: container.budget.clone(),
            cpu: container.cpu.clone(),
            is_whole_account: false,
        };
        let task = self.run(program, template, &process.cpu, process.cancel.clone(), ending);
        task.map(|()| process).ok_or(StartError::Stopping)
    }

    /// Runs a command to its end.
    fn run(
        &self,
        program: Arc<Program>,
        template: Template,
        cpu: &Arc<CpuAccount>,
        cancel: CancellationToken,
        ending: Ending,
    ) -> Option<()> {
        let run = AssertUnwindSafe(run_command(program, template, self.runtime.config.start_timeout)).catch_unwind();
        cpu.spawn(async move {
            let exit = tokio::select! {
                biased;
                () = cancel.cancelled() => Exit::killed(),
                exit = run => exit.unwrap_or_else(|_| Exit::node_fault("panic in the host")),
            };
            ending.end(exit);
            // What else runs in it ends with it.
            cancel.cancel();
        })
        .map(drop)
    }
}

/// wasi:config offers what the environment holds.
fn config_of(env: &[(String, String)]) -> Arc<WasiConfigVariables> {
    Arc::new(env.iter().cloned().collect())
}

async fn run_command(program: Arc<Program>, template: Template, start_timeout: Duration) -> Exit {
    let (mut store, outputs) = template.store();
    let late = |_| StartTimeout(start_timeout.as_secs());
    let ran = async {
        match &program.pre {
            Pre::Command(pre) => {
                let started = tokio::time::timeout(start_timeout, pre.instantiate_async(&mut store));
                let command = started.await.map_err(late)??;
                store.data_mut().started();
                command.wasi_cli_run().call_run(&mut store).await
            }
            Pre::CommandP3(pre) => {
                let started = tokio::time::timeout(start_timeout, pre.instantiate_async(&mut store));
                let command = started.await.map_err(late)??;
                store.data_mut().started();
                store.run_concurrent(async |store| command.wasi_cli_run().call_run(store).await).await?
            }
            Pre::Http(_) => Err(wasmtime::Error::msg("not a command")),
        }
    }
    .await;
    let exit = match ran {
        Ok(Ok(())) => Exit::of_code(0),
        Ok(Err(())) => Exit::of_code(1),
        Err(error) => Exit::of_error(&error),
    };
    drop(store);
    outputs.drain().await;
    exit
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
