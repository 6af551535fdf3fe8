//! Tests of the ReplicaSet decision.

use serde_json::json;

use super::super::testing::*;
use super::*;

fn reconcile(set: &ReplicaSet, pods: &[Arc<Pod>], siblings: &[Arc<ReplicaSet>], now: Timestamp) -> Plan {
    super::reconcile(Kind::ReplicaSet, set, pods, siblings, now)
}

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
fn pods_that_end_at_once_are_replaced_ever_more_slowly() {
    // (ages of the pods that ended, the wait)
    let cases: [(&[i64], Option<u64>); 7] = [
        (&[], None),
        (&[0], None),
        (&[0, 0], Some(1)),
        (&[1, 1], None),
        (&[1, 1, 3, 3, 3], Some(1)),
        (&[10; 40], Some(890)),
        (&[1801; 40], None),
    ];
    for (ages, expected) in cases {
        let ended: Vec<Arc<Pod>> = ages
            .iter()
            .map(|age| {
                let mut pod = (*member("gone", "")).clone();
                pod.metadata.creation_timestamp = Some(Time(at(-age)));
                pod.status = Some(pod_status("Failed", None));
                Arc::new(pod)
            })
            .collect();
        let plan = reconcile(&set(2), &ended, &[], now());
        assert_eq!(plan.requeue_after, expected.map(Duration::from_secs), "{ages:?}");
        assert_eq!(plan.actions.len(), if expected.is_some() { 0 } else { 2 }, "{ages:?}");
    }
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
            vec![shape(base("bound"), "n", "Pending", None, None), shape(base("victim"), "", "Pending", None, None)],
        ),
        (
            "pending",
            vec![shape(base("running"), "n", "Running", None, None), shape(base("victim"), "n", "Pending", None, None)],
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

/// A pod of a set by its UID, with the rest of its metadata, its node, phase, readiness and restarts.
fn placed(
    name: &str,
    owner: &str,
    meta: &str,
    node: &str,
    (phase, ready, restarts): (&str, Option<i64>, i32),
) -> Arc<Pod> {
    let mut pod = pod_yaml(
        name,
        &format!(
            "labels: {{app: web}}, ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: {owner}, controller: true}}]{meta}"
        ),
    );
    pod.spec.get_or_insert_default().node_name = (!node.is_empty()).then(|| node.into());
    let mut status = pod_status(phase, ready);
    let container = json!({"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": restarts});
    status.container_statuses = Some(vec![serde_json::from_value(container).unwrap()]);
    pod.status = Some(status);
    Arc::new(pod)
}

/// The names of the pods that a plan deletes, in its order.
fn deleted(plan: &Plan) -> Vec<&str> {
    let of = |a: &'_ Action| matches!(a, Action::Delete { .. });
    plan.actions.iter().filter(|a| of(a)).map(|a| a.target().name.as_str()).collect()
}

#[test]
fn each_reason_to_go_first_outweighs_all_that_come_after_it() {
    let created = |ago: i64, cost: &str| {
        let cost =
            if cost.is_empty() { String::new() } else { format!(", annotations: {{{DELETION_COST}: '{cost}'}}") };
        format!(", creationTimestamp: '{}'{cost}", at(-ago))
    };
    const LONG: i64 = 1 << 20;
    // Each is worse than the next by one reason, and better than it by every later one. UIDs would give the opposite
    // order.
    let (bound, ready) = (("Running", Some(-LONG), 0), ("Running", Some(-1000), 0));
    let pods = [
        placed("z-unbound", "rs1", &created(LONG, "9"), "", bound),
        placed("y-pending", "rs1", &created(LONG, "9"), "n1", ("Pending", Some(-LONG), 0)),
        placed("x-unknown", "rs1", &created(LONG, "9"), "n2", ("Unknown", Some(-LONG), 0)),
        placed("w-unready", "rs1", &created(LONG, "9"), "n3", ("Running", None, 0)),
        placed("v-cheap", "rs1", &created(LONG, "-1"), "n4", bound),
        placed("u-crowded", "rs1", &created(LONG, ""), "full", bound),
        placed("t-ready-lately", "rs1", &created(LONG, ""), "n5", ("Running", Some(-10), 0)),
        placed("s-restarts", "rs1", &created(LONG, ""), "n6", ("Running", Some(-1000), 5)),
        placed("r-restarted", "rs1", &created(LONG, ""), "n7", ("Running", Some(-1000), 1)),
        placed("q-young", "rs1", &created(2000, ""), "n8", ready),
        placed("p-old", "rs1", &created(LONG, ""), "n9", ready),
        placed("o-dear", "rs1", &created(10, "1"), "full", ("Running", Some(-1), 9)),
    ];
    let expected: Vec<String> = pods.iter().map(|p| text(&p.metadata.name).to_string()).collect();
    for turn in 0..pods.len() {
        let mut seen = pods.to_vec();
        seen.rotate_left(turn);
        assert_eq!(deleted(&reconcile(&set(0), &seen, &[], now())), expected);
    }
}

#[test]
fn nodes_with_pods_of_sibling_sets_are_relieved_first() {
    let owned = |uid: &str, parent: &str| {
        let mut owned = set(1);
        owned.metadata.uid = Some(uid.into());
        let parent = format!("{{apiVersion: apps/v1, kind: Deployment, name: d, uid: {parent}, controller: true}}");
        owned.metadata.owner_references = Some(vec![yaml(&parent)]);
        owned
    };
    let ready = |since| ("Running", Some(since), 0);
    // (who owns the other set, its pod's phase, who goes)
    for (parent, phase, expected) in
        [("d1", "Running", "victim"), ("d2", "Running", "fresh"), ("d1", "Succeeded", "fresh")]
    {
        let pods = [
            placed("fresh", "rs1", "", "n1", ready(-10)),
            placed("victim", "rs1", "", "n2", ready(-1000)),
            placed("beside", "rs2", "", "n2", (phase, Some(-1000), 0)),
        ];
        let siblings = [Arc::new(owned("rs1", "d1")), Arc::new(owned("rs2", parent))];
        assert_eq!(deleted(&reconcile(&siblings[0], &pods, &siblings, now())), [expected], "{parent} {phase}");
    }
}

#[test]
fn about_equally_old_pods_go_in_the_order_of_their_uids() {
    // (ages of `a` and `b`, who goes)
    for (a, b, expected) in [(1025, 2047, "a"), (1025, 1023, "b"), (0, 0, "a"), (2, 1, "b"), (-5, 0, "a")] {
        let pod = |name, age: i64| {
            placed(name, "rs1", &format!(", creationTimestamp: '{}'", at(-age)), "n", ("Running", Some(-100), 0))
        };
        assert_eq!(deleted(&reconcile(&set(1), &[pod("a", a), pod("b", b)], &[], now())), [expected], "{a} {b}");
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
    let Some(Action::Patch { patch, .. }) = failed(Kind::ReplicaSet, &set, true, "quota", now()) else { panic!() };
    set.status =
        Some(serde_json::from_value(json!({"replicas": 0, "conditions": patch["status"]["conditions"]})).unwrap());
    assert!(failed(Kind::ReplicaSet, &set, true, "quota", now()).is_none());
    let conditions = |plan: Plan| match plan.status {
        Some(Action::Patch { patch, .. }) => patch["status"].get("conditions").cloned(),
        _ => None,
    };
    assert_eq!(conditions(reconcile(&set, &[], &[], now())), None, "unchanged");
    assert_eq!(conditions(reconcile(&set, &[member("a", "")], &[], now())), Some(Value::Null), "removed");
    let two = [member("a", ""), member("b", "")];
    assert_eq!(conditions(reconcile(&set, &two, &[], now())), None, "one is to go: unchanged until it went");
}
