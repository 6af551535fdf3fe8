//! Nodes that are to have no pods: cordoned, tainted, drained.

use copepod_tests::{Cluster, toolbox_pod, wait_for};

/// A pod that sleeps, with lines of its spec.
fn sleeper(name: &str, spec: &str) -> String {
    toolbox_pod(name, &["sleep"], &format!("  terminationGracePeriodSeconds: 1\n{spec}"))
}

#[test]
fn a_taint_drives_out_who_does_not_tolerate_it_for_as_long_as_they_do() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    let tolerates =
        |more: &str| format!("  tolerations: [{{key: repair, operator: Exists, effect: NoExecute{more}}}]\n");
    let held = sleeper("leaves", "").replace("  name: leaves\n", "  name: leaves\n  finalizers: [example.com/look]\n");
    cluster.apply(&held);
    cluster.apply(&sleeper("lingers", &tolerates(", tolerationSeconds: 2")));
    cluster.apply(&sleeper("stays", &tolerates("")));
    for pod in ["leaves", "lingers", "stays"] {
        cluster.ok(&format!("wait --for=condition=ready pod/{pod} --timeout=120s"));
    }

    let said = cluster.ok("taint node node-1 repair=now:NoExecute");
    assert!(said.contains("node/node-1 tainted"), "{said}");
    cluster.ok("wait --for=delete pod/lingers --timeout=120s");
    // What drove it out stands in its status, and in an event.
    let conditions = cluster.until("pod leaves", "/status/conditions", |all| {
        all.as_array().into_iter().flatten().any(|c| c["type"] == "DisruptionTarget")
    });
    let why = conditions.as_array().unwrap().iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!((&why["status"], &why["reason"]), (&"True".into(), &"DeletionByTaintManager".into()), "{why}");
    assert_eq!(why["message"], "Taint manager: deleting due to NoExecute taint");
    cluster.until("pod leaves", "/metadata/deletionTimestamp", serde_json::Value::is_string);
    wait_for("the event", || {
        let events = cluster.ok("get events --field-selector=involvedObject.name=leaves");
        let told =
            events.contains("TaintManagerEviction") && events.contains("Marking for deletion Pod default/leaves");
        if told { Ok(()) } else { Err(events) }
    });
    cluster.ok("patch pod leaves --type=merge -p {\"metadata\":{\"finalizers\":null}}");
    cluster.ok("wait --for=delete pod/leaves --timeout=120s");
    let stays = cluster.get("pod stays");
    assert_eq!((&stays["status"]["phase"], stays["metadata"].get("deletionTimestamp")), (&"Running".into(), None));

    let said = cluster.ok("taint node node-1 repair-");
    assert!(said.contains("node/node-1 untainted"), "{said}");
    assert!(cluster.get("node node-1")["spec"].get("taints").is_none());
}

#[test]
fn a_cordoned_node_takes_no_pods_and_a_drain_asks_for_force() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    cluster.apply(&sleeper("alone", ""));
    cluster.ok("wait --for=condition=ready pod/alone --timeout=120s");

    assert!(cluster.ok("cordon node-1").contains("node/node-1 cordoned"));
    assert!(cluster.ok("get node node-1").contains("Ready,SchedulingDisabled"));
    let taints = cluster.until("node node-1", "/spec/taints", serde_json::Value::is_array);
    assert_eq!(
        (&taints[0]["key"], &taints[0]["effect"]),
        (&"node.kubernetes.io/unschedulable".into(), &"NoSchedule".into())
    );
    cluster.apply(&sleeper("late", ""));
    wait_for("why it waits", || {
        let told = cluster.ok("describe pod late");
        let why = "0/1 nodes are available: 1 node(s) were unschedulable.";
        if told.contains(why) { Ok(()) } else { Err(told) }
    });

    // A pod that nobody would make again stays, unless it is forced.
    let drained = cluster.k("drain node-1 --ignore-daemonsets --timeout=30s");
    assert!(!drained.ok && drained.err.contains("cannot delete Pods that declare no controller"), "{}", drained.err);
    let drained = cluster.ok("drain node-1 --ignore-daemonsets --force --timeout=120s");
    assert!(drained.contains("pod/alone evicted") && drained.contains("node/node-1 drained"), "{drained}");
    assert!(cluster.ok("uncordon node-1").contains("node/node-1 uncordoned"));
    cluster.ok("wait --for=condition=ready pod/late --timeout=120s");
    assert!(cluster.get("node node-1")["spec"].get("taints").is_none());
    assert_eq!(cluster.get("node node-1")["metadata"]["annotations"]["node.alpha.kubernetes.io/ttl"], "0");
}
