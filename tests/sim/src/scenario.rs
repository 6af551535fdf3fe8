//! What happens to a cluster, drawn from its seed: workloads, faults, and in the end healing.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::node::Shape;
use crate::runner::Log;
use crate::wire::{Faults, LONGEST_STALL};
use crate::workloads::{Kind, budget, path, service, workload};
use crate::world::{active, is, name, owner, text};

/// How large it is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub nodes: (usize, usize),
    pub workloads: (usize, usize),
    /// Replicas of each, at most.
    pub replicas: i64,
    pub steps: (usize, usize),
    pub heartbeat: Duration,
}

/// Small clusters, of which there are many.
pub const SMALL: Size =
    Size { nodes: (4, 8), workloads: (1, 3), replicas: 6, steps: (4, 9), heartbeat: Duration::from_secs(15) };

/// A larger one.
pub const LARGE: Size =
    Size { nodes: (100, 100), workloads: (3, 3), replicas: 20, steps: (2, 2), heartbeat: Duration::from_secs(30) };

/// How long healing may take: controllers and scheduler back off from what failed, up to 15 minutes.
const HEALING: u64 = 2400;
/// How long nothing may be written then.
const QUIET: u64 = 120;

struct Scenario {
    cluster: Cluster,
    random: StdRng,
    size: Size,
    log: Log,
    workloads: BTreeMap<String, Kind>,
    /// Numbers images and workloads.
    serial: u32,
}

/// Runs one seed: workloads, then things that go wrong, then healing. All must be as asked for in the end, and stay so.
pub async fn run(seed: u64, size: Size, log: Log) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::start(seed).await;
    for n in 0..random.random_range(size.nodes.0..=size.nodes.1) {
        let labels = [("disk", ["ssd", "hdd"][n % 2]), ("zone", ["a", "b", "c"][n % 3])];
        let labels = labels.map(|(k, v)| (k.to_string(), v.to_string())).into();
        let shape = Shape { cpu_milli: 4000, memory_mib: 8192, pods: 20, labels, heartbeat: size.heartbeat };
        cluster.add_node(&format!("n{n}"), shape);
    }
    let mut s = Scenario { cluster, random, size, log, workloads: BTreeMap::new(), serial: 0 };
    s.cluster.live(3).await;
    for _ in 0..s.random.random_range(size.workloads.0..=size.workloads.1) {
        s.add_workload().await;
    }
    for _ in 0..s.random.random_range(size.steps.0..=size.steps.1) {
        s.step().await;
        let pause = if s.random.random_bool(0.2) { 90 } else { 12 };
        s.cluster.live(s.random.random_range(0..=pause)).await;
    }
    s.heal().await;
    s.cluster.converge(HEALING).await;
    s.cluster.live(30).await;
    s.cluster.converge(1).await;
    s.note("converged".into());
    s.cluster.quiet(QUIET).await;
    let digest = s.cluster.world.lock().digest.finish();
    s.note(format!("digest {digest:x}"));
}

impl Scenario {
    fn note(&self, what: String) {
        let at = self.cluster.world.lock().now();
        self.log.lock().push(format!("{at} {what}"));
    }

    fn some_node(&mut self) -> String {
        let names: Vec<&String> = self.cluster.nodes.keys().collect();
        names.choose(&mut self.random).unwrap().to_string()
    }

    fn some_workload(&mut self) -> Option<(String, Kind)> {
        let all: Vec<(&String, &Kind)> = self.workloads.iter().collect();
        all.choose(&mut self.random).map(|(name, kind)| (name.to_string(), **kind))
    }

    async fn add_workload(&mut self) {
        self.serial += 1;
        let kind = *Kind::ALL.choose(&mut self.random).unwrap();
        let name = format!("w{}", self.serial);
        let object = workload(kind, &name, self.size.replicas, &mut self.random);
        self.note(format!("new {kind:?} {name}: {}", object["spec"]));
        self.cluster.must("POST", &kind.collection(), &object).await;
        if kind.has_scale() && self.random.random_bool(0.4) {
            let guard = budget(&name, &mut self.random);
            self.note(format!("budget {}", guard["spec"]));
            self.cluster.must("POST", "/apis/policy/v1/namespaces/default/poddisruptionbudgets", &guard).await;
        }
        if kind != Kind::Job && self.random.random_bool(0.3) {
            self.cluster.must("POST", "/api/v1/namespaces/default/services", &service(&name)).await;
        }
        self.workloads.insert(name, kind);
    }

    /// Something happens.
    async fn step(&mut self) {
        match self.random.random_range(0..22) {
            0..=2 => self.scale().await,
            3..=5 => self.set_image().await,
            6 => self.add_workload().await,
            7 => self.remove_workload().await,
            8 => self.lose_node().await,
            9 => self.cut_node(),
            10 => self.return_nodes(),
            11 => self.cordon().await,
            12..=13 => self.drain().await,
            14 => self.delete_pod().await,
            15 => self.fail_pod().await,
            16..=17 => self.restart_plane().await,
            18..=20 => self.make_faults(),
            _ => self.restart_workload().await,
        }
    }

    async fn change(&self, name: &str, kind: Kind, patch: &Value) {
        let (code, answer) = self.cluster.send("PATCH", &path(kind, name), patch).await;
        assert!(code < 300 || code == 404, "{name}: {code} {answer}");
    }

    async fn scale(&mut self) {
        let Some((name, kind)) = self.some_workload().filter(|(_, kind)| kind.has_scale()) else { return };
        let replicas = self.random.random_range(0..=self.size.replicas);
        self.note(format!("scale {name} to {replicas}"));
        self.change(&name, kind, &json!({"spec": {"replicas": replicas}})).await;
    }

    fn template(&mut self, image: &str) -> Value {
        let container = json!({"name": "c", "image": image,
            "resources": {"requests": {"cpu": format!("{}m", self.random.random_range(50..300)), "memory": "64Mi"}}});
        json!({"spec": {"template": {"spec": {"containers": [container]}}}})
    }

    async fn set_image(&mut self) {
        let Some((name, kind)) = self.some_workload().filter(|(_, kind)| kind.rolls()) else { return };
        self.serial += 1;
        let image = match self.random.random_range(0..10) {
            0..=1 => format!("bad:{}", self.serial),
            2 => format!("unready:{}", self.serial),
            _ => format!("ok:{}", self.serial),
        };
        self.note(format!("{name} becomes {image}"));
        let patch = self.template(&image);
        self.change(&name, kind, &patch).await;
    }

    async fn restart_workload(&mut self) {
        let Some((name, kind)) = self.some_workload().filter(|(_, kind)| kind.rolls()) else { return };
        self.serial += 1;
        self.note(format!("restart {name}"));
        let at = json!({"restarted": self.serial.to_string()});
        self.change(&name, kind, &json!({"spec": {"template": {"metadata": {"annotations": at}}}})).await;
    }

    async fn remove_workload(&mut self) {
        let Some((name, kind)) = self.some_workload() else { return };
        let foreground = self.random.random_bool(0.5);
        self.note(format!("delete {kind:?} {name}, foreground {foreground}"));
        let policy = if foreground { "Foreground" } else { "Background" };
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": policy});
        self.cluster.send("DELETE", &path(kind, &name), &options).await;
        self.workloads.remove(&name);
    }

    async fn lose_node(&mut self) {
        let name = self.some_node();
        self.cluster.kill_node(&name);
        let for_good = self.random.random_bool(0.3);
        self.note(format!("node {name} dies, its object goes: {for_good}"));
        if for_good {
            self.cluster.send("DELETE", &format!("/api/v1/nodes/{name}"), &Value::Null).await;
        }
        if self.random.random_bool(0.3) {
            self.cluster.live(self.random.random_range(30..400)).await;
        }
    }

    fn cut_node(&mut self) {
        let name = self.some_node();
        self.note(format!("node {name} is cut off"));
        self.cluster.cut_node(&name, true);
    }

    fn return_nodes(&mut self) {
        self.note("all nodes return".into());
        let names: Vec<String> = self.cluster.nodes.keys().cloned().collect();
        for name in names {
            self.cluster.cut_node(&name, false);
            self.cluster.start_node(&name);
        }
    }

    async fn set_unschedulable(&self, node: &str, unschedulable: bool) {
        let value = if unschedulable { json!(true) } else { Value::Null };
        let patch = json!({"spec": {"unschedulable": value}});
        self.cluster.send("PATCH", &format!("/api/v1/nodes/{node}"), &patch).await;
    }

    async fn cordon(&mut self) {
        let (name, on) = (self.some_node(), self.random.random_bool(0.6));
        self.note(format!("node {name} cordoned: {on}"));
        self.set_unschedulable(&name, on).await;
    }

    async fn drain(&mut self) {
        let node = self.some_node();
        self.note(format!("drain {node}"));
        self.set_unschedulable(&node, true).await;
        for _ in 0..8 {
            let names = self.movable_on(&node);
            if names.is_empty() {
                break;
            }
            for pod in names {
                let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}});
                let path = format!("/api/v1/namespaces/default/pods/{pod}/eviction");
                self.cluster.wire.note_cause("default", &pod, "admin", true);
                let (code, answer) = self.cluster.send("POST", &path, &eviction).await;
                assert!([201, 404, 429, 409].contains(&code), "eviction of {pod}: {code} {answer}");
            }
            self.cluster.live(5).await;
        }
    }

    /// The pods that a drain takes from a node.
    fn movable_on(&self, node: &str) -> Vec<String> {
        let world = self.cluster.world.lock();
        let movable = |p: &&Value| owner(p).is_none_or(|o| o["kind"] != "DaemonSet");
        let there = world.pods().filter(|p| text(p, "/spec/nodeName") == node && active(p)).filter(movable);
        there.map(|p| name(p).to_string()).collect()
    }

    /// The pods of StatefulSets whose images are bad.
    fn stuck(&self) -> Vec<String> {
        let world = self.cluster.world.lock();
        let stuck = world.pods().filter(|p| {
            let image = text(p, "/spec/containers/0/image");
            !image.starts_with("ok:") && owner(p).is_some_and(|o| o["kind"] == "StatefulSet") && !is(p, "Ready")
        });
        stuck.map(|p| name(p).to_string()).collect()
    }

    fn some_pod(&mut self) -> Option<String> {
        let world = self.cluster.world.lock();
        let names: Vec<&str> = world.pods().filter(|p| active(p)).map(name).collect();
        names.choose(&mut self.random).map(ToString::to_string)
    }

    async fn delete_pod(&mut self) {
        let Some(pod) = self.some_pod() else { return };
        self.note(format!("delete pod {pod}"));
        self.cluster.wire.note_cause("default", &pod, "admin", false);
        self.cluster.send("DELETE", &format!("/api/v1/namespaces/default/pods/{pod}"), &Value::Null).await;
    }

    async fn fail_pod(&mut self) {
        let Some(pod) = self.some_pod() else { return };
        self.note(format!("pod {pod} fails"));
        let status = json!({"status": {"phase": "Failed", "reason": "Evicted", "conditions": [{"type": "Ready", "status": "False"}]}});
        self.cluster.send("PATCH", &format!("/api/v1/namespaces/default/pods/{pod}/status"), &status).await;
    }

    async fn restart_plane(&mut self) {
        let down = self.random.random_range(0..20);
        self.note(format!("the control plane is down for {down} s"));
        self.cluster.stop_plane();
        self.cluster.live(down).await;
        self.cluster.start_plane();
    }

    fn make_faults(&mut self) {
        let random = &mut self.random;
        let mut chance = |most: f64| if random.random_bool(0.5) { random.random_range(0.0..most) } else { 0.0 };
        let faults = Faults {
            conflict: chance(0.3),
            refuse: chance(0.2),
            lose: chance(0.1),
            cut: chance(0.1),
            stall: chance(0.3),
            stall_for: LONGEST_STALL.mul_f64(chance(1.0)),
            delay: Duration::from_secs_f64(chance(0.5)),
        };
        self.note(format!("{faults:?}"));
        self.cluster.wire.set_faults(faults);
    }

    /// All that went wrong is mended.
    async fn heal(&mut self) {
        self.note("heals".into());
        self.cluster.wire.set_faults(Faults::default());
        self.return_nodes();
        self.cluster.live(5).await;
        for node in self.cluster.nodes.keys().cloned().collect::<Vec<_>>() {
            self.set_unschedulable(&node, false).await;
        }
        for (name, kind) in self.workloads.clone() {
            if kind.rolls() {
                let patch = self.template("ok:last");
                self.change(&name, kind, &patch).await;
            }
        }
        // A StatefulSet leaves a pod that was never ready to people.
        self.cluster.live(5).await;
        for pod in self.stuck() {
            self.cluster.send("DELETE", &format!("/api/v1/namespaces/default/pods/{pod}"), &Value::Null).await;
        }
    }
}
