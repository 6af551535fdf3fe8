//! What new objects get from the objects around them, and what keeps them out.

use super::*;

const NS: &str = "/api/v1/namespaces/default";
const PODS: &str = "/api/v1/namespaces/default/pods";
const QUOTA: &str = "/api/v1/namespaces/default/resourcequotas/q";

fn pod(name: &str, spec: Value) -> Value {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
    if pod["spec"]["containers"].is_null() {
        pod["spec"]["containers"] = json!([{"name": "c", "image": "i"}]);
    }
    pod
}

fn object(api_version: &str, kind: &str, name: &str, mut rest: Value) -> Value {
    rest["apiVersion"] = json!(api_version);
    rest["kind"] = json!(kind);
    rest["metadata"]["name"] = json!(name);
    rest
}

#[tokio::test]
async fn pods_get_a_priority() {
    let s = Server::start().await;
    let classes = "/apis/scheduling.k8s.io/v1/priorityclasses";
    let class = |name: &str, more: Value| object("scheduling.k8s.io/v1", "PriorityClass", name, more);
    let made = s.post(PODS, &pod("plain", json!({}))).await.ok();
    assert_eq!(
        (&made["spec"]["priority"], &made["spec"]["preemptionPolicy"], made["spec"].get("priorityClassName")),
        (&json!(0), &json!("PreemptLowerPriority"), None)
    );
    let why = s.post(PODS, &pod("x", json!({"priorityClassName": "nope"}))).await.err(403);
    assert_eq!(why, "pods \"x\" is forbidden: no PriorityClass with name nope was found");
    s.post(classes, &class("gold", json!({"value": 7, "globalDefault": true, "preemptionPolicy": "Never"}))).await.ok();
    let made = s.post(PODS, &pod("gold", json!({}))).await.ok();
    assert_eq!(made["spec"]["priorityClassName"], "gold");
    assert_eq!((&made["spec"]["priority"], &made["spec"]["preemptionPolicy"]), (&json!(7), &json!("Never")));
    let why = s.post(PODS, &pod("x", json!({"priority": 8}))).await.err(403);
    assert!(why.contains("the integer value of priority (8) must not be provided in pod spec"), "{why}");
    // A replace that leaves it out keeps it.
    let mut without = made.clone();
    for field in ["priority", "preemptionPolicy"] {
        without["spec"].as_object_mut().unwrap().remove(field);
    }
    assert_eq!(s.put(&format!("{PODS}/gold"), &without).await.ok(), made);
    let second = class("lead", json!({"value": 1, "globalDefault": true}));
    let why = s.post(classes, &second).await.err(403);
    assert!(why.ends_with("PriorityClass gold is already marked as default. Only one default can exist"), "{why}");
    let same = json!({"metadata": {"labels": {"a": "b"}}});
    s.patch(&format!("{classes}/gold"), "merge", &same).await.ok();
}

#[tokio::test(start_paused = true)]
async fn pods_run_under_an_account() {
    let s = Server::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let robot = object("v1", "ServiceAccount", "robot", json!({"imagePullSecrets": [{"name": "pull"}]}));
    s.post(accounts, &robot).await.ok();
    let made = s.post(PODS, &pod("a", json!({"serviceAccountName": "robot"}))).await.ok();
    assert_eq!(made["spec"]["imagePullSecrets"], json!([{"name": "pull"}]));
    let why = s.post(PODS, &pod("x", json!({"serviceAccountName": "nope"}))).await.err(403);
    let want =
        "pods \"x\" is forbidden: error looking up service account default/nope: serviceaccount \"nope\" not found";
    assert_eq!(why, want);

    // A new namespace's account is waited for.
    s.post("/api/v1/namespaces", &object("v1", "Namespace", "shop", json!({}))).await.ok();
    let (one, account) = (pod("a", json!({})), object("v1", "ServiceAccount", "default", json!({})));
    let pods = "/api/v1/namespaces/shop/pods";
    let (early, _) = tokio::join!(s.post(pods, &one), s.post("/api/v1/namespaces/shop/serviceaccounts", &account));
    assert_eq!(early.ok()["spec"]["serviceAccountName"], "default");
    s.post("/api/v1/namespaces", &object("v1", "Namespace", "bare", json!({}))).await.ok();
    let why = s.post("/api/v1/namespaces/bare/pods", &one).await.err(403);
    assert!(why.contains("serviceaccount \"default\" not found"), "{why}");
}

#[tokio::test]
async fn pods_get_what_their_runtime_class_says() {
    let s = Server::start().await;
    let why = s.post(PODS, &pod("x", json!({"runtimeClassName": "nope"}))).await.err(403);
    assert_eq!(why, "pods \"x\" is forbidden: pod rejected: RuntimeClass \"nope\" not found");
    let class = json!({"handler": "h", "overhead": {"podFixed": {"memory": "8Mi"}},
        "scheduling": {"nodeSelector": {"wasm": "yes"}}});
    let class = object("node.k8s.io/v1", "RuntimeClass", "wasm", class);
    s.post("/apis/node.k8s.io/v1/runtimeclasses", &class).await.ok();
    let made = s.post(PODS, &pod("a", json!({"runtimeClassName": "wasm"}))).await.ok();
    assert_eq!(
        (&made["spec"]["overhead"], &made["spec"]["nodeSelector"]),
        (&json!({"memory": "8Mi"}), &json!({"wasm": "yes"}))
    );
    let why = s.post(PODS, &pod("x", json!({"overhead": {"memory": "1"}}))).await.err(403);
    assert!(why.ends_with("Pod Overhead set without corresponding RuntimeClass defined Overhead"), "{why}");
}

#[tokio::test]
async fn limits_are_filled_in_and_held() {
    let s = Server::start().await;
    let limits = json!({"spec": {"limits": [
        {"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "500m", "memory": "1Mi"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}},
    ]}});
    s.post(&format!("{NS}/limitranges"), &object("v1", "LimitRange", "l", limits)).await.ok();
    let made = s.post(PODS, &pod("a", json!({}))).await.ok();
    let want = json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "500m", "memory": "1Mi"}});
    assert_eq!(made["spec"]["containers"][0]["resources"], want);
    assert_eq!(made["status"]["qosClass"], "Burstable", "of what was filled in");
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu, memory request for container c; cpu limit for container c"
    );
    let much = json!({"containers": [{"name": "c", "image": "i", "resources": {"limits": {"cpu": "2"}}}]});
    let why = s.post(PODS, &pod("x", much.clone())).await.err(403);
    assert_eq!(why, "pods \"x\" is forbidden: maximum cpu usage per Container is 1, but limit is 2");
    let resize = json!({"spec": {"containers": [{"name": "c", "resources": {"limits": {"cpu": "2"}}}]}});
    let why = s.patch(&format!("{PODS}/a/resize"), "strategic-merge", &resize).await.err(403);
    assert!(why.ends_with("maximum cpu usage per Container is 1, but limit is 2"), "{why}");
    let claim = |size: &str| {
        let spec = json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}});
        object("v1", "PersistentVolumeClaim", "c", spec)
    };
    let claims = format!("{NS}/persistentvolumeclaims");
    let why = s.post(&claims, &claim("2Gi")).await.err(403);
    assert!(why.ends_with("maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi"), "{why}");
    s.post(&claims, &claim("1Gi")).await.ok();
}

#[tokio::test]
async fn claims_and_ingresses_get_the_default_class() {
    let s = Server::start().await;
    let claim = |name: &str, class: Value| {
        let mut spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}});
        if !class.is_null() {
            spec["storageClassName"] = class;
        }
        object("v1", "PersistentVolumeClaim", name, json!({"spec": spec}))
    };
    let claims = format!("{NS}/persistentvolumeclaims");
    let made = s.post(&claims, &claim("none", Value::Null)).await.ok();
    assert_eq!(made["spec"].get("storageClassName"), None);
    let mark = json!({"metadata": {"annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "provisioner": "p"});
    let class = object("storage.k8s.io/v1", "StorageClass", "fast", mark);
    s.post("/apis/storage.k8s.io/v1/storageclasses", &class).await.ok();
    assert_eq!(s.post(&claims, &claim("a", Value::Null)).await.ok()["spec"]["storageClassName"], "fast");
    assert_eq!(s.post(&claims, &claim("b", json!(""))).await.ok()["spec"]["storageClassName"], "");

    let mark = json!({"metadata": {"annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": "example.com/c"}});
    let class = object("networking.k8s.io/v1", "IngressClass", "web", mark);
    s.post("/apis/networking.k8s.io/v1/ingressclasses", &class).await.ok();
    let backend = json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}});
    let ingress = object("networking.k8s.io/v1", "Ingress", "i", backend);
    let made = s.post("/apis/networking.k8s.io/v1/namespaces/default/ingresses", &ingress).await.ok();
    assert_eq!(made["spec"]["ingressClassName"], "web");
}

#[tokio::test]
async fn claims_grow_where_their_class_can() {
    let s = Server::start().await;
    let claims = format!("{NS}/persistentvolumeclaims");
    let class = |name: &str, can: bool| {
        let more = json!({"provisioner": "p", "allowVolumeExpansion": can});
        object("storage.k8s.io/v1", "StorageClass", name, more)
    };
    for (name, can) in [("rubber", true), ("steel", false)] {
        s.post("/apis/storage.k8s.io/v1/storageclasses", &class(name, can)).await.ok();
        let spec = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
            "storageClassName": name, "volumeName": "v"});
        s.post(&claims, &object("v1", "PersistentVolumeClaim", name, json!({"spec": spec}))).await.ok();
        let bound = json!({"status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}});
        s.patch(&format!("{claims}/{name}/status"), "merge", &bound).await.ok();
    }
    let grow = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let grown = s.patch(&format!("{claims}/rubber"), "merge", &grow).await.ok();
    assert_eq!(grown["spec"]["resources"]["requests"]["storage"], "2Gi");
    let why = s.patch(&format!("{claims}/steel"), "merge", &grow).await.err(403);
    let want = "persistentvolumeclaims \"steel\" is forbidden: only dynamically provisioned pvc can be resized and the \
                storageclass that provisions the pvc must support resize";
    assert_eq!(why, want);
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    s.patch(&format!("{claims}/steel"), "merge", &label).await.ok();
}

/// A quota whose usage is known.
async fn quota(s: &Server, hard: Value, used: Value) {
    let quota = object("v1", "ResourceQuota", "q", json!({"spec": {"hard": hard}}));
    s.post(&format!("{NS}/resourcequotas"), &quota).await.ok();
    let status = json!({"status": {"hard": hard, "used": used}});
    s.patch(&format!("{QUOTA}/status"), "merge", &status).await.ok();
}

#[tokio::test]
async fn quotas_bound_what_is_made() {
    let s = Server::start().await;
    let hard = json!({"pods": "2", "requests.cpu": "2", "count/configmaps": "1", "services.nodeports": "1"});
    quota(&s, hard, json!({"pods": "1", "requests.cpu": "1", "count/configmaps": "0", "services.nodeports": "0"}))
        .await;
    let used = async || s.get(QUOTA).await.ok()["status"]["used"].clone();
    let ask = |cpu: &str| json!({"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]});
    let why = s.post(PODS, &pod("x", json!({}))).await.err(403);
    assert_eq!(why, "pods \"x\" is forbidden: failed quota: q: must specify requests.cpu for: c");
    let why = s.post(PODS, &pod("x", ask("1500m"))).await.err(403);
    let want = "pods \"x\" is forbidden: exceeded quota: q, requested: requests.cpu=1500m, used: requests.cpu=1, \
                limited: requests.cpu=2";
    assert_eq!(why, want);
    let before = s.store.current_revision();
    s.post(&format!("{PODS}?dryRun=All"), &pod("a", ask("1"))).await.ok();
    s.post(PODS, &pod("invalid", json!({"containers": []}))).await.err(422);
    assert_eq!(s.store.current_revision(), before, "neither a dry run nor an invalid pod is charged");
    s.post(PODS, &pod("a", ask("1"))).await.ok();
    assert_eq!((&used().await["pods"], &used().await["requests.cpu"]), (&json!("2"), &json!("2")));
    s.post(PODS, &pod("a", ask("0"))).await.err(409);
    let why = s.post(PODS, &pod("b", ask("0"))).await.err(403);
    assert!(why.contains("exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"), "{why}");

    s.post(CONFIG_MAPS, &config_map("a", json!({}))).await.ok();
    let why = s.post(CONFIG_MAPS, &config_map("b", json!({}))).await.err(403);
    assert!(
        why.starts_with("configmaps \"b\" is forbidden: exceeded quota: q, requested: count/configmaps=1"),
        "{why}"
    );

    // A Service's ports count when its type changes.
    let services = format!("{NS}/services");
    let service =
        object("v1", "Service", "s", json!({"spec": {"ports": [{"port": 1, "name": "a"}, {"port": 2, "name": "b"}]}}));
    s.post(&services, &service).await.ok();
    let why = s.patch(&format!("{services}/s"), "merge", &json!({"spec": {"type": "NodePort"}})).await.err(403);
    assert!(
        why.contains("requested: services.nodeports=2, used: services.nodeports=0, limited: services.nodeports=1"),
        "{why}"
    );
}

#[tokio::test]
async fn many_at_once_do_not_exceed_a_quota() {
    let s = Server::start().await;
    quota(&s, json!({"count/configmaps": "5"}), json!({"count/configmaps": "0"})).await;
    let made = (0..20).map(|i| {
        let s = &s;
        async move { s.post(CONFIG_MAPS, &config_map(&format!("m{i}"), json!({}))).await.code }
    });
    let codes = futures::future::join_all(made).await;
    assert_eq!(codes.iter().filter(|code| **code == 201).count(), 5, "{codes:?}");
    assert_eq!(s.get(QUOTA).await.ok()["status"]["used"]["count/configmaps"], "5");
}

#[tokio::test(start_paused = true)]
async fn a_quota_of_unknown_usage_admits_nothing_it_counts() {
    let s = Server::start().await;
    let quota = object("v1", "ResourceQuota", "q", json!({"spec": {"hard": {"count/configmaps": "5"}}}));
    s.post(&format!("{NS}/resourcequotas"), &quota).await.ok();
    let why = s.post(CONFIG_MAPS, &config_map("a", json!({}))).await.err(403);
    assert_eq!(why, "configmaps \"a\" is forbidden: status unknown for quota: q, resources: count/configmaps");
    s.post(&format!("{NS}/secrets"), &object("v1", "Secret", "s", json!({}))).await.ok();
    // It is waited for.
    let (map, status) = (config_map("a", json!({})), json!({"status": {"used": {"count/configmaps": "0"}}}));
    let path = format!("{QUOTA}/status");
    let (made, _) = tokio::join!(s.post(CONFIG_MAPS, &map), s.patch(&path, "merge", &status));
    made.ok();
}

#[tokio::test]
async fn local_load_balancers_get_a_health_check_port() {
    let s = Server::start().await;
    let spec = json!({"spec": {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{"port": 80}]}});
    let services = format!("{NS}/services");
    let made = s.post(&services, &object("v1", "Service", "s", spec.clone())).await.ok();
    let port = made["spec"]["healthCheckNodePort"].clone();
    assert!(port.as_u64().unwrap() >= 30000 && port != made["spec"]["ports"][0]["nodePort"], "{made}");
    let kept = s.put(&format!("{services}/s"), &object("v1", "Service", "s", spec)).await.ok();
    assert_eq!(kept["spec"]["healthCheckNodePort"], port);
    let other = json!({"spec": {"healthCheckNodePort": port.as_u64().unwrap() ^ 1}});
    let why = s.patch(&format!("{services}/s"), "merge", &other).await.err(422);
    assert!(why.contains("spec.healthCheckNodePort: Forbidden: field is immutable"), "{why}");
    let cluster = json!({"spec": {"externalTrafficPolicy": "Cluster"}});
    let without = s.patch(&format!("{services}/s"), "merge", &cluster).await.ok();
    assert_eq!(without["spec"].get("healthCheckNodePort"), None);
    let again =
        s.patch(&format!("{services}/s"), "merge", &json!({"spec": {"externalTrafficPolicy": "Local"}})).await.ok();
    assert!(again["spec"]["healthCheckNodePort"].as_u64().unwrap() >= 30000);
    let odd = json!({"spec": {"healthCheckNodePort": 30000, "ports": [{"port": 80}]}});
    let why = s.post(&services, &object("v1", "Service", "odd", odd)).await.err(422);
    assert!(
        why.contains("may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"),
        "{why}"
    );
}
