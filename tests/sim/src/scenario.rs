//! What happens to a cluster, drawn from its seed: workloads, things that go wrong (`steps`), and in the end healing.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::node::Shape;
use crate::runner::Log;
use crate::wire::Faults;
use crate::workloads::{Draw, Kind, PRIORITIES, path, priority_class, storage_classes};

/// What a kind of clusters is like.
#[derive(Debug, Clone, Copy)]
pub struct Theme {
    pub nodes: (usize, usize),
    /// The room of a node, in thousandths of a core.
    pub cpu_milli: i64,
    pub heartbeat: Duration,
    pub workloads: (usize, usize),
    pub draw: Draw,
    pub steps: (usize, usize),
    /// The longest time between steps.
    pub pause: u64,
}

/// The usual workloads in small clusters.
pub const EVERYDAY: Theme = Theme {
    nodes: (4, 8),
    cpu_milli: 4000,
    heartbeat: Duration::from_secs(20),
    workloads: (1, 3),
    draw: Draw { kinds: &Kind::COMMON, replicas: 6, autoscaled: 0.0, claims: 0.0, priorities: false },
    steps: (4, 9),
    pause: 12,
};

/// What comes and goes by itself: CronJobs and autoscalers.
pub const MOVING: Theme = Theme {
    draw: Draw {
        kinds: &[Kind::CronJob, Kind::CronJob, Kind::CronJob, Kind::Deployment, Kind::Deployment, Kind::StatefulSet],
        autoscaled: 0.7,
        ..EVERYDAY.draw
    },
    workloads: (2, 3),
    steps: (4, 7),
    pause: 60,
    ..EVERYDAY
};

/// Claims and volumes.
pub const STORED: Theme = Theme {
    draw: Draw {
        kinds: &[Kind::StatefulSet, Kind::StatefulSet, Kind::StatefulSet, Kind::Deployment],
        claims: 0.8,
        replicas: 4,
        ..EVERYDAY.draw
    },
    steps: (5, 10),
    ..EVERYDAY
};

/// Less room than is asked for, by pods that matter differently.
pub const CROWDED: Theme = Theme {
    nodes: (3, 4),
    cpu_milli: 600,
    workloads: (2, 3),
    draw: Draw {
        kinds: &[Kind::Deployment, Kind::Deployment, Kind::StatefulSet, Kind::ReplicaSet, Kind::Job],
        priorities: true,
        ..EVERYDAY.draw
    },
    ..EVERYDAY
};

/// All of it in large clusters.
pub const LARGE: Theme = Theme {
    nodes: (200, 500),
    heartbeat: Duration::from_secs(30),
    workloads: (3, 4),
    draw: Draw {
        kinds: &[Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet, Kind::Job, Kind::CronJob],
        replicas: 40,
        autoscaled: 0.3,
        claims: 0.5,
        priorities: true,
    },
    steps: (2, 3),
    ..EVERYDAY
};

/// How long healing may take: controllers and scheduler back off from what failed, up to 15 minutes.
const HEALING: u64 = 2400;
/// How long nothing may be written then.
const QUIET: u64 = 120;

pub(crate) struct Scenario {
    pub cluster: Cluster,
    pub random: StdRng,
    pub theme: Theme,
    log: Log,
    pub workloads: BTreeMap<String, Kind>,
    /// Workloads that have an autoscaler.
    pub autoscaled: BTreeSet<String>,
    /// Claims that were made by hand.
    pub claims: BTreeSet<String>,
    /// Numbers all that is made.
    pub serial: u32,
}

/// Runs one seed: workloads, then things that go wrong, then healing. All must be as asked for in the end, and stay so.
pub async fn run(seed: u64, theme: Theme, log: Log) {
    let mut random = StdRng::seed_from_u64(seed);
    let cluster = Cluster::start(seed).await;
    let nodes = random.random_range(theme.nodes.0..=theme.nodes.1);
    let (workloads, autoscaled, claims) = Default::default();
    let mut s = Scenario { cluster, random, theme, log, workloads, autoscaled, claims, serial: 0 };
    for class in storage_classes() {
        s.cluster.must("POST", "/apis/storage.k8s.io/v1/storageclasses", &class).await;
    }
    for class in PRIORITIES {
        s.cluster.must("POST", "/apis/scheduling.k8s.io/v1/priorityclasses", &priority_class(class)).await;
    }
    s.add_nodes("n", nodes, theme.cpu_milli);
    s.cluster.live(3).await;
    for _ in 0..s.random.random_range(theme.workloads.0..=theme.workloads.1) {
        s.add_workload().await;
    }
    for _ in 0..s.random.random_range(theme.steps.0..=theme.steps.1) {
        s.step().await;
        let pause = if s.random.random_bool(0.2) { 90 } else { theme.pause };
        s.cluster.live(s.random.random_range(0..=pause)).await;
    }
    s.heal().await;
    s.cluster.converge(HEALING).await;
    s.cluster.live(30).await;
    s.cluster.converge(1).await;
    s.sum_up();
    s.cluster.quiet(QUIET).await;
    let digest = s.cluster.world.lock().digest.finish();
    s.note(format!("digest {digest:x}"));
}

impl Scenario {
    pub fn note(&self, what: String) {
        let at = self.cluster.world.lock().now();
        self.log.lock().push(format!("{at} {what}"));
    }

    /// Says how much was put to the test.
    fn sum_up(&self) {
        let world = self.cluster.world.lock();
        let (asked, longest) = (world.lags.len(), world.lags.iter().max().copied().unwrap_or_default());
        let late = world.lags.iter().filter(|lag| **lag > Duration::from_secs(10)).count();
        let gone = world.preemptions;
        drop(world);
        self.note(format!(
            "converged; {gone} pods went for others; of {asked} views {late} were over 10 s old, the oldest {longest:?}"
        ));
    }

    fn add_nodes(&mut self, prefix: &str, count: usize, cpu_milli: i64) {
        for n in 0..count {
            let labels = [("disk", ["ssd", "hdd"][n % 2]), ("zone", ["a", "b", "c"][n % 3])];
            let labels = labels.map(|(k, v)| (k.to_string(), v.to_string())).into();
            let heartbeat = self.theme.heartbeat;
            let has_volumes = self.theme.draw.claims > 0.0;
            let shape = Shape { cpu_milli, memory_mib: 8192, pods: 20, labels, heartbeat, has_volumes };
            self.cluster.add_node(&format!("{prefix}{n}"), shape);
        }
    }

    pub async fn change(&self, name: &str, kind: Kind, patch: &Value) {
        let (code, answer) = self.cluster.send("PATCH", &path(kind, name), patch).await;
        assert!(code < 300 || code == 404, "{name}: {code} {answer}");
    }

    /// All that went wrong is mended.
    async fn heal(&mut self) {
        self.note("heals".into());
        self.cluster.wire.set_faults(Faults::default());
        self.return_nodes();
        if self.theme.cpu_milli < EVERYDAY.cpu_milli {
            // Room for all.
            self.add_nodes("x", 4, EVERYDAY.cpu_milli);
        }
        self.cluster.live(5).await;
        for node in self.cluster.nodes.keys().cloned().collect::<Vec<_>>() {
            self.set_unschedulable(&node, false).await;
        }
        for (name, kind) in self.workloads.clone() {
            if kind == Kind::CronJob {
                self.change(&name, kind, &json!({"spec": {"suspend": true}})).await;
            } else if kind.rolls() {
                let patch = self.template("ok:last");
                self.change(&name, kind, &patch).await;
            }
        }
        // A StatefulSet leaves a pod that was never ready to people.
        self.cluster.live(5).await;
        for pod in self.stuck() {
            self.cluster.wire.note_cause("default", &pod, "admin", false);
            self.cluster.send("DELETE", &format!("/api/v1/namespaces/default/pods/{pod}"), &Value::Null).await;
        }
    }
}
