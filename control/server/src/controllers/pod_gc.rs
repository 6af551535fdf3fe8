//! Drives the collection of pods that nobody ends: looks at all of them from time to time.

use std::collections::{BTreeSet, HashMap};

use copepod_client::{Key, Outcome};
use copepod_core::controllers::pod_gc;
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::time::Instant;

use super::context::{Context, Running};

/// Runs the controller. `threshold` is how many ended pods may stay (0: all).
pub(super) fn run(context: Context, threshold: usize) -> Running {
    Box::pin(async move {
        let token = context.token.clone();
        tokio::select! {
            () = token.cancelled() => return,
            () = context.caches.ready() => {}
        }
        let mut missing = HashMap::new();
        loop {
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(pod_gc::PERIOD) => {}
            }
            sweep(&context, &mut missing, threshold).await;
        }
    })
}

/// `missing` is since when nodes are.
async fn sweep(context: &Context, missing: &mut HashMap<String, Instant>, threshold: usize) {
    let caches = &context.caches;
    let pods = caches.pods.all();
    let node = |name: &str| caches.nodes.get(&Key::new("", name));
    let now = pod_gc::missing_nodes(&pods, |name| node(name).is_some());
    missing.retain(|name, _| now.contains(name));
    let mut gone = BTreeSet::new();
    for name in now {
        let since = missing.entry(name.clone()).or_insert_with(Instant::now);
        // One that registers again in time keeps its pods.
        let path = format!("/api/v1/nodes/{name}");
        if since.elapsed() >= pod_gc::QUARANTINE && matches!(context.executor.look(&path).await, Ok(None)) {
            gone.insert(name);
        }
    }
    let sweep = pod_gc::sweep(&pods, node, &gone, threshold, context.now());
    let nobody = ObjectReference::default();
    if context.apply(&sweep.marks, &nobody, "").await.1 == Outcome::Done {
        context.apply(&sweep.deletes, &nobody, "").await;
    }
}
