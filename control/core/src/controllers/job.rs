//! Job: pods until enough of them succeeded.
//! Source: <https://kubernetes.io/docs/concepts/workloads/controllers/job/>.
//!
//! No pod is counted twice, or lost: a finalizer keeps an ended pod until the Job's status names it as uncounted; only
//! then the finalizer goes, and only a pod without it moves from the names into the counters. Every status write demands
//! the revision that was observed, and observers see pods as new as their own writes.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use copepod_api::LabelSelector;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::job_indexes::Indexes;
use super::job_pods::{self as pods, FINALIZER, NewIndex, index_of, is_tracked};
use super::job_status::{self as status, Interim, SUCCESS_CRITERIA_MET};
use super::meta::{self, text};
use super::pod;
use super::{Action, Plan};

/// The value of `managedBy` that means this controller; absence means it too.
pub const MANAGER: &str = "kubernetes.io/job-controller";
/// The most pods created, deleted or let go in one pass, as upstream's burst; the next pass goes on.
pub const MAX_BURST: usize = 500;
/// The most pods that a status names as uncounted.
pub const MAX_UNCOUNTED: usize = 500;

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

/// What a pass does to pods.
#[derive(Default)]
pub(super) struct Work {
    /// Counted, or not to be counted.
    pub release: Vec<Arc<Pod>>,
    /// To go. Pods that are too many are let go first, and deleted in the next pass, so that they are not failures.
    pub delete: Vec<Arc<Pod>>,
    pub create: Vec<Option<NewIndex>>,
    /// Until more may be created.
    pub wait: Option<Duration>,
}

/// Whether a Job has ended.
pub fn is_finished(job: &Job) -> bool {
    finished(job).is_some()
}

/// The condition by which a Job has ended: Complete or Failed.
pub fn finished(job: &Job) -> Option<&JobCondition> {
    ["Complete", "Failed"].iter().find_map(|type_| status::holds(job, type_))
}

/// The other controller that manages a Job.
pub fn other_manager(job: &Job) -> Option<&str> {
    job.spec.as_ref()?.managed_by.as_deref().filter(|manager| *manager != MANAGER)
}

/// Decides for one Job. `pods` are all pods of its namespace, as new as all that this controller wrote to them; with
/// `may_create` false it makes none, as the API refuses them.
pub fn reconcile(job: &Job, all: &[Arc<Pod>], now: Timestamp, may_create: bool) -> Plan {
    let Some(spec) = &job.spec else { return Plan::nothing("no spec") };
    if let Some(manager) = other_manager(job) {
        return Plan::nothing(format!("managed by {manager}"));
    }
    let uid = text(&job.metadata.uid);
    if is_finished(job) || job.metadata.deletion_timestamp.is_some() {
        return let_go(all.iter().filter(|p| meta::controlled_by(&p.metadata, uid)), "ended or being deleted");
    }
    let selector = match LabelSelector::from_typed(spec.selector.as_ref()) {
        Ok(selector) if !selector.is_empty() => selector,
        Ok(_) => return Plan::nothing("an empty selector selects nothing here"),
        Err(why) => return Plan::nothing(format!("invalid selector: {why}")),
    };
    let reference = meta::controller_ref("batch/v1", "Job", &job.metadata);
    let mut claim = meta::claim(&job.metadata, &reference, &selector, &meta::pods(), all);
    if !claim.actions.is_empty() {
        claim.actions.iter_mut().for_each(|action| track(action, all, uid));
        return Plan { actions: claim.actions, confirm_owner: claim.adopts, ..Plan::nothing("claiming pods") };
    }
    let view = View::new(job, spec, claim.owned, now);
    let mut plan = Plan::default();
    let work = if view.interim.is_some() { view.wind_down() } else { view.manage(may_create) };
    plan.actions.extend(work.release.iter().filter_map(|p| pods::release(p)));
    plan.actions.extend(work.delete.iter().map(|p| pods::delete(p)));
    plan.actions.extend(work.create.iter().map(|new| pods::create(job, *new)));
    plan.why = format!("{} let go, {} deleted, {} created", work.release.len(), work.delete.len(), work.create.len());
    work.wait.iter().for_each(|wait| plan.requeue(*wait));
    status::write(view, &work, &mut plan);
    plan
}

/// Takes the finalizer off pods that no Job counts any more.
pub fn let_go<'a>(pods: impl Iterator<Item = &'a Arc<Pod>>, why: &str) -> Plan {
    let actions = pods.filter_map(|p| pods::release(p)).take(MAX_BURST).collect();
    Plan { actions, ..Plan::nothing(format!("letting pods go: {why}")) }
}

/// Makes an adoption put the finalizer on, and a release take it off.
fn track(action: &mut Action, all: &[Arc<Pod>], owner: &str) {
    let name = action.target().name.clone();
    let Some(pod) = all.iter().find(|p| text(&p.metadata.name) == name) else { return };
    let mut finalizers: Vec<&str> = pod.metadata.finalizers.iter().flatten().map(String::as_str).collect();
    finalizers.retain(|f| *f != FINALIZER);
    if !meta::controlled_by(&pod.metadata, owner) {
        finalizers.push(FINALIZER);
    }
    if let Action::Patch { patch, .. } = action
        && let Some(metadata) = patch.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.insert("finalizers".into(), json!(finalizers));
    }
}

impl<'a> View<'a> {
    fn new(job: &'a Job, spec: &'a JobSpec, pods: Vec<Arc<Pod>>, now: Timestamp) -> Self {
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
    fn releasable(&self) -> impl Iterator<Item = &Arc<Pod>> {
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
    fn strays(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter().filter(|p| pod::active(p) && !is_tracked(p))
    }

    /// How the Job ends: no pod is left to run.
    fn wind_down(&self) -> Work {
        Work {
            release: self.releasable().take(MAX_BURST).cloned().collect(),
            delete: self.strays().chain(self.active()).take(MAX_BURST).cloned().collect(),
            ..Work::default()
        }
    }

    /// Keeps as many pods running as there shall be.
    fn manage(&self, may_create: bool) -> Work {
        let mut work = Work {
            release: self.releasable().take(MAX_BURST).cloned().collect(),
            delete: self.strays().take(MAX_BURST).cloned().collect(),
            ..Work::default()
        };
        let active = self.active().count();
        let wanted = self.wanted(active);
        let surplus = self.surplus(active.saturating_sub(wanted));
        if !surplus.is_empty() {
            work.release.extend(surplus.into_iter().take(MAX_BURST));
            return work;
        }
        let terminating = if self.replaces_failed_only() { self.terminating().count() } else { 0 };
        let missing = wanted.saturating_sub(active + terminating).min(MAX_BURST);
        if !may_create || missing == 0 {
            return work;
        }
        if self.spec.backoff_limit_per_index.is_none() {
            work.wait = self.backoff();
            if work.wait.is_some() {
                return work;
            }
        }
        if self.is_indexed() {
            (work.create, work.wait) = self.new_indexes(missing);
        } else {
            work.create = vec![None; missing];
        }
        work
    }

    /// How many pods shall be active.
    fn wanted(&self, active: usize) -> usize {
        if self.is_suspended() {
            return 0;
        }
        let parallelism = self.spec.parallelism.unwrap_or(1);
        let wanted = match self.spec.completions {
            // Once one has succeeded, the others are left to end.
            None if self.successes() > 0 => return active,
            None => parallelism,
            Some(completions) => completions.saturating_sub(self.successes()).min(parallelism),
        };
        usize::try_from(wanted).unwrap_or(0)
    }

    /// Active pods that are too many: those without a place, those of an index that another has, and then others until
    /// they are `at_least` so many.
    fn surplus(&self, at_least: usize) -> Vec<Arc<Pod>> {
        let mut active: Vec<Arc<Pod>> = self.active().cloned().collect();
        active.sort_by_cached_key(|p| pods::removal_order(p));
        let mut rest = active;
        let mut surplus = Vec::new();
        if self.is_indexed() {
            let mut seen = HashSet::new();
            // The most valuable of an index stays.
            let (kept, doubled): (Vec<_>, Vec<_>) = rest.into_iter().rev().partition(|p| {
                self.has_place(p) && index_of(p).is_some_and(|index| !self.succeeded.has(index) && seen.insert(index))
            });
            surplus = doubled;
            rest = kept.into_iter().rev().collect();
        }
        let more = at_least.saturating_sub(surplus.len());
        surplus.extend(rest.into_iter().take(more));
        surplus
    }

    /// The wait because pods failed one after the other; `None` if it is over.
    fn backoff(&self) -> Option<Duration> {
        let success = self.pods.iter().filter(|p| self.has_succeeded(p)).filter_map(|p| pods::ended_at(p)).max();
        // Pods that were let go and then deleted were too many, and did not fail.
        let failed = self.pods.iter().filter(|p| self.has_failed(p) && (is_tracked(p) || !pod::terminating(p)));
        let ends = failed.filter_map(|p| pods::ended_at(p)).filter(|end| success.is_none_or(|s| *end > s));
        let (count, last) = ends.fold((0_usize, None), |(count, last), end| (count + 1, last.max(Some(end))));
        pods::backoff(size(count), last, self.now)
    }

    /// The next indexes to run, and how long to wait for others that failed lately.
    fn new_indexes(&self, count: usize) -> (Vec<Option<NewIndex>>, Option<Duration>) {
        let mut taken = self.succeeded.clone();
        taken.extend(self.active().filter_map(|p| index_of(p)));
        if self.replaces_failed_only() {
            taken.extend(self.terminating().filter_map(|p| index_of(p)));
        }
        if let Some(failed) = &self.failed {
            taken.merge(failed);
        }
        let (mut new, mut wait): (Vec<Option<NewIndex>>, Option<Duration>) = (Vec::new(), None);
        for index in taken.missing(self.completions()) {
            if new.len() >= count {
                break;
            }
            let held = self.held.get(&index);
            let (counted, ignored) = held.map(|p| pods::index_failures(p)).unwrap_or_default();
            let failures = held.map_or(0, |_| counted.saturating_add(ignored).saturating_add(1));
            let left = pods::backoff(failures, held.and_then(|p| pods::ended_at(p)), self.now);
            if let Some(left) = left {
                wait = Some(wait.map_or(left, |wait: Duration| wait.min(left)));
                continue;
            }
            let failures = self.failed.is_some().then(|| match held {
                None => (0, 0),
                Some(p) if pods::judge(self.spec, p).ignored => (counted, ignored.saturating_add(1)),
                Some(_) => (counted.saturating_add(1), ignored),
            });
            new.push(Some(NewIndex { index, failures }));
        }
        (new, wait)
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

/// A count as the API has it.
pub(super) fn size(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

#[cfg(test)]
#[path = "job_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "job_sim_tests.rs"]
mod sim_tests;
