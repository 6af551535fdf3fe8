//! Drives the Job decision. It relies on observing all that it wrote, as every controller does here: else a pod could be
//! counted twice.

use std::sync::Arc;
use std::time::Duration;

use copepod_client::{Key, Outcome, Settings, WorkQueue};
use copepod_core::controllers::job_pods::is_tracked;
use copepod_core::controllers::{Plan, Target, job, meta};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

use super::caches::{Caches, owner_key};
use super::context::{Context, Running, about};
use super::executor::{Failure, Verb};
use super::owners::owners_of;

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
    context.work(queue, move |context, item| async move {
        match item {
            Item::Job(key) => reconcile(&context, &key).await,
            Item::Orphan(key) => release(&context, &key).await,
        }
    })
}

/// The Jobs that may take in an orphan.
fn jobs_of(caches: &Caches, pod: &Pod) -> Vec<Key> {
    owners_of(&pod.metadata, "Job", &caches.jobs, |job| {
        let open = !job::is_finished(job) && job.metadata.deletion_timestamp.is_none();
        let ours = open && job::other_manager(job).is_none();
        job.spec.as_ref().and_then(|s| s.selector.clone()).filter(|_| ours)
    })
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

async fn reconcile(context: &Context, key: &Key) -> Outcome {
    let caches = &context.caches;
    let pods = || caches.pods.claimable(&key.namespace, "Job", &key.name);
    let (present, before) = (caches.jobs.get(key), pods());
    let uid = present.as_ref().and_then(|j| j.metadata.uid.as_deref());
    let leave = left_behind(&before, key, uid);
    if !leave.is_empty() {
        let outcome = context.apply(&leave, &Default::default(), "").await.1;
        if outcome == Outcome::Retry {
            return outcome;
        }
    }
    let Some(object) = present else { return Outcome::Done };
    let plan = job::reconcile(&object, &before, context.now(), true);
    let (outcome, failure) = execute(context, key, &object, &plan).await;
    // What need not wait for the pods that cannot be made goes on.
    let creating = matches!(&failure, Some(Failure::Refused(refusal)) if refusal.verb == Verb::Create);
    if creating && let Some(object) = caches.jobs.get(key) {
        let plan = job::reconcile(&object, &pods(), context.now(), false);
        execute(context, key, &object, &plan).await;
    }
    outcome
}

async fn execute(context: &Context, key: &Key, object: &Job, plan: &Plan) -> (Outcome, Option<Failure>) {
    let subject = about("batch/v1", "Job", &object.metadata);
    let path = Target::new(meta::v1("batch", "jobs"), &key.namespace, &key.name).path();
    let (writes, outcome, failure) = context.apply(plan, &subject, &path).await;
    context.tell_pods(&subject, &writes, failure.as_ref());
    (outcome, failure)
}
