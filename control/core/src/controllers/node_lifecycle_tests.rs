use super::super::testing::*;
use super::*;

fn node(ready: &str, taints: &str) -> Node {
    yaml(&format!(
        "metadata: {{name: n1, uid: n1}}\nspec: {{taints: {taints}}}\nstatus: {{conditions: [{{type: Ready, status: '{ready}'}}]}}"
    ))
}

fn pod_here(tolerations: &str) -> Arc<Pod> {
    let mut pod = pod_yaml("p", "");
    pod.spec = Some(yaml(&format!("{{nodeName: n1, containers: [], tolerations: {tolerations}}}")));
    pod.status = Some(pod_status("Running", Some(-1000)));
    Arc::new(pod)
}

fn keys(plan: &Plan) -> Vec<String> {
    let patch = plan.actions.iter().find_map(|a| match a {
        Action::Patch { target, patch, .. } if target.gvr.resource == "nodes" => Some(patch.clone()),
        _ => None,
    });
    let taints = patch.map(|p| p["spec"]["taints"].as_array().cloned().unwrap_or_default()).unwrap_or_default();
    taints
        .iter()
        .map(|t| {
            format!(
                "{}:{}",
                t["key"].as_str().unwrap().trim_start_matches("node.kubernetes.io/"),
                t["effect"].as_str().unwrap()
            )
        })
        .collect()
}

/// The decision where nodes that fail may drive their pods out.
fn reconcile(node: &Node, heard: Timestamp, pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    super::reconcile(node, heard, Permission::Granted, pods, now)
}

fn told(plan: &Plan) -> Vec<String> {
    let line = |(meta, note): (ObjectMeta, Note)| {
        let mark = if note.warning { "!" } else { "" };
        format!("{}{mark} {}: {}", text(&meta.name), note.reason, note.message)
    };
    pod_notes(plan).into_iter().map(line).collect()
}

#[test]
fn silence() {
    let plan = reconcile(&node("True", "[]"), at(-49), &[pod_here("[]")], now());
    assert!(plan.is_empty());
    assert_eq!(plan.requeue_after, Some(Duration::from_secs(2)));

    let plan = reconcile(&node("True", "[]"), at(-51), &[pod_here("[]")], now());
    let Some(Action::Patch { patch, .. }) = &plan.status else { panic!("{plan:?}") };
    assert_eq!(patch["status"]["conditions"][0]["status"], json!("Unknown"));
    assert_eq!(keys(&plan), ["unreachable:NoSchedule", "unreachable:NoExecute"]);
    let unready = plan
        .actions
        .iter()
        .any(|a| matches!(a, Action::Patch { target, subresource: "status", .. } if target.name == "p"));
    assert!(unready, "{plan:?}");
    assert_eq!(told(&plan), ["p! NodeNotReady: Node is not ready"]);
    assert_eq!(plan.requeue_after, Some(Duration::from_secs(300)), "the default toleration");
}

#[test]
fn an_agent_that_is_back_speaks_for_its_pods() {
    let tainted = "[{key: node.kubernetes.io/unreachable, effect: NoSchedule}, \
        {key: node.kubernetes.io/unreachable, effect: NoExecute, timeAdded: '2020-01-01T00:00:00Z'}]";
    let stays = "[{operator: Exists}]";
    for status in ["Unknown", "False"] {
        let plan = reconcile(&node(status, tainted), at(-1), &[pod_here(stays)], now());
        assert!(plan.actions.iter().all(|a| a.target().gvr.resource != "pods"), "{status}: {plan:?}");
    }
    let plan = reconcile(&node("Unknown", tainted), at(-51), &[pod_here(stays)], now());
    assert!(plan.actions.iter().any(|a| a.target().gvr.resource == "pods"), "{plan:?}");
}

#[test]
fn what_was_never_said_is_told_from_what_is_said_no_more() {
    let mut node = node("True", "[]");
    node.metadata.creation_timestamp = Some(Time(at(-50)));
    let plan = reconcile(&node, at(-51), &[], now());
    let Some(Action::Patch { patch, .. }) = &plan.status else { panic!("{plan:?}") };
    let conditions = patch["status"]["conditions"].as_array().unwrap();
    let told: Vec<[&str; 3]> =
        conditions.iter().map(|c| ["type", "reason", "message"].map(|f| c[f].as_str().unwrap())).collect();
    let never = |kind| [kind, "NodeStatusNeverUpdated", "Kubelet never posted node status."];
    let stopped = ["Ready", "NodeStatusUnknown", "Kubelet stopped posting node status."];
    assert_eq!(told, [stopped, never("MemoryPressure"), never("DiskPressure"), never("PIDPressure")]);
    assert_eq!(conditions[1]["lastHeartbeatTime"], json!(Time(at(-50))), "since the node is there");
}

#[test]
fn taints_follow_readiness() {
    let tainted = "[{key: node.kubernetes.io/unreachable, effect: NoExecute}, {key: mine, effect: NoSchedule}]";
    assert_eq!(keys(&reconcile(&node("True", tainted), now(), &[], now())), ["mine:NoSchedule"]);
    assert_eq!(
        keys(&reconcile(&node("False", "[]"), now(), &[], now())),
        ["not-ready:NoSchedule", "not-ready:NoExecute"]
    );
    // A taint of the user's that drives pods out is given its time, once.
    let plan = reconcile(&node("True", "[{key: mine, effect: NoExecute}]"), now(), &[], now());
    let Some(Action::Patch { patch, .. }) = plan.actions.first() else { panic!("{plan:?}") };
    let stamped = patch["spec"]["taints"].clone();
    assert!(stamped[0]["timeAdded"].is_string(), "{stamped}");
    assert!(reconcile(&node("True", &stamped.to_string()), at(5), &[], at(9)).is_empty());
}

#[test]
fn pods_are_driven_out_where_it_is_permitted() {
    let tainted = "[{key: node.kubernetes.io/unreachable, effect: NoSchedule}, \
        {key: node.kubernetes.io/unreachable, effect: NoExecute}]";
    // (taints, permission, taints that are written, asks again)
    let cases: [(&str, Permission, &[&str], Option<u64>); 4] = [
        ("[]", Permission::Refused, &["unreachable:NoSchedule"], None),
        ("[]", Permission::After(Duration::from_secs(7)), &["unreachable:NoSchedule"], Some(7)),
        ("[]", Permission::Granted, &["unreachable:NoSchedule", "unreachable:NoExecute"], None),
        (tainted, Permission::Spared, &["unreachable:NoSchedule"], None),
    ];
    for (taints, permission, expected, again) in cases {
        let plan = super::reconcile(&node("Unknown", taints), at(-99), permission, &[], now());
        assert_eq!(keys(&plan), expected, "{permission:?}");
        assert_eq!(plan.requeue_after, again.map(Duration::from_secs), "{permission:?}");
    }
}

#[test]
fn taints_follow_cordons_and_pressure() {
    let node = |spec: &str, pressed: &str| -> Node {
        yaml(&format!(
            "metadata: {{name: n1, uid: n1}}\nspec: {{{spec}}}\nstatus: {{conditions: [{{type: Ready, status: 'True'}}, \
             {{type: {pressed}, status: 'True'}}]}}"
        ))
    };
    let cordoned = "taints: [{key: node.kubernetes.io/unschedulable, effect: NoSchedule}, \
        {key: node.kubernetes.io/unschedulable, effect: PreferNoSchedule}]";
    // (spec, the condition that holds, taints written)
    let cases: [(&str, &str, &[&str]); 7] = [
        ("", "Fine", &[]),
        ("unschedulable: true", "Fine", &["unschedulable:NoSchedule"]),
        (cordoned, "Fine", &["unschedulable:PreferNoSchedule"]),
        ("", "MemoryPressure", &["memory-pressure:NoSchedule"]),
        ("", "DiskPressure", &["disk-pressure:NoSchedule"]),
        ("", "PIDPressure", &["pid-pressure:NoSchedule"]),
        ("unschedulable: true", "NetworkUnavailable", &["unschedulable:NoSchedule", "network-unavailable:NoSchedule"]),
    ];
    for (spec, pressed, expected) in cases {
        assert_eq!(keys(&reconcile(&node(spec, pressed), now(), &[], now())), expected, "{spec} {pressed}");
    }
    let standing = format!("unschedulable: true, {cordoned}");
    assert!(reconcile(&node(&standing, "Fine"), now(), &[], now()).is_empty());
}

#[test]
fn evictions() {
    let taint = |since: i64| {
        format!(
            "[{{key: node.kubernetes.io/unreachable, effect: NoSchedule}}, {{key: node.kubernetes.io/unreachable, effect: NoExecute, timeAdded: '{}'}}]",
            at(since)
        )
    };
    let tolerate = |seconds: &str| {
        format!("[{{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute{seconds}}}]")
    };
    let both = |first: &str, second: &str| {
        let one = |seconds: &str| format!("{{operator: Exists, tolerationSeconds: {seconds}}}");
        format!("[{}, {}]", one(first), one(second))
    };
    let any_and = |seconds: &str| format!("[{{operator: Exists}}, {{operator: Exists, tolerationSeconds: {seconds}}}]");
    // (taint's age, tolerations, evicted)
    let cases = [
        (-299, "[]".to_string(), false),
        (-301, "[]".to_string(), true),
        (-11, tolerate(", tolerationSeconds: 10"), true),
        (-9, tolerate(", tolerationSeconds: 10"), false),
        (-9999, tolerate(""), false),
        // Of several that match the shortest counts, and those without a limit do not.
        (-11, both("10", "1000"), true),
        (-11, both("1000", "10"), true),
        (-9, both("10", "1000"), false),
        (-11, any_and("10"), true),
        (-9, any_and("10"), false),
        (-9999, any_and("10000"), false),
        // No time at all.
        (0, tolerate(", tolerationSeconds: 0"), true),
        (0, tolerate(", tolerationSeconds: -60"), true),
        (0, both("0", "1000"), true),
        // What does not match does not count.
        (-11, "[{key: mine, operator: Exists, tolerationSeconds: 10}]".to_string(), false),
        (-301, "[{key: mine, operator: Exists, tolerationSeconds: 1000}]".to_string(), true),
    ];
    for (age, tolerations, evicted) in cases {
        let mut pod = pod_here(&tolerations);
        let plan =
            |pod: &Arc<Pod>| reconcile(&node("Unknown", &taint(age)), at(-500), std::slice::from_ref(pod), now());
        let decide = |pod: &Arc<Pod>| plan(pod).actions.into_iter().rfind(|a| a.target().gvr.resource == "pods");
        // First the condition that says why, then the deletion.
        let said = decide(&pod);
        let reason = match &said {
            Some(Action::Patch { patch, .. }) => patch.pointer("/status/conditions/1/reason").cloned(),
            other => panic!("{age} {tolerations}: {other:?}"),
        };
        assert_eq!(reason.is_some_and(|r| r == "DeletionByTaintManager"), evicted, "{age} {tolerations}");
        pod::doom(Arc::make_mut(&mut pod).status.as_mut().unwrap(), "DeletionByTaintManager", "", now());
        assert_eq!(matches!(decide(&pod), Some(Action::Delete { .. })), evicted, "{age} {tolerations}");
        let last = evicted.then(|| "p TaintManagerEviction: Marking for deletion Pod shop/p".to_string());
        assert_eq!(told(&plan(&pod)).into_iter().find(|t| t.contains("Marking")), last, "{age} {tolerations}");
    }
}

#[test]
fn of_two_taints_the_one_that_drives_a_pod_out_sooner_counts() {
    let tolerate = |key: &str, seconds: &str| format!("{{key: {key}, operator: Exists{seconds}}}");
    let (a, b) = (|s: &str| tolerate("a", s), |s: &str| tolerate("b", s));
    // (ages of the taints `a` and `b`, tolerations, how long it stays)
    let cases = [
        (-5, -5, vec![], Some(0)),
        (-5, -5, vec![a("")], Some(0)),
        (-5, -5, vec![a(""), b("")], None),
        (-5, -5, vec![a(""), b(", tolerationSeconds: 30")], Some(25)),
        (-5, -5, vec![a(", tolerationSeconds: 20"), b(", tolerationSeconds: 30")], Some(15)),
        (-5, -20, vec![a(", tolerationSeconds: 20"), b(", tolerationSeconds: 30")], Some(10)),
        (-25, -5, vec![a(", tolerationSeconds: 20"), b("")], Some(0)),
        (-5, -5, vec![a(", tolerationSeconds: 20"), b(", tolerationSeconds: 0")], Some(0)),
    ];
    for (age_a, age_b, tolerations, expected) in cases {
        let taint = |key: &str, age| format!("{{key: {key}, effect: NoExecute, timeAdded: '{}'}}", at(age));
        let node = node("True", &format!("[{}, {}]", taint("a", age_a), taint("b", age_b)));
        let told = format!("{age_a} {age_b} {tolerations:?}");
        let plan = reconcile(&node, now(), &[pod_here(&format!("[{}]", tolerations.join(", ")))], now());
        let goes = plan.actions.iter().any(|a| a.target().gvr.resource == "pods");
        assert_eq!(goes, expected == Some(0), "{told}");
        // Without a taint that ends, only the next heartbeat is waited for.
        let wait = expected.filter(|left| *left > 0).unwrap_or(GRACE.as_secs() + 1);
        assert_eq!(plan.requeue_after, Some(Duration::from_secs(wait)), "{told}");
    }
}
