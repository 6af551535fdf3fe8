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

    /// The decision where nodes that fail may drive their pods out.
    fn reconcile(node: &Node, heard: Timestamp, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
        super::reconcile(node, heard, Permission::Granted, pods, now)
    }

    fn told(plan: &Plan) -> Vec<String> {
        let line = |(meta, note): (ObjectMeta, Note)| {
            let mark = if note.warning { "!" } else { "" };
            format!("{}{mark} {}: {}", text(&meta.name), note.reason, note.message)
        };
        pod_notes(plan).into_iter().map(line).collect()
    }

    #[test]
    fn silence() {
        let plan = reconcile(&node("True", "[]"), at(-49), &[pod_here("[]")], now());
        assert!(plan.is_empty());
        assert_eq!(plan.requeue_after, Some(Duration::from_secs(2)));

        let plan = reconcile(&node("True", "[]"), at(-51), &[pod_here("[]")], now());
        let Some(Action::Patch { patch, .. }) = &plan.status else { panic!("{plan:?}") };
        assert_eq!(patch["status"]["conditions"][0]["status"], json!("Unknown"));
        assert_eq!(keys(&plan), ["unreachable:NoSchedule", "unreachable:NoExecute"]);
        let unready = plan
            .actions
            .iter()
            .any(|a| matches!(a, Action::Patch { target, subresource: "status", .. } if target.name == "p"));
        assert!(unready, "{plan:?}");
        assert_eq!(told(&plan), ["p! NodeNotReady: Node is not ready"]);
        assert_eq!(plan.requeue_after, Some(Duration::from_secs(300)), "the default toleration");
    }

    #[test]
    fn an_agent_that_is_back_speaks_for_its_pods() {
        let tainted = "[{key: node.kubernetes.io/unreachable, effect: NoSchedule}, \
            {key: node.kubernetes.io/unreachable, effect: NoExecute, timeAdded: '2020-01-01T00:00:00Z'}]";
        let stays = "[{operator: Exists}]";
        for status in ["Unknown", "False"] {
            let plan = reconcile(&node(status, tainted), at(-1), &[pod_here(stays)], now());
            assert!(plan.actions.iter().all(|a| a.target().gvr.resource != "pods"), "{status}: {plan:?}");
        }
        let plan = reconcile(&node("Unknown", tainted), at(-51), &[pod_here(stays)], now());
        assert!(plan.actions.iter().any(|a| a.target().gvr.resource == "pods"), "{plan:?}");
    }

    #[test]
    fn what_was_never_said_is_told_from_what_is_said_no_more() {
        let mut node = node("True", "[]");
        node.metadata.creation_timestamp = Some(Time(at(-50)));
        let plan = reconcile(&node, at(-51), &[], now());
        let Some(Action::Patch { patch, .. }) = &plan.status else { panic!("{plan:?}") };
        let conditions = patch["status"]["conditions"].as_array().unwrap();
        let told: Vec<[&str; 3]> =
            conditions.iter().map(|c| ["type", "reason", "message"].map(|f| c[f].as_str().unwrap())).collect();
        let never = |kind| [kind, "NodeStatusNeverUpdated", "Kubelet never posted node status."];
        let stopped = ["Ready", "NodeStatusUnknown", "Kubelet stopped posting node status."];
        assert_eq!(told, [stopped, never("MemoryPressure"), never("DiskPressure"), never("PIDPressure")]);
        assert_eq!(conditions[1]["lastHeartbeatTime"], json!(Time(at(-50))), "since the node is there");
    }

    #[test]
    fn taints_follow_readiness() {
        let tainted = "[{key: node.kubernetes.io/unreachable, effect: NoExecute}, {key: mine, effect: NoSchedule}]";
        assert_eq!(keys(&reconcile(&node("True", tainted), now(), &[], now())), ["mine:NoSchedule"]);
        assert_eq!(
            keys(&reconcile(&node("False", "[]"), now(), &[], now())),
            ["not-ready:NoSchedule", "not-ready:NoExecute"]
        );
        // A taint of the user's that drives pods out is given its time, once.
        let plan = reconcile(&node("True", "[{key: mine, effect: NoExecute}]"), now(), &[], now());
        let Some(Action::Patch { patch, .. }) = plan.actions.first() else { panic!("{plan:?}") };
        let stamped = patch["spec"]["taints"].clone();
        assert!(stamped[0]["timeAdded"].is_string(), "{stamped}");
        assert!(reconcile(&node("True", &stamped.to_string()), at(5), &[], at(9)).is_empty());
    }

    #[test]
    fn pods_are_driven_out_where_it_is_permitted() {
        let tainted = "[{key: node.kubernetes.io/unreachable, effect: NoSchedule}, \
            {key: node.kubernetes.io/unreachable, effect: NoExecute}]";
        // (taints, permission, taints that are written, asks again)
        let cases: [(&str, Permission, &[&str], Option<u64>); 4] = [
            ("[]", Permission::Refused, &["unreachable:NoSchedule"], None),
            ("[]", Permission::After(Duration::from_secs(7)), &["unreachable:NoSchedule"], Some(7)),
            ("[]", Permission::Granted, &["unreachable:NoSchedule", "unreachable:NoExecute"], None),
            (tainted, Permission::Spared, &["unreachable:NoSchedule"], None),
        ];
        for (taints, permission, expected, again) in cases {
            let plan = super::reconcile(&node("Unknown", taints), at(-99), permission, &[], now());
            assert_eq!(keys(&plan), expected, "{permission:?}");
            assert_eq!(plan.requeue_after, again.map(Duration::from_secs), "{permission:?}");
        }
    }

    #[test]
    fn taints_follow_cordons_and_pressure() {
        let node = |spec: &str, pressed: &str| -> Node {
            yaml(&format!(
                "metadata: {{name: n1, uid: n1}}\nspec: {{{spec}}}\nstatus: {{conditions: [{{type: Ready, status: 'True'}}, \
                 {{type: {pressed}, status: 'True'}}]}}"
            ))
        };
        let cordoned = "taints: [{key: node.kubernetes.io/unschedulable, effect: NoSchedule}, \
            {key: node.kubernetes.io/unschedulable, effect: PreferNoSchedule}]";
        // (spec, the condition that holds, taints written)
        let cases: [(&str, &str, &[&str]); 7] = [
            ("", "Fine", &[]),
            ("unschedulable: true", "Fine", &["unschedulable:NoSchedule"]),
            (cordoned, "Fine", &["unschedulable:PreferNoSchedule"]),
            ("", "MemoryPressure", &["memory-pressure:NoSchedule"]),
            ("", "DiskPressure", &["disk-pressure:NoSchedule"]),
            ("", "PIDPressure", &["pid-pressure:NoSchedule"]),
            (
                "unschedulable: true",
                "NetworkUnavailable",
                &["unschedulable:NoSchedule", "network-unavailable:NoSchedule"],
            ),
        ];
        for (spec, pressed, expected) in cases {
            assert_eq!(keys(&reconcile(&node(spec, pressed), now(), &[], now())), expected, "{spec} {pressed}");
        }
        let standing = format!("unschedulable: true, {cordoned}");
        assert!(reconcile(&node(&standing, "Fine"), now(), &[], now()).is_empty());
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
        let both = |first: &str, second: &str| {
            let one = |seconds: &str| format!("{{operator: Exists, tolerationSeconds: {seconds}}}");
            format!("[{}, {}]", one(first), one(second))
        };
        let any_and =
            |seconds: &str| format!("[{{operator: Exists}}, {{operator: Exists, tolerationSeconds: {seconds}}}]");
        // (taint's age, tolerations, evicted)
        let cases = [
            (-299, "[]".to_string(), false),
            (-301, "[]".to_string(), true),
            (-11, tolerate(", tolerationSeconds: 10"), true),
            (-9, tolerate(", tolerationSeconds: 10"), false),
            (-9999, tolerate(""), false),
            // Of several that match the shortest counts, and those without a limit do not.
            (-11, both("10", "1000"), true),
            (-11, both("1000", "10"), true),
            (-9, both("10", "1000"), false),
            (-11, any_and("10"), true),
            (-9, any_and("10"), false),
            (-9999, any_and("10000"), false),
            // No time at all.
            (0, tolerate(", tolerationSeconds: 0"), true),
            (0, tolerate(", tolerationSeconds: -60"), true),
            (0, both("0", "1000"), true),
            // What does not match does not count.
            (-11, "[{key: mine, operator: Exists, tolerationSeconds: 10}]".to_string(), false),
            (-301, "[{key: mine, operator: Exists, tolerationSeconds: 1000}]".to_string(), true),
        ];
        for (age, tolerations, evicted) in cases {
            let mut pod = pod_here(&tolerations);
            let plan =
                |pod: &Arc<Pod>| reconcile(&node("Unknown", &taint(age)), at(-500), std::slice::from_ref(pod), now());
            let decide = |pod: &Arc<Pod>| plan(pod).actions.into_iter().rfind(|a| a.target().gvr.resource == "pods");
            // First the condition that says why, then the deletion.
            let said = decide(&pod);
            let reason = match &said {
                Some(Action::Patch { patch, .. }) => patch.pointer("/status/conditions/1/reason").cloned(),
                other => panic!("{age} {tolerations}: {other:?}"),
            };
            assert_eq!(reason.is_some_and(|r| r == "DeletionByTaintManager"), evicted, "{age} {tolerations}");
            pod::doom(Arc::make_mut(&mut pod).status.as_mut().unwrap(), "DeletionByTaintManager", "", now());
            assert_eq!(matches!(decide(&pod), Some(Action::Delete { .. })), evicted, "{age} {tolerations}");
            let last = evicted.then(|| "p TaintManagerEviction: Marking for deletion Pod shop/p".to_string());
            assert_eq!(told(&plan(&pod)).into_iter().find(|t| t.contains("Marking")), last, "{age} {tolerations}");
        }
    }

    #[test]
    fn of_two_taints_the_one_that_drives_a_pod_out_sooner_counts() {
        let tolerate = |key: &str, seconds: &str| format!("{{key: {key}, operator: Exists{seconds}}}");
        let (a, b) = (|s: &str| tolerate("a", s), |s: &str| tolerate("b", s));
        // (ages of the taints `a` and `b`, tolerations, how long it stays)
        let cases = [
            (-5, -5, vec![], Some(0)),
            (-5, -5, vec![a("")], Some(0)),
            (-5, -5, vec![a(""), b("")], None),
            (-5, -5, vec![a(""), b(", tolerationSeconds: 30")], Some(25)),
            (-5, -5, vec![a(", tolerationSeconds: 20"), b(", tolerationSeconds: 30")], Some(15)),
            (-5, -20, vec![a(", tolerationSeconds: 20"), b(", tolerationSeconds: 30")], Some(10)),
            (-25, -5, vec![a(", tolerationSeconds: 20"), b("")], Some(0)),
            (-5, -5, vec![a(", tolerationSeconds: 20"), b(", tolerationSeconds: 0")], Some(0)),
        ];
        for (age_a, age_b, tolerations, expected) in cases {
            let taint = |key: &str, age| format!("{{key: {key}, effect: NoExecute, timeAdded: '{}'}}", at(age));
            let node = node("True", &format!("[{}, {}]", taint("a", age_a), taint("b", age_b)));
            let told = format!("{age_a} {age_b} {tolerations:?}");
            let plan = reconcile(&node, now(), &[pod_here(&format!("[{}]", tolerations.join(", ")))], now());
            let goes = plan.actions.iter().any(|a| a.target().gvr.resource == "pods");
            assert_eq!(goes, expected == Some(0), "{told}");
            // Without a taint that ends, only the next heartbeat is waited for.
            let wait = expected.filter(|left| *left > 0).unwrap_or(GRACE.as_secs() + 1);
            assert_eq!(plan.requeue_after, Some(Duration::from_secs(wait)), "{told}");
        }
    }
}
