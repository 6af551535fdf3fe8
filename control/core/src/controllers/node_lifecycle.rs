//! Nodes whose agents went silent: not ready, tainted, their pods not ready and, after their tolerations, evicted.
//! Source: <https://kubernetes.io/docs/concepts/architecture/nodes/>.

use std::sync::Arc;
use std::time::Duration;

use copepod_api::names::{TAINT_NOT_READY, TAINT_UNREACHABLE};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod, PodCondition, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::meta::{self, text};
use super::pod;
use super::{Action, Plan, Propagation, Target};

/// How long a node may be silent.
pub const GRACE: Duration = Duration::from_secs(40);
/// How long pods that say nothing about it stay on a node that is unreachable or not ready, as upstream's admission
/// writes into them.
pub const DEFAULT_TOLERATION_SECONDS: i64 = 300;

/// The conditions that nobody can vouch for when the agent is silent.
const WATCHED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// Decides for one node. `last_heartbeat` is when the server last saw it renew its Lease, by the server's own clock.
pub fn reconcile(node: &Node, last_heartbeat: Timestamp, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let mut plan = Plan::nothing("heartbeats come");
    if node.metadata.deletion_timestamp.is_some() {
        return Plan::nothing("being deleted");
    }
    let silent = now.duration_since(last_heartbeat);
    let silent = Duration::try_from(silent).unwrap_or_default();
    let name = text(&node.metadata.name);
    let ready = if silent > GRACE {
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
    let taints = taints(node, ready, now);
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
    if ready != "True" {
        plan.actions.extend(here().filter_map(|p| not_ready(p, now)));
    }
    for pod in here().filter(|p| !pod::terminating(p) && !pod::terminal(p)) {
        match eviction(pod, &taints, now) {
            Some(Duration::ZERO) => plan.actions.push(Action::Delete {
                target: Target::new(meta::pods(), text(&pod.metadata.namespace), text(&pod.metadata.name)),
                propagation: Propagation::Background,
                uid: pod.metadata.uid.clone(),
                grace: None,
            }),
            Some(wait) => plan.requeue(wait),
            None => {}
        }
    }
    plan
}

/// The deletions of pods bound to a node that is no more: nobody is there to end them.
pub fn node_gone(name: &str, pods: &[Arc<Pod>]) -> Plan {
    let mut plan = Plan::nothing("the node is gone");
    plan.actions = pods
        .iter()
        .filter(|p| pod::node_name(p) == name)
        .map(|p| Action::Delete {
            target: Target::new(meta::pods(), text(&p.metadata.namespace), text(&p.metadata.name)),
            propagation: Propagation::Background,
            uid: p.metadata.uid.clone(),
            grace: Some(0),
        })
        .collect();
    plan
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
            None => conditions.push(unknown),
        }
    }
    meta::status_patch(meta::v1("", "nodes"), &node.metadata, node.status.as_ref(), &status)
}

/// The node's taints with ours as its readiness asks for; a standing taint keeps its time.
fn taints(node: &Node, ready: &str, now: Timestamp) -> Vec<Taint> {
    let current = node.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    let wanted = match ready {
        "True" => None,
        "Unknown" => Some(TAINT_UNREACHABLE),
        _ => Some(TAINT_NOT_READY),
    };
    let ours = |t: &Taint| [TAINT_UNREACHABLE, TAINT_NOT_READY].contains(&t.key.as_str());
    let mut taints: Vec<Taint> = current.into_iter().filter(|t| !ours(t) || Some(t.key.as_str()) == wanted).collect();
    for effect in ["NoSchedule", "NoExecute"] {
        let Some(key) = wanted else { break };
        if !taints.iter().any(|t| t.key == key && t.effect == effect) {
            taints.push(Taint { key: key.into(), effect: effect.into(), value: None, time_added: Some(Time(now)) });
        }
    }
    taints
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
mod tests {
    use super::super::testing::*;
    use super::*;

    fn node(ready: &str, taints: &str) -> Node {
        yaml(&format!(
            "metadata: {{name: n1, uid: n1}}\nspec: {{taints: {taints}}}\nstatus: {{conditions: [{{type: Ready, status: '{ready}'}}]}}"
        ))
    }

    fn pod_here(tolerations: &str) -> Arc<Pod> {
        let mut pod = pod_yaml("p", "");
        pod.spec = Some(yaml(&format!("{{nodeName: n1, containers: [], tolerations: {tolerations}}}")));
        pod.status = Some(pod_status("Running", Some(-1000)));
        Arc::new(pod)
    }

    fn keys(plan: &Plan) -> Vec<String> {
        let patch = plan.actions.iter().find_map(|a| match a {
            Action::Patch { target, patch, .. } if target.gvr.resource == "nodes" => Some(patch.clone()),
            _ => None,
        });
        let taints = patch.map(|p| p["spec"]["taints"].as_array().cloned().unwrap_or_default()).unwrap_or_default();
        taints
            .iter()
            .map(|t| {
                format!(
                    "{}:{}",
                    t["key"].as_str().unwrap().trim_start_matches("node.kubernetes.io/"),
                    t["effect"].as_str().unwrap()
                )
            })
            .collect()
    }

    #[test]
    fn silence() {
        let plan = reconcile(&node("True", "[]"), at(-39), &[pod_here("[]")], now());
        assert!(plan.is_empty());
        assert_eq!(plan.requeue_after, Some(Duration::from_secs(2)));

        let plan = reconcile(&node("True", "[]"), at(-41), &[pod_here("[]")], now());
        let Some(Action::Patch { patch, .. }) = &plan.status else { panic!("{plan:?}") };
        assert_eq!(patch["status"]["conditions"][0]["status"], json!("Unknown"));
        assert_eq!(keys(&plan), ["unreachable:NoSchedule", "unreachable:NoExecute"]);
        let unready = plan
            .actions
            .iter()
            .any(|a| matches!(a, Action::Patch { target, subresource: "status", .. } if target.name == "p"));
        assert!(unready, "{plan:?}");
        assert_eq!(plan.requeue_after, Some(Duration::from_secs(300)), "the default toleration");
    }

    #[test]
    fn taints_follow_readiness() {
        let tainted = "[{key: node.kubernetes.io/unreachable, effect: NoExecute}, {key: mine, effect: NoSchedule}]";
        assert_eq!(keys(&reconcile(&node("True", tainted), now(), &[], now())), ["mine:NoSchedule"]);
        assert_eq!(
            keys(&reconcile(&node("False", "[]"), now(), &[], now())),
            ["not-ready:NoSchedule", "not-ready:NoExecute"]
        );
    }

    #[test]
    fn evictions() {
        let taint = |since: i64| {
            format!(
                "[{{key: node.kubernetes.io/unreachable, effect: NoSchedule}}, {{key: node.kubernetes.io/unreachable, effect: NoExecute, timeAdded: '{}'}}]",
                at(since)
            )
        };
        let tolerate = |seconds: &str| {
            format!("[{{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute{seconds}}}]")
        };
        // (taint's age, tolerations, evicted)
        let cases = [
            (-299, "[]".to_string(), false),
            (-301, "[]".to_string(), true),
            (-11, tolerate(", tolerationSeconds: 10"), true),
            (-9, tolerate(", tolerationSeconds: 10"), false),
            (-9999, tolerate(""), false),
        ];
        for (age, tolerations, evicted) in cases {
            let plan = reconcile(&node("Unknown", &taint(age)), at(-500), &[pod_here(&tolerations)], now());
            let deletes = plan.actions.iter().filter(|a| matches!(a, Action::Delete { .. })).count();
            assert_eq!(deletes == 1, evicted, "{age} {tolerations}");
        }
        assert_eq!(node_gone("n1", &[pod_here("[]")]).actions.len(), 1);
        assert!(node_gone("n2", &[pod_here("[]")]).is_empty());
    }
}
