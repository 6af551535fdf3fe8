//! Drives the node lifecycle decision: remembers by its own clock when each node's Lease was last renewed.

use std::collections::HashMap;
use std::sync::Arc;

use copepod_client::events::Severity;
use copepod_client::{Key, Outcome};
use copepod_core::controllers::node_zones::Zones;
use copepod_core::controllers::{meta, node_lifecycle, pod};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use parking_lot::Mutex;

use super::caches::NODE_LEASES;
use super::context::{Context, Running, about};

/// By node: the renewal last seen, and when it was seen.
type Heartbeats = Arc<Mutex<HashMap<String, (Option<MicroTime>, Timestamp)>>>;

/// Runs the controller.
pub(super) fn run(context: Context) -> Running {
    let queue = context.queue::<Key>();
    let caches = context.caches.clone();
    let heartbeats: Heartbeats = Arc::default();
    let zones: Arc<Mutex<Zones>> = Arc::default();
    let (q, beats, z, waiting) = (queue.clone(), heartbeats.clone(), zones.clone(), queue.clone());
    caches.nodes.on_change(move |change| {
        let Some(node) = change.last() else { return };
        let name = meta::text(&node.metadata.name);
        if change.new.is_none() {
            beats.lock().remove(name);
        }
        for name in z.lock().observe(name, change.new.as_deref()) {
            waiting.add(Key::new("", &name));
        }
        q.add(Key::new("", name));
    });
    let (q, c, beats, clock) = (queue.clone(), caches.clone(), heartbeats.clone(), context.clone());
    caches.leases.on_change(move |change| {
        let Some(lease) = &change.new else { return };
        let name = meta::text(&lease.metadata.name);
        if c.nodes.get(&Key::new("", name)).is_none() {
            return;
        }
        let renewed = lease.spec.as_ref().and_then(|s| s.renew_time.clone());
        let (mut beats, now) = (beats.lock(), clock.now());
        let (seen, at) = beats.entry(name.to_string()).or_insert((None, now));
        if *seen != renewed {
            let was_silent = now.duration_since(*at).unsigned_abs() > node_lifecycle::GRACE;
            (*seen, *at) = (renewed, now);
            if was_silent {
                q.add(Key::new("", name));
            }
        }
    });
    let (q, c) = (queue.clone(), caches.clone());
    caches.pods.on_change(move |change| {
        // A pod on a node that drives pods out.
        let Some(name) = change.new.as_ref().map(|p| pod::node_name(p)).filter(|n| !n.is_empty()) else { return };
        let key = Key::new("", name);
        let node = c.nodes.get(&key);
        let taints = node.as_ref().and_then(|n| n.spec.as_ref()?.taints.as_ref());
        if taints.is_some_and(|t| t.iter().any(|t| t.effect == "NoExecute")) {
            q.add(key);
        }
    });
    context.work(queue, move |context, key| {
        let (heartbeats, zones) = (heartbeats.clone(), zones.clone());
        async move { reconcile(&context, &heartbeats, &zones, &key).await }
    })
}

async fn reconcile(context: &Context, heartbeats: &Heartbeats, zones: &Mutex<Zones>, key: &Key) -> Outcome {
    let (caches, now) = (&context.caches, context.now());
    let Some(node) = caches.nodes.get(key) else {
        heartbeats.lock().remove(&key.name);
        return Outcome::Done;
    };
    let lease = caches.leases.get(&Key::new(NODE_LEASES, &key.name));
    let renewed = lease.and_then(|l| l.spec.as_ref()?.renew_time.clone());
    let last = heartbeats.lock().entry(key.name.clone()).or_insert((renewed, now)).1;
    let permission = zones.lock().ask(&key.name, now);
    let plan = node_lifecycle::reconcile(&node, last, permission, &caches.pods_on(&key.name), now);
    let (_, outcome, failure) =
        context.apply(&plan, &about("v1", "Node", &node.metadata), &format!("/api/v1/nodes/{}", key.name)).await;
    if failure.is_none() {
        for (meta, note) in node_lifecycle::pod_notes(&plan) {
            let severity = if note.warning { Severity::Warning } else { Severity::Normal };
            context.recorder.event(about("v1", "Pod", &meta), severity, note.reason, &note.message);
        }
    }
    outcome
}
