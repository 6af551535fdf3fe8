//! Drives the decision to delete Jobs a while after they ended.

use copepod_client::Key;
use copepod_client::Outcome;
use copepod_core::controllers::{Target, job, meta, ttl_after_finished};

use super::context::{Context, Running, about};

/// Runs the controller.
pub(super) fn run(context: Context) -> Running {
    let queue = context.queue::<Key>();
    let q = queue.clone();
    context.caches.clone().jobs.on_change(move |change| {
        if let Some(job) = change.new.as_ref().filter(|j| job::is_finished(j)) {
            q.add(Key::of(&**job));
        }
    });
    context.work(queue, |context, key| async move {
        let Some(job) = context.caches.jobs.get(&key) else { return Outcome::Done };
        let plan = ttl_after_finished::reconcile(&job, context.now());
        let path = Target::new(meta::v1("batch", "jobs"), &key.namespace, &key.name).path();
        context.apply(&plan, &about("batch/v1", "Job", &job.metadata), &path).await.1
    })
}
