//! What all controllers need of metadata: owners, claiming by selector, labels, values of types.

use std::collections::BTreeMap;
use std::sync::Arc;

use copepod_api::{Gvr, LabelSelector};
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde::Serialize;
use serde_json::{Value, json};

use super::{Action, Target};

/// The served resource `resource` of `group` at v1.
pub fn v1(group: &str, resource: &str) -> Gvr {
    Gvr { group: group.into(), version: "v1".into(), resource: resource.into() }
}
/// Pods.
pub fn pods() -> Gvr {
    v1("", "pods")
}
/// ReplicaSets.
pub fn replicasets() -> Gvr {
    v1("apps", "replicasets")
}
/// Deployments.
pub fn deployments() -> Gvr {
    v1("apps", "deployments")
}

/// A name or other optional text, empty if absent.
pub fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

/// Types that carry metadata.
pub trait HasMeta {
    /// The metadata.
    fn meta(&self) -> &ObjectMeta;
}
impl HasMeta for Pod {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}
impl HasMeta for ReplicaSet {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// The owner reference that says who controls the object.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// Whether the object is controlled by the owner of this UID.
pub fn controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|owner| owner.uid == uid)
}

/// The reference by which `owner` controls an object.
pub fn controller_ref(api_version: &str, kind: &str, owner: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: api_version.into(),
        kind: kind.into(),
        name: text(&owner.name).into(),
        uid: text(&owner.uid).into(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Labels, empty if absent.
pub fn labels(meta: &ObjectMeta) -> BTreeMap<String, String> {
    meta.labels.clone().unwrap_or_default()
}

/// Whether a selector matches an object's labels.
pub fn selects(selector: &LabelSelector, meta: &ObjectMeta) -> bool {
    match &meta.labels {
        Some(labels) => selector.matches(labels),
        None => selector.matches(&BTreeMap::new()),
    }
}

/// The objects that a controller has, and the writes by which it takes in orphans that match its selector and lets go
/// of its own that no longer do.
pub struct Claim<K> {
    /// The controller's objects, adopted ones included.
    pub owned: Vec<Arc<K>>,
    /// Adoptions and releases.
    pub actions: Vec<Action>,
    /// Whether there are adoptions: the owner must be confirmed first.
    pub adopts: bool,
}

/// Claims objects for `owner`. Objects that are being deleted, and any for an owner that is, are not adopted.
pub fn claim<K: HasMeta>(
    owner: &ObjectMeta,
    reference: &OwnerReference,
    selector: &LabelSelector,
    gvr: &Gvr,
    objects: &[Arc<K>],
) -> Claim<K> {
    let mut claim = Claim { owned: Vec::new(), actions: Vec::new(), adopts: false };
    let going = owner.deletion_timestamp.is_some();
    for object in objects {
        let meta = object.meta();
        let matches = selects(selector, meta);
        match controller_of(meta) {
            Some(controller) if controller.uid != reference.uid => {}
            Some(_) if matches => claim.owned.push(object.clone()),
            Some(_) if going || meta.deletion_timestamp.is_some() => {}
            Some(_) => {
                let rest: Vec<&OwnerReference> =
                    meta.owner_references.iter().flatten().filter(|o| o.uid != reference.uid).collect();
                claim.actions.push(owners_patch(gvr, meta, json!(rest)));
            }
            None if matches && !going && meta.deletion_timestamp.is_none() => {
                let mut all: Vec<&OwnerReference> = meta.owner_references.iter().flatten().collect();
                all.push(reference);
                claim.actions.push(owners_patch(gvr, meta, json!(all)));
                claim.adopts = true;
                claim.owned.push(object.clone());
            }
            None => {}
        }
    }
    claim
}

fn owners_patch(gvr: &Gvr, meta: &ObjectMeta, owners: Value) -> Action {
    Action::Patch {
        target: Target::new(gvr.clone(), text(&meta.namespace), text(&meta.name)),
        subresource: "",
        patch: json!({"metadata": {
            "uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": owners,
        }}),
    }
}

/// The status write that turns `current` into `desired`; `None` if they are equal.
pub fn status_patch<S: Serialize>(gvr: Gvr, meta: &ObjectMeta, current: Option<&S>, desired: &S) -> Option<Action> {
    let before = current.map_or_else(|| json!({}), value);
    let change = copepod_api::merge::diff(&before, &value(desired))?;
    Some(Action::Patch {
        target: Target::new(gvr, text(&meta.namespace), text(&meta.name)),
        subresource: "status",
        patch: json!({"metadata": {"uid": meta.uid}, "status": change}),
    })
}

/// An API type as JSON. Such types serialize without fail (their maps have string keys), so failure is `null`.
pub fn value<T: Serialize>(object: &T) -> Value {
    serde_json::to_value(object).unwrap_or(Value::Null)
}

/// An `IntOrString` as a count out of `total`; percentages round up or down. Malformed ones count 0.
pub fn scaled(
    value: Option<&k8s_openapi::apimachinery::pkg::util::intstr::IntOrString>,
    total: i32,
    round_up: bool,
) -> i32 {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    match value {
        None => 0,
        Some(IntOrString::Int(n)) => *n,
        Some(IntOrString::String(s)) => {
            let percent: i64 = s.strip_suffix('%').and_then(|p| p.parse().ok()).unwrap_or(0);
            let product = percent.saturating_mul(i64::from(total));
            let count = if round_up { product.saturating_add(99) / 100 } else { product / 100 };
            i32::try_from(count).unwrap_or(i32::MAX)
        }
    }
}
