//! Server-side apply and managedFields over HTTP.

use super::*;

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

impl Server {
    /// Applies a configuration, given as YAML or JSON.
    pub(super) async fn apply(&self, path: &str, manager: &str, config: &Value) -> Answer {
        let query = if path.contains('?') { '&' } else { '?' };
        self.apply_as(&format!("{path}{query}fieldManager={manager}"), &config.to_string()).await
    }
    async fn apply_as(&self, path: &str, body: &str) -> Answer {
        self.send("PATCH", path, &[("content-type", "application/apply-patch+yaml")], body.to_string()).await
    }
    async fn as_program(&self, method: &str, path: &str, agent: &str, body: &Value) -> Answer {
        let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        self.send(method, path, &[("content-type", media), ("user-agent", agent)], body.to_string()).await
    }
    fn later(&self, seconds: i64) {
        let mut now = self.now.lock();
        *now += jiff::SignedDuration::from_secs(seconds);
    }
}

fn deployment(name: &str, replicas: i64, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "web", "image": image}]}}}})
}

/// One line per entry: `manager operation [subresource]`.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |e: &Value, field: &str| e[field].as_str().unwrap_or_default().to_string();
    let line = |e: &Value| format!("{} {} {}", text(e, "manager"), text(e, "operation"), text(e, "subresource"));
    entries.iter().map(|e| line(e).trim_end().to_string()).collect()
}

fn fields<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    &entries.iter().find(|e| e["manager"] == manager).unwrap_or_else(|| panic!("{manager} in {entries:?}"))["fieldsV1"]
}

#[tokio::test]
async fn apply_creates_changes_and_conflicts() {
    let s = Server::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let first = s.apply(&path, "one", &deployment("web", 2, "web:1")).await;
    assert_eq!(first.code, 201, "{}", first.text());
    let made = first.json();
    assert_eq!(
        (&made["metadata"]["generation"], &made["spec"]["strategy"]["type"]),
        (&json!(1), &json!("RollingUpdate"))
    );
    assert_eq!(managers(&made), ["one Apply"]);
    let entry = &made["metadata"]["managedFields"][0];
    assert_eq!((&entry["apiVersion"], &entry["fieldsType"]), (&json!("apps/v1"), &json!("FieldsV1")));
    assert_eq!(entry["time"], "2026-01-01T00:00:00Z");
    assert_eq!(
        entry["fieldsV1"],
        json!({"f:spec": {"f:replicas": {}, "f:selector": {}, "f:template": {
            "f:metadata": {"f:labels": {"f:app": {}}},
            "f:spec": {"f:containers": {"k:{\"name\":\"web\"}": {".": {}, "f:image": {}, "f:name": {}}}}}}})
    );

    // The same again, in YAML: nothing is written, whatever the time.
    s.later(60);
    let yaml = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 2\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec: {containers: [{name: web, image: 'web:1'}]}\n";
    let again = s.apply_as(&format!("{path}?fieldManager=one"), yaml).await;
    assert_eq!((again.code, again.json()), (200, made.clone()));

    // Somebody else changes a field by a patch, and owns it from then on.
    let scaled = s.as_program("PATCH", &path, "scaler/1.0 (linux)", &json!({"spec": {"replicas": 5}})).await.ok();
    assert_eq!(managers(&scaled), ["one Apply", "scaler Update"]);
    assert_eq!(fields(&scaled, "scaler"), &json!({"f:spec": {"f:replicas": {}}}));
    let conflict = s.apply(&path, "one", &deployment("web", 2, "web:2")).await;
    assert_eq!(
        conflict.err(409),
        "Apply failed with 1 conflict: conflict with \"scaler\" using apps/v1: .spec.replicas"
    );
    let status = conflict.json();
    assert_eq!(status["reason"], "Conflict");
    assert_eq!(
        status["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"scaler\" using apps/v1", "field": ".spec.replicas"}])
    );
    assert_eq!(s.get(&path).await.ok(), scaled);

    // Dry run, force.
    let forced = format!("{path}?force=true");
    let dry = s.apply(&format!("{forced}&dryRun=All"), "one", &deployment("web", 2, "web:2")).await.ok();
    assert_eq!((managers(&dry), &dry["spec"]["replicas"]), (vec!["one Apply".to_string()], &json!(2)));
    assert_eq!(s.get(&path).await.ok(), scaled);
    let forced = s.apply(&forced, "one", &deployment("web", 2, "web:2")).await.ok();
    assert_eq!((managers(&forced), &forced["spec"]["replicas"]), (vec!["one Apply".to_string()], &json!(2)));
    assert_eq!(forced["metadata"]["managedFields"][0]["time"], "2026-01-01T00:01:00Z");
    assert_eq!(forced["metadata"]["generation"], 3);

    // What is applied no more goes: here to its default.
    let mut less = deployment("web", 2, "web:2");
    less["spec"].as_object_mut().unwrap().remove("replicas");
    assert_eq!(s.apply(&path, "one", &less).await.ok()["spec"]["replicas"], 1);
}

#[tokio::test]
async fn apply_refuses() {
    let s = Server::start().await;
    let path = format!("{CONFIG_MAPS}/a");
    let map = config_map("a", json!({"k": "v"}));
    s.apply(&path, "one", &map).await.ok();
    let with = |change: &dyn Fn(&mut Value)| {
        let mut changed = map.clone();
        change(&mut changed);
        changed.to_string()
    };
    let one = "?fieldManager=one";
    let cases: Vec<(&str, String, u16, &str)> = vec![
        (
            "",
            map.to_string(),
            422,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
        ),
        (one, "a: [".into(), 400, "error decoding patch: "),
        (one, "[]".into(), 400, "error decoding patch: "),
        (one, with(&|m| m["kind"] = json!("Secret")), 400, "invalid object type: /v1, Kind=Secret"),
        (one, with(&|m| m["apiVersion"] = json!("v2")), 400, "invalid object type: /v2, Kind=ConfigMap"),
        (
            one,
            with(&|m| m["metadata"]["name"] = json!("b")),
            400,
            "the name of the object (b) does not match the name on the URL (a)",
        ),
        (
            one,
            with(&|m| m["metadata"]["namespace"] = json!("b")),
            400,
            "the namespace of the provided object does not match",
        ),
        (one, with(&|m| m["metadata"]["managedFields"] = json!([])), 400, "metadata.managedFields must be nil"),
        (
            one,
            with(&|m| m["dada"] = json!({})),
            500,
            "failed to create typed patch object (default/a; /v1, Kind=ConfigMap): .dada: field not declared in schema",
        ),
        (
            one,
            with(&|m| m["data"]["k"] = json!(1)),
            500,
            "failed to create typed patch object (default/a; /v1, Kind=ConfigMap): ",
        ),
        (one, with(&|m| m["metadata"]["resourceVersion"] = json!("1")), 409, "the object has been modified"),
        (one, with(&|m| m["metadata"]["uid"] = json!("x")), 409, "UID in precondition"),
        (
            "?fieldManager=one&fieldValidation=Strict",
            "apiVersion: v1\nkind: ConfigMap\nkind: ConfigMap\nmetadata: {name: a}".into(),
            400,
            "error strict decoding patch: ",
        ),
    ];
    for (query, body, code, message) in cases {
        let said = s.apply_as(&format!("{path}{query}"), &body).await.err(code);
        assert!(said.contains(message), "{said}\nwanted {message}");
    }
    // Of objects that are not there.
    let gone = format!("{CONFIG_MAPS}/gone");
    s.apply(&gone, "one", &config_map("other", json!({}))).await.err(400);
    let mut with_uid = config_map("gone", json!({}));
    with_uid["metadata"]["uid"] = json!("x");
    assert!(s.apply(&gone, "one", &with_uid).await.err(409).contains("no existing object was found"));
    let sub = format!("{DEPLOYMENTS}/gone/status");
    s.apply(&sub, "one", &deployment("gone", 1, "x")).await.err(404);
    s.get(&gone).await.err(404);

    // Managers and force, on other writes.
    let long = format!("{path}?fieldManager={}", "x".repeat(129));
    let patch = json!({"data": {"x": "y"}});
    assert_eq!(
        s.patch(&long, "merge", &patch).await.err(422),
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Too long: may not be more than 128 bytes"
    );
    assert!(
        s.put(&format!("{path}?fieldManager=a%07"), &map)
            .await
            .err(422)
            .contains("invalid character U+0007 (at position 1)")
    );
    assert_eq!(
        s.patch(&format!("{path}?force=true"), "merge", &patch).await.err(422),
        "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch"
    );
    let cbor = s.send("PATCH", &format!("{path}{one}"), &[("content-type", "application/apply-patch+cbor")], "").await;
    assert!(cbor.err(415).ends_with("application/strategic-merge-patch+json, application/apply-patch+yaml"));
}

#[tokio::test]
async fn every_write_is_tracked() {
    let s = Server::start().await;
    let path = format!("{CONFIG_MAPS}/a");
    let mut map = config_map("a", json!({"a": "1", "b": "1"}));
    let made = s.as_program("POST", CONFIG_MAPS, "maker/2", &map).await.ok();
    assert_eq!(managers(&made), ["maker Update"]);
    assert_eq!(fields(&made, "maker"), &json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}}));

    s.later(10);
    // PUT without managedFields: they stay, and the changed field moves.
    map["data"]["b"] = json!("2");
    let put = s.put(&format!("{path}?fieldManager=putter"), &map).await.ok();
    assert_eq!(managers(&put), ["maker Update", "putter Update"]);
    assert_eq!(fields(&put, "maker"), &json!({"f:data": {".": {}, "f:a": {}}}));
    assert_eq!(put["metadata"]["managedFields"][0]["time"], "2026-01-01T00:00:00Z");
    assert_eq!(put["metadata"]["managedFields"][1]["time"], "2026-01-01T00:00:10Z");

    // What changes nothing writes nothing, by whomever and whenever.
    s.later(10);
    assert_eq!(s.put(&format!("{path}?fieldManager=third"), &put).await.ok(), put);
    assert_eq!(s.patch(&path, "merge", &json!({"data": {"a": "1"}})).await.ok(), put);

    // Each patch type; a program without a name is unknown.
    s.patch(&path, "merge", &json!({"data": {"c": "1"}})).await.ok();
    let ops = json!([{"op": "add", "path": "/data/d", "value": "1"}]);
    s.patch(&format!("{path}?fieldManager=json"), "json", &ops).await.ok();
    let last = s
        .patch(&format!("{path}?fieldManager=strategic"), "strategic-merge", &json!({"data": {"e": "1", "a": null}}))
        .await
        .ok();
    assert_eq!(managers(&last), ["maker Update", "putter Update", "json Update", "strategic Update", "unknown Update"]);
    assert_eq!(fields(&last, "maker"), &json!({"f:data": {}}));

    // Clients may write managedFields: entries, or a reset; nonsense is passed over.
    let nonsense = json!([{"op": "replace", "path": "/metadata/managedFields", "value": [{"manager": "x"}]}]);
    assert_eq!(s.patch(&path, "json", &nonsense).await.ok(), last);
    let mut entry = last["metadata"]["managedFields"][0].clone();
    entry["manager"] = json!("taken-over");
    let take = json!([{"op": "replace", "path": "/metadata/managedFields", "value": [entry]}]);
    let taken = s.patch(&path, "json", &take).await.ok();
    assert_eq!(managers(&taken), ["taken-over Update"]);
    assert!(revision(&taken) > revision(&last));
    let reset = json!([{"op": "replace", "path": "/metadata/managedFields", "value": [{}]}]);
    let reset = s.patch(&path, "json", &reset).await.ok();
    assert_eq!(reset["metadata"].get("managedFields"), None);
    // From then on nobody is tracked until somebody applies.
    s.patch(&path, "merge", &json!({"data": {"f": "1"}})).await.ok();
    let applied = s.apply(&path, "one", &config_map("a", json!({"f": "1"}))).await.ok();
    assert_eq!(managers(&applied), ["one Apply", "before-first-apply Update"]);
}

#[tokio::test]
async fn status_and_scale() {
    let s = Server::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let mut whole = deployment("web", 2, "web:1");
    whole["status"] = json!({"replicas": 7});
    let made = s.apply(&path, "one", &whole).await.ok();
    assert_eq!(fields(&made, "one").get("f:status"), None);
    assert_eq!(made["status"].get("replicas"), None);

    // Status: nothing else is applied or owned.
    let mut status = deployment("web", 9, "x");
    status["status"] = json!({"observedGeneration": 1, "conditions": [{"type": "Available", "status": "True", "lastTransitionTime": null}]});
    let applied = s.apply(&format!("{path}/status"), "one", &status).await.ok();
    assert_eq!((&applied["spec"]["replicas"], &applied["status"]["observedGeneration"]), (&json!(2), &json!(1)));
    assert_eq!(managers(&applied), ["one Apply", "one Apply status"]);
    let patched = s
        .as_program(
            "PATCH",
            &format!("{path}/status"),
            "controller/1",
            &json!({"status": {"observedGeneration": 2, "replicas": 1}}),
        )
        .await
        .ok();
    assert_eq!(managers(&patched), ["one Apply", "one Apply status", "controller Update status"]);
    assert_eq!(fields(&patched, "controller"), &json!({"f:status": {"f:observedGeneration": {}, "f:replicas": {}}}));
    let said = s.apply(&format!("{path}/status"), "one", &status).await.err(409);
    assert_eq!(
        said,
        "Apply failed with 1 conflict: conflict with \"controller\" with subresource \"status\" using apps/v1: .status.observedGeneration"
    );

    // Scale: the count of the object belongs to the manager of the scale.
    s.as_program("PATCH", &format!("{path}/scale"), "scaler/1", &json!({"spec": {"replicas": 4}})).await.ok();
    let scaled = s.get(&path).await.ok();
    assert!(managers(&scaled).contains(&"scaler Update scale".to_string()), "{:?}", managers(&scaled));
    assert_eq!(fields(&scaled, "scaler"), &json!({"f:spec": {"f:replicas": {}}}));
    let said = s.apply(&path, "one", &deployment("web", 2, "web:1")).await.err(409);
    assert_eq!(
        said,
        "Apply failed with 1 conflict: conflict with \"scaler\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
    let scale = |replicas: i64| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": replicas}});
    let said = s.apply(&format!("{path}/scale"), "autoscaler", &scale(3)).await.err(409);
    assert!(said.ends_with(": .spec.replicas"), "{said}");
    s.apply(&format!("{path}/scale"), "autoscaler", &deployment("web", 3, "x")).await.err(400);
    s.apply(&format!("{path}/scale"), "autoscaler", &scale(-1)).await.err(422);
    let answer = s.apply(&format!("{path}/scale?force=true"), "autoscaler", &scale(3)).await.ok();
    assert_eq!((&answer["kind"], &answer["spec"]["replicas"]), (&json!("Scale"), &json!(3)));
    let scaled = s.get(&path).await.ok();
    assert!(
        managers(&scaled).contains(&"autoscaler Apply scale".to_string())
            && !managers(&scaled).iter().any(|m| m.starts_with("scaler"))
    );
    assert_eq!(scaled["spec"]["replicas"], 3);
    let before = revision(&scaled);
    s.apply(&format!("{path}/scale"), "autoscaler", &scale(3)).await.ok();
    assert_eq!(revision(&s.get(&path).await.ok()), before);
}

/// What the server decides belongs to nobody: addresses, bindings, deletions.
#[tokio::test]
async fn the_servers_own_doing() {
    let s = Server::start().await;
    let services = "/api/v1/namespaces/default/services";
    let service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}});
    let made = s.apply(&format!("{services}/web"), "one", &service).await.ok();
    assert!(made["spec"]["clusterIP"].is_string());
    let port = json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}});
    assert_eq!(fields(&made, "one"), &port);
    assert_eq!(s.apply(&format!("{services}/web"), "one", &service).await.ok(), made);

    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "finalizers": ["example.com/f"]},
        "spec": {"containers": [{"name": "c", "image": "i"}]}});
    s.as_program("POST", pods, "maker/1", &pod).await.ok();
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    s.as_program("POST", &format!("{pods}/p/binding"), "scheduler/1", &binding).await.ok();
    s.delete(&format!("{pods}/p")).await.ok();
    let bound = s.get(&format!("{pods}/p")).await.ok();
    assert_eq!(bound["spec"]["nodeName"], "n");
    assert_eq!(managers(&bound), ["maker Update"]);
    assert_eq!(fields(&bound, "maker")["f:spec"].get("f:nodeName"), None);
    assert_eq!(fields(&bound, "maker").get("f:status"), None);
}

/// Two clients that apply a new object at once: one creates, the other finds it.
#[tokio::test]
async fn appliers_race() {
    let s = Server::start().await;
    let path = format!("{CONFIG_MAPS}/a");
    let applies = (0..8).map(|i| {
        let map = config_map("a", json!({format!("k{i}"): "v"}));
        let (s, path) = (&s, &path);
        async move { s.apply(path, &format!("m{i}"), &map).await.code }
    });
    let codes = futures::future::join_all(applies).await;
    assert_eq!(codes.iter().filter(|c| **c == 201).count(), 1, "{codes:?}");
    assert!(codes.iter().all(|c| matches!(c, 200 | 201)), "{codes:?}");
    assert_eq!(s.get(&path).await.ok()["data"].as_object().unwrap().len(), 8);
}
