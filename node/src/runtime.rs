//! What the agent needs of a runtime, declared where it is used: `wasm.rs` implements it over `copepod-runtime`, and
//! tests script it.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use copepod_runtime::compile::Progress;
use copepod_runtime::network::{Endpoint, NetError, Uplink};
use copepod_runtime::{HttpLimits, InputSource};
use tokio::sync::mpsc;

/// Why a runtime could not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuntimeError {
    /// The artifact is not a component that can run here: not wasm, or it imports what the node does not offer.
    #[error("{0}")]
    InvalidImage(String),
    /// The sandbox or the instance could not be made.
    #[error("{0}")]
    Failed(String),
    /// A bound of the node is reached.
    #[error("{0}")]
    Exhausted(String),
}

/// One file of a volume that the node fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Contents.
    pub data: Bytes,
    /// Permission bits, such as 0o644.
    pub mode: u32,
}

/// A volume's files by relative path; replaced as a whole, so that readers never see half of an update.
pub type FileSet = BTreeMap<String, FileEntry>;

/// What a volume holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Volume {
    /// An empty, writable tree in the pod's memory.
    Empty {
        /// Bytes it may hold; `None`: the pod's own bound.
        size_limit: Option<u64>,
    },
    /// Read-only files that the node supplies.
    Files(FileSet),
    /// A directory or file of the machine.
    Host {
        /// Its absolute path.
        path: PathBuf,
        /// What is to be there, or to be made.
        kind: HostKind,
    },
    /// A directory of the node's own, made when it is first mounted.
    Local {
        /// Its name: a DNS subdomain.
        name: String,
    },
}

/// What a [`Volume::Host`] has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostKind {
    /// Whatever is there; a directory is made if nothing is.
    Any,
    /// A directory that exists.
    Directory,
    /// A directory, made if nothing is there.
    DirectoryOrCreate,
    /// A regular file that exists.
    File,
    /// A regular file, made if nothing is there; its directory must exist.
    FileOrCreate,
}

/// Where a container sees a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The volume's name in the pod.
    pub volume: String,
    /// Absolute path in the container.
    pub path: String,
    /// Path inside the volume; empty for its root.
    pub sub_path: String,
    /// Writes are refused.
    pub read_only: bool,
}

/// A pod's sandbox.
#[derive(Clone)]
pub struct SandboxSpec {
    /// Unique and stable: the pod's UID.
    pub id: String,
    /// For people and logs: `namespace/name`.
    pub label: String,
    /// What guests see as their host name.
    pub hostname: String,
    /// The pod's addresses.
    pub ips: Vec<IpAddr>,
    /// What lies beyond its loopback.
    pub uplink: Arc<dyn Uplink>,
    /// Volumes by name.
    pub volumes: BTreeMap<String, Volume>,
    /// Bytes of memory that its containers, files and buffers may take together.
    pub memory_limit: u64,
}

/// One of a container's output streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Where a container's output goes. Called on guest threads: must not block for long.
pub trait Output: Send + Sync + 'static {
    /// Takes bytes as the guest wrote them.
    fn write(&self, stream: Stream, data: &[u8]);
}

/// One instance of a container.
#[derive(Clone)]
pub struct ContainerSpec {
    /// The container's name.
    pub name: String,
    /// The artifact's digest, `sha256:HEX`.
    pub digest: String,
    /// Where the artifact's verified bytes are.
    pub artifact: PathBuf,
    /// The whole argument vector, the program's name first.
    pub args: Vec<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Initial directory; `None`: `/`.
    pub working_dir: Option<String>,
    /// Mounts.
    pub mounts: Vec<Mount>,
    /// TCP ports declared by the container; an HTTP component is served on the first one, or on 80.
    pub ports: Vec<u16>,
    /// How an HTTP component is served.
    pub http: HttpLimits,
    /// Bytes of memory it may use; `None`: the runtime's default ([`crate::wasm::DEFAULT_MEMORY`]).
    pub memory_limit: Option<u64>,
    /// Thousandths of a core it may use; `None`: no quota.
    pub cpu_limit_milli: Option<u64>,
    /// Its weight when cores are short, in thousandths of a core.
    pub cpu_request_milli: u64,
    /// Its standard input stays open for whoever attaches; else it is empty.
    pub stdin: bool,
    /// Its standard input ends with the first who attached.
    pub stdin_once: bool,
    /// Its standard streams are a terminal's.
    pub tty: bool,
    /// Output.
    pub output: Arc<dyn Output>,
    /// Told when the artifact has to be compiled first.
    pub compiling: Compiling,
}

/// Told what a container waits for while its artifact is being compiled.
pub type Compiling = Arc<dyn Fn(Progress) + Send + Sync>;

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerExit {
    /// Exit code: the guest's own, 134 after a trap, 137 when killed.
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled` or `StartError`.
    pub reason: &'static str,
    /// The trap's message, or empty.
    pub message: String,
}

/// A piece of output on its way to a client: as the guest wrote it.
pub type Piece = (Stream, Bytes);

/// A further process of a running container.
pub struct ExecSpec {
    /// The whole argument vector, the program's name first.
    pub args: Vec<String>,
    /// Standard input; empty if `None`.
    pub stdin: Option<InputSource>,
    /// Its standard streams are a terminal's.
    pub tty: bool,
    /// Takes its output; the process waits while this is full.
    pub output: mpsc::Sender<Piece>,
}

/// What an instance uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// CPU time since its start.
    pub cpu: Duration,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of memory of its whole pod, with the files and buffers that the containers share.
    pub pod_memory: u64,
}

/// What a machine can hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// Guest instances at once: one per command container, one per request that an HTTP container serves.
    pub instances: usize,
    /// What decides that and, if there could be more, what to raise; for operators.
    pub why: String,
}

/// Hosts pods.
#[async_trait]
pub trait PodRuntime: Send + Sync + 'static {
    /// Makes a pod's sandbox: network, file tree, no instance.
    async fn sandbox(&self, spec: SandboxSpec) -> Result<Arc<dyn PodSandbox>, RuntimeError>;
    /// What this machine can hold.
    fn capacity(&self) -> Capacity;
}

/// A pod's sandbox.
#[async_trait]
pub trait PodSandbox: Send + Sync + 'static {
    /// Compiles the artifact, or finds it compiled, and starts an instance.
    async fn start(&self, spec: ContainerSpec) -> Result<Arc<dyn RunningContainer>, RuntimeError>;
    /// Connects from outside to a port that one of its guests listens on.
    async fn accept(&self, from: SocketAddr, port: u16) -> Result<Endpoint, NetError>;
    /// Delivers a datagram to a port bound by one of its guests.
    async fn datagram(&self, from: SocketAddr, port: u16, data: Bytes) -> Result<(), NetError>;
    /// Replaces the files of a [`Volume::Files`] volume.
    fn replace_files(&self, volume: &str, files: FileSet);
    /// Ends what still runs and frees everything.
    async fn stop(&self);
}

/// An instance of a container.
#[async_trait]
pub trait RunningContainer: Send + Sync + 'static {
    /// Waits for its end; may be called by several.
    async fn wait(&self) -> ContainerExit;
    /// Asks it to end; ends it by force after `grace`.
    fn kill(&self, grace: Duration);
    /// What it uses now.
    fn usage(&self) -> Usage;
    /// Runs a fresh instance of its component beside it: with its files and network, within its limits. It is killed
    /// when the last handle to it is dropped.
    fn exec(&self, spec: ExecSpec) -> Result<Arc<dyn RunningContainer>, RuntimeError>;
    /// Sends a copy of its output from now on; who does not keep up is let go. Returns its standard input, if that is
    /// open and asked for.
    fn attach(&self, output: mpsc::Sender<Piece>, stdin: bool) -> Option<mpsc::Sender<Bytes>>;
}
