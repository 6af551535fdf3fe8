//! The promise of the generic server: a kind that exists only as an OpenAPI schema has every verb, subresource, watch
//! and patch type.

use super::*;
use copepod_core::resource::{Names, ScalePaths, Scope, Subresources};
use copepod_core::schema::Schema;

const GROUP: &str = "/apis/toys.example.com/v1";
const ROBOTS: &str = "/apis/toys.example.com/v1/namespaces/default/robots";

fn registry() -> Registry {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "arms": {"type": "integer", "format": "int32"},
            "name": {"type": "string"},
            "tools": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                "x-kubernetes-patch-strategy": "merge", "x-kubernetes-patch-merge-key": "name",
                "items": {"type": "object", "properties": {"name": {"type": "string"}, "size": {"type": "integer"}}}},
        }},
        "status": {"type": "object", "properties": {"arms": {"type": "integer"}}},
    }});
    let names = Names {
        group: "toys.example.com".into(),
        version: "v1".into(),
        kind: "Robot".into(),
        plural: "robots".into(),
        singular: "robot".into(),
        short: vec!["rb".into()],
        categories: vec!["all".into()],
        scope: Scope::Namespaced,
    };
    let scale = ScalePaths {
        spec_replicas: "spec.arms".into(),
        status_replicas: "status.arms".into(),
        selector: String::new(),
    };
    let subresources = Subresources { status: true, scale: Some(scale) };
    let mut registry = kinds::builtin();
    registry.add(kinds::from_schema(names, subresources, Schema::from_openapi("Robot", &schema).unwrap()));
    registry
}

fn robot(name: &str, arms: i64) -> Value {
    json!({"apiVersion": "toys.example.com/v1", "kind": "Robot", "metadata": {"name": name, "labels": {"arms": arms.to_string()}},
        "spec": {"arms": arms, "tools": [{"name": "saw", "size": 1}]}})
}

/// Objects whose managedFields would make them too large: applies are refused, other writes are not tracked.
#[tokio::test]
async fn objects_are_bounded() {
    let s = Server::with(registry(), Arc::new(Unconnected)).await;
    let mut large = robot("a", 1);
    large["spec"]["tools"] = (0..80_000).map(|i| json!({"name": format!("n{i}"), "size": 1})).collect();
    let refused = s.apply(&format!("{ROBOTS}/a"), "one", &large).await;
    assert!(refused.err(413).contains("the limit is 6291456"), "{}", refused.text());
    let made = s.post(ROBOTS, &large).await.ok();
    assert_eq!(made["metadata"].get("managedFields"), None);
    let patched = s.patch(&format!("{ROBOTS}/a"), "merge", &json!({"spec": {"arms": 2}})).await.ok();
    assert_eq!(patched["metadata"].get("managedFields"), None);
}

#[tokio::test]
async fn every_verb_and_patch() {
    let s = Server::with(registry(), Arc::new(Unconnected)).await;
    let mut watch = s.watch(&format!("{ROBOTS}?watch=true&allowWatchBookmarks=true")).await;
    let path = format!("{ROBOTS}/a");

    // create, get, list
    let a = s.post(ROBOTS, &robot("a", 2)).await.ok();
    assert_eq!(a["metadata"]["generation"], 1);
    s.post(ROBOTS, &robot("b", 4)).await.ok();
    assert_eq!(s.get(&path).await.ok(), a);
    let list = s.get(&format!("{ROBOTS}?labelSelector=arms%3D4")).await.ok();
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("RobotList"), 1));
    assert_eq!(s.get(&format!("{GROUP}/robots?limit=1")).await.ok()["metadata"]["remainingItemCount"], 1);

    // the schema judges
    let mut odd = robot("c", 1);
    odd["spec"]["legs"] = json!(2);
    let strict = s.post(&format!("{ROBOTS}?fieldValidation=Strict"), &odd).await.err(400);
    assert!(strict.contains("unknown field \"spec.legs\""), "{strict}");
    odd["spec"]["arms"] = json!("many");
    assert!(s.post(ROBOTS, &odd).await.err(400).contains("spec.arms"));

    // replace, patch in three types
    let mut replaced = a.clone();
    replaced["spec"]["name"] = json!("rob");
    let replaced = s.put(&path, &replaced).await.ok();
    assert_eq!(replaced["metadata"]["generation"], 2);
    s.put(&path, &a).await.err(409);
    let merged = s.patch(&path, "merge", &json!({"spec": {"arms": 3}})).await.ok();
    assert_eq!((&merged["spec"]["arms"], &merged["spec"]["name"]), (&json!(3), &json!("rob")));
    let ops = json!([{"op": "replace", "path": "/spec/arms", "value": 5}]);
    assert_eq!(s.patch(&path, "json", &ops).await.ok()["spec"]["arms"], 5);
    let tools = json!({"spec": {"tools": [{"name": "drill", "size": 2}]}});
    let strategic = s.patch(&path, "strategic-merge", &tools).await.ok();
    assert!(strategic["spec"]["tools"].as_array().unwrap().iter().any(|t| t["name"] == "drill"));
    assert_eq!(strategic["spec"]["tools"].as_array().unwrap().len(), 2);

    // status and scale
    let mut status = s.get(&format!("{path}/status")).await.ok();
    status["status"] = json!({"arms": 1});
    status["spec"]["arms"] = json!(99);
    let status = s.put(&format!("{path}/status"), &status).await.ok();
    assert_eq!((&status["status"]["arms"], &status["spec"]["arms"]), (&json!(1), &json!(5)));
    s.patch(&format!("{path}/status"), "merge", &json!({"status": {"arms": 2}})).await.ok();
    let scale = s.get(&format!("{path}/scale")).await.ok();
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["replicas"]), (&json!(5), &json!(2)));
    s.patch(&format!("{path}/scale"), "merge", &json!({"spec": {"replicas": 6}})).await.ok();
    assert_eq!(s.get(&path).await.ok()["spec"]["arms"], 6);

    // server-side apply, on the object, its status and its scale
    let mut config = json!({"apiVersion": "toys.example.com/v1", "kind": "Robot", "metadata": {"name": "c"},
        "spec": {"tools": [{"name": "saw", "size": 3}]}});
    let applied = s.apply(&format!("{ROBOTS}/c"), "one", &config).await;
    assert_eq!((applied.code, &applied.json()["spec"]["tools"][0]["size"]), (201, &json!(3)));
    config["spec"]["tools"] = json!([{"name": "drill", "size": 1}]);
    s.apply(&format!("{ROBOTS}/c"), "two", &config).await.ok();
    config["spec"]["tools"] = json!([{"name": "axe"}]);
    let applied = s.apply(&format!("{ROBOTS}/c"), "one", &config).await.ok();
    assert_eq!(applied["spec"]["tools"], json!([{"name": "drill", "size": 1}, {"name": "axe"}]));
    config["status"] = json!({"arms": 4});
    assert_eq!(s.apply(&format!("{ROBOTS}/c/status"), "two", &config).await.ok()["status"]["arms"], 4);
    let scale =
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "c"}, "spec": {"replicas": 8}});
    s.apply(&format!("{ROBOTS}/c/scale"), "three", &scale).await.ok();
    let applied = s.get(&format!("{ROBOTS}/c")).await.ok();
    assert_eq!(applied["spec"]["arms"], 8);
    assert_eq!(applied["metadata"]["managedFields"].as_array().unwrap().len(), 4);
    config["spec"]["arms"] = json!(7);
    let conflict = s.apply(&format!("{ROBOTS}/c"), "two", &config).await.err(409);
    assert_eq!(
        conflict,
        "Apply failed with 1 conflict: conflict with \"three\" with subresource \"scale\": .spec.arms"
    );
    s.delete(&format!("{ROBOTS}/c")).await.ok();

    // table, metadata, discovery
    let table = s.get_as(ROBOTS, "application/json;as=Table;v=v1;g=meta.k8s.io").await.ok();
    assert_eq!(table["rows"][0]["cells"][0], "a");
    let discovered = s.get(GROUP).await.ok();
    let names: Vec<&Value> = discovered["resources"].as_array().unwrap().iter().map(|r| &r["name"]).collect();
    assert_eq!(names, ["robots", "robots/scale", "robots/status"]);

    // delete, deletecollection, watch saw all
    s.delete(&path).await.ok();
    s.get(&path).await.err(404);
    s.delete(ROBOTS).await.ok();
    assert_eq!(s.get(ROBOTS).await.ok()["items"], json!([]));
    let mut seen = Vec::new();
    while seen.last().is_none_or(|e| e != "DELETED b") {
        seen.push(watch.brief().await);
    }
    assert_eq!(seen[..3], ["ADDED a", "ADDED b", "MODIFIED a"]);
    assert_eq!(seen[seen.len() - 2], "DELETED a");
}
