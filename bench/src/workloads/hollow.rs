//! Simulated nodes: they register, renew their Leases, say of each pod that is bound to them that it runs, and end those
//! that are deleted; nothing runs. They share one watch of all bound pods and a few connections, so that the load
//! generator leaves the cores to the server.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::cluster::poll;
use crate::events::Events;
use crate::http::Connection;
use crate::load::{self, Ask};
use crate::target::Target;

/// How often a node renews its Lease, as the kubelet does.
const RENEWAL: Duration = Duration::from_secs(10);
/// Connections that carry what nodes write.
const WRITERS: usize = 32;
/// How long registering may take.
const REGISTER: Duration = Duration::from_secs(60);
/// No more of a run than this is waited for in silence.
const WATCHED: Duration = Duration::from_secs(3600);
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";

/// The nodes; dropped, they fall silent.
pub struct Hollow {
    stop: Arc<AtomicBool>,
    failure: Failure,
}

/// What went wrong first.
type Failure = Arc<Mutex<Option<String>>>;

impl Hollow {
    /// Registers so many nodes and waits until pods may come to them.
    ///
    /// # Errors
    /// The API refuses something, or the nodes are not schedulable within a minute.
    pub fn start(target: &Target, server: u32, nodes: usize) -> Result<Self> {
        let names: Arc<[String]> = (0..nodes).map(|n| format!("hollow-{n}")).collect();
        let each = |ask: &(dyn Fn(&str) -> Ask + Sync)| -> Result<()> {
            let clients = nodes.min(16);
            let next = |client: usize, i: u64| names.get(client + i as usize * clients).map(|name| ask(name));
            let load = load::run(target, server, clients, REGISTER, next)?;
            ensure!(load.failures == 0, "{} nodes: {}", load.failures, load.failure.unwrap_or_default());
            Ok(())
        };
        let post =
            |path: &str, object: Value| Ask { request: target.request("POST", path, &object.to_string()), expect: 201 };
        each(&|name| post("/api/v1/nodes", json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})))?;
        each(&|name| post(LEASES, lease(name)))?;
        each(&|name| Ask {
            request: target.request("PATCH", &format!("/api/v1/nodes/{name}/status"), &ready().to_string()),
            expect: 200,
        })?;
        let list = target.request("GET", "/api/v1/nodes", "");
        poll(REGISTER, || {
            let body = load::ask(target, &Ask { request: list.clone(), expect: 200 })?;
            let found: Value = serde_json::from_slice(&body)?;
            let free = |node: &&Value| node.pointer("/spec/taints").and_then(Value::as_array).is_none_or(Vec::is_empty);
            let count = found.pointer("/items").and_then(Value::as_array).map_or(0, |n| n.iter().filter(free).count());
            ensure!(count >= nodes, "{count} of {nodes} nodes take pods");
            Ok(())
        })?;

        let hollow = Self { stop: Arc::default(), failure: Failure::default() };
        let writers = (0..WRITERS).map(|_| {
            let (sender, writes) = channel();
            let (target, failure) = (target.clone(), hollow.failure.clone());
            std::thread::spawn(move || note(&failure, "a node's write", write_all(&target, &writes)));
            sender
        });
        let pods = Pods { target: target.clone(), known: HashMap::new(), writers: writers.collect(), count: 0 };
        let events = Events::open(target, "/api/v1/pods?watch=1&fieldSelector=spec.nodeName!%3D")?;
        let (stop, failure) = (hollow.stop.clone(), hollow.failure.clone());
        // Ends with the server, or when its next event comes.
        std::thread::spawn(move || {
            let ended = pods.follow(events, &stop);
            if !stop.load(Ordering::Relaxed) {
                note(&failure, "the nodes' watch", ended);
            }
        });
        let (stop, failure, target) = (hollow.stop.clone(), hollow.failure.clone(), target.clone());
        std::thread::spawn(move || {
            let ended = renew(&target, &names, &stop);
            if !stop.load(Ordering::Relaxed) {
                note(&failure, "a node's Lease", ended);
            }
        });
        Ok(hollow)
    }

    /// An error if some node failed.
    ///
    /// # Errors
    /// Says what failed first.
    pub fn check(&self) -> Result<()> {
        match &*self.failure.lock() {
            Some(why) => bail!("{why}"),
            None => Ok(()),
        }
    }
}

impl Drop for Hollow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn note(failure: &Failure, what: &str, ended: Result<()>) {
    if let Err(error) = ended {
        failure.lock().get_or_insert_with(|| format!("{what}: {error:#}"));
    }
}

fn lease(name: &str) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
        "metadata": {"name": name, "namespace": "kube-node-lease"},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": MicroTime(Timestamp::now())},
    })
}

fn ready() -> Value {
    let room = json!({"cpu": "64", "memory": "256Gi", "pods": "250"});
    let now = Timestamp::now().to_string();
    json!({"status": {
        "allocatable": room, "capacity": room,
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ok",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        }],
    }})
}

/// Renews all Leases in turn, spread over the interval.
fn renew(target: &Target, names: &[String], stop: &AtomicBool) -> Result<()> {
    let mut connection = Connection::open(target)?;
    let gap = RENEWAL / u32::try_from(names.len().max(1))?;
    let mut due = Instant::now();
    for name in names.iter().cycle() {
        due += gap;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if stop.load(Ordering::Relaxed) {
            return Ok(());
        }
        let patch = json!({"spec": {"renewTime": MicroTime(Timestamp::now())}}).to_string();
        let response = connection.exchange(&target.request("PATCH", &format!("{LEASES}/{name}"), &patch))?;
        ensure!(response.status == 200, "status {}", response.status);
        if !response.keep {
            connection = Connection::open(target)?;
        }
    }
    Ok(())
}

/// Sends requests one after the other until there are no more; what is gone meanwhile is no failure.
fn write_all(target: &Target, writes: &Receiver<Vec<u8>>) -> Result<()> {
    let mut connection = Connection::open(target)?;
    for request in writes {
        let response = match connection.exchange(&request) {
            Ok(response) => response,
            // The server closes connections that were idle for long. What nodes write may be written twice.
            Err(_) => {
                connection = Connection::open(target)?;
                connection.exchange(&request)?
            }
        };
        if !matches!(response.status, 200 | 202 | 404 | 409) {
            bail!("status {}: {}", response.status, String::from_utf8_lossy(connection.body(&response)));
        }
        if !response.keep {
            connection = Connection::open(target)?;
        }
    }
    Ok(())
}

/// What was written of a pod.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Running,
    Ended,
}

struct Pods {
    target: Target,
    /// By UID.
    known: HashMap<String, Written>,
    writers: Vec<Sender<Vec<u8>>>,
    /// Pods started, from which addresses come.
    count: usize,
}

impl Pods {
    fn follow(mut self, mut events: Events, stop: &AtomicBool) -> Result<()> {
        let end = Instant::now() + WATCHED;
        while !stop.load(Ordering::Relaxed) {
            let (kind, pod) = events.next(end)?;
            ensure!(kind != "ERROR", "{pod}");
            self.see(&kind, &pod).context("a pod without a name or UID")?;
        }
        Ok(())
    }

    fn see(&mut self, kind: &str, pod: &Value) -> Option<()> {
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str);
        let (uid, name, namespace) =
            (text("/metadata/uid")?, text("/metadata/name")?, text("/metadata/namespace").unwrap_or_default());
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        let request = if kind == "DELETED" {
            self.known.remove(uid);
            return Some(());
        } else if text("/metadata/deletionTimestamp").is_some() {
            if self.known.insert(uid.into(), Written::Ended) == Some(Written::Ended) {
                return Some(());
            }
            let options = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
            self.target.request("DELETE", &path, &options.to_string())
        } else {
            if self.known.contains_key(uid) {
                return Some(());
            }
            self.known.insert(uid.into(), Written::Running);
            self.count += 1;
            let status = running(pod, self.count);
            self.target.request("PATCH", &format!("{path}/status"), &status.to_string())
        };
        // A pod's writes go one way, so that they come in their order.
        let way = uid.bytes().fold(0_usize, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
        if let Some(writer) = self.writers.get(way % self.writers.len().max(1)) {
            // A writer that failed has said so.
            let _ = writer.send(request);
        }
        Some(())
    }
}

/// The status of a pod that runs and is ready, as a patch.
fn running(pod: &Value, number: usize) -> Value {
    let now = Timestamp::now().to_string();
    let mut conditions = pod.pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    conditions.extend(
        ["Initialized", "ContainersReady", "Ready"]
            .map(|kind| json!({"type": kind, "status": "True", "lastTransitionTime": now})),
    );
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array).into_iter().flatten();
    let state = |container: &Value| {
        json!({
            "name": container.get("name"), "image": container.get("image"), "imageID": "", "ready": true,
            "started": true, "restartCount": 0, "state": {"running": {"startedAt": now}},
        })
    };
    let address = format!("10.64.{}.{}", number / 250 % 250, number % 250 + 1);
    json!({"metadata": {"uid": pod.pointer("/metadata/uid")}, "status": {
        "phase": "Running", "startTime": now, "hostIP": "10.0.0.1", "podIP": address, "podIPs": [{"ip": address}],
        "conditions": conditions, "containerStatuses": containers.map(state).collect::<Vec<_>>(),
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_run_once_and_ended_once() {
        let (sender, requests) = channel();
        let target = Target::plain(([127, 0, 0, 1], 1).into());
        let mut pods = Pods { target, known: HashMap::new(), writers: vec![sender], count: 0 };
        let pod = json!({
            "metadata": {"name": "a", "namespace": "load", "uid": "u"}, "spec": {"containers": [{"name": "web"}]},
            "status": {"conditions": [{"type": "PodScheduled", "status": "True"}]},
        });
        let mut going = pod.clone();
        going["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        for (kind, pod) in [("ADDED", &pod), ("MODIFIED", &pod), ("MODIFIED", &going), ("MODIFIED", &going)] {
            pods.see(kind, pod).unwrap();
        }
        pods.see("DELETED", &going).unwrap();
        assert!(pods.known.is_empty() && pods.see("ADDED", &json!({})).is_none());
        drop(pods);
        let sent: Vec<String> = requests.iter().map(|r| String::from_utf8(r).unwrap()).collect();
        assert_eq!(sent.len(), 2, "{sent:?}");
        assert!(
            sent[0].starts_with("PATCH /api/v1/namespaces/load/pods/a/status ") && sent[0].contains("PodScheduled")
        );
        assert!(sent[1].starts_with("DELETE /api/v1/namespaces/load/pods/a ") && sent[1].contains("\"uid\":\"u\""));
    }
}
