//! Garbage collection by `ownerReferences`: a graph of who owns whom, and what to do about each object.
//! Source: <https://kubernetes.io/docs/concepts/architecture/garbage-collection/>.

use std::collections::{BTreeSet, HashMap, HashSet};

use copepod_api::Gvr;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::json;

use super::meta::text;
use super::{Action, Note, Propagation, Target};

/// Finalizer of an object whose dependents must go first.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an object whose dependents must stay.
pub const ORPHAN: &str = "orphan";
/// Owners remembered as gone; beyond, all are forgotten and asked for again.
const MAX_ABSENT: usize = 10_000;

/// Every object that the collector knows of, by UID.
#[derive(Default)]
pub struct Graph {
    nodes: HashMap<String, Node>,
    /// Owner's UID to the UIDs of those that name it.
    dependents: HashMap<String, BTreeSet<String>>,
}

struct Node {
    target: Target,
    kind: String,
    owners: Vec<OwnerReference>,
    finalizers: Vec<String>,
    resource_version: Option<String>,
    deleting: bool,
}

/// Owners that live reads did not find, as their dependents name them: by UID, kind, name and namespace.
#[derive(Default)]
pub struct Absent {
    by_uid: HashMap<String, HashSet<String>>,
    len: usize,
}

impl Absent {
    /// Notes that an owner is not there, seen from a namespace (empty for cluster-scoped dependents).
    pub fn insert(&mut self, owner: &OwnerReference, namespace: &str) {
        if self.len >= MAX_ABSENT {
            *self = Self::default();
        }
        let added = self.by_uid.entry(owner.uid.clone()).or_default().insert(identity(owner, namespace));
        self.len += usize::from(added);
    }
    /// An object of this UID is there after all; what is said of it has to be learned anew.
    pub fn forget(&mut self, uid: &str) {
        self.len -= self.by_uid.remove(uid).map_or(0, |names| names.len());
    }
    fn contains(&self, owner: &OwnerReference, namespace: &str) -> bool {
        self.by_uid.get(&owner.uid).is_some_and(|names| names.contains(&identity(owner, namespace)))
    }
}

/// An owner as messages name it.
fn identity(owner: &OwnerReference, namespace: &str) -> String {
    let OwnerReference { api_version, kind, name, uid, .. } = owner;
    format!("[{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}]")
}

/// What to tell people of an owner that a dependent in this namespace cannot have.
pub fn invalid_namespace(owner: &OwnerReference, namespace: &str) -> Note {
    let message = format!("ownerRef {} does not exist in namespace {namespace:?}", identity(owner, namespace));
    Note { warning: true, reason: "OwnerRefInvalidNamespace", message }
}

/// What to do about one object.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// First learn by a live read whether these owners exist, from the namespace given (if they have one).
    Verify {
        /// Owners that the graph does not know.
        owners: Vec<OwnerReference>,
        /// Namespace of the dependent.
        namespace: String,
    },
    /// Nothing, whatever the others are: the dependent is cluster-scoped and this owner is not.
    Unresolvable(OwnerReference),
    /// These writes, and what to tell people.
    Act(Vec<Action>, Vec<Note>),
}

impl Graph {
    /// Takes in an object as it is now; returns the UIDs that must be looked at.
    pub fn observe(&mut self, gvr: &Gvr, kind: &str, meta: &ObjectMeta) -> Vec<String> {
        let Some(uid) = meta.uid.clone() else { return Vec::new() };
        let node = Node {
            target: Target::new(gvr.clone(), text(&meta.namespace), text(&meta.name)),
            kind: kind.into(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            finalizers: meta.finalizers.clone().unwrap_or_default(),
            resource_version: meta.resource_version.clone(),
            deleting: meta.deletion_timestamp.is_some(),
        };
        let mut look = Vec::new();
        let old = self.nodes.remove(&uid);
        let changed = old.as_ref().is_none_or(|old| {
            old.owners != node.owners || old.finalizers != node.finalizers || old.deleting != node.deleting
        });
        if changed {
            for owner in old.iter().flat_map(|old| &old.owners) {
                self.unlink(&owner.uid, &uid);
                look.push(owner.uid.clone());
            }
            for owner in &node.owners {
                self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
            }
            if node.deleting {
                look.extend(self.dependents.get(&uid).into_iter().flatten().cloned());
            }
            if node.deleting || !node.owners.is_empty() {
                look.push(uid.clone());
            }
        } else {
            for owner in &node.owners {
                self.dependents.entry(owner.uid.clone()).or_default().insert(uid.clone());
            }
        }
        self.nodes.insert(uid, node);
        look.retain(|uid| self.nodes.contains_key(uid));
        look
    }

    /// Takes in that an object is gone; returns the UIDs that must be looked at: its dependents, and its owners, which
    /// may have waited for it.
    pub fn forget(&mut self, uid: &str) -> Vec<String> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        let mut look: Vec<String> = self.dependents.get(uid).into_iter().flatten().cloned().collect();
        for owner in &node.owners {
            self.unlink(&owner.uid, uid);
            if self.nodes.get(&owner.uid).is_some_and(|o| o.deleting) {
                look.push(owner.uid.clone());
            }
        }
        look
    }

    /// How many objects it knows.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }
    /// Whether it knows none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// An object as the subject of events.
    pub fn subject(&self, uid: &str) -> Option<ObjectReference> {
        let Node { target, kind, resource_version, .. } = self.nodes.get(uid)?;
        let gvr = &target.gvr;
        let api_version =
            if gvr.group.is_empty() { gvr.version.clone() } else { format!("{}/{}", gvr.group, gvr.version) };
        Some(ObjectReference {
            api_version: Some(api_version),
            kind: Some(kind.clone()),
            namespace: Some(target.namespace.clone()).filter(|ns| !ns.is_empty()),
            name: Some(target.name.clone()),
            uid: Some(uid.into()),
            resource_version: resource_version.clone(),
            field_path: None,
        })
    }

    /// Decides about one object. `absent` are owners that live reads found to be gone.
    pub fn decide(&self, uid: &str, absent: &Absent) -> Step {
        let Some(node) = self.nodes.get(uid) else { return Step::Nothing };
        if node.deleting { self.decide_owner(uid, node) } else { self.decide_dependent(uid, node, absent) }
    }

    /// An object that is being deleted under a finalizer of ours.
    fn decide_owner(&self, uid: &str, node: &Node) -> Step {
        let dependents = || {
            self.dependents.get(uid).into_iter().flatten().filter_map(|d| self.nodes.get(d).map(|n| (d.as_str(), n)))
        };
        if node.has(ORPHAN) {
            let releases: Vec<Action> = dependents().map(|(d, n)| n.without_owners(&HashSet::from([uid]), d)).collect();
            if releases.is_empty() {
                return Step::Act(vec![node.without_finalizer(ORPHAN, uid)], Vec::new());
            }
            return Step::Act(releases, Vec::new());
        }
        if node.has(FOREGROUND) {
            // One that owns itself does not wait for itself.
            let blocked = dependents().any(|(d, n)| {
                d != uid && n.owners.iter().any(|o| o.uid == uid && o.block_owner_deletion == Some(true))
            });
            if !blocked {
                return Step::Act(vec![node.without_finalizer(FOREGROUND, uid)], Vec::new());
            }
        }
        Step::Nothing
    }

    fn decide_dependent(&self, uid: &str, node: &Node, absent: &Absent) -> Step {
        if node.owners.is_empty() {
            return Step::Nothing;
        }
        let (mut solid, mut leaving, mut dangling, mut unknown) = (0, Vec::new(), Vec::new(), Vec::new());
        let mut notes = Vec::new();
        let namespace = &node.target.namespace;
        for owner in &node.owners {
            match self.nodes.get(&owner.uid).filter(|o| o.is(owner)) {
                Some(o) if namespace.is_empty() && !o.target.namespace.is_empty() => {
                    return Step::Unresolvable(owner.clone());
                }
                // A namespaced owner in another namespace is none.
                Some(o) if !o.target.namespace.is_empty() && o.target.namespace != *namespace => {
                    dangling.push(owner.uid.as_str());
                    notes.push(invalid_namespace(owner, namespace));
                }
                Some(o) if o.deleting && o.has(FOREGROUND) => leaving.push(owner.uid.as_str()),
                Some(_) => solid += 1,
                None if absent.contains(owner, namespace) => dangling.push(owner.uid.as_str()),
                None => unknown.push(owner.clone()),
            }
        }
        if !unknown.is_empty() {
            return Step::Verify { owners: unknown, namespace: node.target.namespace.clone() };
        }
        if solid > 0 {
            let drop: HashSet<&str> = dangling.into_iter().chain(leaving).collect();
            if drop.is_empty() {
                return Step::Nothing;
            }
            return Step::Act(vec![node.without_owners(&drop, uid)], notes);
        }
        let dependents = || self.dependents.get(uid).into_iter().flatten().filter_map(|d| self.nodes.get(d));
        // Owners in a circle would wait for each other for ever: this one lets its own go first.
        let blocks = node.owners.iter().any(|o| o.block_owner_deletion == Some(true));
        if !leaving.is_empty() && blocks && dependents().any(|d| d.deleting && d.has(FOREGROUND)) {
            return Step::Act(vec![node.unblocking(uid)], notes);
        }
        let has_dependents = dependents().next().is_some();
        let propagation = if node.has(ORPHAN) {
            Propagation::Orphan
        } else if node.has(FOREGROUND) || (!leaving.is_empty() && has_dependents) {
            Propagation::Foreground
        } else {
            Propagation::Background
        };
        Step::Act(
            vec![Action::Delete { target: node.target.clone(), propagation, uid: Some(uid.into()), grace: None }],
            notes,
        )
    }

    fn unlink(&mut self, owner: &str, dependent: &str) {
        if let Some(set) = self.dependents.get_mut(owner) {
            set.remove(dependent);
            if set.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

impl Node {
    /// Whether this is the object that an owner reference of its UID names.
    fn is(&self, owner: &OwnerReference) -> bool {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        self.target.name == owner.name && self.kind == owner.kind && self.target.gvr.group == group
    }
    fn has(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|f| f == finalizer)
    }
    fn without_owners(&self, drop: &HashSet<&str>, uid: &str) -> Action {
        let rest: Vec<&OwnerReference> = self.owners.iter().filter(|o| !drop.contains(o.uid.as_str())).collect();
        self.patch(uid, "ownerReferences", json!(rest))
    }
    /// Its owners need no longer wait for it.
    fn unblocking(&self, uid: &str) -> Action {
        let free = |o: &OwnerReference| OwnerReference { block_owner_deletion: Some(false), ..o.clone() };
        let owners: Vec<OwnerReference> = self.owners.iter().map(free).collect();
        self.patch(uid, "ownerReferences", json!(owners))
    }
    fn without_finalizer(&self, finalizer: &str, uid: &str) -> Action {
        let rest: Vec<&String> = self.finalizers.iter().filter(|f| *f != finalizer).collect();
        self.patch(uid, "finalizers", json!(rest))
    }
    fn patch(&self, uid: &str, field: &str, list: serde_json::Value) -> Action {
        let patch = json!({"metadata": {"uid": uid, "resourceVersion": self.resource_version, field: list}});
        Action::Patch { target: self.target.clone(), subresource: "", patch }
    }
}

#[cfg(test)]
mod tests {
    use super::super::meta::{pods, replicasets};
    use super::super::testing::yaml;
    use super::*;

    /// (name, graph, UID looked at, UIDs known to be gone, the expected step)
    type Case<'a> = (&'a str, Vec<(&'a str, &'a str)>, &'a str, Vec<&'a str>, &'a str);

    /// Builds a graph from (uid, metadata) lines; sets are owners, all others pods.
    fn graph(lines: &[(&str, &str)]) -> Graph {
        let mut graph = Graph::default();
        for (uid, meta) in lines {
            let meta: ObjectMeta =
                yaml(&format!("{{name: {uid}, namespace: shop, uid: {uid}, resourceVersion: '5', {meta}}}"));
            let (gvr, kind) = if uid.starts_with("rs") { (replicasets(), "ReplicaSet") } else { (pods(), "Pod") };
            graph.observe(&gvr, kind, &meta);
        }
        graph
    }

    fn owner(uid: &str) -> String {
        format!(
            "{{apiVersion: apps/v1, kind: ReplicaSet, name: {uid}, uid: {uid}, controller: true, blockOwnerDeletion: true}}"
        )
    }

    /// A step in short.
    fn short(step: Step) -> String {
        let action = |a: &Action| match a {
            Action::Delete { target, propagation, uid, .. } => {
                assert_eq!(uid.as_deref(), Some(target.name.as_str()));
                format!("delete {} {}", target.name, propagation.as_str())
            }
            Action::Patch { target, patch, .. } => {
                assert_eq!(patch["metadata"]["uid"], json!(target.name));
                let meta = &patch["metadata"];
                let list = |f: &str| meta.get(f).map(|l| format!("{f}={}", l.as_array().unwrap().len()));
                format!("patch {} {}", target.name, list("ownerReferences").or(list("finalizers")).unwrap())
            }
            Action::Create { .. } => "create".into(),
        };
        match step {
            Step::Nothing => "nothing".into(),
            Step::Verify { owners, .. } => {
                format!("verify {}", owners.iter().map(|o| o.uid.as_str()).collect::<Vec<_>>().join(","))
            }
            Step::Unresolvable(owner) => format!("unresolvable {}", owner.uid),
            Step::Act(actions, _) => actions.iter().map(action).collect::<Vec<_>>().join("; "),
        }
    }

    #[test]
    fn decisions() {
        let one = format!("ownerReferences: [{}]", owner("rs1"));
        let two = format!("ownerReferences: [{}, {}]", owner("rs1"), owner("rs2"));
        let renamed = one.replace("name: rs1", "name: rs9");
        let other_kind = one.replace("ReplicaSet", "Deployment");
        let going =
            |finalizer: &str| format!("deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [{finalizer}, other]");
        let (foreground, orphan) = (going(FOREGROUND), going(ORPHAN));
        let circle = format!("{foreground}, ownerReferences: [{}]", owner("rs2"));
        let free = one.replace("blockOwnerDeletion: true", "blockOwnerDeletion: false");
        let cases: Vec<Case<'_>> = vec![
            ("owner alive", vec![("rs1", ""), ("p", &one)], "p", vec![], "nothing"),
            ("owner unknown", vec![("p", &one)], "p", vec![], "verify rs1"),
            ("owner gone", vec![("p", &one)], "p", vec!["rs1"], "delete p Background"),
            ("one of two gone", vec![("rs2", ""), ("p", &two)], "p", vec!["rs1"], "patch p ownerReferences=1"),
            ("both gone", vec![("p", &two)], "p", vec!["rs1", "rs2"], "delete p Background"),
            ("one gone, one unknown", vec![("p", &two)], "p", vec!["rs1"], "verify rs2"),
            ("owner waits for dependents", vec![("rs1", &foreground), ("p", &one)], "p", vec![], "delete p Background"),
            ("waiting owner is blocked", vec![("rs1", &foreground), ("p", &one)], "rs1", vec![], "nothing"),
            ("waiting owner is free", vec![("rs1", &foreground)], "rs1", vec![], "patch rs1 finalizers=1"),
            ("orphans are let go", vec![("rs1", &orphan), ("p", &one)], "rs1", vec![], "patch p ownerReferences=0"),
            ("then the owner", vec![("rs1", &orphan)], "rs1", vec![], "patch rs1 finalizers=1"),
            ("an orphaning owner keeps them", vec![("rs1", &orphan), ("p", &one)], "p", vec![], "nothing"),
            ("another name", vec![("rs1", ""), ("p", &renamed)], "p", vec![], "verify rs1"),
            ("another kind", vec![("rs1", ""), ("p", &other_kind)], "p", vec![], "verify rs1"),
            ("a circle is broken", vec![("rs1", &circle), ("rs2", &one)], "rs2", vec![], "patch rs2 ownerReferences=1"),
            ("a broken circle goes", vec![("rs1", &circle), ("rs2", &free)], "rs1", vec![], "patch rs1 finalizers=1"),
            ("owns itself", vec![("rs2", &circle)], "rs2", vec![], "patch rs2 finalizers=1"),
            ("no owners", vec![("p", "")], "p", vec![], "nothing"),
            ("unknown object", vec![], "p", vec![], "nothing"),
        ];
        for (name, lines, uid, absent, expected) in cases {
            let mut gone = Absent::default();
            absent.into_iter().for_each(|uid| gone.insert(&yaml(&owner(uid)), "shop"));
            assert_eq!(short(graph(&lines).decide(uid, &gone)), expected, "{name}");
        }
    }

    #[test]
    fn an_owner_elsewhere_is_none() {
        let one = format!("ownerReferences: [{}]", owner("rs1"));
        let mut graph = graph(&[("p", &one)]);
        graph.observe(&replicasets(), "ReplicaSet", &yaml("{name: rs1, namespace: other, uid: rs1}"));
        assert_eq!(short(graph.decide("p", &Absent::default())), "delete p Background");
    }

    #[test]
    fn cluster_scoped_dependents_of_namespaced_owners_stay() {
        let mut graph = Graph::default();
        let meta: ObjectMeta = yaml(&format!("{{name: p, uid: p, ownerReferences: [{}]}}", owner("rs1")));
        graph.observe(&super::super::meta::v1("rbac.authorization.k8s.io", "clusterroles"), "ClusterRole", &meta);
        assert_eq!(short(graph.decide("p", &Absent::default())), "verify rs1");
        graph.observe(&replicasets(), "ReplicaSet", &yaml("{name: rs1, namespace: shop, uid: rs1}"));
        assert_eq!(short(graph.decide("p", &Absent::default())), "unresolvable rs1");
        let subject = graph.subject("p").unwrap();
        assert_eq!(subject.api_version.as_deref(), Some("rbac.authorization.k8s.io/v1"));
        let note = invalid_namespace(&yaml(&owner("rs1")), "");
        assert_eq!(
            note.message,
            "ownerRef [apps/v1/ReplicaSet, namespace: , name: rs1, uid: rs1] does not exist in namespace \"\""
        );
    }

    #[test]
    fn what_is_absent_is_known_by_its_whole_name() {
        let one = format!("ownerReferences: [{}]", owner("rs1"));
        let graph = graph(&[("rs1", ""), ("p", &one.replace("name: rs1", "name: rs9"))]);
        let mut absent = Absent::default();
        absent.insert(&yaml(&owner("rs1").replace("name: rs1", "name: rs9")), "shop");
        assert_eq!(short(graph.decide("p", &absent)), "delete p Background");
        absent.forget("rs1");
        assert_eq!(short(graph.decide("p", &absent)), "verify rs1");
        for i in 0..=MAX_ABSENT {
            absent.insert(&yaml(&owner(&format!("rs{i}x"))), "shop");
        }
        assert!(absent.len <= MAX_ABSENT);
    }

    #[test]
    fn what_to_look_at() {
        let one = format!("ownerReferences: [{}]", owner("rs1"));
        let mut graph = graph(&[("rs1", ""), ("p", &one), ("q", &one)]);
        let foreground: ObjectMeta = yaml(
            "{name: rs1, namespace: shop, uid: rs1, deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [foregroundDeletion]}",
        );
        assert_eq!(graph.observe(&replicasets(), "ReplicaSet", &foreground), ["p", "q", "rs1"]);
        assert_eq!(graph.observe(&replicasets(), "ReplicaSet", &foreground), [""; 0], "nothing new");
        assert_eq!(graph.forget("p"), ["rs1"], "the waiting owner");
        assert_eq!(graph.forget("rs1"), ["q"], "the dependents");
        assert_eq!(graph.len(), 1);
    }
}
