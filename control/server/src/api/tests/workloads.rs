//! Kinds whose rules meet the generic code in more than one place: identities given by the server, two versions of one
//! object, a selector that is a map.

use super::*;

const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";

fn template(restart: &str) -> Value {
    json!({"metadata": {"labels": {"app": "web"}},
        "spec": {"restartPolicy": restart, "containers": [{"name": "web", "image": "web:1"}]}})
}

#[tokio::test]
async fn jobs_select_by_their_uid() {
    let s = Server::start().await;
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "pi"},
        "spec": {"template": template("Never")}});
    let made = s.post(JOBS, &job).await.ok();
    let uid = made["metadata"]["uid"].as_str().unwrap();
    assert_eq!(made["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}));
    assert_eq!(made["metadata"]["generation"], 1);
    let path = format!("{JOBS}/pi");
    let changed = s.patch(&path, "merge", &json!({"spec": {"suspend": true}})).await.ok();
    assert_eq!(changed["metadata"]["generation"], 2);
    let done = json!({"status": {"succeeded": 1, "startTime": "2026-01-01T00:00:00Z"}});
    s.patch(&format!("{path}/status"), "merge", &done).await.ok();
    let found = s.get(&format!("{JOBS}?fieldSelector=status.successful%3D1")).await.ok();
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    let refused = s.patch(&path, "merge", &json!({"spec": {"completions": 5}})).await.err(422);
    assert_eq!(refused, "Job.batch \"pi\" is invalid: spec.completions: Invalid value: 5: field is immutable");
}

#[tokio::test]
async fn jobs_leave_their_pods_unless_told() {
    let s = Server::start().await;
    let job = |name: &str| {
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
        "spec": {"template": template("Never")}})
    };
    s.post(JOBS, &job("kept")).await.ok();
    s.delete(&format!("{JOBS}/kept")).await.ok();
    let kept = s.get(&format!("{JOBS}/kept")).await.ok();
    assert_eq!(kept["metadata"]["finalizers"], json!(["orphan"]), "the garbage collector takes it from here");
    s.post(JOBS, &job("gone")).await.ok();
    s.delete(&format!("{JOBS}/gone?propagationPolicy=Background")).await.ok();
    s.get(&format!("{JOBS}/gone")).await.err(404);
}

#[tokio::test]
async fn one_autoscaler_in_two_versions() {
    let s = Server::start().await;
    let old = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    let new = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    assert_eq!(s.get("/apis/autoscaling").await.ok()["preferredVersion"]["version"], "v2");
    let made = json!({"apiVersion": "autoscaling/v1", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
        "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 60,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}});
    assert_eq!(s.post(old, &made).await.ok()["spec"]["targetCPUUtilizationPercentage"], 60);
    let shown = s.get(&format!("{new}/web")).await.ok();
    assert_eq!(shown["apiVersion"], "autoscaling/v2");
    assert_eq!(shown.pointer("/spec/metrics/0/resource/target/averageUtilization"), Some(&json!(60)));
    let pods = json!({"type": "Pods", "pods": {"metric": {"name": "m"},
        "target": {"type": "AverageValue", "averageValue": "1k"}}});
    let both = json!({"spec": {"metrics": [shown["spec"]["metrics"][0], pods]}});
    s.patch(&format!("{new}/web"), "merge", &both).await.ok();
    s.patch(&format!("{old}/web"), "merge", &json!({"spec": {"maxReplicas": 9}})).await.ok();
    s.patch(&format!("{old}/web/status"), "merge", &json!({"status": {"currentReplicas": 2}})).await.ok();
    let shown = s.get(&format!("{new}/web")).await.ok();
    assert_eq!(shown["spec"]["metrics"][1], pods, "a client of v1 left it in place");
    assert_eq!((&shown["spec"]["maxReplicas"], &shown["status"]["currentReplicas"]), (&json!(9), &json!(2)));
    assert_eq!(shown["metadata"].get("annotations"), None);
    let listed = s.get(old).await.ok();
    assert_eq!(listed["items"][0]["spec"]["targetCPUUtilizationPercentage"], 60);
}

#[tokio::test]
async fn a_scale_of_plain_labels() {
    let s = Server::start().await;
    let path = "/api/v1/namespaces/default/replicationcontrollers";
    let controller = json!({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "template": template("Always")}});
    s.post(path, &controller).await.ok();
    let scale = s.get(&format!("{path}/web/scale")).await.ok();
    assert_eq!((&scale["spec"]["replicas"], &scale["status"]["selector"]), (&json!(2), &json!("app=web")));
    let more = s.patch(&format!("{path}/web/scale"), "merge", &json!({"spec": {"replicas": 5}})).await.ok();
    assert_eq!(more["spec"]["replicas"], 5);
    let sets = "/apis/apps/v1/namespaces/default/statefulsets";
    let set = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": template("Always")}});
    s.post(sets, &set).await.ok();
    assert_eq!(s.get(&format!("{sets}/db/scale")).await.ok()["status"]["selector"], "app=web");
    let refused = s.patch(&format!("{sets}/db"), "merge", &json!({"spec": {"serviceName": "x"}})).await.err(422);
    assert!(refused.contains("updates to statefulset spec for fields other than"), "{refused}");
}
