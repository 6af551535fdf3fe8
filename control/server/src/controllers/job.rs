//! Drives the Job decision: makes sure that it sees pods as new as all that it wrote to them, or a pod could be counted
//! again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use copepod_api::LabelSelector;
use copepod_client::events::Severity;
use copepod_client::{Key, Outcome, Settings, WorkQueue};
use copepod_core::controllers::job_pods::is_tracked;
use copepod_core::controllers::{Plan, Target, job, meta};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use parking_lot::Mutex;

use super::caches::{Caches, owner_key};
use super::context::{Context, Running, about};
use super::executor::{Failure, explain};

/// A Job is worked on at most once in this time: pods that end together are counted together.
const GATHER: Duration = Duration::from_millis(100);

/// What there is to work on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Item {
    /// A Job, or the pods of one that is gone.
    Job(Key),
    /// A pod that no Job controls.
    Orphan(Key),
}

/// By Job, the newest revision of a pod that was written for it.
type Written = Arc<Mutex<HashMap<Key, u64>>>;

/// Runs the controller.
pub(super) fn run(context: Context) -> Running {
    let queue: WorkQueue<Item> = WorkQueue::new(Settings { min_interval: GATHER, ..Settings::default() });
    let caches = context.caches.clone();
    let q = queue.clone();
    caches.jobs.on_change(move |change| {
        if let Some(job) = change.last() {
            q.add(Item::Job(Key::of(&**job)));
        }
    });
    let (q, c) = (queue.clone(), caches.clone());
    caches.pods.on_change(move |change| {
        for pod in change.both() {
            if let Some(key) = owner_key(&**pod, "Job") {
                q.add(Item::Job(key));
            } else if meta::controller_of(&pod.metadata).is_none() && change.new.is_some() {
                jobs_of(&c, pod).into_iter().for_each(|key| q.add(Item::Job(key)));
                if is_tracked(pod) {
                    q.add(Item::Orphan(Key::of(&**pod)));
                }
            }
        }
    });
    let written = Written::default();
    context.work(queue, move |context, item| {
        let written = written.clone();
        async move {
            match item {
                Item::Job(key) => reconcile(&context, &written, &key).await,
                Item::Orphan(key) => release(&context, &key).await,
            }
        }
    })
}

/// The Jobs that may take in an orphan.
fn jobs_of(caches: &Caches, pod: &Pod) -> Vec<Key> {
    let selects = |job: &Job| {
        let selector = LabelSelector::from_typed(job.spec.as_ref().and_then(|s| s.selector.as_ref()));
        let open = !job::is_finished(job) && job.metadata.deletion_timestamp.is_none();
        open && job::other_manager(job).is_none()
            && selector.is_ok_and(|s| !s.is_empty() && meta::selects(&s, &pod.metadata))
    };
    let jobs = caches.jobs.list(meta::text(&pod.metadata.namespace));
    jobs.iter().filter(|j| selects(j)).map(|j| Key::of(&**j)).collect()
}

/// Lets an orphan go that no Job takes in.
async fn release(context: &Context, key: &Key) -> Outcome {
    let Some(pod) = context.caches.pods.get(key) else { return Outcome::Done };
    if meta::controller_of(&pod.metadata).is_some() || !jobs_of(&context.caches, &pod).is_empty() {
        return Outcome::Done;
    }
    let plan = job::let_go([&pod].into_iter(), "no Job controls it");
    context.apply(&plan, &about("v1", "Pod", &pod.metadata), "").await.1
}

/// Lets the pods go that a Job of this name, but not this UID, controlled.
fn left_behind(pods: &[Arc<Pod>], key: &Key, uid: Option<&str>) -> Plan {
    let gone = |p: &&Arc<Pod>| {
        meta::controller_of(&p.metadata).is_some_and(|o| {
            o.kind == "Job" && o.api_version.starts_with("batch/") && o.name == key.name && Some(o.uid.as_str()) != uid
        })
    };
    job::let_go(pods.iter().filter(gone), "their Job is gone")
}

async fn reconcile(context: &Context, written: &Written, key: &Key) -> Outcome {
    let caches = &context.caches;
    let present = caches.jobs.get(key);
    let pods = match fresh_pods(context, written, key).await {
        Ok(pods) => pods,
        Err(error) => {
            tracing::debug!(job = %key, %error, "pods not read");
            return Outcome::Retry;
        }
    };
    let uid = present.as_ref().and_then(|j| j.metadata.uid.as_deref());
    let leave = left_behind(&pods, key, uid);
    if !leave.is_empty() {
        let outcome = context.apply(&leave, &Default::default(), "").await.1;
        if outcome == Outcome::Retry {
            return outcome;
        }
    }
    let Some(object) = present else {
        written.lock().remove(key);
        return Outcome::Done;
    };
    let plan = job::reconcile(&object, &pods, context.now(), true);
    let (outcome, failure) = execute(context, written, key, &object, &plan).await;
    let Some(Failure::Refused { creating, error }) = failure else { return outcome };
    let (reason, verb) = if creating { ("FailedCreate", "creating") } else { ("FailedDelete", "deleting") };
    let subject = about("batch/v1", "Job", &object.metadata);
    context.recorder.event(subject, Severity::Warning, reason, &format!("Error {verb}: {}", explain(&error)));
    // What need not wait for the pods that cannot be made goes on.
    if creating && let (Some(object), Ok(pods)) = (caches.jobs.get(key), fresh_pods(context, written, key).await) {
        let plan = job::reconcile(&object, &pods, context.now(), false);
        execute(context, written, key, &object, &plan).await;
    }
    outcome
}

async fn execute(
    context: &Context,
    written: &Written,
    key: &Key,
    object: &Job,
    plan: &Plan,
) -> (Outcome, Option<Failure>) {
    let subject = about("batch/v1", "Job", &object.metadata);
    let path = Target::new(meta::v1("batch", "jobs"), &key.namespace, &key.name).path();
    let (writes, outcome, failure) = context.apply(plan, &subject, &path).await;
    if let Some(revision) = writes.revisions.get("pods") {
        written.lock().insert(key.clone(), *revision);
    }
    for (_, name) in &writes.created {
        context.recorder.event(subject.clone(), Severity::Normal, "SuccessfulCreate", &format!("Created pod: {name}"));
    }
    for (_, name) in &writes.deleted {
        context.recorder.event(subject.clone(), Severity::Normal, "SuccessfulDelete", &format!("Deleted pod: {name}"));
    }
    (outcome, failure)
}

/// The pods of a Job's namespace, as new as what was written for the Job: from the cache, or if that lags, from the API.
async fn fresh_pods(context: &Context, written: &Written, key: &Key) -> Result<Vec<Arc<Pod>>, kube::Error> {
    let pods = &context.caches.pods;
    let floor = written.lock().get(key).copied().unwrap_or(0);
    if pods.revision() >= floor {
        return Ok(pods.list(&key.namespace));
    }
    let api: Api<Pod> = Api::namespaced(context.executor.client().clone(), &key.namespace);
    Ok(api.list(&ListParams::default()).await?.items.into_iter().map(Arc::new).collect())
}
