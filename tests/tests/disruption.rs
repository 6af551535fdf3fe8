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

#[test]
fn a_budget_goes_by_what_scales_its_pods() {
    let cluster = Cluster::start();
    cluster.push("hello", "hello");
    let template = |app: &str| {
        format!("template: {{metadata: {{labels: {{app: {app}}}}}, spec: {{containers: [{{name: c, image: hello}}]}}}}")
    };
    let workload = |version: &str, kind: &str, app: &str, more: &str| {
        let selector = match kind {
            "ReplicationController" => format!("{{app: {app}}}"),
            _ => format!("{{matchLabels: {{app: {app}}}}}"),
        };
        let template = template(app);
        cluster.apply(&format!(
            "apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {app}}}\n\
             spec: {{replicas: 3, {more}selector: {selector}, {template}}}\n"
        ));
    };
    workload("apps/v1", "Deployment", "web", "");
    workload("apps/v1", "ReplicaSet", "bare", "");
    workload("apps/v1", "StatefulSet", "store", "serviceName: store, podManagementPolicy: Parallel, ");
    workload("v1", "ReplicationController", "old", "");

    // A controller of a kind that has no pods of its own otherwise: what tells is its scale.
    workload("apps/v1", "Deployment", "herd", "paused: true, ");
    let uid = cluster.ok("get deployment herd -o jsonpath={.metadata.uid}");
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: sheep-1\n  labels: {{app: sheep}}\n  ownerReferences:\n  \
         - {{apiVersion: apps/v1, kind: Deployment, name: herd, uid: {uid}, controller: true}}\n\
         spec: {{containers: [{{name: c, image: hello}}]}}\n"
    ));
    for app in ["web", "bare", "store", "old", "sheep"] {
        cluster.ok(&format!("create poddisruptionbudget {app} --selector=app={app} --max-unavailable=1"));
        let healthy = if app == "sheep" { 1 } else { 3 };
        let counted = |v: &serde_json::Value| v["currentHealthy"] == healthy && v["expectedPods"] == 3;
        let status = cluster.until(&format!("pdb {app}"), "/status", counted);
        let allowed = if app == "sheep" { 0 } else { 1 };
        assert_eq!((&status["desiredHealthy"], &status["disruptionsAllowed"]), (&2.into(), &allowed.into()), "{app}");
    }
}
