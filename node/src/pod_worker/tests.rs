use super::*;
use crate::fabric::FabricConfig;
use crate::images::{ImageSource, Images};
use crate::pods::Pods;
use crate::refs::ConfigSource;
use crate::sim::{SimContainer, SimRuntime};
use async_trait::async_trait;
use copepod_api::image::Tag;
use k8s_openapi::api::core::v1::{ConfigMap, ContainerStatus, PersistentVolume, Secret};
use serde_json::{Value, json};
use sha2::Digest;
use tokio::io::AsyncWriteExt;

/// Scripted surroundings of pod workers.
#[derive(Default)]
struct World {
    statuses: Mutex<HashMap<String, PodStatus>>,
    removed: Mutex<Vec<String>>,
    events: Mutex<Vec<String>>,
    tags: Mutex<Vec<String>>,
    config: Mutex<BTreeMap<String, String>>,
}

#[async_trait]
impl PodApi for World {
    async fn patch_status(&self, current: &Pod, desired: &PodStatus) -> Result<Option<Pod>, WriteError> {
        self.statuses.lock().insert(current.metadata.uid.clone().unwrap(), desired.clone());
        Ok(Some(current.clone()))
    }
    async fn remove(&self, pod: &Pod) -> Result<(), WriteError> {
        self.removed.lock().push(pod.metadata.uid.clone().unwrap());
        Ok(())
    }
}

#[async_trait]
impl ImageSource for World {
    async fn tag(&self, name: &str, _tag: &str) -> Result<Option<Tag>, String> {
        let hex: String = sha2::Sha256::digest(name).iter().map(|b| format!("{b:02x}")).collect();
        let known = self.tags.lock().iter().any(|t| t == name);
        Ok(known.then(|| Tag { digest: format!("sha256:{hex}"), file: format!("{name}.wasm") }))
    }
    async fn blob(&self, digest: &str, to: &mut tokio::fs::File) -> Result<bool, String> {
        let names = self.tags.lock().clone();
        for name in names {
            if self.tag_digest(&name) == digest {
                to.write_all(name.as_bytes()).await.unwrap();
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl World {
    fn tag_digest(&self, name: &str) -> String {
        let hex: String = sha2::Sha256::digest(name).iter().map(|b| format!("{b:02x}")).collect();
        format!("sha256:{hex}")
    }
    fn status(&self, uid: &str) -> PodStatus {
        self.statuses.lock().get(uid).cloned().unwrap_or_default()
    }
    fn container(&self, uid: &str, name: &str) -> ContainerStatus {
        let list = self.status(uid).container_statuses.unwrap_or_default();
        list.into_iter().find(|c| c.name == name).unwrap_or_default()
    }
    fn waiting(&self, uid: &str, name: &str) -> (String, String) {
        let waiting = self.container(uid, name).state.unwrap_or_default().waiting.unwrap_or_default();
        (waiting.reason.unwrap_or_default(), waiting.message.unwrap_or_default())
    }
    fn phase(&self, uid: &str) -> String {
        self.status(uid).phase.unwrap_or_default()
    }
    fn has_event(&self, part: &str) -> bool {
        self.events.lock().iter().any(|e| e.contains(part))
    }
}

#[async_trait]
impl ConfigSource for World {
    async fn config_map(&self, _ns: &str, name: &str, _age: Duration) -> Result<Option<Arc<ConfigMap>>, String> {
        let data = self.config.lock().clone();
        let found = json!({"metadata": {"name": name}, "data": data});
        Ok((!data.is_empty()).then(|| Arc::new(serde_json::from_value(found).unwrap())))
    }
    async fn secret(&self, _ns: &str, _name: &str, _age: Duration) -> Result<Option<Arc<Secret>>, String> {
        Ok(None)
    }
    async fn claimed(&self, _ns: &str, _claim: &str) -> Result<Option<Arc<PersistentVolume>>, String> {
        Ok(None)
    }
}

struct Node {
    world: Arc<World>,
    runtime: Arc<SimRuntime>,
    pods: Pods,
    _dir: Option<tempfile::TempDir>,
}

fn node_in(dir: &std::path::Path, world: Arc<World>) -> Node {
    let runtime = Arc::new(SimRuntime::default());
    let fabric =
        Fabric::new(FabricConfig { api_server: ("127.0.0.1".into(), 1), node_ips: vec![], virtual_ranges: vec![] });
    let quick = BackOff { initial: Duration::from_millis(20), ..BackOff::default() };
    let (events, images) = (world.clone(), Images::open(dir, world.clone()).unwrap());
    let starter = Starter {
        images: Arc::new(images),
        configs: world.clone(),
        services: Arc::new(|_| vec![]),
        host_ips: vec!["192.0.2.1".parse().unwrap()],
        node_cpus: 1,
        node_memory: 1,
    };
    let shared = Shared {
        runtime: runtime.clone(),
        fabric,
        starter,
        api: world.clone(),
        record: Arc::new(move |_, _, reason, message| events.events.lock().push(format!("{reason}: {message}"))),
        checkpoints: Checkpoints::open(dir.join("pods")).unwrap(),
        logs: dir.join("logs"),
        ips: Mutex::new(PodIps::new("10.64.0.0/24").unwrap()),
        back_off: quick,
        retry: quick,
    };
    Node { world, runtime, pods: Pods::new(Arc::new(shared)), _dir: None }
}

fn node() -> Node {
    let dir = tempfile::tempdir().unwrap();
    let world = World { tags: Mutex::new(vec!["app".into()]), ..World::default() };
    let node = node_in(dir.path(), Arc::new(world));
    Node { _dir: Some(dir), ..node }
}

fn pod(uid: &str, spec: Value) -> Pod {
    let mut spec = spec;
    if spec.get("containers").is_none() {
        spec["containers"] = json!([{"name": "a", "image": "app:1"}]);
    }
    serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n", "uid": uid}, "spec": spec})).unwrap()
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let polled = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), polled).await.is_ok(), "never happened: {what}");
}

impl Node {
    async fn newest(&self, uid: &str, container: &str, count: usize) -> Arc<SimContainer> {
        until(&format!("instance {count} of {container}"), || {
            self.runtime.sandbox_of(uid).is_some_and(|s| s.count(container) >= count)
        })
        .await;
        self.runtime.sandbox_of(uid).unwrap().newest(container).unwrap()
    }
}

#[tokio::test]
async fn a_pod_runs_crashes_and_backs_off_with_the_traps_message() {
    let node = node();
    node.pods.upsert(Arc::new(pod("u1", json!({}))));
    let first = node.newest("u1", "a", 1).await;
    assert_eq!(first.spec.args, ["app.wasm"]);
    until("running", || node.world.phase("u1") == "Running").await;
    let ready = |s: &PodStatus| s.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True");
    assert!(ready(&node.world.status("u1")));
    assert_eq!(node.world.status("u1").pod_ip.as_deref(), Some("10.64.0.2"));
    let compiled = "Compiled: Successfully compiled image \"app:1\" in 1.500s";
    let compiling = "Compiling: Compiling image \"app:1\"";
    for event in ["Pulling: Pulling image \"app:1\"", "Pulled", compiling, compiled, "Created", "Started"] {
        assert!(node.world.has_event(event), "{event}: {:?}", node.world.events.lock());
    }
    first.exit(134, "wasm trap: unreachable");
    node.newest("u1", "a", 2).await.exit(134, "wasm trap: unreachable");
    until("the back-off is shown", || {
        node.world.waiting("u1", "a").0 == "CrashLoopBackOff" || node.world.container("u1", "a").restart_count > 1
    })
    .await;
    until("back-off event", || node.world.has_event("BackOff: Back-off restarting failed container a in pod p_n(u1)"))
        .await;
    node.newest("u1", "a", 3).await;
    until("third instance reported", || node.world.container("u1", "a").restart_count == 2).await;
    let last = node.world.container("u1", "a").last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.message.as_deref()), (134, Some("wasm trap: unreachable")));
}

#[tokio::test]
async fn init_containers_come_first_and_never_means_never() {
    let node = node();
    let spec = json!({"restartPolicy": "Never", "initContainers": [{"name": "i", "image": "app:1"}]});
    node.pods.upsert(Arc::new(pod("u1", spec)));
    let init = node.newest("u1", "i", 1).await;
    until("initializing", || node.world.waiting("u1", "a").0 == "PodInitializing").await;
    assert_eq!(node.runtime.sandbox_of("u1").unwrap().count("a"), 0);
    init.exit(0, "");
    node.newest("u1", "a", 1).await.exit(3, "");
    until("failed", || node.world.phase("u1") == "Failed").await;
    until("freed", || *node.runtime.sandbox_of("u1").unwrap().stopped.lock()).await;
    assert_eq!(node.runtime.sandbox_of("u1").unwrap().count("a"), 1);
}

#[tokio::test]
async fn a_missing_image_says_what_to_do_and_starts_once_it_is_there() {
    let node = node();
    node.world.tags.lock().clear();
    node.pods.upsert(Arc::new(pod("u1", json!({}))));
    until("ErrImagePull", || node.world.waiting("u1", "a").0 == "ErrImagePull").await;
    let hint = "push it with: copepod push FILE app:1";
    assert!(node.world.waiting("u1", "a").1.contains(hint));
    until("ImagePullBackOff", || node.world.waiting("u1", "a").0 == "ImagePullBackOff").await;
    assert!(node.world.waiting("u1", "a").1.contains(hint));
    assert_eq!(node.world.phase("u1"), "Pending");
    node.pods.gone("u1");
    until("worker ended", || node.pods.all().is_empty()).await;
    assert!(node.world.removed.lock().is_empty(), "a pod that is gone is not removed again");
}

#[tokio::test]
async fn an_image_that_cannot_run_and_a_missing_key_are_named() {
    let node = node();
    let digest = node.world.tag_digest("app");
    node.runtime.bad_images.lock().insert(digest, "not a WebAssembly module".into());
    node.pods.upsert(Arc::new(pod("u1", json!({}))));
    until("InvalidImage", || node.world.waiting("u1", "a").0 == "InvalidImage").await;
    assert_eq!(node.world.waiting("u1", "a").1, "image \"app:1\" cannot run: not a WebAssembly module");

    let env = json!([{"name": "V", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]);
    node.pods.upsert(Arc::new(pod("u2", json!({"containers": [{"name": "a", "image": "app:1", "env": env}]}))));
    until("config error", || node.world.waiting("u2", "a").0 == "CreateContainerConfigError").await;
    assert_eq!(node.world.waiting("u2", "a").1, "configmap \"cm\" not found");
}

#[tokio::test]
async fn a_full_node_is_the_pods_error_until_there_is_room() {
    let node = node();
    node.runtime.full.store(true, std::sync::atomic::Ordering::Relaxed);
    node.pods.upsert(Arc::new(pod("u1", json!({}))));
    until("out of capacity", || node.world.waiting("u1", "a").0 == "OutOfCapacity").await;
    assert_eq!(node.world.waiting("u1", "a").1, "node is at capacity: 110 guest instances are alive");
    assert!(node.world.has_event("Failed: Error: node is at capacity: 110 guest instances are alive"));
    assert_eq!((node.world.phase("u1").as_str(), node.world.container("u1", "a").restart_count), ("Pending", 0));
    let tries = || node.world.events.lock().iter().filter(|e| e.starts_with("Failed: ")).count();
    until("it is tried again", || tries() >= 3).await;
    node.runtime.full.store(false, std::sync::atomic::Ordering::Relaxed);
    node.newest("u1", "a", 1).await;
    until("running", || node.world.phase("u1") == "Running").await;
}

#[tokio::test]
async fn a_missing_config_map_delays_the_pod_and_mounts_once_it_is_there() {
    let node = node();
    let spec = json!({"volumes": [{"name": "c", "configMap": {"name": "x"}}],
        "containers": [{"name": "a", "image": "app:1", "volumeMounts": [{"name": "c", "mountPath": "/etc/c"}]}]});
    node.pods.upsert(Arc::new(pod("u1", spec)));
    until("FailedMount", || node.world.has_event("FailedMount")).await;
    assert!(node.world.has_event("configmap \"x\" not found"));
    assert_eq!(node.world.waiting("u1", "a").0, "ContainerCreating");
    node.world.config.lock().insert("k".into(), "v".into());
    let started = node.newest("u1", "a", 1).await;
    assert_eq!(started.spec.mounts[0].path, "/etc/c");
    let sandbox = node.runtime.sandbox_of("u1").unwrap();
    let files = sandbox.spec.lock().as_ref().unwrap().volumes["c"].clone();
    assert!(matches!(files, crate::runtime::Volume::Files(f) if &f["k"].data[..] == b"v"));
}

#[tokio::test]
async fn deletion_kills_within_grace_then_removes_the_object() {
    let node = node();
    let mut p = pod("u1", json!({"terminationGracePeriodSeconds": 5}));
    node.pods.upsert(Arc::new(p.clone()));
    let running = node.newest("u1", "a", 1).await;
    until("running", || node.world.phase("u1") == "Running").await;
    let end = Timestamp::now() + jiff::SignedDuration::from_secs(5);
    p.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(end));
    p.metadata.deletion_grace_period_seconds = Some(5);
    node.pods.upsert(Arc::new(p));
    until("removed", || *node.world.removed.lock() == ["u1"]).await;
    let grace = running.grace.lock().unwrap();
    assert!(grace > Duration::from_secs(3) && grace <= Duration::from_secs(5), "{grace:?}");
    assert_eq!(node.world.phase("u1"), "Failed");
    assert!(node.world.has_event("Killing: Stopping container a"));
    let shared = node.pods.shared();
    assert_eq!(shared.checkpoints.all().await.len(), 1, "a finalizer may keep the object: its state is not forgotten");
    node.pods.gone("u1");
    until("worker ended", || node.pods.all().is_empty()).await;
    assert!(shared.checkpoints.all().await.is_empty());
    assert!(!log_dir(&shared.logs, "n", "p", "u1").exists());
}

#[tokio::test]
async fn a_deleted_pod_that_a_finalizer_keeps_says_the_same_after_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World { tags: Mutex::new(vec!["app".into()]), ..World::default() });
    let node = node_in(dir.path(), world.clone());
    let mut p = pod("u1", json!({"terminationGracePeriodSeconds": 0}));
    node.pods.upsert(Arc::new(p.clone()));
    node.newest("u1", "a", 1).await;
    until("running", || world.phase("u1") == "Running").await;
    p.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::now()));
    p.metadata.deletion_grace_period_seconds = Some(0);
    node.pods.upsert(Arc::new(p.clone()));
    until("removed", || *world.removed.lock() == ["u1"]).await;
    let ended = world.container("u1", "a").state.unwrap().terminated.expect("terminated");
    node.pods.stop().await;

    for forgotten in [false, true] {
        if forgotten {
            std::fs::remove_dir_all(dir.path()).unwrap();
        }
        let removals = world.removed.lock().len();
        let node = node_in(dir.path(), world.clone());
        p.status = Some(world.status("u1"));
        node.pods.upsert(Arc::new(p.clone()));
        until("removed again", || world.removed.lock().len() > removals).await;
        assert_eq!(world.phase("u1"), "Failed");
        assert_eq!(world.container("u1", "a").state.unwrap().terminated.as_ref(), Some(&ended));
        node.pods.stop().await;
    }
}

#[tokio::test]
async fn readiness_and_liveness() {
    let node = node();
    let probe = json!({"httpGet": {"port": 80}, "periodSeconds": 1, "failureThreshold": 1});
    let container = json!({"name": "a", "image": "app:1", "readinessProbe": probe, "livenessProbe": probe});
    node.pods.upsert(Arc::new(pod("u1", json!({"containers": [container]}))));
    node.newest("u1", "a", 1).await;
    until("restarted by its liveness probe", || node.world.container("u1", "a").restart_count >= 1).await;
    assert!(node.world.has_event("Unhealthy: Liveness probe failed: "));
    assert!(node.world.has_event("Container a failed liveness probe, will be restarted"));
    assert!(!node.world.container("u1", "a").ready);
    node.runtime.sandbox_of("u1").unwrap().answer_http(80, 200, "");
    until("ready", || node.world.container("u1", "a").ready).await;
}

#[tokio::test]
async fn an_agents_restart_restarts_pods_under_their_uid_and_address() {
    let dir = tempfile::tempdir().unwrap();
    let world = Arc::new(World { tags: Mutex::new(vec!["app".into()]), ..World::default() });
    let node = node_in(dir.path(), world.clone());
    node.pods.upsert(Arc::new(pod("u0", json!({}))));
    node.newest("u0", "a", 1).await;
    node.pods.upsert(Arc::new(pod("u1", json!({}))));
    node.newest("u1", "a", 1).await;
    until("both run", || world.phase("u0") == "Running" && world.phase("u1") == "Running").await;
    let ip = world.status("u1").pod_ip;
    node.pods.stop().await;
    assert!(world.removed.lock().is_empty());

    let node = node_in(dir.path(), world.clone());
    let mut again = pod("u1", json!({}));
    again.status = Some(world.status("u1"));
    node.pods.upsert(Arc::new(again));
    node.newest("u1", "a", 1).await;
    until("restart counted", || world.container("u1", "a").restart_count == 1).await;
    assert_eq!(world.status("u1").pod_ip, ip);
    let last = world.container("u1", "a").last_state.unwrap().terminated.unwrap();
    assert_eq!(last.reason.as_deref(), Some("ContainerStatusUnknown"));
    node.pods.retain(&["u1".to_string()].into()).await;
    assert_eq!(node.pods.shared().checkpoints.all().await.len(), 1, "the pod that is gone is forgotten");
}
