//! Which nodes a DaemonSet is for, and the pods that are made for them.

use std::collections::BTreeMap;

use copepod_api::names::{TAINT_NOT_READY, TAINT_UNREACHABLE};
use copepod_api::node_selector;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{
    Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::history::LABEL_REVISION;
use super::meta::{self, text};
use super::node_lifecycle::tolerates;
use super::{Action, Target, pod, template};

/// Label of a pod with the number of its template.
const LABEL_GENERATION: &str = "pod-template-generation";
/// Annotation of the set with the number of its template.
const ANNOTATION_GENERATION: &str = "deprecated.daemonset.template.generation";
/// The field of a node by which a pod is bound to it.
const FIELD_NAME: &str = "metadata.name";
/// Taints that every daemon pod tolerates, with their effects; the last for pods in the host's network only.
const TOLERATED: [(&str, &str); 7] = [
    (TAINT_NOT_READY, "NoExecute"),
    (TAINT_UNREACHABLE, "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ("node.kubernetes.io/network-unavailable", "NoSchedule"),
];

/// What a node is to a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    /// A pod is to be made for it.
    pub should_run: bool,
    /// A pod that is there may stay.
    pub may_stay: bool,
}

/// A set's pods-to-be: the template with the tolerations that all daemon pods have.
pub struct Daemon {
    spec: PodSpec,
}

impl Daemon {
    /// Works out what a set asks of nodes.
    pub fn of(set: &DaemonSet) -> Self {
        let mut spec = set.spec.as_ref().and_then(|s| s.template.spec.clone()).unwrap_or_default();
        let host_network = spec.host_network == Some(true);
        let tolerations = spec.tolerations.get_or_insert_default();
        for (key, effect) in TOLERATED.iter().take(if host_network { 7 } else { 6 }) {
            let wanted = Toleration {
                key: Some((*key).into()),
                operator: Some("Exists".into()),
                effect: Some((*effect).into()),
                ..Toleration::default()
            };
            let same = |t: &&mut Toleration| {
                (&t.key, &t.operator, &t.effect) == (&wanted.key, &wanted.operator, &wanted.effect)
                    && text(&t.value).is_empty()
            };
            match tolerations.iter_mut().find(same) {
                Some(standing) => *standing = wanted,
                None => tolerations.push(wanted),
            }
        }
        Self { spec }
    }

    /// What a node is to the set.
    pub fn fit(&self, node: &Node) -> Fit {
        let name = text(&node.metadata.name);
        let named = self.spec.node_name.as_deref().is_none_or(|wanted| wanted.is_empty() || wanted == name);
        let none = BTreeMap::new();
        let labels = node.metadata.labels.as_ref().unwrap_or(&none);
        let selected = self.spec.node_selector.iter().flatten().all(|(k, v)| labels.get(k) == Some(v));
        let affinity = self.spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let wanted = required.is_none_or(|r| node_selector::matches(&r.node_selector_terms, name, labels));
        if !named || !selected || !wanted {
            return Fit { should_run: false, may_stay: false };
        }
        let taints: Vec<&Taint> = node.spec.iter().flat_map(|s| s.taints.iter().flatten()).collect();
        let tolerated = |t: &&&Taint| self.spec.tolerations.iter().flatten().any(|own| tolerates(own, t));
        let keeps_off =
            |effects: &[&str]| taints.iter().any(|t| effects.contains(&t.effect.as_str()) && !tolerated(&t));
        Fit { should_run: !keeps_off(&["NoSchedule", "NoExecute"]), may_stay: !keeps_off(&["NoExecute"]) }
    }

    /// Creates the set's pod for a node, which the scheduler can bind to that node only.
    pub(super) fn create(&self, set: &DaemonSet, owner: &OwnerReference, hash: &str, node: &str) -> Action {
        let from = set.spec.as_ref().map(|s| s.template.clone()).unwrap_or_default();
        let mut pod = template::pod(&from, owner);
        pod.metadata.generate_name = Some(format!("{}-", text(&set.metadata.name)));
        let labels = pod.metadata.labels.get_or_insert_default();
        labels.insert(LABEL_REVISION.into(), hash.into());
        let noted = set.metadata.annotations.as_ref().and_then(|a| a.get(ANNOTATION_GENERATION));
        if let Some(generation) = noted.filter(|g| g.parse::<i64>().is_ok()) {
            labels.insert(LABEL_GENERATION.into(), generation.clone());
        }
        let mut spec = self.spec.clone();
        let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
        let by_name =
            NodeSelectorRequirement { key: FIELD_NAME.into(), operator: "In".into(), values: Some(vec![node.into()]) };
        affinity.required_during_scheduling_ignored_during_execution = Some(NodeSelector {
            node_selector_terms: vec![NodeSelectorTerm { match_expressions: None, match_fields: Some(vec![by_name]) }],
        });
        pod.spec = Some(spec);
        let target = Target::new(meta::pods(), text(&set.metadata.namespace), "");
        Action::Create { target, object: meta::value(&pod) }
    }
}

/// The node that a daemon pod is on or meant for; `None` if it says neither.
pub fn node_of(daemon: &Pod) -> Option<&str> {
    let bound = pod::node_name(daemon);
    if !bound.is_empty() {
        return Some(bound);
    }
    let affinity = daemon.spec.as_ref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    terms.iter().flat_map(|t| t.match_fields.iter().flatten()).find_map(|field| match field.values.as_deref() {
        Some([name]) if field.key == FIELD_NAME && field.operator == "In" => Some(name.as_str()),
        _ => None,
    })
}
