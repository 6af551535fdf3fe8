//! Drives the Deployment decision.

use std::sync::Arc;

use copepod_client::events::Severity;
use copepod_client::{Key, Outcome};
use copepod_core::controllers::{Plan, Target, deployment, meta};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ObjectReference, Pod};

use super::caches::{Caches, owner_key};
use super::context::{Context, Running, about, add_all};
use super::executor::{Failure, Refusal, Verb, explain, namespace_going};
use super::owners::{decide_with_names, owners_of};

/// Runs the controller.
pub(super) fn run(context: Context) -> Running {
    let queue = context.queue::<Key>();
    let caches = context.caches.clone();
    let q = queue.clone();
    caches.deployments.on_change(move |change| add_all(&q, change.last().map(|d| Key::of(&**d))));
    let (q, c) = (queue.clone(), caches.clone());
    caches.replica_sets.on_change(move |change| {
        for set in change.both() {
            add_all(&q, deployments_of(&c, set));
        }
    });
    let (q, c) = (queue.clone(), caches.clone());
    caches.pods.on_change(move |change| {
        // Only Recreate looks at pods, and only at their end.
        let Some(pod) = change.last() else { return };
        let ended = change.new.as_ref().is_none_or(|p| copepod_core::controllers::pod::terminal(p));
        let set = owner_key(&**pod, "ReplicaSet").filter(|_| ended).and_then(|key| c.replica_sets.get(&key));
        add_all(&q, set.iter().flat_map(|set| deployments_of(&c, set)));
    });
    context.work(queue, |context, key| async move { reconcile(&context, &key).await })
}

/// The Deployments that a set concerns.
fn deployments_of(caches: &Caches, set: &ReplicaSet) -> Vec<Key> {
    let selector = |d: &Deployment| d.spec.as_ref().map(|s| s.selector.clone());
    owners_of(&set.metadata, "Deployment", &caches.deployments, selector)
}

async fn reconcile(context: &Context, key: &Key) -> Outcome {
    let caches = &context.caches;
    let Some(object) = caches.deployments.get(key) else { return Outcome::Done };
    let sets = caches.replica_sets.claimable(&key.namespace, "Deployment", &key.name);
    let recreate = object.spec.as_ref().and_then(|s| s.strategy.as_ref()?.type_.as_deref()) == Some("Recreate");
    let pods: Vec<_> = match recreate {
        true => sets.iter().flat_map(|set| pods_of(caches, set)).collect(),
        false => Vec::new(),
    };
    let decide = |sets: &[_]| deployment::reconcile(&object, sets, &pods, context.now());
    let plan = decide_with_names(&caches.replica_sets, sets, decide);
    let path = Target::new(meta::deployments(), &key.namespace, &key.name).path();
    let subject = about("apps/v1", "Deployment", &object.metadata);
    let (_, outcome, failure) = context.apply(&plan, &subject, &path).await;
    if let Some(Failure::Refused(refusal)) = failure
        && refusal.verb == Verb::Create
        && !namespace_going(&refusal.error)
    {
        tell_refused(context, key, &subject, &refusal, &path).await;
    }
    outcome
}

/// Says in an event and in the status that the set of the present template cannot be created.
async fn tell_refused(context: &Context, key: &Key, subject: &ObjectReference, refusal: &Refusal, path: &str) {
    let message = format!("Failed to create new replica set \"{}\": {}", refusal.target.name, explain(&refusal.error));
    context.recorder.event(subject.clone(), Severity::Warning, deployment::CREATE_ERROR, &message);
    let fresh = context.caches.deployments.get(key).filter(|d| d.metadata.uid == subject.uid);
    let status = fresh.and_then(|d| deployment::refused(&d, &message, context.now()));
    if status.is_some() {
        context.apply(&Plan { status, ..Plan::default() }, subject, path).await;
    }
}

/// The pods that a set controls.
pub(super) fn pods_of(caches: &Caches, set: &ReplicaSet) -> Vec<Arc<Pod>> {
    caches.pods.controlled(meta::text(&set.metadata.namespace), "ReplicaSet", meta::text(&set.metadata.name))
}
