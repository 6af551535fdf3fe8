//! Who goes for whom.

use super::*;

fn victims(world: &mut World, pod: &str) -> Option<(String, Vec<String>)> {
    let preemption = world.decide(&pod_of(pod)).unwrap_err().preemption?;
    Some((preemption.node, preemption.victims.iter().map(|v| v.name().to_string()).collect()))
}

fn found(node: &str, victims: &[&str]) -> Option<(String, Vec<String>)> {
    Some((node.into(), victims.iter().map(ToString::to_string).collect()))
}

fn budget(world: &mut World, app: &str, allowed: i32) {
    let budget = crate::controllers::testing::yaml(&format!(
        "{{metadata: {{name: {app}, namespace: shop}}, spec: {{selector: {{matchLabels: {{app: {app}}}}}}}, status: {{disruptionsAllowed: {allowed}, currentHealthy: 1, desiredHealthy: 1, expectedPods: 1}}}}"
    ));
    world.snapshot.set_budget(&budget);
}

#[test]
fn the_least_goes() {
    let two = "[{name: a}, {name: b}]";
    let started = |name: &str, node: &str, at: &str| {
        format!("{{name: '{name}', cpu: 2, nodeName: {node}, status: {{startTime: '2026-01-0{at}T00:00:00Z'}}}}")
    };
    // (name, nodes, placed, pod, who goes where)
    let cases = [
        ("no more than needed", "[{name: a}]", "[{name: x, cpu: 1, nodeName: a}, {name: 'y', cpu: 1, priority: 1, nodeName: a}]".to_string(), "{cpu: 1, priority: 9}", found("a", &["x"])),
        ("equals stay", "[{name: a}]", "[{name: x, cpu: 2, priority: 9, nodeName: a}]".into(), "{cpu: 1, priority: 9}", None),
        ("never", "[{name: a}]", "[{name: x, cpu: 2, nodeName: a}]".into(), "{cpu: 1, priority: 9, preemptionPolicy: Never}", None),
        ("not enough", "[{name: a}]", "[{name: x, cpu: 1, nodeName: a}, {name: 'y', cpu: 1, priority: 10, nodeName: a}]".into(), "{cpu: 2, priority: 9}", None),
        ("the lowest", two, "[{name: x, cpu: 2, priority: 2, nodeName: a}, {name: 'y', cpu: 2, priority: 1, nodeName: b}]".into(), "{cpu: 1, priority: 9}", found("b", &["y"])),
        ("the fewest", two, "[{name: x, cpu: 1, nodeName: a}, {name: 'y', cpu: 1, nodeName: a}, {name: z, cpu: 2, nodeName: b}]".into(), "{cpu: 2, priority: 9}", found("b", &["z"])),
        ("the youngest", two, format!("[{}, {}]", started("x", "a", "1"), started("y", "b", "2")), "{cpu: 1, priority: 9}", found("b", &["y"])),
        ("ports", "[{name: a}]", "[{name: x, nodeName: a, containers: [{name: c, ports: [{containerPort: 80, hostPort: 80}]}]}, {name: 'y', nodeName: a}]".into(), "{priority: 9, containers: [{name: c, ports: [{containerPort: 80, hostPort: 80}]}]}", found("a", &["x"])),
        ("apart", "[{name: a, labels: {h: a}}]", "[{name: x, labels: {app: web}, nodeName: a}, {name: 'y', nodeName: a}]".into(), "{priority: 9, affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: h, labelSelector: {matchLabels: {app: web}}}]}}}", found("a", &["x"])),
        ("unwanted", "[{name: a, labels: {h: a}}]", "[{name: x, nodeName: a, affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: h, labelSelector: {matchLabels: {app: web}}}]}}}, {name: 'y', nodeName: a}]".into(), "{priority: 9, labels: {app: web}}", found("a", &["x"])),
        ("spread", "[{name: a, labels: {h: a}}, {name: b, labels: {h: b}, spec: {unschedulable: true}}]", "[{name: x, labels: {app: web}, nodeName: a}, {name: 'y', nodeName: a}]".into(), "{priority: 9, labels: {app: web}, topologySpreadConstraints: [{maxSkew: 1, topologyKey: h, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}]}", found("a", &["x"])),
    ];
    for (name, nodes, placed, pod, expected) in cases {
        assert_eq!(victims(&mut World::of(nodes).with(&placed), pod), expected, "{name}");
    }
}

#[test]
fn budgets_are_kept_where_possible() {
    let placed = "[{name: x, cpu: 2, labels: {app: web}, nodeName: a}, {name: 'y', cpu: 2, priority: 1, nodeName: b}]";
    let mut world = World::of("[{name: a}, {name: b}]").with(placed);
    assert_eq!(victims(&mut world, "{cpu: 1, priority: 9}"), found("a", &["x"]));
    budget(&mut world, "web", 0);
    assert_eq!(victims(&mut world, "{cpu: 1, priority: 9}"), found("b", &["y"]), "the other matters more, but may go");
    budget(&mut world, "web", 1);
    assert_eq!(victims(&mut world, "{cpu: 1, priority: 9}"), found("a", &["x"]));
    budget(&mut world, "web", 0);
    world.snapshot.remove_node("b");
    assert_eq!(victims(&mut world, "{cpu: 1, priority: 9}"), found("a", &["x"]), "in need it is broken");
    // On one node, the guarded stays if another suffices, though it matters more.
    let placed = "[{name: x, cpu: 1, labels: {app: web}, nodeName: a}, {name: 'y', cpu: 1, priority: 1, nodeName: a}]";
    let mut world = World::of("[{name: a}]").with(placed);
    budget(&mut world, "web", 0);
    assert_eq!(victims(&mut world, "{cpu: 1, priority: 9}"), found("a", &["y"]));
    world.snapshot.remove_budget("shop", "web");
    assert_eq!(victims(&mut world, "{cpu: 1, priority: 9}"), found("a", &["x"]));
}

#[test]
fn nobody_else_goes_while_others_are_going() {
    let target = "conditions: [{type: DisruptionTarget, status: 'True', reason: PreemptionByScheduler}]";
    let placed = format!(
        "[{{name: x, cpu: 2, nodeName: a, metadata: {{deletionTimestamp: '2026-01-01T00:00:00Z'}}, status: {{{target}}}}}, {{name: 'y', cpu: 2, nodeName: b}}]"
    );
    let mut world = World::of("[{name: a}, {name: b}]").with(&placed);
    let pod = pod_of("{cpu: 1, priority: 9}");
    world.snapshot.nominate(&pod, "a");
    let failure = world.decide(&pod).unwrap_err();
    assert!(failure.preemption.is_none() && failure.waits_for_room);
    assert!(failure.message.ends_with("preemption: not eligible due to a terminating pod on the nominated node."));
    world.snapshot.forget_pod("x");
    assert_eq!(world.decide(&pod).unwrap(), "a");
}

#[test]
fn less_important_nominations_are_withdrawn() {
    let mut world = World::of("[{name: a}]").with("[{name: x, cpu: 2, nodeName: a}]");
    let low = pod_of("{name: low, cpu: 1, priority: 5}");
    assert_eq!(world.decide(&low).unwrap_err().preemption.map(|p| p.withdrawn.len()), Some(0));
    world.snapshot.nominate(&low, "a");
    let preemption = world.decide(&pod_of("{cpu: 2, priority: 9}")).unwrap_err().preemption.unwrap();
    assert_eq!(preemption.withdrawn.first().map(|p| p.name()), Some("low"));
}
