//! Drives the DaemonSet decision.

use copepod_client::{Key, Outcome};
use copepod_core::controllers::{Target, daemonset};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Node;

use super::context::{Context, Failures, Running, about, add_all};
use super::owners::{decide_with_names, owners_of};

/// Runs the controller.
pub(super) fn run(context: Context) -> Running {
    let queue = context.queue::<Key>();
    let caches = context.caches.clone();
    let q = queue.clone();
    caches.daemon_sets.on_change(move |change| add_all(&q, change.last().map(|s| Key::of(&**s))));
    let selector = |s: &DaemonSet| s.spec.as_ref().map(|s| s.selector.clone());
    let (q, c) = (queue.clone(), caches.clone());
    caches.pods.on_change(move |change| {
        for pod in change.both() {
            add_all(&q, owners_of(&pod.metadata, "DaemonSet", &c.daemon_sets, selector));
        }
    });
    let (q, c) = (queue.clone(), caches.clone());
    caches.revisions.on_change(move |change| {
        for revision in change.both() {
            add_all(&q, owners_of(&revision.metadata, "DaemonSet", &c.daemon_sets, selector));
        }
    });
    let (q, c) = (queue.clone(), caches.clone());
    caches.nodes.on_change(move |change| {
        if !same_to_daemons(change.old.as_deref(), change.new.as_deref()) {
            add_all(&q, c.daemon_sets.all().iter().map(|s| Key::of(&**s)));
        }
    });
    let failures = Failures::default();
    context.work(queue, move |context, key| {
        let failures = failures.clone();
        async move { reconcile(&context, &failures, &key).await }
    })
}

/// Whether a node's change is none to where daemons run: only its status changed.
fn same_to_daemons(old: Option<&Node>, new: Option<&Node>) -> bool {
    let (Some(old), Some(new)) = (old, new) else { return false };
    old.metadata.labels == new.metadata.labels && old.spec == new.spec
}

async fn reconcile(context: &Context, failures: &Failures, key: &Key) -> Outcome {
    let caches = &context.caches;
    let Some(set) = caches.daemon_sets.get(key) else {
        failures.forget(key);
        return Outcome::Done;
    };
    let pods = caches.pods.claimable(&key.namespace, "DaemonSet", &key.name);
    let nodes = caches.nodes.all();
    let revisions = caches.revisions.claimable(&key.namespace, "DaemonSet", &key.name);
    let plan = failures.with(key, |failures| {
        let decide = |revisions: &[_]| daemonset::reconcile(&set, &pods, &nodes, revisions, failures, context.now());
        decide_with_names(&caches.revisions, revisions, decide)
    });
    let path = Target::new(daemonset::daemonsets(), &key.namespace, &key.name).path();
    let subject = about("apps/v1", "DaemonSet", &set.metadata);
    let (writes, outcome, failure) = context.apply(&plan, &subject, &path).await;
    context.tell_pods(&subject, &writes, failure.as_ref());
    outcome
}
