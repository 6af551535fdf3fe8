use super::*;
use std::sync::Arc;

use axum::Router;
use copepod_api::ApiError;
use copepod_api::names::USER_APISERVER;
use copepod_store::{MemoryStore, Options, Store};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::api::{ApiConfig, ApiState, router, system_clock};
use crate::authorization::Trusted;
use crate::identity::Identity;
use crate::tunnel::TunnelDialer;

/// The requests that were to write, as method and path.
type Writes = Arc<Mutex<Vec<String>>>;

fn server() -> (kube::Client, Arc<MemoryStore>) {
    let (client, store, _) = noting_server();
    (client, store)
}

/// The API server in process, under the guard that real requests pass.
fn noting_server() -> (kube::Client, Arc<MemoryStore>, Writes) {
    let store = Arc::new(MemoryStore::new(Options::default()));
    let state = ApiState::new(ApiConfig {
        authorizer: Trusted::shared(),
        store: store.clone(),
        registry: copepod_core::kinds::builtin(),
        components: Arc::default(),
        dialer: TunnelDialer::new(),
        clock: system_clock(),
        service_cidr: "10.43.0.0/16".parse().unwrap(),
        node_ports: 30000..=32767,
        shutdown: CancellationToken::new(),
    });
    let router =
        router(Arc::new(state)).layer(axum::middleware::from_fn_with_state(Trusted::shared(), crate::auth::guard));
    let writes = Writes::default();
    let sink = writes.clone();
    let noted = router.map_request(move |request: http::Request<kube::client::Body>| {
        if request.method() != http::Method::GET {
            sink.lock().push(format!("{} {}", request.method(), request.uri().path()));
        }
        request
    });
    (copepod_client::in_process(noted, Identity::new(USER_APISERVER, &[]), "kube-apiserver"), store, writes)
}

fn info(advertise: &str, port: u16) -> BootstrapInfo {
    BootstrapInfo {
        service_ip: "10.43.0.1".parse().unwrap(),
        service_cidr: "10.43.0.0/16".parse().unwrap(),
        advertise_ip: advertise.parse().unwrap(),
        port,
    }
}

async fn get<K>(client: &kube::Client, name: &str) -> Value
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Serialize + Debug,
{
    let object = Api::<K>::namespaced(client.clone(), "default").get(name).await.unwrap();
    serde_json::to_value(object).unwrap()
}

#[tokio::test]
async fn makes_what_every_cluster_has() {
    let (client, _store) = server();
    ensure_bootstrap(client.clone(), info("192.0.2.5", 6443)).await.unwrap();
    for name in NAMESPACES {
        Api::<Namespace>::all(client.clone()).get(name).await.unwrap_or_else(|e| panic!("{name}: {e}"));
    }
    for (name, value) in [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)] {
        let class = Api::<PriorityClass>::all(client.clone()).get(name).await.unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(class.value, Some(value));
    }
    let expect = |object: &Value, pairs: &[(&str, Value)]| {
        for (pointer, value) in pairs {
            assert_eq!(object.pointer(pointer), Some(value), "{pointer} of {object}");
        }
    };
    let service = get::<Service>(&client, NAME).await;
    expect(
        &service,
        &[
            ("/spec/clusterIP", json!("10.43.0.1")),
            ("/spec/ports/0/port", json!(443)),
            ("/spec/ports/0/targetPort", json!(6443)),
            ("/metadata/labels/component", json!("apiserver")),
        ],
    );
    let endpoints = get::<Endpoints>(&client, NAME).await;
    let port = ("/subsets/0/ports/0/port", json!(6443));
    expect(&endpoints, &[("/subsets/0/addresses/0/ip", json!("192.0.2.5")), port]);
    let slice = get::<EndpointSlice>(&client, NAME).await;
    expect(
        &slice,
        &[
            ("/metadata/labels/kubernetes.io~1service-name", json!("kubernetes")),
            ("/endpoints/0/addresses/0", json!("192.0.2.5")),
            ("/addressType", json!("IPv4")),
        ],
    );
}

#[tokio::test]
async fn a_restart_changes_only_what_moved() {
    let (client, store) = server();
    ensure_bootstrap(client.clone(), info("192.0.2.5", 6443)).await.unwrap();
    let made = store.current_revision();
    ensure_bootstrap(client.clone(), info("192.0.2.5", 6443)).await.unwrap();
    assert_eq!(store.current_revision(), made, "nothing moved");
    ensure_bootstrap(client.clone(), info("192.0.2.9", 7443)).await.unwrap();
    assert_eq!(store.current_revision(), made + 3, "Service, Endpoints, EndpointSlice");
    let slice = get::<EndpointSlice>(&client, NAME).await;
    assert_eq!(slice.pointer("/endpoints/0/addresses/0"), Some(&json!("192.0.2.9")));
    assert_eq!(get::<Service>(&client, NAME).await.pointer("/spec/ports/0/targetPort"), Some(&json!(7443)));
}

#[tokio::test(start_paused = true)]
async fn a_keeper_writes_only_what_differs() {
    let (client, store, writes) = noting_server();
    let keeper = keep(client.clone(), info("192.0.2.5", 6443)).await;
    assert!(writes.lock().len() > NAMESPACES.len());
    writes.lock().clear();
    let (before, stop) = (store.current_revision(), CancellationToken::new());
    let running = tokio::spawn(keeper.run(stop.clone()));
    tokio::time::sleep(60 * INTERVAL).await;
    assert_eq!(*writes.lock(), Vec::<String>::new(), "nothing differed");
    assert_eq!(store.current_revision(), before);

    let path = |group: &str, plural: &str| format!("/{group}/namespaces/default/{plural}/{NAME}");
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), "default");
    slices.delete(NAME, &Default::default()).await.unwrap();
    let elsewhere = json!({"spec": {"ports": [{"name": "https", "port": 443, "targetPort": 1}]}});
    let services = Api::<Service>::namespaced(client.clone(), "default");
    services.patch(NAME, &PatchParams::default(), &Patch::Merge(elsewhere)).await.unwrap();
    // Labels of others stay, and call for nothing.
    let label = json!({"metadata": {"labels": {"mine": "yes"}}});
    let endpoints = Api::<Endpoints>::namespaced(client.clone(), "default");
    endpoints.patch(NAME, &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
    writes.lock().clear();
    tokio::time::sleep(60 * INTERVAL).await;
    let slices = "POST /apis/discovery.k8s.io/v1/namespaces/default/endpointslices".to_string();
    assert_eq!(*writes.lock(), [format!("PATCH {}", path("api/v1", "services")), slices]);
    assert_eq!(get::<Service>(&client, NAME).await.pointer("/spec/ports/0/targetPort"), Some(&json!(6443)));
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn a_refusal_says_of_what() {
    let refuse = || async { (http::StatusCode::FORBIDDEN, ApiError::new(403, "Forbidden", "no").status().to_string()) };
    let client = kube::Client::new(Router::new().fallback(refuse), "default");
    let error = ensure_bootstrap(client, info("192.0.2.5", 6443)).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot set up Namespace default: "), "{error}");
}

#[tokio::test]
async fn the_server_describes_itself() {
    let (client, store) = server();
    ensure_bootstrap(client.clone(), info("192.0.2.5", 6443)).await.unwrap();
    let list = async |path: &str| -> Value {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        client.request::<Value>(request).await.unwrap_or_else(|e| panic!("{path}: {e}"))
    };
    let names = |list: &Value| -> Vec<String> {
        list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap().to_string()).collect()
    };
    let condition = |object: &Value, kind: &str| {
        let of_kind = |c: &&Value| c["type"] == kind;
        object["status"]["conditions"].as_array().and_then(|l| l.iter().find(of_kind).cloned()).unwrap_or_default()
    };
    let services = list("/apis/apiregistration.k8s.io/v1/apiservices").await;
    let registry = copepod_core::kinds::builtin();
    for resource in registry.all().iter().filter(|r| r.names.group != "apiregistration.k8s.io") {
        let wanted = format!("{}.{}", resource.names.version, resource.names.group);
        let service = services["items"].as_array().unwrap().iter().find(|s| s["metadata"]["name"] == wanted.as_str());
        let service = service.unwrap_or_else(|| panic!("{wanted} has no APIService"));
        assert_eq!(condition(service, "Available")["status"], "True", "{wanted}");
        assert_eq!(service["metadata"]["labels"]["kube-aggregator.kubernetes.io/automanaged"], "onstart");
    }
    let levels = list("/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations").await;
    let want = [
        "catch-all",
        "exempt",
        "global-default",
        "leader-election",
        "node-high",
        "system",
        "workload-high",
        "workload-low",
    ];
    assert_eq!(names(&levels), want);
    let schemas = list("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas").await;
    assert_eq!(names(&schemas).len(), 11);
    for schema in schemas["items"].as_array().unwrap() {
        let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap();
        assert!(want.contains(&level), "{schema}");
        assert_eq!(condition(schema, "Dangling")["status"], "False");
    }
    let ranges = list("/apis/networking.k8s.io/v1/servicecidrs").await;
    assert_eq!(
        (names(&ranges), &ranges["items"][0]["spec"]["cidrs"]),
        (vec!["kubernetes".into()], &json!(["10.43.0.0/16"]))
    );
    assert_eq!(condition(&ranges["items"][0], "Ready")["status"], "True");

    // What was deleted comes back; what was changed stays.
    let classes = Api::<PriorityClass>::all(client.clone());
    let label = Patch::Merge(json!({"metadata": {"labels": {"a": "b"}}}));
    classes.patch("system-node-critical", &PatchParams::default(), &label).await.unwrap();
    let gone =
        http::Request::delete("/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/probes").body(Vec::new()).unwrap();
    client.request::<Value>(gone).await.unwrap();
    let before = store.current_revision();
    ensure_bootstrap(client.clone(), info("192.0.2.5", 6443)).await.unwrap();
    assert_eq!(store.current_revision(), before + 2, "the FlowSchema and its status");
}
