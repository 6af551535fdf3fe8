//! What really runs on the nodes, whatever the API says, and what it uses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use copepod_client::Key;
use copepod_server::api::Clock;
use copepod_server::dialer::{DialError, NodeDialer, NodeStream};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::world::World;

/// By pod's UID: on which node it runs.
type Runs = BTreeMap<String, String>;

/// See the module.
pub struct Machine {
    pub seed: u64,
    pub clock: Clock,
    world: Arc<Mutex<World>>,
    running: Mutex<BTreeMap<Key, Runs>>,
    /// Nodes that can be reached.
    reachable: Mutex<BTreeSet<String>>,
    /// By workload: what all of its pods use together, in thousandths of a core.
    loads: Mutex<BTreeMap<String, i64>>,
}

impl Machine {
    pub fn new(seed: u64, world: Arc<Mutex<World>>, clock: Clock) -> Self {
        let (running, reachable, loads) = Default::default();
        Self { seed, clock, world, running, reachable, loads }
    }
    /// A pod's containers start; no two of one identity may run at once.
    pub fn started(&self, node: &str, key: &Key, uid: &str, has_identity: bool) {
        let mut running = self.running.lock();
        let runs = running.entry(key.clone()).or_default();
        if has_identity && let Some((other, on)) = runs.iter().find(|(other, _)| *other != uid) {
            let what = format!("{key} ({uid}) starts on {node} while {other} of its identity still runs on {on}");
            self.world.lock().violate(what);
        }
        runs.insert(uid.into(), node.into());
    }
    pub fn stopped(&self, key: &Key, uid: &str) {
        let mut running = self.running.lock();
        if let Some(runs) = running.get_mut(key) {
            runs.remove(uid);
            if runs.is_empty() {
                running.remove(key);
            }
        }
    }
    /// A pod ended by itself, wherever it ran.
    pub fn ended(&self, key: &Key) {
        self.running.lock().remove(key);
    }
    /// All that ran on a node is gone.
    pub fn all_stopped(&self, node: &str) {
        let mut running = self.running.lock();
        running.values_mut().for_each(|runs| runs.retain(|_, on| on != node));
        running.retain(|_, runs| !runs.is_empty());
    }
    /// The UIDs of what runs.
    pub fn running(&self) -> Vec<(Key, String)> {
        let running = self.running.lock();
        running.iter().flat_map(|(key, runs)| runs.keys().map(|uid| (key.clone(), uid.clone()))).collect()
    }
    /// Says whether a node can be reached.
    pub fn set_reachable(&self, node: &str, reachable: bool) {
        let mut all = self.reachable.lock();
        if reachable {
            all.insert(node.into())
        } else {
            all.remove(node)
        };
    }
    /// Gives all pods of a workload together so much to do.
    pub fn set_load(&self, workload: &str, milli: i64) {
        self.loads.lock().insert(workload.into(), milli);
    }

    /// What a node tells of the use of its pods.
    fn summary(&self, node: &str) -> Value {
        let (running, loads, time) = (self.running.lock(), self.loads.lock(), (self.clock)().to_string());
        let workload = |key: &Key| key.name.split('-').next().unwrap_or_default().to_string();
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        running.keys().for_each(|key| *counts.entry(workload(key)).or_default() += 1);
        let here = running.iter().filter(|(_, runs)| runs.values().any(|on| on == node));
        let pod = |(key, _): (&Key, &Runs)| {
            let of = workload(key);
            let milli = loads.get(&of).copied().unwrap_or(0) / counts.get(&of).copied().unwrap_or(1);
            let cpu =
                json!({"time": time, "usageNanoCores": milli * 1_000_000, "windowNanoSeconds": 15_000_000_000_u64});
            let container = json!({"name": "c", "cpu": cpu, "memory": {"time": time, "workingSetBytes": 1 << 20}});
            json!({"podRef": {"name": key.name, "namespace": key.namespace}, "containers": [container]})
        };
        json!({"pods": here.map(pod).collect::<Vec<_>>()})
    }
}

#[async_trait]
impl NodeDialer for Machine {
    async fn dial(&self, node: &str) -> Result<Box<dyn NodeStream>, DialError> {
        if !self.reachable.lock().contains(node) {
            return Err(DialError::NotConnected(node.into()));
        }
        let body = self.summary(node).to_string();
        let (near, mut far) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move {
            let (mut head, mut byte) = (Vec::new(), [0u8]);
            while !head.ends_with(b"\r\n\r\n") && far.read(&mut byte).await.unwrap_or(0) > 0 {
                head.push(byte[0]);
            }
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            // The server may have gone.
            let _ = far.write_all(answer.as_bytes()).await;
        });
        Ok(Box::new(near))
    }
}
