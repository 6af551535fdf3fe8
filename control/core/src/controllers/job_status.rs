//! A Job's status: how it ends, its counters and conditions.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition, JobStatus, UncountedTerminatedPods};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::job::{MAX_UNCOUNTED, size};
use super::job_indexes::Indexes;
use super::job_pods::{is_tracked, judge};
use super::job_view::View;
use super::job_work::Work;
use super::meta::{self, text};
use super::pod;
use super::{Action, Plan};

/// The condition of a Job that will be Complete once all its pods have ended.
pub const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
/// The condition of a Job that will be Failed once all its pods have ended.
pub const FAILURE_TARGET: &str = "FailureTarget";

/// How a Job will end once all its pods have ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Interim {
    /// Complete instead of Failed.
    pub success: bool,
    pub reason: String,
    pub message: String,
}

impl Interim {
    fn of(success: bool, reason: &str, message: impl Into<String>) -> Self {
        Self { success, reason: reason.into(), message: message.into() }
    }
}

/// A condition that is True.
pub fn holds<'a>(job: &'a Job, type_: &str) -> Option<&'a JobCondition> {
    job.status.as_ref()?.conditions.iter().flatten().find(|c| c.type_ == type_ && c.status == "True")
}

/// How the Job ends: as its status says, or as its pods do now.
pub(super) fn interim(view: &View<'_>) -> Option<Interim> {
    let spec = view.spec;
    for (type_, success) in [(SUCCESS_CRITERIA_MET, true), (FAILURE_TARGET, false)] {
        if let Some(c) = holds(view.job, type_) {
            return Some(Interim::of(success, text(&c.reason), text(&c.message)));
        }
    }
    if spec.pod_failure_policy.is_some() {
        let failed = view.pods.iter().filter(|p| view.has_failed(p));
        if let Some(why) = failed.filter_map(|p| judge(spec, p).fails_job).next() {
            return Some(Interim::of(false, "PodFailurePolicy", why));
        }
    }
    if view.exceeds_backoff_limit() {
        return Some(Interim::of(false, "BackoffLimitExceeded", "Job has reached the specified backoff limit"));
    }
    let start = view.job.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
    if view.deadline(start).is_some_and(|deadline| deadline <= view.now) {
        return Some(Interim::of(false, "DeadlineExceeded", "Job was active longer than specified deadline"));
    }
    if let Some(failed) = &view.failed {
        if spec.max_failed_indexes.is_some_and(|most| failed.total() > most) {
            let message = "Job has exceeded the specified maximal number of failed indexes";
            return Some(Interim::of(false, "MaxFailedIndexesExceeded", message));
        }
        let ended = failed.total().saturating_add(view.succeeded.total());
        if !failed.is_empty() && ended >= view.completions() {
            return Some(Interim::of(false, "FailedIndexes", "Job has failed indexes"));
        }
    }
    if let Some(rule) = met_rule(view) {
        return Some(Interim::of(true, "SuccessPolicy", format!("Matched rules at index {rule}")));
    }
    let enough = spec.completions.unwrap_or(1);
    if view.successes() >= enough && view.active().next().is_none() {
        return Some(Interim::of(true, "CompletionsReached", "Reached expected number of succeeded pods"));
    }
    None
}

/// The first rule of the success policy that the succeeded indexes meet.
fn met_rule(view: &View<'_>) -> Option<usize> {
    let policy = view.spec.success_policy.as_ref().filter(|_| !view.succeeded.is_empty())?;
    policy.rules.iter().position(|rule| match (&rule.succeeded_indexes, rule.succeeded_count) {
        (Some(wanted), count) => {
            let wanted = Indexes::parse(wanted, view.completions());
            let both = wanted.overlap(&view.succeeded);
            !wanted.is_empty() && (both == wanted.total() || count.is_some_and(|count| both >= count))
        }
        (None, Some(count)) => view.succeeded.total() >= count,
        (None, None) => false,
    })
}

/// Plans the status as it is once the plan's other writes are done.
pub(super) fn write(view: View<'_>, work: &Work, plan: &mut Plan) {
    let before = view.job.status.clone().unwrap_or_default();
    let mut status = before.clone();
    let now = view.now;
    count(&view, work, &mut status);

    let gone: HashSet<&str> = work.release.iter().chain(&work.delete).map(|p| text(&p.metadata.uid)).collect();
    let active: Vec<&Arc<Pod>> = view.active().filter(|p| !gone.contains(text(&p.metadata.uid))).collect();
    let deleted = work.delete.iter().filter(|p| !pod::node_name(p).is_empty()).count();
    let terminating = view.terminating().count() + deleted;
    status.active = some(size(active.len() + work.create.len()));
    status.ready = Some(size(active.iter().filter(|p| pod::ready(p)).count()));
    status.terminating = Some(size(terminating));

    // What ends has begun, even if it was suspended all the while.
    if status.start_time.is_none() && (!view.is_suspended() || view.interim.is_some()) {
        status.start_time = Some(Time(now));
    }
    let mut conditions = status.conditions.take().unwrap_or_default();
    match &view.interim {
        Some(interim) => {
            let (early, last) =
                if interim.success { (SUCCESS_CRITERIA_MET, "Complete") } else { (FAILURE_TARGET, "Failed") };
            set(&mut conditions, early, true, (&interim.reason, &interim.message), now);
            let uncounted = status.uncounted_terminated_pods.as_ref();
            let counted = uncounted.is_none_or(|u| u.succeeded.is_none() && u.failed.is_none());
            let held = view.pods.iter().any(|p| is_tracked(p) && !gone.contains(text(&p.metadata.uid)));
            let ended = counted && !held && terminating == 0 && work.delete.is_empty();
            if ended && set(&mut conditions, last, true, (&interim.reason, &interim.message), now) {
                if interim.success {
                    status.completion_time = Some(Time(now));
                }
                note_end(&view, interim, &status, plan);
            }
        }
        None if view.is_suspended() => {
            if set(&mut conditions, "Suspended", true, ("JobSuspended", "Job suspended"), now) {
                status.start_time = None;
                plan.note("Suspended", "Job suspended".into());
            }
        }
        None => {
            if set(&mut conditions, "Suspended", false, ("JobResumed", "Job resumed"), now) {
                status.start_time = Some(Time(now));
                plan.note("Resumed", "Job resumed".into());
            }
            let start = status.start_time.as_ref().map(|t| t.0);
            if let Some(deadline) = view.deadline(start) {
                plan.requeue(std::time::Duration::try_from(deadline.duration_since(now)).unwrap_or_default());
            }
        }
    }
    status.conditions = (!conditions.is_empty()).then_some(conditions);
    plan.status = meta::status_patch(meta::v1("batch", "jobs"), &view.job.metadata, view.job.status.as_ref(), &status);
    demand_revision(plan.status.as_mut(), text(&view.job.metadata.resource_version));
}

/// Moves pods that are let go from the uncounted into the counters, and names those that ended since.
fn count(view: &View<'_>, work: &Work, status: &mut JobStatus) {
    let released: HashSet<&str> = work.release.iter().map(|p| text(&p.metadata.uid)).collect();
    let tracked: HashSet<&str> = view.pods.iter().filter(|p| is_tracked(p)).map(|p| text(&p.metadata.uid)).collect();
    let uncounted = status.uncounted_terminated_pods.take().unwrap_or_default();
    let stays = |uid: &String| tracked.contains(uid.as_str()) && !released.contains(uid.as_str());
    let (mut succeeded, counted): (Vec<String>, Vec<String>) =
        uncounted.succeeded.into_iter().flatten().partition(stays);
    status.succeeded = some(status.succeeded.unwrap_or(0).saturating_add(size(counted.len())));
    let (mut failed, counted): (Vec<String>, Vec<String>) = uncounted.failed.into_iter().flatten().partition(stays);
    status.failed = some(status.failed.unwrap_or(0).saturating_add(size(counted.len())));

    let deleted: HashSet<&str> = work.delete.iter().map(|p| text(&p.metadata.uid)).collect();
    let fails = view.interim.as_ref().is_some_and(|i| !i.success);
    for pod in view.open().filter(|p| !released.contains(text(&p.metadata.uid))) {
        if succeeded.len() + failed.len() >= MAX_UNCOUNTED {
            break;
        }
        let uid = text(&pod.metadata.uid);
        // When the Job fails, what it ends fails with it.
        let ends = fails && !pod::terminal(pod) && (pod::terminating(pod) || deleted.contains(uid));
        if view.has_succeeded(pod) {
            if !view.is_indexed() {
                succeeded.push(uid.into());
            }
        } else if (view.has_failed(pod) || ends) && view.failure_counts(pod) && !view.is_held(pod) {
            failed.push(uid.into());
        }
    }
    let list = |uids: Vec<String>| (!uids.is_empty()).then_some(uids);
    status.uncounted_terminated_pods =
        Some(UncountedTerminatedPods { succeeded: list(succeeded), failed: list(failed) });
    if view.is_indexed() {
        status.succeeded = some(view.succeeded.total());
        status.completed_indexes = Some(view.succeeded.to_string()).filter(|s| !s.is_empty());
        status.failed_indexes = view.failed.as_ref().map(ToString::to_string);
    }
}

fn note_end(view: &View<'_>, interim: &Interim, status: &JobStatus, plan: &mut Plan) {
    if !interim.success {
        plan.notes.push(super::Note {
            warning: true,
            reason: failure_reason(&interim.reason),
            message: interim.message.clone(),
        });
        return;
    }
    if view.spec.completions.is_some_and(|wanted| status.succeeded.unwrap_or(0) > wanted) {
        plan.warn("TooManySucceededPods", "Too many succeeded pods running after completion count reached".into());
    }
    plan.note("Completed", "Job completed".into());
}

/// The reason of a failure's event: one of those that this controller gives.
fn failure_reason(reason: &str) -> &'static str {
    const REASONS: [&str; 5] =
        ["PodFailurePolicy", "BackoffLimitExceeded", "DeadlineExceeded", "MaxFailedIndexesExceeded", "FailedIndexes"];
    REASONS.into_iter().find(|known| *known == reason).unwrap_or("Failed")
}

/// A counter that is absent when it is 0.
fn some(n: i32) -> Option<i32> {
    Some(n).filter(|n| *n != 0)
}

/// Sets a condition; returns whether that changed it. None is made just to be False.
fn set(
    conditions: &mut Vec<JobCondition>,
    type_: &str,
    holds: bool,
    (reason, message): (&str, &str),
    now: Timestamp,
) -> bool {
    let wanted = JobCondition {
        type_: type_.into(),
        status: if holds { "True".into() } else { "False".into() },
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    match conditions.iter_mut().find(|c| c.type_ == type_) {
        Some(c) if c.status == wanted.status && text(&c.reason) == reason && text(&c.message) == message => false,
        Some(c) => {
            *c = wanted;
            true
        }
        None if holds => {
            conditions.push(wanted);
            true
        }
        None => false,
    }
}

/// Makes a write fail unless the object still is as it was observed.
pub(super) fn demand_revision(write: Option<&mut Action>, revision: &str) {
    if let Some(Action::Patch { patch, .. }) = write
        && let Some(metadata) = patch.get_mut("metadata").and_then(Value::as_object_mut)
        && !revision.is_empty()
    {
        metadata.insert("resourceVersion".into(), json!(revision));
    }
}
