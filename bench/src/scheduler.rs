//! The scheduler's decisions alone, on one thread of this process: pods a second at several sizes of clusters, plain
//! and with affinity and spreading, on clusters with few and with many pods.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use copepod_core::scheduler::{Cursor, Decision, PodInfo, Profile, Snapshot, schedule};
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use crate::program::step;
use crate::report::{Samples, number, table};

const NODES: [usize; 3] = [100, 1_000, 10_000];
/// Pods on each node before the measurement.
const PLACED: [usize; 2] = [1, 5];
const ZONES: usize = 10;
/// Pods that are placed in each round.
const PODS: usize = 2_000;
/// Pods of one Deployment.
const REPLICAS: usize = 50;
const ROUNDS: usize = 3;

/// What the pods ask for.
#[derive(Clone, Copy)]
enum Kind {
    /// CPU and memory.
    Plain,
    /// Besides: away from their siblings' nodes, evenly over zones, evenly over nodes, rather near another's pods.
    Bound,
}

/// Measures all clusters; `quick`, a few pods on the smallest.
///
/// # Errors
/// A pod was not placed.
pub fn run(quick: bool) -> Result<String> {
    let (sizes, before, pods, rounds): (&[usize], &[usize], _, _) =
        if quick { (&[10], &[1], 20, 1) } else { (&NODES, &PLACED, PODS, ROUNDS) };
    let mut rows = Vec::new();
    for kind in [Kind::Plain, Kind::Bound] {
        let mut least: Option<(f64, f64)> = None;
        for &placed in before {
            for &nodes in sizes {
                step(&format!("{} pods onto {nodes} nodes with {placed} pods each", kind.name()));
                let (mut rate, mut worst, mut steps) = (Samples::default(), Samples::default(), 0.0);
                for _ in 0..rounds {
                    let took = round(kind, nodes, placed, pods)?;
                    rate.push(pods as f64 / took.seconds);
                    worst.push(took.longest.as_secs_f64() * 1e6);
                    steps = took.steps as f64 / pods as f64;
                }
                let cost = 1e6 / rate.median();
                let product = (nodes * nodes * placed) as f64;
                let (first_cost, first_product) = *least.get_or_insert((cost, product));
                rows.push(vec![
                    kind.name().into(),
                    nodes.to_string(),
                    (nodes * placed).to_string(),
                    rate.show("/s"),
                    number(cost),
                    number(worst.median()),
                    number(steps),
                    format!("{:.0}x", product / first_product),
                    format!("{:.1}x", cost / first_cost),
                ]);
            }
        }
    }
    let columns = [
        "Pods",
        "Nodes",
        "Pods there before",
        "Pods placed",
        "us each",
        "Longest, us",
        "Steps each",
        "Nodes times pods grew",
        "Cost of a pod grew",
    ];
    Ok(format!(
        "{pods} pods of Deployments of {REPLICAS}, one after the other on one thread, each worked out, decided and assumed; \
         no API, no bindings. Steps are nodes asked and compared, and nodes and pods looked at to begin a count. \"Bound\" \
         pods have required anti-affinity to their siblings by node, a required spread constraint by zone ({ZONES} zones), a \
         preferred one by node, and preferred affinity to another Deployment. Medians \
         (least to greatest).\n\n{}",
        table(&columns, &rows)
    ))
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Bound => "bound",
        }
    }
}

/// What placing the pods took.
struct Took {
    seconds: f64,
    longest: Duration,
    steps: u64,
}

/// Places the pods.
fn round(kind: Kind, nodes: usize, placed: usize, pods: usize) -> Result<Took> {
    let mut snapshot = Snapshot::default();
    for n in 0..nodes {
        snapshot.set_node(Arc::new(node(n)?));
    }
    for n in 0..nodes * placed {
        snapshot.assume(&PodInfo::of(Arc::new(pod(kind, "old", n, nodes)?)), &format!("node-{}", n % nodes));
    }
    let pods = (0..pods).map(|n| Ok(Arc::new(pod(kind, "new", n, nodes)?))).collect::<Result<Vec<_>>>()?;
    let (profile, mut cursor, mut longest) = (Profile::default(), Cursor::default(), Duration::ZERO);
    let start = Instant::now();
    for pod in pods {
        let begin = Instant::now();
        let info = PodInfo::of(pod);
        match schedule(&info, &mut snapshot, &profile, &mut cursor) {
            Decision::Bind(node) => snapshot.assume(&info, &node),
            other => bail!("{} was not placed: {other:?}", info.name()),
        }
        longest = longest.max(begin.elapsed());
    }
    Ok(Took { seconds: start.elapsed().as_secs_f64(), longest, steps: snapshot.work().steps() })
}

fn node(n: usize) -> Result<Node> {
    let name = format!("node-{n}");
    let zone = format!("zone-{}", n % ZONES);
    let value = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone}},
        "status": {"allocatable": {"cpu": "64", "memory": "256Gi", "pods": "250"}},
    });
    Ok(serde_json::from_value(value)?)
}

fn pod(kind: Kind, prefix: &str, n: usize, nodes: usize) -> Result<Pod> {
    // On few nodes, Deployments are as large as on many.
    let app = format!("{prefix}-{}", n / REPLICAS.min(nodes));
    let selector = json!({"matchLabels": {"app": app}});
    let friend = json!({"matchLabels": {"app": format!("old-{}", n / REPLICAS.min(nodes))}});
    let mut spec = json!({
        "containers": [{"name": "main", "image": "web:1", "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}}}],
    });
    if let (Kind::Bound, Value::Object(spec)) = (kind, &mut spec) {
        spec.insert("affinity".into(), json!({
            "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
                {"topologyKey": "kubernetes.io/hostname", "labelSelector": selector},
            ]},
            "podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 10, "podAffinityTerm": {"topologyKey": "topology.kubernetes.io/zone", "labelSelector": friend}},
            ]},
        }));
        let constraint = |key: &str, when: &str| json!({"maxSkew": 1, "topologyKey": key, "whenUnsatisfiable": when, "labelSelector": selector});
        spec.insert(
            "topologySpreadConstraints".into(),
            json!([
                constraint("topology.kubernetes.io/zone", "DoNotSchedule"),
                constraint("kubernetes.io/hostname", "ScheduleAnyway"),
            ]),
        );
    }
    let name = format!("{app}-{n}");
    let value = json!({
        "metadata": {
            "name": name, "namespace": "default", "uid": name, "labels": {"app": app},
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": app, "uid": app, "controller": true},
            ],
        },
        "spec": spec,
    });
    Ok(serde_json::from_value(value)?)
}
