//! Tests of the DaemonSet decision: tables, and a simulated cluster with crashes.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::testing::*;
use super::super::testing_cluster::Cluster;
use super::*;

const SET: &str = "daemonsets";

/// A set `log` with more of its spec in YAML's flow style, on these nodes.
fn cluster(more: &str, nodes: &[&str]) -> Cluster {
    let mut set: Value = yaml(
        "apiVersion: apps/v1\nkind: DaemonSet\nmetadata:\n  name: log\n  \
         annotations: {deprecated.daemonset.template.generation: '4'}\nspec:\n  revisionHistoryLimit: 2\n  \
         updateStrategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 1, maxSurge: 0}}\n  \
         selector: {matchLabels: {app: log}}\n  template:\n    metadata: {labels: {app: log}}\n    \
         spec: {containers: [{name: c, image: a}]}\n",
    );
    let more: Value = yaml(&format!("{{{more}}}"));
    json_patch::merge(&mut set, &json!({"spec": more}));
    let mut cluster = Cluster::default();
    cluster.create(SET, set).unwrap();
    for node in nodes {
        cluster.create("nodes", json!({"metadata": {"name": node, "labels": {"disk": "ssd"}}})).unwrap();
    }
    cluster
}

fn decide(cluster: &Cluster, failures: &mut Backoff) -> Plan {
    let set = cluster.list::<DaemonSet>(SET)[0].clone();
    let revisions = cluster.list("controllerrevisions");
    let plan = reconcile(&set, &cluster.list("pods"), &cluster.list("nodes"), &revisions, failures, cluster.now());
    check_bounds(&set, cluster, &plan);
    plan
}

/// Syncs until nothing more is written; the nodes of created and deleted pods, in order.
fn settle(cluster: &mut Cluster) -> Vec<String> {
    let mut log = Vec::new();
    for _ in 0..50 {
        let plan = decide(cluster, &mut Backoff::default());
        if plan.is_empty() {
            return log;
        }
        log.extend(changes(cluster, &plan).into_iter().map(|(sign, node)| format!("{sign}{node}")));
        cluster.apply(&plan, usize::MAX);
    }
    panic!("no end of writes: {log:?}");
}

/// What a plan does to pods: `+` or `-`, and the pod's node.
fn changes(cluster: &Cluster, plan: &Plan) -> Vec<(char, String)> {
    let pods = plan.actions.iter().filter(|a| a.target().gvr.resource == "pods");
    pods.filter_map(|a| {
        let pod: Pod = match a {
            Action::Create { object, .. } => serde_json::from_value(object.clone()).unwrap(),
            Action::Delete { target, .. } => {
                serde_json::from_value(cluster.get("pods", &target.name)?.clone()).unwrap()
            }
            Action::Patch { .. } => return None,
        };
        let sign = if matches!(a, Action::Create { .. }) { '+' } else { '-' };
        Some((sign, node_of(&pod).unwrap_or("?").to_string()))
    })
    .collect()
}

/// The scheduler binds and the nodes run all pods that wait.
fn run_all(cluster: &mut Cluster, ready: bool) {
    for pod in cluster.list::<Pod>("pods") {
        if pod::phase(&pod) == "Pending" {
            cluster.run(text(&pod.metadata.name), node_of(&pod).unwrap(), ready);
        }
    }
}

/// The nodes have stopped all pods that are being deleted.
fn stop_all(cluster: &mut Cluster) {
    for pod in cluster.list::<Pod>("pods") {
        if pod::terminating(&pod) {
            cluster.remove("pods", text(&pod.metadata.name));
        }
    }
}

fn running(more: &str, nodes: &[&str]) -> Cluster {
    let mut cluster = cluster(more, nodes);
    settle(&mut cluster);
    run_all(&mut cluster, true);
    cluster.wait(1000);
    settle(&mut cluster);
    cluster
}

fn image(cluster: &mut Cluster, image: &str) {
    cluster.edit(SET, "log", |s| s["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image));
}

fn status(cluster: &Cluster) -> Value {
    cluster.get(SET, "log").unwrap()["status"].clone()
}

#[test]
fn every_node_gets_a_pod_bound_to_it_by_its_name() {
    let mut c = cluster("", &["n1", "n2"]);
    assert_eq!(settle(&mut c), ["+n1", "+n2"]);
    let pod = c.values("pods").next().unwrap();
    let term = json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]});
    let affinity = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    assert_eq!(affinity["nodeSelectorTerms"], json!([term]));
    assert_eq!(pod["metadata"]["generateName"], "log-");
    assert_eq!(pod["metadata"]["labels"]["pod-template-generation"], "4");
    let revision = c.values("controllerrevisions").next().unwrap();
    assert_eq!(
        pod["metadata"]["labels"]["controller-revision-hash"],
        revision["metadata"]["labels"]["controller-revision-hash"]
    );
    assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), 6);
    run_all(&mut c, true);
    assert!(settle(&mut c).is_empty());
    let expected = json!({
        "currentNumberScheduled": 2, "desiredNumberScheduled": 2, "numberMisscheduled": 0, "numberReady": 2,
        "updatedNumberScheduled": 2, "numberAvailable": 2, "observedGeneration": 1,
    });
    assert_eq!(status(&c), expected);
}

#[test]
fn which_nodes_it_is_for() {
    let selector = |s: &str| format!("template: {{spec: {{{s}}}}}");
    let affinity = |e: &str| {
        selector(&format!(
            "affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [{e}]}}}}}}"
        ))
    };
    let tolerating = |t: &str| selector(&format!("tolerations: [{t}]"));
    // (more of the set, the node's taint, should run, may stay)
    let cases = [
        (String::new(), "", true, true),
        (selector("nodeSelector: {disk: ssd}"), "", true, true),
        (selector("nodeSelector: {disk: hdd}"), "", false, false),
        (selector("nodeName: n1"), "", true, true),
        (selector("nodeName: n2"), "", false, false),
        (affinity("{matchExpressions: [{key: disk, operator: In, values: [ssd]}]}"), "", true, true),
        (affinity("{matchExpressions: [{key: disk, operator: DoesNotExist}]}"), "", false, false),
        (affinity("{matchFields: [{key: metadata.name, operator: NotIn, values: [n1]}]}"), "", false, false),
        (affinity("{}"), "", false, false),
        (affinity("{}, {matchExpressions: [{key: disk, operator: Exists}]}"), "", true, true),
        (String::new(), "{key: k, effect: NoSchedule}", false, true),
        (String::new(), "{key: k, effect: NoExecute}", false, false),
        (String::new(), "{key: k, effect: PreferNoSchedule}", true, true),
        (tolerating("{key: k, operator: Exists}"), "{key: k, effect: NoExecute}", true, true),
        (tolerating("{key: k, value: v}"), "{key: k, value: w, effect: NoSchedule}", false, true),
        (String::new(), "{key: node.kubernetes.io/unschedulable, effect: NoSchedule}", true, true),
        (String::new(), "{key: node.kubernetes.io/memory-pressure, effect: NoSchedule}", true, true),
        (String::new(), "{key: node.kubernetes.io/unreachable, effect: NoExecute}", true, true),
        (String::new(), "{key: node.kubernetes.io/network-unavailable, effect: NoSchedule}", false, true),
        (
            selector("hostNetwork: true"),
            "{key: node.kubernetes.io/network-unavailable, effect: NoSchedule}",
            true,
            true,
        ),
    ];
    for (more, taint, should_run, may_stay) in cases {
        let c = cluster(&more, &[]);
        let node: Node = yaml(&format!("metadata: {{name: n1, labels: {{disk: ssd}}}}\nspec: {{taints: [{taint}]}}"));
        let fit = Daemon::of(&c.list::<DaemonSet>(SET)[0]).fit(&node);
        assert_eq!(fit, Fit { should_run, may_stay }, "{more} {taint}");
    }
}

#[test]
fn nodes_come_change_and_go() {
    let mut c = running("template: {spec: {nodeSelector: {disk: ssd}}}", &["n1", "n2"]);
    c.create("nodes", json!({"metadata": {"name": "n3", "labels": {"disk": "ssd"}}})).unwrap();
    assert_eq!(settle(&mut c), ["+n3"]);
    c.edit("nodes", "n1", |n| n["metadata"]["labels"]["disk"] = json!("hdd"));
    assert_eq!(settle(&mut c), ["-n1"]);
    c.edit("nodes", "n2", |n| n["spec"]["taints"] = json!([{"key": "k", "effect": "NoSchedule"}]));
    assert!(settle(&mut c).is_empty(), "a pod that is there may stay");
    assert_eq!((&status(&c)["desiredNumberScheduled"], &status(&c)["numberMisscheduled"]), (&json!(1), &json!(2)));
    c.remove("nodes", "n3");
    assert_eq!(settle(&mut c), ["-n3"], "a pod that waits for a node which is gone");
}

#[test]
fn rolling_update_within_max_unavailable() {
    for (unavailable, waves) in [("1", vec![1, 1, 1, 1]), ("'50%'", vec![2, 2]), ("10", vec![4])] {
        let mut c = running(
            &format!("updateStrategy: {{rollingUpdate: {{maxUnavailable: {unavailable}}}}}"),
            &["n1", "n2", "n3", "n4"],
        );
        image(&mut c, "b");
        for wave in waves {
            let log = settle(&mut c);
            assert_eq!((log.len(), log.iter().all(|l| l.starts_with('-'))), (wave, true), "{unavailable}: {log:?}");
            stop_all(&mut c);
            assert_eq!(settle(&mut c).len(), wave);
            run_all(&mut c, true);
        }
        assert!(settle(&mut c).is_empty());
        assert_eq!((&status(&c)["updatedNumberScheduled"], &status(&c)["numberAvailable"]), (&json!(4), &json!(4)));
    }
}

#[test]
fn rolling_update_with_surge_starts_the_new_before_the_old_ends() {
    let mut c = running("updateStrategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}", &["n1", "n2"]);
    image(&mut c, "b");
    for node in ["n1", "n2"] {
        assert_eq!(settle(&mut c), [format!("+{node}")]);
        run_all(&mut c, true);
        let ended = settle(&mut c);
        assert_eq!(ended.first(), Some(&format!("-{node}")));
        stop_all(&mut c);
        if node == "n1" {
            // The next step came with the end of the first.
            assert_eq!(ended.get(1).map(String::as_str), Some("+n2"));
            run_all(&mut c, true);
            assert_eq!(settle(&mut c), ["-n2"]);
            stop_all(&mut c);
            break;
        }
    }
    assert!(settle(&mut c).is_empty());
    assert_eq!(status(&c)["updatedNumberScheduled"], json!(2));
}

/// The node of each of these pods has them not ready any more.
fn break_on(cluster: &mut Cluster, nodes: &[&str]) {
    for pod in cluster.list::<Pod>("pods") {
        if let Some(node) = node_of(&pod).filter(|n| nodes.contains(n)) {
            cluster.run(text(&pod.metadata.name), node, false);
        }
    }
}

#[test]
fn nodes_whose_old_pod_does_not_serve_are_updated_beyond_the_limits() {
    let nodes = ["n1", "n2", "n3", "n4"];
    // (limits, nodes without an available pod, what happens at once)
    let cases: [(&str, &[&str], &[&str]); 6] = [
        // A second pod costs such a node nothing; a node that serves is updated within the surge.
        ("maxUnavailable: 0, maxSurge: 1", &["n2", "n3"], &["+n2", "+n3", "+n1", "-n2", "-n3"]),
        ("maxUnavailable: 0, maxSurge: 1", &nodes, &["+n1", "+n2", "+n3", "+n4", "-n1", "-n2", "-n3", "-n4"]),
        ("maxUnavailable: 0, maxSurge: 2", &["n1"], &["+n1", "+n2", "+n3", "-n1"]),
        // Without a surge they use up what may be unavailable, but all of them go.
        ("maxUnavailable: 1, maxSurge: 0", &["n2", "n3"], &["-n2", "-n3"]),
        ("maxUnavailable: 3, maxSurge: 0", &["n2", "n3"], &["-n2", "-n3", "-n1"]),
        ("maxUnavailable: 1, maxSurge: 0", &nodes, &["-n1", "-n2", "-n3", "-n4"]),
    ];
    for (limits, broken, expected) in cases {
        let mut c = running(&format!("updateStrategy: {{rollingUpdate: {{{limits}}}}}"), &nodes);
        break_on(&mut c, broken);
        settle(&mut c);
        image(&mut c, "b");
        assert_eq!(settle(&mut c), expected, "{limits}, {broken:?}");
        for _ in 0..nodes.len() {
            stop_all(&mut c);
            settle(&mut c);
            run_all(&mut c, true);
            settle(&mut c);
        }
        stop_all(&mut c);
        assert!(settle(&mut c).is_empty(), "{limits}, {broken:?}");
        let status = status(&c);
        let counts = (&status["updatedNumberScheduled"], &status["numberAvailable"]);
        assert_eq!((counts, c.names("pods").len()), ((&json!(4), &json!(4)), 4), "{limits}, {broken:?}");
    }
}

#[test]
fn a_second_pod_that_cannot_start_leaves_the_first_alone() {
    // Both want the same port of the node: the new one is never bound.
    let port = "template: {spec: {containers: [{name: c, image: a, ports: [{containerPort: 80, hostPort: 80}]}]}}";
    let surge = "updateStrategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}";
    let mut c = running(&format!("{port}, {surge}"), &["n1", "n2", "n3"]);
    image(&mut c, "b");
    assert_eq!(settle(&mut c), ["+n1"]);
    c.wait(10_000);
    assert!(settle(&mut c).is_empty(), "it waits, and no other node is touched");
    let counts = |c: &Cluster| {
        let status = status(c);
        [&status["numberAvailable"], &status["numberUnavailable"], &status["updatedNumberScheduled"]].map(Value::as_i64)
    };
    assert_eq!(counts(&c), [Some(3), None, None]);
    // Only when the first is gone by another hand is there room.
    let first = c.list::<Pod>("pods").into_iter().find(|p| pod::node_name(p) == "n1").unwrap();
    c.remove("pods", text(&first.metadata.name));
    run_all(&mut c, true);
    assert_eq!(settle(&mut c), ["+n2"]);
    assert_eq!(counts(&c), [Some(3), None, Some(1)]);
}

#[test]
fn a_broken_template_stops_and_undo_heals() {
    let mut c = running("", &["n1", "n2", "n3"]);
    image(&mut c, "bad");
    settle(&mut c);
    stop_all(&mut c);
    settle(&mut c);
    run_all(&mut c, false);
    assert!(settle(&mut c).is_empty(), "one is unavailable, no more");
    assert_eq!(status(&c)["numberAvailable"], json!(2));
    image(&mut c, "a");
    assert_eq!(settle(&mut c).len(), 1, "only the broken one is replaced");
    stop_all(&mut c);
    settle(&mut c);
    run_all(&mut c, true);
    assert!(settle(&mut c).is_empty());
    assert_eq!((&status(&c)["numberAvailable"], &status(&c)["updatedNumberScheduled"]), (&json!(3), &json!(3)));
}

#[test]
fn on_delete_waits_for_the_user() {
    let mut c = running("updateStrategy: {type: OnDelete, rollingUpdate: null}", &["n1", "n2"]);
    image(&mut c, "b");
    assert!(settle(&mut c).is_empty());
    let first = c.names("pods")[0].clone();
    c.remove("pods", &first);
    assert_eq!(settle(&mut c).len(), 1);
    assert_eq!(status(&c)["updatedNumberScheduled"], json!(1));
}

#[test]
fn pods_that_ended_are_replaced_with_back_off_and_doubles_end() {
    let mut c = running("", &["n1"]);
    let pod = c.names("pods")[0].clone();
    c.fail(&pod);
    let mut failures = Backoff::default();
    let plan = decide(&c, &mut failures);
    assert_eq!((plan.actions.len(), plan.notes[0].reason), (1, "FailedDaemonPod"));
    assert_eq!(plan.notes[0].message, format!("Found failed daemon pod shop/{pod} on node n1, will try to kill it"));
    let plan = decide(&c, &mut failures);
    assert_eq!((plan.actions.len(), plan.requeue_after), (0, Some(Duration::from_secs(1))));

    let mut c = running("", &["n1"]);
    let mut twin = c.values("pods").next().unwrap().clone();
    twin["metadata"]["name"] = json!("twin");
    c.wait(10);
    c.create("pods", twin).unwrap();
    let plan = decide(&c, &mut failures);
    assert_eq!(plan.actions.iter().map(|a| a.target().name.as_str()).collect::<Vec<_>>(), ["twin"], "the younger goes");
}

#[test]
fn of_two_old_pods_on_a_node_the_one_that_serves_stays() {
    let mut c = running("updateStrategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}", &["n1"]);
    let first = c.names("pods").remove(0);
    image(&mut c, "b");
    assert_eq!(settle(&mut c), ["+n1"]);
    run_all(&mut c, true);
    c.run(&first, "n1", false);
    // Before the first is ended another template comes.
    image(&mut c, "c");
    c.wait(10);
    let mut ended = Vec::new();
    for _ in 0..3 {
        let plan = decide(&c, &mut Backoff::default());
        let deletes = plan.actions.iter().filter(|a| matches!(a, Action::Delete { .. }));
        ended.extend(deletes.map(|a| a.target().name.clone()));
        c.apply(&plan, usize::MAX);
    }
    assert_eq!(ended, [first]);
}

#[test]
fn selecting_all_is_said_and_creates_are_bounded() {
    let c = cluster("selector: {matchLabels: null}", &["n1"]);
    let plan = decide(&c, &mut Backoff::default());
    assert!(plan.is_empty() && plan.notes[0].reason == "SelectingAll", "{plan:?}");
    let nodes: Vec<String> = (0..600).map(|n| format!("n{n}")).collect();
    let mut c = cluster("", &nodes.iter().map(String::as_str).collect::<Vec<_>>());
    let plan = decide(&c, &mut Backoff::default());
    c.apply(&plan, usize::MAX);
    assert_eq!(decide(&c, &mut Backoff::default()).actions.len(), MAX_BURST);
}

#[test]
fn min_ready_seconds() {
    let mut c = cluster("minReadySeconds: 20", &["n1"]);
    settle(&mut c);
    run_all(&mut c, true);
    let plan = decide(&c, &mut Backoff::default());
    assert_eq!(plan.requeue_after, Some(Duration::from_secs(20)));
    settle(&mut c);
    assert_eq!((&status(&c)["numberReady"], &status(&c)["numberUnavailable"]), (&json!(1), &json!(1)));
}

/// No plan takes away more available pods than may be unavailable, nor puts a second pod beside an available one on
/// more nodes than the surge allows.
fn check_bounds(set: &DaemonSet, cluster: &Cluster, plan: &Plan) {
    let spec = set.spec.as_ref().unwrap();
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let daemon = Daemon::of(set);
    let (nodes, pods) = (cluster.list::<Node>("nodes"), cluster.list::<Pod>("pods"));
    let wanted: Vec<&str> = nodes.iter().filter(|n| daemon.fit(n).should_run).map(|n| text(&n.metadata.name)).collect();
    let (unavailable, surge) = rollout::limits(spec, wanted.len());
    let deleted: Vec<&str> =
        plan.actions.iter().filter(|a| matches!(a, Action::Delete { .. })).map(|a| a.target().name.as_str()).collect();
    let up = |p: &Pod| pod::active(p) && pod::available_in(p, min_ready, cluster.now()).is_some_and(|w| w.is_zero());
    let served = |gone: &[&str]| {
        let serves = |node: &str| {
            pods.iter().any(|p| node_of(p) == Some(node) && up(p) && !gone.contains(&text(&p.metadata.name)))
        };
        wanted.iter().filter(|node| serves(node)).count()
    };
    let (before, after) = (served(&[]), served(&deleted));
    assert!(after == before || after >= wanted.len().saturating_sub(unavailable), "{before} to {after}: {plan:?}");
    let creates: Vec<String> =
        changes(cluster, plan).into_iter().filter(|(sign, _)| *sign == '+').map(|(_, node)| node).collect();
    let doubled = |created: &[String]| {
        let double = |node: &&&str| {
            let here: Vec<_> = pods.iter().filter(|p| node_of(p) == Some(**node) && pod::active(p)).collect();
            let count = here.len() + created.iter().filter(|c| c == *node).count();
            count > 1 && here.iter().any(|p| up(p))
        };
        wanted.iter().filter(double).count()
    };
    let (before, after) = (doubled(&[]), doubled(&creates));
    assert!(after == before || after <= surge, "{before} to {after} doubled: {plan:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn bounds_hold_and_all_heals(
        shape in 0_usize..5,
        steps in prop::collection::vec((any::<u8>(), 0_usize..100), 1..60),
    ) {
        let shapes = [
            "",
            "updateStrategy: {rollingUpdate: {maxUnavailable: 50%}}",
            "updateStrategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}",
            "minReadySeconds: 5, updateStrategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 50%}}",
            "template: {spec: {nodeSelector: {disk: ssd}}}",
        ];
        let names = ["n1", "n2", "n3", "n4", "n5"];
        let mut c = cluster(shapes[shape], &names);
        let mut failures = Backoff::default();
        for (what, which) in steps {
            let pods = c.list::<Pod>("pods");
            let picked = pods.get(which % pods.len().max(1));
            let name = picked.map(|p| text(&p.metadata.name).to_string()).unwrap_or_default();
            match (what % 12, picked) {
                (0..=2, _) => { let plan = decide(&c, &mut failures); c.apply(&plan, usize::MAX); }
                (3, _) => { let plan = decide(&c, &mut failures); c.apply(&plan, which % 4); }
                (4 | 5, Some(pod)) if pod::phase(pod) == "Pending" => c.run(&name, node_of(pod).unwrap(), which % 5 != 0),
                (6, _) => stop_all(&mut c),
                (7, Some(pod)) if pod::phase(pod) == "Running" => c.run(&name, node_of(pod).unwrap(), which % 2 == 0),
                (8, Some(pod)) if pod::phase(pod) == "Running" => c.fail(&name),
                (9, Some(_)) => c.delete("pods", &name, false),
                (10, _) => {
                    let disk = if which % 2 == 0 { "ssd" } else { "hdd" };
                    c.edit("nodes", names[which % 5], |n| n["metadata"]["labels"]["disk"] = json!(disk));
                }
                (11, _) => image(&mut c, ["a", "b", "c"][which % 3]),
                _ => {}
            }
            c.wait(i64::from(what) % 4);
        }
        let mut rounds = 0;
        loop {
            stop_all(&mut c);
            for pod in c.list::<Pod>("pods") {
                if pod::phase(&pod) != "Failed" && !pod::ready(&pod) {
                    c.run(text(&pod.metadata.name), node_of(&pod).unwrap(), true);
                }
            }
            c.wait(2000);
            let plan = decide(&c, &mut failures);
            if plan.is_empty() { break; }
            c.apply(&plan, usize::MAX);
            rounds += 1;
            prop_assert!(rounds < 100, "does not converge: {:?}", plan);
        }
        let status = c.list::<DaemonSet>(SET)[0].status.clone().unwrap();
        let desired = status.desired_number_scheduled;
        prop_assert_eq!((status.number_available.unwrap_or(0), status.updated_number_scheduled.unwrap_or(0)), (desired, desired));
        prop_assert_eq!((status.number_misscheduled, c.names("pods").len()), (0, usize::try_from(desired).unwrap()));
    }
}
