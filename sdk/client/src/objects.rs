//! The objects of a kind: by namespace and name, by who controls them, and by terms.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kube::Resource;

use crate::Key;
use crate::terms::{Groups, Terms};

/// Objects of one kind. Their order is that of their names within a namespace.
pub(crate) struct Objects<K> {
    namespaces: HashMap<String, Namespace<K>>,
    groups: Groups<K>,
}

type Named<K> = BTreeMap<Arc<str>, Arc<K>>;

struct Namespace<K> {
    all: Named<K>,
    by_controller: HashMap<Controller, Named<K>>,
}

/// Kind and name of a controller; both empty for objects that nobody controls. It is not known by UID: who looks for
/// what is left of a controller that is gone knows its name only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Controller {
    kind: String,
    name: String,
}

impl Controller {
    fn of<K: Resource>(object: &K) -> Self {
        let owner = object.meta().owner_references.iter().flatten().find(|owner| owner.controller == Some(true));
        owner.map(|owner| Self { kind: owner.kind.clone(), name: owner.name.clone() }).unwrap_or_default()
    }
}

impl<K> Objects<K> {
    /// None yet. They are found by these terms too.
    pub fn new(terms: Option<Terms<K>>) -> Self {
        Self { namespaces: HashMap::new(), groups: Groups::new(terms) }
    }
}

impl<K: Resource> Objects<K> {
    /// Takes an object in; returns the one that had its key before.
    pub fn insert(&mut self, object: Arc<K>) -> Option<Arc<K>> {
        let key = Key::of(&*object);
        let name: Arc<str> = key.name.as_str().into();
        let controller = Controller::of(&*object);
        let namespace = self.namespaces.entry(key.namespace.clone()).or_default();
        let old = namespace.all.insert(name.clone(), object.clone());
        self.groups.put(&key, old.as_deref(), &object);
        if let Some(before) = old.as_ref().map(|old| Controller::of(&**old)).filter(|before| *before != controller) {
            namespace.leave(&before, &name);
        }
        namespace.by_controller.entry(controller).or_default().insert(name, object);
        old
    }

    /// Takes an object out.
    pub fn remove(&mut self, key: &Key) -> Option<Arc<K>> {
        let namespace = self.namespaces.get_mut(&key.namespace)?;
        let old = namespace.all.remove(key.name.as_str())?;
        namespace.leave(&Controller::of(&*old), &key.name);
        if namespace.all.is_empty() {
            self.namespaces.remove(&key.namespace);
        }
        self.groups.remove(key, &old);
        Some(old)
    }

    /// The object under a key.
    pub fn get(&self, key: &Key) -> Option<&Arc<K>> {
        self.namespaces.get(&key.namespace)?.all.get(key.name.as_str())
    }

    /// The objects of a namespace.
    pub fn list(&self, namespace: &str) -> impl Iterator<Item = &Arc<K>> {
        self.namespaces.get(namespace).into_iter().flat_map(|namespace| namespace.all.values())
    }

    /// All objects.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<K>> {
        self.namespaces.values().flat_map(|namespace| namespace.all.values())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.namespaces.values().map(|namespace| namespace.all.len()).sum()
    }

    /// The objects of a namespace whose controller has this kind and name.
    pub fn controlled(&self, namespace: &str, kind: &str, name: &str) -> impl Iterator<Item = &Arc<K>> {
        self.of(namespace, &Controller { kind: kind.into(), name: name.into() })
    }

    /// The objects of a namespace that nobody controls.
    pub fn uncontrolled(&self, namespace: &str) -> impl Iterator<Item = &Arc<K>> {
        self.of(namespace, &Controller::default())
    }

    /// Whether a namespace has any.
    pub fn any_in(&self, namespace: &str) -> bool {
        self.namespaces.contains_key(namespace)
    }

    /// The objects by their terms.
    pub fn groups(&self) -> &Groups<K> {
        &self.groups
    }

    fn of(&self, namespace: &str, controller: &Controller) -> impl Iterator<Item = &Arc<K>> + use<'_, K> {
        let found = self.namespaces.get(namespace).and_then(|namespace| namespace.by_controller.get(controller));
        found.into_iter().flat_map(BTreeMap::values)
    }
}

impl<K> Default for Namespace<K> {
    fn default() -> Self {
        Self { all: BTreeMap::new(), by_controller: HashMap::new() }
    }
}

impl<K> Namespace<K> {
    fn leave(&mut self, controller: &Controller, name: &str) {
        if let Some(group) = self.by_controller.get_mut(controller) {
            group.remove(name);
            if group.is_empty() {
                self.by_controller.remove(controller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    fn pod(name: &str, owner: Option<(&str, &str)>) -> Arc<Pod> {
        let owners = owner.map(|(kind, name)| {
            serde_json::json!([
                {"apiVersion": "v1", "kind": "Other", "name": "x", "uid": "x"},
                {"apiVersion": "v1", "kind": kind, "name": name, "uid": name, "controller": true},
            ])
        });
        let meta = serde_json::json!({"name": name, "namespace": "shop", "ownerReferences": owners});
        Arc::new(serde_json::from_value(serde_json::json!({"metadata": meta})).unwrap())
    }

    fn names<'a>(pods: impl Iterator<Item = &'a Arc<Pod>>) -> Vec<&'a str> {
        pods.filter_map(|p| p.metadata.name.as_deref()).collect()
    }

    #[test]
    fn who_controls_what_follows_every_change() {
        let mut pods = Objects::new(None);
        let web = Some(("ReplicaSet", "web"));
        for (name, owner) in [("b", web), ("a", web), ("c", None), ("d", Some(("Job", "web")))] {
            assert!(pods.insert(pod(name, owner)).is_none());
        }
        assert_eq!(names(pods.controlled("shop", "ReplicaSet", "web")), ["a", "b"]);
        assert_eq!(names(pods.controlled("shop", "Job", "web")), ["d"]);
        assert_eq!(names(pods.uncontrolled("shop")), ["c"]);
        assert!(names(pods.controlled("other", "Job", "web")).is_empty());

        // One is let go, one is taken in, one stays.
        assert!(pods.insert(pod("a", None)).is_some() && pods.insert(pod("c", web)).is_some());
        assert!(pods.insert(pod("b", web)).is_some());
        assert_eq!(names(pods.controlled("shop", "ReplicaSet", "web")), ["b", "c"]);
        assert_eq!(names(pods.uncontrolled("shop")), ["a"]);
        assert_eq!((names(pods.list("shop")), pods.len()), (vec!["a", "b", "c", "d"], 4));
        assert!(pods.any_in("shop") && !pods.any_in("other"));

        for name in ["a", "b", "c", "d"] {
            assert!(pods.remove(&Key::new("shop", name)).is_some());
        }
        assert!(pods.remove(&Key::new("shop", "a")).is_none());
        assert!(!pods.any_in("shop") && pods.iter().next().is_none());
    }
}
