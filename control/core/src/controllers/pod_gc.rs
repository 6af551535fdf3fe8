//! Pods that nobody ends any more: those of nodes that are gone or out of service, those that were never placed, and the
//! oldest of too many that ended.
//! Source: <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-garbage-collection>.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};

use super::meta::{self, text};
use super::pod;
use super::{Action, Plan, Propagation, Target};

/// How many ended pods may stay, as upstream's default.
pub const TERMINATED_THRESHOLD: usize = 12_500;
/// How long a node may be missing before its pods go.
pub const QUARANTINE: Duration = Duration::from_secs(40);
/// How often to look.
pub const PERIOD: Duration = Duration::from_secs(20);
/// The taint by which an administrator says that a node is down for good.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// What is to be done, one after the other.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Pods that have not ended are said to have failed, so that their controllers count them.
    pub marks: Plan,
    /// They go.
    pub deletes: Plan,
}

/// The nodes to which pods are bound and that are not there.
pub fn missing_nodes(pods: &[Arc<Pod>], exists: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let bound: BTreeSet<&str> = pods.iter().map(|p| pod::node_name(p)).filter(|n| !n.is_empty()).collect();
    bound.into_iter().filter(|node| !exists(node)).map(Into::into).collect()
}

/// Decides for all pods. `gone` are nodes that are gone for certain, `threshold` is how many ended pods may stay (0: all).
pub fn sweep(
    pods: &[Arc<Pod>],
    node: impl Fn(&str) -> Option<Arc<Node>>,
    gone: &BTreeSet<String>,
    threshold: usize,
    now: Timestamp,
) -> Sweep {
    let mut sweep = Sweep::default();
    let mut ended: Vec<&Arc<Pod>> = Vec::new();
    for pod in pods {
        let name = pod::node_name(pod);
        if gone.contains(name) {
            sweep.end(pod, Some(("DeletionByPodGC", "PodGC: node no longer exists")), now);
        } else if pod::terminating(pod) && (name.is_empty() || node(name).is_some_and(|n| out_of_service(&n))) {
            sweep.end(pod, None, now);
        } else if pod::terminal(pod) {
            ended.push(pod);
        }
    }
    if threshold > 0 && ended.len() > threshold {
        let excess = ended.len() - threshold;
        ended.sort_by_cached_key(|pod| {
            let meta = &pod.metadata;
            (!evicted(pod), meta.creation_timestamp.as_ref().map(|t| t.0), meta.name.clone())
        });
        ended.iter().take(excess).for_each(|pod| sweep.end(pod, None, now));
    }
    let count = sweep.deletes.actions.len();
    sweep.deletes.why = format!("{count} pods that nobody ends");
    sweep.marks.why.clone_from(&sweep.deletes.why);
    sweep
}

impl Sweep {
    /// Ends a pod at once, for a reason that its condition tells.
    fn end(&mut self, pod: &Pod, reason: Option<(&str, &str)>, now: Timestamp) {
        let meta = &pod.metadata;
        if !pod::terminal(pod) {
            let mut status = pod.status.clone().unwrap_or_default();
            status.phase = Some("Failed".into());
            if let Some((reason, message)) = reason {
                pod::doom(&mut status, reason, message, now);
            }
            self.marks.actions.extend(meta::status_patch(meta::pods(), meta, pod.status.as_ref(), &status));
        }
        // One whose time is over waits for others' finalizers alone.
        if !(pod::terminating(pod) && meta.deletion_grace_period_seconds == Some(0)) {
            self.deletes.actions.push(Action::Delete {
                target: Target::new(meta::pods(), text(&meta.namespace), text(&meta.name)),
                propagation: Propagation::Background,
                uid: meta.uid.clone(),
                grace: Some(0),
            });
        }
    }
}

fn out_of_service(node: &Node) -> bool {
    let ready = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let is_ready = ready.into_iter().any(|c| c.type_ == "Ready" && c.status == "True");
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_ref());
    !is_ready && taints.is_some_and(|t| t.iter().any(|t| t.key == OUT_OF_SERVICE))
}

fn evicted(pod: &Pod) -> bool {
    let reason = pod.status.as_ref().and_then(|s| s.reason.as_deref());
    pod::phase(pod) == "Failed" && reason == Some("Evicted")
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;
    use serde_json::json;

    fn pod(name: &str, metadata: &str, node: &str, phase: &str, reason: &str) -> Arc<Pod> {
        let mut pod = pod_yaml(name, metadata);
        pod.spec = Some(yaml(&format!("{{nodeName: '{node}', containers: []}}")));
        let mut status = pod_status(phase, Some(-5));
        status.reason = Some(reason.into());
        pod.status = Some(status);
        Arc::new(pod)
    }

    fn node(ready: &str, taints: &str) -> Arc<Node> {
        Arc::new(yaml(&format!(
            "metadata: {{name: n1}}\nspec: {{taints: {taints}}}\nstatus: {{conditions: [{{type: Ready, status: '{ready}'}}]}}"
        )))
    }

    fn names(plan: &Plan) -> Vec<&str> {
        plan.actions.iter().map(|a| a.target().name.as_str()).collect()
    }

    #[test]
    fn who_goes() {
        let going = "deletionTimestamp: '2026-01-01T00:00:00Z', deletionGracePeriodSeconds: 30";
        let held = "deletionTimestamp: '2026-01-01T00:00:00Z', deletionGracePeriodSeconds: 0, finalizers: [x/y]";
        let here = node("True", "[]");
        let down = node("Unknown", "[{key: node.kubernetes.io/out-of-service, effect: NoExecute}]");
        let taint_alone = node("True", "[{key: node.kubernetes.io/out-of-service, effect: NoExecute}]");
        let silent = node("Unknown", "[{key: node.kubernetes.io/unreachable, effect: NoExecute}]");
        // (case, metadata, node's name, the node, phase, marked as failed, deleted)
        let cases = [
            ("at work", "", "n1", Some(&here), "Running", false, false),
            ("its node is gone", "", "lost", None, "Running", true, true),
            ("ended, its node is gone", "", "lost", None, "Succeeded", false, true),
            ("held, its node is gone", held, "lost", None, "Failed", false, false),
            ("held and not marked", held, "lost", None, "Running", true, false),
            ("the node is not known yet", "", "new", None, "Running", false, false),
            ("going, never placed", going, "", None, "Pending", true, true),
            ("waits for a place", "", "", None, "Pending", false, false),
            ("going on a node out of service", going, "n1", Some(&down), "Running", true, true),
            ("not going there", "", "n1", Some(&down), "Running", false, false),
            ("going on a ready node", going, "n1", Some(&taint_alone), "Running", false, false),
            ("going on a silent node", going, "n1", Some(&silent), "Running", false, false),
        ];
        for (name, metadata, node_name, node, phase, marked, deleted) in cases {
            let pods = [pod("p", metadata, node_name, phase, "")];
            let gone = BTreeSet::from(["lost".to_string()]);
            let sweep = sweep(&pods, |_| node.cloned(), &gone, 1, now());
            assert_eq!((names(&sweep.marks).len() == 1, names(&sweep.deletes).len() == 1), (marked, deleted), "{name}");
            let Some(Action::Patch { patch, .. }) = sweep.marks.actions.first() else { continue };
            assert_eq!(patch["status"]["phase"], json!("Failed"), "{name}");
            let reason = patch.pointer("/status/conditions/1/reason").cloned();
            assert_eq!(reason, (node_name == "lost").then(|| json!("DeletionByPodGC")), "{name}");
        }
    }

    #[test]
    fn nodes_are_missing_where_pods_name_them() {
        let pods =
            [pod("a", "", "n1", "Running", ""), pod("b", "", "n2", "Running", ""), pod("c", "", "", "Pending", "")];
        assert_eq!(missing_nodes(&pods, |n| n == "n1"), BTreeSet::from(["n2".to_string()]));
    }

    #[test]
    fn the_oldest_of_too_many_that_ended() {
        let ended = |name: &str, day: u32, reason: &str| {
            let phase = if reason.is_empty() { "Succeeded" } else { "Failed" };
            pod(name, &format!("creationTimestamp: '2026-01-{day:02}T00:00:00Z'"), "n1", phase, reason)
        };
        let pods = [
            ended("new", 9, ""),
            ended("b", 3, ""),
            ended("a", 3, ""),
            ended("evicted", 8, "Evicted"),
            pod("busy", "creationTimestamp: '2026-01-01T00:00:00Z'", "n1", "Running", ""),
        ];
        let none = BTreeSet::new();
        for (threshold, expected) in [(4, vec![]), (3, vec!["evicted"]), (1, vec!["evicted", "a", "b"]), (0, vec![])] {
            let sweep = sweep(&pods, |_| None, &none, threshold, now());
            assert_eq!(names(&sweep.deletes), expected, "{threshold}");
            assert!(sweep.marks.is_empty());
        }
    }
}
