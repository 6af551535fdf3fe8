//! Draining a node under a disruption budget.

use copepod_tests::Cluster;

#[test]
fn a_drain_stops_where_the_budget_ends() {
    let cluster = Cluster::start();
    cluster.push("hello", "hello");
    cluster.ok("create deployment web --image=hello --replicas=3");
    cluster.rolled_out("web");
    cluster.ok("create poddisruptionbudget web --selector=app=web --min-available=2");
    cluster.until("pdb web", "/status/disruptionsAllowed", |v| *v == 1);
    let node = cluster.get("nodes").pointer("/items/0/metadata/name").unwrap().as_str().unwrap().to_string();

    // One pod may go. Its successor finds no node, so the others have to stay.
    let drained = cluster.k(&format!("drain {node} --ignore-daemonsets --timeout=15s"));
    assert!(!drained.ok, "{}", drained.out);
    assert!(
        drained.err.contains("Cannot evict pod as it would violate the pod's disruption budget"),
        "{}",
        drained.err
    );
    let status = cluster.until("pdb web", "/status", |v| v["currentHealthy"] == 2 && v["disruptionsAllowed"] == 0);
    assert_eq!((&status["desiredHealthy"], &status["expectedPods"]), (&2.into(), &3.into()), "{status}");
    assert_eq!(status["conditions"][0]["reason"], "InsufficientPods", "{status}");
    assert_eq!(cluster.get("deployment web").pointer("/status/readyReplicas"), Some(&2.into()));

    // With the node back the successor starts, and the budget has one to spare again.
    cluster.ok(&format!("uncordon {node}"));
    cluster.until("pdb web", "/status/disruptionsAllowed", |v| *v == 1);
    cluster.ok("scale deployment web --replicas=5");
    cluster.until("pdb web", "/status/disruptionsAllowed", |v| *v == 3);
}
