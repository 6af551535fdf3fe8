//! What the scheduler writes besides bindings, as actions. A status write demands the revision that was observed, since
//! it replaces all conditions, those of others too.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::pod_info::PodInfo;
use super::preemption::DISRUPTION_TARGET;
use super::volumes::{BOUND_BY_CONTROLLER, ClaimStep, SELECTED_NODE};
use crate::controllers::meta::{self, text};
use crate::controllers::{Action, Propagation, Target, pod};

/// `PodScheduled`'s reason when no node takes the pod.
pub const UNSCHEDULABLE: &str = "Unschedulable";
/// `PodScheduled`'s reason when something went wrong.
pub const SCHEDULER_ERROR: &str = "SchedulerError";

/// Says in a pod's status why it waits, and on which node room is made for it (`Some("")`: on none any more); nothing
/// if the status says so already.
pub fn unplaced(pod: &Pod, reason: &str, message: &str, nominated: Option<&str>, now: Timestamp) -> Option<Action> {
    let mut status = pod.status.clone().unwrap_or_default();
    let said = PodCondition { reason: Some(reason.into()), message: Some(message.into()), ..PodCondition::default() };
    condition(&mut status, "PodScheduled", "False", said, now);
    if let Some(node) = nominated {
        status.nominated_node_name = (!node.is_empty()).then(|| node.into());
    }
    status_patch(pod, &status)
}

/// Takes back that room is made for a pod.
pub fn not_nominated(pod: &Pod) -> Option<Action> {
    let mut status = pod.status.clone().unwrap_or_default();
    status.nominated_node_name = None;
    status_patch(pod, &status)
}

/// Ends a pod that goes for another, with its own grace, and says so in its status.
pub fn end(pod: &Pod, scheduler: &str, now: Timestamp) -> Vec<Action> {
    if pod::terminating(pod) {
        return Vec::new();
    }
    let mut status = pod.status.clone().unwrap_or_default();
    let (kind, reason) = DISRUPTION_TARGET;
    let message = format!("{scheduler}: preempting to accommodate a higher priority pod");
    let said = PodCondition { reason: Some(reason.into()), message: Some(message), ..PodCondition::default() };
    condition(&mut status, kind, "True", said, now);
    let mut actions: Vec<Action> = status_patch(pod, &status).into_iter().collect();
    actions.push(Action::Delete {
        target: Target::new(meta::pods(), text(&pod.metadata.namespace), text(&pod.metadata.name)),
        propagation: Propagation::Background,
        uid: pod.metadata.uid.clone(),
        grace: None,
    });
    actions
}

fn status_patch(pod: &Pod, status: &PodStatus) -> Option<Action> {
    let mut action = meta::status_patch(meta::pods(), &pod.metadata, pod.status.as_ref(), status)?;
    if let Action::Patch { patch, .. } = &mut action
        && let Some(metadata) = patch.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.insert("resourceVersion".into(), json!(pod.metadata.resource_version));
    }
    Some(action)
}

/// The writes of claims' steps for a pod.
pub fn claims(pod: &PodInfo, uid_of: impl Fn(&str) -> Option<String>, steps: &[ClaimStep]) -> Vec<Action> {
    let patch = |target, patch| Action::Patch { target, subresource: "", patch };
    let one = |step: &ClaimStep| match step {
        ClaimStep::Reserve { claim, volume, uid, revision } => Some(patch(
            Target::new(meta::v1("", "persistentvolumes"), "", volume),
            json!({
                "metadata": {
                    "uid": uid, "resourceVersion": revision, "annotations": {BOUND_BY_CONTROLLER: "yes"},
                },
                "spec": {"claimRef": {
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                    "namespace": pod.namespace(), "name": claim, "uid": uid_of(claim),
                }},
            }),
        )),
        ClaimStep::Provision { claim, node } => Some(patch(
            Target::new(meta::v1("", "persistentvolumeclaims"), pod.namespace(), claim),
            json!({"metadata": {"uid": uid_of(claim), "annotations": {SELECTED_NODE: node}}}),
        )),
        ClaimStep::Await { .. } => None,
    };
    steps.iter().filter_map(one).collect()
}

/// Sets a condition; its time stays while its status does.
fn condition(status: &mut PodStatus, kind: &str, value: &str, said: PodCondition, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    let since = conditions.iter().find(|c| c.type_ == kind && c.status == value);
    let since = since.and_then(|c| c.last_transition_time.clone()).or(Some(Time(now)));
    conditions.retain(|c| c.type_ != kind);
    conditions.push(PodCondition { type_: kind.into(), status: value.into(), last_transition_time: since, ..said });
}

/// Whether a pod is a scheduler's to place: it has no node, has not ended and is not going.
pub fn is_unplaced(pod: &Pod) -> bool {
    pod::node_name(pod).is_empty() && pod::active(pod)
}
