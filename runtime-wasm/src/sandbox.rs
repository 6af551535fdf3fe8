//! A pod's sandbox and its containers: start, wait, kill, account.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use wasmtime_wasi_config::WasiConfigVariables;

use crate::buffers::BUFFER_SHARE;
use crate::container::{Container, ContainerSpec, ExecSpec};
use crate::engine::{AtCapacity, Place, Runtime};
use crate::exit::{Ending, Exit, StartTimeout};
use crate::fair::{CpuAccount, weight_of};
use crate::http::HttpServer;
use crate::instance::Template;
use crate::limits::MemoryBudget;
use crate::network::NetError;
use crate::outgoing::tls::Tls;
use crate::program::{Kind, Pre, Program};
use crate::rate::Paced;
use crate::sockets::PodNet;
use crate::stdio::Input;
use crate::ticker::TICK;
use crate::vfs::{Mounts, Vfs};

/// The port of an HTTP container that names none.
pub const DEFAULT_HTTP_PORT: u16 = 80;
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
    /// The node has no place for another instance.
    #[error(transparent)]
    AtCapacity(#[from] AtCapacity),
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

impl Sandbox {
    /// A sandbox without containers, whose memory is limited by theirs alone.
    pub fn new(runtime: &Arc<Runtime>, spec: SandboxSpec) -> Sandbox {
        Self::limited(runtime, spec, None)
    }

    /// A sandbox without containers. All of them together, their files and buffers included, may have so many bytes;
    /// the buffers' part ([`crate::buffers`]) is set aside.
    pub fn limited(runtime: &Arc<Runtime>, spec: SandboxSpec, memory_limit: Option<u64>) -> Sandbox {
        let buffers = spec.net.buffers();
        if let Some(limit) = memory_limit {
            buffers.lower_to(limit / BUFFER_SHARE);
        }
        let memory = MemoryBudget::of_pod(memory_limit.map(|limit| limit.saturating_sub(buffers.limit())));
        spec.vfs.charge_to(&memory);
        Sandbox { runtime: runtime.clone(), spec, memory }
    }

    /// The pod's memory account, of its containers and the files that they share.
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
        let files = spec.files.unwrap_or_else(|| Arc::new(Mounts::new(self.spec.vfs.root())));
        let template = Template {
            tls: Tls::new(&env, files.clone(), stderr.clone()),
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
            files,
            instances: self.runtime.instances.clone(),
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
                let place = template.instances.admit()?;
                self.run(spec.program.clone(), template, place, &cpu, cancel, ending)
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
            tls: Tls::new(&env, container.template.files.clone(), spec.stderr.clone()),
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
        let place = template.instances.admit()?;
        let task = self.run(program, template, place, &process.cpu, process.cancel.clone(), ending);
        task.map(|()| process).ok_or(StartError::Stopping)
    }

    /// Runs a command to its end.
    fn run(
        &self,
        program: Arc<Program>,
        template: Template,
        place: Place,
        cpu: &Arc<CpuAccount>,
        cancel: CancellationToken,
        ending: Ending,
    ) -> Option<()> {
        let run = run_command(program, template, place, self.runtime.config.start_timeout);
        let run = AssertUnwindSafe(run).catch_unwind();
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

async fn run_command(program: Arc<Program>, template: Template, _place: Place, start_timeout: Duration) -> Exit {
    let (mut store, outputs) = template.store();
    let late = |_| StartTimeout(start_timeout.as_secs());
    let ran = async {
        template.charge(&mut store)?;
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
