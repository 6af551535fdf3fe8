//! The shared reflectors: one per kind.

use std::pin::pin;
use std::time::Duration;

use copepod_api::Gvr;
use copepod_client::Shared;
use copepod_core::controllers::Target;
use copepod_core::controllers::service_account::ROOT_CA;
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
use k8s_openapi::{NamespaceResourceScope, Resource};
use kube::Api;
use kube::runtime::watcher::Config;
use parking_lot::RwLock;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::terms;

/// Where nodes keep the Leases that are their heartbeats.
pub(super) const NODE_LEASES: &str = "kube-node-lease";
/// A watch that takes longer to show a write is told of, each time anew.
const SLOW: Duration = Duration::from_secs(5);

/// Declares [`Caches`]: a line per kind. Objects of some kinds are found by terms; of some only a part is watched, and
/// which is said too.
macro_rules! caches {
    (
        whole { $($whole:ident: $kind:ty $(, $terms:expr)?;)* }
        part { $($(#[$doc:meta])* $part:ident: $part_kind:ty, $which:expr, $covers:expr;)* }
    ) => {
        /// What the controllers read.
        pub(super) struct Caches {
            $(pub $whole: Shared<$kind>,)*
            $($(#[$doc])* pub $part: Shared<$part_kind>,)*
            /// Deletions of all resources, as the garbage collector sees them.
            pub gone: Gone,
        }

        impl Default for Caches {
            fn default() -> Self {
                Self {
                    $($whole: caches!(@new $($terms)?),)*
                    $($part: Shared::default(),)*
                    gone: Gone::default(),
                }
            }
        }

        impl Caches {
            /// Starts the watches.
            pub fn spawn(&self, client: &kube::Client, token: &CancellationToken, tasks: &mut JoinSet<()>) {
                $(tasks.spawn(self.$whole.clone().run(Api::all(client.clone()), Config::default(), token.clone()));)*
                $(
                    let (api, config) = $which(client.clone());
                    tasks.spawn(self.$part.clone().run(api, config, token.clone()));
                )*
            }

            /// Waits for all first lists.
            pub async fn ready(&self) {
                $(self.$whole.ready().await;)*
                $(self.$part.ready().await;)*
            }

            /// Shows the visitor every cache that holds all objects of its kind.
            pub fn visit(&self, visitor: &mut impl Visitor) {
                $(visitor.cache(&self.$whole);)*
            }

            /// Waits until what was written is seen, however long a watch takes: who acts on what was there before does
            /// the same again. `written` is addresses and revisions; what no cache holds is not waited for.
            pub async fn caught_up(&self, written: &[(Target, u64)]) {
                $(see(&self.$whole, written, |_| true).await;)*
                $(see(&self.$part, written, $covers).await;)*
            }
        }
    };
    (@new) => { Shared::default() };
    (@new $terms:expr) => { Shared::indexed($terms) };
}

caches! {
    whole {
        deployments: Deployment;
        replica_sets: ReplicaSet;
        replication_controllers: ReplicationController;
        stateful_sets: StatefulSet, terms::SETS;
        daemon_sets: DaemonSet;
        revisions: ControllerRevision;
        claims: PersistentVolumeClaim, terms::CLAIMS;
        pods: Pod, terms::PODS;
        services: Service, terms::SERVICES;
        slices: EndpointSlice, terms::SLICES;
        endpoints: Endpoints;
        nodes: Node;
        namespaces: Namespace;
        accounts: ServiceAccount;
        quotas: ResourceQuota;
        budgets: PodDisruptionBudget, terms::BUDGETS;
        volumes: PersistentVolume;
        storage_classes: StorageClass;
        csi_nodes: CSINode;
        jobs: Job;
        cron_jobs: CronJob;
        autoscalers: HorizontalPodAutoscaler;
    }
    part {
        /// Of [`NODE_LEASES`] only.
        leases: Lease, |client| (Api::namespaced(client, NODE_LEASES), Config::default()), |lease| lease.namespace == NODE_LEASES;
        /// Those with the cluster's CA only.
        root_cas: ConfigMap, |client| (Api::all(client), Config::default().fields(&format!("metadata.name={ROOT_CA}"))), |map| map.name == ROOT_CA;
    }
}

/// Who looks at caches of all kinds.
pub(super) trait Visitor {
    /// Takes a look at one.
    fn cache<K>(&mut self, cache: &Shared<K>)
    where
        K: Resource + kube::Resource + Clone + std::fmt::Debug + Send + Sync + 'static;
}

/// The resource of a kind.
pub(super) fn gvr_of<K: Resource>() -> Gvr {
    Gvr { group: K::GROUP.into(), version: K::VERSION.into(), resource: K::URL_PATH_SEGMENT.into() }
}

/// Waits until a cache shows those of the written objects that it covers.
async fn see<K>(cache: &Shared<K>, written: &[(Target, u64)], covers: impl Fn(&Target) -> bool)
where
    K: Resource + kube::Resource + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    let of_kind = |t: &Target| t.gvr.resource == K::URL_PATH_SEGMENT && t.gvr.group == K::GROUP;
    let newest = written.iter().filter(|(target, _)| of_kind(target) && covers(target)).map(|(_, revision)| *revision);
    let Some(newest) = newest.max() else { return };
    let mut seen = pin!(cache.caught_up(newest));
    while tokio::time::timeout(SLOW, seen.as_mut()).await.is_err() {
        tracing::warn!(resource = K::URL_PATH_SEGMENT, revision = newest, "a watch lags: waiting for what was written");
    }
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
