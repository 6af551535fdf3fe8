//! Deployment: ReplicaSets, one per pod template, and the way from the old to the new.
//! Source: <https://kubernetes.io/docs/concepts/workloads/controllers/deployment/>.

use std::sync::Arc;

use copepod_api::LabelSelector;
use copepod_api::names::ANNOTATION_REVISION;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use serde_json::{Map, Value, json};

use super::deployment_rollout as rollout;
use super::deployment_status as status;
use super::meta::{self, text};
use super::pod;
use super::{Action, Plan, Propagation, Target};

pub use super::deployment_status::{CREATE_ERROR, refused};

/// Label that tells the pods of one template from another's.
pub const LABEL_HASH: &str = "pod-template-hash";
/// Annotation of a ReplicaSet: the Deployment's replicas when it was last scaled.
pub const ANNOTATION_DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// Annotation of a ReplicaSet: the most pods the Deployment could have when it was last scaled.
pub const ANNOTATION_MAX: &str = "deployment.kubernetes.io/max-replicas";
/// Annotations of a Deployment that its ReplicaSets do not inherit.
const NOT_INHERITED: [&str; 5] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    ANNOTATION_REVISION,
    "deployment.kubernetes.io/revision-history",
    ANNOTATION_DESIRED,
    ANNOTATION_MAX,
];

/// The Deployment and its ReplicaSets as one pass sees and changes them: planned replica counts are kept beside the
/// observed sets.
pub(super) struct View<'a> {
    pub deployment: &'a Deployment,
    /// The set of the present template, with its planned replicas.
    pub new: Option<Planned>,
    /// All others, oldest first.
    pub old: Vec<Planned>,
    pub plan: Plan,
}

/// A ReplicaSet and how many replicas it shall have.
#[derive(Clone)]
pub(super) struct Planned {
    pub set: Arc<ReplicaSet>,
    pub replicas: i32,
}

impl Planned {
    fn of(set: Arc<ReplicaSet>) -> Self {
        let replicas = spec_replicas(&set);
        Self { set, replicas }
    }
    pub fn name(&self) -> &str {
        text(&self.set.metadata.name)
    }
    /// Available pods that it keeps: those that it is to lose may be in its status still.
    pub fn available(&self) -> i32 {
        self.set.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0).min(self.replicas)
    }
}

/// A ReplicaSet's asked for replicas.
pub(super) fn spec_replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// A Deployment's asked for replicas.
pub(super) fn desired(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// Decides for one Deployment. `sets` are the ReplicaSets that it may claim and those that have names which it needs,
/// `pods` at least those of its sets (for Recreate).
pub fn reconcile(deployment: &Deployment, sets: &[Arc<ReplicaSet>], pods: &[Arc<Pod>], now: Timestamp) -> Plan {
    let Some(spec) = &deployment.spec else { return Plan::nothing("no spec") };
    let selector = match LabelSelector::from_typed(Some(&spec.selector)) {
        Ok(selector) if !selector.is_empty() => selector,
        _ => {
            let mut plan = Plan::nothing("the selector selects all pods or none");
            plan.warn(
                "SelectingAll",
                "This deployment is selecting all pods. A non-empty selector is required.".into(),
            );
            return plan;
        }
    };
    let reference = meta::controller_ref("apps/v1", "Deployment", &deployment.metadata);
    let claim = meta::claim(&deployment.metadata, &reference, &selector, &meta::replicasets(), sets);
    let mut owned = claim.owned;
    owned.sort_by_key(|s| (s.metadata.creation_timestamp.clone().map(|t| t.0), s.metadata.name.clone()));
    // Of several sets with the same template the oldest counts, as upstream has it.
    let newest = owned.iter().position(|s| same_template(s, &spec.template));
    let new = newest.map(|at| Planned::of(owned.remove(at)));
    let old = owned.into_iter().map(Planned::of).collect();
    let plan = Plan { actions: claim.actions, confirm_owner: claim.adopts, ..Plan::default() };
    let mut view = View { deployment, new, old, plan };
    let mut outcome = status::Outcome { progress: None, collisions: status::collisions(deployment), rolling: false };

    if deployment.metadata.deletion_timestamp.is_some() {
        view.plan.why = "being deleted: status only".into();
    } else if spec.paused == Some(true) {
        view.plan.why = "paused".into();
        outcome.progress = status::paused(deployment, now);
        view.align_revision();
        rollout::scale(&mut view);
        rollout::cleanup(&mut view);
    } else if view.is_scaling() {
        view.plan.why = "scaling".into();
        outcome.progress = status::resumed(deployment, now);
        view.align_revision();
        rollout::scale(&mut view);
    } else {
        outcome.rolling = true;
        outcome.progress = status::resumed(deployment, now);
        let recreate = spec.strategy.as_ref().and_then(|s| s.type_.as_deref()) == Some("Recreate");
        let waits = recreate && view.empty_old_first(pods, sets);
        if waits {
            view.plan.why = "recreate: waiting for the old pods to end".into();
        } else if view.new.is_none() {
            view.create_new(sets, &reference, now, &mut outcome);
        } else {
            view.align_revision();
            if view.progress_missing() {
                let name = view.new.as_ref().map(|n| n.name().to_string()).unwrap_or_default();
                outcome.progress = Some(status::progressing(
                    "True",
                    "FoundNewReplicaSet",
                    &format!("Found new replica set \"{name}\""),
                    now,
                ));
            }
            if recreate {
                let replicas = desired(deployment);
                view.resize_new(replicas);
            } else {
                rollout::roll(&mut view);
            }
        }
        if status::complete(&view) {
            rollout::cleanup(&mut view);
        }
    }
    let actual = status::calculate(&mut view, outcome, now);
    view.plan.status =
        meta::status_patch(meta::deployments(), &deployment.metadata, deployment.status.as_ref(), &actual);
    view.plan
}

impl View<'_> {
    /// All sets, the new one first.
    pub fn all(&self) -> impl Iterator<Item = &Planned> {
        self.new.iter().chain(self.old.iter())
    }

    /// Whether the Deployment was scaled since its active sets were.
    fn is_scaling(&self) -> bool {
        let wanted = desired(self.deployment).to_string();
        self.all().filter(|s| s.replicas > 0).any(|s| {
            let noted = s.set.metadata.annotations.as_ref().and_then(|a| a.get(ANNOTATION_DESIRED));
            noted.is_some_and(|noted| *noted != wanted)
        })
    }

    fn progress_missing(&self) -> bool {
        status::condition(self.deployment, "Progressing").is_none()
    }

    /// Under Recreate: scales old sets to nothing; whether old pods still run.
    fn empty_old_first(&mut self, pods: &[Arc<Pod>], sets: &[Arc<ReplicaSet>]) -> bool {
        let mut waits = false;
        for at in 0..self.old.len() {
            if self.old.get(at).is_some_and(|s| s.replicas > 0) {
                self.resize_old(at, 0);
                waits = true;
            }
        }
        let new_uid = self.new.as_ref().map(|n| text(&n.set.metadata.uid).to_string());
        let ours = |uid: &str| {
            sets.iter().any(|s| {
                text(&s.metadata.uid) == uid && meta::controlled_by(&s.metadata, text(&self.deployment.metadata.uid))
            })
        };
        waits
            || pods.iter().filter(|p| !pod::terminal(p)).any(|p| {
                meta::controller_of(&p.metadata).is_some_and(|o| Some(&o.uid) != new_uid.as_ref() && ours(&o.uid))
            })
    }

    /// Creates the set of the present template.
    fn create_new(
        &mut self,
        sets: &[Arc<ReplicaSet>],
        reference: &k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference,
        now: Timestamp,
        outcome: &mut status::Outcome,
    ) {
        let Some(spec) = &self.deployment.spec else { return };
        let hash = template_hash(&spec.template, outcome.collisions);
        let name = format!("{}-{hash}", text(&self.deployment.metadata.name));
        if sets.iter().any(|s| s.metadata.name.as_deref() == Some(&name)) {
            outcome.collisions = Some(outcome.collisions.unwrap_or(0).saturating_add(1));
            self.plan.why = format!("the name {name} is taken by another template: counting a collision");
            return;
        }
        let replicas = rollout::new_replicas(self);
        let mut template = meta::value(&spec.template);
        let mut selector = meta::value(&spec.selector);
        set_string(&mut template, &["metadata", "labels"], LABEL_HASH, &hash);
        set_string(&mut selector, &["matchLabels"], LABEL_HASH, &hash);
        let mut annotations = self.inherited_annotations();
        annotations.insert(ANNOTATION_REVISION.into(), json!(self.next_revision().to_string()));
        annotations.extend(self.size_annotations());
        let labels = template.pointer("/metadata/labels").cloned().unwrap_or_default();
        let mut object = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": {"name": name, "labels": labels, "annotations": annotations, "ownerReferences": [reference]},
            "spec": {"replicas": replicas, "selector": selector, "template": template},
        });
        if let (Some(seconds), Some(spec)) =
            (spec.min_ready_seconds, object.get_mut("spec").and_then(Value::as_object_mut))
        {
            spec.insert("minReadySeconds".into(), json!(seconds));
        }
        let namespace = text(&self.deployment.metadata.namespace);
        self.plan.actions.push(Action::Create { target: Target::new(meta::replicasets(), namespace, &name), object });
        if replicas > 0 {
            self.plan.note("ScalingReplicaSet", format!("Scaled up replica set {name} from 0 to {replicas}"));
        }
        self.plan.why = format!("creating ReplicaSet {name} with {replicas} replicas");
        self.note_revision(self.next_revision());
        outcome.progress = Some(status::progressing(
            "True",
            "NewReplicaSetCreated",
            &format!("Created new replica set \"{name}\""),
            now,
        ));
    }

    /// Gives the new set the highest revision and the Deployment's annotations, and the Deployment the set's revision.
    fn align_revision(&mut self) {
        let Some(new) = self.new.clone() else { return };
        let have = revision(&new.set);
        let wanted = have.max(self.next_revision());
        let annotations = new.set.metadata.annotations.clone().unwrap_or_default();
        let mut changes = self.inherited_annotations();
        changes.retain(|k, v| annotations.get(k).map(String::as_str) != v.as_str());
        if wanted != have {
            changes.insert(ANNOTATION_REVISION.into(), json!(wanted.to_string()));
        }
        let min_ready = self.deployment.spec.as_ref().and_then(|s| s.min_ready_seconds);
        let min_ready_changed =
            new.set.spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0) != min_ready.unwrap_or(0);
        let mut patch = json!({"metadata": {"uid": new.set.metadata.uid}});
        if let (false, Some(m)) = (changes.is_empty(), patch.get_mut("metadata").and_then(Value::as_object_mut)) {
            m.insert("annotations".into(), Value::Object(changes.clone()));
        }
        if let (true, Some(p)) = (min_ready_changed, patch.as_object_mut()) {
            p.insert("spec".into(), json!({"minReadySeconds": min_ready.unwrap_or(0)}));
        }
        if !changes.is_empty() || min_ready_changed {
            self.plan.actions.push(Action::Patch { target: self.target(new.name()), subresource: "", patch });
        }
        self.note_revision(wanted);
    }

    /// Writes the Deployment's revision annotation if it differs.
    fn note_revision(&mut self, revision: i64) {
        let noted = self.deployment.metadata.annotations.as_ref().and_then(|a| a.get(ANNOTATION_REVISION));
        if noted.map(String::as_str) == Some(revision.to_string().as_str()) {
            return;
        }
        let meta = &self.deployment.metadata;
        self.plan.actions.push(Action::Patch {
            target: Target::new(meta::deployments(), text(&meta.namespace), text(&meta.name)),
            subresource: "status",
            patch: json!({"metadata": {"uid": meta.uid, "annotations": {ANNOTATION_REVISION: revision.to_string()}}}),
        });
    }

    /// One more than the highest revision among the old sets.
    fn next_revision(&self) -> i64 {
        self.old.iter().map(|s| revision(&s.set)).max().unwrap_or(0) + 1
    }

    fn inherited_annotations(&self) -> Map<String, Value> {
        let annotations = self.deployment.metadata.annotations.iter().flatten();
        annotations.filter(|(k, _)| !NOT_INHERITED.contains(&k.as_str())).map(|(k, v)| (k.clone(), json!(v))).collect()
    }

    fn size_annotations(&self) -> Map<String, Value> {
        let wanted = desired(self.deployment);
        let most = wanted.saturating_add(rollout::max_surge(self.deployment));
        Map::from_iter([
            (ANNOTATION_DESIRED.to_string(), json!(wanted.to_string())),
            (ANNOTATION_MAX.to_string(), json!(most.to_string())),
        ])
    }

    fn target(&self, set: &str) -> Target {
        Target::new(meta::replicasets(), text(&self.deployment.metadata.namespace), set)
    }

    /// Plans the new set's size.
    pub fn resize_new(&mut self, replicas: i32) {
        if let Some(new) = self.new.clone() {
            self.resize(&new, replicas);
            self.new = Some(Planned { replicas, ..new });
        }
    }

    /// Plans the size of the old set at an index.
    pub fn resize_old(&mut self, at: usize, replicas: i32) {
        if let Some(old) = self.old.get(at).cloned() {
            self.resize(&old, replicas);
            if let Some(slot) = self.old.get_mut(at) {
                slot.replicas = replicas;
            }
        }
    }

    fn resize(&mut self, sized: &Planned, replicas: i32) {
        let mut annotations = self.size_annotations();
        let noted = sized.set.metadata.annotations.clone().unwrap_or_default();
        annotations.retain(|k, v| noted.get(k).map(String::as_str) != v.as_str());
        if sized.replicas == replicas && (annotations.is_empty() || replicas == 0) {
            return;
        }
        let mut patch = json!({"metadata": {"uid": sized.set.metadata.uid, "annotations": annotations}});
        if let (true, Some(p)) = (sized.replicas != replicas, patch.as_object_mut()) {
            p.insert("spec".into(), json!({"replicas": replicas}));
            let direction = if replicas > sized.replicas { "up" } else { "down" };
            let (name, from) = (sized.name(), sized.replicas);
            let message = format!("Scaled {direction} replica set {name} from {from} to {replicas}");
            self.plan.why = message.clone();
            self.plan.note("ScalingReplicaSet", message);
        }
        self.plan.actions.push(Action::Patch { target: self.target(sized.name()), subresource: "", patch });
    }

    /// Plans the deletion of the old set at an index.
    pub fn delete_old(&mut self, at: usize) {
        if let Some(old) = self.old.get(at) {
            self.plan.actions.push(Action::Delete {
                target: self.target(old.name()),
                propagation: Propagation::Background,
                uid: old.set.metadata.uid.clone(),
                grace: None,
            });
        }
    }
}

/// A ReplicaSet's revision, 0 if it has none.
pub(super) fn revision(set: &ReplicaSet) -> i64 {
    set.metadata.annotations.as_ref().and_then(|a| a.get(ANNOTATION_REVISION)).and_then(|r| r.parse().ok()).unwrap_or(0)
}

/// Whether a set runs this template, its hash label aside.
fn same_template(set: &ReplicaSet, template: &PodTemplateSpec) -> bool {
    let Some(mut have) = set.spec.as_ref().and_then(|s| s.template.clone()) else { return false };
    let mut wanted = template.clone();
    for template in [&mut have, &mut wanted] {
        if let Some(labels) = template.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
            labels.remove(LABEL_HASH);
        }
    }
    have == wanted
}

/// A short hash of a template, in characters that make no words.
pub(super) fn template_hash(template: &PodTemplateSpec, collisions: Option<i32>) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut bytes = serde_json::to_vec(template).unwrap_or_default();
    if let Some(collisions) = collisions {
        bytes.extend_from_slice(&collisions.to_le_bytes());
    }
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193));
    let letter = |b: u8| ALPHABET.get(usize::from(b) % ALPHABET.len()).copied().unwrap_or(b'b');
    hash.to_string().bytes().map(|b| char::from(letter(b))).collect()
}

/// Sets `root.path.key`, making the objects on the way.
fn set_string(root: &mut Value, path: &[&str], key: &str, value: &str) {
    let mut at = root;
    for part in path {
        if !at.is_object() {
            *at = json!({});
        }
        let Some(object) = at.as_object_mut() else { return };
        at = object.entry(*part).or_insert_with(|| json!({}));
    }
    if !at.is_object() {
        *at = json!({});
    }
    if let Some(object) = at.as_object_mut() {
        object.insert(key.into(), json!(value));
    }
}

#[cfg(test)]
#[path = "deployment_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "deployment_prop_tests.rs"]
mod prop_tests;
