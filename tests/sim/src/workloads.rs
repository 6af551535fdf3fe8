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
    CronJob,
}

impl Kind {
    /// Those that make pods themselves. Deployments and StatefulSets have the most that can go wrong.
    pub const COMMON: [Self; 8] = [
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
    /// Of the API that it is in.
    pub fn api_version(self) -> &'static str {
        if matches!(self, Self::Job | Self::CronJob) { "batch/v1" } else { "apps/v1" }
    }
    /// The path of its collection in `default`.
    pub fn collection(self) -> String {
        let (group, plural) = match self {
            Self::Deployment => ("apps", "deployments"),
            Self::ReplicaSet => ("apps", "replicasets"),
            Self::StatefulSet => ("apps", "statefulsets"),
            Self::DaemonSet => ("apps", "daemonsets"),
            Self::Job => ("batch", "jobs"),
            Self::CronJob => ("batch", "cronjobs"),
        };
        format!("/apis/{group}/v1/namespaces/default/{plural}")
    }
}

/// The path of a workload.
pub fn path(kind: Kind, name: &str) -> String {
    format!("{}/{name}", kind.collection())
}

/// How workloads are drawn.
#[derive(Debug, Clone, Copy)]
pub struct Draw {
    pub kinds: &'static [Kind],
    /// Replicas of each, at most.
    pub replicas: i64,
    /// Chances that one has an autoscaler, and a StatefulSet claims.
    pub autoscaled: f64,
    pub claims: f64,
    /// Whether they matter differently.
    pub priorities: bool,
}

/// Priority classes by name: how much pods matter, and whether they may end others.
pub const PRIORITIES: [(&str, i64, &str); 4] = [
    ("low", 100, "PreemptLowerPriority"),
    ("middle", 1000, "PreemptLowerPriority"),
    ("high", 10_000, "PreemptLowerPriority"),
    ("polite", 20_000, "Never"),
];

/// What a container asks for.
pub fn requests(random: &mut StdRng) -> Value {
    json!({"requests": {"cpu": format!("{}m", random.random_range(50..300)), "memory": "64Mi"}})
}

fn pod(kind: Kind, draw: &Draw, random: &mut StdRng) -> Value {
    let image = match kind {
        Kind::Job => format!("job:{}", [0, 0, 30].choose(random).unwrap()),
        Kind::CronJob => (*["job:0", "job:30", "long:0", "long:0", "long:0"].choose(random).unwrap()).into(),
        _ => "ok:1".into(),
    };
    let mut pod = json!({"containers": [{"name": "c", "image": image, "resources": requests(random)}]});
    if random.random_bool(0.2) {
        pod["nodeSelector"] = json!({"disk": "ssd"});
    }
    if random.random_bool(0.2) {
        // Never 0, which would end an object before its containers.
        pod["terminationGracePeriodSeconds"] = json!(random.random_range(1..5));
    }
    if draw.priorities {
        pod["priorityClassName"] = json!(PRIORITIES.choose(random).unwrap().0);
    }
    if matches!(kind, Kind::Job | Kind::CronJob) {
        pod["restartPolicy"] = json!("Never");
    }
    pod
}

/// A workload whose pods have the label `app: NAME`.
pub fn workload(kind: Kind, name: &str, draw: &Draw, random: &mut StdRng) -> Value {
    let labels = json!({"app": name});
    let template = json!({"metadata": {"labels": labels}, "spec": pod(kind, draw, random)});
    let mut spec = match kind {
        Kind::Job => job(template, draw.replicas, random),
        Kind::CronJob => cron_job(job(template, 2, random), random),
        _ => json!({"selector": {"matchLabels": labels}, "template": template}),
    };
    if kind.has_scale() {
        spec["replicas"] = json!(random.random_range(0..=draw.replicas));
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
            if random.random_bool(draw.claims) {
                claims(&mut spec, random);
            }
        }
        Kind::DaemonSet => {
            let fewer = [json!(1), json!("50%")].choose(random).unwrap().clone();
            spec["updateStrategy"] = json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": fewer}});
        }
        Kind::ReplicaSet | Kind::Job | Kind::CronJob => {}
    }
    json!({"apiVersion": kind.api_version(), "kind": format!("{kind:?}"), "metadata": {"name": name, "labels": labels}, "spec": spec})
}

fn job(template: Value, most: i64, random: &mut StdRng) -> Value {
    let mut spec = json!({"template": template, "completions": random.random_range(1..=most),
        "parallelism": random.random_range(1..=4), "backoffLimit": 20});
    if random.random_bool(0.4) {
        spec["completionMode"] = json!("Indexed");
    }
    spec
}

/// Every minute or two.
fn cron_job(job: Value, random: &mut StdRng) -> Value {
    let policy = ["Forbid", "Replace", "Allow"].choose(random).unwrap();
    let mut spec = json!({"schedule": format!("*/{} * * * *", random.random_range(1..=2)), "jobTemplate": {"spec": job},
        "concurrencyPolicy": policy,
        "successfulJobsHistoryLimit": random.random_range(0..=2), "failedJobsHistoryLimit": 1});
    if random.random_bool(0.3) {
        spec["startingDeadlineSeconds"] = json!(random.random_range(20..=200));
    }
    spec
}

/// Gives a StatefulSet's pods volumes of the default class.
fn claims(set: &mut Value, random: &mut StdRng) {
    let mut keep = || *["Retain", "Delete"].choose(random).unwrap();
    set["persistentVolumeClaimRetentionPolicy"] = json!({"whenScaled": keep(), "whenDeleted": keep()});
    set["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec":
        {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]);
}

/// A budget for the pods of a workload.
pub fn budget(name: &str, random: &mut StdRng) -> Value {
    let mut spec = json!({"selector": {"matchLabels": {"app": name}}});
    let field = if random.random_bool(0.5) { "minAvailable" } else { "maxUnavailable" };
    spec[field] = json!(random.random_range(1..=2));
    json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name}, "spec": spec})
}

/// On an autoscaler: what all pods of its workload use together, in thousandths of a core.
pub const LOAD: &str = "sim.copepod/load";

/// An autoscaler of a workload, of its name.
pub fn autoscaler(kind: Kind, name: &str, replicas: i64, random: &mut StdRng) -> Value {
    let least = random.random_range(1..=2);
    let used = json!({"type": "Utilization", "averageUtilization": random.random_range(40..=90)});
    let target = json!({"apiVersion": kind.api_version(), "kind": format!("{kind:?}"), "name": name});
    // With none at all, it takes a pod away again whose use cannot be told yet.
    let window = [30, 60, 90].choose(random).unwrap();
    json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "annotations": {LOAD: "0"}},
        "spec": {"minReplicas": least, "maxReplicas": random.random_range(least + 1..=replicas), "scaleTargetRef": target,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": used}}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": window}}}})
}

/// A Service for the pods of a workload.
pub fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80}]}})
}

/// The class of the volumes that are made by hand.
pub const BY_HAND: &str = "by-hand";

/// The storage classes: the default one, as every server makes it, and one of volumes that are made by hand.
pub fn storage_classes() -> [Value; 2] {
    let class = |name: &str, provisioner: &str, mode: &str| {
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": name},
            "provisioner": provisioner, "volumeBindingMode": mode, "reclaimPolicy": "Delete"})
    };
    let mut usual = class("local-path", copepod_api::names::LOCAL_PATH, "WaitForFirstConsumer");
    usual["metadata"]["annotations"] = json!({"storageclass.kubernetes.io/is-default-class": "true"});
    [usual, class(BY_HAND, "kubernetes.io/no-provisioner", "Immediate")]
}

/// A volume that is made by hand.
pub fn volume(name: &str, size: i64) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
        "capacity": {"storage": format!("{size}Gi")}, "accessModes": ["ReadWriteOnce"], "storageClassName": BY_HAND,
        "persistentVolumeReclaimPolicy": "Retain", "csi": {"driver": "example.com", "volumeHandle": name}}})
}

/// A claim for one.
pub fn claim(name: &str, size: i64) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": BY_HAND,
        "resources": {"requests": {"storage": format!("{size}Gi")}}}})
}

/// A priority class.
pub fn priority_class((name, value, policy): (&str, i64, &str)) -> Value {
    json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value,
        "preemptionPolicy": policy})
}
