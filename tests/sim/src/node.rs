//! A hollow node: an agent that does all that the API sees of one, without running anything.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use copepod_api::names::{FINALIZER_LOCAL_PATH, FINALIZER_VOLUME, LABEL_HOSTNAME};
use copepod_client::{Key, Shared};
use copepod_server::api::Clock;
use http::Request;
use k8s_openapi::api::core::v1::{PersistentVolume, Pod};
use kube::runtime::watcher;
use kube::{Api, Client};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::machine::Machine;

/// How soon an agent tries again what failed.
const RETRY: Duration = Duration::from_secs(1);
/// An agent looks at its own Node once in so many heartbeats.
const LOOK: u32 = 2;

/// What a node is like.
#[derive(Debug, Clone)]
pub struct Shape {
    pub cpu_milli: i64,
    pub memory_mib: i64,
    pub pods: i64,
    pub labels: BTreeMap<String, String>,
    /// How often the Lease is renewed.
    pub heartbeat: Duration,
    /// Whether there may be volumes on it.
    pub has_volumes: bool,
}

/// A pod on this node.
struct Local {
    uid: String,
    running: bool,
    starts: Instant,
    ready: Option<Instant>,
    /// When it ends by itself, and its exit code.
    ends: Option<(Instant, i32)>,
    /// When it will have stopped, once it is asked to.
    stops: Option<Instant>,
    address: String,
}

/// See the module.
pub struct HollowNode {
    name: String,
    shape: Shape,
    client: Client,
    machine: Arc<Machine>,
    random: StdRng,
    local: BTreeMap<Key, Local>,
    pods: Shared<Pod>,
}

impl HollowNode {
    pub fn new(name: &str, shape: Shape, client: Client, machine: Arc<Machine>) -> Self {
        let own = name.bytes().fold(machine.seed, |seed, b| seed.wrapping_mul(31).wrapping_add(b.into()));
        Self {
            name: name.into(),
            shape,
            client,
            machine,
            random: StdRng::seed_from_u64(own),
            local: BTreeMap::new(),
            pods: Shared::default(),
        }
    }

    /// Lives until dropped.
    pub async fn run(mut self) {
        let mut tasks = JoinSet::new();
        let beats = Heartbeats {
            api: Asks(self.client.clone()),
            name: self.name.clone(),
            shape: self.shape.clone(),
            clock: self.machine.clock.clone(),
        };
        // Not all at once.
        sleep(Duration::from_millis(self.random.random_range(0..1000))).await;
        tasks.spawn(beats.run());
        if self.shape.has_volumes {
            tasks.spawn(let_volumes_go(self.client.clone(), self.name.clone()));
        }
        let (changed, mut changes) = mpsc::unbounded_channel::<Key>();
        self.pods.on_change(move |change| {
            change.last().map(|pod| changed.send(Key::of(&**pod)));
        });
        let config = watcher::Config::default().fields(&format!("spec.nodeName={}", self.name));
        let token = CancellationToken::new();
        let _guard = token.clone().drop_guard();
        tasks.spawn(self.pods.clone().run(Api::all(self.client.clone()), config, token));
        let mut due: BTreeMap<Key, Instant> = BTreeMap::new();
        loop {
            let next = due.values().min().copied();
            tokio::select! {
                biased;
                Some(key) = changes.recv() => { due.insert(key, Instant::now()); }
                () = until(next) => {}
            }
            while let Ok(key) = changes.try_recv() {
                due.insert(key, Instant::now());
            }
            let now = Instant::now();
            let keys: Vec<Key> = due.iter().filter(|(_, at)| **at <= now).map(|(key, _)| key.clone()).collect();
            for key in keys {
                due.remove(&key);
                if let Some(again) = self.sync(&key).await {
                    due.insert(key, again);
                }
            }
        }
    }

    fn drop_local(&mut self, key: &Key) {
        if let Some(local) = self.local.remove(key) {
            self.machine.stopped(key, &local.uid);
        }
    }

    /// Does the next thing for a pod; says when to look again.
    async fn sync(&mut self, key: &Key) -> Option<Instant> {
        let Some(pod) = self.pods.get(key) else {
            self.drop_local(key);
            return None;
        };
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        if self.local.get(key).is_some_and(|l| l.uid != uid) {
            self.drop_local(key);
        }
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending");
        let over = ["Succeeded", "Failed"].contains(&phase);
        if over {
            self.drop_local(key);
        }
        if pod.metadata.deletion_timestamp.is_some() {
            return self.end(key, &pod, over).await;
        }
        if over {
            return None;
        }
        let now = Instant::now();
        if !self.local.contains_key(key) {
            let local = self.prepare(&pod, uid, now);
            self.local.insert(key.clone(), local);
        }
        let local = self.local.get_mut(key)?;
        let ended = local.ends.filter(|(at, _)| *at <= now).map(|(_, code)| code);
        if !local.running && local.starts <= now && ended.is_none() {
            local.running = true;
            let owners = pod.metadata.owner_references.iter().flatten();
            let has_identity = owners.clone().any(|o| o.kind == "StatefulSet");
            self.machine.started(&self.name, key, &local.uid, has_identity);
        }
        if ended.is_some() && local.running {
            local.running = false;
            self.machine.stopped(key, &local.uid);
        }
        let ready = local.running && local.ready.is_some_and(|at| at <= now);
        let phase = match ended {
            Some(0) => "Succeeded",
            Some(_) => "Failed",
            None if local.running || phase == "Running" => "Running",
            None => "Pending",
        };
        let address = if local.running { local.address.as_str() } else { "" };
        let next = [Some(local.starts), local.ready, local.ends.map(|(at, _)| at)];
        let next = next.into_iter().flatten().filter(|at| *at > now).min();
        if !shows(&pod, phase, ready, address) {
            let patch = status(&pod, phase, ready, address, ended, (self.machine.clock)());
            if self.write_status(&pod, &patch).await.is_err() {
                return Some(Instant::now() + RETRY);
            }
        }
        next
    }

    /// What will become of a pod that comes.
    fn prepare(&mut self, pod: &Pod, uid: String, now: Instant) -> Local {
        let image = pod.spec.as_ref().and_then(|s| s.containers.first()?.image.clone()).unwrap_or_default();
        let (kind, argument) = image.split_once(':').unwrap_or((&image, ""));
        let mut some = |from: u64, to: u64| Duration::from_millis(self.random.random_range(from..=to));
        let starts = now + some(50, 2000);
        let (ready, lasts) = (starts + some(0, 3000), starts + some(500, 8000));
        let ends_late = starts + some(20_000, 200_000);
        let luck = self.random.random_range(0..100);
        let far = now + Duration::from_secs(1 << 30);
        let (starts, ready, ends) = match kind {
            "long" => (starts, Some(starts), Some((ends_late, 0))),
            "bad" => (far, None, None),
            "unready" => (starts, None, None),
            "crash" => (starts, Some(starts), Some((lasts, 1))),
            "job" => (starts, Some(starts), Some((lasts, i32::from(luck < argument.parse().unwrap_or(0))))),
            _ => (starts, Some(ready), None),
        };
        let (a, b) = (self.random.random_range(0..250), self.random.random_range(1..250));
        let had = pod.status.as_ref().and_then(|s| s.pod_ip.clone());
        let address = had.unwrap_or_else(|| format!("10.64.{a}.{b}"));
        Local { uid, running: false, starts, ready, ends, stops: None, address }
    }

    /// Ends a pod that is to go, and then its object.
    async fn end(&mut self, key: &Key, pod: &Pod, over: bool) -> Option<Instant> {
        if pod.metadata.deletion_grace_period_seconds == Some(0) {
            self.drop_local(key);
            return None;
        }
        let now = Instant::now();
        if let Some(local) = self.local.get_mut(key).filter(|l| l.running) {
            let grace = u64::try_from(pod.metadata.deletion_grace_period_seconds.unwrap_or(0)).unwrap_or(0);
            let takes = self.random.random_range(0..=grace.min(4) * 1000);
            let stops = *local.stops.get_or_insert(now + Duration::from_millis(takes));
            if stops > now {
                return Some(stops);
            }
        }
        self.drop_local(key);
        if !over {
            let patch = status(pod, "Failed", false, "", Some(143), (self.machine.clock)());
            match self.write_status(pod, &patch).await {
                Ok(()) => {}
                Err(kube::Error::Api(e)) if [404, 409].contains(&e.code) => {}
                Err(_) => return Some(now + RETRY),
            }
        }
        let path = format!("/api/v1/namespaces/{}/pods/{}", key.namespace, key.name);
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
            "preconditions": {"uid": pod.metadata.uid}});
        match Asks(self.client.clone()).send("DELETE", &path, "application/json", &options).await {
            Ok(_) => None,
            Err(kube::Error::Api(e)) if e.code == 404 => None,
            Err(_) => Some(now + RETRY),
        }
    }

    async fn write_status(&self, pod: &Pod, patch: &Value) -> Result<(), kube::Error> {
        let key = Key::of(pod);
        let path = format!("/api/v1/namespaces/{}/pods/{}/status", key.namespace, key.name);
        let kind = "application/strategic-merge-patch+json";
        Asks(self.client.clone()).send("PATCH", &path, kind, patch).await.map(drop)
    }
}

/// Takes the directories of this node's volumes away once those are to go.
async fn let_volumes_go(client: Client, node: String) {
    let volumes: Shared<PersistentVolume> = Shared::default();
    let (changed, mut changes) = mpsc::unbounded_channel::<Key>();
    let again = changed.clone();
    volumes.on_change(move |change| {
        change.new.as_ref().map(|volume| changed.send(Key::of(&**volume)));
    });
    let config = watcher::Config::default().labels(&format!("{LABEL_HOSTNAME}={node}"));
    let mut tasks = JoinSet::new();
    tasks.spawn(volumes.clone().run(Api::all(client.clone()), config, CancellationToken::new()));
    while let Some(key) = changes.recv().await {
        let Some(meta) = volumes.get(&key).map(|v| v.metadata.clone()) else { continue };
        let mut finalizers = meta.finalizers.unwrap_or_default();
        let has = |what: &str| finalizers.iter().any(|f| f == what);
        if meta.deletion_timestamp.is_none() || has(FINALIZER_VOLUME) || !has(FINALIZER_LOCAL_PATH) {
            continue;
        }
        finalizers.retain(|f| f != FINALIZER_LOCAL_PATH);
        let patch = json!({"metadata":
            {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": finalizers}});
        let path = format!("/api/v1/persistentvolumes/{}", key.name);
        let kind = "application/merge-patch+json";
        match Asks(client.clone()).send("PATCH", &path, kind, &patch).await {
            Ok(_) => {}
            Err(kube::Error::Api(e)) if e.code == 404 => {}
            Err(_) => {
                sleep(RETRY).await;
                let _ = volumes.get(&key).map(|_| again.send(key));
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Whether the API shows a pod so.
fn shows(pod: &Pod, phase: &str, ready: bool, address: &str) -> bool {
    let Some(status) = &pod.status else { return false };
    let condition = status.conditions.iter().flatten().find(|c| c.type_ == "Ready");
    status.phase.as_deref() == Some(phase)
        && condition.is_some_and(|c| c.status == "True") == ready
        && (address.is_empty() || status.pod_ip.as_deref() == Some(address))
}

fn status(pod: &Pod, phase: &str, ready: bool, address: &str, exit: Option<i32>, now: jiff::Timestamp) -> Value {
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let word = if ready { "True" } else { "False" };
    let state = match exit {
        Some(code) => json!({"terminated": {"exitCode": code, "finishedAt": now}}),
        None if phase == "Running" => json!({"running": {"startedAt": now}}),
        None => json!({"waiting": {"reason": "ContainerCreating"}}),
    };
    let containers = pod.spec.iter().flat_map(|s| &s.containers).map(
        |c| json!({"name": c.name, "image": c.image, "imageID": "", "ready": ready, "restartCount": 0, "state": state}),
    );
    let condition = |kind: &str| json!({"type": kind, "status": word, "lastTransitionTime": now});
    let mut status = json!({
        "phase": phase, "conditions": [condition("Ready"), condition("ContainersReady")],
        "containerStatuses": containers.collect::<Vec<_>>(),
    });
    if pod.status.as_ref().is_none_or(|s| s.start_time.is_none()) {
        status["startTime"] = json!(now);
    }
    if !address.is_empty() {
        status["podIP"] = json!(address);
        status["podIPs"] = json!([{"ip": address}]);
    }
    json!({"metadata": {"uid": pod.metadata.uid}, "status": status})
}

/// Requests in plain JSON.
struct Asks(Client);

impl Asks {
    async fn send(&self, method: &str, path: &str, kind: &str, body: &Value) -> Result<Value, kube::Error> {
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.0.request(request.body(body).map_err(kube::Error::HttpError)?).await
    }
}

/// Keeps a Node's object and its Lease.
struct Heartbeats {
    api: Asks,
    name: String,
    shape: Shape,
    clock: Clock,
}

impl Heartbeats {
    async fn run(self) {
        let mut looked: Option<Instant> = None;
        loop {
            if looked.is_none_or(|at| at.elapsed() >= self.shape.heartbeat * LOOK) {
                looked = self.look().await.is_ok().then(Instant::now);
            }
            let renewed = self.renew().await.is_ok();
            if !renewed {
                looked = None;
            }
            sleep(if renewed && looked.is_some() { self.shape.heartbeat } else { RETRY }).await;
        }
    }

    /// Sees that the Node is there and shown ready.
    async fn look(&self) -> Result<(), kube::Error> {
        let path = format!("/api/v1/nodes/{}", self.name);
        let node = match self.api.send("GET", &path, "application/json", &Value::Null).await {
            Ok(node) => node,
            Err(kube::Error::Api(e)) if e.code == 404 => {
                let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": self.name, "labels": self.shape.labels}});
                self.api.send("POST", "/api/v1/nodes", "application/json", &node).await?
            }
            Err(error) => return Err(error),
        };
        let conditions = node["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True") {
            return Ok(());
        }
        let now = (self.clock)().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let room = json!({"cpu": format!("{}m", self.shape.cpu_milli),
            "memory": format!("{}Mi", self.shape.memory_mib), "pods": self.shape.pods.to_string()});
        let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ok",
            "lastTransitionTime": now, "lastHeartbeatTime": now});
        let status = json!({"status": {"capacity": room, "allocatable": room, "conditions": [ready]}});
        self.api.send("PATCH", &format!("{path}/status"), "application/strategic-merge-patch+json", &status).await?;
        Ok(())
    }

    async fn renew(&self) -> Result<(), kube::Error> {
        let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
        let now = (self.clock)().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let spec = json!({"holderIdentity": self.name, "leaseDurationSeconds": 40, "renewTime": now});
        let path = format!("{leases}/{}", self.name);
        match self.api.send("PATCH", &path, "application/merge-patch+json", &json!({"spec": spec})).await {
            Err(kube::Error::Api(e)) if e.code == 404 => {
                let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": {"name": self.name}, "spec": spec});
                self.api.send("POST", leases, "application/json", &lease).await.map(drop)
            }
            other => other.map(drop),
        }
    }
}
