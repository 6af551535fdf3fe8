use serde_json::{Value, json};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn behavior(value: Value) -> Option<HorizontalPodAutoscalerBehavior> {
    (!value.is_null()).then(|| serde_json::from_value(value).unwrap())
}

/// What was proposed before, as (second, count).
fn memory(proposals: &[(i64, i32)]) -> Memory {
    Memory { proposals: proposals.iter().map(|(second, n)| (at(*second), *n)).collect(), ..Memory::default() }
}

/// At second 1000 between 2 and 10 pods: `replicas able limited why`.
fn decide(memory: &mut Memory, behavior: Value, current: i32, proposal: i32) -> String {
    let limited = normalize(memory, self::behavior(behavior).as_ref(), current, proposal, (2, 10), at(1000));
    format!("{} {} {} {}", limited.replicas, limited.able.0, limited.limited, limited.why.0)
}

#[test]
fn without_rules() {
    for (before, current, proposal, expected) in [
        (vec![], 3, 3, "3 ReadyForNewScale false DesiredWithinRange"),
        (vec![], 3, 5, "5 ReadyForNewScale false DesiredWithinRange"),
        (vec![], 3, 8, "6 ReadyForNewScale true ScaleUpLimit"),
        (vec![], 1, 8, "4 ReadyForNewScale true ScaleUpLimit"),
        (vec![], 8, 20, "10 ReadyForNewScale true TooManyReplicas"),
        (vec![], 5, 1, "2 ReadyForNewScale true TooFewReplicas"),
        (vec![(700, 5)], 5, 3, "5 ScaleDownStabilized false DesiredWithinRange"),
        (vec![(699, 5)], 5, 3, "3 ReadyForNewScale false DesiredWithinRange"),
        (vec![(800, 4), (900, 3)], 5, 3, "4 ScaleDownStabilized false DesiredWithinRange"),
    ] {
        let mut memory = memory(&before);
        assert_eq!(decide(&mut memory, Value::Null, current, proposal), expected, "{before:?} {current} {proposal}");
        assert_eq!(memory.proposals.last(), Some(&(at(1000), proposal)), "what was proposed is remembered as it was");
    }
}

#[test]
fn stabilization_windows() {
    let windows = |up: i32, down: i32| json!({"scaleUp": {"stabilizationWindowSeconds": up}, "scaleDown": {"stabilizationWindowSeconds": down}});
    for (before, rules, current, proposal, expected) in [
        (vec![(950, 3)], windows(60, 0), 4, 6, "4 ScaleUpStabilized false DesiredWithinRange"),
        (vec![(950, 5)], windows(60, 0), 4, 6, "5 ScaleUpStabilized false DesiredWithinRange"),
        (vec![(940, 5)], windows(60, 0), 4, 6, "6 ReadyForNewScale false DesiredWithinRange"),
        (vec![(950, 5)], windows(0, 60), 6, 3, "5 ScaleDownStabilized false DesiredWithinRange"),
        (vec![(950, 9)], windows(0, 60), 6, 3, "6 ScaleDownStabilized false DesiredWithinRange"),
        (vec![(930, 9)], windows(0, 60), 6, 3, "3 ReadyForNewScale false DesiredWithinRange"),
        (vec![(999, 9)], windows(0, 0), 6, 3, "3 ReadyForNewScale false DesiredWithinRange"),
        // The defaults: none upwards, five minutes downwards.
        (vec![(999, 4)], json!({}), 4, 6, "6 ReadyForNewScale false DesiredWithinRange"),
        (vec![(701, 5)], json!({"scaleDown": {}}), 5, 3, "5 ScaleDownStabilized false DesiredWithinRange"),
        (vec![(700, 5)], json!({"scaleDown": {}}), 5, 3, "3 ReadyForNewScale false DesiredWithinRange"),
    ] {
        let got = decide(&mut memory(&before), rules.clone(), current, proposal);
        assert_eq!(got, expected, "{before:?} {rules} {current} {proposal}");
    }
}

#[test]
fn policies() {
    let rules = |direction: &str, select: &str, policies: &[(&str, i32, i32)]| {
        let policies: Vec<Value> =
            policies.iter().map(|(t, v, p)| json!({"type": t, "value": v, "periodSeconds": p})).collect();
        json!({direction: {"selectPolicy": select, "policies": policies, "stabilizationWindowSeconds": 0}})
    };
    let up = |select, policies| rules("scaleUp", select, policies);
    let down = |select, policies| rules("scaleDown", select, policies);
    let both: &[(&str, i32, i32)] = &[("Pods", 1, 60), ("Percent", 50, 60)];
    for (rules, changes, current, proposal, expected) in [
        (up("Max", both), vec![], 4, 9, "6 ReadyForNewScale true ScaleUpLimit"),
        (up("Min", both), vec![], 4, 9, "5 ReadyForNewScale true ScaleUpLimit"),
        (up("Disabled", both), vec![], 4, 9, "4 ReadyForNewScale true ScaleUpLimit"),
        (up("Max", &[("Percent", 10, 60)]), vec![], 4, 9, "5 ReadyForNewScale true ScaleUpLimit"),
        (up("Max", &[("Pods", 9, 60)]), vec![], 4, 20, "10 ReadyForNewScale true TooManyReplicas"),
        // Pods added within the period count, and those taken away make room.
        (up("Max", &[("Pods", 3, 60)]), vec![(950, 2, 4)], 4, 9, "5 ReadyForNewScale true ScaleUpLimit"),
        (up("Max", &[("Pods", 3, 60)]), vec![(940, 2, 4)], 4, 9, "7 ReadyForNewScale true ScaleUpLimit"),
        (up("Max", &[("Pods", 1, 60)]), vec![(950, 2, 4)], 4, 9, "4 ReadyForNewScale true ScaleUpLimit"),
        (up("Max", &[("Pods", 1, 60)]), vec![(950, 6, 4)], 4, 9, "7 ReadyForNewScale true ScaleUpLimit"),
        (down("Max", both), vec![], 8, 2, "4 ReadyForNewScale true ScaleDownLimit"),
        (down("Min", both), vec![], 8, 2, "7 ReadyForNewScale true ScaleDownLimit"),
        (down("Disabled", both), vec![], 8, 2, "8 ReadyForNewScale true ScaleDownLimit"),
        (down("Max", &[("Percent", 100, 15)]), vec![], 8, 1, "2 ReadyForNewScale true TooFewReplicas"),
        (down("Max", &[("Pods", 3, 60)]), vec![(950, 8, 6)], 6, 2, "5 ReadyForNewScale true ScaleDownLimit"),
        (down("Max", &[("Pods", 1, 60)]), vec![(950, 8, 6)], 6, 2, "6 ReadyForNewScale true ScaleDownLimit"),
        // The defaults: four pods or as many again in 15 seconds; all at once downwards.
        (json!({}), vec![], 1, 9, "5 ReadyForNewScale true ScaleUpLimit"),
        (json!({}), vec![], 4, 9, "8 ReadyForNewScale true ScaleUpLimit"),
        (json!({"scaleUp": {"policies": []}}), vec![], 3, 9, "7 ReadyForNewScale true ScaleUpLimit"),
        (
            json!({"scaleDown": {"stabilizationWindowSeconds": 0}}),
            vec![],
            9,
            3,
            "3 ReadyForNewScale false DesiredWithinRange",
        ),
    ] {
        let mut memory = memory(&[]);
        for (second, from, to) in &changes {
            memory.rescaled(*from, *to, at(*second));
        }
        assert_eq!(decide(&mut memory, rules.clone(), current, proposal), expected, "{rules} {changes:?} {current}");
    }
}

#[test]
fn memory_is_bounded() {
    let mut memory = Memory::default();
    memory.begin(3, at(0));
    memory.begin(9, at(1));
    assert_eq!(memory.proposals, [(at(0), 3)]);
    for second in 0..5000 {
        normalize(&mut memory, None, 3, 3, (1, 9), at(second));
        memory.rescaled(3, 4, at(second));
        memory.rescaled(4, 3, at(second));
    }
    for list in [&memory.proposals, &memory.added, &memory.removed] {
        assert_eq!(list.len(), MAX_REMEMBERED);
    }
    memory.rescaled(3, 4, at(20_000));
    assert_eq!(memory.added, [(at(20_000), 1)], "what no window reaches is forgotten");
}
