//! Whole decisions, on small clusters in YAML; the rules' and criteria's own tests are beside them.

mod best;
mod decisions;
mod growth;
mod preemption;
mod properties;
mod waiting;

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use super::cycle::Rules;
use super::*;

/// A cluster.
#[derive(Default)]
pub(super) struct World {
    pub snapshot: Snapshot,
    pub cursor: Cursor,
    pub profile: Profile,
}

pub(super) fn list(text: &str) -> Vec<Value> {
    let parsed: Value = serde_saphyr::from_str(text).unwrap();
    parsed.as_array().cloned().unwrap_or_else(|| vec![parsed])
}

/// A node; without a status it gives 2 CPUs, 1 Gi and 3 pods.
pub(super) fn node(mut value: Value) -> Arc<Node> {
    let given = value.as_object_mut().unwrap();
    if let Some(name) = given.remove("name") {
        let labels = given.remove("labels").unwrap_or(json!({}));
        given.insert("metadata".into(), json!({"name": name, "labels": labels}));
    }
    let status = given.entry("status").or_insert(json!({}));
    status.as_object_mut().unwrap().entry("allocatable").or_insert(json!({"cpu": "2", "memory": "1Gi", "pods": "3"}));
    Arc::new(serde_json::from_value(value).unwrap())
}

/// A pod from its spec with `name`, `labels`, `namespace`, `owner`, `cpu`, `status`, `metadata` besides.
pub(super) fn pod(mut spec: Value) -> Arc<PodInfo> {
    let given = spec.as_object_mut().unwrap();
    let mut take = |key: &str| given.remove(key);
    let name = take("name").unwrap_or(json!("p"));
    let mut metadata = json!({
        "name": name, "uid": name, "namespace": take("namespace").unwrap_or(json!("shop")),
        "labels": take("labels").unwrap_or(json!({})),
    });
    if let Some(owner) = take("owner") {
        metadata["ownerReferences"] =
            json!([{"apiVersion": "v1", "kind": "R", "name": "r", "uid": owner, "controller": true}]);
    }
    let more = take("metadata").unwrap_or(json!({}));
    metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let requests = take("cpu").map_or(json!({}), |cpu| json!({"requests": {"cpu": cpu.to_string().trim_matches('"')}}));
    let status = take("status").unwrap_or(json!({}));
    let container = json!([{"name": "c", "resources": requests}]);
    given.entry("containers").or_insert(container);
    let pod: Pod = serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap();
    PodInfo::of(Arc::new(pod))
}

pub(super) fn pod_of(text: &str) -> Arc<PodInfo> {
    pod(serde_saphyr::from_str(text).unwrap())
}

impl World {
    /// Nodes as a list in YAML.
    pub fn of(nodes: &str) -> Self {
        let mut world = Self::default();
        list(nodes).into_iter().for_each(|n| world.snapshot.set_node(node(n)));
        world
    }

    /// Adds pods that have their `nodeName`.
    pub fn with(mut self, pods: &str) -> Self {
        list(pods).into_iter().for_each(|p| self.snapshot.set_pod(&pod(p)));
        self
    }

    /// The node that a pod gets, or why it gets none.
    pub fn decide(&mut self, pod: &Arc<PodInfo>) -> Result<String, Failure> {
        match schedule(pod, &mut self.snapshot, &self.profile, &mut self.cursor) {
            Decision::Bind(node) => Ok(node),
            Decision::BindClaims { node, steps } => Ok(format!("{node} {steps:?}")),
            Decision::Unschedulable(failure) => Err(failure),
        }
    }

    pub fn message(&mut self, pod: &str) -> String {
        self.decide(&pod_of(pod)).unwrap_err().message
    }

    /// Decides and assumes.
    pub fn put(&mut self, pod: &Arc<PodInfo>) -> Result<String, Failure> {
        let node = self.decide(pod)?;
        self.snapshot.assume(pod, &node);
        Ok(node)
    }

    /// What each node says to a pod: `a, b: its reason, c`.
    pub fn verdicts(&mut self, pod: &Arc<PodInfo>) -> String {
        let names: Vec<(usize, String)> = self.snapshot.nodes().map(|(name, info)| (info.id, name.into())).collect();
        let rules = match Rules::of(pod, &mut self.snapshot, &self.profile) {
            Ok(rules) => rules,
            Err((_, why)) => return format!("none: {why}"),
        };
        let mut said = Vec::new();
        for (id, name) in names {
            said.push(match rules.check(pod, &mut self.snapshot, id) {
                Ok(()) => name,
                Err((_, refusal)) => {
                    let lasting = if refusal.resolvable { "" } else { "!" };
                    format!("{name}:{lasting} {}", refusal.reasons().collect::<Vec<_>>().join(" and "))
                }
            });
        }
        said.join(", ")
    }
}
