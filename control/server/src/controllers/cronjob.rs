//! Drives the CronJob decision.

use copepod_client::events::Severity;
use copepod_client::{Key, Outcome};
use copepod_core::controllers::cronjob;

use super::caches::owner_key;
use super::context::{Context, Running, about, add_all};
use super::executor::{Failure, explain};
use super::owners::decide_with_names;

/// Runs the controller.
pub(super) fn run(context: Context) -> Running {
    let queue = context.queue::<Key>();
    let caches = context.caches.clone();
    let q = queue.clone();
    caches.cron_jobs.on_change(move |change| add_all(&q, change.new.as_ref().map(|c| Key::of(&**c))));
    let q = queue.clone();
    caches.jobs.on_change(move |change| add_all(&q, change.both().filter_map(|j| owner_key(&**j, "CronJob"))));
    context.work(queue, |context, key| async move { reconcile(&context, &key).await })
}

async fn reconcile(context: &Context, key: &Key) -> Outcome {
    let Some(cron) = context.caches.cron_jobs.get(key) else { return Outcome::Done };
    let jobs = &context.caches.jobs;
    let claimable = jobs.claimable(&key.namespace, "CronJob", &key.name);
    let plan = decide_with_names(jobs, claimable, |jobs| cronjob::reconcile(&cron, jobs, context.now()));
    let subject = about("batch/v1", "CronJob", &cron.metadata);
    let (writes, outcome, failure) = context.apply(&plan, &subject, "").await;
    let event = |severity, reason, message: String| context.recorder.event(subject.clone(), severity, reason, &message);
    for (_, name) in &writes.created {
        event(Severity::Normal, "SuccessfulCreate", format!("Created job {name}"));
    }
    if let Some(Failure::Refused(refusal)) = failure
        && let Some((reason, verb)) = refusal.told()
    {
        event(Severity::Warning, reason, format!("Error {verb} job: {}", explain(&refusal.error)));
    }
    outcome
}
