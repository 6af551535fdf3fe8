//! Drives the making of claims for pods' ephemeral volumes.

use copepod_client::{Key, Outcome};
use copepod_core::controllers::{ephemeral_volumes, meta};

use super::context::{Context, Running, about, add_all};

/// Runs the controller.
pub(super) fn run(context: Context) -> Running {
    let queue = context.queue::<Key>();
    let caches = context.caches.clone();
    let q = queue.clone();
    caches.pods.on_change(move |change| {
        // Volumes of a pod do not change.
        let new = change.new.as_ref().filter(|new| {
            let uid = change.old.as_ref().map(|old| &old.metadata.uid);
            uid != Some(&new.metadata.uid) && ephemeral_volumes::has_any(new)
        });
        add_all(&q, new.map(|pod| Key::of(&**pod)));
    });
    let q = queue.clone();
    caches.claims.on_change(move |change| {
        if let (Some(old), None) = (&change.old, &change.new) {
            let owner = meta::controller_of(&old.metadata).filter(|owner| owner.kind == "Pod");
            let namespace = meta::text(&old.metadata.namespace);
            add_all(&q, owner.map(|owner| Key::new(namespace, &owner.name)));
        }
    });
    context.work(queue, |context, key| async move {
        let caches = &context.caches;
        let Some(pod) = caches.pods.get(&key) else { return Outcome::Done };
        let plan = ephemeral_volumes::reconcile(&pod, |name| caches.claims.get(&Key::new(&key.namespace, name)));
        context.apply(&plan, &about("v1", "Pod", &pod.metadata), "").await.1
    })
}
