//! The things that happen to a cluster, good and bad.

use std::time::Duration;

use copepod_client::Key;
use rand::Rng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

use crate::scenario::Scenario;
use crate::wire::{Faults, LONGEST_STALL};
use crate::workloads::{Kind, LOAD, autoscaler, budget, claim, path, requests, service, volume, workload};
use crate::world::{active, is, name, owner, text};

/// So many are too many for small nodes.
const MOST_WORKLOADS: usize = 6;
const SCALERS: &str = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";

impl Scenario {
    fn some_node(&mut self) -> String {
        let names: Vec<&String> = self.cluster.nodes.keys().collect();
        names.choose(&mut self.random).unwrap().to_string()
    }

    fn some_workload(&mut self) -> Option<(String, Kind)> {
        let all: Vec<(&String, &Kind)> = self.workloads.iter().collect();
        all.choose(&mut self.random).map(|(name, kind)| (name.to_string(), **kind))
    }

    pub async fn add_workload(&mut self) {
        self.serial += 1;
        let draw = self.theme.draw;
        let kind = *draw.kinds.choose(&mut self.random).unwrap();
        let name = format!("w{}", self.serial);
        let object = workload(kind, &name, &draw, &mut self.random);
        self.note(format!("new {kind:?} {name}: {}", object["spec"]));
        self.cluster.must("POST", &kind.collection(), &object).await;
        if kind.has_scale() && self.random.random_bool(0.4) {
            let guard = budget(&name, &mut self.random);
            self.note(format!("budget {}", guard["spec"]));
            self.cluster.must("POST", "/apis/policy/v1/namespaces/default/poddisruptionbudgets", &guard).await;
        }
        if kind.has_scale() && draw.autoscaled > 0.0 && self.random.random_bool(draw.autoscaled) {
            let scaler = autoscaler(kind, &name, draw.replicas, &mut self.random);
            self.note(format!("autoscaler {}", scaler["spec"]));
            self.cluster.must("POST", SCALERS, &scaler).await;
            self.autoscaled.insert(name.clone());
        }
        if !matches!(kind, Kind::Job | Kind::CronJob) && self.random.random_bool(0.3) {
            self.cluster.must("POST", "/api/v1/namespaces/default/services", &service(&name)).await;
        }
        self.workloads.insert(name, kind);
    }

    /// Something happens.
    pub async fn step(&mut self) {
        if !self.autoscaled.is_empty() && self.random.random_bool(0.4) {
            self.set_load().await;
        }
        if self.theme.draw.claims > 0.0 && self.random.random_bool(0.4) {
            self.change_storage().await;
        }
        if self.theme.draw.priorities && self.workloads.len() < MOST_WORKLOADS && self.random.random_bool(0.4) {
            self.add_workload().await;
        }
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

    /// The pods of a workload have more or less to do.
    async fn set_load(&mut self) {
        let all: Vec<&String> = self.autoscaled.iter().collect();
        let name = all.choose(&mut self.random).unwrap().to_string();
        let load = self.random.random_range(0..200 * self.theme.draw.replicas);
        self.note(format!("load of {name}: {load}"));
        self.cluster.machine.set_load(&name, load);
        let patch = json!({"metadata": {"annotations": {LOAD: load.to_string()}}});
        self.cluster.send("PATCH", &format!("{SCALERS}/{name}"), &patch).await;
    }

    /// Claims and volumes come, and claims go, by hand.
    async fn change_storage(&mut self) {
        for _ in 0..self.random.random_range(1..=3) {
            self.serial += 1;
            let (name, size) = (format!("s{}", self.serial), self.random.random_range(1..=3));
            match self.random.random_range(0..5) {
                0..=1 => {
                    self.note(format!("claim {name} of {size}"));
                    self.cluster.must("POST", CLAIMS, &claim(&name, size)).await;
                    self.claims.insert(name);
                }
                2..=3 => {
                    self.note(format!("volume {name} of {size}"));
                    self.cluster.must("POST", "/api/v1/persistentvolumes", &volume(&name, size)).await;
                }
                _ => {
                    let Some(name) = self.claims.pop_first() else { continue };
                    self.note(format!("delete claim {name}"));
                    self.cluster.send("DELETE", &format!("{CLAIMS}/{name}"), &Value::Null).await;
                }
            }
        }
    }

    async fn scale(&mut self) {
        let Some((name, kind)) = self.some_workload().filter(|(_, kind)| kind.has_scale()) else { return };
        if self.autoscaled.contains(&name) {
            return;
        }
        let replicas = self.random.random_range(0..=self.theme.draw.replicas);
        self.note(format!("scale {name} to {replicas}"));
        self.change(&name, kind, &json!({"spec": {"replicas": replicas}})).await;
    }

    pub fn template(&mut self, image: &str) -> Value {
        let container = json!({"name": "c", "image": image, "resources": requests(&mut self.random)});
        json!({"spec": {"template": {"spec": {"containers": [container]}}}})
    }

    async fn set_image(&mut self) {
        let Some((name, kind)) = self.some_workload() else { return };
        if kind == Kind::CronJob {
            return self.suspend(&name).await;
        }
        if !kind.rolls() {
            return;
        }
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

    async fn suspend(&mut self, name: &str) {
        let on = self.random.random_bool(0.5);
        self.note(format!("suspend {name}: {on}"));
        self.change(name, Kind::CronJob, &json!({"spec": {"suspend": on}})).await;
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

    pub fn return_nodes(&mut self) {
        self.note("all nodes return".into());
        let names: Vec<String> = self.cluster.nodes.keys().cloned().collect();
        for name in names {
            self.cluster.cut_node(&name, false);
            self.cluster.start_node(&name);
        }
    }

    pub async fn set_unschedulable(&self, node: &str, unschedulable: bool) {
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
    pub fn stuck(&self) -> Vec<String> {
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
        // Its node ended it before it said so.
        self.cluster.machine.ended(&Key::new("default", &*pod));
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
}
