use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};

use super::*;
use crate::controllers::testing::*;

/// (name, nodes, the pod's spec, the node or the reason)
type Case = (&'static str, Vec<Arc<Node>>, String, Result<&'static str, &'static str>);

fn node(name: &str, extra: &str) -> Arc<Node> {
    let (meta, spec) = extra.split_once('|').unwrap_or(("", extra));
    Arc::new(yaml::<Node>(&format!(
        "metadata: {{name: '{name}', {meta}}}\nspec: {{{spec}}}\nstatus: {{allocatable: {{cpu: '2', memory: 1Gi, pods: '3'}}}}"
    )))
}

fn pod(name: &str, spec: &str) -> Pod {
    let mut pod = pod_yaml(name, "ownerReferences: [{apiVersion: v1, kind: R, name: r, uid: r, controller: true}]");
    pod.spec = Some(yaml(&format!("{{{spec}}}")));
    pod
}

fn asking(resources: &str) -> String {
    format!("containers: [{{name: c, resources: {{requests: {{{resources}}}}}}}]")
}

fn cluster(nodes: Vec<Arc<Node>>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    nodes.into_iter().for_each(|n| snapshot.set_node(n));
    snapshot
}

const SMALL: &str = "containers: [{name: c}]";

#[test]
fn filters_say_why() {
    let bare = || node("n", "|");
    let affinity = |term: &str| {
        format!(
            "{SMALL}, affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [{term}]}}}}}}"
        )
    };
    let cases: Vec<Case> = vec![
        ("fits", vec![bare()], asking("cpu: 2, memory: 1Gi"), Ok("n")),
        ("no nodes", vec![], SMALL.into(), Err("no nodes available to schedule pods")),
        ("memory", vec![bare()], asking("memory: 2Gi"), Err("0/1 nodes are available: 1 Insufficient memory.")),
        (
            "both",
            vec![bare()],
            asking("cpu: 3, memory: 2Gi"),
            Err("0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient memory."),
        ),
        (
            "limit is the request",
            vec![bare()],
            "containers: [{name: c, resources: {limits: {cpu: 3}}}]".into(),
            Err("0/1 nodes are available: 1 Insufficient cpu."),
        ),
        (
            "init container",
            vec![bare()],
            format!("{SMALL}, initContainers: [{{name: i, resources: {{requests: {{cpu: 3}}}}}}]"),
            Err("0/1 nodes are available: 1 Insufficient cpu."),
        ),
        ("extended", vec![bare()], asking("gpu: 1"), Err("0/1 nodes are available: 1 Insufficient gpu.")),
        (
            "selector",
            vec![bare()],
            format!("{SMALL}, nodeSelector: {{disk: ssd}}"),
            Err("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."),
        ),
        (
            "selector fits",
            vec![bare(), node("m", "labels: {disk: ssd}|")],
            format!("{SMALL}, nodeSelector: {{disk: ssd}}"),
            Ok("m"),
        ),
        (
            "affinity fits",
            vec![bare(), node("m", "labels: {gen: '7'}|")],
            affinity("{matchExpressions: [{key: gen, operator: Gt, values: ['5']}]}"),
            Ok("m"),
        ),
        (
            "one of the terms",
            vec![bare(), node("m", "labels: {a: b}|")],
            affinity(
                "{matchExpressions: [{key: x, operator: Exists}]}, {matchExpressions: [{key: a, operator: In, values: [b, c]}]}",
            ),
            Ok("m"),
        ),
        (
            "by field",
            vec![bare(), node("m", "|")],
            affinity("{matchFields: [{key: metadata.name, operator: In, values: [m]}]}"),
            Ok("m"),
        ),
        (
            "empty term",
            vec![bare()],
            affinity("{}"),
            Err("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."),
        ),
        (
            "cordoned",
            vec![node("n", "|unschedulable: true")],
            SMALL.into(),
            Err("0/1 nodes are available: 1 node(s) were unschedulable."),
        ),
        (
            "taint",
            vec![node("n", "|taints: [{key: k, value: v, effect: NoSchedule}]")],
            SMALL.into(),
            Err("0/1 nodes are available: 1 node(s) had untolerated taint {k: v}."),
        ),
        (
            "tolerated",
            vec![node("n", "|taints: [{key: k, value: v, effect: NoSchedule}]")],
            format!("{SMALL}, tolerations: [{{key: k, operator: Exists}}]"),
            Ok("n"),
        ),
        (
            "wrong toleration",
            vec![node("n", "|taints: [{key: k, value: v, effect: NoSchedule}]")],
            format!("{SMALL}, tolerations: [{{key: k, value: w}}]"),
            Err("0/1 nodes are available: 1 node(s) had untolerated taint {k: v}."),
        ),
        ("preferred taint", vec![node("n", "|taints: [{key: k, effect: PreferNoSchedule}]")], SMALL.into(), Ok("n")),
        (
            "counted together",
            vec![bare(), node("m", "|unschedulable: true"), node("o", "|unschedulable: true")],
            asking("cpu: 3"),
            Err("0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable."),
        ),
    ];
    for (name, nodes, spec, expected) in cases {
        let decision = schedule(&pod("p", &spec), &cluster(nodes), 0);
        let expected = match expected {
            Ok(node) => Decision::Bind(node.into()),
            Err(why) => Decision::Unschedulable(why.into()),
        };
        assert_eq!(decision, expected, "{name}");
    }
}

#[test]
fn assumed_pods_count_until_forgotten() {
    let mut snapshot = cluster(vec![node("n", "|")]);
    let (a, b) = (pod("a", &asking("cpu: 1500m")), pod("b", &asking("cpu: 1500m")));
    snapshot.assume(&a, "n");
    let full = Decision::Unschedulable("0/1 nodes are available: 1 Insufficient cpu.".into());
    assert_eq!(schedule(&b, &snapshot, 0), full);
    snapshot.set_pod(&a);
    assert_eq!(schedule(&b, &snapshot, 0), full, "an event from before the binding changes nothing");
    let mut bound = a.clone();
    bound.spec.as_mut().unwrap().node_name = Some("n".into());
    snapshot.set_pod(&bound);
    assert_eq!(schedule(&b, &snapshot, 0), full, "and the binding's own counts once");
    bound.status = Some(pod_status("Succeeded", None));
    snapshot.set_pod(&bound);
    assert_eq!(schedule(&b, &snapshot, 0), Decision::Bind("n".into()), "ended pods use nothing");
    for name in ["x", "y", "z"] {
        snapshot.assume(&pod(name, SMALL), "n");
    }
    assert_eq!(schedule(&b, &snapshot, 0), Decision::Unschedulable("0/1 nodes are available: 1 Too many pods.".into()));
    snapshot.remove_node("n");
    assert_eq!(schedule(&b, &snapshot, 0), Decision::Unschedulable("no nodes available to schedule pods".into()));
}

#[test]
fn siblings_are_spread_and_ties_go_round() {
    let mut snapshot = cluster(vec![node("a", "|"), node("b", "|"), node("c", "|")]);
    let picks: Vec<_> = (0..4).map(|turn| schedule(&pod("p", SMALL), &snapshot, turn)).collect();
    assert_eq!(picks, ["a", "b", "c", "a"].map(|n| Decision::Bind(n.into())));
    let mut counts = BTreeMap::new();
    for n in 0..6 {
        let pod = pod(&format!("p{n}"), SMALL);
        let Decision::Bind(node) = schedule(&pod, &snapshot, 0) else { panic!() };
        snapshot.assume(&pod, &node);
        *counts.entry(node).or_insert(0) += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [2, 2, 2]);
    let mut snapshot = cluster(vec![node("a", "|"), node("b", "|")]);
    let mut other = pod("other", &asking("cpu: 1"));
    other.metadata.owner_references = None;
    snapshot.assume(&other, "a");
    assert_eq!(schedule(&pod("p", SMALL), &snapshot, 0), Decision::Bind("b".into()), "the less used");
}
