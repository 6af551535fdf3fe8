//! Nodes and their taints: those that cannot or must not have pods say so, and pods that do not tolerate it go. An agent
//! that went silent leaves its node and the pods there not ready.
//! Source: <https://kubernetes.io/docs/concepts/architecture/nodes/>.

use std::sync::Arc;
use std::time::Duration;

use copepod_api::names::{TAINT_NOT_READY, TAINT_UNREACHABLE};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, PodCondition, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};

use super::meta::{self, text};
use super::node_zones::Permission;
use super::pod;
use super::{Action, Note, Plan, Propagation, Target};

/// How long a node may be silent.
pub const GRACE: Duration = Duration::from_secs(50);
/// How long pods that say nothing about it stay on a node that is unreachable or not ready, as upstream's admission
/// writes into them.
pub const DEFAULT_TOLERATION_SECONDS: i64 = 300;

/// Conditions that keep pods away where they are True, and the taints by which they do.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
/// The taint of a node that is cordoned.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// The conditions that nobody can vouch for when the agent is silent.
const WATCHED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Decides for one node. `last_heartbeat` is when the server last saw it renew its Lease, by the server's own clock;
/// `permission`, if it is not ready, whether it may drive its pods out; `pods` are those on the node, others change
/// nothing.
pub fn reconcile(
    node: &Node,
    last_heartbeat: Timestamp,
    permission: Permission,
    pods: &[Arc<Pod>],
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::nothing("heartbeats come");
    if node.metadata.deletion_timestamp.is_some() {
        return Plan::nothing("being deleted");
    }
    let silent = now.duration_since(last_heartbeat);
    let silent = Duration::try_from(silent).unwrap_or_default();
    let name = text(&node.metadata.name);
    let is_silent = silent > GRACE;
    let ready = if is_silent {
        plan.why = format!("no heartbeat for {} s", silent.as_secs());
        if let Some(status) = unknown_status(node, now) {
            plan.note("NodeNotReady", format!("Node {name} status is now: NodeNotReady"));
            plan.status = Some(status);
        }
        "Unknown"
    } else {
        plan.requeue(GRACE.saturating_sub(silent) + Duration::from_secs(1));
        condition(node, "Ready").map_or("False", |c| c.status.as_str())
    };
    let taints = taints(node, ready, permission == Permission::Granted, now);
    if let (false, Permission::After(wait)) = (ready == "True", permission) {
        plan.requeue(wait);
    }
    if taints != node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default() {
        plan.actions.push(Action::Patch {
            target: Target::new(meta::v1("", "nodes"), "", name),
            subresource: "",
            patch: json!({
                "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
                "spec": {"taints": taints},
            }),
        });
    }
    let here = || pods.iter().filter(|p| pod::node_name(p) == name);
    // An agent that is there speaks for its pods, whatever its node still says: two who both did would never end.
    if is_silent {
        plan.actions.extend(here().filter_map(|p| not_ready(p, now)));
    }
    for pod in here().filter(|p| !pod::terminating(p) && !pod::terminal(p)) {
        match eviction(pod, &taints, now) {
            // First it is said why, so that whoever looks at the pod's end knows.
            Some(Duration::ZERO) => plan.actions.extend(doom(pod, now).or_else(|| Some(delete(pod)))),
            Some(wait) => plan.requeue(wait),
            None => {}
        }
    }
    plan
}

/// What is to be told of pods once a plan was carried out: of those that go, and of those whose node is lost.
pub fn pod_notes(plan: &Plan) -> Vec<(ObjectMeta, Note)> {
    let note = |action: &Action| {
        let Target { namespace, name, .. } = action.target();
        let meta = |uid| ObjectMeta {
            namespace: Some(namespace.clone()),
            name: Some(name.clone()),
            uid,
            ..ObjectMeta::default()
        };
        match action {
            Action::Delete { uid, .. } => {
                let message = format!("Marking for deletion Pod {namespace}/{name}");
                Some((meta(uid.clone()), Note { warning: false, reason: "TaintManagerEviction", message }))
            }
            Action::Patch { target, subresource: "status", patch } if target.gvr == meta::pods() => {
                let conditions = patch.pointer("/status/conditions").and_then(Value::as_array);
                let dooms = conditions
                    .into_iter()
                    .flatten()
                    .any(|c| c.get("type").and_then(Value::as_str) == Some(pod::DISRUPTION_TARGET));
                let uid = patch.pointer("/metadata/uid").and_then(Value::as_str).map(Into::into);
                let message = "Node is not ready".into();
                (!dooms).then(|| (meta(uid), Note { warning: true, reason: "NodeNotReady", message }))
            }
            _ => None,
        }
    };
    plan.actions.iter().filter_map(note).collect()
}

fn delete(pod: &Pod) -> Action {
    Action::Delete {
        target: Target::new(meta::pods(), text(&pod.metadata.namespace), text(&pod.metadata.name)),
        propagation: Propagation::Background,
        uid: pod.metadata.uid.clone(),
        grace: None,
    }
}

/// The status of a pod that is about to go for its node's taints; `None` if it says so.
fn doom(pod: &Pod, now: Timestamp) -> Option<Action> {
    if pod::condition(pod, pod::DISRUPTION_TARGET).is_some_and(|c| c.status == "True") {
        return None;
    }
    let mut status = pod.status.clone().unwrap_or_default();
    pod::doom(&mut status, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", now);
    meta::status_patch(meta::pods(), &pod.metadata, pod.status.as_ref(), &status)
}

fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

fn unknown_status(node: &Node, now: Timestamp) -> Option<Action> {
    let mut status = node.status.clone().unwrap_or_default();
    let conditions = status.conditions.get_or_insert_default();
    for kind in WATCHED {
        let mut unknown = NodeCondition {
            type_: kind.into(),
            status: "Unknown".into(),
            reason: Some("NodeStatusUnknown".into()),
            message: Some("Kubelet stopped posting node status.".into()),
            last_heartbeat_time: None,
            last_transition_time: Some(Time(now)),
        };
        match conditions.iter_mut().find(|c| c.type_ == kind) {
            Some(c) if c.status == "Unknown" => {}
            Some(c) => {
                unknown.last_heartbeat_time = c.last_heartbeat_time.clone();
                *c = unknown;
            }
            None => conditions.push(NodeCondition {
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                ..unknown
            }),
        }
    }
    meta::status_patch(meta::v1("", "nodes"), &node.metadata, node.status.as_ref(), &status)
}

/// The node's taints with ours as its state asks for; a standing taint keeps its time, and one that drives pods out
/// gets one.
fn taints(node: &Node, ready: &str, drives: bool, now: Timestamp) -> Vec<Taint> {
    let current = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let wanted = wanted(node, ready, drives);
    let ours = |t: &Taint| {
        let pressure = t.key == UNSCHEDULABLE || PRESSURES.iter().any(|(_, key)| *key == t.key);
        [TAINT_UNREACHABLE, TAINT_NOT_READY].contains(&t.key.as_str()) || (pressure && t.effect == "NoSchedule")
    };
    let is_wanted = |t: &Taint| wanted.contains(&(t.key.as_str(), t.effect.as_str()));
    let mut taints: Vec<Taint> = current.into_iter().filter(|t| !ours(t) || is_wanted(t)).collect();
    for (key, effect) in &wanted {
        if !taints.iter().any(|t| t.key == *key && t.effect == *effect) {
            let time_added = Some(Time(now));
            taints.push(Taint { key: (*key).into(), effect: (*effect).into(), value: None, time_added });
        }
    }
    for taint in taints.iter_mut().filter(|t| t.effect == "NoExecute") {
        taint.time_added.get_or_insert(Time(now));
    }
    taints
}

/// Keys and effects of the taints that the node's state asks for.
fn wanted(node: &Node, ready: &str, drives: bool) -> Vec<(&'static str, &'static str)> {
    let failing = match ready {
        "True" => None,
        "Unknown" => Some(TAINT_UNREACHABLE),
        _ => Some(TAINT_NOT_READY),
    };
    let mut wanted: Vec<_> = failing.iter().map(|key| (*key, "NoSchedule")).collect();
    wanted.extend(failing.filter(|_| drives).map(|key| (key, "NoExecute")));
    if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
        wanted.push((UNSCHEDULABLE, "NoSchedule"));
    }
    let pressed = |kind: &str| condition(node, kind).is_some_and(|c| c.status == "True");
    wanted.extend(PRESSURES.iter().filter(|(kind, _)| pressed(kind)).map(|(_, key)| (*key, "NoSchedule")));
    wanted
}

fn not_ready(pod: &Pod, now: Timestamp) -> Option<Action> {
    if !pod::ready(pod) {
        return None;
    }
    let mut status = pod.status.clone().unwrap_or_default();
    for c in status.conditions.iter_mut().flatten().filter(|c| c.type_ == "Ready") {
        *c = PodCondition { status: "False".into(), last_transition_time: Some(Time(now)), ..c.clone() };
    }
    meta::status_patch(meta::pods(), &pod.metadata, pod.status.as_ref(), &status)
}

/// How long the pod may still stay under these taints; `None` for ever.
fn eviction(pod: &Pod, taints: &[Taint], now: Timestamp) -> Option<Duration> {
    let tolerations: Vec<&Toleration> = pod.spec.iter().flat_map(|s| s.tolerations.iter().flatten()).collect();
    let mut soonest: Option<Duration> = None;
    for taint in taints.iter().filter(|t| t.effect == "NoExecute") {
        let matching: Vec<&&Toleration> = tolerations.iter().filter(|t| tolerates(t, taint)).collect();
        let known = [TAINT_UNREACHABLE, TAINT_NOT_READY].contains(&taint.key.as_str());
        let seconds = if matching.is_empty() {
            Some(if known { DEFAULT_TOLERATION_SECONDS } else { 0 })
        } else {
            // Tolerations without a limit do not count against those with one.
            matching.iter().filter_map(|t| t.toleration_seconds).map(|s| s.max(0)).min()
        };
        let Some(seconds) = seconds else { continue };
        let since = taint.time_added.as_ref().map_or(now, |t| t.0);
        let left = since.as_second().saturating_add(seconds).saturating_sub(now.as_second());
        let left = Duration::from_secs(u64::try_from(left).unwrap_or(0));
        soonest = Some(soonest.map_or(left, |s| s.min(left)));
    }
    soonest
}

/// Whether a toleration matches a taint.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    let matches_value = match toleration.operator.as_deref().unwrap_or("Equal") {
        "Exists" => true,
        "Equal" | "" => toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
        _ => false,
    };
    (effect.is_empty() || effect == taint.effect) && (key.is_empty() || key == taint.key) && matches_value
}

#[cfg(test)]
#[path = "node_lifecycle_tests.rs"]
mod tests;
