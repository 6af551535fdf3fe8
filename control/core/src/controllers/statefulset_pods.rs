//! The pods of a StatefulSet and their claims: one name, host name and storage per ordinal.

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, PodTemplateSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};

use super::history::LABEL_REVISION;
use super::meta::{self, HasMeta, text};
use super::{Action, Target, template};

/// Label of a pod with its own name.
pub const LABEL_POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// Label of a pod with its ordinal.
pub const LABEL_POD_INDEX: &str = "apps.kubernetes.io/pod-index";

impl HasMeta for PersistentVolumeClaim {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// PersistentVolumeClaims.
pub fn claims() -> copepod_api::Gvr {
    meta::v1("", "persistentvolumeclaims")
}

/// The name of a set's pod.
pub fn pod_name(set: &str, ordinal: i32) -> String {
    format!("{set}-{ordinal}")
}

/// The ordinal in the name of a set's pod; `None` if the pod's name is not one of the set's.
pub fn ordinal(set: &str, pod: &str) -> Option<i32> {
    let ordinal = pod.strip_prefix(set)?.strip_prefix('-')?.parse().ok().filter(|n| *n >= 0)?;
    (pod_name(set, ordinal) == pod).then_some(ordinal)
}

/// The claims' names and templates of an ordinal.
pub fn claims_of(set: &StatefulSet, ordinal: i32) -> impl Iterator<Item = (String, &PersistentVolumeClaim)> {
    let templates = set.spec.as_ref().and_then(|s| s.volume_claim_templates.as_deref()).unwrap_or_default();
    templates.iter().map(move |template| {
        (format!("{}-{}-{ordinal}", text(&template.metadata.name), text(&set.metadata.name)), template)
    })
}

/// Whether a claim has the name of one that the set's templates make.
pub fn may_own(set: &StatefulSet, claim: &str) -> bool {
    let number = claim.rsplit_once('-').and_then(|(_, n)| n.parse().ok());
    number.is_some_and(|ordinal| claims_of(set, ordinal).any(|(name, _)| name == claim))
}

/// Creates the pod of an ordinal from a revision's template.
pub(super) fn create_pod(
    set: &StatefulSet,
    owner: &OwnerReference,
    from: &PodTemplateSpec,
    revision: &str,
    ordinal: i32,
) -> Action {
    let name = pod_name(text(&set.metadata.name), ordinal);
    let mut pod = template::pod(from, owner);
    pod.metadata.name = Some(name.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(LABEL_POD_NAME.into(), name.clone());
    labels.insert(LABEL_POD_INDEX.into(), ordinal.to_string());
    labels.insert(LABEL_REVISION.into(), revision.into());
    let spec = pod.spec.get_or_insert_default();
    spec.hostname = Some(name.clone());
    spec.subdomain = set.spec.as_ref().and_then(|s| s.service_name.clone()).filter(|s| !s.is_empty());
    let claimed: Vec<Volume> = claims_of(set, ordinal)
        .map(|(claim_name, template)| Volume {
            name: text(&template.metadata.name).into(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource { claim_name, read_only: None }),
            ..Volume::default()
        })
        .collect();
    if !claimed.is_empty() {
        let volumes = spec.volumes.get_or_insert_default();
        volumes.retain(|v| claimed.iter().all(|c| c.name != v.name));
        volumes.splice(0..0, claimed);
    }
    let target = Target::new(meta::pods(), text(&set.metadata.namespace), &name);
    Action::Create { target, object: meta::value(&pod) }
}

/// Creates a claim from its template, with the set's labels and, if it goes with the set, its owner.
pub(super) fn create_claim(
    set: &StatefulSet,
    owner: &OwnerReference,
    name: &str,
    from: &PersistentVolumeClaim,
) -> Action {
    let mut labels = from.metadata.labels.clone().unwrap_or_default();
    labels.extend(set.spec.iter().flat_map(|s| s.selector.match_labels.clone().unwrap_or_default()));
    let claim = PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name.into()),
            labels: Some(labels),
            annotations: from.metadata.annotations.clone(),
            finalizers: from.metadata.finalizers.clone(),
            owner_references: Retention::of(set.spec.as_ref()).of_set(false).then(|| vec![owner.clone()]),
            ..ObjectMeta::default()
        },
        spec: from.spec.clone(),
        status: None,
    };
    let target = Target::new(claims(), text(&set.metadata.namespace), name);
    Action::Create { target, object: meta::value(&claim) }
}

/// What becomes of claims that are no longer needed.
#[derive(Clone, Copy)]
pub(super) struct Retention {
    when_deleted: bool,
    when_scaled: bool,
}

impl Retention {
    pub fn of(spec: Option<&StatefulSetSpec>) -> Self {
        let policy = spec.and_then(|s| s.persistent_volume_claim_retention_policy.as_ref());
        let delete = |value: Option<&String>| value.is_some_and(|v| v == "Delete");
        Self {
            when_deleted: delete(policy.and_then(|p| p.when_deleted.as_ref())),
            when_scaled: delete(policy.and_then(|p| p.when_scaled.as_ref())),
        }
    }
    /// Whether a claim goes with the set; `condemned` says that its pod is scaled away.
    fn of_set(self, condemned: bool) -> bool {
        self.when_deleted && !(self.when_scaled && condemned)
    }
    /// Whether a claim goes with its pod.
    fn of_pod(self, condemned: bool) -> bool {
        self.when_scaled && condemned
    }

    /// The write that gives a claim the owners it should have; `None` if it has them or someone else controls it.
    pub fn own(
        self,
        claim: &PersistentVolumeClaim,
        set: &OwnerReference,
        pod: &Pod,
        condemned: bool,
    ) -> Option<Action> {
        let pod = meta::controller_ref("v1", "Pod", &pod.metadata);
        let before: Vec<&OwnerReference> = claim.metadata.owner_references.iter().flatten().collect();
        let ours = |o: &OwnerReference| o.uid == set.uid || o.uid == pod.uid;
        if before.iter().any(|o| o.controller == Some(true) && !ours(o)) {
            return None;
        }
        let mut after: Vec<&OwnerReference> = before.iter().copied().filter(|o| !ours(o)).collect();
        after.extend(self.of_set(condemned).then_some(set));
        after.extend(self.of_pod(condemned).then_some(&pod));
        let uids = |owners: &[&OwnerReference]| -> std::collections::BTreeSet<String> {
            owners.iter().map(|o| o.uid.clone()).collect()
        };
        if uids(&before) == uids(&after) {
            return None;
        }
        Some(patch(claims(), &claim.metadata, "ownerReferences", json!(after)))
    }
    /// Whether a claim still goes with an earlier pod of this name, so that a new one must wait until it is gone.
    pub fn stale(self, claim: &PersistentVolumeClaim, pod: &str) -> bool {
        let earlier = |o: &OwnerReference| o.kind == "Pod" && o.name == pod;
        self.when_scaled && claim.metadata.owner_references.iter().flatten().any(earlier)
    }
}

/// The write that gives a pod back the label of its name; `None` if it has it.
pub(super) fn relabel(pod: &Pod) -> Option<Action> {
    let name = text(&pod.metadata.name);
    let noted = pod.metadata.labels.as_ref().and_then(|l| l.get(LABEL_POD_NAME));
    if noted.map(String::as_str) == Some(name) {
        return None;
    }
    Some(patch(meta::pods(), &pod.metadata, "labels", json!({LABEL_POD_NAME: name})))
}

fn patch(gvr: copepod_api::Gvr, of: &ObjectMeta, key: &str, value: Value) -> Action {
    let mut metadata = json!({"uid": of.uid, "resourceVersion": of.resource_version});
    if let Some(metadata) = metadata.as_object_mut() {
        metadata.insert(key.into(), value);
    }
    Action::Patch {
        target: Target::new(gvr, text(&of.namespace), text(&of.name)),
        subresource: "",
        patch: json!({"metadata": metadata}),
    }
}
