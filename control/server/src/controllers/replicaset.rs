//! Drives the ReplicaSet decision.

use copepod_client::events::Severity;
use copepod_client::{Key, Outcome};
use copepod_core::controllers::{Plan, Target, meta, replicaset};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;

use super::caches::{Caches, owner_key};
use super::context::{Context, Running, about, add_all, now};
use super::executor::{Failure, explain};

/// Runs the controller.
pub(super) fn run(context: Context) -> Running {
    let queue = context.queue::<Key>();
    let caches = context.caches.clone();
    let q = queue.clone();
    caches.replica_sets.on_change(move |change| add_all(&q, change.last().map(|s| Key::of(&**s))));
    let (q, c) = (queue.clone(), caches.clone());
    caches.pods.on_change(move |change| {
        for pod in change.both() {
            add_all(&q, sets_of(&c, pod));
        }
    });
    context.work(queue, |context, key| async move { reconcile(&context, &key).await })
}

/// The sets that a pod concerns: its controller, or for an orphan all that select it.
fn sets_of(caches: &Caches, pod: &Pod) -> Vec<Key> {
    if let Some(key) = owner_key(pod, "ReplicaSet") {
        return vec![key];
    }
    if meta::controller_of(&pod.metadata).is_some() {
        return Vec::new();
    }
    let selects = |set: &ReplicaSet| {
        let selector = set.spec.as_ref().and_then(|s| copepod_api::LabelSelector::from_typed(Some(&s.selector)).ok());
        selector.is_some_and(|s| !s.is_empty() && meta::selects(&s, &pod.metadata))
    };
    let namespace = meta::text(&pod.metadata.namespace);
    caches.replica_sets.list(namespace).iter().filter(|s| selects(s)).map(|s| Key::of(&**s)).collect()
}

async fn reconcile(context: &Context, key: &Key) -> Outcome {
    let caches = &context.caches;
    let Some(set) = caches.replica_sets.get(key) else { return Outcome::Done };
    let siblings = caches.replica_sets.list(&key.namespace);
    let plan = replicaset::reconcile(&set, &caches.pods.list(&key.namespace), &siblings, now());
    let path = Target::new(meta::replicasets(), &key.namespace, &key.name).path();
    let subject = about("apps/v1", "ReplicaSet", &set.metadata);
    let (writes, outcome, failure) = context.apply(&plan, &subject, &path).await;
    let event = |severity, reason, message: String| context.recorder.event(subject.clone(), severity, reason, &message);
    for (_, name) in &writes.created {
        event(Severity::Normal, "SuccessfulCreate", format!("Created pod: {name}"));
    }
    for (_, name) in &writes.deleted {
        event(Severity::Normal, "SuccessfulDelete", format!("Deleted pod: {name}"));
    }
    if let Some(Failure::Refused { creating, error }) = failure {
        let message = explain(&error);
        let reason = if creating { "FailedCreate" } else { "FailedDelete" };
        let verb = if creating { "creating" } else { "deleting" };
        event(Severity::Warning, reason, format!("Error {verb}: {message}"));
        let status = replicaset::failed(&set, creating, &message, now());
        if status.is_some() {
            let plan = Plan { status, ..Plan::default() };
            context.apply(&plan, &subject, &path).await;
        }
    }
    outcome
}
