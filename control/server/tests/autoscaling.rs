//! HorizontalPodAutoscalers over minutes: controllers, API and metrics of a node that tells what it is told to, on the
//! runtime's paused clock, which jumps on whenever all is quiet.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests, not only tests")]

mod plane;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use copepod_server::api::Clock;
use copepod_server::dialer::{DialError, NodeDialer, NodeStream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use plane::{Plane, create};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The node of all pods, each of which uses the same.
struct OneNode {
    clock: Clock,
    /// Thousandths of a core.
    used: AtomicU64,
    /// Its pods' names.
    pods: parking_lot::Mutex<Vec<String>>,
}

#[async_trait]
impl NodeDialer for OneNode {
    async fn dial(&self, _: &str) -> Result<Box<dyn NodeStream>, DialError> {
        let (nanos, time) = (self.used.load(Ordering::Relaxed) * 1_000_000, (self.clock)().to_string());
        let pod = |name: &String| {
            let cpu = json!({"time": time, "usageNanoCores": nanos, "windowNanoSeconds": 15_000_000_000_u64});
            let container = json!({"name": "c", "cpu": cpu, "memory": {"time": time, "workingSetBytes": 1}});
            json!({"podRef": {"name": name, "namespace": "default"}, "containers": [container]})
        };
        let body = json!({"pods": self.pods.lock().iter().map(pod).collect::<Vec<_>>()}).to_string();
        let (near, mut far) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move {
            let (mut head, mut byte) = (Vec::new(), [0u8]);
            while !head.ends_with(b"\r\n\r\n") && far.read(&mut byte).await.unwrap_or(0) > 0 {
                head.push(byte[0]);
            }
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = far.write_all(answer.as_bytes()).await;
        });
        Ok(Box::new(near))
    }
}

/// A control plane with that node.
struct Site {
    plane: Plane,
    node: Arc<OneNode>,
}

impl Site {
    async fn start() -> Self {
        let mut node = None;
        let plane = Plane::start_with("2026-11-21T10:00:00Z", |clock| {
            node.insert(Arc::new(OneNode { clock, used: AtomicU64::new(0), pods: Default::default() })).clone()
        })
        .await;
        let nodes: Api<Node> = Api::all(plane.client("admin"));
        create(&nodes, json!({"metadata": {"name": "n1"}})).await;
        let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        nodes.patch_status("n1", &PatchParams::default(), &Patch::Merge(ready)).await.unwrap();
        let leases: Api<Lease> = Api::namespaced(plane.client("admin"), "kube-node-lease");
        create(&leases, json!({"metadata": {"name": "n1"}})).await;
        Self { plane, node: node.unwrap() }
    }

    fn api<K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(&self) -> Api<K> {
        self.plane.api()
    }

    /// Lets time pass; every second the node says that it is there, all its pods run, and those that are to end do.
    async fn pass(&self, seconds: u64) {
        let leases: Api<Lease> = Api::namespaced(self.plane.client("admin"), "kube-node-lease");
        for _ in 0..seconds {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let renewed = json!({"spec": {"renewTime": format!("{:.6}", (self.node.clock)())}});
            leases.patch("n1", &PatchParams::default(), &Patch::Merge(renewed)).await.unwrap();
            let pods = self.api::<Pod>();
            let all = pods.list(&ListParams::default()).await.unwrap().items;
            for pod in &all {
                let name = pod.metadata.name.as_ref().unwrap();
                if pod.metadata.deletion_timestamp.is_some() {
                    pods.delete(name, &DeleteParams::default().grace_period(0)).await.unwrap();
                } else if pod.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Running") {
                    // As if it had run for long: its use counts at once.
                    let long_ago = "2026-11-21T09:00:00Z";
                    let ready = json!([{"type": "Ready", "status": "True", "lastTransitionTime": long_ago}]);
                    let status = json!({"phase": "Running", "startTime": long_ago, "conditions": ready});
                    let patch = Patch::Merge(json!({"status": status}));
                    pods.patch_status(name, &PatchParams::default(), &patch).await.unwrap();
                }
            }
            *self.node.pods.lock() = all.iter().filter_map(|p| p.metadata.name.clone()).collect();
        }
    }

    fn uses(&self, milli: u64) {
        self.node.used.store(milli, Ordering::Relaxed);
    }

    async fn replicas(&self) -> i32 {
        self.api::<Deployment>().get("web").await.unwrap().spec.unwrap().replicas.unwrap()
    }

    async fn scaler(&self) -> Value {
        serde_json::to_value(self.api::<HorizontalPodAutoscaler>().get("web").await.unwrap()).unwrap()
    }

    async fn events(&self) -> Vec<String> {
        let events = self.api::<Event>().list(&ListParams::default()).await.unwrap().items;
        let told = |e: Event| format!("{} {}", e.reason.unwrap_or_default(), e.message.unwrap_or_default());
        events.into_iter().map(told).collect()
    }
}

fn deployment() -> Value {
    let container = json!({"name": "c", "image": "i", "resources": {"requests": {"cpu": "100m"}}});
    json!({"metadata": {"name": "web"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}},
            "spec": {"nodeName": "n1", "terminationGracePeriodSeconds": 1, "containers": [container]}}}})
}

fn scaler(behavior: Value) -> Value {
    let target = json!({"type": "Utilization", "averageUtilization": 50});
    let mut object = json!({"metadata": {"name": "web"}, "spec": {"minReplicas": 1, "maxReplicas": 5,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]}});
    if !behavior.is_null() {
        object["spec"]["behavior"] = behavior;
    }
    object
}

#[tokio::test(start_paused = true)]
async fn pods_come_with_use_and_go_after_five_minutes_without() {
    let site = Site::start().await;
    // Its target comes later: it says so, and finds it then.
    create::<HorizontalPodAutoscaler>(&site.api(), scaler(Value::Null)).await;
    site.pass(2).await;
    let condition = &site.scaler().await["status"]["conditions"][0];
    assert_eq!((&condition["type"], &condition["reason"]), (&json!("AbleToScale"), &json!("FailedGetScale")));
    let message = "the HPA controller was unable to get the target's current scale: deployments.apps \"web\" not found";
    assert_eq!(condition["message"], message);
    let before = site.scaler().await["metadata"]["resourceVersion"].clone();
    site.pass(60).await;
    assert_eq!(site.scaler().await["metadata"]["resourceVersion"], before, "it is not told again and again");

    site.uses(50);
    create::<Deployment>(&site.api(), deployment()).await;
    site.pass(40).await;
    assert_eq!(site.replicas().await, 1);
    let status = site.scaler().await["status"].clone();
    assert_eq!(
        status["currentMetrics"][0]["resource"]["current"],
        json!({"averageUtilization": 50, "averageValue": "50m"})
    );
    let before = site.scaler().await["metadata"]["resourceVersion"].clone();
    site.pass(120).await;
    assert_eq!(site.scaler().await["metadata"]["resourceVersion"], before, "nothing changes, nothing is written");

    site.uses(100);
    let mut waited = 0;
    while site.replicas().await == 1 {
        site.pass(1).await;
        waited += 1;
        assert!(waited < 30, "it looks every 15 seconds, at answers of 5 seconds at most");
    }
    assert_eq!(site.replicas().await, 2);
    site.pass(60).await;
    assert_eq!(site.replicas().await, 5, "no more than the most");
    let status = site.scaler().await["status"].clone();
    assert_eq!((&status["currentReplicas"], &status["desiredReplicas"]), (&json!(5), &json!(5)));

    site.uses(0);
    site.pass(270).await;
    assert_eq!(site.replicas().await, 5, "what was proposed in the last five minutes holds");
    site.pass(60).await;
    assert_eq!(site.replicas().await, 1);
    let events = site.events().await;
    for event in [
        "SuccessfulRescale New size: 2; reason: cpu resource utilization (percentage of request) above target",
        "SuccessfulRescale New size: 1; reason: All metrics below target",
    ] {
        assert!(events.iter().any(|e| e == event), "{event}: {events:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn rules_bound_the_pace_and_a_failing_metric_stops_it() {
    let site = Site::start().await;
    let pods = |value: i32| json!([{"type": "Pods", "value": value, "periodSeconds": 60}]);
    let behavior =
        json!({"scaleUp": {"policies": pods(1)}, "scaleDown": {"policies": pods(2), "stabilizationWindowSeconds": 0}});
    site.uses(500);
    create::<Deployment>(&site.api(), deployment()).await;
    site.pass(5).await;
    create::<HorizontalPodAutoscaler>(&site.api(), scaler(behavior)).await;
    site.pass(5).await;
    assert_eq!(site.replicas().await, 2);
    site.pass(45).await;
    assert_eq!(site.replicas().await, 2, "one pod a minute");
    let limited = site.scaler().await["status"]["conditions"][2].clone();
    assert_eq!((&limited["type"], &limited["reason"]), (&json!("ScalingLimited"), &json!("ScaleUpLimit")));
    site.pass(30).await;
    assert_eq!(site.replicas().await, 3);
    site.pass(150).await;
    assert_eq!(site.replicas().await, 5);

    // Another one for the same pods: neither acts any more.
    let mut rival = scaler(Value::Null);
    rival["metadata"]["name"] = json!("rival");
    create::<HorizontalPodAutoscaler>(&site.api(), rival).await;
    site.uses(0);
    site.pass(90).await;
    assert_eq!(site.replicas().await, 5);
    let active = site.scaler().await["status"]["conditions"][1].clone();
    assert_eq!(
        active["message"],
        "pods by selector app=web are controlled by multiple HPAs: [default/rival default/web]"
    );
    site.api::<HorizontalPodAutoscaler>().delete("rival", &DeleteParams::default()).await.unwrap();
    site.pass(20).await;
    assert_eq!(site.replicas().await, 3, "two pods a minute");
    site.pass(80).await;
    assert_eq!(site.replicas().await, 1);
}
