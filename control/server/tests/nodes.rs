//! Nodes that fail, and pods that were to be disrupted: what the controllers do as time passes.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests, not only tests")]

mod plane;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams};
use plane::{Plane, create};
use serde_json::{Value, json};

/// The node's own effects of `node.kubernetes.io/unreachable`.
async fn unreachable(plane: &Plane, name: &str) -> Vec<String> {
    let node = Api::<Node>::all(plane.client("admin")).get(name).await.unwrap();
    let taints = node.spec.and_then(|s| s.taints).unwrap_or_default();
    taints.into_iter().filter(|t| t.key == "node.kubernetes.io/unreachable").map(|t| t.effect).collect()
}

async fn say_ready(plane: &Plane, name: &str) {
    let status = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    let nodes = Api::<Node>::all(plane.client("admin"));
    nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nodes_drive_pods_out_one_by_one_and_not_while_all_are_gone() {
    let plane = Plane::start("2026-11-22T10:00:00Z").await;
    let nodes: Api<Node> = Api::all(plane.client("admin"));
    let leases: Api<Lease> = Api::namespaced(plane.client("admin"), "kube-node-lease");
    let names = ["n1", "n2", "n3"];
    for name in names {
        create(&nodes, json!({"metadata": {"name": name}})).await;
        say_ready(&plane, name).await;
        create(&leases, json!({"metadata": {"name": name}, "spec": {"holderIdentity": name}})).await;
    }
    // Nobody renews a Lease: it is the network rather than all nodes.
    plane.until("2026-11-22T10:02:00Z").await;
    for name in names {
        assert_eq!(unreachable(&plane, name).await, ["NoSchedule"], "{name}");
    }
    // One is back: the others are gone, then.
    let renewed = json!({"spec": {"renewTime": "2026-11-22T10:02:00.000000Z"}});
    leases.patch("n3", &PatchParams::default(), &Patch::Merge(renewed)).await.unwrap();
    say_ready(&plane, "n3").await;
    plane.until("2026-11-22T10:02:05Z").await;
    let driving = async || {
        let mut count = 0;
        for name in ["n1", "n2"] {
            count += usize::from(unreachable(&plane, name).await.contains(&"NoExecute".to_string()));
        }
        count
    };
    assert_eq!((driving().await, unreachable(&plane, "n3").await), (1, vec![]));
    plane.until("2026-11-22T10:02:15Z").await;
    assert_eq!(driving().await, 2, "the second after ten seconds");
}

#[tokio::test(start_paused = true)]
async fn what_was_to_be_disrupted_and_stays_is_no_target_any_more() {
    let plane = Plane::start("2026-11-22T10:00:00Z").await;
    let pods = plane.api::<Pod>();
    create(&pods, json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}})).await;
    let said = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
        "lastTransitionTime": "2026-11-22T10:00:00Z"});
    let status = Patch::Merge(json!({"status": {"conditions": [said]}}));
    pods.patch_status("p", &PatchParams::default(), &status).await.unwrap();
    let target = async || {
        let pod: Value = serde_json::to_value(pods.get("p").await.unwrap()).unwrap();
        pod["status"]["conditions"][0].clone()
    };
    plane.until("2026-11-22T10:01:55Z").await;
    assert_eq!(target().await["status"], "True");
    plane.until("2026-11-22T10:02:05Z").await;
    let now = target().await;
    assert_eq!((&now["status"], now.get("reason")), (&json!("False"), None), "{now}");
}
