//! The Node object: what this machine is and offers (pure), registering it, and its heartbeats.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use copepod_api::Quantity;
use copepod_api::names::LABEL_HOSTNAME;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Node, NodeAddress, NodeCondition, NodeSpec, NodeStatus, NodeSystemInfo};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// Where nodes' Leases live.
pub const LEASE_NAMESPACE: &str = "kube-node-lease";
/// How often the Lease is renewed.
pub const LEASE_PERIOD: Duration = Duration::from_secs(10);
/// A Lease not renewed for this long means that the node is lost, in seconds.
pub const LEASE_SECONDS: i32 = 40;
/// How often the status is written even if nothing changed.
pub const STATUS_PERIOD: Duration = Duration::from_secs(300);

/// What a machine is and offers.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// Cores.
    pub cpus: u64,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of the disk with the node's data; 0 if it is not known.
    pub disk: u64,
    /// Pods it may hold.
    pub pods: usize,
    /// Facts for `nodeInfo`.
    pub info: NodeSystemInfo,
}

impl Machine {
    /// Reads this machine's facts; what cannot be read stays empty. The disk is the one with `data_dir`.
    pub fn read(pods: usize, data_dir: &Path) -> Self {
        let text = |path: &str| std::fs::read_to_string(path).map(|s| s.trim().to_string()).unwrap_or_default();
        let meminfo = text("/proc/meminfo");
        let kib =
            meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        let release = text("/etc/os-release");
        let os_image =
            release.lines().find_map(|l| l.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux").trim_matches('"');
        let machine_id = text("/etc/machine-id");
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self {
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
            memory: kib.unwrap_or(0) * 1024,
            disk: copepod_runtime::vfs::disk_size(data_dir).unwrap_or(0),
            pods,
            info: NodeSystemInfo {
                architecture: architecture.into(),
                boot_id: text("/proc/sys/kernel/random/boot_id"),
                container_runtime_version: format!("wasmtime://{WASMTIME_VERSION}"),
                kernel_version: text("/proc/sys/kernel/osrelease"),
                kube_proxy_version: String::new(),
                kubelet_version: format!("v1.36.0+copepod.{}", env!("CARGO_PKG_VERSION")),
                system_uuid: machine_id.clone(),
                machine_id,
                operating_system: "linux".into(),
                os_image: os_image.into(),
                swap: None,
            },
        }
    }

    fn resources(&self) -> BTreeMap<String, WireQuantity> {
        let pods = i64::try_from(self.pods).unwrap_or(i64::MAX);
        let cpus = i64::try_from(self.cpus).unwrap_or(i64::MAX);
        let disk = Some(("ephemeral-storage", Quantity::from_bytes(self.disk))).filter(|_| self.disk > 0);
        [
            ("cpu", Quantity::from_units(cpus)),
            ("memory", Quantity::from_bytes(self.memory)),
            ("pods", Quantity::from_units(pods)),
        ]
        .into_iter()
        .chain(disk)
        .map(|(name, q)| (name.to_string(), WireQuantity(q.to_string())))
        .collect()
    }
}

/// The wasmtime release that this node runs guests with.
const WASMTIME_VERSION: &str = "48.0.8";

/// What is fixed about a node.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The node's name.
    pub name: String,
    /// Its addresses, the preferred one first.
    pub ips: Vec<IpAddr>,
    /// The range for its pods' addresses.
    pub pod_cidr: String,
    /// The machine.
    pub machine: Machine,
}

impl Registration {
    /// Labels that the node has.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let arch = self.machine.info.architecture.clone();
        [("kubernetes.io/os", "linux".to_string()), ("kubernetes.io/arch", arch), (LABEL_HOSTNAME, self.name.clone())]
            .map(|(k, v)| (k.to_string(), v))
            .into()
    }

    /// A new Node object.
    pub fn node(&self) -> Node {
        Node {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(self.labels()),
                ..ObjectMeta::default()
            },
            spec: Some(NodeSpec {
                pod_cidr: Some(self.pod_cidr.clone()),
                pod_cidrs: Some(vec![self.pod_cidr.clone()]),
                ..NodeSpec::default()
            }),
            status: None,
        }
    }

    /// What the machine has, and the extended resources that others say it has, such as `example.com/dongle`.
    fn resources(&self, before: &NodeStatus) -> BTreeMap<String, WireQuantity> {
        let mut all = extended(before.capacity.as_ref());
        all.extend(self.machine.resources());
        all
    }

    /// The status at a time; transition times and fields of others are kept.
    pub fn status(&self, before: NodeStatus, now: Timestamp) -> NodeStatus {
        let mut addresses: Vec<NodeAddress> =
            self.ips.iter().map(|ip| NodeAddress { type_: "InternalIP".into(), address: ip.to_string() }).collect();
        addresses.push(NodeAddress { type_: "Hostname".into(), address: self.name.clone() });
        let mut conditions = Vec::new();
        let mut others = before.conditions.clone().unwrap_or_default();
        let ours = [
            ("MemoryPressure", "False", "KubeletHasSufficientMemory", "node has sufficient memory available"),
            ("DiskPressure", "False", "KubeletHasNoDiskPressure", "node has no disk pressure"),
            ("PIDPressure", "False", "KubeletHasSufficientPID", "node has sufficient PID available"),
            ("Ready", "True", "KubeletReady", "copepod node agent is ready"),
        ];
        for (type_, status, reason, message) in ours {
            let old = others.iter().position(|c| c.type_ == type_).map(|i| others.remove(i));
            let since = old.filter(|c| c.status == status).and_then(|c| c.last_transition_time);
            conditions.push(NodeCondition {
                type_: type_.into(),
                status: status.into(),
                reason: Some(reason.into()),
                message: Some(message.into()),
                last_heartbeat_time: Some(Time(now)),
                last_transition_time: since.or(Some(Time(now))),
            });
        }
        conditions.extend(others);
        NodeStatus {
            addresses: Some(addresses),
            capacity: Some(self.resources(&before)),
            allocatable: Some(self.resources(&before)),
            conditions: Some(conditions),
            node_info: Some(self.machine.info.clone()),
            ..before
        }
    }
}

/// Makes or updates the Node object and its status.
pub async fn register(client: &kube::Client, registration: &Registration) -> Result<Node, kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let node = match api.get_opt(&registration.name).await? {
        None => api.create(&PostParams::default(), &registration.node()).await?,
        Some(node) => {
            let has = node.metadata.labels.clone().unwrap_or_default();
            let missing: BTreeMap<_, _> =
                registration.labels().into_iter().filter(|(k, v)| has.get(k) != Some(v)).collect();
            let cidr = node.spec.as_ref().and_then(|s| s.pod_cidr.clone());
            if missing.is_empty() && cidr.is_some() {
                node
            } else {
                let mut patch = json!({"metadata": {"labels": missing}});
                if cidr.is_none()
                    && let Some(patch) = patch.as_object_mut()
                {
                    let cidr = &registration.pod_cidr;
                    patch.insert("spec".into(), json!({"podCIDR": cidr, "podCIDRs": [cidr]}));
                }
                api.patch(&registration.name, &PatchParams::default(), &Patch::Merge(&patch)).await?
            }
        }
    };
    let status = registration.status(node.status.clone().unwrap_or_default(), Timestamp::now());
    Ok(copepod_client::patch::status(&api, &node, &status).await?.unwrap_or(node))
}

/// Renews the node's Lease, making it if need be.
pub async fn renew(client: &kube::Client, node: &Node) -> Result<(), kube::Error> {
    let api: Api<Lease> = Api::namespaced(client.clone(), LEASE_NAMESPACE);
    let name = node.metadata.name.clone().unwrap_or_default();
    let now = MicroTime(Timestamp::now());
    let patch = json!({"spec": {"renewTime": now, "holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS}});
    match api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        done => return done.map(drop),
    }
    let owner = OwnerReference {
        api_version: "v1".into(),
        kind: "Node".into(),
        name: name.clone(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    };
    let lease = Lease {
        metadata: ObjectMeta { name: Some(name.clone()), owner_references: Some(vec![owner]), ..ObjectMeta::default() },
        spec: Some(LeaseSpec {
            holder_identity: Some(name),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    api.create(&PostParams::default(), &lease).await.map(drop)
}

/// Renews the Lease and writes the status now and then, until cancelled. A Node that was deleted is made again.
pub async fn heartbeat(client: kube::Client, registration: Registration, mut node: Node, stop: CancellationToken) {
    let mut tick = tokio::time::interval(LEASE_PERIOD);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut written = tokio::time::Instant::now();
    let mut failing = false;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let beat = async {
            renew(&client, &node).await?;
            // After a failure the server may hold another picture of this node (NotReady, or none).
            if failing || written.elapsed() >= STATUS_PERIOD || wants_status(&client, &registration.name).await? {
                node = register(&client, &registration).await?;
                written = tokio::time::Instant::now();
            }
            Ok::<(), kube::Error>(())
        };
        match tokio::time::timeout(LEASE_PERIOD, beat).await {
            Ok(Ok(())) => failing = false,
            Ok(Err(error)) => {
                tracing::debug!("heartbeat failed: {error}");
                failing = true;
            }
            Err(_) => failing = true,
        }
    }
}

/// Whether the status is to be written before its time: the server holds the node for lost, does not know it any more,
/// or has extended resources that pods may not use yet.
async fn wants_status(client: &kube::Client, name: &str) -> Result<bool, kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let Some(node) = api.get_opt(name).await? else { return Ok(true) };
    let status = node.status.unwrap_or_default();
    let ready = status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    Ok(!ready || extended(status.capacity.as_ref()) != extended(status.allocatable.as_ref()))
}

/// The resources that are no machine's own: their names have a domain.
fn extended(resources: Option<&BTreeMap<String, WireQuantity>>) -> BTreeMap<String, WireQuantity> {
    let of_others = |(name, _): &(&String, &WireQuantity)| name.contains('/');
    resources.into_iter().flatten().filter(of_others).map(|(name, q)| (name.clone(), q.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registration() -> Registration {
        Registration {
            name: "n1".into(),
            ips: vec!["192.0.2.1".parse().unwrap()],
            pod_cidr: "10.64.0.0/20".into(),
            machine: Machine { cpus: 4, memory: 8 << 30, disk: 20 << 30, pods: 110, info: NodeSystemInfo::default() },
        }
    }

    #[test]
    fn status_offers_the_machine_and_keeps_transition_times() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let first = registration().status(NodeStatus::default(), at(10));
        let ready =
            |s: &NodeStatus| s.conditions.as_ref().unwrap().iter().find(|c| c.type_ == "Ready").unwrap().clone();
        assert_eq!(ready(&first).status, "True");
        let capacity = first.capacity.clone().unwrap();
        let told = ["cpu", "memory", "ephemeral-storage", "pods"].map(|name| capacity[name].0.as_str());
        assert_eq!(told, ["4", "8Gi", "20Gi", "110"]);
        assert_eq!(first.allocatable.as_ref(), Some(&capacity));
        let mut unknown = registration();
        unknown.machine.disk = 0;
        let unknown = unknown.status(NodeStatus::default(), at(10)).capacity.unwrap();
        assert!(!unknown.contains_key("ephemeral-storage"), "what is not known is not said to be nothing");
        let second = registration().status(first, at(20));
        assert_eq!(ready(&second).last_transition_time, Some(Time(at(10))));
        assert_eq!(ready(&second).last_heartbeat_time, Some(Time(at(20))));
        let mut lost = second;
        for c in lost.conditions.as_mut().unwrap() {
            c.status = "Unknown".into();
        }
        assert_eq!(ready(&registration().status(lost, at(30))).last_transition_time, Some(Time(at(30))));
    }

    #[test]
    fn extended_resources_are_kept_and_offered() {
        let at = |s| Timestamp::from_second(s).unwrap();
        let amount = |n: &str| WireQuantity(n.into());
        let mut told = registration().status(NodeStatus::default(), at(10));
        assert!(extended(told.capacity.as_ref()).is_empty());
        // Whoever knows of it patches the capacity alone.
        told.capacity.get_or_insert_default().insert("example.com/dongle".into(), amount("4"));
        assert_ne!(extended(told.capacity.as_ref()), extended(told.allocatable.as_ref()));
        let after = registration().status(told.clone(), at(20));
        assert_eq!((&after.capacity, &after.allocatable), (&told.capacity, &told.capacity));
        let allocatable = after.allocatable.unwrap_or_default();
        assert_eq!(
            (allocatable.get("example.com/dongle"), allocatable.get("cpu")),
            (Some(&amount("4")), Some(&amount("4")))
        );
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = Machine::read(10, Path::new("/"));
        assert!(machine.cpus > 0 && machine.memory > 0 && machine.disk > 0 && !machine.info.kernel_version.is_empty());
        assert!(machine.info.kubelet_version.starts_with("v1.36.0+copepod."));
    }
}
