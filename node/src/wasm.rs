//! The real runtime: pods as `copepod-runtime` sandboxes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use copepod_runtime::network::{Endpoint, NetError};
use copepod_runtime::sockets::{NetLimits, PodNet};
use copepod_runtime::vfs::{self, Mounts, Snapshot, SnapshotFile, Vfs, VfsLimits};
use copepod_runtime::{Container, ExitReason, InputSource, LoadError, OutputSink, Runtime, Sandbox, StartError};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::io::StreamReader;

use crate::runtime::{
    Capacity, ContainerExit, ContainerSpec, ExecSpec, FileSet, Mount, Output, Piece, PodRuntime, PodSandbox,
    RunningContainer, RuntimeError, SandboxSpec, Stream, Usage, Volume,
};
use crate::volumes::local::LocalVolumes;

/// Bytes of memory a container may use that sets no limit, so that every container is bounded.
pub const DEFAULT_MEMORY: u64 = 1 << 30;

/// Bytes of memory for a pod's files and buffers beside what its containers' limits allow them.
pub const SHARED_MEMORY: u64 = (128 << 20) + copepod_runtime::buffers::BUFFER_BYTES;

/// Pieces of standard input that wait for a guest.
const MAX_INPUT_PIECES: usize = 4;

/// Hosts pods in wasmtime.
pub struct WasmRuntime {
    runtime: Arc<Runtime>,
    hidden: Vec<PathBuf>,
    local: LocalVolumes,
}

impl WasmRuntime {
    /// Hosts pods in this runtime, of which there is one per process. No hostPath volume leads into the directories
    /// `hidden`, nor to compiled code; volumes that the node makes are in `local`.
    pub fn new(runtime: Arc<Runtime>, mut hidden: Vec<PathBuf>, local: LocalVolumes) -> Self {
        hidden.push(runtime.cache_dir().to_owned());
        Self { runtime, hidden, local }
    }
}

#[async_trait]
impl PodRuntime for WasmRuntime {
    async fn sandbox(&self, spec: SandboxSpec) -> Result<Arc<dyn PodSandbox>, RuntimeError> {
        let net = PodNet::new(spec.ips.clone(), spec.uplink, NetLimits::default());
        net.set_host(&spec.hostname, spec.ips);
        let vfs = Vfs::new(VfsLimits::default());
        let inner = copepod_runtime::SandboxSpec { name: spec.label, hostname: spec.hostname, net: net.clone(), vfs };
        let sandbox = Arc::new(Sandbox::limited(&self.runtime, inner, Some(spec.memory_limit)));
        let mut volumes = BTreeMap::new();
        for (name, volume) in spec.volumes {
            let made = match volume {
                Volume::Empty { size_limit } => {
                    let default = VfsLimits::default();
                    let bytes = size_limit.unwrap_or(default.bytes);
                    let tree = Vfs::new(VfsLimits { bytes, ..default });
                    tree.charge_to(sandbox.memory());
                    MadeVolume::Tree(tree)
                }
                Volume::Files(files) => {
                    let limits =
                        VfsLimits { bytes: 2 * crate::volumes::MAX_FILES_BYTES as u64, ..VfsLimits::default() };
                    let snapshot = Snapshot::charged(&snapshot_files(files), limits, sandbox.memory());
                    let fail = |e| {
                        format!(
                            "MountVolume.SetUp failed for volume {name:?} : {e} (the pod's memory limit is {} bytes)",
                            spec.memory_limit
                        )
                    };
                    MadeVolume::Files(snapshot.map_err(|e| RuntimeError::Failed(fail(e)))?)
                }
                Volume::Host { path, kind } => {
                    let hidden = self.hidden.clone();
                    let open = move || {
                        let hidden: Vec<&Path> = hidden.iter().map(PathBuf::as_path).collect();
                        crate::volumes::host::open(&path, kind, &hidden)
                    };
                    let opened = tokio::task::spawn_blocking(open).await.unwrap_or_else(|e| Err(e.to_string()));
                    let fail = |why| format!("MountVolume.SetUp failed for volume {name:?} : {why}");
                    MadeVolume::Host(opened.map_err(|why| RuntimeError::Failed(fail(why)))?)
                }
                Volume::Local { name: directory } => {
                    let local = self.local.clone();
                    let opened = tokio::task::spawn_blocking(move || local.open(&directory)).await;
                    let fail = |why| format!("MountVolume.SetUp failed for volume {name:?} : {why}");
                    let opened = opened.unwrap_or_else(|e| Err(e.to_string()));
                    MadeVolume::Host(opened.map_err(|why| RuntimeError::Failed(fail(why)))?)
                }
            };
            volumes.insert(name, made);
        }
        Ok(Arc::new(WasmSandbox { runtime: self.runtime.clone(), sandbox, net, volumes }))
    }

    fn capacity(&self) -> Capacity {
        let capacity = self.runtime.capacity();
        Capacity { instances: capacity.instances as usize, why: capacity.why.clone() }
    }
}

fn start_error(error: StartError) -> RuntimeError {
    match error {
        StartError::AtCapacity(_) => RuntimeError::Exhausted(error.to_string()),
        other => RuntimeError::Failed(other.to_string()),
    }
}

enum MadeVolume {
    Tree(Vfs),
    Host(Arc<dyn vfs::Node>),
    Files(Arc<Snapshot>),
}

fn snapshot_files(files: FileSet) -> BTreeMap<String, SnapshotFile> {
    files.into_iter().map(|(path, f)| (path, SnapshotFile { data: f.data, mode: f.mode })).collect()
}

struct WasmSandbox {
    runtime: Arc<Runtime>,
    sandbox: Arc<Sandbox>,
    net: Arc<PodNet>,
    volumes: BTreeMap<String, MadeVolume>,
}

impl WasmSandbox {
    fn files(&self, mut mounts: Vec<Mount>) -> Result<Arc<Mounts>, RuntimeError> {
        let view = Mounts::new(self.sandbox.spec().vfs.root());
        // Outer paths first.
        mounts.sort_by(|a, b| a.path.cmp(&b.path));
        for m in mounts {
            let source = match self.volumes.get(&m.volume) {
                Some(MadeVolume::Tree(tree)) => vfs::Source::Node(tree.root()),
                Some(MadeVolume::Host(node)) => vfs::Source::Node(node.clone()),
                Some(MadeVolume::Files(snapshot)) => vfs::Source::Snapshot(snapshot.clone()),
                None => return Err(RuntimeError::Failed(format!("there is no volume {:?} in the pod", m.volume))),
            };
            let mount = vfs::Mount { source, sub_path: m.sub_path, read_only: m.read_only };
            view.mount(&m.path, mount)
                .map_err(|e| RuntimeError::Failed(format!("cannot mount volume {:?} at {}: {e}", m.volume, m.path)))?;
        }
        Ok(Arc::new(view))
    }
}

#[async_trait]
impl PodSandbox for WasmSandbox {
    async fn start(&self, spec: ContainerSpec) -> Result<Arc<dyn RunningContainer>, RuntimeError> {
        let loaded = self.runtime.load_telling(&spec.digest, &spec.artifact, spec.compiling.as_ref()).await;
        let program = loaded.map_err(|error| match error {
            LoadError::Io(why) => RuntimeError::Failed(why),
            other => RuntimeError::InvalidImage(other.to_string()),
        })?;
        let files = self.files(spec.mounts)?;
        let mut inner = copepod_runtime::ContainerSpec::new(spec.name, program);
        inner.args = spec.args;
        inner.env = spec.env;
        inner.working_dir = spec.working_dir;
        inner.files = Some(files);
        inner.memory_limit = Some(spec.memory_limit.unwrap_or(DEFAULT_MEMORY));
        inner.cpu_request = spec.cpu_request_milli;
        inner.cpu_limit = spec.cpu_limit_milli;
        inner.http_port = spec.ports.first().copied();
        inner.http_limits = spec.http;
        inner.tty = spec.tty;
        let attached = Arc::<Attached>::default();
        let sink = |stream| Arc::new(Sink { stream, output: spec.output.clone(), attached: attached.clone() });
        inner.stdout = sink(Stream::Stdout);
        inner.stderr = sink(Stream::Stderr);
        let stdin = spec.stdin.then(|| {
            let (to, from) = input();
            inner.stdin = Some(from);
            to
        });
        let container = self.sandbox.start(inner).map_err(start_error)?;
        Ok(Arc::new(WasmContainer {
            container: Arc::new(container),
            sandbox: self.sandbox.clone(),
            attached,
            stdin: Mutex::new(stdin),
            stdin_once: spec.stdin_once,
        }))
    }

    async fn accept(&self, from: SocketAddr, port: u16) -> Result<Endpoint, NetError> {
        self.net.accept_from(port, from).await
    }

    async fn datagram(&self, from: SocketAddr, port: u16, data: Bytes) -> Result<(), NetError> {
        let own = self.net.ips().iter().find(|ip| ip.is_ipv4() == from.is_ipv4()).ok_or(NetError::Unreachable)?;
        self.net.deliver_datagram(from, SocketAddr::new(*own, port), data)
    }

    fn replace_files(&self, volume: &str, files: FileSet) {
        if let Some(MadeVolume::Files(snapshot)) = self.volumes.get(volume)
            && let Err(error) = snapshot.replace(&snapshot_files(files))
        {
            tracing::warn!(volume, "volume keeps its old files: {error}");
        }
    }

    async fn stop(&self) {
        self.net.close();
    }
}

/// A standard input that is fed through a channel; it ends when the sender is dropped.
pub(crate) fn input() -> (mpsc::Sender<Bytes>, InputSource) {
    let (to, from) = mpsc::channel(MAX_INPUT_PIECES);
    let pieces = ReceiverStream::new(from).map(Ok::<_, std::io::Error>);
    (to, Box::new(StreamReader::new(pieces)))
}

struct WasmContainer {
    container: Arc<Container>,
    sandbox: Arc<Sandbox>,
    attached: Arc<Attached>,
    stdin: Mutex<Option<mpsc::Sender<Bytes>>>,
    stdin_once: bool,
}

#[async_trait]
impl RunningContainer for WasmContainer {
    async fn wait(&self) -> ContainerExit {
        let exit = self.container.wait().await;
        let reason = match exit.reason {
            ExitReason::Completed => "Completed",
            ExitReason::OutOfMemory => "OOMKilled",
            ExitReason::NotStarted => "StartError",
            _ => "Error",
        };
        ContainerExit { code: exit.code, reason, message: exit.message.unwrap_or_default() }
    }

    fn kill(&self, grace: Duration) {
        let container = self.container.clone();
        tokio::spawn(async move { container.stop(grace).await });
    }

    fn usage(&self) -> Usage {
        let pod_memory = self.sandbox.memory().used();
        Usage { cpu: self.container.cpu_time(), memory: self.container.memory_bytes(), pod_memory }
    }

    fn exec(&self, spec: ExecSpec) -> Result<Arc<dyn RunningContainer>, RuntimeError> {
        let sink = |stream| Arc::new(PieceSink { stream, to: spec.output.clone() });
        let env = if spec.tty { vec![("TERM".to_string(), "xterm".to_string())] } else { Vec::new() };
        let inner = copepod_runtime::ExecSpec {
            program: None,
            args: spec.args,
            env,
            stdin: spec.stdin,
            tty: spec.tty,
            stdout: sink(Stream::Stdout),
            stderr: sink(Stream::Stderr),
        };
        let process = self.sandbox.exec(&self.container, inner).map_err(|e| RuntimeError::Failed(e.to_string()))?;
        Ok(Arc::new(WasmContainer {
            container: Arc::new(process),
            sandbox: self.sandbox.clone(),
            attached: Arc::default(),
            stdin: Mutex::default(),
            stdin_once: false,
        }))
    }

    fn attach(&self, output: mpsc::Sender<Piece>, stdin: bool) -> Option<mpsc::Sender<Bytes>> {
        let mut attached = self.attached.0.lock();
        attached.retain(|to| !to.is_closed());
        attached.push(output);
        let mut input = self.stdin.lock();
        if !stdin {
            return None;
        }
        if self.stdin_once { input.take() } else { input.clone() }
    }
}

/// Who sees a container's output as it comes.
#[derive(Default)]
struct Attached(Mutex<Vec<mpsc::Sender<Piece>>>);

struct Sink {
    stream: Stream,
    output: Arc<dyn Output>,
    attached: Arc<Attached>,
}

#[async_trait]
impl OutputSink for Sink {
    async fn write(&self, data: Bytes) {
        self.output.write(self.stream, &data);
        // Who is gone, or does not keep up, is let go: a client must not hold up the guest.
        self.attached.0.lock().retain(|to| to.try_send((self.stream, data.clone())).is_ok());
    }
}

/// Output of a process that waits for its reader.
struct PieceSink {
    stream: Stream,
    to: mpsc::Sender<Piece>,
}

#[async_trait]
impl OutputSink for PieceSink {
    async fn write(&self, data: Bytes) {
        // Without a reader the output is lost, as a closed pipe's.
        let _ = self.to.send((self.stream, data)).await;
    }
}
