//! Drives the decision on pods that were to be disrupted and were not.

use copepod_client::{Key, Outcome};
use copepod_core::controllers::{Target, meta, pod, stale_disruption};

use super::context::{Context, Running, about};

/// Runs the controller.
pub(super) fn run(context: Context) -> Running {
    let queue = context.queue::<Key>();
    let q = queue.clone();
    context.caches.clone().pods.on_change(move |change| {
        let said = |p: &_| pod::condition(p, pod::DISRUPTION_TARGET).is_some_and(|c| c.status == "True");
        if let Some(pod) = change.new.as_ref().filter(|p| said(p)) {
            q.add(Key::of(&**pod));
        }
    });
    context.work(queue, |context, key| async move {
        let Some(pod) = context.caches.pods.get(&key) else { return Outcome::Done };
        let plan = stale_disruption::reconcile(&pod, context.now());
        let path = Target::new(meta::pods(), &key.namespace, &key.name).path();
        context.apply(&plan, &about("v1", "Pod", &pod.metadata), &path).await.1
    })
}
