//! What only pods have: binding, grace, eviction, logs.

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn binding(node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": node}})
}

#[tokio::test]
async fn binding_assigns_once() {
    let s = Server::start().await;
    let made = s.post(PODS, &pod("p")).await.ok();
    assert_eq!((&made["spec"]["serviceAccountName"], &made["status"]["phase"]), (&json!("default"), &json!("Pending")));
    let mut bad = binding("n1");
    bad["target"] = json!({"kind": "Pod", "name": "x"});
    s.post(&format!("{PODS}/p/binding"), &bad).await.err(422);
    s.post(&format!("{PODS}/other/binding"), &binding("n1")).await.err(400);
    let done = s.post(&format!("{PODS}/p/binding"), &binding("n1")).await;
    assert_eq!((done.code, done.json()["status"].clone()), (201, json!("Success")));
    let bound = s.get(&format!("{PODS}/p")).await.ok();
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert!(
        bound["status"]["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .any(|c| c["type"] == "PodScheduled" && c["status"] == "True")
    );
    let twice = s.post("/api/v1/namespaces/default/bindings", &binding("n2")).await.err(409);
    assert_eq!(twice, "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n1\"");
    assert_eq!(
        s.get(&format!("{PODS}?fieldSelector=spec.nodeName%3Dn1")).await.ok()["items"].as_array().unwrap().len(),
        1
    );
    s.get("/api/v1/namespaces/default/bindings").await.err(405);
}

#[tokio::test]
async fn pods_end_gracefully() {
    let s = Server::start().await;
    s.post(PODS, &pod("p")).await.ok();
    let path = format!("{PODS}/p");
    // Nothing runs yet: gone at once.
    assert_eq!(s.delete(&path).await.ok()["kind"], "Pod");
    s.get(&path).await.err(404);

    s.post(PODS, &pod("p")).await.ok();
    s.post(&format!("{path}/binding"), &binding("n1")).await.ok();
    let going = s.delete(&path).await.ok();
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(going["metadata"]["deletionTimestamp"], "2026-01-01T00:00:30Z");
    // Again, or longer: nothing new. Shorter: sooner.
    let again = s.delete(&path).await.ok();
    let longer = s.delete(&format!("{path}?gracePeriodSeconds=60")).await.ok();
    assert_eq!((revision(&again), revision(&longer)), (revision(&going), revision(&going)));
    let sooner = s.delete_with(&path, &json!({"gracePeriodSeconds": 5})).await.ok();
    assert_eq!(sooner["metadata"]["deletionTimestamp"], "2026-01-01T00:00:05Z");
    s.patch(&format!("{path}/status"), "merge", &json!({"status": {"phase": "Running"}})).await.ok();
    s.get(&path).await.ok();
    // The node is done.
    s.delete_with(&path, &json!({"gracePeriodSeconds": 0, "preconditions": {"uid": sooner["metadata"]["uid"]}}))
        .await
        .ok();
    s.get(&path).await.err(404);

    s.post(PODS, &pod("p")).await.ok();
    s.post(&format!("{path}/binding"), &binding("n1")).await.ok();
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"},
        "deleteOptions": {"gracePeriodSeconds": 7}});
    assert_eq!(s.post(&format!("{path}/eviction"), &eviction).await.code, 201);
    assert_eq!(s.get(&path).await.ok()["metadata"]["deletionGracePeriodSeconds"], 7);
}

/// A node that answers every request with its own request line, or refuses.
struct Echo;

#[async_trait]
impl NodeDialer for Echo {
    async fn dial(&self, node: &str) -> Result<Box<dyn NodeStream>, DialError> {
        if node == "gone" {
            return Err(DialError::NotConnected(node.into()));
        }
        let (near, mut far) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            let (mut head, mut byte) = (Vec::new(), [0u8]);
            while !head.ends_with(b"\r\n\r\n") && far.read(&mut byte).await.unwrap_or(0) > 0 {
                head.push(byte[0]);
            }
            let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_string();
            if line.contains("/mute/") {
                return std::future::pending().await;
            }
            let (code, body) = if line.contains("/waiting/") {
                (
                    "400 Bad Request",
                    "container \"c\" in pod \"waiting\" is waiting to start: ContainerCreating".to_string(),
                )
            } else {
                ("200 OK", line)
            };
            let answer = format!("HTTP/1.1 {code}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = far.write_all(answer.as_bytes()).await;
        });
        Ok(Box::new(near))
    }
}

#[tokio::test]
async fn logs_come_from_the_node() {
    let s = Server::with(kinds::builtin(), Arc::new(Echo)).await;
    for (name, node) in [("p", "n1"), ("waiting", "n1"), ("cut", "gone"), ("unbound", "")] {
        let mut object = pod(name);
        if !node.is_empty() {
            object["spec"]["nodeName"] = json!(node);
        }
        s.post(PODS, &object).await.ok();
    }
    let log = s.get(&format!("{PODS}/p/log?follow=true&tailLines=5&sinceTime=2026-01-01T00:00:00%2B01:00")).await;
    assert_eq!((log.code, log.headers["content-type"].to_str().unwrap()), (200, "text/plain"));
    assert_eq!(
        log.text(),
        "GET /containerLogs/default/p/c?follow=true&sinceTime=2026-01-01T00%3A00%3A00%2B01%3A00&tailLines=5 HTTP/1.1"
    );
    assert_eq!(
        s.get(&format!("{PODS}/waiting/log")).await.err(400),
        "container \"c\" in pod \"waiting\" is waiting to start: ContainerCreating"
    );
    assert!(s.get(&format!("{PODS}/cut/log")).await.err(503).contains("node gone is not connected"));
    assert_eq!(s.get(&format!("{PODS}/unbound/log")).await.text(), "");
    assert_eq!(s.get(&format!("{PODS}/p/log?container=x")).await.err(400), "container x is not valid for pod p");
    s.get(&format!("{PODS}/p/log?tailLines=-1")).await.err(422);
    s.get(&format!("{PODS}/none/log")).await.err(404);
}

#[tokio::test]
async fn a_node_that_never_answers_is_given_up() {
    let s = Server::with(kinds::builtin(), Arc::new(Echo)).await;
    let mut object = pod("mute");
    object["spec"]["nodeName"] = json!("n1");
    s.post(PODS, &object).await.ok();
    tokio::time::pause();
    assert!(s.get(&format!("{PODS}/mute/log")).await.err(503).contains("node n1 gave no answer within 15 s"));
}

#[tokio::test]
async fn connections_are_refused_with_a_reason() {
    let s = Server::start().await;
    let mut bound = pod("p");
    bound["spec"]["nodeName"] = json!("n1");
    s.post(PODS, &bound).await.ok();
    s.post(PODS, &pod("unbound")).await.ok();
    s.post("/api/v1/nodes", &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}})).await.ok();
    for (path, code, words) in [
        ("pods/p/exec?command=ls", 503, "node n1 is not connected"),
        ("pods/p/exec?container=x&command=ls", 400, "container x is not valid for pod p"),
        ("pods/p/attach", 503, "node n1 is not connected"),
        ("pods/p/portforward", 501, "portforward of pods"),
        ("pods/unbound/exec", 400, "pod unbound does not have a host assigned"),
        ("pods/none/exec", 404, "pods \"none\" not found"),
        ("pods/p/proxy", 501, "proxy of pods"),
        ("pods/p:80/proxy/a/b", 501, "proxy of pods"),
        ("services/kubernetes/proxy/", 404, "services \"kubernetes\" not found"),
    ] {
        let path = format!("/api/v1/namespaces/default/{path}");
        for answer in [s.get(&path).await, s.post(&path, &json!({})).await] {
            assert!(answer.err(code).contains(words), "{path}");
        }
    }
    assert!(s.get("/api/v1/nodes/n1/proxy/healthz").await.err(501).contains("proxy of nodes"));
}

#[tokio::test]
async fn ephemeral_containers_and_resources_have_their_own_subresources() {
    let s = Server::start().await;
    s.post(PODS, &pod("p")).await.ok();
    let path = format!("{PODS}/p");
    let add = json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "debug:1", "targetContainerName": "c"}]}});
    assert!(s.patch(&path, "strategic-merge", &add).await.err(422).contains("spec.ephemeralContainers"));
    let added = s.patch(&format!("{path}/ephemeralcontainers"), "strategic-merge", &add).await.ok();
    assert_eq!(added.pointer("/spec/ephemeralContainers/0/name"), Some(&json!("d")));
    let mut whole = added.clone();
    whole["spec"]["ephemeralContainers"] = json!([]);
    let removed = s.put(&format!("{path}/ephemeralcontainers"), &whole).await.err(422);
    assert!(removed.contains("may not be removed"), "{removed}");
    whole["spec"] = added["spec"].clone();
    whole["metadata"]["resourceVersion"] = json!("1");
    s.put(&format!("{path}/ephemeralcontainers"), &whole).await.err(409);

    let mut sized = pod("sized");
    sized["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "1"}});
    s.post(PODS, &sized).await.ok();
    let grow =
        json!({"spec": {"containers": [{"name": "c", "image": "ignored", "resources": {"requests": {"cpu": "2"}}}]}});
    let grown = s.patch(&format!("{PODS}/sized/resize"), "strategic-merge", &grow).await.ok();
    let container = &grown["spec"]["containers"][0];
    assert_eq!(
        (&container["resources"]["requests"]["cpu"], &container["image"]),
        (&json!("2"), &sized["spec"]["containers"][0]["image"])
    );
    assert_eq!(grown["metadata"]["generation"], 2);
}
