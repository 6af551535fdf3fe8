//! Binding claims to volumes, one claim at a time: to the volume that it or the volume names, else to the smallest that
//! fits, else one is asked for from the class's provisioner. A class may have that wait for the claim's first pod; then
//! the scheduler chooses.
//! Source: <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#lifecycle-of-a-volume-and-claim>.

use std::sync::Arc;
use std::time::Duration;

use copepod_api::names::LOCAL_PATH;
use copepod_api::{Gvr, Quantity};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use super::meta::{self, text};
use super::{Action, Plan, Target};
use crate::kinds::storage_class::IS_DEFAULT;
use crate::scheduler::volumes::{
    BOUND_BY_CONTROLLER, SELECTED_NODE, asked, capacity, class_of, kept_for, may_hold, mode_of,
};

/// On a claim that was bound once.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim: who is to make a volume for it.
pub const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// The same by its old name.
const BETA_STORAGE_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// Provisioners of this group were part of Kubernetes once; none is here.
const IN_TREE: &str = "kubernetes.io/";
/// How often it is said again why a claim waits.
pub const REPEAT: Duration = Duration::from_secs(300);

/// Pods that an event names; more are counted.
const MAX_PODS_NAMED: usize = 10;

/// PersistentVolumes.
pub fn volumes() -> Gvr {
    meta::v1("", "persistentvolumes")
}
/// PersistentVolumeClaims.
pub fn claims() -> Gvr {
    meta::v1("", "persistentvolumeclaims")
}

/// What a claim is decided on.
#[derive(Debug, Default)]
pub struct Seen<'a> {
    /// The volume that the claim names, if it is there.
    pub volume: Option<&'a PersistentVolume>,
    /// Volumes that are kept for the claim, and of those of its class that are kept for nobody the smallest that it may
    /// have; others change nothing.
    pub candidates: &'a [Arc<PersistentVolume>],
    /// The class that the claim names, if it is there.
    pub class: Option<&'a StorageClass>,
    /// The class of claims that name none.
    pub default_class: Option<&'a str>,
    /// Pods that use the claim and have no node yet, by name.
    pub pods: &'a [String],
    /// The bytes of the largest disk of any node, if the claim is to get a directory there and asks for more.
    pub too_small: Option<i64>,
}

/// Binds a claim, asks for a volume for it, or says why it waits.
pub fn reconcile(claim: &PersistentVolumeClaim, seen: &Seen) -> Plan {
    let named = volume_name(claim);
    if annotation(&claim.metadata, BIND_COMPLETED).is_some() {
        return bound(claim, seen.volume);
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return Plan::nothing("it is going");
    }
    if !named.is_empty() {
        return with_named(claim, named, seen.volume);
    }
    let class = claim_class(claim);
    if let (None, Some(default)) = (class, seen.default_class) {
        let patch = json!({"metadata": precondition(&claim.metadata, &[]), "spec": {"storageClassName": default}});
        return Plan { actions: vec![change(claim, patch)], ..Plan::nothing("it gets the default class") };
    }
    let waits = seen.class.is_some_and(is_late);
    let fitting = seen.candidates.iter().filter(|v| (!waits || kept_for(v, claim)) && may_hold(v, claim));
    if let Some(volume) = fitting.min_by_key(|v| (!kept_for(v, claim), capacity(v), text(&v.metadata.name))) {
        return bind(claim, volume);
    }
    if waits && annotation(&claim.metadata, SELECTED_NODE).is_none() {
        return consumer(claim, seen);
    }
    match class.filter(|c| !c.is_empty()) {
        Some(class) => provision(claim, class, seen.class),
        None => {
            let message = "no persistent volumes available for this claim and no storage class is set: create a \
                           PersistentVolume that fits it, or make it again with a StorageClass";
            pending(claim, "FailedBinding", message.into(), false)
        }
    }
}

/// A claim that is bound once a pod that uses it is about to get a node.
fn consumer(claim: &PersistentVolumeClaim, seen: &Seen) -> Plan {
    if let Some(largest) = seen.too_small {
        let class = claim_class(claim).unwrap_or_default();
        let size = |bytes: i64| Quantity::from_bytes(u64::try_from(bytes).unwrap_or(0));
        let message = format!(
            "failed to provision volume with StorageClass {class:?}: it asks for {}, and the largest disk of any node \
             has {}: make it again with less, or add a node",
            size(asked(claim)),
            size(largest)
        );
        return pending(claim, "ProvisioningFailed", message, true);
    }
    let rest = match seen.pods.len().saturating_sub(MAX_PODS_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let names = || seen.pods.iter().take(MAX_PODS_NAMED).map(String::as_str).collect::<Vec<_>>().join(",");
    let (reason, message) = match seen.pods {
        [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".into()),
        [pod] => ("WaitForPodScheduled", format!("waiting for pod {pod} to be scheduled")),
        _ => ("WaitForPodScheduled", format!("waiting for pods {}{rest} to be scheduled", names())),
    };
    pending(claim, reason, message, false)
}

/// The volume that a claim names; empty if none.
pub fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default()
}

/// The class that a claim names; `Some("")` asks for volumes of no class.
pub fn claim_class(claim: &PersistentVolumeClaim) -> Option<&str> {
    class_of(&claim.metadata, claim.spec.as_ref().and_then(|s| s.storage_class_name.as_deref()))
}

/// The class that claims get which name none: the newest of those marked as the default.
pub fn default_class(classes: &[Arc<StorageClass>]) -> Option<&str> {
    let marked = |c: &&Arc<StorageClass>| IS_DEFAULT.iter().any(|mark| annotation(&c.metadata, mark) == Some("true"));
    let created = |c: &StorageClass| c.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let newest = |a: &&Arc<StorageClass>, b: &&Arc<StorageClass>| {
        created(b).cmp(&created(a)).then_with(|| a.metadata.name.cmp(&b.metadata.name))
    };
    classes.iter().filter(marked).min_by(newest).and_then(|c| c.metadata.name.as_deref())
}

/// Whether a class's claims wait for their first pod.
pub fn is_late(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// The value of an annotation.
pub fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// A patch's metadata: the object must be as it was seen; and annotations to set.
pub(super) fn precondition(meta: &ObjectMeta, annotations: &[(&str, Value)]) -> Value {
    let mut fields = Map::from_iter([
        ("uid".to_string(), json!(meta.uid)),
        ("resourceVersion".to_string(), json!(meta.resource_version)),
    ]);
    if !annotations.is_empty() {
        let set = annotations.iter().map(|(key, value)| ((*key).to_string(), value.clone()));
        fields.insert("annotations".into(), Value::Object(set.collect()));
    }
    Value::Object(fields)
}

/// A patch of a claim.
pub(super) fn change(claim: &PersistentVolumeClaim, patch: Value) -> Action {
    let target = Target::new(claims(), text(&claim.metadata.namespace), text(&claim.metadata.name));
    Action::Patch { target, subresource: "", patch }
}

/// A claim that was bound once: it stays so, or it is lost.
fn bound(claim: &PersistentVolumeClaim, volume: Option<&PersistentVolume>) -> Plan {
    const LOST: &str = "Data on the volume is lost!";
    if volume_name(claim).is_empty() {
        return lost(claim, "ClaimLost", format!("Bound claim has lost reference to PersistentVolume. {LOST}"));
    }
    let Some(volume) = volume else {
        return lost(claim, "ClaimLost", format!("Bound claim has lost its PersistentVolume. {LOST}"));
    };
    let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    if reference.is_none_or(|r| r.uid == claim.metadata.uid || (r.uid.is_none() && kept_for(volume, claim))) {
        return bind(claim, volume);
    }
    let message = "Two claims are bound to the same volume, this one is bound incorrectly";
    lost(claim, "ClaimMisbound", message.into())
}

fn lost(claim: &PersistentVolumeClaim, reason: &'static str, message: String) -> Plan {
    let mut status = claim.status.clone().unwrap_or_default();
    status.phase = Some("Lost".into());
    (status.access_modes, status.capacity) = (None, None);
    let status = meta::status_patch(claims(), &claim.metadata, claim.status.as_ref(), &status);
    let mut plan = Plan { status, ..Plan::nothing("it lost its volume") };
    if phase(claim) != "Lost" {
        plan.warn(reason, message);
    }
    plan
}

/// A claim that asks for one volume.
fn with_named(claim: &PersistentVolumeClaim, name: &str, volume: Option<&PersistentVolume>) -> Plan {
    let Some(volume) = volume else {
        let message = format!("volume {name:?} not found: create it, or make the claim again without volumeName");
        return pending(claim, "FailedBinding", message, true);
    };
    if kept_for(volume, claim) {
        return bind(claim, volume);
    }
    if volume.spec.as_ref().is_some_and(|s| s.claim_ref.is_some()) {
        let message = format!("volume {name:?} already bound to a different claim.");
        return pending(claim, "FailedBinding", message, true);
    }
    match mismatch(claim, volume) {
        None => bind(claim, volume),
        Some(why) => {
            let message = format!("Cannot bind to requested volume {name:?}: {why}");
            pending(claim, "VolumeMismatch", message, true)
        }
    }
}

/// Why a volume is not what a claim asks for.
fn mismatch(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<&'static str> {
    let (Some(wants), Some(has)) = (&claim.spec, &volume.spec) else { return Some("it has no spec") };
    let modes = has.access_modes.as_deref().unwrap_or_default();
    if capacity(volume) < asked(claim) {
        Some("requested PV is too small")
    } else if class_of(&volume.metadata, has.storage_class_name.as_deref()).unwrap_or_default()
        != claim_class(claim).unwrap_or_default()
    {
        Some("storageClassName does not match")
    } else if mode_of(has.volume_mode.as_deref()) != mode_of(wants.volume_mode.as_deref()) {
        Some("incompatible volumeMode")
    } else if !wants.access_modes.iter().flatten().all(|m| modes.contains(m)) {
        Some("incompatible accessMode")
    } else {
        None
    }
}

/// Ties a claim and a volume together, each naming the other.
fn bind(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Plan {
    let name = text(&volume.metadata.name);
    let mut plan = Plan::nothing(format!("it is bound to {name}"));
    let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    if reference.is_none_or(|r| r.uid != claim.metadata.uid) {
        let by_us: &[_] = if reference.is_none() { &[(BOUND_BY_CONTROLLER, json!("yes"))] } else { &[] };
        plan.actions.push(Action::Patch {
            target: Target::new(volumes(), "", name),
            subresource: "",
            patch: json!({
                "metadata": precondition(&volume.metadata, by_us),
                "spec": {"claimRef": {
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                    "namespace": claim.metadata.namespace, "name": claim.metadata.name, "uid": claim.metadata.uid,
                    "resourceVersion": claim.metadata.resource_version,
                }},
            }),
        });
    }
    let mut annotations = vec![(BIND_COMPLETED, json!("yes"))];
    if volume_name(claim) != name {
        annotations.push((BOUND_BY_CONTROLLER, json!("yes")));
    }
    if volume_name(claim) != name || annotation(&claim.metadata, BIND_COMPLETED).is_none() {
        let metadata = precondition(&claim.metadata, &annotations);
        plan.actions.push(change(claim, json!({"metadata": metadata, "spec": {"volumeName": name}})));
    }
    let mut status = claim.status.clone().unwrap_or_default();
    if phase(claim) != "Bound" || status.capacity.is_none() {
        status.phase = Some("Bound".into());
        status.capacity = volume.spec.as_ref().and_then(|s| s.capacity.clone());
    }
    status.access_modes = volume.spec.as_ref().and_then(|s| s.access_modes.clone());
    plan.status = meta::status_patch(claims(), &claim.metadata, claim.status.as_ref(), &status);
    plan
}

/// Asks the class's provisioner for a volume.
fn provision(claim: &PersistentVolumeClaim, name: &str, class: Option<&StorageClass>) -> Plan {
    let Some(class) = class else {
        let message =
            format!("storageclass.storage.k8s.io {name:?} not found: create it, or a PersistentVolume of this class");
        return pending(claim, "ProvisioningFailed", message, true);
    };
    let provisioner = class.provisioner.as_str();
    if provisioner.starts_with(IN_TREE) {
        let message = format!(
            "no volume plugin matched name: {provisioner}: create a PersistentVolume of class {name:?} that fits the claim"
        );
        return pending(claim, "ProvisioningFailed", message, true);
    }
    let mut plan = Plan::nothing(format!("{provisioner} is to make a volume"));
    if provisioner != LOCAL_PATH {
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the \
             system administrator. If volume creation is delayed, please verify that the provisioner is running and \
             correctly registered."
        );
        plan = pending(claim, "ExternalProvisioning", message, false);
    }
    if annotation(&claim.metadata, STORAGE_PROVISIONER) != Some(provisioner) {
        let asked = [(STORAGE_PROVISIONER, json!(provisioner)), (BETA_STORAGE_PROVISIONER, json!(provisioner))];
        plan.actions.push(change(claim, json!({"metadata": precondition(&claim.metadata, &asked)})));
    }
    plan
}

/// The claim waits; why is said now and then.
fn pending(claim: &PersistentVolumeClaim, reason: &'static str, message: String, warning: bool) -> Plan {
    let mut status = claim.status.clone().unwrap_or_default();
    status.phase = Some("Pending".into());
    let status = meta::status_patch(claims(), &claim.metadata, claim.status.as_ref(), &status);
    let mut plan = Plan { status, requeue_after: Some(REPEAT), ..Plan::nothing("it waits") };
    if warning {
        plan.warn(reason, message);
    } else {
        plan.note(reason, message);
    }
    plan
}

fn phase(claim: &PersistentVolumeClaim) -> &str {
    claim.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// The size that a claim's spec asks for, as it is written.
pub(super) fn requested(spec: &PersistentVolumeClaimSpec) -> Option<&str> {
    spec.resources.as_ref()?.requests.as_ref()?.get("storage").map(|q| q.0.as_str())
}
