use super::*;

/// What upstream records for a Deployment that was created client-side and then changed.
#[test]
fn a_deployment() {
    let mut c = Cluster::new(deployments(), "apps/v1");
    let container = json!({"name": "web", "image": "web:1", "ports": [{"containerPort": 80, "protocol": "TCP"}]});
    let spec = json!({"replicas": 1, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}});
    c.update("kubectl-create", spec.clone());
    assert_eq!(
        c.entry("kubectl-create").unwrap()["fieldsV1"],
        json!({"f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": {
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {".": {}, "f:image": {}, "f:name": {},
                "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {
                    ".": {}, "f:containerPort": {}, "f:protocol": {}}}}}}}}})
    );

    // A changed field moves; a removed one is nobody's.
    let mut changed = spec.clone();
    changed["template"]["spec"]["containers"][0]["image"] = json!("web:2");
    changed["template"]["metadata"]["labels"] = json!({"app": "web", "tier": "front"});
    c.update("editor", changed.clone());
    assert_eq!(
        c.owns("editor"),
        [".spec.template.metadata.labels.tier", ".spec.template.spec.containers[name=\"web\"].image"]
    );
    assert!(!c.owns("kubectl-create").iter().any(|p| p.ends_with(".image")));
    changed["template"]["metadata"]["labels"] = json!({"app": "web"});
    c.update("editor", changed);
    assert_eq!(c.owns("editor"), [".spec.template.spec.containers[name=\"web\"].image"]);
    c.update("kubectl-create", spec);
    assert!(c.entry("editor").is_none());
}

#[test]
fn an_update_of_nothing_is_nothing() {
    let mut c = Cluster::toy();
    c.update("one", json!({"replicas": 1, "items": [{"name": "a", "value": 1}]}));
    let before = c.managed.clone();
    c.update("two", json!({"replicas": 1, "items": [{"name": "a", "value": 1}]}));
    assert_eq!(c.managed, before);
    // Neither is one of what nobody owns.
    c.object.as_mut().unwrap()["metadata"]["generation"] = json!(7);
    c.update("two", json!({"replicas": 1, "items": [{"name": "a", "value": 1}]}));
    assert_eq!(c.managed, before);
}

#[test]
fn kinds_of_change() {
    for (name, old, new, owned) in [
        ("scalar", json!({"replicas": 1}), json!({"replicas": 2}), vec![".spec.replicas"]),
        ("set", json!({"set": ["a"]}), json!({"set": ["b", "a"]}), vec![".spec.set[=\"b\"]"]),
        ("atomic list", json!({"list": ["a"]}), json!({"list": ["a", "b"]}), vec![".spec.list"]),
        ("atomic map", json!({"atom": {"a": "1"}}), json!({"atom": {"a": "1", "b": "2"}}), vec![".spec.atom"]),
        ("map", json!({"map": {"a": "1"}}), json!({"map": {"a": "2", "b": "1"}}), vec![".spec.map.a", ".spec.map.b"]),
        (
            "new item",
            json!({"items": [{"name": "a"}]}),
            json!({"items": [{"name": "a"}, {"name": "b"}]}),
            vec![".spec.items[name=\"b\"]", ".spec.items[name=\"b\"].name"],
        ),
        ("items in another order", json!({"set": ["a", "b"]}), json!({"set": ["b", "a"]}), vec![]),
        ("another type", json!({"free": {"a": {"b": 1}}}), json!({"free": {"a": 1}}), vec![".spec.free.a"]),
        (
            "the other way",
            json!({"free": {"a": 1}}),
            json!({"free": {"a": {"b": 1}}}),
            vec![".spec.free.a", ".spec.free.a.b"],
        ),
        ("numbers", json!({"free": {"a": 1}}), json!({"free": {"a": 1.0}}), vec![]),
        (
            "a duplicate comes",
            json!({"items": [{"name": "a"}]}),
            json!({"items": [{"name": "a"}, {"name": "a", "value": 1}]}),
            vec![".spec.items[name=\"a\"]"],
        ),
        (
            "a duplicate changes",
            json!({"items": [{"name": "a"}, {"name": "a"}]}),
            json!({"items": [{"name": "a"}, {"name": "a", "value": 1}]}),
            vec![".spec.items[name=\"a\"]"],
        ),
        (
            "a duplicate goes",
            json!({"items": [{"name": "a"}, {"name": "a"}]}),
            json!({"items": [{"name": "a", "value": 1}]}),
            vec![".spec.items[name=\"a\"]", ".spec.items[name=\"a\"].name", ".spec.items[name=\"a\"].value"],
        ),
    ] {
        let mut c = Cluster::toy();
        c.update("one", old);
        c.update("two", new);
        assert_eq!(c.owns("two"), owned, "{name}");
    }
}

/// A pod's container ports by their defaulted protocol, from a configuration without it.
#[test]
fn built_in_key_defaults() {
    let services = builtin(&Gvk::new("", "v1", "Service")).unwrap();
    let mut c = Cluster::new(services, "v1");
    c.update(
        "someone",
        json!({"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}, {"port": 80, "protocol": "UDP"}]}),
    );
    c.force("one", json!({"ports": [{"port": 80, "targetPort": 8080}]}));
    assert_eq!(
        c.spec()["ports"],
        json!([{"port": 80, "protocol": "TCP", "targetPort": 8080}, {"port": 80, "protocol": "UDP"}])
    );
    assert!(c.owns("one").contains(&".spec.ports[port=80,protocol=\"TCP\"].targetPort".to_string()));
}

/// kubectl's way from client-side to server-side apply.
#[test]
fn from_client_side_apply() {
    const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
    let config = |replicas: i64, text: &str| {
        json!({"apiVersion": "toys.example.com/v1", "kind": "Toy", "metadata": {"name": "x"},
            "spec": {"replicas": replicas, "text": text}})
    };
    let created = |replicas: i64| {
        let mut c = Cluster::toy();
        let mut live = config(replicas, "a");
        live["metadata"]["annotations"] = json!({ANNOTATION: config(1, "a").to_string()});
        let writer = c.writer("kubectl-client-side-apply");
        c.managed = track(&c.schema, None, &live, None, &writer);
        c.object = Some(live);
        c
    };
    // The fields that kubectl applied are its own, annotation and all.
    let mut c = created(1);
    c.apply_object("kubectl", &config(2, "b"), false).unwrap();
    assert_eq!(c.spec(), json!({"replicas": 2, "text": "b"}));
    let annotation = c.object.as_ref().unwrap()["metadata"]["annotations"][ANNOTATION].as_str().unwrap().to_string();
    assert_eq!(serde_json::from_str::<Value>(&annotation).unwrap(), config(2, "b"));
    assert_eq!(c.owns("kubectl"), [".spec.replicas", ".spec.text"]);
    // Not those that were changed since.
    let mut c = created(3);
    let e = c.apply_object("kubectl", &config(2, "b"), false).unwrap_err().to_string();
    assert_eq!(
        e,
        "Apply failed with 1 conflict: conflict with \"kubectl-client-side-apply\" using toys.example.com/v1: .spec.replicas"
    );
    // Nor for another manager.
    let e = created(1).apply_object("other", &config(2, "a"), false).unwrap_err();
    assert!(e.to_string().contains("kubectl-client-side-apply"));
}
