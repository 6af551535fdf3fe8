//! metrics.k8s.io over nodes that answer, and over nodes that do not.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const NODES: &str = "/apis/metrics.k8s.io/v1beta1/nodes";
const PODS: &str = "/apis/metrics.k8s.io/v1beta1/pods";
const IN_DEFAULT: &str = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods";

/// `n1` answers, `mute` never does, `odd` answers nonsense, all others are not connected.
#[derive(Default)]
struct Nodes {
    asked: AtomicUsize,
}

fn stats(name: &str, nano_cores: Option<u64>, bytes: u64) -> Value {
    let time = "2026-01-01T00:00:01.5Z";
    let mut stats = json!({"name": name, "cpu": {"time": time, "usageCoreNanoSeconds": 5},
        "memory": {"time": time, "workingSetBytes": bytes}});
    if let Some(nano_cores) = nano_cores {
        stats["cpu"]["usageNanoCores"] = json!(nano_cores);
        stats["cpu"]["windowNanoSeconds"] = json!(12_500_000_000_u64);
    }
    stats
}

fn summary() -> String {
    let pod = |name: &str, containers: Value| json!({"podRef": {"name": name, "namespace": "default", "uid": "u"}, "containers": containers});
    let two = json!([stats("a", Some(250_000_000), 1 << 20), stats("b", Some(1), 1 << 10)]);
    let new = json!([stats("a", Some(5), 5), stats("b", None, 5)]);
    let pods =
        [pod("web", two), pod("new", new), pod("idle", json!([])), pod("other", json!([stats("a", Some(7), 7)]))];
    json!({"node": stats("", Some(1_500_000_000), 2 << 30), "pods": pods}).to_string()
}

#[async_trait]
impl NodeDialer for Nodes {
    async fn dial(&self, node: &str) -> Result<Box<dyn NodeStream>, DialError> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let body = match node {
            "n1" => summary(),
            "odd" => "nonsense".into(),
            "mute" => String::new(),
            other => return Err(DialError::NotConnected(other.into())),
        };
        let (near, mut far) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            let (mut head, mut byte) = (Vec::new(), [0u8]);
            while !head.ends_with(b"\r\n\r\n") && far.read(&mut byte).await.unwrap_or(0) > 0 {
                head.push(byte[0]);
            }
            assert!(head.starts_with(b"GET /stats/summary HTTP/1.1\r\n"));
            if body.is_empty() {
                return std::future::pending().await;
            }
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = far.write_all(answer.as_bytes()).await;
        });
        Ok(Box::new(near))
    }
}

async fn cluster() -> (Server, Arc<Nodes>) {
    let nodes = Arc::new(Nodes::default());
    let s = Server::with(kinds::builtin(), nodes.clone()).await;
    for (name, zone) in [("n1", "a"), ("odd", "b"), ("mute", "b"), ("gone", "b")] {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"zone": zone}}});
        s.post("/api/v1/nodes", &node).await.ok();
    }
    for (name, node, phase) in [
        ("web", "n1", "Running"),
        ("new", "n1", "Running"),
        ("idle", "n1", "Running"),
        ("other", "n1", "Succeeded"),
        ("mute", "mute", "Running"),
        ("unbound", "", "Pending"),
    ] {
        let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"containers": [{"name": "a", "image": "i"}]}});
        if !node.is_empty() {
            pod["spec"]["nodeName"] = json!(node);
        }
        s.post("/api/v1/namespaces/default/pods", &pod).await.ok();
        let status = json!({"status": {"phase": phase}});
        s.patch(&format!("/api/v1/namespaces/default/pods/{name}/status"), "merge", &status).await.ok();
    }
    (s, nodes)
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().unwrap().iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_is_used_is_gathered_from_those_who_answer() {
    let (s, nodes) = cluster().await;
    let list = s.get(NODES).await.ok();
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("NodeMetricsList"), &json!("metrics.k8s.io/v1beta1")));
    assert_eq!(names(&list), ["n1"]);
    assert_eq!(nodes.asked.load(Ordering::Relaxed), 4);
    let one = s.get(&format!("{NODES}/n1")).await.ok();
    assert_eq!(
        one,
        json!({"apiVersion": "metrics.k8s.io/v1beta1", "kind": "NodeMetrics",
            "metadata": {"name": "n1", "labels": {"zone": "a"}, "creationTimestamp": "2026-01-01T00:00:01Z"},
            "timestamp": "2026-01-01T00:00:01Z", "window": "12.5s", "usage": {"cpu": "1500m", "memory": "2Gi"}})
    );
    let pods = s.get(IN_DEFAULT).await.ok();
    assert_eq!((names(&pods), &pods["kind"]), (vec!["web"], &json!("PodMetricsList")));
    assert_eq!(
        pods["items"][0]["containers"],
        json!([{"name": "a", "usage": {"cpu": "250m", "memory": "1Mi"}}, {"name": "b", "usage": {"cpu": "1n", "memory": "1Ki"}}])
    );
    assert_eq!(nodes.asked.load(Ordering::Relaxed), 4, "answers, and that there are none, hold for a moment");
    assert_eq!(names(&s.get(PODS).await.ok()), ["web"]);
    assert_eq!(s.get(&format!("{IN_DEFAULT}/web")).await.ok()["metadata"]["namespace"], "default");

    for (path, expected) in [
        (format!("{NODES}?labelSelector=zone%3Da"), vec!["n1"]),
        (format!("{NODES}?labelSelector=zone%3Db"), vec![]),
        (format!("{NODES}?fieldSelector=metadata.name%3Dn1"), vec!["n1"]),
        (format!("{IN_DEFAULT}?labelSelector=app%3Dweb"), vec!["web"]),
        (format!("{IN_DEFAULT}?labelSelector=app%3Dnew"), vec![]),
        (format!("{PODS}?fieldSelector=metadata.namespace%3Ddefault"), vec!["web"]),
        ("/apis/metrics.k8s.io/v1beta1/namespaces/none/pods".into(), vec![]),
    ] {
        assert_eq!(names(&s.get(&path).await.ok()), expected, "{path}");
    }
    for (path, code, why) in [
        (format!("{NODES}/mute"), 404, "nodemetrics.metrics.k8s.io \"mute\" not found"),
        (format!("{NODES}/none"), 404, "nodes \"none\" not found"),
        (format!("{IN_DEFAULT}/new"), 404, "podmetrics.metrics.k8s.io \"default/new\" not found"),
        (format!("{IN_DEFAULT}/none"), 404, "pods \"none\" not found"),
        (format!("{PODS}?fieldSelector=spec.nodeName%3Dn1"), 400, "\"spec.nodeName\" is not a known field selector"),
    ] {
        let message = s.get(&path).await.err(code);
        assert!(message.starts_with(why), "{path}: {message}");
    }
    s.delete(&format!("{NODES}/n1")).await.err(405);
    s.get(&format!("{NODES}?watch=true")).await.err(405);

    tokio::time::sleep(Duration::from_secs(6)).await;
    s.get(&format!("{NODES}/n1")).await.ok();
    assert_eq!(nodes.asked.load(Ordering::Relaxed), 5, "an old answer is asked for anew");
}

#[tokio::test(start_paused = true)]
async fn clients_who_ask_at_once_wait_for_one_answer() {
    let (s, nodes) = cluster().await;
    let path = format!("{IN_DEFAULT}?labelSelector=app%3Dmute");
    let started = tokio::time::Instant::now();
    let lists = futures::future::join_all((0..20).map(|_| s.get(&path))).await;
    assert!(lists.iter().all(|list| names(&list.ok()).is_empty()));
    assert_eq!(nodes.asked.load(Ordering::Relaxed), 1);
    assert!(started.elapsed() < Duration::from_secs(4), "a mute node holds nobody up for long");
}

#[tokio::test]
async fn the_group_is_found_as_an_aggregated_one() {
    let (s, _) = cluster().await;
    let groups = s.get("/apis").await.ok();
    let group = groups["groups"].as_array().unwrap().iter().find(|g| g["name"] == "metrics.k8s.io").unwrap();
    assert_eq!(group["preferredVersion"], json!({"groupVersion": "metrics.k8s.io/v1beta1", "version": "v1beta1"}));
    let resources = s.get("/apis/metrics.k8s.io/v1beta1").await.ok();
    let told: Vec<String> = (resources["resources"].as_array().unwrap().iter())
        .map(|r| format!("{} {} {} {}", r["name"], r["kind"], r["namespaced"], r["verbs"]))
        .collect();
    assert_eq!(told, [r#""nodes" "NodeMetrics" false ["get","list"]"#, r#""pods" "PodMetrics" true ["get","list"]"#]);
    let table =
        s.get_as(&format!("{PODS}?labelSelector=app%3Dweb"), "application/json;as=Table;v=v1;g=meta.k8s.io").await.ok();
    let columns: Vec<&Value> = table["columnDefinitions"].as_array().unwrap().iter().map(|c| &c["name"]).collect();
    assert_eq!(columns, ["Name", "CPU", "Memory", "Window"]);
    assert_eq!(table["rows"][0]["cells"], json!(["web", "250000001n", "1025Ki", "12.5s"]));
    let document = s.get("/openapi/v3/apis/metrics.k8s.io/v1beta1").await.ok();
    assert!(document["components"]["schemas"].get("io.k8s.metrics.v1beta1.PodMetricsList").is_some());
}
