//! A cluster under load: what is done to it, and what that costs.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::hollow::Hollow;
use crate::api::make_namespace;
use crate::cluster::{Cluster, poll};
use crate::events::Events;
use crate::load::{self, Ask};
use crate::process;
use crate::target::Target;

/// How long any one step may take.
const PATIENCE: Duration = Duration::from_secs(900);
/// How long a new namespace may be without its ServiceAccount.
const ACCOUNT: Duration = Duration::from_secs(30);
/// Clients that create several Deployments.
const CLIENTS: usize = 8;

/// A cluster, and the nodes that this process plays.
pub struct Stage<'t> {
    /// Falls silent before the server ends.
    pub hollow: Option<Hollow>,
    /// The server, and its own node if it has one.
    pub cluster: Cluster<'t>,
    /// Where it answers.
    pub target: Target,
}

/// What a step cost.
#[derive(Debug, Default, Clone)]
pub struct Cost {
    /// How long it took.
    pub seconds: f64,
    /// CPU seconds of the server.
    pub server_cpu: f64,
    /// CPU seconds of its node, guests and all.
    pub agent_cpu: f64,
    /// Resident memory of the server at the end, in MiB.
    pub server_rss: f64,
    /// The same of its node.
    pub agent_rss: f64,
    /// By how much the store's revision grew.
    pub writes: f64,
    /// Requests that write and were granted, by resource.
    pub asked: BTreeMap<String, f64>,
}

struct Reading {
    at: Instant,
    server_cpu: f64,
    all_cpu: f64,
    revision: f64,
    asked: BTreeMap<String, f64>,
}

impl<'t> Stage<'t> {
    /// Sets the stage; with so many simulated nodes if not 0.
    ///
    /// # Errors
    /// The nodes cannot be registered.
    pub fn new(cluster: Cluster<'t>, nodes: usize) -> Result<Self> {
        let target = cluster.target()?;
        let hollow = (nodes > 0).then(|| Hollow::start(&target, cluster.server.pid(), nodes)).transpose()?;
        Ok(Self { hollow, cluster, target })
    }

    /// Does something and says what it cost.
    ///
    /// # Errors
    /// It failed, or a simulated node did.
    pub fn cost(&self, act: impl FnOnce() -> Result<()>) -> Result<Cost> {
        let before = self.read()?;
        act()?;
        let seconds = before.at.elapsed().as_secs_f64();
        let after = self.read()?;
        if let Some(hollow) = &self.hollow {
            hollow.check()?;
        }
        let memory = process::memory(self.cluster.server.pid())?;
        let rss: Vec<f64> = memory.iter().map(|m| m.rss).collect();
        let (server_rss, agents) = rss.split_first().context("no process")?;
        let server_cpu = after.server_cpu - before.server_cpu;
        let mut asked = after.asked;
        asked.iter_mut().for_each(|(what, n)| *n -= before.asked.get(what).unwrap_or(&0.0));
        asked.retain(|_, n| *n > 0.0);
        Ok(Cost {
            seconds,
            server_cpu,
            agent_cpu: after.all_cpu - before.all_cpu - server_cpu,
            server_rss: *server_rss,
            agent_rss: agents.iter().sum(),
            writes: after.revision - before.revision,
            asked,
        })
    }

    fn read(&self) -> Result<Reading> {
        let metrics = self.ask("GET", "/metrics", None, 200)?;
        let metrics = String::from_utf8_lossy(&metrics);
        let revision = metrics.lines().find_map(|l| l.strip_prefix("copepod_store_revision ")?.trim().parse().ok());
        let pid = self.cluster.server.pid();
        Ok(Reading {
            revision: revision.context("no revision in /metrics")?,
            asked: asked_in(&metrics),
            server_cpu: process::own_cpu_seconds(pid)?,
            all_cpu: process::cpu_seconds(pid)?,
            at: Instant::now(),
        })
    }

    fn ask(&self, method: &str, path: &str, body: Option<&Value>, expect: u16) -> Result<Vec<u8>> {
        let body = body.map(Value::to_string).unwrap_or_default();
        load::ask(&self.target, &Ask { request: self.target.request(method, path, &body), expect })
            .with_context(|| format!("{method} {path}"))
    }

    /// Makes a namespace in which pods may be created.
    ///
    /// # Errors
    /// It is refused, or gets no ServiceAccount.
    pub fn namespace(&self, name: &str) -> Result<()> {
        make_namespace(&self.target, name)?;
        let path = format!("/api/v1/namespaces/{name}/serviceaccounts/default");
        poll(ACCOUNT, || self.ask("GET", &path, None, 200).map(drop))
    }

    /// Creates so many Deployments with so many replicas each, and waits until all are ready.
    ///
    /// # Errors
    /// They are refused or not ready in time.
    pub fn deploy(&self, namespace: &str, deployments: usize, replicas: usize, image: &str) -> Result<()> {
        let path = collection(namespace);
        let mut events = Events::open(&self.target, &format!("{path}?watch=1"))?;
        let (target, clients) = (&self.target, CLIENTS.min(deployments));
        let next = |client: usize, i: u64| {
            let number = client + i as usize * clients;
            let object = || deployment(&format!("web-{number}"), replicas, image).to_string();
            (number < deployments).then(|| Ask { request: target.request("POST", &path, &object()), expect: 201 })
        };
        let load = load::run(target, self.cluster.server.pid(), clients, PATIENCE, next)?;
        ensure!(load.failures == 0, "{} Deployments: {}", load.failures, load.failure.unwrap_or_default());
        all_ready(&mut events, deployments, 1)
    }

    /// Changes the template of the first Deployment and waits until all its pods are new and ready.
    ///
    /// # Errors
    /// The change is refused, or not through in time.
    pub fn roll(&self, namespace: &str) -> Result<()> {
        let path = collection(namespace);
        let mut events = Events::open(&self.target, &format!("{path}?watch=1"))?;
        let patch = json!({"spec": {"template": {"metadata": {"annotations": {"bench/roll": "1"}}}}});
        self.ask("PATCH", &format!("{path}/web-0"), Some(&patch), 200)?;
        all_ready(&mut events, 1, 2)
    }

    /// Deletes a namespace and waits until it is gone.
    ///
    /// # Errors
    /// It is not, in time.
    pub fn remove(&self, namespace: &str) -> Result<()> {
        let mut events = Events::open(&self.target, "/api/v1/namespaces?watch=1")?;
        self.ask("DELETE", &format!("/api/v1/namespaces/{namespace}"), None, 200)?;
        let end = Instant::now() + PATIENCE;
        loop {
            let (kind, object) = events.next(end).context("the namespace is not gone")?;
            if kind == "DELETED" && object.pointer("/metadata/name").and_then(Value::as_str) == Some(namespace) {
                return Ok(());
            }
        }
    }
}

fn collection(namespace: &str) -> String {
    format!("/apis/apps/v1/namespaces/{namespace}/deployments")
}

fn deployment(name: &str, replicas: usize, image: &str) -> Value {
    let labels = json!({"app": name});
    let container = json!({
        "name": "web", "image": image, "ports": [{"containerPort": 80}],
        "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}},
    });
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    })
}

/// Waits until so many Deployments, of at least this generation, have all their pods new and ready.
fn all_ready(events: &mut Events, deployments: usize, generation: i64) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    let mut ready: HashMap<String, bool> = HashMap::new();
    while ready.values().filter(|ready| **ready).count() < deployments {
        let (_, object) = events.next(end).context("the Deployments are not ready")?;
        let name = object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default();
        ready.insert(name.into(), is_ready(&object, generation));
    }
    Ok(())
}

fn is_ready(deployment: &Value, generation: i64) -> bool {
    let number = |pointer: &str| deployment.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    let (wanted, seen) = (number("/spec/replicas"), number("/metadata/generation"));
    seen >= generation
        && number("/status/observedGeneration") >= seen
        && ["replicas", "updatedReplicas", "readyReplicas"].iter().all(|f| number(&format!("/status/{f}")) == wanted)
}

/// Requests that write and were granted so far, by resource and subresource.
fn asked_in(metrics: &str) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    for line in metrics.lines().filter_map(|l| l.strip_prefix("apiserver_request_total{")) {
        let Some((labels, count)) = line.rsplit_once("} ") else { continue };
        let label = |name: &str| {
            let of = |l: &str| Some(l.strip_prefix(name)?.strip_prefix("=\"")?.trim_end_matches('"').to_string());
            labels.split(',').find_map(of).unwrap_or_default()
        };
        let writes = ["POST", "PUT", "PATCH", "APPLY", "DELETE", "DELETECOLLECTION"].contains(&label("verb").as_str());
        if writes && label("code").starts_with('2') {
            let what = [label("resource"), label("subresource")].join("/");
            *found.entry(what.trim_end_matches('/').to_string()).or_default() +=
                count.trim().parse::<f64>().unwrap_or_default();
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_read_from_the_metrics() {
        let line = |verb: &str, resource: &str, sub: &str, code: &str, n: u32| {
            format!(
                "apiserver_request_total{{verb=\"{verb}\",group=\"\",version=\"v1\",resource=\"{resource}\",\
                 subresource=\"{sub}\",code=\"{code}\"}} {n}\n"
            )
        };
        let text = line("PATCH", "pods", "status", "200", 3)
            + &line("POST", "pods", "", "201", 4)
            + &line("DELETE", "pods", "", "200", 1)
            + &line("POST", "pods", "", "409", 9)
            + &line("LIST", "pods", "", "200", 9);
        assert_eq!(asked_in(&text), BTreeMap::from([("pods".into(), 5.0), ("pods/status".into(), 3.0)]));
    }

    #[test]
    fn a_deployment_is_ready_when_all_its_pods_are_new() {
        let object = |seen: i64, old: i64, ready: i64| {
            json!({"metadata": {"generation": 2}, "spec": {"replicas": 3}, "status": {
                "observedGeneration": seen, "replicas": 3 + old, "updatedReplicas": 3, "readyReplicas": ready + old,
            }})
        };
        assert!(is_ready(&object(2, 0, 3), 2) && is_ready(&object(2, 0, 3), 1));
        for other in [object(1, 0, 3), object(2, 1, 3), object(2, 0, 2)] {
            assert!(!is_ready(&other, 2), "{other}");
        }
        assert!(!is_ready(&object(2, 0, 3), 3));
    }
}
