//! A Deployment's status and conditions, with upstream's reasons.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Action;
use super::deployment::{View, desired};
use super::deployment_rollout::max_unavailable;
use super::meta::{self, text};

/// Reason of the Progressing condition of a rollout that made no progress for too long.
const DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";

/// What the pass decided that status must say.
pub(super) struct Outcome {
    /// A new Progressing condition.
    pub progress: Option<DeploymentCondition>,
    /// The collision count to write.
    pub collisions: Option<i32>,
    /// Whether a rollout is judged (neither paused nor merely scaled).
    pub rolling: bool,
}

/// A condition of the Deployment.
pub(super) fn condition<'a>(deployment: &'a Deployment, kind: &str) -> Option<&'a DeploymentCondition> {
    deployment.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == kind)
}

/// The observed collision count.
pub(super) fn collisions(deployment: &Deployment) -> Option<i32> {
    deployment.status.as_ref().and_then(|s| s.collision_count)
}

/// A Progressing condition.
pub(super) fn progressing(status: &str, reason: &str, message: &str, now: Timestamp) -> DeploymentCondition {
    DeploymentCondition {
        type_: "Progressing".into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// Says that the rollout is paused, unless it ended in a time-out already.
pub(super) fn paused(deployment: &Deployment, now: Timestamp) -> Option<DeploymentCondition> {
    let reason = condition(deployment, "Progressing").and_then(|c| c.reason.as_deref());
    (!matches!(reason, Some("DeploymentPaused" | DEADLINE_EXCEEDED)))
        .then(|| progressing("Unknown", "DeploymentPaused", "Deployment is paused", now))
}

/// Says that a paused rollout goes on.
pub(super) fn resumed(deployment: &Deployment, now: Timestamp) -> Option<DeploymentCondition> {
    let reason = condition(deployment, "Progressing").and_then(|c| c.reason.as_deref());
    (reason == Some("DeploymentPaused"))
        .then(|| progressing("Unknown", "DeploymentResumed", "Deployment is resumed", now))
}

/// Whether the new set serves as many pods as desired and no old pod is left.
pub(super) fn complete(view: &View<'_>) -> bool {
    let counts = counts(view);
    let wanted = Some(desired(view.deployment));
    counts.updated_replicas == wanted && counts.replicas == wanted && counts.available_replicas == wanted
}

fn counts(view: &View<'_>) -> DeploymentStatus {
    let sum = |of: fn(&k8s_openapi::api::apps::v1::ReplicaSetStatus) -> i32| -> i32 {
        view.all().filter_map(|s| s.set.status.as_ref()).map(of).sum()
    };
    let replicas = sum(|s| s.replicas);
    let available = sum(|s| s.available_replicas.unwrap_or(0));
    let updated = view.new.as_ref().and_then(|n| n.set.status.as_ref()).map_or(0, |s| s.replicas);
    DeploymentStatus {
        replicas: Some(replicas),
        updated_replicas: Some(updated),
        ready_replicas: Some(sum(|s| s.ready_replicas.unwrap_or(0))),
        available_replicas: Some(available),
        unavailable_replicas: Some((view.all().map(|s| s.replicas).sum::<i32>() - available).max(0)),
        terminating_replicas: Some(sum(|s| s.terminating_replicas.unwrap_or(0))),
        ..DeploymentStatus::default()
    }
}

/// The whole status; asks for another look when a progress deadline is running.
pub(super) fn calculate(view: &mut View<'_>, outcome: Outcome, now: Timestamp) -> DeploymentStatus {
    let before = view.deployment.status.clone().unwrap_or_default();
    let mut status = counts(view);
    status.observed_generation = view.deployment.metadata.generation;
    status.collision_count = outcome.collisions;
    let mut conditions = before.conditions.clone().unwrap_or_default();

    let enough = status.available_replicas.unwrap_or(0) >= desired(view.deployment) - max_unavailable(view.deployment);
    let (state, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    let available = DeploymentCondition { type_: "Available".into(), ..progressing(state, reason, message, now) };
    set(&mut conditions, available, false);
    let told = outcome.progress.is_some();
    if let Some(progress) = outcome.progress {
        set(&mut conditions, progress, false);
    }
    if outcome.rolling {
        judge_progress(view, &before, &status, &mut conditions, told, now);
    }
    copy_failure(view, &mut conditions);
    status.conditions = Some(conditions);
    status
}

fn judge_progress(
    view: &mut View<'_>,
    before: &DeploymentStatus,
    status: &DeploymentStatus,
    conditions: &mut Vec<DeploymentCondition>,
    told: bool,
    now: Timestamp,
) {
    let deadline = view.deployment.spec.as_ref().and_then(|s| s.progress_deadline_seconds).unwrap_or(600);
    if deadline == i32::MAX {
        return;
    }
    let current = conditions.iter().find(|c| c.type_ == "Progressing").cloned();
    let reason = current.as_ref().and_then(|c| c.reason.clone()).unwrap_or_default();
    let subject = match &view.new {
        Some(new) => format!("ReplicaSet \"{}\"", new.name()),
        None => format!("Deployment \"{}\"", text(&view.deployment.metadata.name)),
    };
    let settled = status.replicas == status.updated_replicas && reason == "NewReplicaSetAvailable";
    if settled {
        return;
    }
    if complete(view) {
        let message = format!("{subject} has successfully progressed.");
        return set(conditions, progressing("True", "NewReplicaSetAvailable", &message, now), false);
    }
    let n = |v: Option<i32>| v.unwrap_or(0);
    let old = |s: &DeploymentStatus| n(s.replicas) - n(s.updated_replicas);
    let moved = n(status.updated_replicas) > n(before.updated_replicas)
        || old(status) < old(before)
        || n(status.ready_replicas) > n(before.ready_replicas)
        || n(status.available_replicas) > n(before.available_replicas);
    if moved && !told {
        let message = format!("{subject} is progressing.");
        set(conditions, progressing("True", "ReplicaSetUpdated", &message, now), true);
    }
    let Some(current) = conditions.iter().find(|c| c.type_ == "Progressing") else { return };
    if matches!(current.reason.as_deref(), Some(DEADLINE_EXCEEDED | "NewReplicaSetAvailable")) {
        return;
    }
    let since = current.last_update_time.as_ref().map_or(now, |t| t.0);
    let left = since.as_second().saturating_add(i64::from(deadline)).saturating_sub(now.as_second());
    match u64::try_from(left) {
        Ok(left) if left > 0 => view.plan.requeue(Duration::from_secs(left)),
        _ => {
            let message = format!("{subject} has timed out progressing.");
            set(conditions, progressing("False", DEADLINE_EXCEEDED, &message, now), false);
        }
    }
}

/// Reason of the event and the condition that say that the set of the present template cannot be created.
pub const CREATE_ERROR: &str = "ReplicaSetCreateError";

/// The status write that says that the set of the present template cannot be created, and, once the deadline has
/// passed, that the rollout timed out; `None` if it says so already. Nothing is told without a deadline, as upstream
/// has it.
pub fn refused(deployment: &Deployment, message: &str, now: Timestamp) -> Option<Action> {
    let mut status = deployment.status.clone().unwrap_or_default();
    status.observed_generation = deployment.metadata.generation;
    // There is no set of the present template, so no pod of it.
    status.updated_replicas = None;
    let deadline = deployment.spec.as_ref().and_then(|s| s.progress_deadline_seconds).unwrap_or(600);
    if deadline < i32::MAX {
        let conditions = status.conditions.get_or_insert_default();
        let current = conditions.iter().find(|c| c.type_ == "Progressing");
        let is = |reason: &str| current.and_then(|c| c.reason.as_deref()) == Some(reason);
        let since = current.and_then(|c| c.last_update_time.as_ref()).map_or(now, |t| t.0);
        let late = now.as_second().saturating_sub(since.as_second()) >= i64::from(deadline);
        if is(CREATE_ERROR) && late {
            let name = text(&deployment.metadata.name);
            let message = format!("Deployment \"{name}\" has timed out progressing.");
            set(conditions, progressing("False", DEADLINE_EXCEEDED, &message, now), false);
        } else if !is(DEADLINE_EXCEEDED) {
            set(conditions, progressing("False", CREATE_ERROR, message, now), false);
        }
    }
    meta::status_patch(meta::deployments(), &deployment.metadata, deployment.status.as_ref(), &status)
}

/// A ReplicaSet's failure to create pods is the Deployment's.
fn copy_failure(view: &View<'_>, conditions: &mut Vec<DeploymentCondition>) {
    let failures = view.all().filter_map(|s| s.set.status.as_ref()).flat_map(|s| s.conditions.iter().flatten());
    match failures.into_iter().find(|c| c.type_ == "ReplicaFailure") {
        None => conditions.retain(|c| c.type_ != "ReplicaFailure"),
        Some(failure) => {
            let copy = DeploymentCondition {
                type_: failure.type_.clone(),
                status: failure.status.clone(),
                reason: failure.reason.clone(),
                message: failure.message.clone(),
                last_update_time: failure.last_transition_time.clone(),
                last_transition_time: failure.last_transition_time.clone(),
            };
            set(conditions, copy, false);
        }
    }
}

/// Sets a condition. One of the same status and reason stays as it is, unless `refresh` asks for a new update time.
fn set(conditions: &mut Vec<DeploymentCondition>, mut new: DeploymentCondition, refresh: bool) {
    if let Some(old) = conditions.iter_mut().find(|c| c.type_ == new.type_) {
        if old.status == new.status && old.reason == new.reason && !refresh {
            return;
        }
        if old.status == new.status {
            new.last_transition_time = old.last_transition_time.clone();
        }
        *old = new;
    } else {
        conditions.push(new);
    }
}
