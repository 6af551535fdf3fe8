//! Drives the PodDisruptionBudget decision.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use copepod_client::{Change, Key, Outcome, WorkQueue};
use copepod_core::controllers::disruption::{self, Scale};
use copepod_core::controllers::{Target, meta};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::caches::Caches;
use super::context::{Context, Running, about, add_all};
use super::discovery::Discovery;

/// Controllers of other kinds whose scale is read for one budget; of more, those with the greatest UIDs count as unknown.
const MAX_OTHERS: usize = 16;

/// Runs the controller.
pub(super) fn run(context: Context, discovery: Discovery) -> Running {
    let queue = context.queue::<Key>();
    let caches = context.caches.clone();
    let q = queue.clone();
    caches.budgets.on_change(move |change| add_all(&q, change.last().map(|b| Key::of(&**b))));
    let (q, c) = (queue.clone(), caches.clone());
    caches.pods.on_change(move |change| change.both().for_each(|pod| add_all(&q, c.budgets_of(pod))));
    // A scale may change without a change of its pods, and be seen after them.
    let (q, c) = (queue.clone(), caches.clone());
    caches.deployments.on_change(move |change| {
        let Some(meta) = rescaled(change, |d| d.spec.as_ref()?.replicas) else { return };
        let (namespace, name) = (meta::text(&meta.namespace), meta::text(&meta.name));
        for set in c.replica_sets.controlled(namespace, "Deployment", name) {
            add_guards(&q, &c, "ReplicaSet", &set.metadata);
        }
    });
    let (q, c) = (queue.clone(), caches.clone());
    caches.replica_sets.on_change(move |change| {
        let meta = rescaled(change, |s| s.spec.as_ref()?.replicas);
        meta.into_iter().for_each(|meta| add_guards(&q, &c, "ReplicaSet", meta));
    });
    let (q, c) = (queue.clone(), caches.clone());
    caches.stateful_sets.on_change(move |change| {
        let meta = rescaled(change, |s| s.spec.as_ref()?.replicas);
        meta.into_iter().for_each(|meta| add_guards(&q, &c, "StatefulSet", meta));
    });
    let (q, c) = (queue.clone(), caches.clone());
    caches.replication_controllers.on_change(move |change| {
        let meta = rescaled(change, |s| s.spec.as_ref()?.replicas);
        meta.into_iter().for_each(|meta| add_guards(&q, &c, "ReplicationController", meta));
    });
    context.work(queue, move |context, key| {
        let discovery = discovery.clone();
        async move { reconcile(&context, &discovery, &key).await }
    })
}

/// The metadata of what scales pods, if its change may concern budgets: it comes, goes, or is to have another number.
fn rescaled<K>(change: &Change<K>, replicas: impl Fn(&K) -> Option<i32>) -> Option<&ObjectMeta>
where
    K: kube::Resource,
{
    let of = |object: &Arc<K>| {
        let controller = meta::controller_of(object.meta()).map(|owner| owner.uid.clone());
        (object.meta().uid.clone(), replicas(object), controller)
    };
    let same = change.old.as_ref().map(of) == change.new.as_ref().map(of);
    change.last().filter(|_| !same).map(|object| object.meta())
}

/// Queues the budgets that guard the pods of a controller.
fn add_guards(queue: &WorkQueue<Key>, caches: &Caches, kind: &str, controller: &ObjectMeta) {
    let (namespace, name) = (meta::text(&controller.namespace), meta::text(&controller.name));
    if !caches.budgets.any_in(namespace) {
        return;
    }
    for pod in caches.pods.controlled(namespace, kind, name) {
        add_all(queue, caches.budgets_of(&pod));
    }
}

async fn reconcile(context: &Context, discovery: &Discovery, key: &Key) -> Outcome {
    let caches = &context.caches;
    let Some(budget) = caches.budgets.get(key) else { return Outcome::Done };
    let pods = caches.pods_guarded(&budget);
    let others = match others(context, discovery, &key.namespace, &pods).await {
        Ok(others) => others,
        Err(error) => {
            tracing::warn!(budget = key.name, %error, "the scale of a controller cannot be read");
            return Outcome::Retry;
        }
    };
    let scale = |owner: &OwnerReference| match known(owner) {
        true => scale_of(caches, &key.namespace, owner),
        false => others.get(&owner.uid).cloned(),
    };
    let plan = disruption::reconcile(&budget, &pods, scale, context.now());
    let path = Target::new(meta::v1("policy", "poddisruptionbudgets"), &key.namespace, &key.name).path();
    context.apply(&plan, &about("policy/v1", "PodDisruptionBudget", &budget.metadata), &path).await.1
}

/// Whether a controller is of a kind that is watched here.
fn known(owner: &OwnerReference) -> bool {
    matches!(
        (owner.api_version.as_str(), owner.kind.as_str()),
        ("apps/v1", "ReplicaSet" | "StatefulSet") | ("v1", "ReplicationController")
    )
}

/// By UID, the scales of the pods' controllers of other kinds that have one.
async fn others(
    context: &Context,
    discovery: &Discovery,
    namespace: &str,
    pods: &[Arc<Pod>],
) -> Result<HashMap<String, Scale>, kube::Error> {
    let owners = pods.iter().filter_map(|p| meta::controller_of(&p.metadata)).filter(|owner| !known(owner));
    let owners: BTreeMap<&str, &OwnerReference> = owners.map(|owner| (owner.uid.as_str(), owner)).collect();
    let mut scales = HashMap::new();
    for owner in owners.into_values().take(MAX_OTHERS) {
        let Some(served) = discovery.find(&owner.api_version, &owner.kind).filter(|s| s.namespaced) else { continue };
        match context.executor.scale(served.gvr(), namespace, &owner.name).await {
            Ok(found) if found.metadata.uid.as_deref() == Some(&owner.uid) => {
                let replicas = found.spec.and_then(|s| s.replicas).unwrap_or(0);
                scales.insert(owner.uid.clone(), Scale { uid: owner.uid.clone(), replicas });
            }
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(scales)
}

/// What scales the controller of a pod: a Deployment above its ReplicaSet.
fn scale_of(caches: &Caches, namespace: &str, owner: &OwnerReference) -> Option<Scale> {
    let key = Key::new(namespace, &owner.name);
    let of = |uid: &Option<String>, replicas: Option<i32>| Scale {
        uid: meta::text(uid).into(),
        replicas: replicas.unwrap_or(1),
    };
    match owner.kind.as_str() {
        "ReplicaSet" => {
            let set = caches.replica_sets.get(&key).filter(|s| s.metadata.uid.as_deref() == Some(&owner.uid))?;
            let deployment = meta::controller_of(&set.metadata)
                .filter(|above| above.kind == "Deployment")
                .and_then(|above| caches.deployments.get(&Key::new(namespace, &above.name)));
            Some(match deployment {
                Some(d) => of(&d.metadata.uid, d.spec.as_ref().and_then(|s| s.replicas)),
                None => of(&set.metadata.uid, set.spec.as_ref().and_then(|s| s.replicas)),
            })
        }
        "StatefulSet" => {
            let set = caches.stateful_sets.get(&key).filter(|s| s.metadata.uid.as_deref() == Some(&owner.uid))?;
            Some(of(&set.metadata.uid, set.spec.as_ref().and_then(|s| s.replicas)))
        }
        "ReplicationController" => {
            let found = caches.replication_controllers.get(&key);
            let found = found.filter(|c| c.metadata.uid.as_deref() == Some(&owner.uid))?;
            Some(of(&found.metadata.uid, found.spec.as_ref().and_then(|s| s.replicas)))
        }
        _ => None,
    }
}
