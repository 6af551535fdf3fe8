//! The promises that each single commit must keep. Where one rests on what an actor has seen, it is held against all
//! that was true within the time by which views may lag.

use std::time::Duration;

use copepod_api::names::USER_SCHEDULER;
use serde_json::Value;

use super::{Loss, World, active, amount, available, going, name, number, over, owner, text, uid};
use crate::wire::Cause;

const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// What budgets are counted by.
const GUARDED: [&str; 5] = ["pods", "poddisruptionbudgets", "deployments", "replicasets", "statefulsets"];

impl World {
    /// Holds one commit against the rules.
    pub(super) fn obey(&mut self, key: &str, old: Option<&Value>, new: Option<&Value>) {
        let resource = key.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
        let Some(last) = new.or(old) else { return };
        match resource.as_str() {
            "/core/pods" => self.pod(old, new),
            "/core/nodes" => self.node(last),
            "/core/persistentvolumeclaims" => self.claim(key, old, new),
            "/core/persistentvolumes" => self.volume(key, old, new),
            "/apps/deployments" => {
                self.rescaled(key, old, last);
                self.deployment(key, last);
            }
            "/apps/replicasets" => {
                self.rescaled(key, old, last);
                self.replica_set(key, old, last);
            }
            "/apps/statefulsets" => {
                self.rescaled(key, old, last);
                self.note_replicas(key, number(last, "/spec/replicas"));
            }
            "/batch/jobs" => {
                if let (None, Some(job)) = (old, new) {
                    self.scheduled(job);
                }
                self.job(key, old, last);
            }
            "/batch/cronjobs" => self.cron_job(key, last),
            "/autoscaling/horizontalpodautoscalers" => self.autoscaler(last),
            _ => {}
        }
    }

    pub(super) fn note_replicas(&mut self, key: &str, replicas: i64) {
        let now = self.now();
        self.memory.replicas.entry(key.into()).or_default().set(now, replicas);
    }

    /// See [`Wire::lag`](crate::wire::Wire::lag).
    pub(super) fn lag(&mut self, name: &str, steps: &[&[&str]]) -> Duration {
        let lag = self.wire.lag(name, steps);
        self.lags.push(lag);
        lag
    }

    fn pod(&mut self, old: Option<&Value>, new: Option<&Value>) {
        let was = |f: fn(&Value) -> bool| old.is_some_and(f);
        let Some(pod) = new.or(old) else { return };
        let (namespace, app) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/labels/app"));
        let cause = self.wire.cause(namespace, name(pod));
        if was(|p| !going(p)) && new.is_none_or(going) && cause.as_ref().is_some_and(|c| c.user == USER_SCHEDULER) {
            self.preempted(pod);
        }
        self.note_waiting(pod, new.is_some());
        if was(available) && !new.is_some_and(available) {
            let loss = match &cause {
                _ if !new.is_none_or(going) => Loss::Other,
                Some(Cause { eviction: true, .. }) => Loss::Eviction,
                Some(Cause { user, .. }) if user.contains(":replicaset-controller") => Loss::Controller,
                _ => Loss::Other,
            };
            let now = self.now();
            let losses = self.memory.losses.entry((namespace.into(), app.into())).or_default();
            losses.push_back((now, loss));
            losses.retain(|(at, _)| now.duration_since(*at).unsigned_abs() <= super::MEMORY);
            match loss {
                Loss::Eviction => self.evicted(pod),
                Loss::Controller => self.scaled_down(pod),
                Loss::Other => {}
            }
        }
        let Some(pod) = new else { return };
        if old.is_none() {
            self.created(pod);
        }
        let (before, node) = (old.map_or("", |p| text(p, "/spec/nodeName")), text(pod, "/spec/nodeName"));
        if !before.is_empty() && before != node {
            self.violate(format!("{} moved from {before} to {node}", name(pod)));
        } else if before.is_empty() && !node.is_empty() {
            self.placed(pod, node);
            self.has_its_volumes(pod, node);
        }
        if let Some(job) = owner(pod).filter(|o| o["kind"] == "Job") {
            let job = text(job, "/uid").to_string();
            if text(pod, "/status/phase") == "Succeeded" {
                self.memory.succeeded.entry(job).or_default().insert(uid(pod).into());
            } else if over(pod) || going(pod) {
                self.memory.failed.entry(job).or_default().insert(uid(pod).into());
            }
        }
    }

    /// A new pod must be wanted.
    fn created(&mut self, pod: &Value) {
        let Some(owner) = owner(pod) else { return };
        let (kind, of) = (text(owner, "/kind"), text(owner, "/uid"));
        let namespace = text(pod, "/metadata/namespace");
        let (group, plural) = match kind {
            "ReplicaSet" => ("apps", "replicasets"),
            "StatefulSet" => ("apps", "statefulsets"),
            "DaemonSet" => ("apps", "daemonsets"),
            "Job" => ("batch", "jobs"),
            _ => return,
        };
        let key = format!("/{group}/{plural}/{namespace}/{}", text(owner, "/name"));
        let (now, lag) = (self.now(), self.lag(text(owner, "/name"), &[&[plural]]));
        let asked = self.memory.replicas.get(&key).and_then(|r| r.within(now, lag).max()).unwrap_or(0);
        if kind == "StatefulSet" {
            let ordinal = name(pod).rsplit_once('-').and_then(|(_, n)| n.parse::<i64>().ok());
            if ordinal.is_none_or(|ordinal| ordinal >= asked) {
                self.violate(format!("{} is made, but only {asked} are asked for", name(pod)));
            }
            return;
        }
        if kind == "DaemonSet" {
            let on = daemon_node(pod);
            let there = self.pods_of(of).filter(|p| active(p) && daemon_node(p) == on).count();
            if there > 1 {
                self.violate(format!("{} is number {there} of its DaemonSet on {on}", name(pod)));
            }
            return;
        }
        let there = self.pods_of(of).filter(|p| active(p)).count();
        if there as i64 > asked {
            self.violate(format!(
                "{} is number {there} of {kind} {}, which asks for {asked}",
                name(pod),
                text(owner, "/name")
            ));
        }
    }

    /// A pod that is bound must fit, and be welcome.
    fn placed(&mut self, pod: &Value, on: &str) {
        let Some(node) = self.objects.get(&format!("/core/nodes/{on}")) else { return };
        let there = || self.pods().filter(|p| text(p, "/spec/nodeName") == on && !over(p));
        let mut broken = Vec::new();
        for what in ["cpu", "memory", "pods"] {
            let room = amount(text(node, &format!("/status/allocatable/{what}")));
            let used: i64 = there().map(|p| request(p, what)).sum();
            if used > room {
                broken.push(format!("{} does not fit on {on}: {what} {used} of {room}", name(pod)));
            }
        }
        let labels = node.pointer("/metadata/labels").cloned().unwrap_or_default();
        for (label, value) in pod.pointer("/spec/nodeSelector").and_then(Value::as_object).into_iter().flatten() {
            if labels.get(label) != Some(value) {
                broken.push(format!("{} is on {on}, which is not {label}={value}", name(pod)));
            }
        }
        let (now, lag) = (self.now(), self.lag(name(pod), &[&["nodes"]]));
        for ((_, taint), since) in self.memory.tainted.iter().filter(|((node, _), _)| node == on) {
            if *since + lag < now && !tolerates(pod, taint) {
                broken.push(format!("{} is put on {on}, which has {taint} since {since}", name(pod)));
            }
        }
        broken.into_iter().for_each(|what| self.violate(what));
    }

    /// What an eviction takes must be left over by the budgets.
    fn evicted(&mut self, pod: &Value) {
        let (namespace, app) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/labels/app"));
        let (now, lag) = (self.now(), self.lag(app, &[&GUARDED]));
        let healthy = self.serving(namespace, app) + self.lost(namespace, app, lag, |loss| loss == Loss::Other);
        let mut broken = Vec::new();
        for (key, budget) in self.all("policy/poddisruptionbudgets") {
            if text(budget, "/spec/selector/matchLabels/app") != app || text(budget, "/metadata/namespace") != namespace
            {
                continue;
            }
            let replicas = ["deployments", "statefulsets"].into_iter().find_map(|kind| {
                self.memory.replicas.get(&format!("/apps/{kind}/{namespace}/{app}"))?.within(now, lag).min()
            });
            let needed = match budget.pointer("/spec/minAvailable").and_then(Value::as_i64) {
                Some(needed) => needed,
                None => replicas.unwrap_or(0) - number(budget, "/spec/maxUnavailable"),
            };
            if healthy < needed {
                broken.push(format!("{} is evicted, {healthy} are left, {key} needs {needed}", name(pod)));
            }
        }
        broken.into_iter().for_each(|what| self.violate(what));
    }

    /// A pod that a ReplicaSet deletes for a rollout must not be missed.
    fn scaled_down(&mut self, pod: &Value) {
        let Some(set) = owner(pod) else { return };
        let (namespace, app) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/labels/app"));
        let set = self.objects.get(&format!("/apps/replicasets/{namespace}/{}", text(set, "/name")));
        let Some(deployment) = set.and_then(owner) else { return };
        let key = format!("/apps/deployments/{namespace}/{}", text(deployment, "/name"));
        let (now, lag) =
            (self.now(), self.lag(app, &[&["replicasets", "pods"], &["deployments", "replicasets", "pods"]]));
        let Some(floor) = self.memory.floors.get(&key).and_then(|f| f.within(now, lag).min()) else { return };
        let serving = self.serving(namespace, app);
        let lost = self.lost(namespace, app, lag, |loss| loss != Loss::Controller);
        if self.objects.contains_key(&key) && serving + lost < floor {
            self.violate(format!("{} is deleted, {serving} serve, {lost} were lost, {floor} must", name(pod)));
        }
    }

    fn serving(&self, namespace: &str, app: &str) -> i64 {
        let of = |p: &&Value| text(p, "/metadata/namespace") == namespace && text(p, "/metadata/labels/app") == app;
        self.pods().filter(of).filter(|p| available(p)).count() as i64
    }

    /// Pods lost so lately that not all have seen it.
    fn lost(&self, namespace: &str, app: &str, lag: Duration, counts: impl Fn(Loss) -> bool) -> i64 {
        let now = self.now();
        let losses = self.memory.losses.get(&(namespace.into(), app.into()));
        let lately = losses.into_iter().flatten().filter(|(at, loss)| *at + lag >= now && counts(*loss));
        lately.count() as i64
    }

    fn node(&mut self, node: &Value) {
        let now = self.now();
        let name = name(node).to_string();
        let taints = node.pointer("/spec/taints").and_then(Value::as_array).into_iter().flatten();
        let mut keys: Vec<&str> = taints.filter(|t| t["effect"] == "NoSchedule").map(|t| text(t, "/key")).collect();
        if node.pointer("/spec/unschedulable") == Some(&Value::Bool(true)) {
            keys.push(UNSCHEDULABLE);
        }
        self.memory.tainted.retain(|(on, key), _| *on != name || keys.contains(&key.as_str()));
        for key in keys {
            self.memory.tainted.entry((name.clone(), key.into())).or_insert(now);
        }
    }
}

/// The node that a daemon's pod is for.
fn daemon_node(pod: &Value) -> &str {
    let terms = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    text(pod, &format!("{terms}/0/matchFields/0/values/0"))
}

fn tolerates(pod: &Value, taint: &str) -> bool {
    let tolerations = pod.pointer("/spec/tolerations").and_then(Value::as_array);
    tolerations.into_iter().flatten().any(|t| {
        let effect = text(t, "/effect");
        [taint, ""].contains(&text(t, "/key")) && ["", "NoSchedule"].contains(&effect)
    })
}

/// What a pod asks for; of pods, one.
fn request(pod: &Value, what: &str) -> i64 {
    if what == "pods" {
        return 1000;
    }
    let containers = pod.pointer("/spec/containers").and_then(Value::as_array);
    containers.into_iter().flatten().map(|c| amount(text(c, &format!("/resources/requests/{what}")))).sum()
}
