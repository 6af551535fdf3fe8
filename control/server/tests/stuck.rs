//! What cannot go on by itself: workloads under a quota, pods that nobody ends, owners that own each other. It says why,
//! writes little meanwhile, and goes on when it can.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests, not only tests")]

mod plane;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, ResourceQuota};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use plane::{Plane, TERMINATED_PODS, create};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

async fn all<K>(api: &Api<K>) -> Vec<K>
where
    K: kube::Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    api.list(&ListParams::default()).await.unwrap().items
}

/// How far the store is.
async fn revision(plane: &Plane) -> u64 {
    let pods = plane.api::<Pod>().list(&ListParams::default()).await.unwrap();
    pods.metadata.resource_version.unwrap().parse().unwrap()
}

/// A workload whose pods are labelled with its name.
fn workload(name: &str, more: Value) -> Value {
    let mut spec = json!({
        "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"metadata": {"name": name}, "spec": spec})
}

/// Says of all pods that they are ready.
async fn ready(plane: &Plane) {
    let pods = plane.api::<Pod>();
    let since = (plane.clock)().to_string();
    for pod in all(&pods).await {
        let status = json!({"status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": since}]}});
        pods.patch_status(&pod.metadata.name.unwrap(), &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollout_that_runs_out_of_quota_says_so_waits_and_goes_on() {
    let plane = Plane::start("2026-11-21T10:00:00Z").await;
    let quotas = plane.api::<ResourceQuota>();
    create(&quotas, json!({"metadata": {"name": "few"}, "spec": {"hard": {"pods": "5"}}})).await;
    plane.until("2026-11-21T10:00:05Z").await;
    let deployments = plane.api::<Deployment>();
    let rolling = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 0}});
    create(&deployments, workload("web", json!({"replicas": 4, "strategy": rolling}))).await;
    plane.until("2026-11-21T10:00:10Z").await;
    ready(&plane).await;
    plane.until("2026-11-21T10:00:15Z").await;
    assert_eq!(deployments.get("web").await.unwrap().status.unwrap().available_replicas, Some(4));

    // One pod of the new template fits, the others do not; the old ones stay.
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "i:2"}]}}}});
    deployments.patch("web", &PatchParams::default(), &Patch::Strategic(&image)).await.unwrap();
    plane.until("2026-11-21T10:01:00Z").await;
    let failure = |d: &Deployment| {
        let conditions = d.status.clone().and_then(|s| s.conditions).unwrap_or_default();
        conditions.into_iter().find(|c| c.type_ == "ReplicaFailure")
    };
    let stuck = deployments.get("web").await.unwrap();
    let said = failure(&stuck).unwrap();
    assert_eq!((said.status.as_str(), said.reason.as_deref()), ("True", Some("FailedCreate")));
    let message = said.message.unwrap();
    let why = "is forbidden: exceeded quota: few, requested: pods=1, used: pods=5, limited: pods=5";
    assert!(message.starts_with("pods \"web-") && message.ends_with(why), "{message}");
    assert_eq!(stuck.status.unwrap().available_replicas, Some(4));
    assert_eq!(all(&plane.api::<Pod>()).await.len(), 5);

    let before = revision(&plane).await;
    plane.until("2026-11-21T10:11:00Z").await;
    let written = revision(&plane).await - before;
    assert!(written < 60, "{written} writes in ten minutes");
    assert!(plane.reasons().await.contains(&"FailedCreate".to_string()));

    // With room it goes on by itself.
    let more = Patch::Merge(json!({"spec": {"hard": {"pods": "10"}}}));
    quotas.patch("few", &PatchParams::default(), &more).await.unwrap();
    let mut left = Some(said.status);
    for minute in 28..40 {
        plane.until(&format!("2026-11-21T10:{minute}:00Z")).await;
        ready(&plane).await;
        let now = deployments.get("web").await.unwrap();
        left = failure(&now).map(|c| c.status);
        let status = now.status.unwrap();
        if left.is_none() && status.updated_replicas == Some(4) && status.replicas == Some(4) {
            return;
        }
    }
    panic!("{left:?} {:?}", deployments.get("web").await.unwrap().status);
}

#[tokio::test(start_paused = true)]
async fn workloads_without_any_room_write_little() {
    let plane = Plane::start("2026-11-21T10:00:00Z").await;
    let nodes: Api<Node> = Api::all(plane.client("admin"));
    create(&nodes, json!({"metadata": {"name": "n1"}})).await;
    let quotas = plane.api::<ResourceQuota>();
    create(&quotas, json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}})).await;
    plane.until("2026-11-21T10:00:05Z").await;
    create(&plane.api::<ReplicaSet>(), workload("rs", json!({"replicas": 20}))).await;
    create(&plane.api::<StatefulSet>(), workload("sts", json!({"replicas": 20, "podManagementPolicy": "Parallel"})))
        .await;
    create(&plane.api::<DaemonSet>(), workload("ds", json!({}))).await;
    plane.until("2026-11-21T10:02:00Z").await;
    let before = revision(&plane).await;
    plane.until("2026-11-21T10:12:00Z").await;
    let written = revision(&plane).await - before;
    assert!(written < 180, "{written} writes in ten minutes");
    assert_eq!(all(&plane.api::<Pod>()).await.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_node_that_is_gone_have_failed_and_go() {
    let mut plane = Plane::start("2026-11-21T10:00:00Z").await;
    let nodes: Api<Node> = Api::all(plane.client("admin"));
    for name in ["stays", "goes", "returns"] {
        create(&nodes, json!({"metadata": {"name": name}})).await;
    }
    let pods = plane.api::<Pod>();
    for node in ["stays", "goes", "returns"] {
        let spec = json!({"nodeName": node, "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "c", "image": "i"}]});
        // Something of its own keeps each, so that its end can be seen.
        create(&pods, json!({"metadata": {"name": node, "finalizers": ["example.com/look"]}, "spec": spec})).await;
    }
    plane.until("2026-11-21T10:00:01Z").await;
    nodes.delete("goes", &DeleteParams::default()).await.unwrap();
    nodes.delete("returns", &DeleteParams::default()).await.unwrap();
    let phase = async |name: &str| {
        let pod = pods.get(name).await.unwrap();
        (pod.metadata.deletion_timestamp.is_some(), pod.status.unwrap().phase.unwrap())
    };
    plane.until("2026-11-21T10:00:35Z").await;
    assert_eq!(phase("goes").await, (false, "Pending".into()), "it may come back");
    create(&nodes, json!({"metadata": {"name": "returns"}})).await;
    plane.until("2026-11-21T10:01:45Z").await;
    assert_eq!(phase("goes").await, (true, "Failed".into()));
    let conditions = pods.get("goes").await.unwrap().status.unwrap().conditions.unwrap();
    let why = conditions.iter().find(|c| c.type_ == "DisruptionTarget").unwrap();
    assert_eq!((why.status.as_str(), why.reason.as_deref()), ("True", Some("DeletionByPodGC")));
    assert_eq!(why.message.as_deref(), Some("PodGC: node no longer exists"));
    for name in ["stays", "returns"] {
        assert_eq!(phase(name).await, (false, "Pending".into()), "{name}");
    }
    // What waits for a finalizer alone is not written again and again.
    let before = revision(&plane).await;
    plane.until("2026-11-21T10:06:00Z").await;
    assert_eq!(revision(&plane).await, before);

    // A control plane that starts later waits anew.
    plane.stop_controllers();
    nodes.delete("returns", &DeleteParams::default()).await.unwrap();
    plane.until("2026-11-21T10:20:00Z").await;
    plane.run_controllers();
    plane.until("2026-11-21T10:20:30Z").await;
    assert!(!phase("returns").await.0);
    plane.until("2026-11-21T10:21:30Z").await;
    assert_eq!(phase("returns").await, (true, "Failed".into()));
}

#[tokio::test(start_paused = true)]
async fn of_many_pods_that_ended_the_oldest_go() {
    let plane = Plane::start("2026-11-21T10:00:00Z").await;
    let pods = plane.api::<Pod>();
    let spec = json!({"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"});
    for n in 0..TERMINATED_PODS + 3 {
        let name = format!("p{n:02}");
        create(&pods, json!({"metadata": {"name": name}, "spec": spec})).await;
        let ended = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
        pods.patch_status(&name, &PatchParams::default(), &ended).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    plane.until("2026-11-21T10:01:00Z").await;
    let left: Vec<String> = all(&pods).await.into_iter().filter_map(|p| p.metadata.name).collect();
    assert_eq!((left.len(), left[0].as_str()), (TERMINATED_PODS, "p03"), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn owners_that_own_each_other_go_all_the_same() {
    let plane = Plane::start("2026-11-21T10:00:00Z").await;
    let maps = plane.api::<ConfigMap>();
    let mut minute = 0;
    for how in [DeleteParams::background(), DeleteParams::foreground()] {
        let mut uids = Vec::new();
        for name in ["a", "b"] {
            uids.push(create(&maps, json!({"metadata": {"name": name}})).await.metadata.uid.unwrap());
        }
        for (name, owner, uid) in [("a", "b", &uids[1]), ("b", "a", &uids[0])] {
            let reference =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": uid, "blockOwnerDeletion": true});
            let owners = Patch::Merge(json!({"metadata": {"ownerReferences": [reference]}}));
            maps.patch(name, &PatchParams::default(), &owners).await.unwrap();
        }
        minute += 1;
        plane.until(&format!("2026-11-21T10:{minute:02}:00Z")).await;
        maps.delete("a", &how).await.unwrap();
        plane.until(&format!("2026-11-21T10:{minute:02}:30Z")).await;
        let left: Vec<Option<String>> = all(&maps).await.into_iter().map(|m| m.metadata.name).collect();
        let ours = left.iter().flatten().filter(|n| n.len() == 1).count();
        assert_eq!(ours, 0, "{how:?}: {left:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_namespace_goes_page_by_page_and_waits_for_its_last_pod() {
    const PODS: usize = 30;
    let plane = Plane::start("2026-11-22T10:00:00Z").await;
    let namespaces: Api<Namespace> = Api::all(plane.client("admin"));
    create(&namespaces, json!({"metadata": {"name": "big"}})).await;
    plane.until("2026-11-22T10:00:02Z").await;
    let maps: Api<ConfigMap> = Api::namespaced(plane.client("admin"), "big");
    for i in 0..1100 {
        create(&maps, json!({"metadata": {"name": format!("m{i:04}")}})).await;
    }
    let pods: Api<Pod> = Api::namespaced(plane.client("admin"), "big");
    for i in 0..PODS {
        let spec = json!({"nodeName": "n1", "containers": [{"name": "c", "image": "i:1"}]});
        create(&pods, json!({"metadata": {"name": format!("p{i}")}, "spec": spec})).await;
    }
    plane.writes();
    namespaces.delete("big", &DeleteParams::default()).await.unwrap();
    plane.until("2026-11-22T10:00:12Z").await;
    assert_eq!(all(&pods).await.len(), PODS, "they wait for their node");
    assert!(all(&maps).await.is_empty());
    let writes = plane.writes();
    // 1,101 with the CA's, 500 at a time.
    assert_eq!(writes.get("DELETE /api/v1/namespaces/big/configmaps"), Some(&3), "{writes:#?}");

    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    for (i, pod) in all(&pods).await.iter().enumerate() {
        if i + 1 == PODS {
            // All but the last went: nobody asks for them again for each.
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            let writes = plane.writes();
            let asked = writes.get("DELETE /api/v1/namespaces/big/pods").copied().unwrap_or(0);
            assert!(asked < 3, "{writes:#?}");
        }
        pods.delete(pod.metadata.name.as_ref().unwrap(), &now).await.unwrap();
    }
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert!(namespaces.get_opt("big").await.unwrap().is_none(), "it went with its last pod");
}

#[tokio::test(start_paused = true)]
async fn owners_that_own_each_other_are_not_written_again_and_again() {
    let plane = Plane::start("2026-11-21T10:00:00Z").await;
    let maps = plane.api::<ConfigMap>();
    let names = async || -> Vec<String> {
        let names = all(&maps).await.into_iter().filter_map(|m| m.metadata.name);
        names.filter(|name| name.len() == 1).collect()
    };
    // Three in a circle, and one that owns itself.
    let mut uids = std::collections::BTreeMap::new();
    for name in ["a", "b", "c", "d"] {
        uids.insert(name, create(&maps, json!({"metadata": {"name": name}})).await.metadata.uid.unwrap());
    }
    for (name, owner) in [("a", "b"), ("b", "c"), ("c", "a"), ("d", "d")] {
        let reference = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": uids[owner],
            "blockOwnerDeletion": true});
        let owners = Patch::Merge(json!({"metadata": {"ownerReferences": [reference]}}));
        maps.patch(name, &PatchParams::default(), &owners).await.unwrap();
    }
    plane.until("2026-11-21T10:01:00Z").await;
    let before = revision(&plane).await;
    plane.until("2026-11-21T10:11:00Z").await;
    assert_eq!((revision(&plane).await, names().await.len()), (before, 4), "nobody asked for anything");

    // One of the circle is held back: the rest is done once, and then it waits in silence.
    let hold = |finalizers: Value| Patch::Merge(json!({"metadata": {"finalizers": finalizers}}));
    maps.patch("b", &PatchParams::default(), &hold(json!(["example.com/hold"]))).await.unwrap();
    let before = revision(&plane).await;
    for name in ["a", "d"] {
        maps.delete(name, &DeleteParams::foreground()).await.unwrap();
    }
    plane.until("2026-11-21T10:12:00Z").await;
    let written = revision(&plane).await - before;
    assert!(written <= 12, "{written} writes");
    assert!(names().await.contains(&"b".into()) && !names().await.contains(&"d".into()), "{:?}", names().await);
    let before = revision(&plane).await;
    plane.until("2026-11-21T10:22:00Z").await;
    assert_eq!(revision(&plane).await, before, "while it waits");
    maps.patch("b", &PatchParams::default(), &hold(Value::Null)).await.unwrap();
    plane.until("2026-11-21T10:23:00Z").await;
    assert_eq!(names().await, Vec::<String>::new());
}
