//! Drives the scheduler: keeps its snapshot, decides pod by pod, binds in parallel.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use copepod_client::events::Severity;
use copepod_client::{Key, Outcome, Settings, WorkQueue};
use copepod_core::controllers::{Action, Plan, meta, pod};
use copepod_core::scheduler::{Decision, Snapshot, schedule};
use http::Method;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::context::{Context, Running, about, now};
use super::executor::{MAX_PARALLEL, explain};

/// Pods name this scheduler, or none.
const NAME: &str = "default-scheduler";
/// The longest wait before a pod that fits nowhere is tried again though nothing changed.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Changes of nodes and pods within this time wake the waiting pods once.
const GATHER: Duration = Duration::from_millis(20);

#[derive(Default)]
struct State {
    snapshot: Snapshot,
    turn: usize,
    /// Pods that fit nowhere when last tried.
    waiting: HashSet<Key>,
}

struct Scheduler {
    context: Context,
    state: Mutex<State>,
    queue: WorkQueue<Key>,
    room: Notify,
}

/// Runs the scheduler.
pub(super) fn run(context: Context) -> Running {
    let queue =
        WorkQueue::new(Settings { base: Duration::from_secs(1), cap: LONGEST_WAIT, min_interval: GATHER, seed: 0 });
    let scheduler = Arc::new(Scheduler { context, state: Mutex::default(), queue, room: Notify::new() });
    let caches = scheduler.context.caches.clone();
    let s = scheduler.clone();
    caches.nodes.on_change(move |change| {
        let mut state = s.state.lock();
        match (&change.old, &change.new) {
            (_, Some(node)) => state.snapshot.set_node(node.clone()),
            (Some(old), None) => state.snapshot.remove_node(meta::text(&old.metadata.name)),
            (None, None) => {}
        }
        s.room.notify_one();
    });
    let s = scheduler.clone();
    caches.pods.on_change(move |change| s.pod_changed(change.old.as_deref(), change.new.as_deref()));
    Box::pin(async move {
        let token = scheduler.context.token.clone();
        tokio::select! {
            () = token.cancelled() => return,
            () = caches.ready() => {}
        }
        let s = scheduler.clone();
        let work = scheduler.queue.clone().run(MAX_PARALLEL, token.clone(), move |key| {
            let s = s.clone();
            async move { s.place(&key).await }
        });
        tokio::select! {
            () = work => {}
            () = scheduler.wake_waiting() => {}
        }
    })
}

/// Whether the pod is ours to place.
fn unplaced(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    pod::node_name(pod).is_empty()
        && pod::active(pod)
        && spec.scheduler_name.as_deref().is_none_or(|name| name.is_empty() || name == NAME)
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
}

impl Scheduler {
    fn pod_changed(&self, old: Option<&Pod>, new: Option<&Pod>) {
        let mut state = self.state.lock();
        match (old, new) {
            (_, Some(pod)) => {
                state.snapshot.set_pod(pod);
                if unplaced(pod) {
                    // Our own write of why it waits is no reason to try again.
                    if old.is_none_or(|old| old.spec != pod.spec || old.metadata.labels != pod.metadata.labels) {
                        self.queue.add(Key::of(pod));
                    }
                } else {
                    state.waiting.remove(&Key::of(pod));
                }
                if pod::terminal(pod) {
                    self.room.notify_one();
                }
            }
            (Some(old), None) => {
                state.snapshot.forget_pod(meta::text(&old.metadata.uid));
                state.waiting.remove(&Key::of(old));
                self.room.notify_one();
            }
            (None, None) => {}
        }
    }

    /// Tries waiting pods again when something may have made room.
    async fn wake_waiting(&self) {
        loop {
            self.room.notified().await;
            tokio::time::sleep(GATHER).await;
            let waiting: Vec<Key> = self.state.lock().waiting.iter().cloned().collect();
            waiting.into_iter().for_each(|key| self.queue.add(key));
        }
    }

    async fn place(&self, key: &Key) -> Outcome {
        let Some(pod) = self.context.caches.pods.get(key).filter(|p| unplaced(p)) else { return Outcome::Done };
        let uid = meta::text(&pod.metadata.uid);
        let decision = {
            let mut state = self.state.lock();
            if state.snapshot.is_placed(uid) {
                return Outcome::Done;
            }
            state.turn = state.turn.wrapping_add(1);
            let decision = schedule(&pod, &state.snapshot, state.turn);
            match &decision {
                Decision::Bind(node) => {
                    state.snapshot.assume(&pod, node);
                    state.waiting.remove(key);
                }
                Decision::Unschedulable(_) => {
                    state.waiting.insert(key.clone());
                }
            }
            decision
        };
        match decision {
            Decision::Bind(node) => self.bind(&pod, &node).await,
            Decision::Unschedulable(why) => {
                self.explain(&pod, &why).await;
                Outcome::Retry
            }
        }
    }

    async fn bind(&self, pod: &Pod, node: &str) -> Outcome {
        let (namespace, name) = (meta::text(&pod.metadata.namespace), meta::text(&pod.metadata.name));
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/binding");
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": pod.metadata.uid},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let event = |severity, reason, message: String| {
            self.context.recorder.event(about("v1", "Pod", &pod.metadata), severity, reason, &message);
        };
        match self.context.executor.send::<Value>(Method::POST, &path, &binding).await {
            Ok(_) => {
                event(Severity::Normal, "Scheduled", format!("Successfully assigned {namespace}/{name} to {node}"));
                Outcome::Done
            }
            Err(error) => {
                {
                    let mut state = self.state.lock();
                    state.snapshot.forget_pod(meta::text(&pod.metadata.uid));
                    // Someone else may have bound it.
                    if let Some(now) = self.context.caches.pods.get(&Key::of(pod)) {
                        state.snapshot.set_pod(&now);
                    }
                }
                self.room.notify_one();
                match &error {
                    kube::Error::Api(status) if status.code == 404 => Outcome::Done,
                    kube::Error::Api(status) if status.code == 409 => Outcome::Retry,
                    _ => {
                        event(Severity::Warning, "FailedScheduling", format!("binding rejected: {}", explain(&error)));
                        Outcome::Retry
                    }
                }
            }
        }
    }

    /// Says in the pod's status and in an event why it waits.
    async fn explain(&self, pod: &Pod, why: &str) {
        let subject = about("v1", "Pod", &pod.metadata);
        self.context.recorder.event(subject.clone(), Severity::Warning, "FailedScheduling", why);
        let plan = Plan { status: unschedulable(pod, why), ..Plan::nothing("unschedulable") };
        self.context.apply(&plan, &subject, "").await;
    }
}

/// The status write that says why a pod waits; `None` if it says so already.
fn unschedulable(pod: &Pod, why: &str) -> Option<Action> {
    let standing = pod::condition(pod, "PodScheduled");
    if standing.is_some_and(|c| c.status == "False" && c.message.as_deref() == Some(why)) {
        return None;
    }
    let since = standing.filter(|c| c.status == "False").and_then(|c| c.last_transition_time.clone());
    let mut status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    conditions.retain(|c| c.type_ != "PodScheduled");
    conditions.push(PodCondition {
        type_: "PodScheduled".into(),
        status: "False".into(),
        reason: Some("Unschedulable".into()),
        message: Some(why.into()),
        last_transition_time: since.or_else(|| Some(Time(now()))),
        ..PodCondition::default()
    });
    meta::status_patch(meta::pods(), &pod.metadata, pod.status.as_ref(), &status)
}
