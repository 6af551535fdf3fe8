//! The agent: wires registration, pods, network and tunnel together, and takes them down again.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use copepod_api::Cidr;
use copepod_client::events::Severity;
use copepod_client::{Key, Recorder, Shared as Reflector};
use copepod_runtime::{Compiler, Runtime, RuntimeConfig};
use k8s_openapi::api::core::v1::{ObjectReference, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher;
use kube::{Api, Config};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::checkpoint::Checkpoints;
use crate::fabric::{Fabric, FabricConfig};
use crate::images::{ClusterImages, Images};
use crate::node_ports::{NodePorts, PortTaken};
use crate::node_status::{self, Machine, Registration};
use crate::observed::BackOff;
use crate::pod_ips::PodIps;
use crate::pod_worker::{Record, Shared};
use crate::pods::Pods;
use crate::publish::KubePods;
use crate::refs::KubeConfigs;
use crate::runtime::PodRuntime;
use crate::service_table::ServiceTable;
use crate::start::{ServicesOf, Starter};
use crate::usage::Meter;
use crate::volumes::local::LocalVolumes;
use crate::volumes::reclaim;
use crate::wasm::WasmRuntime;
use crate::{server, tunnel};

/// Most pods a node takes, whatever its machine allows.
pub const MAX_PODS: usize = 10_000;
/// Changes of Services and endpoints within this time lead to one new table.
const SETTLE: Duration = Duration::from_millis(10);
/// How long an agent waits between attempts to register its node.
const REGISTER_RETRY: Duration = Duration::from_millis(500);

/// How an agent is set up.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Credentials and address of the API server.
    pub kubeconfig: PathBuf,
    /// The agent's own directory: images, artifacts, logs, checkpoints.
    pub data_dir: PathBuf,
    /// The node's name.
    pub node_name: String,
    /// The node's addresses; empty: the one that leads to the world.
    pub node_ips: Vec<IpAddr>,
    /// The range for pods' addresses, unless the Node object has one already.
    pub pod_cidr: String,
    /// The ranges of all pods and Services of the cluster, beside `pod_cidr`: never looked for on the host's network.
    pub virtual_cidrs: Vec<String>,
    /// Most pods; `None`: what the machine allows, at most [`MAX_PODS`].
    pub max_pods: Option<usize>,
    /// Where node ports are listened on; `0.0.0.0` for all addresses.
    pub node_port_address: IpAddr,
    /// The zone of service names, such as `cluster.local`.
    pub cluster_domain: String,
    /// The limited process that compiles artifacts; `None`: compile in this process.
    pub compiler: Option<Compiler>,
    /// Delays between restarts of crashing containers.
    pub back_off: BackOff,
    /// Directories that no hostPath volume leads into, besides `data_dir`.
    pub hidden: Vec<PathBuf>,
}

/// Why an agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The kubeconfig cannot be used.
    #[error("kubeconfig: {0}")]
    Kubeconfig(String),
    /// The data directory cannot be used.
    #[error("data directory {path}: {source}")]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The runtime cannot be set up.
    #[error("runtime: {0}")]
    Runtime(String),
    /// The pod CIDR cannot be used.
    #[error("{0}")]
    PodCidr(String),
    /// The server does not take the node.
    #[error("the server refuses to register node {name}: {why}")]
    Refused {
        /// The node's name.
        name: String,
        /// What it said.
        why: String,
    },
    /// The agent was stopped before its node was registered.
    #[error("stopped before the node was registered")]
    Stopped,
}

/// A running agent.
pub struct Agent {
    pods: Arc<Pods>,
    fabric: Arc<Fabric>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Agent {
    /// Starts an agent over wasmtime. Returns once the node is registered and its pods are being started; waits for a
    /// server that cannot be reached yet, until `stop` is cancelled.
    pub async fn start(config: AgentConfig, stop: CancellationToken) -> Result<Self, AgentError> {
        let mut wasm = RuntimeConfig::new(config.data_dir.join("artifacts"));
        wasm.compiler = config.compiler.clone();
        // Whatever the pods: one may have several containers, and an HTTP container several requests at once.
        wasm.max_instances = u32::try_from(MAX_PODS).unwrap_or(u32::MAX);
        std::fs::create_dir_all(&config.data_dir).map_err(|e| data_dir(&config.data_dir, e))?;
        let hidden = config.hidden.iter().chain([&config.data_dir]).cloned().collect();
        let runtime = Runtime::new(wasm).map_err(|e| AgentError::Runtime(e.to_string()))?;
        let local = LocalVolumes::new(&config.data_dir);
        Self::start_with(config, Arc::new(WasmRuntime::new(runtime, hidden, local)), stop).await
    }

    /// Starts an agent over any runtime.
    pub async fn start_with(
        config: AgentConfig,
        runtime: Arc<dyn PodRuntime>,
        stop: CancellationToken,
    ) -> Result<Self, AgentError> {
        let client = copepod_client::https(&config.kubeconfig, "kubelet")
            .await
            .map_err(|e| AgentError::Kubeconfig(e.to_string()))?;
        let kube = kube_config(&config).await?;
        let node_ips = if config.node_ips.is_empty() { vec![own_address()] } else { config.node_ips.clone() };
        let wanted = config.max_pods.unwrap_or(MAX_PODS);
        let capacity = runtime.capacity();
        let pods = wanted.min(capacity.instances);
        if pods < wanted {
            tracing::warn!("this node takes {pods} pods, not {wanted}: {}", capacity.why);
        }
        let machine = Machine::read(pods, &config.data_dir);
        let mut registration = Registration {
            name: config.node_name.clone(),
            ips: node_ips.clone(),
            pod_cidr: config.pod_cidr.clone(),
            machine,
        };
        PodIps::new(&config.pod_cidr).map_err(|e| AgentError::PodCidr(e.to_string()))?;
        let node = register(&client, &registration, &stop).await?;
        if let Some(cidr) = node.spec.as_ref().and_then(|s| s.pod_cidr.clone()) {
            registration.pod_cidr = cidr;
        }

        let tasks = TaskTracker::new();
        let (recorder, recording) =
            Recorder::new(client.clone(), "copepod-node", Some(&config.node_name), stop.clone());
        tasks.spawn(recording);
        let api_server = tunnel::server_address(&kube);
        let ranges = config.virtual_cidrs.iter().chain([&registration.pod_cidr]);
        let virtual_ranges = ranges.filter_map(|range| range.parse::<Cidr>().ok()).collect();
        let fabric = Fabric::new(FabricConfig { api_server, node_ips: node_ips.clone(), virtual_ranges });
        let services = Reflector::<Service>::default();
        let shared = shared(&config, &registration, &client, runtime, &fabric, &services, &recorder).await?;
        let pods = Arc::new(Pods::new(shared));

        let local = LocalVolumes::new(&config.data_dir);
        tasks.spawn(reclaim::run(client.clone(), config.node_name.clone(), local, recorder.clone(), stop.clone()));
        let cluster = Cluster { client: client.clone(), services, tasks: tasks.clone(), stop: stop.clone() };
        cluster.follow_network(&config, &fabric, &recorder);
        cluster.follow_pods(&config.node_name, &pods);
        tasks.spawn(node_status::heartbeat(client, registration, node, stop.clone()));
        let meter = Arc::new(Meter::new(&config.node_name));
        tasks.spawn(meter.clone().run(pods.clone(), stop.clone()));
        tasks.spawn(tunnel::keep_open(kube, server::router(pods.clone(), meter), stop.clone()));
        Ok(Self { pods, fabric, stop, tasks })
    }

    /// The pods of this node.
    pub fn pods(&self) -> &Arc<Pods> {
        &self.pods
    }

    /// The pod network of this node.
    pub fn fabric(&self) -> &Arc<Fabric> {
        &self.fabric
    }

    /// Stops the agent: guests end, their pods stay bound and go on when the agent starts again.
    pub async fn stop(self) {
        self.stop.cancel();
        self.pods.stop().await;
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn data_dir(path: &std::path::Path, source: std::io::Error) -> AgentError {
    AgentError::DataDir { path: path.into(), source }
}

async fn kube_config(config: &AgentConfig) -> Result<Config, AgentError> {
    let fail = |e: &dyn std::fmt::Display| AgentError::Kubeconfig(e.to_string());
    let file = Kubeconfig::read_from(&config.kubeconfig).map_err(|e| fail(&e))?;
    Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(|e| fail(&e))
}

/// The machine's address towards the world; no packet is sent to find it.
fn own_address() -> IpAddr {
    let probe = || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
        socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
    };
    probe().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

async fn register(
    client: &kube::Client,
    registration: &Registration,
    stop: &CancellationToken,
) -> Result<k8s_openapi::api::core::v1::Node, AgentError> {
    loop {
        let attempt = tokio::select! {
            attempt = node_status::register(client, registration) => attempt,
            () = stop.cancelled() => return Err(AgentError::Stopped),
        };
        match attempt {
            Ok(node) => return Ok(node),
            Err(kube::Error::Api(status)) if matches!(status.code, 400 | 401 | 403 | 422) => {
                return Err(AgentError::Refused { name: registration.name.clone(), why: status.message.clone() });
            }
            Err(error) => tracing::info!("the server cannot be reached yet: {error}"),
        }
        tokio::select! {
            () = tokio::time::sleep(REGISTER_RETRY) => {}
            () = stop.cancelled() => return Err(AgentError::Stopped),
        }
    }
}

async fn shared(
    config: &AgentConfig,
    registration: &Registration,
    client: &kube::Client,
    runtime: Arc<dyn PodRuntime>,
    fabric: &Arc<Fabric>,
    services: &Reflector<Service>,
    recorder: &Recorder,
) -> Result<Arc<Shared>, AgentError> {
    let dir = &config.data_dir;
    let images = Images::open(dir, Arc::new(ClusterImages::new(client.clone()))).map_err(|e| data_dir(dir, e))?;
    let checkpoints = Checkpoints::open(dir.join("pods")).map_err(|e| data_dir(dir, e))?;
    let logs = dir.join("logs");
    std::fs::create_dir_all(&logs).map_err(|e| data_dir(dir, e))?;
    let mut ips = PodIps::new(&registration.pod_cidr).map_err(|e| AgentError::PodCidr(e.to_string()))?;
    // Pods that come back keep their addresses: nobody else may take them first.
    for (uid, saved) in checkpoints.all().await {
        for ip in saved.ips {
            let _ = ips.allocate(&uid, Some(ip));
        }
    }
    let events = recorder.clone();
    let record: Record = Arc::new(move |about, warning, reason, message| {
        events.event(about, if warning { Severity::Warning } else { Severity::Normal }, reason, message);
    });
    let all = services.clone();
    let services: ServicesOf = Arc::new(move |namespace| {
        let mut list = all.list(namespace);
        if namespace != "default" {
            list.extend(all.get(&Key::new("default", "kubernetes")));
        }
        list
    });
    let starter = Starter {
        images: Arc::new(images),
        configs: Arc::new(KubeConfigs::new(client.clone(), &registration.name)),
        services,
        host_ips: registration.ips.clone(),
        node_cpus: registration.machine.cpus,
        node_memory: registration.machine.memory,
    };
    Ok(Arc::new(Shared {
        runtime,
        fabric: fabric.clone(),
        starter,
        api: Arc::new(KubePods::new(client.clone())),
        record,
        checkpoints,
        logs,
        ips: Mutex::new(ips),
        back_off: config.back_off,
        retry: BackOff { initial: Duration::from_secs(1), max: Duration::from_secs(10), ..config.back_off },
    }))
}

/// The agent's view of the cluster.
struct Cluster {
    client: kube::Client,
    services: Reflector<Service>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Cluster {
    /// Keeps the service table, the names and the node ports as the API server has them.
    fn follow_network(&self, config: &AgentConfig, fabric: &Arc<Fabric>, recorder: &Recorder) {
        let services = self.services.clone();
        let slices = Reflector::<EndpointSlice>::default();
        let changed = Arc::new(Notify::new());
        let (on_service, on_slice) = (changed.clone(), changed.clone());
        services.on_change(move |_| on_service.notify_one());
        slices.on_change(move |_| on_slice.notify_one());
        let (client, stop) = (&self.client, &self.stop);
        self.tasks.spawn(services.clone().run(Api::all(client.clone()), watcher::Config::default(), stop.clone()));
        self.tasks.spawn(slices.clone().run(Api::all(client.clone()), watcher::Config::default(), stop.clone()));

        let (events, known) = (recorder.clone(), services.clone());
        let taken: PortTaken = Arc::new(move |port, message| {
            let found = known.get(&Key::new(port.namespace.as_str(), port.service.as_str()));
            let about = ObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Service".into()),
                namespace: Some(port.namespace.clone()),
                name: Some(port.service.clone()),
                uid: found.and_then(|s| s.metadata.uid.clone()),
                ..ObjectReference::default()
            };
            events.event(about, Severity::Warning, "NodePortUnavailable", message);
        });
        let mut ports = NodePorts::new(fabric.clone(), config.node_port_address, taken);
        let (fabric, domain, stop) = (fabric.clone(), config.cluster_domain.clone(), stop.clone());
        self.tasks.spawn(async move {
            let work = async {
                services.ready().await;
                slices.ready().await;
                loop {
                    let (all, ends) = (services.all(), slices.all());
                    let before = fabric.services();
                    let refs = || (all.iter().map(AsRef::as_ref), ends.iter().map(AsRef::as_ref));
                    let (s, e) = refs();
                    let table = Arc::new(ServiceTable::build(s, e, &before));
                    let (s, e) = refs();
                    fabric.set_records(Arc::new(copepod_dns::Records::build(&domain, s, e, &[])));
                    ports.apply(&table.node_ports());
                    fabric.set_services(table);
                    changed.notified().await;
                    tokio::time::sleep(SETTLE).await;
                }
            };
            stop.run_until_cancelled(work).await;
        });
    }

    /// Hands every pod bound to this node to its worker.
    fn follow_pods(&self, node: &str, pods: &Arc<Pods>) {
        let reflector = Reflector::<Pod>::default();
        let config = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
        let (services, pods, stop) = (self.services.clone(), pods.clone(), self.stop.clone());
        let following = reflector.clone().run(Api::all(self.client.clone()), config, self.stop.clone());
        self.tasks.spawn(following);
        self.tasks.spawn(async move {
            let work = async {
                // Service variables and names must be there before the first guest.
                services.ready().await;
                let feed = pods.clone();
                reflector.on_change(move |change| {
                    let uid = |p: &Option<Arc<Pod>>| p.as_ref().and_then(|p| p.metadata.uid.clone());
                    let (old, new) = (uid(&change.old), uid(&change.new));
                    if let Some(old) = old.filter(|o| Some(o) != new.as_ref()) {
                        feed.gone(&old);
                    }
                    if let Some(pod) = &change.new {
                        feed.upsert(pod.clone());
                    }
                });
                reflector.ready().await;
                let bound: HashSet<String> = reflector.all().iter().filter_map(|p| p.metadata.uid.clone()).collect();
                pods.retain(&bound).await;
            };
            stop.run_until_cancelled(work).await;
        });
    }
}
