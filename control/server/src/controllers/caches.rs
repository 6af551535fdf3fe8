//! The shared reflectors: one per kind.

use std::time::Duration;

use copepod_api::Gvr;
use copepod_client::Shared;
use copepod_core::controllers::service_account::ROOT_CA;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Namespace, Node, Pod, ResourceQuota, Service, ServiceAccount};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, ReplicationController};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::{CSINode, StorageClass};
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

/// Declares [`Caches`]: a line per kind, with its plural name and which of its objects are watched.
macro_rules! caches {
    ($($(#[$doc:meta])* $field:ident: $kind:ty, $resource:literal, $which:expr;)*) => {
        /// What the controllers read.
        #[derive(Default)]
        pub(super) struct Caches {
            $($(#[$doc])* pub $field: Shared<$kind>,)*
            /// Deletions of all resources, as the garbage collector sees them.
            pub gone: Gone,
        }

        impl Caches {
            /// Starts the watches.
            pub fn spawn(&self, client: &kube::Client, token: &CancellationToken, tasks: &mut JoinSet<()>) {
                $(
                    let (api, config) = $which(client.clone());
                    tasks.spawn(self.$field.clone().run(api, config, token.clone()));
                )*
            }

            /// Waits for all first lists.
            pub async fn ready(&self) {
                $(self.$field.ready().await;)*
            }

            /// Waits until a write to `resource` at `revision` is seen; at once for resources that are not cached.
            pub async fn caught_up(&self, resource: &str, revision: u64) {
                match resource {
                    $($resource => self.$field.caught_up(revision, CATCH_UP).await,)*
                    _ => true,
                };
            }
        }
    };
}

caches! {
    deployments: Deployment, "deployments", all;
    replica_sets: ReplicaSet, "replicasets", all;
    replication_controllers: ReplicationController, "replicationcontrollers", all;
    stateful_sets: StatefulSet, "statefulsets", all;
    daemon_sets: DaemonSet, "daemonsets", all;
    revisions: ControllerRevision, "controllerrevisions", all;
    claims: PersistentVolumeClaim, "persistentvolumeclaims", all;
    pods: Pod, "pods", all;
    services: Service, "services", all;
    slices: EndpointSlice, "endpointslices", all;
    endpoints: Endpoints, "endpoints", all;
    nodes: Node, "nodes", all;
    /// Of [`NODE_LEASES`] only.
    leases: Lease, "leases", |client| (Api::namespaced(client, NODE_LEASES), Config::default());
    namespaces: Namespace, "namespaces", all;
    accounts: ServiceAccount, "serviceaccounts", all;
    /// Those with the cluster's CA only.
    root_cas: ConfigMap, "configmaps", |client| (Api::all(client), Config::default().fields(&format!("metadata.name={ROOT_CA}")));
    quotas: ResourceQuota, "resourcequotas", all;
    budgets: PodDisruptionBudget, "poddisruptionbudgets", all;
    volumes: PersistentVolume, "persistentvolumes", all;
    storage_classes: StorageClass, "storageclasses", all;
    csi_nodes: CSINode, "csinodes", all;
    jobs: Job, "jobs", all;
    cron_jobs: CronJob, "cronjobs", all;
    autoscalers: HorizontalPodAutoscaler, "horizontalpodautoscalers", all;
}

/// All objects of a kind.
fn all<K: kube::Resource<DynamicType = ()>>(client: kube::Client) -> (Api<K>, Config) {
    (Api::all(client), Config::default())
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

/// The address of the controller of an object, if its kind is `kind`.
pub(super) fn owner_key<K>(object: &K, kind: &str) -> Option<copepod_client::Key>
where
    K: kube::Resource<Scope = NamespaceResourceScope>,
{
    let meta = object.meta();
    let owner = copepod_core::controllers::meta::controller_of(meta).filter(|o| o.kind == kind)?;
    Some(copepod_client::Key::new(meta.namespace.clone().unwrap_or_default(), &owner.name))
}
