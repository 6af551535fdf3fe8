//! ReplicaSet and ReplicationController: as many active pods as asked for.
//! Source: <https://kubernetes.io/docs/concepts/workloads/controllers/replicaset/>.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use copepod_api::{Gvr, LabelSelector};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::meta::{self, text};
use super::{Action, Plan, Propagation, Target, backoff, pod, template};

/// The most pods created or deleted in one pass, as upstream's burst; the next pass goes on.
pub const MAX_BURST: usize = 500;

/// The annotation that makes a pod cheaper (lower) or dearer to delete.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Which of the two kinds a set is. A ReplicationController is decided on as the ReplicaSet that it would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ReplicaSet.
    ReplicaSet,
    /// ReplicationController.
    ReplicationController,
}

impl Kind {
    /// The kind's apiVersion.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::ReplicaSet => "apps/v1",
            Self::ReplicationController => "v1",
        }
    }
    /// The kind's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReplicaSet => "ReplicaSet",
            Self::ReplicationController => "ReplicationController",
        }
    }
    /// The kind's resource.
    pub fn gvr(self) -> Gvr {
        match self {
            Self::ReplicaSet => meta::replicasets(),
            Self::ReplicationController => meta::v1("", "replicationcontrollers"),
        }
    }
}

/// Decides for one set. `pods` are at least those that it may claim and those of its siblings, `siblings` the ReplicaSets
/// of its Deployment; more of the namespace do no harm.
pub fn reconcile(
    kind: Kind,
    set: &ReplicaSet,
    pods: &[Arc<Pod>],
    siblings: &[Arc<ReplicaSet>],
    now: Timestamp,
) -> Plan {
    let Some(spec) = &set.spec else { return Plan::nothing("no spec") };
    let selector = match LabelSelector::from_typed(Some(&spec.selector)) {
        Ok(selector) if !selector.is_empty() => selector,
        Ok(_) => return Plan::nothing("an empty selector selects nothing here"),
        Err(why) => return Plan::nothing(format!("invalid selector: {why}")),
    };
    let reference = meta::controller_ref(kind.api_version(), kind.name(), &set.metadata);
    let alive: Vec<Arc<Pod>> = pods.iter().filter(|p| !pod::terminal(p)).cloned().collect();
    let claim = meta::claim(&set.metadata, &reference, &selector, &meta::pods(), &alive);
    let mut plan = Plan { actions: claim.actions, confirm_owner: claim.adopts, ..Plan::default() };
    let active: Vec<Arc<Pod>> = claim.owned.iter().filter(|p| pod::active(p)).cloned().collect();
    let terminating = claim.owned.len() - active.len();

    let wanted = usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0);
    if set.metadata.deletion_timestamp.is_none() {
        match (active.len().cmp(&wanted), held_back(&reference.uid, pods, wanted, now)) {
            (Ordering::Less, Some(wait)) => {
                plan.why = format!("{} of {wanted} pods: too many ended lately", active.len());
                plan.requeue(wait);
            }
            (Ordering::Less, None) => {
                let count = (wanted - active.len()).min(MAX_BURST);
                let object = new_pod(set, &reference);
                let target = Target::new(meta::pods(), text(&set.metadata.namespace), "");
                plan.actions
                    .extend((0..count).map(|_| Action::Create { target: target.clone(), object: object.clone() }));
                plan.why = format!("{} of {wanted} pods: creating {count}", active.len());
            }
            (Ordering::Greater, _) => {
                let count = (active.len() - wanted).min(MAX_BURST);
                let ranked = rank_for_deletion(set, &active, pods, siblings, now);
                plan.actions.extend(ranked.iter().take(count).map(|p| Action::Delete {
                    target: Target::new(meta::pods(), text(&p.metadata.namespace), text(&p.metadata.name)),
                    propagation: Propagation::Background,
                    uid: p.metadata.uid.clone(),
                    grace: None,
                }));
                plan.why = format!("{} of {wanted} pods: deleting {count}", active.len());
            }
            (Ordering::Equal, _) => plan.why = format!("{wanted} of {wanted} pods"),
        }
    }
    let mut status = status(set, &active, terminating, wanted, now, &mut plan);
    if kind == Kind::ReplicationController {
        status.terminating_replicas = None;
    }
    plan.status_observed = true;
    plan.status = meta::status_patch(kind.gvr(), &set.metadata, set.status.as_ref(), &status);
    plan
}

/// How long no pods are created because those of before ended too fast: each time that as many ended lately as there
/// should be, the wait doubles.
fn held_back(owner: &str, pods: &[Arc<Pod>], wanted: usize, now: Timestamp) -> Option<Duration> {
    let age = |p: &Arc<Pod>| {
        let created = p.metadata.creation_timestamp.as_ref()?.0;
        Some(Duration::try_from(now.duration_since(created)).unwrap_or_default())
    };
    let ended = pods.iter().filter(|p| pod::terminal(p) && meta::controlled_by(&p.metadata, owner));
    let ages: Vec<Duration> = ended.filter_map(age).filter(|age| *age < backoff::LONGEST * 2).collect();
    let rounds = u32::try_from(ages.len().checked_div(wanted)?).unwrap_or(u32::MAX).checked_sub(1)?;
    let delay = backoff::FIRST.saturating_mul(2_u32.saturating_pow(rounds)).min(backoff::LONGEST);
    delay.checked_sub(ages.into_iter().min()?).filter(|wait| !wait.is_zero())
}

/// The pod that a set's template describes, controlled by `reference`.
fn new_pod(set: &ReplicaSet, reference: &OwnerReference) -> Value {
    let template = set.spec.as_ref().and_then(|s| s.template.clone()).unwrap_or_default();
    let mut pod = template::pod(&template, reference);
    pod.metadata.generate_name = Some(format!("{}-", text(&set.metadata.name)));
    meta::value(&pod)
}

fn status(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    terminating: usize,
    wanted: usize,
    now: Timestamp,
    plan: &mut Plan,
) -> ReplicaSetStatus {
    let spec = set.spec.clone().unwrap_or_default();
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let template_labels = spec.template.and_then(|t| t.metadata).and_then(|m| m.labels).unwrap_or_default();
    let labelled = |p: &&Arc<Pod>| {
        let labels = p.metadata.labels.as_ref();
        template_labels.iter().all(|(k, v)| labels.and_then(|l| l.get(k)) == Some(v))
    };
    let mut available = 0;
    for wait in active.iter().filter_map(|p| pod::available_in(p, min_ready, now)) {
        if wait.is_zero() {
            available += 1;
        } else {
            plan.requeue(wait.max(Duration::from_millis(100)));
        }
    }
    let before = set.status.clone().unwrap_or_default();
    // A failure to create or delete stays until there are as many as asked for.
    let keep_failure = active.len() != wanted;
    let conditions: Vec<ReplicaSetCondition> =
        before.conditions.into_iter().flatten().filter(|c| c.type_ != "ReplicaFailure" || keep_failure).collect();
    ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: Some(count(active.iter().filter(labelled).count())),
        ready_replicas: Some(count(active.iter().filter(|p| pod::ready(p)).count())),
        available_replicas: Some(available),
        terminating_replicas: Some(count(terminating)),
        observed_generation: set.metadata.generation,
        conditions: (!conditions.is_empty()).then_some(conditions),
    }
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// The status write that says that pods cannot be created or deleted; `None` if it says so already.
pub fn failed(kind: Kind, set: &ReplicaSet, creating: bool, message: &str, now: Timestamp) -> Option<Action> {
    let mut status = set.status.clone().unwrap_or_default();
    let mut conditions = status.conditions.take().unwrap_or_default();
    let reason = if creating { "FailedCreate" } else { "FailedDelete" };
    if conditions.iter().any(|c| c.type_ == "ReplicaFailure" && c.reason.as_deref() == Some(reason)) {
        return None;
    }
    conditions.retain(|c| c.type_ != "ReplicaFailure");
    conditions.push(ReplicaSetCondition {
        type_: "ReplicaFailure".into(),
        status: "True".into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: Some(Time(now)),
    });
    status.conditions = Some(conditions);
    meta::status_patch(kind.gvr(), &set.metadata, set.status.as_ref(), &status)
}

/// The active pods, the first to be deleted first: unbound before bound; Pending, Unknown, Running; not ready before
/// ready; lower deletion cost; more related pods on the node; ready for a shorter time; more restarts; younger. Times
/// compare by their logarithm, so that about equally old pods go in an order of their UIDs.
fn rank_for_deletion(
    set: &ReplicaSet,
    active: &[Arc<Pod>],
    pods: &[Arc<Pod>],
    siblings: &[Arc<ReplicaSet>],
    now: Timestamp,
) -> Vec<Arc<Pod>> {
    let mut family: Vec<&str> = vec![text(&set.metadata.uid)];
    if let Some(parent) = meta::controller_of(&set.metadata) {
        let related = siblings.iter().filter(|s| meta::controlled_by(&s.metadata, &parent.uid));
        family.extend(related.map(|s| text(&s.metadata.uid)));
    }
    let mut crowd: HashMap<&str, usize> = HashMap::new();
    for p in pods.iter().filter(|p| pod::active(p)) {
        if meta::controller_of(&p.metadata).is_some_and(|owner| family.contains(&owner.uid.as_str())) {
            *crowd.entry(pod::node_name(p)).or_default() += 1;
        }
    }
    let age = |since: Option<Timestamp>| {
        since.map_or(-1, |t| {
            let seconds = now.as_second().saturating_sub(t.as_second()).max(0);
            if seconds == 0 { 0 } else { i64::from(seconds.ilog2()) + 1 }
        })
    };
    let mut ranked: Vec<_> = active
        .iter()
        .map(|p| {
            let ready = pod::ready(p);
            let cost: i64 = p
                .metadata
                .annotations
                .as_ref()
                .and_then(|a| a.get(DELETION_COST))
                .and_then(|c| c.parse().ok())
                .unwrap_or(0);
            let key = (
                !pod::node_name(p).is_empty(),
                match pod::phase(p) {
                    "Running" => 2,
                    "Unknown" => 1,
                    _ => 0,
                },
                ready,
                cost,
                std::cmp::Reverse(crowd.get(pod::node_name(p)).copied().unwrap_or(0)),
                if ready { age(pod::ready_since(p)) } else { 0 },
                std::cmp::Reverse(pod::restarts(p)),
                age(p.metadata.creation_timestamp.as_ref().map(|t| t.0)),
                p.metadata.uid.clone(),
            );
            (key, p.clone())
        })
        .collect();
    ranked.sort_by(|a, b| a.0.cmp(&b.0));
    ranked.into_iter().map(|(_, p)| p).collect()
}

#[cfg(test)]
#[path = "replicaset_tests.rs"]
mod tests;
