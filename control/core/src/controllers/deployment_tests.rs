use super::super::testing::*;
use super::*;

/// (name, deployment, its sets, the expected moves)
type Case = (&'static str, Deployment, Vec<Arc<ReplicaSet>>, Vec<&'static str>);

const SPEC: &str = "selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    \
                    spec: {containers: [{name: c, image: IMAGE}]}";

fn deployment(extra: &str) -> Deployment {
    yaml(&format!(
        "metadata: {{name: web, namespace: shop, uid: d1, generation: 1}}\nspec:\n  {extra}\n  {}",
        SPEC.replace("IMAGE", "v2")
    ))
}

/// A set of an image with (spec, status.replicas, available) and its revision.
fn set(image: &str, spec: i32, have: i32, available: i32, revision: i64, noted: i32) -> Arc<ReplicaSet> {
    let mut set: ReplicaSet = yaml(&format!(
        "metadata: {{name: web-{image}, namespace: shop, uid: rs-{image}, generation: 1, labels: {{app: web}},\n  \
         creationTimestamp: '{}', ownerReferences: [{{apiVersion: apps/v1, kind: Deployment, name: web, uid: d1, controller: true}}],\n  \
         annotations: {{'deployment.kubernetes.io/revision': '{revision}', 'deployment.kubernetes.io/desired-replicas': '{noted}'}}}}\n\
         spec:\n  replicas: {spec}\n  {}\n\
         status: {{replicas: {have}, readyReplicas: {available}, availableReplicas: {available}, observedGeneration: 1}}",
        at(revision - 1000),
        SPEC.replace("IMAGE", image)
            .replace("labels: {app: web}", &format!("labels: {{app: web, pod-template-hash: h{image}}}")),
    ));
    let most = (noted + (noted + 3) / 4).to_string();
    set.metadata.annotations.as_mut().unwrap().insert(ANNOTATION_MAX.into(), most);
    Arc::new(set)
}

/// What the plan does to sets, in short: `+name=n` create, `name=n` scale, `-name` delete.
fn moves(plan: &Plan) -> Vec<String> {
    let of = |a: &Action| match a {
        Action::Create { object, .. } => Some(format!("+={}", object["spec"]["replicas"])),
        Action::Patch { target, patch, .. } if target.gvr.resource == "replicasets" => {
            patch.pointer("/spec/replicas").map(|n| format!("{}={n}", target.name))
        }
        Action::Patch { .. } => None,
        Action::Delete { target, .. } => Some(format!("-{}", target.name)),
    };
    plan.actions.iter().filter_map(of).collect()
}

fn status(plan: &Plan) -> Value {
    match &plan.status {
        Some(Action::Patch { patch, .. }) => patch["status"].clone(),
        _ => json!({}),
    }
}

fn reason(plan: &Plan, kind: &str) -> String {
    let status = status(plan);
    let all = status["conditions"].as_array().cloned().unwrap_or_default();
    all.iter().find(|c| c["type"] == kind).and_then(|c| c["reason"].as_str()).unwrap_or("-").to_string()
}

#[test]
fn decisions() {
    let rolling = |replicas, surge: &str, lack: &str| {
        deployment(&format!(
            "replicas: {replicas}\n  strategy: {{type: RollingUpdate, rollingUpdate: {{maxSurge: {surge}, maxUnavailable: {lack}}}}}"
        ))
    };
    let quarter = |replicas| rolling(replicas, "25%", "25%");
    let cases: Vec<Case> = vec![
        ("first set", quarter(3), vec![], vec!["+=3"]),
        ("steady", quarter(3), vec![set("v2", 3, 3, 3, 1, 3)], vec![]),
        ("rollout starts with the surge", quarter(4), vec![set("v1", 4, 4, 4, 1, 4)], vec!["+=1"]),
        (
            "old goes down by what may lack",
            quarter(4),
            vec![set("v1", 4, 4, 4, 1, 4), set("v2", 1, 1, 0, 2, 4)],
            vec!["web-v1=3"],
        ),
        (
            "pods that are about to go do not serve",
            rolling(1, "2", "30%"),
            vec![set("v1", 2, 4, 4, 1, 1), set("v2", 1, 3, 0, 2, 1)],
            vec!["web-v1=1"],
        ),
        (
            "new goes up into the room",
            quarter(4),
            vec![set("v1", 3, 3, 3, 1, 4), set("v2", 1, 1, 1, 2, 4)],
            vec!["web-v2=2"],
        ),
        ("waits for availability", quarter(4), vec![set("v1", 3, 3, 3, 1, 4), set("v2", 2, 2, 0, 2, 4)], vec![]),
        (
            "useless old pods go first",
            quarter(4),
            vec![set("v1", 4, 4, 1, 1, 4), set("v2", 1, 1, 0, 2, 4)],
            vec!["web-v1=3"],
        ),
        ("no unavailability", rolling(2, "1", "0"), vec![set("v1", 2, 2, 2, 1, 2), set("v2", 1, 1, 0, 2, 2)], vec![]),
        ("no surge", rolling(2, "0", "1"), vec![set("v1", 2, 2, 2, 1, 2), set("v2", 0, 0, 0, 2, 2)], vec!["web-v1=1"]),
        (
            "both zero still moves",
            rolling(2, "0", "0"),
            vec![set("v1", 2, 2, 2, 1, 2), set("v2", 0, 0, 0, 2, 2)],
            vec!["web-v1=1"],
        ),
        ("scale up", quarter(10), vec![set("v2", 3, 3, 3, 1, 3)], vec!["web-v2=10"]),
        ("scale to zero", quarter(0), vec![set("v2", 3, 3, 3, 1, 3)], vec!["web-v2=0"]),
        (
            "scale up in mid-rollout is shared out",
            quarter(20),
            vec![set("v1", 8, 8, 8, 1, 10), set("v2", 5, 5, 2, 2, 10)],
            vec!["web-v2=10", "web-v1=15"],
        ),
        (
            "rollback finds the old set",
            quarter(2),
            vec![set("v2", 0, 0, 0, 1, 2), set("v3", 2, 2, 2, 2, 2)],
            vec!["web-v2=1"],
        ),
        (
            "paused only scales",
            deployment("replicas: 5\n  paused: true"),
            vec![set("v1", 3, 3, 3, 1, 3)],
            vec!["web-v1=5"],
        ),
        (
            "recreate empties first",
            deployment("replicas: 3\n  strategy: {type: Recreate}"),
            vec![set("v1", 3, 3, 3, 1, 3)],
            vec!["web-v1=0"],
        ),
        (
            "recreate then creates",
            deployment("replicas: 3\n  strategy: {type: Recreate}"),
            vec![set("v1", 0, 0, 0, 1, 3)],
            vec!["+=3"],
        ),
        (
            "rollover: a third template starts with what room there is",
            quarter(4),
            vec![set("v0", 3, 3, 3, 1, 4), set("v1", 2, 2, 0, 2, 4)],
            vec!["+=0"],
        ),
        (
            "rollover: of two old sets the broken one goes first",
            quarter(4),
            vec![set("v0", 3, 3, 3, 1, 4), set("v1", 2, 2, 0, 2, 4), set("v2", 0, 0, 0, 3, 4)],
            vec!["web-v1=0"],
        ),
        (
            "rollover: then the oldest",
            quarter(4),
            vec![set("v0", 2, 2, 2, 1, 4), set("v1", 2, 2, 2, 2, 4), set("v2", 1, 1, 1, 3, 4)],
            vec!["web-v0=0"],
        ),
        (
            "rollover: and the next as far as may lack",
            quarter(4),
            vec![set("v0", 1, 1, 1, 1, 4), set("v1", 3, 3, 3, 2, 4), set("v2", 1, 1, 1, 3, 4)],
            vec!["web-v0=0", "web-v1=2"],
        ),
        (
            "pods that a set is about to lose do not count",
            rolling(10, "3", "2"),
            vec![set("v1", 8, 10, 10, 1, 10), set("v2", 5, 5, 5, 2, 10)],
            vec!["web-v1=3"],
        ),
        (
            "the share of each set, as documented",
            rolling(15, "3", "2"),
            vec![set("v1", 8, 8, 8, 1, 10), set("v2", 5, 5, 0, 2, 10)],
            vec!["web-v1=11", "web-v2=7"],
        ),
        (
            "scale down in mid-rollout is shared out",
            quarter(5),
            vec![set("v1", 8, 8, 8, 1, 10), set("v2", 5, 5, 2, 2, 10)],
            vec!["web-v1=4", "web-v2=3"],
        ),
        (
            "growing, what rounding leaves goes to the newest of the largest",
            quarter(10),
            vec![set("v0", 3, 3, 3, 1, 7), set("v1", 3, 3, 3, 2, 7), set("v2", 3, 3, 0, 3, 7)],
            vec!["web-v0=4", "web-v1=4", "web-v2=5"],
        ),
        (
            "growing, the last gets no more than is left",
            quarter(14),
            vec![set("v0", 4, 4, 4, 1, 10), set("v1", 5, 5, 5, 2, 10), set("v2", 4, 4, 0, 3, 10)],
            vec!["web-v0=5", "web-v1=7", "web-v2=6"],
        ),
        (
            "shrinking, what rounding leaves comes from the oldest of the largest",
            quarter(6),
            vec![set("v0", 3, 3, 3, 1, 7), set("v1", 3, 3, 3, 2, 7), set("v2", 3, 3, 0, 3, 7)],
            vec!["web-v0=2"],
        ),
        (
            "shrinking, the newest gives no more than is left",
            quarter(5),
            vec![set("v0", 3, 3, 3, 1, 7), set("v1", 3, 3, 3, 2, 7), set("v2", 3, 3, 0, 3, 7)],
            vec!["web-v0=2", "web-v1=2"],
        ),
        (
            "scale to zero in mid-rollout",
            quarter(0),
            vec![set("v1", 3, 3, 3, 1, 4), set("v2", 2, 2, 1, 2, 4)],
            vec!["web-v1=0", "web-v2=0"],
        ),
        (
            "scaled in mid-rollout with the new set complete",
            quarter(5),
            vec![set("v1", 2, 2, 2, 1, 6), set("v2", 5, 5, 5, 2, 6)],
            vec!["web-v1=0"],
        ),
        (
            "paused in mid-rollout stands still",
            deployment("replicas: 4\n  paused: true"),
            vec![set("v1", 3, 3, 3, 1, 4), set("v2", 2, 2, 2, 2, 4)],
            vec![],
        ),
        (
            "paused in mid-rollout scales both sets",
            deployment("replicas: 8\n  paused: true"),
            vec![set("v1", 3, 3, 3, 1, 4), set("v2", 2, 2, 2, 2, 4)],
            vec!["web-v1=6", "web-v2=4"],
        ),
        (
            "paused starts no new template",
            deployment("replicas: 4\n  paused: true"),
            vec![set("v0", 3, 3, 3, 1, 4), set("v1", 2, 2, 2, 2, 4)],
            vec![],
        ),
        (
            "recreate empties all old sets",
            deployment("replicas: 3\n  strategy: {type: Recreate}"),
            vec![set("v0", 1, 1, 1, 1, 3), set("v1", 2, 2, 2, 2, 3), set("v2", 0, 0, 0, 3, 3)],
            vec!["web-v0=0", "web-v1=0"],
        ),
        (
            "history is kept to its limit",
            deployment("replicas: 1\n  revisionHistoryLimit: 1"),
            vec![set("v0", 0, 0, 0, 1, 1), set("v1", 0, 0, 0, 2, 1), set("v2", 1, 1, 1, 3, 1)],
            vec!["-web-v0"],
        ),
    ];
    for (name, deployment, sets, expected) in cases {
        let plan = reconcile(&deployment, &sets, &[], now());
        let mut got = moves(&plan);
        got.sort();
        let mut expected = expected;
        expected.sort_unstable();
        assert_eq!(got, expected, "{name}: {}", plan.why);
    }
}

#[test]
fn a_new_set_carries_hash_revision_and_owner() {
    let plan = reconcile(&deployment("replicas: 4"), &[set("v1", 4, 4, 4, 7, 4)], &[], now());
    let Some(Action::Create { target, object }) = plan.actions.iter().find(|a| matches!(a, Action::Create { .. }))
    else {
        panic!("{plan:?}")
    };
    let hash = object.pointer("/metadata/labels/pod-template-hash").and_then(Value::as_str).unwrap();
    assert_eq!(target.name, format!("web-{hash}"));
    for pointer in ["/spec/selector/matchLabels/pod-template-hash", "/spec/template/metadata/labels/pod-template-hash"]
    {
        assert_eq!(object.pointer(pointer), Some(&json!(hash)));
    }
    let annotations = &object["metadata"]["annotations"];
    assert_eq!(annotations[ANNOTATION_REVISION], json!("8"));
    assert_eq!((&annotations[ANNOTATION_DESIRED], &annotations[ANNOTATION_MAX]), (&json!("4"), &json!("5")));
    assert_eq!(object.pointer("/metadata/ownerReferences/0/uid"), Some(&json!("d1")));
    assert_eq!(reason(&plan, "Progressing"), "NewReplicaSetCreated");
    assert_eq!(plan.notes[0].message, format!("Scaled up replica set web-{hash} from 0 to 1"));
    // The Deployment learns the revision.
    assert!(plan.actions.iter().any(|a| matches!(a, Action::Patch { target, patch, .. }
        if target.gvr.resource == "deployments" && patch["metadata"]["annotations"][ANNOTATION_REVISION] == json!("8"))));
}

#[test]
fn a_taken_name_counts_a_collision_and_changes_the_hash() {
    let mut d = deployment("replicas: 1");
    let Some(Action::Create { target, .. }) = reconcile(&d, &[], &[], now()).actions.into_iter().next() else {
        panic!()
    };
    let stranger: ReplicaSet =
        yaml(&format!("metadata: {{name: {}, namespace: shop, uid: x}}\nspec: {{selector: {{}}}}", target.name));
    let stranger = [Arc::new(stranger)];
    let plan = reconcile(&d, &stranger, &[], now());
    assert_eq!((moves(&plan), status(&plan)["collisionCount"].clone()), (vec![], json!(1)));
    d.status = Some(serde_json::from_value(status(&plan)).unwrap());
    assert_eq!(moves(&reconcile(&d, &stranger, &[], now())), ["+=1"]);
}

#[test]
fn recreate_waits_for_old_pods() {
    let d = deployment("replicas: 1\n  strategy: {type: Recreate}");
    let owner =
        "ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-v1, uid: rs-v1, controller: true}]";
    let pod = Arc::new(pod_yaml("old", owner));
    assert_eq!(moves(&reconcile(&d, &[set("v1", 0, 1, 0, 1, 1)], &[pod], now())), Vec::<String>::new());
}

#[test]
fn conditions_follow_the_rollout() {
    let with_status = |mut d: Deployment, status: Value| {
        d.status = Some(serde_json::from_value(status).unwrap());
        d
    };
    let progressing = |reason: &str, updated: i64| {
        json!({"replicas": 2, "updatedReplicas": 2, "conditions": [{"type": "Progressing", "status": "True", "reason": reason,
            "lastUpdateTime": at(updated).to_string(), "lastTransitionTime": at(updated).to_string()}]})
    };
    let d = || deployment("replicas: 2\n  progressDeadlineSeconds: 60");
    let cases = [
        (
            "complete",
            with_status(d(), progressing("ReplicaSetUpdated", -10)),
            set("v2", 2, 2, 2, 1, 2),
            ("NewReplicaSetAvailable", "MinimumReplicasAvailable"),
        ),
        (
            "moves",
            with_status(d(), progressing("NewReplicaSetCreated", -10)),
            set("v2", 2, 2, 1, 1, 2),
            ("ReplicaSetUpdated", "MinimumReplicasUnavailable"),
        ),
        (
            "stuck",
            with_status(d(), progressing("ReplicaSetUpdated", -61)),
            set("v2", 2, 2, 0, 1, 2),
            ("ProgressDeadlineExceeded", "MinimumReplicasUnavailable"),
        ),
        (
            "waits",
            with_status(d(), progressing("ReplicaSetUpdated", -59)),
            set("v2", 2, 2, 0, 1, 2),
            ("ReplicaSetUpdated", "MinimumReplicasUnavailable"),
        ),
    ];
    for (name, deployment, set, (progress, available)) in cases {
        let plan = reconcile(&deployment, &[set], &[], now());
        assert_eq!(
            (reason(&plan, "Progressing").as_str(), reason(&plan, "Available").as_str()),
            (progress, available),
            "{name}"
        );
        if name == "waits" {
            assert_eq!(plan.requeue_after, Some(std::time::Duration::from_secs(1)));
        }
    }
    let paused = reconcile(&deployment("replicas: 2\n  paused: true"), &[set("v2", 2, 2, 2, 1, 2)], &[], now());
    assert_eq!(reason(&paused, "Progressing"), "DeploymentPaused");
}

#[test]
fn a_settled_deployment_writes_nothing() {
    let mut d = deployment("replicas: 2");
    let mut sets = vec![set("v2", 2, 2, 2, 1, 2)];
    let first = reconcile(&d, &sets, &[], now());
    d.status = Some(serde_json::from_value(status(&first)).unwrap());
    d.metadata.annotations = Some([(ANNOTATION_REVISION.to_string(), "1".to_string())].into());
    Arc::make_mut(&mut sets[0]).metadata.annotations.as_mut().unwrap().insert(ANNOTATION_MAX.into(), "3".into());
    let second = reconcile(&d, &sets, &[], at(5));
    assert!(second.is_empty(), "{second:?}");
}

#[test]
fn a_set_that_cannot_be_created_is_told_of_once_and_times_out() {
    let told = |d: &Deployment, after: i64| {
        let plan = Plan { status: refused(d, "no room", at(after)), ..Plan::default() };
        let status = (!plan.is_empty()).then(|| status(&plan));
        status.map(|s| (reason(&plan, "Progressing"), s))
    };
    let mut d = deployment("progressDeadlineSeconds: 60");
    d.status = Some(yaml("{replicas: 3, updatedReplicas: 3, observedGeneration: 0}"));
    let (reason, written) = told(&d, 0).expect("a first refusal");
    assert_eq!(reason, CREATE_ERROR);
    assert_eq!((&written["observedGeneration"], &written["updatedReplicas"]), (&json!(1), &Value::Null), "{written}");
    let applied = |before: &Deployment, written: Value| {
        let mut status = meta::value(&before.status);
        json_patch::merge(&mut status, &written);
        Deployment { status: Some(serde_json::from_value(status).unwrap()), ..before.clone() }
    };
    let d = applied(&d, written);
    assert!(told(&d, 59).is_none(), "said already");
    let (reason, written) = told(&d, 60).expect("the deadline");
    assert_eq!(reason, "ProgressDeadlineExceeded");
    assert!(told(&applied(&d, written), 9999).is_none(), "said already");
    let without = deployment("progressDeadlineSeconds: 2147483647");
    let (reason, _) = told(&without, 0).expect("what was observed");
    assert_eq!(reason, "-", "no deadline, no condition");
}
