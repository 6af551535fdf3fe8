//! A Deployment's life with stock kubectl: broken images, undoing, pausing, and every verb that makes a revision.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use copepod_tests::{Cluster, PATIENCE, http, wait_for};
use serde_json::Value;

const WEB: &str = "apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, nodePort: 30080}]
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  annotations: {kubernetes.io/change-cause: the-first}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: hello:1
        ports: [{containerPort: 80}]
        readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}
";

fn start() -> Cluster {
    let cluster = Cluster::start();
    cluster.push("hello", "hello:1");
    cluster.push("hello", "hello:2");
    cluster.apply(WEB);
    cluster.rolled_out("web");
    cluster
}

/// Someone who asks the Service again and again.
struct Visitor {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    thread: JoinHandle<Vec<String>>,
}

impl Visitor {
    fn start(authority: String) -> Self {
        let (stop, answers): (Arc<AtomicBool>, Arc<AtomicUsize>) = Default::default();
        let (stopped, counted) = (stop.clone(), answers.clone());
        let thread = std::thread::spawn(move || {
            let mut failures = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                match http::get(&authority, "/") {
                    Ok((200, body)) if body.contains("Hello from web-") => {
                        counted.fetch_add(1, Ordering::Relaxed);
                    }
                    other => failures.push(format!("{other:?}")),
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            failures
        });
        Self { stop, answers, thread }
    }

    /// How often it was answered; there must have been nothing else.
    fn answered(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.thread.join().unwrap();
        assert!(failures.is_empty(), "{failures:?}");
        self.answers.load(Ordering::Relaxed)
    }
}

/// The images of all pods, sorted.
fn images(cluster: &Cluster) -> Vec<String> {
    let images = cluster.ok("get pods -l app=web -o jsonpath={.items[*].spec.containers[0].image}");
    let mut images: Vec<String> = images.split_whitespace().map(str::to_string).collect();
    images.sort();
    images
}

fn uids(cluster: &Cluster) -> Vec<Value> {
    let pods = cluster.get("pods -l app=web");
    pods["items"].as_array().unwrap().iter().map(|p| p["metadata"]["uid"].clone()).collect()
}

fn container(cluster: &Cluster) -> Value {
    cluster.get("deployment web").pointer("/spec/template/spec/containers/0").cloned().unwrap()
}

/// The revisions and causes that `rollout history` lists.
fn history(cluster: &Cluster) -> Vec<(String, String)> {
    let table = cluster.ok("rollout history deployment/web");
    let rows = table.lines().filter_map(|line| line.split_once(char::is_whitespace));
    let rows = rows.filter(|(revision, _)| revision.parse::<u32>().is_ok());
    rows.map(|(revision, cause)| (revision.into(), cause.trim().into())).collect()
}

#[test]
fn a_broken_image_stalls_harms_nothing_and_is_undone() {
    let cluster = start();
    let before = uids(&cluster);
    let authority = format!("{}:30080", cluster.node_ports);
    wait_for("the node port", || match http::get(&authority, "/") {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let visitor = Visitor::start(authority);

    let deadline = |seconds: u32| {
        cluster.ok(&format!("patch deployment web -p {{\"spec\":{{\"progressDeadlineSeconds\":{seconds}}}}}"))
    };
    deadline(3);
    cluster.ok("set image deployment/web web=nowhere:9");
    cluster.ok("annotate deployment/web kubernetes.io/change-cause=the-mistake --overwrite");
    let stalled = cluster.k(&format!("rollout status deployment/web --timeout={}s", PATIENCE.as_secs()));
    assert!(!stalled.ok, "{}", stalled.out);
    assert!(
        stalled.err.contains("deployment \"web\" exceeded its progress deadline"),
        "{}{}",
        stalled.out,
        stalled.err
    );
    let status = cluster.get("deployment web")["status"].clone();
    let conditions = status["conditions"].as_array().unwrap();
    let progress = conditions.iter().find(|c| c["type"] == "Progressing").unwrap();
    assert_eq!((&progress["status"], &progress["reason"]), (&"False".into(), &"ProgressDeadlineExceeded".into()));
    let message = progress["message"].as_str().unwrap();
    assert!(
        message.starts_with("ReplicaSet \"web-") && message.ends_with("\" has timed out progressing."),
        "{message}"
    );

    // One pod more, that waits and says why; the others are as they were.
    assert_eq!(images(&cluster), ["hello:1", "hello:1", "hello:1", "nowhere:9"]);
    assert!(before.iter().all(|uid| uids(&cluster).contains(uid)), "{before:?}");
    assert_eq!((&status["availableReplicas"], &status["updatedReplicas"]), (&3.into(), &1.into()), "{status}");
    wait_for("the reason", || {
        let table = cluster.ok("get pods -l app=web");
        if table.contains("ImagePullBackOff") || table.contains("ErrImagePull") { Ok(()) } else { Err(table) }
    });
    let broken = cluster.ok("rollout history deployment/web --revision=2");
    assert!(broken.contains("nowhere:9") && broken.contains("the-mistake"), "{broken}");

    deadline(600);
    let undone = cluster.ok("rollout undo deployment/web");
    assert!(undone.contains("deployment.apps/web rolled back"), "{undone}");
    cluster.rolled_out("web");
    wait_for("the old pods alone", || match images(&cluster) {
        images if images == ["hello:1"; 3] => Ok(()),
        images => Err(format!("{images:?}")),
    });
    assert!(before.iter().all(|uid| uids(&cluster).contains(uid)), "nobody was replaced");
    // The revision that came back is a new one, with its cause.
    let causes = history(&cluster);
    assert_eq!(causes, [("2".into(), "the-mistake".into()), ("3".into(), "the-first".into())]);
    assert!(visitor.answered() > 50);
}

#[test]
fn revisions_come_from_every_verb_and_go_back_to_any() {
    let cluster = start();
    cluster.ok("set env deployment/web MODE=fast");
    cluster.rolled_out("web");
    assert_eq!(container(&cluster)["env"][0]["value"], "fast");
    cluster.ok("set resources deployment/web --requests=cpu=1m --limits=memory=64Mi");
    cluster.rolled_out("web");
    assert_eq!(container(&cluster)["resources"]["limits"]["memory"], "64Mi");

    let before = uids(&cluster);
    let restarted = cluster.ok("rollout restart deployment/web");
    assert!(restarted.contains("deployment.apps/web restarted"), "{restarted}");
    cluster.rolled_out("web");
    wait_for("new pods alone", || match uids(&cluster) {
        now if now.len() == 3 && now.iter().all(|uid| !before.contains(uid)) => Ok(()),
        now => Err(format!("{now:?}")),
    });
    let revisions: Vec<String> = history(&cluster).into_iter().map(|(revision, _)| revision).collect();
    assert_eq!(revisions, ["1", "2", "3", "4"]);

    cluster.ok("rollout undo deployment/web --to-revision=2");
    cluster.rolled_out("web");
    let back = container(&cluster);
    assert_eq!((&back["env"][0]["value"], &back["resources"]["limits"]), (&"fast".into(), &Value::Null), "{back}");
    let revisions: Vec<String> = history(&cluster).into_iter().map(|(revision, _)| revision).collect();
    assert_eq!(revisions, ["1", "3", "4", "5"]);
    let none = cluster.k("rollout undo deployment/web --to-revision=2");
    assert!(!none.ok && none.err.contains("unable to find specified revision 2 in history"), "{}", none.err);

    // Paused, changes gather and make one revision.
    let paused = cluster.ok("rollout pause deployment/web");
    assert!(paused.contains("deployment.apps/web paused"), "{paused}");
    cluster.ok("set image deployment/web web=hello:2");
    cluster.ok("set env deployment/web MODE=slow");
    let refused = cluster.k("rollout undo deployment/web");
    assert!(!refused.ok && refused.err.contains("you cannot rollback a paused deployment"), "{}", refused.err);
    let generation = cluster.get("deployment web")["metadata"]["generation"].clone();
    cluster.until("deployment web", "/status/observedGeneration", |seen| *seen == generation);
    cluster.until("deployment web", "/status/conditions", |all| {
        all.as_array().into_iter().flatten().any(|c| c["reason"] == "DeploymentPaused")
    });
    assert_eq!(images(&cluster), ["hello:1"; 3]);
    cluster.ok("rollout resume deployment/web");
    cluster.rolled_out("web");
    wait_for("the new image alone", || match images(&cluster) {
        images if images == ["hello:2"; 3] => Ok(()),
        images => Err(format!("{images:?}")),
    });
    let last = history(&cluster).pop().unwrap().0;
    assert_eq!(last, "6");
    let shown = cluster.ok("rollout history deployment/web --revision=6");
    assert!(shown.contains("hello:2") && shown.contains("slow"), "{shown}");
}

#[test]
fn a_quota_on_replica_sets_stops_a_rollout_and_says_so() {
    let cluster = start();
    let before = uids(&cluster);
    cluster.ok("create quota sets --hard=count/replicasets.apps=1");
    cluster.until("resourcequota sets", "/status/used/count~1replicasets.apps", |used| *used == "1");
    cluster.ok("set image deployment/web web=hello:2");
    let status = cluster.until("deployment web", "/status", |status| {
        let conditions = status["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|c| c["reason"] == "ReplicaSetCreateError"))
    });
    let conditions = status["conditions"].as_array().unwrap();
    let progress = conditions.iter().find(|c| c["type"] == "Progressing").unwrap();
    let message = progress["message"].as_str().unwrap();
    assert_eq!(progress["status"], "False");
    assert!(
        message.starts_with("Failed to create new replica set \"web-") && message.contains("exceeded quota: sets"),
        "{message}"
    );
    let seen = cluster.get("deployment web");
    assert_eq!(seen["status"]["observedGeneration"], seen["metadata"]["generation"]);
    wait_for("the event", || match cluster.ok("describe deployment web") {
        said if said.contains("Warning  ReplicaSetCreateError") => Ok(()),
        said => Err(said),
    });
    assert_eq!(uids(&cluster), before, "nobody was touched");
    cluster.ok("delete quota sets");
    cluster.rolled_out("web");
    assert_eq!(images(&cluster), ["hello:2"; 3]);
}
