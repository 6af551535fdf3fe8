//! A control plane in this process whose controllers and API follow the runtime's paused clock, which jumps on whenever
//! all is quiet.
#![allow(dead_code, reason = "each test program uses a part")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::Request;
use axum::middleware::Next;
use copepod_api::names::GROUP_MASTERS;
use copepod_client::in_process;
use copepod_core::scheduler::Profile;
use copepod_server::api::{ApiConfig, ApiState, Clock, router};
use copepod_server::components::Components;
use copepod_server::controllers::{Config, start};
use copepod_server::dialer::{DialError, NodeDialer, NodeStream};
use copepod_server::identity::Identity;
use copepod_store::MemoryStore;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Namespace};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How many ended pods the control plane keeps.
pub const TERMINATED_PODS: usize = 20;

struct NoNodes;

#[async_trait]
impl NodeDialer for NoNodes {
    async fn dial(&self, node: &str) -> Result<Box<dyn NodeStream>, DialError> {
        Err(DialError::NotConnected(node.into()))
    }
}

/// An API server, and controllers that come and go.
pub struct Plane {
    router: axum::Router,
    /// The time.
    pub clock: Clock,
    /// The scheduler's profiles from the next [`Self::run_controllers`] on; none at first, so that pods stay unplaced.
    pub profiles: Vec<Profile>,
    components: Arc<Components>,
    writes: Arc<Mutex<BTreeMap<String, usize>>>,
    controllers: Option<(CancellationToken, JoinSet<()>)>,
}

impl Plane {
    /// A control plane at a time, which runs with the runtime's clock.
    pub async fn start(at: &str) -> Self {
        Self::start_with(at, |_| Arc::new(NoNodes)).await
    }

    /// As [`Self::start`], with nodes that are told the time.
    pub async fn start_with(at: &str, nodes: impl FnOnce(Clock) -> Arc<dyn NodeDialer>) -> Self {
        let (origin, base): (Timestamp, Instant) = (at.parse().unwrap(), Instant::now());
        let clock: Clock = Arc::new(move || origin + jiff::SignedDuration::try_from(base.elapsed()).unwrap());
        let components = Arc::new(Components::default());
        let state = ApiState::new(ApiConfig {
            authorizer: copepod_server::authorization::Trusted::shared(),
            store: Arc::new(MemoryStore::new(Default::default())),
            registry: copepod_core::kinds::builtin(),
            components: components.clone(),
            dialer: nodes(clock.clone()),
            clock: clock.clone(),
            service_cidr: "10.43.0.0/16".parse().unwrap(),
            node_ports: 30000..=32767,
            shutdown: CancellationToken::new(),
        });
        let writes = Arc::<Mutex<BTreeMap<String, usize>>>::default();
        let sink = writes.clone();
        let note = move |request: Request, next: Next| {
            if request.method() != http::Method::GET {
                let what = format!("{} {}", request.method(), request.uri().path());
                *sink.lock().entry(what).or_default() += 1;
            }
            next.run(request)
        };
        let router = router(Arc::new(state)).layer(axum::middleware::from_fn(note));
        let profiles = Vec::new();
        let mut plane = Self { router, clock, profiles, components, writes, controllers: None };
        for name in ["default", "kube-system", "kube-node-lease"] {
            let namespaces: Api<Namespace> = Api::all(plane.client("admin"));
            create(&namespaces, json!({"metadata": {"name": name}})).await;
        }
        plane.run_controllers();
        plane
    }

    pub fn client(&self, user: &str) -> Client {
        in_process(self.router.clone(), Identity::new(user, &[GROUP_MASTERS]), "test")
    }
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client("admin"), "default")
    }

    /// Requests that were to write since the last call, by method and path.
    pub fn writes(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut self.writes.lock())
    }

    pub fn run_controllers(&mut self) {
        let token = CancellationToken::new();
        let config = Config {
            ca_pem: "CA".into(),
            components: self.components.clone(),
            clock: self.clock.clone(),
            seed: 1,
            profiles: self.profiles.clone(),
            terminated_pods: TERMINATED_PODS,
        };
        let (tasks, _) = start(|user| self.client(user), config, token.clone());
        self.controllers = Some((token, tasks));
    }
    pub fn stop_controllers(&mut self) {
        if let Some((token, _)) = self.controllers.take() {
            token.cancel();
        }
    }

    /// Lets time pass until then.
    pub async fn until(&self, at: &str) {
        let left = at.parse::<Timestamp>().unwrap().duration_since((self.clock)());
        tokio::time::sleep(Duration::try_from(left).unwrap()).await;
    }

    /// The reasons of all events.
    pub async fn reasons(&self) -> Vec<String> {
        let events = self.api::<Event>().list(&ListParams::default()).await.unwrap().items;
        events.into_iter().filter_map(|e| e.reason).collect()
    }
}

pub async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: kube::Resource<DynamicType = ()> + DeserializeOwned + serde::Serialize + Clone + std::fmt::Debug,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}
