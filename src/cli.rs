//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use copepod_core::controllers::pod_gc::TERMINATED_THRESHOLD;

/// This build's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

const ABOUT: &str = "Runs WebAssembly apps on a cluster of small machines and speaks the Kubernetes API.";
const EXAMPLES: &str = "\
Examples:
  copepod up ./app                       run an app directory (YAML and .wasm files) on a throw-away cluster
  copepod server                         run a cluster on this machine; kubectl works with its kubeconfig
  copepod push web.wasm shop/web:1       put a component into the cluster's image store, for `image: shop/web:1`

With a server running as an ordinary user:
  export KUBECONFIG=~/.local/share/copepod/admin.kubeconfig
  kubectl get nodes
  kubectl create deployment web --image=shop/web:1 --port=80
  kubectl expose deployment web --type=NodePort

COPEPOD_LOG sets what is logged to standard error (default warn,copepod=info), such as COPEPOD_LOG=debug.";

/// `copepod`.
#[derive(Parser)]
#[command(name = "copepod", version, about = ABOUT, after_help = EXAMPLES, propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Subcommand)]
pub enum Command {
    /// Run the control plane and, unless --no-agent, a node on this machine.
    ///
    /// Makes a cluster CA at first start, writes DIR/admin.kubeconfig (readable by you alone) and prints one line when
    /// ready. SIGTERM or Ctrl-C stops it; the next start on the same data directory goes on where it was.
    Server(Box<ServerArgs>),
    /// Run an app on a local cluster for development: apply YAML, wait until it is ready, follow its logs.
    ///
    /// Takes a directory or file of YAML. An `image:` that is a relative path to a .wasm file is sent to the cluster's
    /// image store and replaced by its digest. Starts a throw-away cluster, or the one called --name. Builds nothing.
    Up(UpArgs),
    /// Put a WebAssembly component into the cluster's image store, for use as `image: NAME:TAG` on any node.
    Push(PushArgs),
    /// Print the version.
    Version,
    /// Run a node agent (started by `copepod server`).
    #[command(hide = true)]
    Agent(AgentArgs),
    /// Compile a component ahead of time (started by the agent, as a limited child process).
    #[command(hide = true)]
    Compile {
        /// The component.
        input: PathBuf,
        /// The artifact to write.
        output: PathBuf,
    },
}

/// `copepod server`.
#[derive(Args, Clone)]
pub struct ServerArgs {
    /// Where the cluster's data lives [default: /var/lib/copepod as root, else ~/.local/share/copepod].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address of the API server; port 0 picks a free one.
    #[arg(long, default_value = "0.0.0.0:6443")]
    pub listen: SocketAddr,
    /// Address of the DNS server (UDP and TCP); port 0 picks a free one.
    #[arg(long, default_value = "0.0.0.0:10053")]
    pub dns_listen: SocketAddr,
    /// Name of this machine's node [default: the host name].
    #[arg(long)]
    pub node_name: Option<String>,
    /// Run the control plane alone, without a node on this machine.
    #[arg(long)]
    pub no_agent: bool,
    /// Addresses for pods; each node gets a part of it.
    #[arg(long, default_value = "10.64.0.0/10")]
    pub cluster_cidr: String,
    /// Prefix length of a node's part of the cluster CIDR (18 for nodes of more than 4,000 pods).
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u8).range(8..=30))]
    pub node_cidr_mask_size: u8,
    /// Most pods on this node [default: what this machine allows, at most 10,000].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub max_pods: Option<u32>,
    /// Addresses for Services.
    #[arg(long, default_value = "10.43.0.0/16")]
    pub service_cidr: String,
    /// Further names or addresses for the server's certificate (repeat or separate by commas).
    #[arg(long, value_delimiter = ',')]
    pub tls_san: Vec<String>,
    /// The zone of service names.
    #[arg(long, default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Ports that NodePort Services may use.
    #[arg(long, default_value = "30000-32767")]
    pub node_port_range: String,
    /// Address on which node ports listen [default: all].
    #[arg(long, default_value = "0.0.0.0")]
    pub node_port_address: IpAddr,
    /// The scheduler's profiles: a KubeSchedulerConfiguration [default: one profile, default-scheduler].
    #[arg(long, value_name = "FILE")]
    pub scheduler_config: Option<PathBuf>,
    /// How many pods that have ended may stay before the oldest are deleted; 0 keeps all.
    #[arg(long, value_name = "N", default_value_t = TERMINATED_THRESHOLD)]
    pub terminated_pod_gc_threshold: usize,
    /// Stop when standard input ends: for a server that is another program's child.
    #[arg(long, hide = true)]
    pub until_stdin_ends: bool,
}

/// `copepod up`.
#[derive(Args)]
pub struct UpArgs {
    /// Directory or file of YAML; without it the cluster starts empty.
    pub path: Option<PathBuf>,
    /// Use (or make) a cluster of this name that keeps its data, instead of a throw-away one.
    #[arg(long)]
    pub name: Option<String>,
    /// Namespace for objects that name none.
    #[arg(long, short, default_value = "default")]
    pub namespace: String,
    /// Do not follow the pods' logs.
    #[arg(long)]
    pub no_logs: bool,
    /// Give up waiting for readiness after this many seconds.
    #[arg(long, default_value_t = 300)]
    pub timeout: u64,
}

/// `copepod push`.
#[derive(Args)]
pub struct PushArgs {
    /// The component (a .wasm file).
    pub file: PathBuf,
    /// Name and tag, such as shop/web:1; the tag defaults to latest.
    pub name: String,
    /// Credentials of the cluster.
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
}

/// `copepod agent`.
#[derive(Args)]
pub struct AgentArgs {
    /// The agent's credentials.
    #[arg(long)]
    pub kubeconfig: PathBuf,
    /// The agent's own data.
    #[arg(long)]
    pub data_dir: PathBuf,
    /// Name of the node.
    #[arg(long)]
    pub node_name: String,
    /// The node's part of the cluster CIDR.
    #[arg(long)]
    pub pod_cidr: String,
    /// Ranges of all pods and Services of the cluster.
    #[arg(long, value_delimiter = ',')]
    pub virtual_cidrs: Vec<String>,
    /// Most pods.
    #[arg(long)]
    pub max_pods: Option<u32>,
    /// The zone of service names.
    #[arg(long)]
    pub cluster_domain: String,
    /// Address on which node ports listen.
    #[arg(long)]
    pub node_port_address: IpAddr,
    /// A directory that no hostPath volume leads into, besides the agent's own.
    #[arg(long)]
    pub hide: Vec<PathBuf>,
}
