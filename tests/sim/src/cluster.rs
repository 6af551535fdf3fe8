//! A whole cluster in one thread: store, API server, controllers, scheduler and hollow nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use copepod_api::names::{GROUP_MASTERS, LABEL_HOSTNAME};
use copepod_client::in_process;
use copepod_core::scheduler::Profile;
use copepod_server::api::{ApiConfig, ApiState, Clock, router};
use copepod_server::authorization::Trusted;
use copepod_server::components::Components;
use copepod_server::controllers::{Config, start};
use copepod_server::identity::Identity;
use copepod_store::{MemoryStore, Store};
use http::Request;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::machine::Machine;
use crate::node::{HollowNode, Shape};
use crate::wire::{End, Link, Wire};
use crate::world::{World, text, uid};

/// What runs of the control plane; dropped, it is as if killed.
struct Plane {
    token: CancellationToken,
    _tasks: JoinSet<()>,
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

/// A node: its machine, and while it runs its agent.
pub struct Node {
    pub shape: Shape,
    pub link: Arc<Link>,
    pub agent: Option<JoinSet<()>>,
}

/// See the module.
pub struct Cluster {
    pub seed: u64,
    pub wire: Arc<Wire>,
    pub world: Arc<Mutex<World>>,
    pub machine: Arc<Machine>,
    pub nodes: BTreeMap<String, Node>,
    store: Arc<MemoryStore>,
    clock: Clock,
    plane: Option<Plane>,
    starts: u64,
    _observer: JoinSet<()>,
}

impl Cluster {
    /// A control plane without nodes. The runtime's clock must be paused.
    pub async fn start(seed: u64) -> Self {
        let base = Instant::now();
        let epoch: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let clock: Clock = Arc::new(move || epoch + base.elapsed());
        let options = copepod_store::Options { watch_buffer: 1 << 20, ..Default::default() };
        let wire = Wire::new(seed);
        let world = Arc::new(Mutex::new(World::new(wire.clone(), clock.clone())));
        let mut cluster = Self {
            machine: Arc::new(Machine::new(seed, world.clone(), clock.clone())),
            seed,
            wire,
            world,
            nodes: BTreeMap::new(),
            store: Arc::new(MemoryStore::new(options)),
            clock,
            plane: None,
            starts: 0,
            _observer: JoinSet::new(),
        };
        cluster.start_plane();
        for name in ["default", "kube-system", "kube-node-lease"] {
            let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
            let made = cluster.send("POST", "/api/v1/namespaces", &namespace).await;
            assert_eq!(made.0, 201, "{}", made.1);
            if cluster._observer.is_empty() {
                let mut events = cluster.store.watch("/", cluster.store.current_revision()).unwrap();
                let world = cluster.world.clone();
                cluster._observer.spawn(async move {
                    while let Ok(event) = events.next().await {
                        world.lock().saw(&event);
                    }
                });
            }
        }
        cluster
    }

    /// Starts API server, controllers and scheduler, on what is stored.
    pub fn start_plane(&mut self) {
        self.starts += 1;
        let token = CancellationToken::new();
        let components = Arc::new(Components::default());
        let state = ApiState::new(ApiConfig {
            authorizer: Trusted::shared(),
            store: self.store.clone(),
            registry: copepod_core::kinds::builtin(),
            components: components.clone(),
            dialer: self.machine.clone(),
            clock: self.clock.clone(),
            service_cidr: "10.43.0.0/16".parse().unwrap(),
            node_ports: 30000..=32767,
            shutdown: token.clone(),
        });
        self.wire.connect(Some(router(Arc::new(state))));
        let end = End { wire: self.wire.clone(), link: Arc::default() };
        let clients = move |user: &str| in_process(end.clone(), Identity::new(user, &[GROUP_MASTERS]), "sim");
        let config = Config {
            ca_pem: "THE CA".into(),
            components,
            clock: self.clock.clone(),
            seed: self.seed ^ self.starts,
            profiles: vec![Profile::default()],
            terminated_pods: 12_500,
        };
        let (tasks, _) = start(clients, config, token.clone());
        self.plane = Some(Plane { token, _tasks: tasks });
    }

    /// Kills API server, controllers and scheduler in whatever they are doing.
    pub fn stop_plane(&mut self) {
        self.wire.connect(None);
        self.plane = None;
    }

    /// Adds a node and starts its agent.
    pub fn add_node(&mut self, name: &str, mut shape: Shape) {
        shape.labels.insert(LABEL_HOSTNAME.into(), name.into());
        self.nodes.insert(name.into(), Node { shape, link: Arc::default(), agent: None });
        self.start_node(name);
    }

    /// Starts a node's agent, unless it runs.
    pub fn start_node(&mut self, name: &str) {
        let node = self.nodes.get_mut(name).unwrap();
        if node.agent.is_some() {
            return;
        }
        let end = End { wire: self.wire.clone(), link: node.link.clone() };
        let identity = Identity::new(format!("system:node:{name}"), &[GROUP_MASTERS]);
        let client = in_process(end, identity, "sim-node");
        let agent = HollowNode::new(name, node.shape.clone(), client, self.machine.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(agent.run());
        node.agent = Some(tasks);
        self.find(name);
    }

    /// Whether a node can be reached is as it is.
    fn find(&self, name: &str) {
        let node = &self.nodes[name];
        self.machine.set_reachable(name, node.agent.is_some() && !node.link.is_cut());
    }

    /// Cuts a node's power: its pods are gone at once.
    pub fn kill_node(&mut self, name: &str) {
        self.nodes.get_mut(name).unwrap().agent = None;
        self.machine.all_stopped(name);
        self.find(name);
    }

    /// Cuts a node off, or lets it back.
    pub fn cut_node(&mut self, name: &str, cut: bool) {
        self.nodes[name].link.set_cut(cut);
        self.find(name);
    }

    /// Asks the API server as an administrator who suffers no faults; waits while there is none.
    pub async fn send(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let router = loop {
            match self.wire.router() {
                Some(router) => break router,
                None => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        };
        let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let mut request = Request::builder().method(method).uri(path).header("content-type", kind);
        request = request.extension(Identity::new("admin", &[GROUP_MASTERS]));
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let response = router.oneshot(request.body(body).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        (code, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// The same, for what must not fail.
    #[track_caller]
    pub fn must<'a>(&'a self, method: &'a str, path: &'a str, body: &'a Value) -> impl Future<Output = Value> + 'a {
        let place = std::panic::Location::caller();
        async move {
            let (code, answer) = self.send(method, path, body).await;
            assert!((200..300).contains(&code), "{place}: {method} {path}: {code}: {answer}");
            answer
        }
    }

    /// Lets the cluster live for some seconds; fails if a promise was broken.
    pub async fn live(&self, seconds: u64) {
        for _ in 0..seconds {
            tokio::time::sleep(Duration::from_secs(1)).await;
            self.check();
        }
    }

    /// Fails if a promise was broken.
    pub fn check(&self) {
        let world = self.world.lock();
        assert!(world.violations.is_empty(), "seed {}: {}", self.seed, world.violations.join("\n"));
    }

    /// Waits until all is as asked for; fails if that takes more than so many seconds.
    pub async fn converge(&self, seconds: u64) {
        let mut seen = None;
        for second in 0..seconds {
            // To look at everything takes longer than to live on.
            let version = self.world.lock().version;
            let changed = seen.replace(version) != Some(version);
            if (changed || second % 10 == 0) && self.unfinished().is_empty() {
                return;
            }
            self.live(1).await;
        }
        panic!("seed {}: after {seconds} s still: {}", self.seed, self.unfinished().join("\n"));
    }

    /// What is not as asked for, in the API or on the nodes.
    fn unfinished(&self) -> Vec<String> {
        let running = self.machine.running();
        let world = self.world.lock();
        let mut left = world.unfinished();
        let shown = world.pods().filter(|p| text(p, "/status/phase") == "Running");
        let mut shown: Vec<String> = shown.map(|p| uid(p).to_string()).collect();
        let mut running: Vec<String> = running.into_iter().map(|(_, uid)| uid).collect();
        shown.sort();
        running.sort();
        if shown != running {
            left.push(format!("{running:?} run, {shown:?} are shown to"));
        }
        left
    }

    /// Fails if anything is written for so many seconds but heartbeats, and why claims wait, which is said now and then.
    pub async fn quiet(&self, seconds: u64) {
        self.world.lock().commits.clear();
        self.live(seconds).await;
        let world = self.world.lock();
        let is_claims = |key: &str| {
            let event = key.strip_prefix("/core/events/default/");
            let claim = event.and_then(|event| event.split_once('.')).map(|(name, _)| name);
            claim.and_then(|name| world.objects.get(&format!("/core/persistentvolumeclaims/default/{name}")))
        };
        let expected = |key: &str, times: u64| {
            let waits = is_claims(key).is_some_and(|claim| text(claim, "/status/phase") == "Pending");
            key.starts_with("/coordination.k8s.io/") || (waits && times == 1)
        };
        let written: Vec<_> = world.commits.iter().filter(|(key, times)| !expected(key, **times)).collect();
        assert!(written.is_empty(), "seed {}: written without need in {seconds} s: {written:?}", self.seed);
    }
}
