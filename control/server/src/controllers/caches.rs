//! The shared reflectors: one per kind.

use std::time::Duration;

use copepod_api::Gvr;
use copepod_client::Shared;
use copepod_core::controllers::service_account::ROOT_CA;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, ResourceQuota, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::runtime::watcher::Config;
use parking_lot::RwLock;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Where nodes keep the Leases that are their heartbeats.
pub(super) const NODE_LEASES: &str = "kube-node-lease";
/// How long a writer waits at most to see its own write: a cut watch may skip it.
const CATCH_UP: Duration = Duration::from_secs(5);

/// What the controllers read.
#[derive(Default)]
pub(super) struct Caches {
    pub deployments: Shared<Deployment>,
    pub replica_sets: Shared<ReplicaSet>,
    pub pods: Shared<Pod>,
    pub services: Shared<Service>,
    pub slices: Shared<EndpointSlice>,
    pub endpoints: Shared<Endpoints>,
    pub nodes: Shared<Node>,
    /// Of [`NODE_LEASES`] only.
    pub leases: Shared<Lease>,
    pub namespaces: Shared<Namespace>,
    pub accounts: Shared<ServiceAccount>,
    /// Those with the cluster's CA only.
    pub root_cas: Shared<ConfigMap>,
    pub quotas: Shared<ResourceQuota>,
    /// Deletions of all resources, as the garbage collector sees them.
    pub gone: Gone,
}

type GoneHandler = Box<dyn Fn(&Gvr, &ObjectMeta) + Send + Sync>;

/// Who is told that an object of some resource is gone.
#[derive(Default)]
pub(super) struct Gone(RwLock<Vec<GoneHandler>>);

impl Gone {
    /// Calls `handler` for every deletion from now on. It must not block.
    pub fn on(&self, handler: impl Fn(&Gvr, &ObjectMeta) + Send + Sync + 'static) {
        self.0.write().push(Box::new(handler));
    }
    /// Tells of a deletion.
    pub fn tell(&self, gvr: &Gvr, meta: &ObjectMeta) {
        self.0.read().iter().for_each(|handler| handler(gvr, meta));
    }
}

impl Caches {
    /// Starts the watches.
    pub fn spawn(&self, client: &kube::Client, token: &CancellationToken, tasks: &mut JoinSet<()>) {
        let all = Config::default;
        tasks.spawn(self.deployments.clone().run(Api::all(client.clone()), all(), token.clone()));
        tasks.spawn(self.replica_sets.clone().run(Api::all(client.clone()), all(), token.clone()));
        tasks.spawn(self.pods.clone().run(Api::all(client.clone()), all(), token.clone()));
        tasks.spawn(self.services.clone().run(Api::all(client.clone()), all(), token.clone()));
        tasks.spawn(self.slices.clone().run(Api::all(client.clone()), all(), token.clone()));
        tasks.spawn(self.endpoints.clone().run(Api::all(client.clone()), all(), token.clone()));
        tasks.spawn(self.nodes.clone().run(Api::all(client.clone()), all(), token.clone()));
        let leases = Api::namespaced(client.clone(), NODE_LEASES);
        tasks.spawn(self.leases.clone().run(leases, all(), token.clone()));
        tasks.spawn(self.namespaces.clone().run(Api::all(client.clone()), all(), token.clone()));
        tasks.spawn(self.accounts.clone().run(Api::all(client.clone()), all(), token.clone()));
        tasks.spawn(self.quotas.clone().run(Api::all(client.clone()), all(), token.clone()));
        let named = all().fields(&format!("metadata.name={ROOT_CA}"));
        tasks.spawn(self.root_cas.clone().run(Api::all(client.clone()), named, token.clone()));
    }

    /// Waits for all first lists.
    pub async fn ready(&self) {
        self.deployments.ready().await;
        self.replica_sets.ready().await;
        self.pods.ready().await;
        self.services.ready().await;
        self.slices.ready().await;
        self.endpoints.ready().await;
        self.nodes.ready().await;
        self.leases.ready().await;
        self.namespaces.ready().await;
        self.accounts.ready().await;
        self.quotas.ready().await;
        self.root_cas.ready().await;
    }

    /// Waits until a write to `resource` at `revision` is seen; at once for resources that are not cached.
    pub async fn caught_up(&self, resource: &str, revision: u64) {
        match resource {
            "deployments" => self.deployments.caught_up(revision, CATCH_UP).await,
            "replicasets" => self.replica_sets.caught_up(revision, CATCH_UP).await,
            "pods" => self.pods.caught_up(revision, CATCH_UP).await,
            "endpointslices" => self.slices.caught_up(revision, CATCH_UP).await,
            "endpoints" => self.endpoints.caught_up(revision, CATCH_UP).await,
            "nodes" => self.nodes.caught_up(revision, CATCH_UP).await,
            "namespaces" => self.namespaces.caught_up(revision, CATCH_UP).await,
            "serviceaccounts" => self.accounts.caught_up(revision, CATCH_UP).await,
            "resourcequotas" => self.quotas.caught_up(revision, CATCH_UP).await,
            _ => true,
        };
    }
}

/// The address of the controller of an object, if its kind is `kind`.
pub(super) fn owner_key<K>(object: &K, kind: &str) -> Option<copepod_client::Key>
where
    K: kube::Resource<Scope = NamespaceResourceScope>,
{
    let meta = object.meta();
    let owner = copepod_core::controllers::meta::controller_of(meta).filter(|o| o.kind == kind)?;
    Some(copepod_client::Key::new(meta.namespace.clone().unwrap_or_default(), &owner.name))
}
