//! ControllerRevisions: the templates that a StatefulSet or DaemonSet had, kept to be rolled back to.
//! Source: <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/controller-revision-v1/>.

use std::sync::Arc;

use copepod_api::{Gvr, LabelSelector};
use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::runtime::RawExtension;
use serde_json::{Value, json};

use super::deployment::template_hash;
use super::meta::{self, HasMeta, text};
use super::{Action, Propagation, Target};

/// Label of a pod that names the revision it is of.
pub const LABEL_REVISION: &str = "controller-revision-hash";
/// Annotation of a workload that its revisions do not inherit: it holds the workload once more.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The longest part of a workload's name in the names of its revisions, so that the hash has room.
const MAX_PREFIX: usize = 223;

/// ControllerRevisions.
pub fn revisions() -> Gvr {
    meta::v1("apps", "controllerrevisions")
}

impl HasMeta for ControllerRevision {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// A workload, as its history knows it.
pub struct Workload<'a> {
    /// Its metadata.
    pub meta: &'a ObjectMeta,
    /// The reference by which it controls its revisions.
    pub reference: &'a OwnerReference,
    /// Its selector.
    pub selector: &'a LabelSelector,
    /// Its present template.
    pub template: &'a PodTemplateSpec,
    /// How often a revision's name was taken.
    pub collisions: i32,
    /// Label of a revision with its hash.
    pub hash_label: &'static str,
}

/// The revision of the present template.
#[derive(Debug)]
pub enum Latest {
    /// It is there.
    Known(Arc<ControllerRevision>),
    /// It must be created first.
    Missing(Action),
    /// It must be created, but another object has its name: a collision to be counted.
    Collides,
}

/// A workload's revisions.
#[derive(Debug)]
pub struct History {
    /// All that it has, oldest first.
    pub revisions: Vec<Arc<ControllerRevision>>,
    /// That of its present template.
    pub latest: Latest,
    /// Adoptions, releases, and the new number of a revision that was rolled back to.
    pub actions: Vec<Action>,
    /// Whether there are adoptions: the workload must be confirmed first.
    pub adopts: bool,
}

/// Finds a workload's revisions among those that it may claim and those that have names which it needs.
pub fn resolve(workload: &Workload<'_>, all: &[Arc<ControllerRevision>]) -> History {
    let claim = meta::claim(workload.meta, workload.reference, workload.selector, &revisions(), all);
    let mut owned = claim.owned;
    let age = |r: &ControllerRevision| r.metadata.creation_timestamp.as_ref().map(|t| t.0);
    owned.sort_by_key(|r| (r.revision, age(r), r.metadata.name.clone()));
    let mut history =
        History { latest: Latest::Collides, actions: claim.actions, adopts: claim.adopts, revisions: owned };
    let next = history.revisions.last().map_or(0, |r| r.revision).saturating_add(1);
    let equal = history.revisions.iter().rposition(|r| template(r).as_ref() == Some(workload.template));
    if let Some(known) = equal.and_then(|at| history.revisions.get(at)).cloned() {
        if equal.is_some_and(|at| at + 1 < history.revisions.len()) {
            history.actions.push(Action::Patch {
                target: Target::new(revisions(), text(&known.metadata.namespace), text(&known.metadata.name)),
                subresource: "",
                patch: json!({"metadata": {"uid": known.metadata.uid}, "revision": next}),
            });
        }
        history.latest = Latest::Known(known);
        return history;
    }
    let hash = template_hash(workload.template, (workload.collisions > 0).then_some(workload.collisions));
    let prefix: String = text(&workload.meta.name).chars().take(MAX_PREFIX).collect();
    let name = format!("{prefix}-{hash}");
    if !all.iter().any(|r| r.metadata.name.as_deref() == Some(&name)) {
        history.latest = Latest::Missing(create(workload, &name, &hash, next));
    }
    history
}

fn create(workload: &Workload<'_>, name: &str, hash: &str, number: i64) -> Action {
    let template_meta = workload.template.metadata.as_ref();
    let mut labels = template_meta.and_then(|m| m.labels.clone()).unwrap_or_default();
    labels.insert(workload.hash_label.into(), hash.into());
    let mut annotations = workload.meta.annotations.clone().unwrap_or_default();
    annotations.remove(LAST_APPLIED);
    let mut template = meta::value(workload.template);
    if let Some(template) = template.as_object_mut() {
        // The data is a strategic merge patch of the workload.
        template.insert("$patch".into(), json!("replace"));
    }
    let revision = ControllerRevision {
        metadata: ObjectMeta {
            name: Some(name.into()),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![workload.reference.clone()]),
            ..ObjectMeta::default()
        },
        data: Some(RawExtension(json!({"spec": {"template": template}}))),
        revision: number,
    };
    let target = Target::new(revisions(), text(&workload.meta.namespace), name);
    Action::Create { target, object: meta::value(&revision) }
}

/// The template that a revision holds; `None` if it is none of ours.
pub fn template(revision: &ControllerRevision) -> Option<PodTemplateSpec> {
    let template = revision.data.as_ref().and_then(|d| d.0.pointer("/spec/template")).cloned();
    serde_json::from_value(template.filter(Value::is_object)?).ok()
}

impl History {
    /// The revision of a name.
    pub fn named(&self, name: &str) -> Option<&Arc<ControllerRevision>> {
        self.revisions.iter().find(|r| r.metadata.name.as_deref() == Some(name))
    }

    /// The deletions of all but the newest `limit` of those revisions that are not in use.
    pub fn excess(&self, limit: Option<i32>, in_use: impl Fn(&ControllerRevision) -> bool) -> Vec<Action> {
        let spare: Vec<_> = self.revisions.iter().filter(|r| !in_use(r)).collect();
        let keep = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let delete = |r: &&Arc<ControllerRevision>| Action::Delete {
            target: Target::new(revisions(), text(&r.metadata.namespace), text(&r.metadata.name)),
            propagation: Propagation::Background,
            uid: r.metadata.uid.clone(),
            grace: None,
        };
        spare.iter().take(spare.len().saturating_sub(keep)).map(delete).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn template_of(image: &str) -> PodTemplateSpec {
        yaml(&format!("metadata: {{labels: {{app: db}}}}\nspec: {{containers: [{{name: c, image: '{image}'}}]}}"))
    }

    fn resolved(image: &str, collisions: i32, all: &[Arc<ControllerRevision>]) -> History {
        let meta: ObjectMeta = yaml(
            "{name: db, namespace: shop, uid: s1, annotations: {kubernetes.io/change-cause: why, kubectl.kubernetes.io/last-applied-configuration: x}}",
        );
        let reference = meta::controller_ref("apps/v1", "StatefulSet", &meta);
        let selector = LabelSelector::parse("app=db").unwrap();
        let template = template_of(image);
        let workload = Workload {
            meta: &meta,
            reference: &reference,
            selector: &selector,
            template: &template,
            collisions,
            hash_label: "hash",
        };
        resolve(&workload, all)
    }

    /// The revision that is created for an image, as the API would have it, under another number.
    fn revision(image: &str, number: i64) -> Arc<ControllerRevision> {
        let Latest::Missing(Action::Create { mut object, target }) = resolved(image, 0, &[]).latest else { panic!() };
        object["metadata"]["namespace"] = json!("shop");
        object["metadata"]["uid"] = json!(target.name);
        object["revision"] = json!(number);
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_new_template_is_a_new_revision() {
        let history = resolved("b", 0, &[revision("a", 4)]);
        let Latest::Missing(Action::Create { object, target }) = &history.latest else { panic!("{history:?}") };
        assert!(target.name.starts_with("db-"), "{target:?}");
        assert_eq!(object["revision"], json!(5));
        assert_eq!(object["metadata"]["annotations"], json!({"kubernetes.io/change-cause": "why"}));
        assert_eq!(format!("db-{}", object["metadata"]["labels"]["hash"].as_str().unwrap()), target.name);
        assert_eq!(object["metadata"]["labels"]["app"], "db");
        assert_eq!(object.pointer("/data/spec/template/$patch"), Some(&json!("replace")));
        assert_eq!(object.pointer("/data/spec/template/spec/containers/0/image"), Some(&json!("b")));
        assert_eq!(template(&revision("b", 1)), Some(template_of("b")));
    }

    #[test]
    fn a_template_that_was_there_before_gets_the_highest_number() {
        let all = [revision("a", 1), revision("b", 2)];
        let history = resolved("a", 0, &all);
        let Latest::Known(known) = &history.latest else { panic!("{history:?}") };
        assert_eq!(known.metadata.name, all[0].metadata.name);
        let [Action::Patch { patch, .. }] = history.actions.as_slice() else { panic!("{history:?}") };
        assert_eq!(patch["revision"], json!(3));
        assert!(resolved("b", 0, &all).actions.is_empty(), "the newest stays as it is");
    }

    #[test]
    fn a_taken_name_is_a_collision_and_the_next_name_is_another() {
        let mut foreign = (*revision("a", 1)).clone();
        foreign.metadata.owner_references.as_mut().unwrap()[0].uid = "other".into();
        let all = [Arc::new(foreign)];
        assert!(matches!(resolved("a", 0, &all).latest, Latest::Collides));
        let Latest::Missing(create) = resolved("a", 1, &all).latest else { panic!() };
        assert_ne!(Some(&create.target().name), all[0].metadata.name.as_ref());
    }

    #[test]
    fn the_oldest_unused_go() {
        let all: Vec<_> = (1..=5).map(|n| revision(&n.to_string(), n)).collect();
        let history = resolved("5", 0, &all);
        for (limit, used, gone) in [(Some(2), 5, vec![0, 1]), (Some(0), 1, vec![1, 2, 3, 4]), (None, 5, vec![])] {
            let deleted: Vec<String> =
                history.excess(limit, |r| r.revision == used).iter().map(|a| a.target().name.clone()).collect();
            let expected: Vec<String> = gone.iter().map(|n: &usize| all[*n].metadata.name.clone().unwrap()).collect();
            assert_eq!(deleted, expected, "{limit:?}");
        }
    }
}
