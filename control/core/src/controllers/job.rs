//! Job: pods until enough of them succeeded.
//! Source: <https://kubernetes.io/docs/concepts/workloads/controllers/job/>.
//!
//! No pod is counted twice, or lost: a finalizer keeps an ended pod until the Job's status names it as uncounted; only
//! then the finalizer goes, and only a pod without it moves from the names into the counters. Every status write demands
//! the revision that was observed, and observers see pods as new as their own writes.

use std::sync::Arc;

use copepod_api::LabelSelector;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::job_pods::{self as pods, FINALIZER};
use super::job_status as status;
use super::job_view::View;
use super::meta::{self, text};
use super::{Action, Plan};

/// The value of `managedBy` that means this controller; absence means it too.
pub const MANAGER: &str = "kubernetes.io/job-controller";
/// The most pods created, deleted or let go in one pass, as upstream's burst; the next pass goes on.
pub const MAX_BURST: usize = 500;
/// The most pods that a status names as uncounted.
pub const MAX_UNCOUNTED: usize = 500;

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

/// Decides for one Job. `all` are the pods that it may claim, as new as all that this controller wrote to them; with
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

#[cfg(test)]
#[path = "job_prop_tests.rs"]
mod prop_tests;
