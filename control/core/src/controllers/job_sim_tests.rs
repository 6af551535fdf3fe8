//! Jobs in a small cluster in memory: watches that lag, conflicts, crashes in the middle of a plan, pods that end and are
//! deleted in any order. Every write is checked against a ledger of what each pod did.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::super::job_indexes::Indexes;
use super::super::job_pods::judge;
use super::super::testing::at;
use super::super::{Action, Plan};
use super::{FINALIZER, is_finished, reconcile};

/// Objects by name, at a revision.
type Snapshot<T> = (u64, T);

/// The cluster.
pub(super) struct Sim {
    revision: u64,
    pub seconds: i64,
    jobs: Vec<Snapshot<Value>>,
    pods: Vec<Snapshot<BTreeMap<String, Value>>>,
    /// How far the controller's watches got.
    job_seen: usize,
    pods_seen: usize,
    /// The newest revision of a pod that the controller knows it wrote.
    floor: u64,
    names: u32,
    counted: BTreeSet<String>,
    pub notes: Vec<String>,
    pub writes: usize,
    /// Pods that the API refuses to make.
    pub refuse: bool,
}

fn list<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a str> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn tracked(pod: &Value) -> bool {
    list(pod, "/metadata/finalizers").any(|f| f == FINALIZER)
}

pub(super) fn terminal(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

pub(super) fn deleting(pod: &Value) -> bool {
    pod.pointer("/metadata/deletionTimestamp").is_some()
}

fn index(pod: &Value) -> Option<i64> {
    pod.pointer("/metadata/annotations")?.get("batch.kubernetes.io/job-completion-index")?.as_str()?.parse().ok()
}

impl Sim {
    /// A cluster with one Job of a spec in YAML's flow style.
    pub fn new(spec: &str) -> Self {
        let mut spec: Value = serde_saphyr::from_str(&format!("{{{spec}}}")).unwrap();
        spec["selector"] = json!({"matchLabels": {"job": "j"}});
        if spec.get("template").is_none() {
            spec["template"] = json!({"spec": {"restartPolicy": "Never", "containers": [{"name": "c"}]}});
        }
        spec["template"]["metadata"] = json!({"labels": {"job": "j"}});
        let job = json!({
            "metadata": {"name": "j", "namespace": "shop", "uid": "uid-j", "resourceVersion": "1"}, "spec": spec,
        });
        Self {
            revision: 1,
            seconds: 0,
            jobs: vec![(1, job)],
            pods: vec![(1, BTreeMap::new())],
            job_seen: 0,
            pods_seen: 0,
            floor: 0,
            names: 0,
            counted: BTreeSet::new(),
            notes: Vec::new(),
            writes: 0,
            refuse: false,
        }
    }

    pub fn job(&self) -> &Value {
        &self.jobs.last().unwrap().1
    }
    pub fn pods(&self) -> &BTreeMap<String, Value> {
        &self.pods.last().unwrap().1
    }
    pub fn now(&self) -> Timestamp {
        at(self.seconds)
    }
    pub fn status(&self, field: &str) -> Value {
        self.job().pointer(&format!("/status/{field}")).cloned().unwrap_or_default()
    }
    /// The conditions that hold, with their reasons.
    pub fn conditions(&self) -> Vec<String> {
        let all = self.job().pointer("/status/conditions").and_then(Value::as_array).cloned().unwrap_or_default();
        let held = all.iter().filter(|c| text(c, "/status") == "True");
        held.map(|c| format!("{}:{}", text(c, "/type"), text(c, "/reason"))).collect()
    }
    pub fn ended(&self) -> bool {
        is_finished(&typed(self.job()))
    }
    /// Names of pods that run or are to run.
    pub fn active(&self) -> Vec<String> {
        self.pods().iter().filter(|(_, p)| !terminal(p) && !deleting(p)).map(|(n, _)| n.clone()).collect()
    }

    fn set_job(&mut self, mut job: Value) {
        self.revision += 1;
        job["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        self.jobs.push((self.revision, job));
    }
    pub fn set_pod(&mut self, name: &str, pod: Option<Value>) {
        self.revision += 1;
        let mut pods = self.pods().clone();
        match pod {
            // Deleted, its time over and held by nobody: it is gone.
            Some(pod) if deleting(&pod) && pod["metadata"]["deletionGracePeriodSeconds"] == 0 && !tracked(&pod) => {
                pods.remove(name);
            }
            Some(mut pod) => {
                pod["metadata"]["resourceVersion"] = json!(self.revision.to_string());
                pods.insert(name.into(), pod);
            }
            None => {
                pods.remove(name);
            }
        }
        self.pods.push((self.revision, pods));
    }
    pub fn change_spec(&mut self, spec: Value) {
        let mut job = self.job().clone();
        json_patch::merge(&mut job, &json!({"spec": spec}));
        self.set_job(job);
    }

    /// One pass of the controller on what it sees; stops after `limit` writes, as if it crashed there.
    pub fn pass(&mut self, limit: Option<usize>) -> Plan {
        let job: Job = typed(&self.jobs[self.job_seen].1);
        let seen = self.pods.get(self.pods_seen).filter(|(revision, _)| *revision >= self.floor);
        let pods: Vec<Arc<Pod>> =
            seen.or(self.pods.last()).unwrap().1.values().map(|p| Arc::new(typed::<Pod>(p))).collect();
        let mut plan = reconcile(&job, &pods, self.now(), true);
        if self.refuse && plan.actions.iter().any(|a| matches!(a, Action::Create { .. })) {
            plan = reconcile(&job, &pods, self.now(), false);
        }
        let (mut done, mut whole) = (0, true);
        for action in plan.actions.iter().chain(&plan.status) {
            if limit.is_some_and(|limit| done >= limit) {
                self.restart();
                return plan;
            }
            done += 1;
            if !self.act(action) {
                whole = false;
                break;
            }
        }
        self.writes += done;
        if whole {
            self.notes.extend(plan.notes.iter().map(|n| n.reason.to_string()));
        }
        plan
    }

    /// The controller starts anew: it lists.
    pub fn restart(&mut self) {
        (self.job_seen, self.pods_seen, self.floor) = (self.jobs.len() - 1, self.pods.len() - 1, 0);
    }
    /// The controller's watches get so many changes of the Job and of pods further.
    pub fn see(&mut self, jobs: usize, pods: usize) {
        self.job_seen = (self.job_seen + jobs).min(self.jobs.len() - 1);
        self.pods_seen = (self.pods_seen + pods).min(self.pods.len() - 1);
    }
    /// The controller's watches catch up.
    pub fn catch_up(&mut self) {
        (self.job_seen, self.pods_seen) = (self.jobs.len() - 1, self.pods.len() - 1);
    }

    /// Executes a write; false is a conflict.
    fn act(&mut self, action: &Action) -> bool {
        let name = action.target().name.clone();
        match action {
            Action::Create { object, .. } => self.create(object.clone()),
            Action::Delete { uid, .. } => {
                let Some(pod) = self.pods().get(&name).cloned() else { return true };
                assert_eq!(Some(text(&pod, "/metadata/uid")), uid.as_deref());
                self.delete(&name);
            }
            Action::Patch { subresource: "status", patch, .. } => return self.patch_status(patch),
            Action::Patch { patch, .. } => {
                let Some(mut pod) = self.pods().get(&name).cloned() else { return true };
                if patch["metadata"]["resourceVersion"] != pod["metadata"]["resourceVersion"] {
                    return false;
                }
                let held = tracked(&pod);
                json_patch::merge(&mut pod, patch);
                if held && !tracked(&pod) {
                    self.check_release(&pod);
                }
                self.set_pod(&name, Some(pod));
                self.floor = self.revision;
            }
        }
        true
    }

    /// Nothing that ended is let go before the status accounts for it.
    fn check_release(&self, pod: &Value) {
        let (uid, status) = (text(pod, "/metadata/uid"), &self.job()["status"]);
        let named = |kind: &str| list(status, &format!("/uncountedTerminatedPods/{kind}")).any(|u| u == uid);
        let indexed = self.job()["spec"]["completionMode"] == "Indexed";
        let completions = self.job()["spec"]["completions"].as_i64().unwrap_or(1);
        let out = indexed && index(pod).is_none_or(|i| i >= completions);
        let listed = index(pod).is_some_and(|i| {
            let i = i32::try_from(i).unwrap();
            Indexes::parse(text(status, "/completedIndexes"), 1000).has(i)
        });
        let accounted = named("succeeded") || named("failed") || (indexed && listed);
        let job: Job = typed(self.job());
        let ignored = judge(job.spec.as_ref().unwrap(), &typed(pod)).ignored;
        // What is deleted because the Job has succeeded is nobody's failure.
        let lingers = deleting(pod) && self.conditions().iter().any(|c| c.starts_with("SuccessCriteriaMet"));
        assert!(accounted || out || ignored || lingers || !terminal(pod), "lost {pod}\nby {}", self.job());
    }

    fn patch_status(&mut self, patch: &Value) -> bool {
        let mut job = self.job().clone();
        if patch["metadata"]["resourceVersion"] != job["metadata"]["resourceVersion"] {
            return false;
        }
        let uids = |job: &Value, kind: &str| -> BTreeSet<String> {
            let path = format!("/status/uncountedTerminatedPods/{kind}");
            list(job, &path).map(Into::into).collect()
        };
        let number =
            |job: &Value, field: &str| job.pointer(&format!("/status/{field}")).and_then(Value::as_i64).unwrap_or(0);
        let before = job.clone();
        json_patch::merge(&mut job, patch);
        let indexed = job["spec"]["completionMode"] == "Indexed";
        for kind in ["succeeded", "failed"] {
            let (old, new) = (uids(&before, kind), uids(&job, kind));
            let moved: Vec<&String> = old.difference(&new).collect();
            if kind == "failed" || !indexed {
                let grown = number(&job, kind) - number(&before, kind);
                assert_eq!(grown, i64::try_from(moved.len()).unwrap(), "{kind}: {before}\n{job}");
            }
            for uid in moved {
                assert!(self.counted.insert(uid.clone()), "{uid} is counted twice");
                let pod = self.pods().values().find(|p| text(p, "/metadata/uid") == uid);
                assert!(pod.is_none_or(|p| !tracked(p)), "{uid} is counted but held");
            }
            for uid in new.difference(&old) {
                assert!(!self.counted.contains(uid), "{uid} was counted before");
                let pod = self.pods().values().find(|p| text(p, "/metadata/uid") == uid).unwrap();
                assert!(tracked(pod), "{uid} was let go before");
                let phase = text(pod, "/status/phase");
                let fits = if kind == "succeeded" { phase == "Succeeded" } else { phase == "Failed" || deleting(pod) };
                assert!(fits, "{kind}: {pod}");
            }
        }
        assert!(uids(&job, "succeeded").is_disjoint(&uids(&job, "failed")));
        let refused = crate::kinds::job_status::change(&job, &before);
        assert!(refused.is_empty(), "{refused:?}\n{before}\n{job}");
        self.set_job(job);
        true
    }

    fn create(&mut self, mut pod: Value) {
        self.names += 1;
        let name = format!("{}{}", text(&pod, "/metadata/generateName"), self.names);
        pod["metadata"]["name"] = json!(name);
        pod["metadata"]["namespace"] = json!("shop");
        pod["metadata"]["uid"] = json!(format!("uid-{name}"));
        pod["metadata"]["creationTimestamp"] = json!(self.now().to_string());
        pod["status"] = json!({"phase": "Pending"});
        let same =
            self.pods().values().filter(|p| !terminal(p) && !deleting(p) && tracked(p) && index(p) == index(&pod));
        assert!(index(&pod).is_none() || same.count() == 0, "two pods of one index");
        self.set_pod(&name, Some(pod));
        self.floor = self.revision;
        // The controller may know of fewer changes of the spec than there were: it made no more than it could have.
        let most = self.jobs.iter().map(|(_, job)| job["spec"]["parallelism"].as_i64().unwrap_or(1)).max().unwrap();
        let active = self.pods().values().filter(|p| !terminal(p) && !deleting(p) && tracked(p)).count();
        assert!(i64::try_from(active).unwrap() <= most, "{active} active of {most}");
    }

    /// Someone deletes a pod.
    pub fn delete(&mut self, name: &str) {
        let Some(mut pod) = self.pods().get(name).cloned().filter(|p| !deleting(p)) else { return };
        let bound = pod.pointer("/spec/nodeName").is_some() && !terminal(&pod);
        pod["metadata"]["deletionTimestamp"] = json!(self.now().to_string());
        pod["metadata"]["deletionGracePeriodSeconds"] = json!(if bound { 30 } else { 0 });
        self.set_pod(name, Some(pod));
    }
    /// The pod gets a node and runs.
    pub fn run(&mut self, name: &str) {
        let Some(mut pod) = self.pods().get(name).cloned().filter(|p| !terminal(p) && !deleting(p)) else { return };
        pod["spec"]["nodeName"] = json!("n");
        pod["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        self.set_pod(name, Some(pod));
    }
    /// The pod's container ends with a code; a deleted pod's time is over then.
    pub fn end(&mut self, name: &str, code: i32) {
        let Some(mut pod) = self.pods().get(name).cloned().filter(|p| p.pointer("/spec/nodeName").is_some()) else {
            return;
        };
        if !terminal(&pod) {
            let ended = json!({"exitCode": code, "finishedAt": self.now().to_string()});
            pod["status"] = json!({
                "phase": if code == 0 { "Succeeded" } else { "Failed" },
                "containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
                    "state": {"terminated": ended}}],
            });
        }
        if deleting(&pod) {
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(0);
        }
        self.set_pod(name, Some(pod));
    }
    /// Something else of the pod changes.
    pub fn touch(&mut self, name: &str) {
        if let Some(mut pod) = self.pods().get(name).cloned() {
            pod["metadata"]["annotations"]["touched"] = json!(self.revision.to_string());
            self.set_pod(name, Some(pod));
        }
    }

    /// Lets the controller work, and time pass where it waits, until it has nothing to do; `node` runs between.
    pub fn settle(&mut self, mut node: impl FnMut(&mut Self) -> bool) {
        for _ in 0..2000 {
            self.catch_up();
            let plan = self.pass(None);
            let moved = node(self);
            if plan.is_empty() && !moved {
                match plan.requeue_after {
                    Some(wait) => self.seconds += i64::try_from(wait.as_secs()).unwrap() + 1,
                    None => return,
                }
            }
        }
        panic!("never at rest: {}\n{:?}", self.job(), self.pods());
    }
}

pub(super) fn typed<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// A node that runs every pod and ends it with what `code` says.
pub(super) fn node(mut code: impl FnMut(&str, &Value) -> Option<i32>) -> impl FnMut(&mut Sim) -> bool {
    move |sim| {
        let mut moved = false;
        for (name, pod) in sim.pods().clone() {
            if deleting(&pod) {
                let over = pod["metadata"]["deletionGracePeriodSeconds"] == 0;
                if !over {
                    sim.end(&name, 143);
                    moved = true;
                }
            } else if text(&pod, "/status/phase") == "Pending" {
                sim.run(&name);
                moved = true;
            } else if !terminal(&pod)
                && let Some(code) = code(&name, &pod)
            {
                sim.end(&name, code);
                moved = true;
            }
        }
        moved
    }
}
