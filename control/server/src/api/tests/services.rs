//! Services' addresses and ports through the whole pipeline.

use super::*;

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(name: &str, spec: Value) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec});
    if object["spec"]["ports"].is_null() {
        object["spec"]["ports"] = json!([{"port": 80}]);
    }
    object
}

#[tokio::test]
async fn addresses_are_given_once() {
    let s = Server::start().await;
    let made = (0..40).map(|i| {
        let s = &s;
        async move { s.post(SERVICES, &service(&format!("s{i}"), json!({"type": "NodePort"}))).await.ok() }
    });
    let made = futures::future::join_all(made).await;
    let unique = |pointer: &str| {
        made.iter().map(|m| m.pointer(pointer).unwrap().to_string()).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!((unique("/spec/clusterIP"), unique("/spec/ports/0/nodePort")), (40, 40));
    let (ip, port) = (&made[0]["spec"]["clusterIP"], &made[0]["spec"]["ports"][0]["nodePort"]);
    assert_eq!(made[0]["spec"]["clusterIPs"], json!([ip]));
    let taken = s.post(SERVICES, &service("x", json!({"clusterIP": ip}))).await.err(422);
    assert!(taken.contains("provided IP is already allocated"), "{taken}");
    let ports = json!([{"port": 80, "nodePort": port}]);
    let taken = s.post(SERVICES, &service("x", json!({"type": "NodePort", "ports": ports}))).await.err(422);
    assert!(
        taken.contains(&format!("spec.ports[0].nodePort: Invalid value: {port}: provided port is already allocated")),
        "{taken}"
    );
    let out = s.post(SERVICES, &service("x", json!({"clusterIP": "9.9.9.9"}))).await.err(422);
    assert!(out.contains("is not in the valid range"), "{out}");
    // What is deleted is free again.
    s.delete(&format!("{SERVICES}/s0")).await.ok();
    s.post(SERVICES, &service("x", json!({"clusterIP": ip, "type": "NodePort", "ports": ports}))).await.ok();
}

#[tokio::test]
async fn types_change() {
    let s = Server::start().await;
    let first = s.post(SERVICES, &service("a", json!({"selector": {"app": "a"}}))).await.ok();
    let ip = first["spec"]["clusterIP"].clone();
    let path = format!("{SERVICES}/a");
    let node_port = s.patch(&path, "merge", &json!({"spec": {"type": "NodePort"}})).await.ok();
    let port = node_port["spec"]["ports"][0]["nodePort"].clone();
    assert!(port.as_u64().unwrap() >= 30000);
    // A replace that does not say the address keeps it.
    let kept = s.put(&path, &service("a", json!({"type": "NodePort", "selector": {"app": "a"}}))).await.ok();
    assert_eq!((&kept["spec"]["clusterIP"], &kept["spec"]["ports"][0]["nodePort"]), (&ip, &port));
    assert_eq!(revision(&kept), revision(&node_port));
    let back = s.patch(&path, "strategic-merge", &json!({"spec": {"type": "ClusterIP"}})).await.ok();
    assert_eq!((back["spec"]["ports"][0].get("nodePort"), &back["spec"]["clusterIP"]), (None, &ip));
    let headless = s.post(SERVICES, &service("h", json!({"clusterIP": "None"}))).await.ok();
    assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
    let before = s.store.current_revision();
    let dry = s.post(&format!("{SERVICES}?dryRun=All"), &service("d", json!({}))).await.ok();
    assert!(dry["spec"]["clusterIP"].as_str().unwrap().starts_with("10.43."));
    assert_eq!(s.store.current_revision(), before);
}
