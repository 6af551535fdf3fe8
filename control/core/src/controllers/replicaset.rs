//! ReplicaSet: as many active pods as asked for.
//! Source: <https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/>.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use copepod_api::LabelSelector;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::meta::{self, text};
use super::pod;
use super::{Action, Plan, Propagation, Target};

/// The most pods created or deleted in one pass, as upstream's burst; the next pass goes on.
pub const MAX_BURST: usize = 500;

/// The annotation that makes a pod cheaper (lower) or dearer to delete.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Decides for one ReplicaSet. `pods` are all pods of its namespace, `siblings` the namespace's ReplicaSets.
pub fn reconcile(set: &ReplicaSet, pods: &[Arc<Pod>], siblings: &[Arc<ReplicaSet>], now: Timestamp) -> Plan {
    let Some(spec) = &set.spec else { return Plan::nothing("no spec") };
    let selector = match LabelSelector::from_typed(Some(&spec.selector)) {
        Ok(selector) if !selector.is_empty() => selector,
        Ok(_) => return Plan::nothing("an empty selector selects nothing here"),
        Err(why) => return Plan::nothing(format!("invalid selector: {why}")),
    };
    let reference = meta::controller_ref("apps/v1", "ReplicaSet", &set.metadata);
    let alive: Vec<Arc<Pod>> = pods.iter().filter(|p| !pod::terminal(p)).cloned().collect();
    let claim = meta::claim(&set.metadata, &reference, &selector, &meta::pods(), &alive);
    let mut plan = Plan { actions: claim.actions, confirm_owner: claim.adopts, ..Plan::default() };
    let active: Vec<Arc<Pod>> = claim.owned.iter().filter(|p| pod::active(p)).cloned().collect();
    let terminating = claim.owned.len() - active.len();

    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    if set.metadata.deletion_timestamp.is_none() {
        match active.len().cmp(&wanted) {
            Ordering::Less => {
                let count = (wanted - active.len()).min(MAX_BURST);
                let object = new_pod(set, json!(reference));
                let target = Target::new(meta::pods(), text(&set.metadata.namespace), "");
                plan.actions
                    .extend((0..count).map(|_| Action::Create { target: target.clone(), object: object.clone() }));
                plan.why = format!("{} of {wanted} pods: creating {count}", active.len());
            }
            Ordering::Greater => {
                let count = (active.len() - wanted).min(MAX_BURST);
                let ranked = rank_for_deletion(set, &active, pods, siblings, now);
                plan.actions.extend(ranked.iter().take(count).map(|p| Action::Delete {
                    target: Target::new(meta::pods(), text(&p.metadata.namespace), text(&p.metadata.name)),
                    propagation: Propagation::Background,
                    uid: p.metadata.uid.clone(),
                    grace: None,
                }));
                plan.why = format!("{} of {wanted} pods: deleting {count}", active.len());
            }
            Ordering::Equal => plan.why = format!("{wanted} of {wanted} pods"),
        }
    }
    let status = status(set, &active, terminating, wanted, now, &mut plan);
    plan.status = meta::status_patch(meta::replicasets(), &set.metadata, set.status.as_ref(), &status);
    plan
}

/// The pod that a ReplicaSet's template describes, controlled by `reference`.
fn new_pod(set: &ReplicaSet, reference: Value) -> Value {
    let template = set.spec.as_ref().and_then(|s| s.template.as_ref());
    let template_meta = template.and_then(|t| t.metadata.as_ref());
    let mut metadata = json!({
        "generateName": format!("{}-", text(&set.metadata.name)),
        "ownerReferences": [reference],
    });
    if let (Some(into), Some(from)) = (metadata.as_object_mut(), template_meta) {
        for (key, value) in [
            ("labels", from.labels.as_ref().map(meta::value)),
            ("annotations", from.annotations.as_ref().map(meta::value)),
            ("finalizers", from.finalizers.as_ref().map(meta::value)),
        ] {
            if let Some(value) = value {
                into.insert(key.into(), value);
            }
        }
    }
    let spec = template.and_then(|t| t.spec.as_ref()).map(meta::value).unwrap_or_else(|| json!({}));
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

fn status(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    terminating: usize,
    wanted: usize,
    now: Timestamp,
    plan: &mut Plan,
) -> ReplicaSetStatus {
    let spec = set.spec.clone().unwrap_or_default();
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let template_labels = spec.template.and_then(|t| t.metadata).and_then(|m| m.labels).unwrap_or_default();
    let labelled = |p: &&Arc<Pod>| {
        let labels = p.metadata.labels.as_ref();
        template_labels.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
    };
    let mut available = 0;
    for wait in active.iter().filter_map(|p| pod::available_in(p, min_ready, now)) {
        if wait.is_zero() {
            available += 1;
        } else {
            plan.requeue(wait.max(Duration::from_millis(100)));
        }
    }
    let before = set.status.clone().unwrap_or_default();
    // A failure to create stays until nothing more is to be created.
    let keep_failure = active.len() < wanted;
    let conditions: Vec<ReplicaSetCondition> =
        before.conditions.into_iter().flatten().filter(|c| c.type_ != "ReplicaFailure" || keep_failure).collect();
    ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: Some(count(active.iter().filter(labelled).count())),
        ready_replicas: Some(count(active.iter().filter(|p| pod::ready(p)).count())),
        available_replicas: Some(available),
        terminating_replicas: Some(count(terminating)),
        observed_generation: set.metadata.generation,
        conditions: (!conditions.is_empty()).then_some(conditions),
    }
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// The status write that says that pods cannot be created or deleted; `None` if it says so already.
pub fn failed(set: &ReplicaSet, creating: bool, message: &str, now: Timestamp) -> Option<Action> {
    let mut status = set.status.clone().unwrap_or_default();
    let mut conditions = status.conditions.take().unwrap_or_default();
    let reason = if creating { "FailedCreate" } else { "FailedDelete" };
    if conditions.iter().any(|c| c.type_ == "ReplicaFailure" && c.reason.as_deref() == Some(reason)) {
        return None;
    }
    conditions.retain(|c| c.type_ != "ReplicaFailure");
    conditions.push(ReplicaSetCondition {
        type_: "ReplicaFailure".into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: Some(Time(now)),
    });
    status.conditions = Some(conditions);
    meta::status_patch(meta::replicasets(), &set.metadata, set.status.as_ref(), &status)
}

/// The active pods, the first to be deleted first: unbound before bound; Pending, Unknown, Running; not ready before
/// ready; lower deletion cost; more related pods on the node; ready for a shorter time; more restarts; younger. Times
/// compare by their logarithm, so that about equally old pods go in an order of their UIDs.
fn rank_for_deletion(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    pods: &[Arc<Pod>],
    siblings: &[Arc<ReplicaSet>],
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    let mut family: Vec<&str> = vec![text(&set.metadata.uid)];
    if let Some(parent) = meta::controller_of(&set.metadata) {
        let related = siblings.iter().filter(|s| meta::controlled_by(&s.metadata, &parent.uid));
        family.extend(related.map(|s| text(&s.metadata.uid)));
    }
    let mut crowd: HashMap<&str, usize> = HashMap::new();
    for p in pods.iter().filter(|p| pod::active(p)) {
        if meta::controller_of(&p.metadata).is_some_and(|owner| family.contains(&owner.uid.as_str())) {
            *crowd.entry(pod::node_name(p)).or_default() += 1;
        }
    }
    let age = |since: Option<Timestamp>| {
        since.map_or(-1, |t| {
            let seconds = now.as_second().saturating_sub(t.as_second()).max(0);
            if seconds == 0 { 0 } else { i64::from(seconds.ilog2()) + 1 }
        })
    };
    let mut ranked: Vec<_> = active
        .iter()
        .map(|p| {
            let ready = pod::ready(p);
            let cost: i64 = p
                .metadata
                .annotations
                .as_ref()
                .and_then(|a| a.get(DELETION_COST))
                .and_then(|c| c.parse().ok())
                .unwrap_or(0);
            let key = (
                !pod::node_name(p).is_empty(),
                match pod::phase(p) {
                    "Running" => 2,
                    "Unknown" => 1,
                    _ => 0,
                },
                ready,
                cost,
                std::cmp::Reverse(crowd.get(pod::node_name(p)).copied().unwrap_or(0)),
                if ready { age(pod::ready_since(p)) } else { 0 },
                std::cmp::Reverse(pod::restarts(p)),
                age(p.metadata.creation_timestamp.as_ref().map(|t| t.0)),
                p.metadata.uid.clone(),
            );
            (key, p.clone())
        })
        .collect();
    ranked.sort_by(|a, b| a.0.cmp(&b.0));
    ranked.into_iter().map(|(_, p)| p).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn set(replicas: i32) -> ReplicaSet {
        yaml(&format!(
            "metadata: {{name: web, namespace: shop, uid: rs1, generation: 2}}\n\
             spec:\n  replicas: {replicas}\n  selector: {{matchLabels: {{app: web}}}}\n  template:\n    \
             metadata: {{labels: {{app: web}}}}\n    spec: {{containers: [{{name: c, image: i}}]}}"
        ))
    }

    fn member(name: &str, extra: &str) -> Arc<Pod> {
        Arc::new(pod_yaml(
            name,
            &format!(
                "labels: {{app: web}}, ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: rs1, controller: true}}]{extra}"
            ),
        ))
    }

    #[test]
    fn creates_what_is_missing() {
        let plan = reconcile(&set(3), &[member("a", "")], &[], now());
        assert_eq!(plan.actions.len(), 2);
        let Action::Create { target, object } = &plan.actions[0] else { panic!("{plan:?}") };
        assert_eq!(target.collection_path(), "/api/v1/namespaces/shop/pods");
        assert_eq!(object.pointer("/metadata/generateName"), Some(&json!("web-")));
        assert_eq!(object.pointer("/metadata/ownerReferences/0/uid"), Some(&json!("rs1")));
        assert_eq!(object.pointer("/metadata/labels/app"), Some(&json!("web")));
        assert_eq!(object.pointer("/spec/containers/0/image"), Some(&json!("i")));
    }

    #[test]
    fn a_burst_is_bounded_and_goes_on() {
        assert_eq!(reconcile(&set(2000), &[], &[], now()).actions.len(), MAX_BURST);
    }

    #[test]
    fn deletes_the_least_useful_first() {
        let shape = |mut p: Pod, node: &str, phase: &str, ready: Option<i64>, cost: Option<&str>| {
            p.spec.get_or_insert_default().node_name = (!node.is_empty()).then(|| node.into());
            p.status = Some(pod_status(phase, ready));
            if let Some(cost) = cost {
                p.metadata.annotations.get_or_insert_default().insert(DELETION_COST.into(), cost.into());
            }
            Arc::new(p)
        };
        let base = |name: &str| (*member(name, "")).clone();
        let cases: [(&str, Vec<Arc<Pod>>); 6] = [
            (
                "unbound",
                vec![
                    shape(base("bound"), "n", "Pending", None, None),
                    shape(base("victim"), "", "Pending", None, None),
                ],
            ),
            (
                "pending",
                vec![
                    shape(base("running"), "n", "Running", None, None),
                    shape(base("victim"), "n", "Pending", None, None),
                ],
            ),
            (
                "not ready",
                vec![
                    shape(base("ready"), "n", "Running", Some(-100), None),
                    shape(base("victim"), "n", "Running", None, None),
                ],
            ),
            (
                "cheap",
                vec![
                    shape(base("dear"), "n", "Running", Some(-100), None),
                    shape(base("victim"), "n", "Running", Some(-1000), Some("-5")),
                ],
            ),
            (
                "crowded node",
                vec![
                    shape(base("alone"), "m", "Running", Some(-100), None),
                    shape(base("victim"), "n", "Running", Some(-1000), None),
                    shape(base("younger"), "n", "Running", Some(-2000), None),
                ],
            ),
            (
                "ready lately",
                vec![
                    shape(base("old"), "n", "Running", Some(-100_000), None),
                    shape(base("victim"), "n", "Running", Some(-10), None),
                ],
            ),
        ];
        for (name, pods) in cases {
            let plan = reconcile(&set(i32::try_from(pods.len()).unwrap() - 1), &pods, &[], now());
            let [Action::Delete { target, uid: Some(uid), .. }] = plan.actions.as_slice() else { panic!("{plan:?}") };
            assert_eq!((target.name.as_str(), uid.as_str()), ("victim", "uid-victim"), "{name}");
        }
    }

    #[test]
    fn adopts_and_releases() {
        let orphan = Arc::new(pod_yaml("orphan", "labels: {app: web}"));
        let stray = Arc::new(pod_yaml(
            "stray",
            "labels: {app: other}, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: rs1, controller: true}]",
        ));
        let foreign = Arc::new(pod_yaml(
            "foreign",
            "labels: {app: web}, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: x, uid: rs9, controller: true}]",
        ));
        let plan = reconcile(&set(1), &[orphan, stray, foreign], &[], now());
        let patches: Vec<(String, Value)> = plan
            .actions
            .iter()
            .map(|a| match a {
                Action::Patch { target, patch, .. } => {
                    (target.name.clone(), patch.pointer("/metadata/ownerReferences").cloned().unwrap())
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(patches.len(), 2);
        assert_eq!((patches[0].0.as_str(), &patches[0].1[0]["uid"]), ("orphan", &json!("rs1")));
        assert_eq!((patches[1].0.as_str(), &patches[1].1), ("stray", &json!([])));
        assert!(plan.confirm_owner);
    }

    #[test]
    fn status_counts_and_waits_for_min_ready_seconds() {
        let mut set = set(2);
        set.spec.as_mut().unwrap().min_ready_seconds = Some(30);
        let ready = |name: &str, since| {
            let mut p = (*member(name, "")).clone();
            p.status = Some(pod_status("Running", Some(since)));
            Arc::new(p)
        };
        let plan = reconcile(&set, &[ready("a", -60), ready("b", -10)], &[], now());
        let Some(Action::Patch { subresource: "status", patch, .. }) = &plan.status else { panic!("{plan:?}") };
        let status = &patch["status"];
        assert_eq!(
            (&status["replicas"], &status["readyReplicas"], &status["availableReplicas"]),
            (&json!(2), &json!(2), &json!(1))
        );
        assert_eq!(status["observedGeneration"], json!(2));
        assert_eq!(plan.requeue_after, Some(Duration::from_secs(20)));
    }

    #[test]
    fn a_failure_is_kept_until_all_are_created() {
        let mut set = set(1);
        let Some(Action::Patch { patch, .. }) = failed(&set, true, "quota", now()) else { panic!() };
        set.status =
            Some(serde_json::from_value(json!({"replicas": 0, "conditions": patch["status"]["conditions"]})).unwrap());
        assert!(failed(&set, true, "quota", now()).is_none());
        let conditions = |plan: Plan| match plan.status {
            Some(Action::Patch { patch, .. }) => patch["status"].get("conditions").cloned(),
            _ => None,
        };
        assert_eq!(conditions(reconcile(&set, &[], &[], now())), None, "unchanged");
        assert_eq!(conditions(reconcile(&set, &[member("a", "")], &[], now())), Some(Value::Null), "removed");
    }
}
