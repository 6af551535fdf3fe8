//! What a decision costs as the cluster grows, counted in steps.

use super::*;

const ZONES: usize = 10;
/// Pods of one controller.
const REPLICAS: usize = 50;
/// Pods whose decisions are counted.
const PODS: usize = 200;

fn big_node(n: usize) -> Arc<Node> {
    let name = format!("n{n}");
    let zone = format!("z{}", n % ZONES);
    node(json!({
        "name": name, "labels": {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone},
        "status": {"allocatable": {"cpu": "8", "memory": "16Gi", "pods": "110"}},
    }))
}

/// A pod that keeps away from its siblings' nodes, is spread over zones and nodes, and likes another's pods.
fn choosy(name: &str, app: &str, friend: &str) -> Arc<PodInfo> {
    let selector = json!({"matchLabels": {"app": app}});
    let term = |key: &str, app: &str| json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}});
    let even = |key: &str, when: &str| json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": when, "labelSelector": selector});
    pod(json!({
        "name": name, "labels": {"app": app}, "owner": app, "cpu": "100m",
        "affinity": {
            "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term("kubernetes.io/hostname", app)]},
            "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 10, "podAffinityTerm": term("topology.kubernetes.io/zone", friend)},
            ]},
        },
        "topologySpreadConstraints": [
            even("topology.kubernetes.io/zone", "DoNotSchedule"), even("kubernetes.io/hostname", "ScheduleAnyway"),
        ],
    }))
}

fn cluster(nodes: usize) -> World {
    let mut world = World::default();
    (0..nodes).for_each(|n| world.snapshot.set_node(big_node(n)));
    for n in 0..nodes {
        let app = format!("old{}", n / REPLICAS);
        world.snapshot.assume(&choosy(&format!("old{n}"), &app, &app), &format!("n{n}"));
    }
    world
}

#[test]
fn a_decision_costs_much_less_than_the_cluster_grows() {
    let mut costs = Vec::new();
    for nodes in [100, 1_000, 10_000] {
        let mut world = cluster(nodes);
        for n in 0..PODS {
            let app = n / REPLICAS;
            world.put(&choosy(&format!("new{n}"), &format!("new{app}"), &format!("old{app}"))).unwrap();
        }
        let work = world.snapshot.work();
        let enough = u64::try_from(PODS * world.profile.enough(nodes)).unwrap();
        assert!(work.scored <= enough, "{nodes} nodes: {work:?}");
        // The first of its kind looks at its friends, the others at nobody.
        assert!(work.counted <= u64::try_from(PODS * 2).unwrap(), "{nodes} nodes: {work:?}");
        costs.push(work.steps());
    }
    // Nodes grow tenfold each time, and so do the pods that are there: their product a hundredfold. Up to a hundred
    // nodes all are looked at, beyond that ever fewer of them.
    assert!(costs[1] < costs[0] * 9 && costs[2] < costs[1] * 3, "{costs:?}");
}

#[test]
fn counts_begin_with_the_pods_that_can_match() {
    let mut world = cluster(300);
    let asks = [
        (
            "{affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: topology.kubernetes.io/zone, labelSelector: {matchLabels: {app: old1}}}]}}}",
            50,
        ),
        (
            "{affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: topology.kubernetes.io/zone, namespaces: [shop, shop], labelSelector: {matchExpressions: [{key: app, operator: In, values: [old1, old2, old2]}]}}]}}}",
            100,
        ),
        (
            "{affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: topology.kubernetes.io/zone, namespaceSelector: {}, labelSelector: {matchLabels: {app: old3}}}]}}}",
            50,
        ),
        (
            "{affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: topology.kubernetes.io/zone, labelSelector: {matchExpressions: [{key: app, operator: Exists}]}}]}}}",
            300,
        ),
    ];
    for (pod, looked_at) in asks {
        let before = world.snapshot.work().counted;
        assert!(world.decide(&pod_of(pod)).is_ok(), "{pod}");
        assert_eq!(world.snapshot.work().counted - before, looked_at, "{pod}");
    }
}

#[test]
fn what_fits_nowhere_is_worked_out_once_for_all_of_its_kind() {
    let mut world = cluster(300);
    let asked = |world: &World| world.snapshot.work().asked;
    let big = |name: &str| pod_of(&format!("{{name: {name}, cpu: 9}}"));
    let first = world.decide(&big("a")).unwrap_err();
    assert_eq!(asked(&world), 300);
    for name in ["b", "c"] {
        let again = world.decide(&big(name)).unwrap_err();
        assert_eq!((&again.message, again.refused_by), (&first.message, first.refused_by));
    }
    assert_eq!(asked(&world), 300, "nothing changed");
    assert!(world.decide(&pod_of("{name: d, cpu: 9, labels: {app: x}}")).is_err());
    assert_eq!(asked(&world), 600, "another kind");
    let changes: [fn(&mut World); 5] = [
        |world| world.snapshot.set_node(big_node(300)),
        |world| world.snapshot.assume(&pod_of("{name: e}"), "n1"),
        |world| drop(world.snapshot.forget_pod("e")),
        |world| world.snapshot.nominate(&pod_of("{name: f}"), "n1"),
        |world| world.snapshot.remove_node("n300"),
    ];
    for change in changes {
        change(&mut world);
        let before = asked(&world);
        assert!(world.decide(&big("a")).is_err());
        assert!(asked(&world) >= before + 300, "something changed");
    }
    world.snapshot.set_node(node(
        json!({"name": "huge", "status": {"allocatable": {"cpu": "16", "memory": "16Gi", "pods": "110"}}}),
    ));
    assert_eq!(world.decide(&big("a")).unwrap(), "huge");
}
