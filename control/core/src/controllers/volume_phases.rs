//! A volume's phase, and what becomes of it when its claim is gone.
//! Source: <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#reclaiming>.

use copepod_api::names::LOCAL_PATH;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::meta::{self, text};
use super::volume_claims::{annotation, precondition, volume_name, volumes};
use super::{Action, Plan, Propagation, Target};
use crate::scheduler::volumes::BOUND_BY_CONTROLLER;

/// On a volume that was made for a claim: by whom.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// Decides a volume's phase. `claim` is the claim of the name and UID in its `claimRef`, if it is there.
pub fn reconcile(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>, now: Timestamp) -> Plan {
    let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    if reference.is_none_or(|r| r.uid.is_none()) {
        return in_phase(volume, "Available", None, now);
    }
    let Some(claim) = claim else { return released(volume, now) };
    let named = volume_name(claim);
    if named.is_empty() {
        return Plan::nothing("its claim is about to be bound");
    }
    if named == text(&volume.metadata.name) {
        return in_phase(volume, "Bound", None, now);
    }
    // The claim has another volume.
    if annotation(&volume.metadata, PROVISIONED_BY).is_some() && policy(volume) == "Delete" {
        return released(volume, now);
    }
    let by_us = annotation(&volume.metadata, BOUND_BY_CONTROLLER).is_some();
    let patch = if by_us {
        let unbound = [(BOUND_BY_CONTROLLER, Value::Null)];
        json!({"metadata": precondition(&volume.metadata, &unbound), "spec": {"claimRef": null}})
    } else {
        let reference = json!({"uid": null, "resourceVersion": null});
        json!({"metadata": precondition(&volume.metadata, &[]), "spec": {"claimRef": reference}})
    };
    let mut plan = in_phase(volume, "Available", None, now);
    plan.actions.push(Action::Patch { target: target(volume), subresource: "", patch });
    plan
}

/// Whether a volume is Released or Failed: it is known that its claim is gone.
pub fn is_released(volume: &PersistentVolume) -> bool {
    matches!(phase(volume), "Released" | "Failed")
}

/// What becomes of a volume when its claim is gone.
pub fn policy(volume: &PersistentVolume) -> &str {
    let policy = volume.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref());
    policy.unwrap_or("Retain")
}

fn target(volume: &PersistentVolume) -> Target {
    Target::new(volumes(), "", text(&volume.metadata.name))
}

fn phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// The claim is gone: first that is said, then what the policy asks for is done.
fn released(volume: &PersistentVolume, now: Timestamp) -> Plan {
    if !is_released(volume) {
        return in_phase(volume, "Released", None, now);
    }
    match policy(volume) {
        "Delete" => deleted(volume, now),
        "Recycle" => {
            let message = "No recycler plugin found for the volume! Empty it and remove its claimRef, or delete it";
            failed(volume, "VolumeFailedRecycle", message.into(), now)
        }
        _ => Plan::nothing("its claim is gone, it is kept"),
    }
}

fn deleted(volume: &PersistentVolume, now: Timestamp) -> Plan {
    match annotation(&volume.metadata, PROVISIONED_BY) {
        // Its node takes the directory away; until then a finalizer keeps the object.
        Some(LOCAL_PATH) if volume.metadata.deletion_timestamp.is_none() => {
            let delete = Action::Delete {
                target: target(volume),
                propagation: Propagation::Background,
                uid: volume.metadata.uid.clone(),
                grace: None,
            };
            Plan { actions: vec![delete], ..Plan::nothing("its claim is gone") }
        }
        Some(by) => Plan::nothing(format!("{by} deletes it")),
        None => {
            let name = text(&volume.metadata.name);
            let message = format!(
                "error getting deleter volume plugin for volume {name:?}: no deletable volume plugin matched: delete \
                 what it holds and the volume yourself"
            );
            failed(volume, "VolumeFailedDelete", message, now)
        }
    }
}

fn failed(volume: &PersistentVolume, reason: &'static str, message: String, now: Timestamp) -> Plan {
    let mut plan = in_phase(volume, "Failed", Some(&message), now);
    if phase(volume) != "Failed" {
        plan.warn(reason, message);
    }
    plan
}

fn in_phase(volume: &PersistentVolume, wanted: &str, message: Option<&str>, now: Timestamp) -> Plan {
    let mut status = volume.status.clone().unwrap_or_default();
    if phase(volume) != wanted {
        status.phase = Some(wanted.into());
        status.last_phase_transition_time = Some(Time(now));
    }
    (status.message, status.reason) = (message.map(Into::into), None);
    let status = meta::status_patch(volumes(), &volume.metadata, volume.status.as_ref(), &status);
    Plan { status, ..Plan::nothing(format!("it is {wanted}")) }
}
