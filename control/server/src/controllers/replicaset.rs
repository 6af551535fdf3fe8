//! Drives the decision on ReplicaSets and ReplicationControllers.

use copepod_client::{Key, Outcome};
use copepod_core::controllers::replicaset::{self, Kind};
use copepod_core::controllers::replicationcontroller::as_replica_set;
use copepod_core::controllers::{Plan, Target, meta};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::context::{Context, Running, about, add_all};
use super::deployment::pods_of;
use super::executor::{Failure, Verb, explain};
use super::owners::owners_of;

/// Runs the ReplicaSet controller.
pub(super) fn run(context: Context) -> Running {
    let queue = context.queue::<Key>();
    let caches = context.caches.clone();
    let q = queue.clone();
    caches.replica_sets.on_change(move |change| add_all(&q, change.last().map(|s| Key::of(&**s))));
    let (q, c) = (queue.clone(), caches.clone());
    caches.pods.on_change(move |change| {
        for pod in change.both() {
            let selector = |s: &ReplicaSet| s.spec.as_ref().map(|s| s.selector.clone());
            add_all(&q, owners_of(&pod.metadata, "ReplicaSet", &c.replica_sets, selector));
        }
    });
    context.work(queue, |context, key| async move {
        match context.caches.replica_sets.get(&key) {
            Some(set) => reconcile(&context, &key, Kind::ReplicaSet, &set).await,
            None => Outcome::Done,
        }
    })
}

/// Runs the ReplicationController controller.
pub(super) fn run_controllers(context: Context) -> Running {
    let queue = context.queue::<Key>();
    let caches = context.caches.clone();
    let q = queue.clone();
    caches.replication_controllers.on_change(move |change| add_all(&q, change.last().map(|s| Key::of(&**s))));
    let (q, c) = (queue.clone(), caches.clone());
    caches.pods.on_change(move |change| {
        for pod in change.both() {
            let owners = owners_of(&pod.metadata, "ReplicationController", &c.replication_controllers, |rc| {
                let match_labels = rc.spec.as_ref()?.selector.clone();
                Some(LabelSelector { match_labels, match_expressions: None })
            });
            add_all(&q, owners);
        }
    });
    context.work(queue, |context, key| async move {
        match context.caches.replication_controllers.get(&key) {
            Some(rc) => reconcile(&context, &key, Kind::ReplicationController, &as_replica_set(&rc)).await,
            None => Outcome::Done,
        }
    })
}

async fn reconcile(context: &Context, key: &Key, kind: Kind, set: &ReplicaSet) -> Outcome {
    let caches = &context.caches;
    let mut pods = caches.pods.claimable(&key.namespace, kind.name(), &key.name);
    // Where pods crowd, those of all sets of one Deployment count.
    let deployment = meta::controller_of(&set.metadata).filter(|_| kind == Kind::ReplicaSet);
    let siblings = deployment.map(|d| caches.replica_sets.controlled(&key.namespace, &d.kind, &d.name));
    let siblings = siblings.unwrap_or_default();
    let others = siblings.iter().filter(|sibling| sibling.metadata.name != set.metadata.name);
    pods.extend(others.flat_map(|sibling| pods_of(caches, sibling)));
    let plan = replicaset::reconcile(kind, set, &pods, &siblings, context.now());
    let path = Target::new(kind.gvr(), &key.namespace, &key.name).path();
    let subject = about(kind.api_version(), kind.name(), &set.metadata);
    let (writes, outcome, failure) = context.apply(&plan, &subject, &path).await;
    context.tell_pods(&subject, &writes, failure.as_ref());
    if let Some(Failure::Refused(refusal)) = failure
        && refusal.told().is_some()
    {
        // The status that was written just now.
        let fresh = match kind {
            Kind::ReplicaSet => caches.replica_sets.get(key).map(|s| (*s).clone()),
            Kind::ReplicationController => caches.replication_controllers.get(key).map(|rc| as_replica_set(&rc)),
        };
        let fresh = fresh.filter(|fresh| fresh.metadata.uid == set.metadata.uid);
        let creating = refusal.verb == Verb::Create;
        let status =
            replicaset::failed(kind, fresh.as_ref().unwrap_or(set), creating, &explain(&refusal.error), context.now());
        if status.is_some() {
            let plan = Plan { status, ..Plan::default() };
            context.apply(&plan, &subject, &path).await;
        }
    }
    outcome
}
