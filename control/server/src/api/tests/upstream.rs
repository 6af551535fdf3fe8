//! Small things that clients of upstream's server see, each found missing by comparing with it.

use serde_json::json;

use super::{CONFIG_MAPS, Server, config_map};

const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn some_kinds_are_created_by_put() {
    let s = Server::start().await;
    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}});
    let made = s.put(&format!("{LEASES}/l"), &lease).await;
    assert_eq!(made.code, 201);
    assert_eq!(s.put(&format!("{CONFIG_MAPS}/none"), &config_map("none", json!({}))).await.code, 404);
    let mut known = config_map("none", json!({}));
    known["metadata"]["uid"] = json!("u");
    let gone = s.put(&format!("{CONFIG_MAPS}/none"), &known).await.err(409);
    assert!(gone.ends_with("Precondition failed: UID in precondition: u, UID in object meta: "), "{gone}");
}

#[tokio::test]
async fn some_kinds_are_not_replaced_blindly() {
    let s = Server::start().await;
    let lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}});
    s.post(LEASES, &lease).await.ok();
    let blind = s.put(&format!("{LEASES}/l"), &lease).await.err(422);
    assert!(blind.ends_with("metadata.resourceVersion: Invalid value: 0: must be specified for an update"), "{blind}");
}

#[tokio::test]
async fn writers_of_one_object_all_get_through() {
    let s = Server::start().await;
    let path = format!("{CONFIG_MAPS}/busy");
    s.post(CONFIG_MAPS, &config_map("busy", json!({}))).await.ok();
    let writes = (0..200).map(|i| {
        let (s, path) = (&s, &path);
        async move {
            if i % 2 == 0 {
                s.put(path, &config_map("busy", json!({"k": i.to_string()}))).await.code
            } else {
                s.patch(path, "merge", &json!({"data": {format!("k{i}"): "v"}})).await.code
            }
        }
    });
    assert_eq!(futures::future::join_all(writes).await, vec![200; 200]);
}

#[tokio::test]
async fn deletion_is_not_written() {
    let s = Server::start().await;
    s.post(CONFIG_MAPS, &config_map("a", json!({}))).await.ok();
    let mut dying = config_map("a", json!({}));
    dying["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let refused = s.put(&format!("{CONFIG_MAPS}/a"), &dying).await.err(422);
    assert!(
        refused.contains("metadata.deletionTimestamp: Invalid value: \"2026-01-01T00:00:00Z\": field is immutable")
    );
}

#[tokio::test]
async fn statuses_bring_annotations() {
    let s = Server::start().await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"metadata": {"name": "d", "labels": {"a": "b"}},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}});
    s.post("/apis/apps/v1/namespaces/default/deployments", &deployment).await.ok();
    let change = json!({"metadata": {"annotations": {"x": "y"}, "labels": {"a": "c"}}});
    let status = "/apis/apps/v1/namespaces/default/deployments/d/status";
    let written = s.patch(status, "merge", &change).await.ok();
    assert_eq!(written["metadata"]["annotations"]["x"], "y");
    assert_eq!((&written["metadata"]["labels"]["a"], &written["metadata"]["generation"]), (&json!("b"), &json!(1)));
    let node = json!({"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "4"}}});
    assert_eq!(s.post("/api/v1/nodes", &node).await.ok()["status"]["capacity"]["cpu"], "4");
}

#[tokio::test]
async fn bindings() {
    let s = Server::start().await;
    let pod = |name: &str, gates: serde_json::Value| json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}], "schedulingGates": gates}});
    let bind = |meta: serde_json::Value| json!({"metadata": meta, "target": {"kind": "Node", "name": "n"}});
    s.post(PODS, &pod("free", json!([]))).await.ok();
    let stale = s.post(&format!("{PODS}/free/binding"), &bind(json!({"name": "free", "resourceVersion": "1"}))).await;
    assert!(stale.err(409).contains("ResourceVersion in precondition: 1"));
    s.post(&format!("{PODS}/free/binding"), &bind(json!({"name": "free"}))).await.ok();
    let bound = s.get(&format!("{PODS}/free")).await.ok();
    assert_eq!((&bound["spec"]["nodeName"], &bound["metadata"]["generation"]), (&json!("n"), &json!(1)));
    s.post(PODS, &pod("gated", json!([{"name": "example.com/wait"}]))).await.ok();
    let gated = s.post(&format!("{PODS}/gated/binding"), &bind(json!({"name": "gated"}))).await.err(409);
    assert!(gated.ends_with("pod gated has non-empty .spec.schedulingGates"), "{gated}");
}

#[tokio::test]
async fn options_are_checked() {
    let s = Server::start().await;
    for (query, code, message) in [
        ("sendInitialEvents=true", 422, "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"),
        ("timeoutSeconds=abc", 400, "parsing \"abc\": invalid syntax"),
        ("labelSelector=a%20b", 400, "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
    ] {
        let e = s.get(&format!("{CONFIG_MAPS}?{query}")).await.err(code);
        assert!(e.contains(message) && !e.contains("requirement: unable"), "{e}");
    }
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let e = s.get_as(&format!("{CONFIG_MAPS}?includeObject=Foo"), table).await.err(400);
    assert!(e.starts_with("Unable to convert to Table as requested: includeObject: Invalid value: \"Foo\""), "{e}");
    let pretty = s.get(&format!("{CONFIG_MAPS}?pretty=true")).await;
    assert!(pretty.body.starts_with(b"{\n  "));
}

#[tokio::test]
async fn errors_are_in_the_format_asked_for() {
    let s = Server::start().await;
    let none = format!("{CONFIG_MAPS}/none");
    let yaml = s.get_as(&none, "application/yaml").await;
    assert_eq!((yaml.code, yaml.headers["content-type"].to_str().unwrap()), (404, "application/yaml"));
    assert!(String::from_utf8_lossy(&yaml.body).contains("reason: NotFound"));
    let binary = s.get_as(&none, "application/vnd.kubernetes.protobuf").await;
    assert!(binary.body.starts_with(b"k8s\0"));
    assert_eq!(s.get_as(&none, "text/html").await.headers["content-type"], "application/json");
}

#[tokio::test]
async fn discovery_is_cached_by_clients() {
    let s = Server::start().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let first = s.get_as("/apis", accept).await;
    let tag = first.headers["etag"].to_str().unwrap().to_string();
    let headers = [("accept", accept), ("if-none-match", tag.as_str())];
    let again = s.send("GET", "/apis", &headers, "").await;
    assert_eq!((again.code, again.body.len()), (304, 0));
    let resources = s.get("/api/v1").await.ok();
    let pods = resources["resources"].as_array().unwrap().iter().find(|r| r["name"] == "pods").unwrap().clone();
    assert_eq!(pods["storageVersionHash"], "xPOwRZ+Yhw8=", "as upstream's");
    let paths = s.get("/").await.ok();
    assert!(paths["paths"].as_array().unwrap().contains(&json!("/apis/apps/v1")));
}

#[tokio::test]
async fn scales_in_tables() {
    let s = Server::start().await;
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let deployment = json!({"metadata": {"name": "d"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
    s.post("/apis/apps/v1/namespaces/default/deployments", &deployment).await.ok();
    let path = "/apis/apps/v1/namespaces/default/deployments/d/scale";
    let table = s.get_as(path, "application/json;as=Table;v=v1;g=meta.k8s.io").await.ok();
    assert_eq!(table["columnDefinitions"][1]["name"], "Desired");
    assert_eq!(table["rows"][0]["cells"][1], 3);
}

#[tokio::test]
async fn watches_in_their_older_form() {
    let s = Server::start().await;
    let mut all = s.watch("/api/v1/watch/namespaces/default/configmaps").await;
    let mut one = s.watch("/api/v1/watch/namespaces/default/configmaps/b").await;
    s.post(CONFIG_MAPS, &config_map("a", json!({}))).await.ok();
    s.post(CONFIG_MAPS, &config_map("b", json!({}))).await.ok();
    assert_eq!(all.brief().await, "ADDED a");
    assert_eq!(one.brief().await, "ADDED b");
    s.delete("/api/v1/watch/namespaces/default/configmaps/b").await.err(404);
}
