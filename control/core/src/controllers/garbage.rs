//! Garbage collection by `ownerReferences`: a graph of who owns whom, and what to do about each object.
//! Source: <https://kubernetes.io/docs/concepts/architecture/garbage-collection/>.

use std::collections::{BTreeSet, HashMap, HashSet};

use copepod_api::Gvr;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::json;

use super::meta::text;
use super::{Action, Propagation, Target};

/// Finalizer of an object whose dependents must go first.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an object whose dependents must stay.
pub const ORPHAN: &str = "orphan";

/// Every object that the collector knows of, by UID.
#[derive(Default)]
pub struct Graph {
    nodes: HashMap<String, Node>,
    /// Owner's UID to the UIDs of those that name it.
    dependents: HashMap<String, BTreeSet<String>>,
}

struct Node {
    target: Target,
    owners: Vec<OwnerReference>,
    finalizers: Vec<String>,
    resource_version: Option<String>,
    deleting: bool,
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
    /// These writes.
    Act(Vec<Action>),
}

impl Graph {
    /// Takes in an object as it is now; returns the UIDs that must be looked at.
    pub fn observe(&mut self, gvr: &Gvr, meta: &ObjectMeta) -> Vec<String> {
        let Some(uid) = meta.uid.clone() else { return Vec::new() };
        let node = Node {
            target: Target::new(gvr.clone(), text(&meta.namespace), text(&meta.name)),
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

    /// Decides about one object. `absent` are UIDs that live reads found to be gone.
    pub fn decide(&self, uid: &str, absent: &HashSet<String>) -> Step {
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
                return Step::Act(vec![node.without_finalizer(ORPHAN, uid)]);
            }
            return Step::Act(releases);
        }
        if node.has(FOREGROUND) {
            let blocked = dependents()
                .any(|(_, d)| d.owners.iter().any(|o| o.uid == uid && o.block_owner_deletion == Some(true)));
            if !blocked {
                return Step::Act(vec![node.without_finalizer(FOREGROUND, uid)]);
            }
        }
        Step::Nothing
    }

    fn decide_dependent(&self, uid: &str, node: &Node, absent: &HashSet<String>) -> Step {
        if node.owners.is_empty() {
            return Step::Nothing;
        }
        let (mut solid, mut leaving, mut dangling, mut unknown) = (0, Vec::new(), Vec::new(), Vec::new());
        for owner in &node.owners {
            match self.nodes.get(&owner.uid) {
                // A namespaced owner in another namespace is none.
                Some(o) if !o.target.namespace.is_empty() && o.target.namespace != node.target.namespace => {
                    dangling.push(owner.uid.as_str());
                }
                Some(o) if o.deleting && o.has(FOREGROUND) => leaving.push(owner.uid.as_str()),
                Some(_) => solid += 1,
                None if absent.contains(&owner.uid) => dangling.push(owner.uid.as_str()),
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
            return Step::Act(vec![node.without_owners(&drop, uid)]);
        }
        let has_dependents = self.dependents.get(uid).is_some_and(|d| !d.is_empty());
        let propagation = if node.has(ORPHAN) {
            Propagation::Orphan
        } else if node.has(FOREGROUND) || (!leaving.is_empty() && has_dependents) {
            Propagation::Foreground
        } else {
            Propagation::Background
        };
        Step::Act(vec![Action::Delete { target: node.target.clone(), propagation, uid: Some(uid.into()), grace: None }])
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
    fn has(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|f| f == finalizer)
    }
    fn without_owners(&self, drop: &HashSet<&str>, uid: &str) -> Action {
        let rest: Vec<&OwnerReference> = self.owners.iter().filter(|o| !drop.contains(o.uid.as_str())).collect();
        self.patch(uid, "ownerReferences", json!(rest))
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
            graph.observe(&if uid.starts_with("rs") { replicasets() } else { pods() }, &meta);
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
            Step::Act(actions) => actions.iter().map(action).collect::<Vec<_>>().join("; "),
        }
    }

    #[test]
    fn decisions() {
        let one = format!("ownerReferences: [{}]", owner("rs1"));
        let two = format!("ownerReferences: [{}, {}]", owner("rs1"), owner("rs2"));
        let going =
            |finalizer: &str| format!("deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [{finalizer}, other]");
        let (foreground, orphan) = (going(FOREGROUND), going(ORPHAN));
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
            ("no owners", vec![("p", "")], "p", vec![], "nothing"),
            ("unknown object", vec![], "p", vec![], "nothing"),
        ];
        for (name, lines, uid, absent, expected) in cases {
            let absent = absent.into_iter().map(String::from).collect();
            assert_eq!(short(graph(&lines).decide(uid, &absent)), expected, "{name}");
        }
    }

    #[test]
    fn an_owner_elsewhere_is_none() {
        let one = format!("ownerReferences: [{}]", owner("rs1"));
        let mut graph = graph(&[("p", &one)]);
        graph.observe(&replicasets(), &yaml("{name: rs1, namespace: other, uid: rs1}"));
        assert_eq!(short(graph.decide("p", &HashSet::new())), "delete p Background");
    }

    #[test]
    fn what_to_look_at() {
        let one = format!("ownerReferences: [{}]", owner("rs1"));
        let mut graph = graph(&[("rs1", ""), ("p", &one), ("q", &one)]);
        let foreground: ObjectMeta = yaml(
            "{name: rs1, namespace: shop, uid: rs1, deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [foregroundDeletion]}",
        );
        assert_eq!(graph.observe(&replicasets(), &foreground), ["p", "q", "rs1"]);
        assert_eq!(graph.observe(&replicasets(), &foreground), [""; 0], "nothing new");
        assert_eq!(graph.forget("p"), ["rs1"], "the waiting owner");
        assert_eq!(graph.forget("rs1"), ["q"], "the dependents");
        assert_eq!(graph.len(), 1);
    }
}
