//! Each criterion: what it gives each node, brought to its range.

use std::collections::BTreeMap;

use super::*;
use crate::scheduler::profile::Strategy;
use crate::scheduler::tests::{World, pod_of};

/// What a criterion gives each node; nothing if it tells none apart.
fn given(name: &str, world: &mut World, pod: &str) -> Option<BTreeMap<String, i64>> {
    let nodes: Vec<NodeId> = world.snapshot.nodes().map(|(_, info)| info.id).collect();
    let names: Vec<String> = world.snapshot.nodes().map(|(name, _)| name.to_string()).collect();
    let scorer = ALL.iter().find(|s| s.name == name).unwrap();
    let prepared = (scorer.prepare)(&pod_of(pod), &mut world.snapshot, &world.profile, &nodes)?;
    let snapshot = &world.snapshot;
    let infos: Vec<&NodeInfo> = nodes.iter().map(|id| snapshot.info(*id).unwrap()).collect();
    let mut scores = prepared.score(snapshot, &infos);
    prepared.normalize(&mut scores);
    assert!(scores.iter().all(|s| (0..=MAX).contains(s)), "{name}: {scores:?}");
    Some(names.into_iter().zip(scores).collect())
}

fn show(given: Option<BTreeMap<String, i64>>) -> String {
    let Some(given) = given else { return "-".into() };
    given.iter().map(|(name, score)| format!("{name} {score}")).collect::<Vec<_>>().join(", ")
}

const ZONES: &str =
    "[{name: a, labels: {z: x, h: a}}, {name: b, labels: {z: x, h: b}}, {name: c, labels: {z: 'y', h: c}}]";

#[test]
fn criteria() {
    let preferred = |key: &str, weight: i64, app: &str| {
        format!(
            "{key}: {{preferredDuringSchedulingIgnoredDuringExecution: [{{weight: {weight}, podAffinityTerm: {{topologyKey: z, labelSelector: {{matchLabels: {{app: {app}}}}}}}}}]}}"
        )
    };
    let near = format!("{{labels: {{app: db}}, affinity: {{{}}}}}", preferred("podAffinity", 10, "web"));
    let apart = format!("{{labels: {{app: db}}, affinity: {{{}}}}}", preferred("podAntiAffinity", 10, "web"));
    let web = "[{name: w, labels: {app: web}, nodeName: a}]";
    let likes_db = format!(
        "[{{name: w, labels: {{app: web}}, nodeName: a, affinity: {{{}}}}}]",
        preferred("podAffinity", 5, "db")
    );
    let hates_db = format!(
        "[{{name: w, labels: {{app: web}}, nodeName: a, affinity: {{{}}}}}]",
        preferred("podAntiAffinity", 5, "db")
    );
    let needs_db = "[{name: w, nodeName: c, affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: z, labelSelector: {matchLabels: {app: db}}}]}}}]";
    let spread = "{labels: {app: web}, topologySpreadConstraints: [{maxSkew: 1, whenUnsatisfiable: ScheduleAnyway, topologyKey: h, labelSelector: {matchLabels: {app: web}}}]}";
    let soft = "[{name: a, spec: {taints: [{key: k, effect: PreferNoSchedule}, {key: l, effect: PreferNoSchedule}]}}, {name: b, spec: {taints: [{key: k, effect: PreferNoSchedule}]}}, {name: c}]";
    let images = "[{name: a, status: {images: [{names: [web:1], sizeBytes: 1073741824}]}}, {name: b, status: {images: [{names: [web:1], sizeBytes: 1073741824}, {names: [tiny], sizeBytes: 9}]}}, {name: c}]";
    let weighted = "{affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 10, preference: {matchExpressions: [{key: z, operator: In, values: [x]}]}}, {weight: 30, preference: {matchExpressions: [{key: h, operator: In, values: [b]}]}}]}}}";
    // (criterion, nodes, placed, pod, scores)
    let cases = [
        (
            "NodeResourcesFit",
            "[{name: a}, {name: b}]",
            "[{name: x, cpu: 1, nodeName: a}]",
            "{containers: [{name: c, resources: {requests: {cpu: 1, memory: 512Mi}}}]}",
            "a 15, b 50",
        ),
        ("NodeResourcesFit", "[{name: a}]", "[]", "{}", "a 87"),
        (
            "NodeResourcesBalancedAllocation",
            "[{name: a}, {name: b}]",
            "[{name: x, cpu: 1, nodeName: a}]",
            "{containers: [{name: c, resources: {requests: {cpu: 1, memory: 1Gi}}}]}",
            "a 100, b 75",
        ),
        ("NodeResourcesBalancedAllocation", "[{name: a}]", "[]", "{}", "-"),
        ("TaintToleration", soft, "[]", "{}", "a 0, b 50, c 100"),
        ("TaintToleration", soft, "[]", "{tolerations: [{key: k, operator: Exists}]}", "a 0, b 100, c 100"),
        ("TaintToleration", "[{name: a}]", "[]", "{}", "-"),
        ("NodeAffinity", ZONES, "[]", weighted, "a 25, b 100, c 0"),
        ("NodeAffinity", ZONES, "[]", "{}", "-"),
        ("ImageLocality", images, "[]", "{containers: [{name: c, image: 'web:1'}]}", "a 67, b 67, c 0"),
        ("ImageLocality", images, "[]", "{containers: [{name: c, image: 'tiny:latest'}]}", "a 0, b 0, c 0"),
        ("ImageLocality", images, "[]", "{containers: [{name: c, image: 'other'}]}", "-"),
        ("PodTopologySpread", ZONES, web, spread, "a 0, b 100, c 100"),
        (
            "PodTopologySpread",
            "[{name: a, labels: {h: a}}, {name: b, labels: {h: b}}, {name: c}]",
            web,
            spread,
            "a 0, b 100, c 0",
        ),
        ("PodTopologySpread", ZONES, "[]", "{}", "-"),
        (
            "PodTopologySpread",
            "[{name: a, labels: {kubernetes.io/hostname: a}}, {name: b, labels: {kubernetes.io/hostname: b}}]",
            "[{name: x, owner: rs, nodeName: a}]",
            "{owner: rs}",
            "a 66, b 100",
        ),
        ("InterPodAffinity", ZONES, web, &near, "a 100, b 100, c 0"),
        ("InterPodAffinity", ZONES, web, &apart, "a 0, b 0, c 100"),
        ("InterPodAffinity", ZONES, &likes_db, "{labels: {app: db}}", "a 100, b 100, c 0"),
        ("InterPodAffinity", ZONES, &hates_db, "{labels: {app: db}}", "a 0, b 0, c 100"),
        ("InterPodAffinity", ZONES, needs_db, "{labels: {app: db}}", "a 0, b 0, c 100"),
        ("InterPodAffinity", ZONES, web, "{labels: {app: db}}", "-"),
    ];
    for (name, nodes, placed, pod, expected) in cases {
        let mut world = World::of(nodes).with(placed);
        assert_eq!(show(given(name, &mut world, pod)), expected, "{name}: {pod}");
    }
}

#[test]
fn full_nodes_first_if_the_profile_says_so() {
    let mut world = World::of("[{name: a}, {name: b}]").with("[{name: x, cpu: 1, nodeName: a}]");
    world.profile.strategy = Strategy::MostAllocated;
    let scores = given("NodeResourcesFit", &mut world, "{cpu: 1}").unwrap();
    assert!(scores["a"] > scores["b"], "{scores:?}");
}
