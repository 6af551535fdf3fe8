//! A Job and its pods as one pass sees them: which pods count for what.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::Pod;

use super::job::size;
use super::job_indexes::Indexes;
use super::job_pods::{self as pods, index_of, is_tracked};
use super::job_status::{self as status, Interim, SUCCESS_CRITERIA_MET};
use super::meta::text;
use super::pod;

/// A Job and its pods as one pass sees them.
pub(super) struct View<'a> {
    pub job: &'a Job,
    pub spec: &'a JobSpec,
    pub now: Timestamp,
    /// The Job's pods.
    pub pods: Vec<Arc<Pod>>,
    /// UIDs that the observed status names as uncounted.
    pub uncounted_succeeded: HashSet<&'a str>,
    pub uncounted_failed: HashSet<&'a str>,
    /// Succeeded indexes of the observed status.
    pub committed: Indexes,
    /// Those and the ones of pods that succeeded since.
    pub succeeded: Indexes,
    /// Failed indexes, if the Job has a limit per index.
    pub failed: Option<Indexes>,
    /// By index, the failed pod that stays until its replacement knows how often the index failed.
    pub held: BTreeMap<i32, Arc<Pod>>,
    /// How the Job ends, once that is sure.
    pub interim: Option<Interim>,
}

impl<'a> View<'a> {
    pub fn new(job: &'a Job, spec: &'a JobSpec, pods: Vec<Arc<Pod>>, now: Timestamp) -> Self {
        let uncounted = job.status.as_ref().and_then(|s| s.uncounted_terminated_pods.as_ref());
        let uids = |list: Option<&'a Vec<String>>| list.into_iter().flatten().map(String::as_str).collect();
        let mut view = View {
            job,
            spec,
            now,
            pods,
            uncounted_succeeded: uids(uncounted.and_then(|u| u.succeeded.as_ref())),
            uncounted_failed: uids(uncounted.and_then(|u| u.failed.as_ref())),
            committed: Indexes::default(),
            succeeded: Indexes::default(),
            failed: None,
            held: BTreeMap::new(),
            interim: None,
        };
        if view.is_indexed() {
            view.count_indexes();
        }
        view.interim = status::interim(&view);
        if view.interim.is_none() {
            view.hold_failed();
        }
        view
    }

    /// Whether pods have indexes.
    pub fn is_indexed(&self) -> bool {
        self.spec.completion_mode.as_deref() == Some("Indexed")
    }
    pub fn completions(&self) -> i32 {
        self.spec.completions.unwrap_or(1)
    }
    pub fn is_suspended(&self) -> bool {
        self.spec.suspend == Some(true)
    }
    /// Whether a pod that is being deleted is replaced, and has failed, only when it has ended.
    pub fn replaces_failed_only(&self) -> bool {
        self.spec.pod_replacement_policy.as_deref() == Some("Failed") || self.spec.pod_failure_policy.is_some()
    }

    /// Whether a pod's end may count: of an Indexed Job only if it has an index that the Job has.
    pub fn has_place(&self, pod: &Pod) -> bool {
        !self.is_indexed() || index_of(pod).is_some_and(|index| index < self.completions())
    }

    pub fn has_succeeded(&self, pod: &Pod) -> bool {
        pod::phase(pod) == "Succeeded"
    }

    /// Whether a pod has failed. One that is being deleted has failed too, unless the Job waits for its end. Those that
    /// are deleted because the Job has succeeded have not.
    pub fn has_failed(&self, pod: &Pod) -> bool {
        if pod::terminating(pod) && status::holds(self.job, SUCCESS_CRITERIA_MET).is_some() {
            return false;
        }
        if pod::terminal(pod) {
            return pod::phase(pod) == "Failed";
        }
        // No node will tell the end of a pod that has none, or that was taken from it by force.
        let nobody_ends_it = pod::node_name(pod).is_empty() || pod.metadata.deletion_grace_period_seconds == Some(0);
        pod::terminating(pod) && (!self.replaces_failed_only() || nobody_ends_it)
    }

    /// Whether a failed pod counts.
    pub fn failure_counts(&self, pod: &Pod) -> bool {
        self.has_place(pod) && !pods::judge(self.spec, pod).ignored
    }

    /// Whether the observed status accounts for a pod.
    pub fn is_settled(&self, pod: &Pod) -> bool {
        let uid = text(&pod.metadata.uid);
        self.uncounted_succeeded.contains(uid) || self.uncounted_failed.contains(uid)
    }

    /// Pods that are not accounted for.
    pub fn open(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter().filter(|p| is_tracked(p) && !self.is_settled(p))
    }
    /// Pods that run or are to run.
    pub fn active(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter().filter(|p| pod::active(p) && is_tracked(p))
    }
    /// Pods that are being deleted and have not ended.
    pub fn terminating(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter().filter(|p| pod::terminating(p) && !pod::terminal(p))
    }

    fn count_indexes(&mut self) {
        let before = self.job.status.as_ref();
        let completed = before.and_then(|s| s.completed_indexes.as_deref()).unwrap_or_default();
        self.committed = Indexes::parse(completed, self.completions());
        let done: BTreeSet<i32> = self
            .pods
            .iter()
            .filter(|p| is_tracked(p) && self.has_succeeded(p) && self.has_place(p))
            .filter(|p| !self.uncounted_failed.contains(text(&p.metadata.uid)))
            .filter_map(|p| index_of(p))
            .collect();
        self.succeeded = self.committed.clone();
        self.succeeded.extend(done);
        let Some(limit) = self.spec.backoff_limit_per_index else { return };
        let failed = before.and_then(|s| s.failed_indexes.as_deref()).unwrap_or_default();
        let mut failed = Indexes::parse(failed, self.completions());
        let lost = |p: &&Arc<Pod>| {
            let verdict = pods::judge(self.spec, p);
            verdict.fails_index || (!verdict.ignored && pods::index_failures(p).0 >= limit)
        };
        let ended = self.pods.iter().filter(|p| is_tracked(p) && self.has_failed(p) && self.has_place(p));
        failed.extend(ended.filter(lost).filter_map(|p| index_of(p)).collect::<BTreeSet<i32>>());
        self.failed = Some(failed);
    }

    fn hold_failed(&mut self) {
        let Some(failed) = &self.failed else { return };
        let active: BTreeSet<i32> = self.active().filter_map(|p| index_of(p)).collect();
        let rank = |p: &Pod| {
            let (counted, ignored) = pods::index_failures(p);
            (counted.saturating_add(ignored), pods::ended_at(p))
        };
        let mut held: BTreeMap<i32, Arc<Pod>> = BTreeMap::new();
        for pod in self.open().filter(|p| self.has_failed(p) && self.has_place(p)) {
            let Some(index) = index_of(pod) else { continue };
            if self.succeeded.has(index) || failed.has(index) || active.contains(&index) {
                continue;
            }
            if held.get(&index).is_none_or(|other| rank(other) <= rank(pod)) {
                held.insert(index, pod.clone());
            }
        }
        self.held = held;
    }

    /// Pods that succeeded, counted or not.
    pub fn successes(&self) -> i32 {
        if self.is_indexed() {
            return self.succeeded.total();
        }
        let before = self.job.status.as_ref().and_then(|s| s.succeeded).unwrap_or(0);
        let new = self.open().filter(|p| self.has_succeeded(p)).count();
        before.saturating_add(size(self.uncounted_succeeded.len() + new))
    }

    /// Pods that failed and count, counted or not.
    pub fn failures(&self) -> i32 {
        let before = self.job.status.as_ref().and_then(|s| s.failed).unwrap_or(0);
        let new = self.open().filter(|p| self.has_failed(p) && self.failure_counts(p)).count();
        before.saturating_add(size(self.uncounted_failed.len() + new))
    }

    /// Pods that the observed status accounts for, or that shall not count.
    pub fn releasable(&self) -> impl Iterator<Item = &Arc<Pod>> {
        let succeeds = status::holds(self.job, SUCCESS_CRITERIA_MET).is_some();
        self.pods.iter().filter(move |p| {
            if !is_tracked(p) {
                false
            } else if self.is_settled(p) {
                true
            } else if self.has_succeeded(p) {
                self.is_indexed() && index_of(p).is_none_or(|i| !self.has_place(p) || self.committed.has(i))
            } else if self.has_failed(p) {
                !self.failure_counts(p) && !self.is_held(p)
            } else {
                // Being deleted: with a success it is nobody's failure; with a failure it counts, unless by policy.
                pod::terminating(p)
                    && self.interim.as_ref().is_some_and(|i| if i.success { succeeds } else { !self.failure_counts(p) })
            }
        })
    }

    pub fn is_held(&self, pod: &Pod) -> bool {
        index_of(pod).and_then(|index| self.held.get(&index)).is_some_and(|h| h.metadata.uid == pod.metadata.uid)
    }

    /// Pods that were let go though they run: they were too many.
    pub fn strays(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter().filter(|p| pod::active(p) && !is_tracked(p))
    }

    /// When the Job will have run too long.
    pub fn deadline(&self, start: Option<Timestamp>) -> Option<Timestamp> {
        let seconds = self.spec.active_deadline_seconds.filter(|_| !self.is_suspended())?;
        Timestamp::from_second(start?.as_second().checked_add(seconds)?).ok()
    }

    /// Why no further failures are borne: too many restarts of pods that restart in place, or too many failed pods.
    pub fn exceeds_backoff_limit(&self) -> bool {
        let limit = self.spec.backoff_limit.unwrap_or(6);
        if self.failures() > limit {
            return true;
        }
        let policy = self.spec.template.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
        if policy != Some("OnFailure") {
            return false;
        }
        let running = self.pods.iter().filter(|p| matches!(pod::phase(p), "Running" | "Pending"));
        let statuses = running
            .filter_map(|p| p.status.as_ref())
            .flat_map(|s| s.init_container_statuses.iter().flatten().chain(s.container_statuses.iter().flatten()));
        let restarts = statuses.fold(0_i32, |sum, c| sum.saturating_add(c.restart_count));
        restarts > 0 && restarts >= limit
    }
}
