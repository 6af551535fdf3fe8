//! Rolling updates, restarts and crashes.

use copepod_tests::{Cluster, http, toolbox_pod, wait_for};

const WEB: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 4
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: IMAGE
        env: [{name: GREETING, value: VALUE}]
        ports: [{containerPort: 80}]
        readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, nodePort: 30090}]
";

fn web(image: &str, greeting: &str) -> String {
    WEB.replace("IMAGE", image).replace("VALUE", greeting)
}

#[test]
fn a_rolling_update_changes_every_replica_and_can_be_undone() {
    let cluster = Cluster::start();
    cluster.push("hello", "hello:1");
    cluster.push("hello", "hello:2");
    cluster.apply(&web("hello:1", "Hi"));
    cluster.rolled_out("web");
    cluster.ok("set image deployment/web web=hello:2");
    cluster.rolled_out("web");
    let images = cluster.ok("get pods -l app=web -o jsonpath={.items[*].spec.containers[0].image}");
    assert_eq!(images.split_whitespace().collect::<Vec<_>>(), ["hello:2"; 4]);
    assert_eq!(cluster.get("replicasets -l app=web")["items"].as_array().unwrap().len(), 2);
    cluster.ok("rollout undo deployment/web");
    cluster.rolled_out("web");
    let images = cluster.ok("get pods -l app=web -o jsonpath={.items[*].spec.containers[0].image}");
    assert!(!images.contains("hello:2"), "{images}");
    let authority = format!("{}:30090", cluster.node_ports);
    wait_for("an answer", || match http::get(&authority, "/") {
        Ok((200, body)) if body.starts_with("Hi from web-") => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn kill_9_in_mid_rollout_converges_after_the_restart() {
    let mut cluster = Cluster::start();
    cluster.push("hello", "hello:1");
    cluster.apply(&web("hello:1", "Old"));
    cluster.rolled_out("web");
    cluster.apply(&web("hello:1", "New"));
    // In the middle: the new ReplicaSet exists, the rollout is not over.
    cluster.until("replicasets -l app=web", "/items/1/metadata/name", |v| v.is_string());
    cluster.kill();
    cluster.boot();
    cluster.rolled_out("web");
    let authority = format!("{}:30090", cluster.node_ports);
    wait_for("only new replicas", || {
        let bodies: Vec<_> = (0..8).map(|_| http::get(&authority, "/")).collect();
        let all_new = bodies.iter().all(|b| matches!(b, Ok((200, body)) if body.starts_with("New from")));
        if all_new { Ok(()) } else { Err(format!("{bodies:?}")) }
    });
    assert_eq!(cluster.pods("app=web").len(), 4);
}

#[test]
fn a_restart_keeps_pods_under_their_uids_and_sigterm_exits_0() {
    let mut cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    cluster.apply(&toolbox_pod("keeper", &["sleep"], ""));
    cluster.until("pod keeper", "/status/phase", |v| *v == "Running");
    let before = cluster.get("pod keeper");
    assert!(cluster.terminate(), "SIGTERM must exit 0; log:\n{}", cluster.log());
    cluster.boot();
    let restarts = cluster.until("pod keeper", "/status/containerStatuses/0/restartCount", |v| v.as_i64() >= Some(1));
    assert_eq!(restarts, 1);
    cluster.until("pod keeper", "/status/containerStatuses/0/ready", |v| *v == true);
    let after = cluster.get("pod keeper");
    assert_eq!(before["metadata"]["uid"], after["metadata"]["uid"]);
    assert_eq!(before["status"]["podIP"], after["status"]["podIP"]);
}

#[test]
fn an_agent_that_dies_is_started_again() {
    let cluster = Cluster::start();
    cluster.until("node node-1", "/status/conditions/0/type", |v| v.is_string());
    let agent = wait_for("the agent process", || child_of(cluster.pid()).ok_or("no child".to_string()));
    // The server restarts an agent that dies.
    rustix::process::kill_process(rustix::process::Pid::from_raw(agent).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    wait_for("another agent", || match child_of(cluster.pid()) {
        Some(pid) if pid != agent => Ok(()),
        other => Err(format!("{other:?}")),
    });
    cluster.push("toolbox", "toolbox");
    cluster.apply(&toolbox_pod("after", &["sleep"], ""));
    cluster.until("pod after", "/status/phase", |v| *v == "Running");
}

/// The server's child process; the list of children is kept by the thread that started them.
fn child_of(pid: u32) -> Option<i32> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    threads.flatten().find_map(|t| {
        let children = std::fs::read_to_string(t.path().join("children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    })
}
