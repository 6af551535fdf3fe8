//! Each rule sees its promise broken, and nothing else.

use super::*;
use serde_json::json;

/// A world, and how many seconds have passed there.
fn world() -> (World, Arc<parking_lot::Mutex<i64>>) {
    let passed = Arc::new(parking_lot::Mutex::new(0));
    let seconds = passed.clone();
    let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let clock: Clock = Arc::new(move || start + jiff::SignedDuration::from_secs(*seconds.lock()));
    (World::new(Wire::new(1), clock), passed)
}

/// An object with an owner (`Kind/name`) unless that is empty; its UID is its name.
fn object(name: &str, owner: &str, more: Value) -> Value {
    let mut object = json!({"metadata": {"name": name, "namespace": "default", "uid": name, "labels": {"app": "w"}}});
    if let Some((kind, owner)) = owner.split_once('/') {
        object["metadata"]["ownerReferences"] =
            json!([{"kind": kind, "name": owner, "uid": owner, "controller": true}]);
    }
    for (key, value) in more.as_object().unwrap() {
        match key.as_str() {
            "metadata" => object["metadata"].as_object_mut().unwrap().extend(value.as_object().unwrap().clone()),
            _ => object[key] = value.clone(),
        }
    }
    object
}

fn pod(name: &str, owner: &str, node: &str, more: Value) -> (String, Option<Value>) {
    let mut pod = object(name, owner, more);
    if !node.is_empty() {
        pod["spec"]["nodeName"] = json!(node);
    }
    (format!("/core/pods/default/{name}"), Some(pod))
}

fn cron(spec: Value) -> (String, Option<Value>) {
    ("/batch/cronjobs/default/c".into(), Some(object("c", "", json!({"spec": spec}))))
}

/// A CronJob's Job of so many minutes after the start.
fn job(name: &str, minute: u32, status: Value) -> (String, Option<Value>) {
    let at = format!("2026-01-01T00:{minute:02}:00Z");
    let more = json!({"metadata": {"annotations": {"batch.kubernetes.io/cronjob-scheduled-timestamp": at}},
        "spec": {"parallelism": 1}, "status": status});
    (format!("/batch/jobs/default/{name}"), Some(object(name, "CronJob/c", more)))
}

fn claim(name: &str, volume: &str) -> (String, Option<Value>) {
    let phase = if volume.is_empty() { "Pending" } else { "Bound" };
    let more = json!({"spec": {"volumeName": volume, "resources": {"requests": {"storage": "2Gi"}}}, "status": {"phase": phase}});
    (format!("/core/persistentvolumeclaims/default/{name}"), Some(object(name, "", more)))
}

fn volume(name: &str, claim: &str, node: &str, size: &str) -> (String, Option<Value>) {
    let terms = json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "values": [node]}]}]);
    let more = json!({"spec": {"claimRef": {"uid": claim}, "capacity": {"storage": size},
        "nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}, "status": {"phase": "Bound"}});
    (format!("/core/persistentvolumes/{name}"), Some(object(name, "", more)))
}

fn gone((key, _): (String, Option<Value>)) -> (String, Option<Value>) {
    (key, None)
}

fn ready() -> Value {
    json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}})
}

type Commit = (String, Option<Value>);

/// What is committed, ten seconds after one another, and what is said about the last.
fn cases() -> Vec<(&'static str, Vec<Commit>)> {
    let complete = || json!({"conditions": [{"type": "Complete", "status": "True"}]});
    let every = |policy: &str| cron(json!({"schedule": "*/1 * * * *", "concurrencyPolicy": policy}));
    let mounts = || json!({"spec": {"volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]}});
    let meant_for = |node: &str| {
        let term = json!({"matchFields": [{"key": "metadata.name", "values": [node]}]});
        json!({"spec": {"affinity": {"nodeAffinity":
            {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}}})
    };
    let replicas = |kind: &str, name: &str, owner: &str, count: i64| -> Commit {
        (format!("/apps/{kind}/default/{name}"), Some(object(name, owner, json!({"spec": {"replicas": count}}))))
    };
    let node = |spec: Value| -> Commit {
        let room = json!({"cpu": "1", "memory": "1Gi", "pods": "2"});
        ("/core/nodes/n".into(), Some(object("n", "", json!({"spec": spec, "status": {"allocatable": room}}))))
    };
    let asks = |cpu: &str| json!({"spec": {"containers": [{"resources": {"requests": {"cpu": cpu}}}]}});
    let scaler = json!({"spec": {"minReplicas": 1, "maxReplicas": 3}});
    let scaler =
        || ("/autoscaling/horizontalpodautoscalers/default/w".to_string(), Some(object("w", "", scaler.clone())));
    vec![
        ("moved from n to m", vec![pod("p", "", "n", json!({})), pod("p", "", "m", json!({}))]),
        (
            "is number 2 of ReplicaSet r",
            vec![
                replicas("replicasets", "r", "", 1),
                pod("p", "ReplicaSet/r", "", json!({})),
                pod("q", "ReplicaSet/r", "", json!({})),
            ],
        ),
        (
            "s-1 is made, but only 1",
            vec![replicas("statefulsets", "s", "", 1), pod("s-1", "StatefulSet/s", "", json!({}))],
        ),
        (
            "is number 2 of its DaemonSet on n",
            vec![pod("p", "DaemonSet/d", "", meant_for("n")), pod("q", "DaemonSet/d", "", meant_for("n"))],
        ),
        (
            "does not fit on n: cpu",
            vec![node(json!({})), pod("p", "", "n", asks("700m")), pod("q", "", "n", asks("400m"))],
        ),
        (
            "which has node.kubernetes.io/unschedulable",
            vec![node(json!({"unschedulable": true})), pod("p", "", "n", asks("1m"))],
        ),
        ("is not disk=", vec![node(json!({})), pod("p", "", "n", json!({"spec": {"nodeSelector": {"disk": "ssd"}}}))]),
        (
            "3 in all, 2 may be",
            vec![
                (
                    "/apps/deployments/default/d".into(),
                    Some(object(
                        "d",
                        "",
                        json!({"spec": {"replicas": 1, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}}),
                    )),
                ),
                replicas("replicasets", "r", "Deployment/d", 1),
                replicas("replicasets", "q", "Deployment/d", 2),
            ],
        ),
        ("outside of 1 to 3", vec![replicas("deployments", "w", "", 2), scaler(), replicas("deployments", "w", "", 4)]),
        (
            "is made while 1 others run, and the policy is Forbid",
            vec![every("Forbid"), job("a", 0, json!({})), job("b", 1, json!({}))],
        ),
        (
            "is made while 1 others run, and the policy is Replace",
            vec![every("Replace"), job("a", 0, json!({})), job("b", 1, json!({}))],
        ),
        (
            "and one for 2026-01-01T00:00:00Z was there",
            vec![every("Forbid"), job("a", 0, complete()), job("b", 0, json!({}))],
        ),
        ("not (yet) a time", vec![every("Allow"), job("a", 5, json!({}))]),
        (
            "not (yet) a time",
            vec![
                cron(json!({"schedule": "*/2 * * * *"})),
                gone(every("")),
                cron(json!({"schedule": "*/2 * * * *"})),
                job("a", 1, json!({})),
            ],
        ),
        (
            "may be late by 5 s only",
            vec![cron(json!({"schedule": "*/1 * * * *", "startingDeadlineSeconds": 5})), job("a", 0, json!({}))],
        ),
        (
            "while all is suspended",
            vec![cron(json!({"schedule": "*/1 * * * *", "suspend": true})), job("a", 0, json!({}))],
        ),
        ("succeeded goes from 0 to 1, and 0 pods did", vec![job("a", 0, json!({"succeeded": 1}))]),
        ("failed goes from 0 to 1, and 0 pods did", vec![job("a", 0, json!({"failed": 1}))]),
        ("had volume v, and has u now", vec![volume("v", "data", "n", "2Gi"), claim("data", "v"), claim("data", "u")]),
        ("all have volume v", vec![volume("v", "data", "n", "2Gi"), claim("data", "v"), claim("other", "v")]),
        ("which is of claim \"other\"", vec![volume("v", "other", "n", "2Gi"), claim("data", "v")]),
        ("asks for 2048 MiB, and v has 1024", vec![volume("v", "data", "n", "1Gi"), claim("data", "v")]),
        (
            "was of claim data, and is of other now",
            vec![volume("v", "data", "n", "2Gi"), volume("v", "other", "n", "2Gi")],
        ),
        ("and so are 1 more volumes", vec![volume("v", "data", "n", "2Gi"), volume("u", "data", "n", "2Gi")]),
        ("its claim data is not bound", vec![claim("data", ""), pod("p", "", "n", mounts())]),
        (
            "its volume v is elsewhere",
            vec![volume("v", "data", "m", "2Gi"), claim("data", "v"), pod("p", "", "n", mounts())],
        ),
        (
            "is gone while [\"p\"] use it",
            vec![
                volume("v", "data", "n", "2Gi"),
                claim("data", "v"),
                pod("p", "", "n", mounts()),
                node(json!({})),
                gone(claim("data", "v")),
            ],
        ),
    ]
}

#[test]
fn each_rule_sees_its_promise_broken() {
    for (expected, commits) in cases() {
        let (mut world, passed) = world();
        *passed.lock() = 65;
        for (key, new) in commits {
            assert!(world.violations.is_empty(), "{expected}: too early: {:?}", world.violations);
            *passed.lock() += 10;
            world.take(key, new);
        }
        assert!(world.violations.iter().any(|v| v.contains(expected)), "{expected}: {:?}", world.violations);
    }
}

/// (by whom, whether by an eviction, what is said).
#[test]
fn rules_of_those_who_end_pods_see_them_broken() {
    let cases: [(&str, bool, &str); 3] = [
        ("admin", true, "p is evicted, 1 are left"),
        (
            "system:serviceaccount:kube-system:replicaset-controller",
            false,
            "p is deleted, 1 serve, 0 were lost, 2 must",
        ),
        ("system:kube-scheduler", false, "p of priority 5 goes, the highest that waits is Some(5)"),
    ];
    for (user, eviction, expected) in cases {
        let (mut world, passed) = world();
        let rolling =
            json!({"spec": {"replicas": 2, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}});
        let mut serving = ready();
        serving["spec"] = json!({"priority": 5});
        let budget = object("w", "", json!({"spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "w"}}}}));
        let commits = [
            ("/apps/deployments/default/w".to_string(), Some(object("w", "", rolling))),
            (
                "/apps/replicasets/default/r".to_string(),
                Some(object("r", "Deployment/w", json!({"spec": {"replicas": 2}}))),
            ),
            ("/policy/poddisruptionbudgets/default/w".to_string(), Some(budget)),
            pod("waits", "", "", json!({"spec": {"priority": 5}})),
            pod("p", "ReplicaSet/r", "n", serving.clone()),
            pod("q", "ReplicaSet/r", "n", serving),
        ];
        for (key, new) in commits {
            *passed.lock() += 10;
            world.take(key, new);
        }
        assert!(world.violations.is_empty(), "{expected}: too early: {:?}", world.violations);
        world.wire.note_cause("default", "p", user, eviction);
        world.take("/core/pods/default/p".into(), None);
        assert!(world.violations.iter().any(|v| v.contains(expected)), "{expected}: {:?}", world.violations);
        assert_eq!(world.violations.len(), 1, "{expected}: {:?}", world.violations);
    }
}

#[test]
fn what_is_written_again_and_again_is_seen() {
    let (mut world, passed) = world();
    for n in 0..2 * i64::from(MOST_WRITES) {
        *passed.lock() = n;
        world.count("/core/pods/default/p");
    }
    assert!(world.violations.is_empty(), "once a second is not too often");
    for _ in 0..MOST_WRITES {
        world.count("/core/pods/default/p");
    }
    assert_eq!(world.violations.len(), 1);
}
