//! A cluster in which nothing happens: nobody asks for a write but the nodes, for their Leases.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests, not only tests")]

mod plane;

use std::time::Duration;

use copepod_core::scheduler::Profile;
use copepod_server::bootstrap::{self, BootstrapInfo};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Endpoints, Node, PersistentVolumeClaim, Pod, ResourceQuota, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use plane::{Plane, create};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const LEASES: &str = "PATCH /apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";

/// Is a node whose pods all run.
async fn play_node(plane: &Plane) {
    let nodes: Api<Node> = Api::all(plane.client("system:node:n1"));
    create(&nodes, json!({"metadata": {"name": "n1", "labels": {"kubernetes.io/hostname": "n1"}}})).await;
    let room = json!({"cpu": "8", "memory": "8Gi", "pods": "110"});
    let ready = json!({"type": "Ready", "status": "True"});
    let status = json!({"status": {"conditions": [ready], "allocatable": room, "capacity": room}});
    nodes.patch_status("n1", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    let (leases, clock): (Api<Lease>, _) =
        (Api::namespaced(plane.client("system:node:n1"), "kube-node-lease"), plane.clock.clone());
    create(&leases, json!({"metadata": {"name": "n1"}})).await;
    tokio::spawn(async move {
        loop {
            let renewed = clock().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
            let renewed = Patch::Merge(json!({"spec": {"renewTime": renewed}}));
            leases.patch("n1", &PatchParams::default(), &renewed).await.unwrap();
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
    });
    let (pods, clock) = (plane.api::<Pod>(), plane.clock.clone());
    tokio::spawn(async move {
        for round in 0.. {
            let all = pods.list(&ListParams::default()).await.unwrap().items;
            let bound = |p: &Pod| p.spec.as_ref().is_some_and(|s| s.node_name.is_some());
            let waits = |p: &Pod| bound(p) && p.status.as_ref().is_some_and(|s| s.pod_ip.is_none());
            for (i, pod) in all.iter().enumerate().filter(|(_, p)| waits(p)) {
                let since = clock().to_string();
                let status = json!({"status": {"phase": "Running", "podIP": format!("10.64.{round}.{}", i + 1),
                    "podIPs": [{"ip": format!("10.64.{round}.{}", i + 1)}],
                    "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": since}]}});
                pods.patch_status(pod.metadata.name.as_ref().unwrap(), &PatchParams::default(), &Patch::Merge(status))
                    .await
                    .unwrap();
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
}

#[tokio::test(start_paused = true)]
async fn an_idle_cluster_is_asked_for_no_writes_but_leases() {
    let mut plane = Plane::start("2026-11-22T10:00:00Z").await;
    plane.stop_controllers();
    plane.profiles = vec![Profile::default()];
    plane.run_controllers();
    let info = BootstrapInfo {
        service_ip: "10.43.0.1".parse().unwrap(),
        service_cidr: "10.43.0.0/16".parse().unwrap(),
        advertise_ip: "192.0.2.5".parse().unwrap(),
        port: 6443,
    };
    let stop = CancellationToken::new();
    tokio::spawn(bootstrap::keep(plane.client("system:apiserver"), info).await.run(stop.clone()));
    play_node(&plane).await;

    let labels = json!({"app": "web"});
    let with = |more: Value| {
        let mut spec = json!({"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
            "spec": {"containers": [{"name": "c", "image": "i:1"}]}}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    create(&plane.api::<ResourceQuota>(), json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "50"}}})).await;
    let named = |name: &str, spec: Value| json!({"metadata": {"name": name}, "spec": spec});
    create(&plane.api::<Service>(), named("web", json!({"selector": labels, "ports": [{"port": 80}]}))).await;
    create(&plane.api::<Service>(), named("mirrored", json!({"ports": [{"port": 80}]}))).await;
    let subsets = json!([{"addresses": [{"ip": "192.0.2.9"}], "ports": [{"port": 80}]}]);
    create(&plane.api::<Endpoints>(), json!({"metadata": {"name": "mirrored"}, "subsets": subsets})).await;
    let guards = json!({"selector": {"matchLabels": labels}, "maxUnavailable": 1});
    create(&plane.api::<PodDisruptionBudget>(), named("web", guards)).await;
    plane.until("2026-11-22T10:00:05Z").await;
    create(&plane.api::<Deployment>(), named("web", with(json!({"replicas": 3})))).await;
    create(&plane.api::<DaemonSet>(), named("each", with(json!({})))).await;
    let storage = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let template = json!([{"metadata": {"name": "data"}, "spec": storage}]);
    let set = with(json!({"serviceName": "web", "replicas": 2, "volumeClaimTemplates": template}));
    create(&plane.api::<StatefulSet>(), named("db", set)).await;
    let job = json!({"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i:1"}]}}});
    let cron = json!({"schedule": "0 0 1 1 *", "jobTemplate": {"spec": job}});
    create(&plane.api::<CronJob>(), named("yearly", cron)).await;
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let scaler = json!({"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 5});
    create(&plane.api::<HorizontalPodAutoscaler>(), named("web", scaler)).await;

    plane.until("2026-11-22T10:10:00Z").await;
    let settled = plane.api::<StatefulSet>().get("db").await.unwrap().status.unwrap();
    assert_eq!(settled.available_replicas, Some(2), "{settled:?}");
    let claims = plane.api::<PersistentVolumeClaim>().list(&ListParams::default()).await.unwrap().items;
    let phases: Vec<_> = claims.iter().map(|c| c.status.as_ref().and_then(|s| s.phase.as_deref())).collect();
    assert_eq!(phases, [Some("Bound"), Some("Bound")]);
    let allowed = plane.api::<PodDisruptionBudget>().get("web").await.unwrap().status.unwrap();
    assert!(allowed.disruptions_allowed.is_some());
    assert!(plane.writes().len() > 30, "it was busy");

    plane.until("2026-11-22T10:30:00Z").await;
    let mut writes = plane.writes();
    let leases = writes.remove(LEASES);
    assert!(leases.is_some_and(|n| (115..=125).contains(&n)), "{leases:?}");
    assert!(writes.is_empty(), "{writes:#?}");
    stop.cancel();
}
