//! Deletes: preconditions, finalizers, grace, propagation, collections, namespaces.

use super::*;

#[tokio::test]
async fn plain_and_preconditions() {
    let s = Server::start().await;
    let made = s.post(CONFIG_MAPS, &config_map("a", json!({}))).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let uid = made["metadata"]["uid"].clone();
    let wrong = s.delete_with(&path, &json!({"preconditions": {"uid": "other"}})).await.err(409);
    assert!(wrong.contains("the UID in the precondition (other) does not match the UID in record"), "{wrong}");
    let wrong = s.delete_with(&path, &json!({"preconditions": {"resourceVersion": "1"}})).await.err(409);
    assert!(wrong.contains("The object might have been modified"), "{wrong}");
    s.delete(&format!("{path}?propagationPolicy=Odd")).await.err(422);
    s.delete_with(&path, &json!({"kind": "ConfigMap"})).await.err(400);
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid}});
    let gone = s.delete_with(&path, &options).await.ok();
    assert_eq!((&gone["kind"], &gone["status"]), (&json!("Status"), &json!("Success")));
    assert_eq!(gone["details"], json!({"name": "a", "kind": "configmaps", "uid": uid}));
    s.delete(&path).await.err(404);
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let s = Server::start().await;
    let mut object = config_map("a", json!({}));
    object["metadata"]["finalizers"] = json!(["example.com/hold"]);
    s.post(CONFIG_MAPS, &object).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let marked = s.delete(&path).await.ok();
    assert_eq!(marked["metadata"]["deletionTimestamp"], "2026-01-01T00:00:00Z");
    let again = s.delete(&path).await.ok();
    assert_eq!(revision(&again), revision(&marked));
    let more = json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}});
    assert!(s.patch(&path, "merge", &more).await.err(422).contains("no new finalizers can be added"));
    let mut w = s.watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion={}", revision(&marked))).await;
    s.patch(&path, "merge", &json!({"metadata": {"finalizers": null}})).await.ok();
    s.get(&path).await.err(404);
    assert_eq!(w.brief().await, "DELETED a");
}

#[tokio::test]
async fn propagation_sets_finalizers() {
    let s = Server::start().await;
    for (query, body, want) in [
        ("?propagationPolicy=Orphan", Value::Null, json!(["orphan"])),
        ("?orphanDependents=true", Value::Null, json!(["orphan"])),
        ("", json!({"propagationPolicy": "Foreground"}), json!(["foregroundDeletion"])),
        ("", json!({"propagationPolicy": "Background"}), Value::Null),
    ] {
        s.post(CONFIG_MAPS, &config_map("a", json!({}))).await.ok();
        let path = format!("{CONFIG_MAPS}/a");
        let target = format!("{path}{query}");
        let deleted =
            if body.is_null() { s.delete(&target).await.ok() } else { s.delete_with(&target, &body).await.ok() };
        assert_eq!(deleted["metadata"]["finalizers"], want, "{query} {body}");
        if !want.is_null() {
            s.delete(&path).await.ok();
            s.get(&path).await.ok();
            s.patch(&path, "merge", &json!({"metadata": {"finalizers": []}})).await.ok();
        }
        s.get(&path).await.err(404);
    }
}

#[tokio::test]
async fn collections() {
    let s = Server::start().await;
    for (name, app) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let mut object = config_map(name, json!({}));
        object["metadata"]["labels"] = json!({"app": app});
        s.post(CONFIG_MAPS, &object).await.ok();
    }
    let deleted = s.delete(&format!("{CONFIG_MAPS}?labelSelector=app%3Dx")).await.ok();
    assert_eq!((&deleted["kind"], deleted["items"].as_array().unwrap().len()), (&json!("ConfigMapList"), 2));
    assert_eq!(s.get(CONFIG_MAPS).await.ok()["items"].as_array().unwrap().len(), 1);
    s.delete("/api/v1/configmaps").await.err(405);
    s.delete("/api/v1/namespaces").await.err(405);
}

#[tokio::test]
async fn collections_go_page_by_page_in_any_format() {
    let s = Server::start().await;
    for i in 0..5 {
        let mut object = config_map(&format!("m{i}"), json!({}));
        if i == 1 {
            object["metadata"]["finalizers"] = json!(["example.com/hold"]);
        }
        s.post(CONFIG_MAPS, &object).await.ok();
    }
    let (mut path, mut seen) = (format!("{CONFIG_MAPS}?limit=2"), Vec::new());
    loop {
        let page = s.delete(&path).await.ok();
        let items = page["items"].as_array().unwrap();
        for item in items {
            assert_eq!((&item["kind"], &item["apiVersion"]), (&json!("ConfigMap"), &json!("v1")));
            seen.push(item["metadata"]["name"].as_str().unwrap().to_string());
        }
        // What is held is marked, and passed over.
        let held = items.iter().find(|i| i["metadata"]["name"] == "m1");
        assert!(held.is_none_or(|held| held["metadata"]["deletionTimestamp"].is_string()));
        let Some(token) = page["metadata"]["continue"].as_str() else { break };
        assert!(page["metadata"]["remainingItemCount"].as_u64().is_some_and(|n| n > 0));
        path = format!("{CONFIG_MAPS}?limit=2&continue={token}");
    }
    assert_eq!(seen, ["m0", "m1", "m2", "m3", "m4"]);
    let left = s.get(CONFIG_MAPS).await.ok();
    assert_eq!((left["items"].as_array().unwrap().len(), &left["items"][0]["metadata"]["name"]), (1, &json!("m1")));

    let proto = [("accept", "application/vnd.kubernetes.protobuf")];
    let answer = s.send("DELETE", CONFIG_MAPS, &proto, Vec::new()).await;
    assert_eq!(answer.code, 200);
    let list = copepod_core::codec::decode(copepod_core::codec::PROTOBUF, &answer.body, None).unwrap().value;
    assert_eq!((&list["kind"], &list["items"][0]["metadata"]["name"]), (&json!("ConfigMapList"), &json!("m1")));
    // Of nothing.
    let none = s.delete("/api/v1/namespaces/default/secrets").await.ok();
    assert_eq!((&none["kind"], &none["items"]), (&json!("SecretList"), &json!([])));
}

#[tokio::test]
async fn namespaces_terminate() {
    let s = Server::start().await;
    let ns = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    s.post("/api/v1/namespaces", &ns).await.ok();
    let maps = "/api/v1/namespaces/shop/configmaps";
    s.post(maps, &config_map("a", json!({}))).await.ok();
    let missing = s.post("/api/v1/namespaces/none/configmaps", &config_map("a", json!({}))).await;
    assert_eq!(missing.err(404), "namespaces \"none\" not found");
    assert_eq!(
        s.delete("/api/v1/namespaces/default").await.err(403),
        "namespaces \"default\" is forbidden: this namespace may not be deleted"
    );
    let going = s.delete("/api/v1/namespaces/shop").await.ok();
    assert_eq!(
        (&going["status"]["phase"], &going["spec"]["finalizers"]),
        (&json!("Terminating"), &json!(["kubernetes"]))
    );
    let refused = s.post(maps, &config_map("b", json!({}))).await;
    assert_eq!(
        refused.err(403),
        "configmaps \"b\" is forbidden: unable to create new content in namespace shop because it is being terminated"
    );
    assert_eq!(refused.json()["details"]["causes"][0]["reason"], "NamespaceTerminating");
    s.delete(&format!("{maps}/a")).await.ok();
    let mut empty = s.get("/api/v1/namespaces/shop").await.ok();
    empty["spec"]["finalizers"] = json!([]);
    // Not by an ordinary write.
    s.put("/api/v1/namespaces/shop", &empty).await.ok();
    s.get("/api/v1/namespaces/shop").await.ok();
    s.put("/api/v1/namespaces/shop/finalize", &empty).await.ok();
    s.get("/api/v1/namespaces/shop").await.err(404);
}

#[tokio::test]
async fn options_in_protobuf() {
    let s = Server::start().await;
    let media = "application/vnd.kubernetes.protobuf";
    for api_version in ["v1", "apps/v1"] {
        let mut object = config_map("a", json!({}));
        object["metadata"]["finalizers"] = json!(["example.com/hold"]);
        s.post(CONFIG_MAPS, &object).await.ok();
        let options = json!({"apiVersion": api_version, "kind": "DeleteOptions", "propagationPolicy": "Orphan"});
        let proto = copepod_core::codec::encode_protobuf(&options).unwrap();
        let path = format!("{CONFIG_MAPS}/a");
        let marked = s.send("DELETE", &path, &[("content-type", media)], proto).await.ok();
        assert_eq!(marked["metadata"]["finalizers"], json!(["example.com/hold", "orphan"]));
        s.patch(&path, "merge", &json!({"metadata": {"finalizers": null}})).await.ok();
    }
}
