//! What cannot come to be as asked: it is tried again, but ever more slowly, and said once.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::node::Shape;
use crate::runner;

/// What settles may cost more.
const SETTLE: u64 = 180;
/// How long writes are counted, in minutes.
const MINUTES: u64 = 10;

/// A case: what is asked for, and how often a minute anyone may ask to write the same object (or to create in the same
/// collection) about it, in the long run.
struct Case {
    name: &'static str,
    objects: Vec<(&'static str, Value)>,
    /// What is done once the objects are there and had time.
    then: Option<(&'static str, &'static str, Value)>,
    most: f64,
}

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const STATEFUL_SETS: &str = "/apis/apps/v1/namespaces/default/statefulsets";
const DAEMON_SETS: &str = "/apis/apps/v1/namespaces/default/daemonsets";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";

fn workload(kind: &str, pod: Value, more: Value) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"app": "a"}},
        "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c", "image": "ok:1"}]}}});
    for (from, into) in [(pod, "/template/spec"), (more, "")] {
        let into = spec.pointer_mut(into).unwrap().as_object_mut().unwrap();
        into.extend(from.as_object().unwrap().clone());
    }
    let version = if kind == "Job" { "batch/v1" } else { "apps/v1" };
    if kind == "Job" {
        spec.as_object_mut().unwrap().remove("selector");
    }
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": "a"}, "spec": spec})
}

fn image(image: &str) -> Value {
    json!({"containers": [{"name": "c", "image": image}]})
}

fn cases() -> Vec<Case> {
    let three = || json!({"replicas": 3});
    let case = |name, objects, most| Case { name, objects, then: None, most };
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"pods": "3"}}});
    let spread = json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "nowhere",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "a"}}}]});
    let claims = json!({"serviceName": "a", "replicas": 2, "volumeClaimTemplates": [{"metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]});
    let mut rollout = case(
        "a quota is exhausted in mid-rollout",
        vec![
            ("/api/v1/namespaces/default/resourcequotas", quota),
            (
                DEPLOYMENTS,
                workload(
                    "Deployment",
                    json!({}),
                    json!({"replicas": 3,
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}),
                ),
            ),
        ],
        2.0,
    );
    let next = json!({"spec": {"template": {"spec": image("ok:2")}}});
    rollout.then = Some(("PATCH", "/apis/apps/v1/namespaces/default/deployments/a", next));
    let kept = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kept", "namespace": "n",
        "finalizers": ["example.com/never"]}});
    let mut namespace = case(
        "a namespace keeps something",
        vec![
            ("/api/v1/namespaces", json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}})),
            ("/api/v1/namespaces/n/configmaps", kept),
        ],
        4.5,
    );
    namespace.then = Some(("DELETE", "/api/v1/namespaces/n", Value::Null));
    vec![
        case(
            "no node is selected",
            vec![(DEPLOYMENTS, workload("Deployment", json!({"nodeSelector": {"disk": "none"}}), three()))],
            1.0,
        ),
        case(
            "no node is large enough",
            vec![(
                DEPLOYMENTS,
                workload(
                    "Deployment",
                    json!({"containers": [{"name": "c", "image": "ok:1",
                "resources": {"requests": {"cpu": "99"}}}]}),
                    three(),
                ),
            )],
            1.0,
        ),
        case("no node has the topology", vec![(DEPLOYMENTS, workload("Deployment", spread, three()))], 1.0),
        case("no image", vec![(DEPLOYMENTS, workload("Deployment", image("bad:1"), three()))], 1.0),
        case(
            "never ready",
            vec![(
                STATEFUL_SETS,
                workload("StatefulSet", image("unready:1"), json!({"serviceName": "a", "replicas": 3})),
            )],
            1.0,
        ),
        case("pods of a Deployment end", vec![(DEPLOYMENTS, workload("Deployment", image("crash:1"), three()))], 4.0),
        case(
            "pods of a StatefulSet end",
            vec![(
                STATEFUL_SETS,
                workload("StatefulSet", image("crash:1"), json!({"serviceName": "a", "replicas": 2})),
            )],
            4.0,
        ),
        case("pods of a DaemonSet end", vec![(DAEMON_SETS, workload("DaemonSet", image("crash:1"), json!({})))], 4.0),
        case(
            "a Job fails",
            vec![(
                JOBS,
                workload(
                    "Job",
                    json!({"restartPolicy": "Never",
            "containers": [{"name": "c", "image": "job:100"}]}),
                    json!({"backoffLimit": 4}),
                ),
            )],
            4.0,
        ),
        case("a claim is never bound", vec![(STATEFUL_SETS, workload("StatefulSet", json!({}), claims))], 1.0),
        case(
            "admission refuses the pods",
            vec![(DEPLOYMENTS, workload("Deployment", json!({"priorityClassName": "unknown"}), three()))],
            2.0,
        ),
        rollout,
        namespace,
    ]
}

async fn count(case: Case) {
    let mut cluster = Cluster::start(1).await;
    for name in ["n0", "n1"] {
        let labels = Default::default();
        let heartbeat = Duration::from_secs(20);
        cluster.add_node(
            name,
            Shape { cpu_milli: 4000, memory_mib: 4096, pods: 20, labels, heartbeat, has_volumes: false },
        );
    }
    cluster.live(5).await;
    for (path, object) in &case.objects {
        cluster.must("POST", path, object).await;
    }
    cluster.live(60).await;
    if let Some((method, path, body)) = &case.then {
        cluster.must(method, path, body).await;
    }
    cluster.live(SETTLE).await;
    cluster.wire.take_writes();
    cluster.live(MINUTES * 60).await;
    let leases = |asked: &str| asked.contains("/leases/");
    let mut writes: Vec<(String, f64)> = per_minute(cluster.wire.take_writes());
    writes.retain(|(asked, _)| !leases(asked));
    println!("{}: {:?}", case.name, writes.iter().take(4).collect::<Vec<_>>());
    let many: Vec<_> = writes.iter().filter(|(_, times)| *times > case.most).collect();
    assert!(many.is_empty(), "{}: more than {} writes a minute: {many:?}", case.name, case.most);
}

/// How often a minute, most often first.
fn per_minute(writes: BTreeMap<String, u32>) -> Vec<(String, f64)> {
    let mut all: Vec<_> = writes.into_iter().map(|(asked, times)| (asked, f64::from(times) / MINUTES as f64)).collect();
    all.sort_by(|a, b| b.1.total_cmp(&a.1));
    all
}

#[test]
fn what_cannot_be_is_not_written_again_and_again() {
    let failed: Vec<_> = cases()
        .into_iter()
        .filter_map(|case| {
            let name = case.name;
            (!runner::run_here(1, move |_, _| count(case))).then_some(name)
        })
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
}
