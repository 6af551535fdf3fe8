//! Drives the Deployment decision.

use copepod_client::Key;
use copepod_core::controllers::{Target, deployment, meta};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::caches::{Caches, owner_key};
use super::context::{Context, Running, about, add_all};
use copepod_client::Outcome;

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

/// The Deployments that a set concerns: its controller, or for an orphan all that select it.
fn deployments_of(caches: &Caches, set: &ReplicaSet) -> Vec<Key> {
    if let Some(key) = owner_key(set, "Deployment") {
        return vec![key];
    }
    if meta::controller_of(&set.metadata).is_some() {
        return Vec::new();
    }
    let selects = |d: &Deployment| {
        let selector = d.spec.as_ref().and_then(|s| copepod_api::LabelSelector::from_typed(Some(&s.selector)).ok());
        selector.is_some_and(|s| !s.is_empty() && meta::selects(&s, &set.metadata))
    };
    let namespace = meta::text(&set.metadata.namespace);
    caches.deployments.list(namespace).iter().filter(|d| selects(d)).map(|d| Key::of(&**d)).collect()
}

async fn reconcile(context: &Context, key: &Key) -> Outcome {
    let caches = &context.caches;
    let Some(object) = caches.deployments.get(key) else { return Outcome::Done };
    let sets = caches.replica_sets.list(&key.namespace);
    let recreate = object.spec.as_ref().and_then(|s| s.strategy.as_ref()?.type_.as_deref()) == Some("Recreate");
    let pods = if recreate { caches.pods.list(&key.namespace) } else { Vec::new() };
    let plan = deployment::reconcile(&object, &sets, &pods, context.now());
    let path = Target::new(meta::deployments(), &key.namespace, &key.name).path();
    context.apply(&plan, &about("apps/v1", "Deployment", &object.metadata), &path).await.1
}
