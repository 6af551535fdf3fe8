//! Claims that pods use and volumes that are bound are not deleted before that ends: finalizers hold them.
//! Source: <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#storage-object-in-use-protection>.

use copepod_api::Gvr;
use copepod_api::names::{FINALIZER_CLAIM, FINALIZER_VOLUME};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;

use super::meta::text;
use super::volume_claims::{claims, precondition, volumes};
use super::{Action, Plan, Target, pod};

/// Protects a claim; lets it go if it is being deleted and no pod uses it.
pub fn claim(claim: &PersistentVolumeClaim, used: bool) -> Plan {
    held(claims(), &claim.metadata, FINALIZER_CLAIM, used)
}

/// Protects a volume; lets it go if it is being deleted and not bound.
pub fn volume(volume: &PersistentVolume) -> Plan {
    let bound = volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
    held(volumes(), &volume.metadata, FINALIZER_VOLUME, bound)
}

/// Whether an object is being deleted and held by this finalizer.
pub fn is_held(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.deletion_timestamp.is_some() && has(meta, finalizer)
}

/// The claims that a pod uses, which counts once it has a node: until it is gone, even if it has ended.
pub fn claims_of(pod: &Pod) -> Vec<String> {
    if pod::node_name(pod).is_empty() { Vec::new() } else { pod::claims(pod) }
}

/// The write that takes a finalizer off an object.
pub(super) fn without(gvr: Gvr, meta: &ObjectMeta, finalizer: &str) -> Action {
    let rest: Vec<&String> = meta.finalizers.iter().flatten().filter(|f| *f != finalizer).collect();
    finalizers(gvr, meta, &rest)
}

fn has(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().flatten().any(|f| f == finalizer)
}

fn held(gvr: Gvr, meta: &ObjectMeta, finalizer: &str, in_use: bool) -> Plan {
    let going = meta.deletion_timestamp.is_some();
    if going && has(meta, finalizer) && !in_use {
        return Plan { actions: vec![without(gvr, meta, finalizer)], ..Plan::nothing("it is not in use") };
    }
    if !going && !has(meta, finalizer) {
        let own = finalizer.to_string();
        let all: Vec<&String> = meta.finalizers.iter().flatten().chain([&own]).collect();
        return Plan { actions: vec![finalizers(gvr, meta, &all)], ..Plan::nothing("it is protected") };
    }
    Plan::nothing("nothing to do")
}

fn finalizers(gvr: Gvr, meta: &ObjectMeta, all: &[&String]) -> Action {
    let mut metadata = precondition(meta, &[]);
    if let Some(fields) = metadata.as_object_mut() {
        fields.insert("finalizers".into(), json!(all));
    }
    Action::Patch {
        target: Target::new(gvr, text(&meta.namespace), text(&meta.name)),
        subresource: "",
        patch: json!({"metadata": metadata}),
    }
}
