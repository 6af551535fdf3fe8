//! Workloads as people ask for them, drawn at random.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

/// A kind of workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Deployment,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    Job,
}

impl Kind {
    /// Deployments and StatefulSets have the most that can go wrong.
    pub const ALL: [Self; 8] = [
        Self::Deployment,
        Self::Deployment,
        Self::Deployment,
        Self::StatefulSet,
        Self::StatefulSet,
        Self::ReplicaSet,
        Self::DaemonSet,
        Self::Job,
    ];
    /// Whether replicas are asked for.
    pub fn has_scale(self) -> bool {
        matches!(self, Self::Deployment | Self::StatefulSet | Self::ReplicaSet)
    }
    /// Whether a new template replaces pods.
    pub fn rolls(self) -> bool {
        matches!(self, Self::Deployment | Self::StatefulSet | Self::DaemonSet)
    }
    /// The path of its collection in `default`.
    pub fn collection(self) -> String {
        let (group, plural) = match self {
            Self::Deployment => ("apps", "deployments"),
            Self::ReplicaSet => ("apps", "replicasets"),
            Self::StatefulSet => ("apps", "statefulsets"),
            Self::DaemonSet => ("apps", "daemonsets"),
            Self::Job => ("batch", "jobs"),
        };
        format!("/apis/{group}/v1/namespaces/default/{plural}")
    }
}

/// The path of a workload.
pub fn path(kind: Kind, name: &str) -> String {
    format!("{}/{name}", kind.collection())
}

/// A workload whose pods have the label `app: NAME`.
pub fn workload(kind: Kind, name: &str, replicas: i64, random: &mut StdRng) -> Value {
    let image = match kind {
        Kind::Job => format!("job:{}", [0, 0, 30].choose(random).unwrap()),
        _ => "ok:1".into(),
    };
    let cpu = format!("{}m", random.random_range(50..300));
    let mut pod = json!({"containers": [{"name": "c", "image": image, "resources": {"requests": {"cpu": cpu, "memory": "64Mi"}}}]});
    if random.random_bool(0.2) {
        pod["nodeSelector"] = json!({"disk": "ssd"});
    }
    if random.random_bool(0.2) {
        // Never 0, which would end an object before its containers.
        pod["terminationGracePeriodSeconds"] = json!(random.random_range(1..5));
    }
    let labels = json!({"app": name});
    let mut spec =
        json!({"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}});
    if kind.has_scale() {
        spec["replicas"] = json!(random.random_range(0..=replicas));
    }
    match kind {
        Kind::Deployment if random.random_bool(0.2) => spec["strategy"] = json!({"type": "Recreate"}),
        Kind::Deployment => {
            let surge = [json!(0), json!(1), json!(2), json!("25%"), json!("50%")];
            let fewer = [json!(1), json!(2), json!("30%"), json!(0)];
            let surge = surge.choose(random).unwrap();
            let fewer = if surge == &json!(0) { &fewer[0] } else { fewer.choose(random).unwrap() };
            spec["strategy"] =
                json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": fewer}});
            if random.random_bool(0.2) {
                spec["minReadySeconds"] = json!(2);
            }
        }
        Kind::StatefulSet => {
            spec["serviceName"] = json!(name);
            if random.random_bool(0.4) {
                spec["podManagementPolicy"] = json!("Parallel");
            }
        }
        Kind::DaemonSet => {
            let fewer = [json!(1), json!("50%")].choose(random).unwrap().clone();
            spec["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": fewer}});
        }
        Kind::Job => {
            spec["template"]["spec"]["restartPolicy"] = json!("Never");
            spec["completions"] = json!(random.random_range(1..=replicas));
            spec["parallelism"] = json!(random.random_range(1..=4));
            spec["backoffLimit"] = json!(20);
            if random.random_bool(0.4) {
                spec["completionMode"] = json!("Indexed");
            }
            spec.as_object_mut().unwrap().remove("selector");
        }
        Kind::ReplicaSet => {}
    }
    let (version, kind) = (if kind == Kind::Job { "batch/v1" } else { "apps/v1" }, format!("{kind:?}"));
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels}, "spec": spec})
}

/// A budget for the pods of a workload.
pub fn budget(name: &str, random: &mut StdRng) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"app": name}}});
    let field = if random.random_bool(0.5) { "minAvailable" } else { "maxUnavailable" };
    spec[field] = json!(random.random_range(1..=2));
    json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name}, "spec": spec})
}

/// A Service for the pods of a workload.
pub fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}]}})
}
