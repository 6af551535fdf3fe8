//! Drives the decision on how long nodes may keep what they read.

use std::sync::Arc;

use copepod_client::{Key, Outcome};
use copepod_core::controllers::node_ttl::{Level, reconcile};
use parking_lot::Mutex;

use super::context::{Context, Running, about};

/// Runs the controller.
pub(super) fn run(context: Context) -> Running {
    let queue = context.queue::<Key>();
    let q = queue.clone();
    context.caches.nodes.on_change(move |change| {
        if let Some(node) = &change.new {
            q.add(Key::of(&**node));
        }
    });
    let level: Arc<Mutex<Level>> = Arc::default();
    context.work(queue, move |context, key| {
        let level = level.clone();
        async move {
            let nodes = &context.caches.nodes;
            let Some(node) = nodes.get(&key) else { return Outcome::Done };
            let now = {
                let mut level = level.lock();
                *level = level.after(nodes.len());
                *level
            };
            let plan = reconcile(&node, now);
            context.apply(&plan, &about("v1", "Node", &node.metadata), "").await.1
        }
    })
}
