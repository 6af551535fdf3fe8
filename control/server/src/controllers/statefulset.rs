//! Drives the StatefulSet decision.

use copepod_client::events::Severity;
use copepod_client::{Key, Outcome};
use copepod_core::controllers::Target;
use copepod_core::controllers::statefulset::{self, Observed};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::ObjectReference;

use super::context::{Context, Failures, Running, about, add_all};
use super::executor::{Failure, Refusal, Verb, Writes, explain};
use super::owners::{decide_with_names, owners_of};

/// Runs the controller.
pub(super) fn run(context: Context) -> Running {
    let queue = context.queue::<Key>();
    let caches = context.caches.clone();
    let q = queue.clone();
    caches.stateful_sets.on_change(move |change| add_all(&q, change.last().map(|s| Key::of(&**s))));
    let selector = |s: &StatefulSet| s.spec.as_ref().map(|s| s.selector.clone());
    let (q, c) = (queue.clone(), caches.clone());
    caches.pods.on_change(move |change| {
        for pod in change.both() {
            add_all(&q, owners_of(&pod.metadata, "StatefulSet", &c.stateful_sets, selector));
        }
    });
    let (q, c) = (queue.clone(), caches.clone());
    caches.revisions.on_change(move |change| {
        for revision in change.both() {
            add_all(&q, owners_of(&revision.metadata, "StatefulSet", &c.stateful_sets, selector));
        }
    });
    let (q, c) = (queue.clone(), caches.clone());
    caches.claims.on_change(move |change| {
        let Some(claim) = change.last() else { return };
        add_all(&q, c.sets_of(claim));
    });
    let failures = Failures::default();
    context.work(queue, move |context, key| {
        let failures = failures.clone();
        async move { reconcile(&context, &failures, &key).await }
    })
}

async fn reconcile(context: &Context, failures: &Failures, key: &Key) -> Outcome {
    let caches = &context.caches;
    let Some(set) = caches.stateful_sets.get(key) else {
        failures.forget(key);
        return Outcome::Done;
    };
    let pods = caches.pods.claimable(&key.namespace, "StatefulSet", &key.name);
    let claims = caches.claims_of(&set);
    let revisions = caches.revisions.claimable(&key.namespace, "StatefulSet", &key.name);
    let plan = failures.with(key, |failures| {
        let decide = |revisions: &[_]| {
            statefulset::reconcile(&set, &Observed { pods: &pods, claims: &claims, revisions }, failures, context.now())
        };
        decide_with_names(&caches.revisions, revisions, decide)
    });
    let path = Target::new(statefulset::statefulsets(), &key.namespace, &key.name).path();
    let subject = about("apps/v1", "StatefulSet", &set.metadata);
    let (writes, outcome, failure) = context.apply(&plan, &subject, &path).await;
    tell(context, &subject, &writes, failure.as_ref());
    outcome
}

/// Says in events what became of pods and claims, in upstream's words.
fn tell(context: &Context, subject: &ObjectReference, writes: &Writes, failure: Option<&Failure>) {
    let set = subject.name.as_deref().unwrap_or_default();
    let event = |severity, reason, message: String| {
        context.recorder.event(subject.clone(), severity, reason, &message);
    };
    let done = |resource: &str, verb: &str, name: &str| match resource {
        "pods" => Some(format!("{verb} Pod {name} in StatefulSet {set} successful")),
        "persistentvolumeclaims" => {
            let ordinal = name.rsplit_once('-').map_or("", |(_, ordinal)| ordinal);
            Some(format!("{verb} Claim {name} Pod {set}-{ordinal} in StatefulSet {set} success"))
        }
        _ => None,
    };
    for (resource, name) in &writes.created {
        if let Some(message) = done(resource, "create", name) {
            event(Severity::Normal, "SuccessfulCreate", message);
        }
    }
    for (resource, name) in &writes.deleted {
        if let Some(message) = done(resource, "delete", name) {
            event(Severity::Normal, "SuccessfulDelete", message);
        }
    }
    if let Some(Failure::Refused(Refusal { verb, target, error })) = failure {
        let (reason, verb) = match verb {
            Verb::Create => ("FailedCreate", "create"),
            Verb::Patch => ("FailedUpdate", "update"),
            Verb::Delete => ("FailedDelete", "delete"),
        };
        let what = match target.gvr.resource.as_str() {
            "pods" => "Pod",
            "persistentvolumeclaims" => "Claim",
            _ => return,
        };
        let why = explain(error);
        let message = format!("{verb} {what} {} in StatefulSet {set} failed error: {why}", target.name);
        event(Severity::Warning, reason, message);
    }
}
