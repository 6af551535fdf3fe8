//! Create, get, replace, patch: the generic rules, on ConfigMaps and Deployments.

use super::*;

fn deployment(name: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [
            {"name": "web", "image": "web:1", "ports": [{"containerPort": 80}]}]}}}})
}

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

#[tokio::test]
async fn create_and_get() {
    let s = Server::start().await;
    let made = s.post(CONFIG_MAPS, &config_map("a", json!({"k": "v"}))).await;
    assert_eq!(made.code, 201);
    let made = made.json();
    assert_eq!(made["metadata"]["creationTimestamp"], "2026-01-01T00:00:00Z");
    assert_eq!(made["metadata"]["namespace"], "default");
    assert_eq!(made["metadata"]["uid"].as_str().unwrap().len(), 36);
    let got = s.get(&format!("{CONFIG_MAPS}/a")).await;
    assert_eq!(got.ok(), made);
    assert_eq!(got.headers["content-type"], "application/json");
    assert_eq!(s.get(&format!("{CONFIG_MAPS}/b")).await.err(404), "configmaps \"b\" not found");
    assert_eq!(s.post(CONFIG_MAPS, &config_map("a", json!({}))).await.err(409), "configmaps \"a\" already exists");
    let unnamed = s.post(CONFIG_MAPS, &json!({"metadata": {"name": "unnamed"}, "data": {"k": "v"}})).await;
    assert_eq!(unnamed.json()["kind"], "ConfigMap", "the URL says what a body does not");
    let mut read = config_map("again", json!({}));
    read["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
    assert!(s.post(CONFIG_MAPS, &read).await.err(400).starts_with("resourceVersion should not be set"));
}

#[tokio::test]
async fn refusals_of_creates() {
    let s = Server::start().await;
    let cm = |change: fn(&mut Value)| {
        let mut object = config_map("x", json!({"a": "b"}));
        change(&mut object);
        object
    };
    for (object, code, want) in [
        (cm(|o| o["kind"] = json!("Secret")), 400, "cannot be handled as a ConfigMap"),
        (
            cm(|o| o["apiVersion"] = json!("v2")),
            400,
            "the API version in the data (v2) does not match the expected API version (v1)",
        ),
        (
            cm(|o| o["metadata"]["namespace"] = json!("other")),
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            cm(|o| o["metadata"]["name"] = json!("")),
            422,
            "metadata.name: Required value: name or generateName is required",
        ),
        (
            cm(|o| o["metadata"]["name"] = json!("X_Y")),
            422,
            "ConfigMap \"X_Y\" is invalid: metadata.name: Invalid value: \"X_Y\"",
        ),
        (
            cm(|o| o["data"] = json!({"a": 1})),
            400,
            "cannot unmarshal number into Go struct field ConfigMap.data of type string",
        ),
        (cm(|o| o["metadata"]["labels"] = json!({"a": "b c"})), 422, "metadata.labels: Invalid value"),
        (json!([]), 400, "not a JSON map"),
    ] {
        let message = s.post(CONFIG_MAPS, &object).await.err(code);
        assert!(message.contains(want), "{want:?} in {message:?}");
    }
    let json = [("content-type", "application/json")];
    assert!(s.send("POST", CONFIG_MAPS, &json, "{\"a\":").await.err(400).contains("invalid JSON"));
    let odd = [("content-type", "text/plain")];
    assert!(s.send("POST", CONFIG_MAPS, &odd, "x").await.err(415).contains("unknown format"));
    let large = vec![b'x'; (3 << 20) + 1];
    assert_eq!(
        s.send("POST", CONFIG_MAPS, &json, large.clone()).await.err(413),
        "Request entity too large: limit is 3145728"
    );
    let announced = [("content-type", "application/json"), ("content-length", "99999999")];
    s.send("POST", CONFIG_MAPS, &announced, large).await.err(413);
    s.post("/api/v1/configmaps", &config_map("x", json!({}))).await.err(405);
    s.post("/api/v1/nonsense", &config_map("x", json!({}))).await.err(404);
    s.get("/nonsense").await.err(404);
}

#[tokio::test]
async fn generated_names() {
    let s = Server::start().await;
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "gen-"}});
    let (a, b) = (s.post(CONFIG_MAPS, &object).await.ok(), s.post(CONFIG_MAPS, &object).await.ok());
    let name = a["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("gen-") && name.len() == 9, "{name}");
    assert_ne!(name, b["metadata"]["name"]);
}

#[tokio::test]
async fn field_validation() {
    let s = Server::start().await;
    let mut object = deployment("a");
    object["spec"]["foo"] = json!(1);
    let message = s.post(&format!("{DEPLOYMENTS}?fieldValidation=Strict"), &object).await.err(400);
    assert!(message.contains("strict decoding error: unknown field \"spec.foo\""), "{message}");
    let warned = s.post(DEPLOYMENTS, &object).await;
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"spec.foo\\\"\"");
    assert_eq!(warned.ok()["spec"].get("foo"), None);
    object["metadata"]["name"] = json!("b");
    let ignored = s.post(&format!("{DEPLOYMENTS}?fieldValidation=Ignore"), &object).await;
    assert!(ignored.code == 201 && !ignored.headers.contains_key("warning"));
    let twice = "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"name\":\"x\"},\"data\":{},\"data\":{}}";
    let strict = format!("{CONFIG_MAPS}?fieldValidation=Strict");
    assert!(s.send("POST", &strict, &[], twice).await.err(400).contains("duplicate field \"data\""));
    s.post(&format!("{CONFIG_MAPS}?fieldValidation=Odd"), &config_map("x", json!({}))).await.err(422);
}

#[tokio::test]
async fn yaml_and_protobuf() {
    let s = Server::start().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: yam\ndata:\n  k: v\n";
    let headers = [("content-type", "application/yaml"), ("accept", "application/yaml")];
    let made = s.send("POST", CONFIG_MAPS, &headers, yaml).await;
    assert!(made.code == 201 && made.text().contains("name: yam"), "{}", made.text());
    let bad = s.send("POST", CONFIG_MAPS, &headers, "a: [").await.err(400);
    assert!(bad.contains("invalid YAML"), "{bad}");

    let proto = copepod_core::codec::encode_protobuf(&config_map("p", json!({"k": "v"}))).unwrap();
    let media = "application/vnd.kubernetes.protobuf";
    let made = s.send("POST", CONFIG_MAPS, &[("content-type", media), ("accept", media)], proto).await;
    assert_eq!((made.code, made.headers["content-type"].to_str().unwrap()), (201, media));
    let back = copepod_core::codec::decode(media, &made.body, None).unwrap().value;
    assert_eq!(back["data"]["k"], "v");
    let both = s.get_as(&format!("{CONFIG_MAPS}/p"), "application/vnd.kubernetes.protobuf,application/json").await;
    assert_eq!(both.ok()["data"]["k"], "v");
    assert_eq!(s.get_as(CONFIG_MAPS, "text/html").await.code, 406);
}

#[tokio::test]
async fn dry_run_changes_nothing() {
    let s = Server::start().await;
    let before = s.store.current_revision();
    assert_eq!(s.post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a", json!({}))).await.code, 201);
    s.get(&format!("{CONFIG_MAPS}/a")).await.err(404);
    s.post(&format!("{CONFIG_MAPS}?dryRun=Some"), &config_map("a", json!({}))).await.err(422);
    assert_eq!(s.store.current_revision(), before);
    let made = s.post(CONFIG_MAPS, &config_map("a", json!({"k": "1"}))).await.ok();
    let path = format!("{CONFIG_MAPS}/a?dryRun=All");
    assert_eq!(s.put(&path, &config_map("a", json!({"k": "2"}))).await.ok()["data"]["k"], "2");
    assert_eq!(s.patch(&path, "merge", &json!({"data": {"k": "3"}})).await.ok()["data"]["k"], "3");
    assert_eq!(s.delete(&path).await.ok()["status"], "Success");
    assert_eq!(s.get(&format!("{CONFIG_MAPS}/a")).await.ok(), made);
}

#[tokio::test]
async fn updates_lock_optimistically() {
    let s = Server::start().await;
    let first = s.post(CONFIG_MAPS, &config_map("a", json!({"k": "1"}))).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let mut second = first.clone();
    second["data"]["k"] = json!("2");
    let second = s.put(&path, &second).await.ok();
    assert!(revision(&second) > revision(&first));
    let stale = s.put(&path, &first).await;
    assert_eq!(
        stale.err(409),
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to \
         the latest version and try again"
    );
    // Without a resourceVersion the write is unconditional, and one that changes nothing commits nothing.
    let same = s.put(&path, &config_map("a", json!({"k": "2"}))).await.ok();
    assert_eq!(revision(&same), revision(&second));
    let mut zeros = config_map("a", json!({"k": "2"}));
    zeros["binaryData"] = json!({});
    zeros["metadata"]["labels"] = json!({});
    assert_eq!(revision(&s.put(&path, &zeros).await.ok()), revision(&second));
    assert_eq!(same["metadata"]["uid"], first["metadata"]["uid"]);
    assert_eq!(s.put(&format!("{CONFIG_MAPS}/none"), &config_map("none", json!({}))).await.code, 404);
    assert!(
        s.put(&path, &config_map("b", json!({}))).await.err(400).contains("the name of the object (b) does not match")
    );
    let mut other = config_map("a", json!({}));
    other["metadata"]["uid"] = json!("other");
    assert!(s.put(&path, &other).await.err(409).contains("Precondition failed: UID in precondition: other"));
}

#[tokio::test]
async fn concurrent_patches_all_land() {
    let s = Server::start().await;
    s.post(CONFIG_MAPS, &config_map("a", json!({}))).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let patches = (0..20).map(|i| {
        let (s, path) = (&s, &path);
        async move { s.patch(path, "merge", &json!({"data": {format!("k{i}"): "v"}})).await.ok() }
    });
    futures::future::join_all(patches).await;
    assert_eq!(s.get(&path).await.ok()["data"].as_object().unwrap().len(), 20);
}

#[tokio::test]
async fn patch_types() {
    let s = Server::start().await;
    s.post(DEPLOYMENTS, &deployment("a")).await.ok();
    let path = format!("{DEPLOYMENTS}/a");
    let changed = s.patch(&path, "merge", &json!({"spec": {"replicas": 3}})).await.ok();
    assert_eq!((&changed["spec"]["replicas"], &changed["metadata"]["generation"]), (&json!(3), &json!(2)));
    let add = json!([{"op": "test", "path": "/spec/replicas", "value": 3},
        {"op": "add", "path": "/metadata/labels", "value": {"x": "y"}}]);
    let labelled = s.patch(&path, "json", &add).await.ok();
    assert_eq!((&labelled["metadata"]["labels"]["x"], &labelled["metadata"]["generation"]), (&json!("y"), &json!(2)));
    let side = json!({"spec": {"template": {"spec": {"containers": [{"name": "side", "image": "side:1"}]}}}});
    let merged = s.patch(&path, "strategic-merge", &side).await.ok();
    assert_eq!(merged["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 2);
    let noop = s.patch(&path, "merge", &json!({"spec": {"replicas": 3}})).await.ok();
    assert_eq!(revision(&noop), revision(&merged));

    let fails = json!([{"op": "test", "path": "/spec/replicas", "value": 99}]);
    s.patch(&path, "json", &fails).await.err(422);
    s.patch(&path, "merge", &json!({"metadata": {"resourceVersion": "1"}})).await.err(409);
    s.patch(&path, "merge", &json!({"spec": {"replicas": "x"}})).await.err(422);
    s.patch(&path, "merge", &json!({"metadata": {"name": "b"}})).await.err(400);
    s.patch(&format!("{DEPLOYMENTS}/none"), "merge", &json!({})).await.err(404);
    s.send("PATCH", &path, &[("content-type", "application/json")], "{}").await.err(415);
}

#[tokio::test]
async fn status_and_scale_are_apart() {
    let s = Server::start().await;
    let mut object = deployment("a");
    object["status"] = json!({"replicas": 9});
    let made = s.post(DEPLOYMENTS, &object).await.ok();
    assert_ne!(made["status"]["replicas"], 9);
    let path = format!("{DEPLOYMENTS}/a");
    let both = json!({"spec": {"replicas": 7}, "status": {"replicas": 2}});
    let status = s.patch(&format!("{path}/status"), "merge", &both).await.ok();
    assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(2), &json!(2)));
    assert_eq!(status["metadata"]["generation"], 1);
    let main = s.patch(&path, "merge", &json!({"status": {"replicas": 5}})).await.ok();
    assert_eq!((revision(&main), &main["status"]["replicas"]), (revision(&status), &json!(2)));

    let scale = s.get(&format!("{path}/scale")).await.ok();
    assert_eq!(scale["kind"], "Scale");
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]),
        (&json!(2), &json!({"replicas": 2, "selector": "app=web"}))
    );
    let mut up = scale.clone();
    up["spec"]["replicas"] = json!(5);
    let scaled = s.put(&format!("{path}/scale"), &up).await.ok();
    assert_eq!(scaled["spec"]["replicas"], 5);
    s.put(&format!("{path}/scale"), &up).await.err(409);
    assert_eq!(
        s.patch(&format!("{path}/scale"), "merge", &json!({"spec": {"replicas": 0}})).await.ok()["spec"]["replicas"],
        0
    );
    s.patch(&format!("{path}/scale"), "merge", &json!({"spec": {"replicas": -1}})).await.err(422);
    assert_eq!(s.get(&path).await.ok()["metadata"]["generation"], 3);
    s.get(&format!("{CONFIG_MAPS}/a/scale")).await.err(404);
}

#[tokio::test]
async fn a_broken_store_says_so() {
    let s = Server::start().await;
    for path in ["/healthz", "/livez", "/readyz"] {
        assert_eq!((s.get(path).await.code, s.get(path).await.text()), (200, "ok".into()));
    }
    s.shutdown.cancel();
    assert_eq!(s.get("/readyz").await.code, 500);
    let version = s.get("/version").await.ok();
    assert!(version["gitVersion"].as_str().unwrap().starts_with("v1.36."));
    let metrics = s.get("/metrics").await.text();
    assert!(metrics.contains("apiserver_request_total{verb=\"POST\",group=\"\",version=\"v1\",resource=\"namespaces\",subresource=\"\",code=\"201\"} 1"), "{metrics}");
    assert!(metrics.contains("apiserver_storage_objects{resource=\"namespaces\"} 1"));
}

#[tokio::test]
async fn a_panic_is_one_requests_failure() {
    struct Trap;
    impl copepod_core::resource::Strategy for Trap {
        fn validate(&self, _: &Value) -> Vec<copepod_api::FieldError> {
            panic!("a bug");
        }
    }
    let mut registry = kinds::builtin();
    let config_maps = registry.find("", "v1", "configmaps").unwrap().clone();
    registry.add(copepod_core::resource::Resource {
        names: config_maps.names.clone(),
        subresources: config_maps.subresources.clone(),
        schema: config_maps.schema.clone(),
        strategy: Box::new(Trap),
        storage: None,
    });
    let s = Server::with(registry, Arc::new(Unconnected)).await;
    s.post(CONFIG_MAPS, &config_map("a", json!({}))).await.err(500);
    s.get(CONFIG_MAPS).await.ok();
    assert!(s.get("/metrics").await.text().contains("apiserver_panics_total 1"));
}

#[tokio::test]
async fn a_lease_is_not_overwritten_unseen() {
    let s = Server::start().await;
    let all = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease = json!({"metadata": {"name": "l", "finalizers": ["foo"]}, "spec": {"holderIdentity": "a"}});
    let made = s.post(all, &lease).await.ok();
    let told = s.put(&format!("{all}/l"), &lease).await.err(422);
    assert!(told.contains("metadata.resourceVersion: Invalid value: 0: must be specified for an update"), "{told}");
    s.put(&format!("{all}/l"), &made).await.ok();
}

#[tokio::test]
async fn rules_of_new_objects_and_of_changes() {
    let s = Server::start().await;
    let told = s.post(CONFIG_MAPS, &json!({"metadata": {"name": "f", "finalizers": ["foo"]}})).await.err(422);
    assert!(told.contains("name is neither a standard finalizer name nor is it fully qualified"), "{told}");
    s.post(CONFIG_MAPS, &json!({"metadata": {"name": "f"}})).await.ok();
    let foo = json!({"metadata": {"finalizers": ["foo"]}});
    s.patch(&format!("{CONFIG_MAPS}/f"), "merge", &foo).await.err(422);

    let pods = "/api/v1/namespaces/default/pods";
    let container = json!([{"name": "a", "image": "a:1"}]);
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": container, "ephemeralContainers": container}});
    let told = s.post(pods, &pod).await.err(422);
    assert!(told.contains("spec.ephemeralContainers: Forbidden: cannot be set on create"), "{told}");

    let node = json!({"metadata": {"name": "n9"}, "status": {"capacity": {"cpu": "4"}}});
    let made = s.post("/api/v1/nodes", &node).await.ok();
    assert_eq!(made["status"]["allocatable"]["cpu"], "4", "a node says what it has when it joins");
    let told =
        s.patch("/api/v1/nodes/n9/status", "merge", &json!({"status": {"capacity": {"cpu": "-1"}}})).await.err(422);
    assert!(told.contains("status.capacity.cpu: Invalid value"), "{told}");
}

#[tokio::test]
async fn one_event_in_two_groups() {
    let s = Server::start().await;
    let new = "/apis/events.k8s.io/v1/namespaces/default/events";
    let old = "/api/v1/namespaces/default/events";
    let mut w = s.watch(&format!("{new}?watch=true")).await;
    let core = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "type": "Normal", "reason": "Started",
        "message": "it runs", "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "source": {"component": "kubelet"}, "count": 1, "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Start",
        "reportingComponent": "example.com/kubelet", "reportingInstance": "n1"});
    s.post(old, &core).await.ok();
    let seen = w.next().await.unwrap()["object"].clone();
    assert_eq!(
        (&seen["apiVersion"], &seen["note"], &seen["regarding"]["name"]),
        (&json!("events.k8s.io/v1"), &json!("it runs"), &json!("p"))
    );
    assert_eq!(s.get(&format!("{new}/e")).await.ok(), seen);
    // The newer group lets only the series change.
    let told = s.patch(&format!("{new}/e"), "merge", &json!({"note": "it still runs"})).await.err(422);
    assert!(told.contains("message: Invalid value: \"it still runs\": field is immutable"), "{told}");
    let series = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}});
    let changed = s.patch(&format!("{new}/e"), "merge", &series).await.ok();
    assert_eq!(changed["apiVersion"], "events.k8s.io/v1");
    s.patch(&format!("{old}/e"), "merge", &json!({"message": "it still runs"})).await.ok();
    let listed = s.get(&format!("{old}?fieldSelector=involvedObject.name%3Dp")).await.ok();
    assert_eq!(
        (&listed["items"][0]["message"], &listed["items"][0]["apiVersion"]),
        (&json!("it still runs"), &json!("v1"))
    );
    s.delete(&format!("{new}/e")).await.ok();
    s.get(&format!("{old}/e")).await.err(404);
}
