//! Evictions and the budgets that guard pods from them.

use super::*;

const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

fn eviction(pod: &str, options: Value) -> Value {
    json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}, "deleteOptions": options})
}

/// A pod on a node, running and ready.
async fn run(s: &Server, name: &str) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "a"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    s.post(PODS, &pod).await.ok();
    set_ready(s, name, "True").await;
}

async fn set_ready(s: &Server, pod: &str, ready: &str) {
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}});
    s.patch(&format!("{PODS}/{pod}/status"), "strategic-merge", &status).await.ok();
}

async fn guard(s: &Server, name: &str, spec: Value, status: Value) {
    let mut spec = spec;
    spec["selector"] = json!({"matchLabels": {"app": "a"}});
    let budget =
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name}, "spec": spec});
    s.post(BUDGETS, &budget).await.ok();
    s.patch(&format!("{BUDGETS}/{name}/status"), "merge", &json!({"status": status})).await.ok();
}

async fn evict(s: &Server, pod: &str) -> Answer {
    s.post(&format!("{PODS}/{pod}/eviction"), &eviction(pod, json!({}))).await
}

async fn is_going(s: &Server, pod: &str) -> bool {
    s.get(&format!("{PODS}/{pod}")).await.ok()["metadata"].get("deletionTimestamp").is_some()
}

#[tokio::test]
async fn a_budget_gives_its_disruptions_and_no_more() {
    let s = Server::start().await;
    for name in ["p", "q"] {
        run(&s, name).await;
    }
    let status = json!({"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 2, "expectedPods": 2});
    guard(&s, "b", json!({"minAvailable": 1}), status).await;

    let dry = s.post(&format!("{PODS}/p/eviction?dryRun=All"), &eviction("p", json!({}))).await;
    assert_eq!((dry.code, is_going(&s, "p").await), (201, false));
    let dry = s.post(&format!("{PODS}/p/eviction"), &eviction("p", json!({"dryRun": ["All"]}))).await;
    assert_eq!((dry.code, is_going(&s, "p").await), (201, false));
    assert_eq!(s.get(&format!("{BUDGETS}/b")).await.ok()["status"]["disruptionsAllowed"], 1);

    let path = format!("{PODS}/p/eviction");
    let other = json!({"preconditions": {"uid": "other"}});
    let conflict = s.post(&path, &eviction("p", other)).await.err(409);
    assert!(conflict.contains("the UID in the precondition (other) does not match"), "{conflict}");
    assert_eq!(
        s.post(&path, &eviction("q", json!({}))).await.err(400),
        "name in URL does not match name in Eviction object"
    );
    let done = s.post(&path, &eviction("p", json!({"gracePeriodSeconds": 7}))).await;
    assert_eq!(
        (done.code, done.json()),
        (201, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}))
    );
    let pod = s.get(&format!("{PODS}/p")).await.ok();
    assert_eq!(pod["metadata"]["deletionGracePeriodSeconds"], 7);
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    let marked = conditions.iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    assert_eq!((&marked["status"], &marked["reason"]), (&json!("True"), &json!("EvictionByEvictionAPI")));
    let budget = s.get(&format!("{BUDGETS}/b")).await.ok();
    assert_eq!(budget["status"]["disruptionsAllowed"], 0);
    assert_eq!(budget["status"]["disruptedPods"], json!({"p": "2026-01-01T00:00:00Z"}));
    assert_eq!(budget["metadata"]["generation"], 1);
    let managers = budget["metadata"]["managedFields"].as_array().unwrap();
    assert!(managers.iter().any(|m| m["manager"] == "kube-apiserver" && m["subresource"] == "status"), "{managers:?}");

    let refused = evict(&s, "q").await;
    assert!(refused.headers.get("retry-after").is_none());
    let body = refused.json();
    assert_eq!(
        (refused.code, &body["reason"], &body["message"]),
        (429, &json!("TooManyRequests"), &json!("Cannot evict pod as it would violate the pod's disruption budget."))
    );
    assert_eq!(
        body["details"],
        json!({"causes": [{"reason": "DisruptionBudget",
            "message": "The disruption budget b needs 2 healthy pods and has 2 currently"}]})
    );
    assert!(!is_going(&s, "q").await);
    // Again, though the budget is spent: it is going already.
    assert_eq!(evict(&s, "p").await.code, 201);
}

#[tokio::test]
async fn a_status_behind_its_spec_is_waited_for() {
    let s = Server::start().await;
    run(&s, "p").await;
    guard(&s, "b", json!({"maxUnavailable": 1}), json!({"disruptionsAllowed": 1})).await;
    let refused = evict(&s, "p").await;
    assert_eq!((refused.code, refused.headers["retry-after"].to_str().unwrap()), (429, "10"));
    let causes = &refused.json()["details"]["causes"];
    assert_eq!(causes[0]["message"], "The disruption budget b is still being processed by the server.");
    set_ready(&s, "p", "False").await;
    s.patch(&format!("{BUDGETS}/b"), "merge", &json!({"spec": {"unhealthyPodEvictionPolicy": "AlwaysAllow"}}))
        .await
        .ok();
    assert_eq!(evict(&s, "p").await.code, 201);
    assert!(is_going(&s, "p").await);
    assert_eq!(s.get(&format!("{BUDGETS}/b")).await.ok()["status"]["disruptionsAllowed"], 1);
}

#[tokio::test]
async fn two_budgets_are_one_too_many() {
    let s = Server::start().await;
    run(&s, "p").await;
    for name in ["b", "c"] {
        guard(&s, name, json!({"maxUnavailable": 1}), json!({"observedGeneration": 1, "disruptionsAllowed": 1})).await;
    }
    let refused = evict(&s, "p").await;
    assert!(refused.json().get("reason").is_none());
    assert_eq!(
        refused.err(500),
        "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
    );
    // A pod that does not run yet is guarded by none.
    s.patch(&format!("{PODS}/p/status"), "merge", &json!({"status": {"phase": "Pending"}})).await.ok();
    assert_eq!(evict(&s, "p").await.code, 201);
    assert!(is_going(&s, "p").await);
    evict(&s, "none").await.err(404);
}

#[tokio::test]
async fn evictions_at_once_share_one_budget() {
    let s = Server::start().await;
    let names: Vec<String> = (0..8).map(|n| format!("p{n}")).collect();
    for name in &names {
        run(&s, name).await;
    }
    let status = json!({"observedGeneration": 1, "disruptionsAllowed": 3, "currentHealthy": 8, "desiredHealthy": 5});
    guard(&s, "b", json!({"minAvailable": 5}), status).await;
    let answers = futures::future::join_all(names.iter().map(|name| evict(&s, name))).await;
    let codes: Vec<u16> = answers.iter().map(|a| a.code).collect();
    assert_eq!(codes.iter().filter(|c| **c == 201).count(), 3, "{codes:?}");
    assert_eq!(codes.iter().filter(|c| **c == 429).count(), 5, "{codes:?}");
}
