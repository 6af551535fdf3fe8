//! Which pods count: selectors in namespaces, compiled once and named by a canonical text, so that pods of one template
//! share the counts.

use std::collections::{BTreeMap, HashMap};

use copepod_api::LabelSelector;
use copepod_api::selector::{Operator, Requirement};
use k8s_openapi::api::core::v1::{PodAffinityTerm, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as WireSelector;

use super::node_terms::NO_LABELS;
use super::pod_info::PodInfo;

/// Namespaces' labels by name.
pub(super) type Namespaces = HashMap<String, BTreeMap<String, String>>;

/// Pods of some namespaces that a selector matches.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    /// Sorted.
    pub namespaces: Vec<String>,
    /// Further namespaces, by their labels.
    pub namespace_selector: Option<LabelSelector>,
    pub selector: LabelSelector,
}

impl Selection {
    fn text(&self) -> String {
        // The text of a selector of nothing is that of one of everything.
        let shown = |s: &LabelSelector| if *s == LabelSelector::nothing() { "<none>".into() } else { s.to_string() };
        let further = self.namespace_selector.as_ref().map(shown);
        format!("{}|{further:?}|{}", self.namespaces.join(","), shown(&self.selector))
    }

    pub fn matches(&self, namespace: &str, labels: &BTreeMap<String, String>, namespaces: &Namespaces) -> bool {
        self.selector.matches(labels) && self.takes(namespace, namespaces)
    }

    fn takes(&self, namespace: &str, namespaces: &Namespaces) -> bool {
        self.namespaces.iter().any(|n| n == namespace)
            || self
                .namespace_selector
                .as_ref()
                .is_some_and(|s| s.matches(namespaces.get(namespace).unwrap_or(&NO_LABELS)))
    }

    /// A label that every selected pod has, to find the selection by.
    pub fn hook(&self) -> Option<(&str, &str)> {
        hook(&self.selector)
    }
}

fn hook(selector: &LabelSelector) -> Option<(&str, &str)> {
    selector.requirements().iter().find_map(|r| match (r.operator, r.values.as_slice()) {
        (Operator::Equals | Operator::In, [one]) => Some((r.key.as_str(), one.as_str())),
        _ => None,
    })
}

/// Pods whose number is kept by node and topology.
#[derive(Debug, Clone)]
pub(super) struct Query {
    /// Canonical text, equal for equal queries.
    pub id: String,
    /// All must match.
    pub selections: Vec<Selection>,
    /// The UID of the controller that all must have.
    pub owner: Option<String>,
    /// Whether pods that are being deleted count.
    pub with_terminating: bool,
}

impl Query {
    fn new(selections: Vec<Selection>, owner: Option<String>, with_terminating: bool) -> Self {
        let texts: Vec<String> = selections.iter().map(Selection::text).collect();
        let id = format!("{}&{owner:?}&{with_terminating}", texts.join("&"));
        Self { id, selections, owner, with_terminating }
    }

    /// The pods of a controller, as its default spreading counts them.
    pub fn of_owner(uid: &str) -> Self {
        Self::new(Vec::new(), Some(uid.to_string()), false)
    }

    pub fn matches(&self, pod: &PodInfo, namespaces: &Namespaces) -> bool {
        (self.with_terminating || !pod.terminating)
            && (self.owner.is_none() || self.owner == pod.owner)
            && self.selections.iter().all(|s| s.matches(pod.namespace(), pod.labels(), namespaces))
    }

    pub fn hook(&self) -> Option<(&str, &str)> {
        self.selections.iter().find_map(Selection::hook)
    }

    /// Whether namespaces' labels decide.
    pub fn asks_namespaces(&self) -> bool {
        self.selections.iter().any(|s| s.namespace_selector.is_some())
    }
}

/// A term of pod affinity or anti-affinity.
#[derive(Debug, Clone)]
pub(super) struct AffinityTerm {
    pub selection: Selection,
    pub topology_key: String,
    /// Canonical text.
    pub id: String,
}

impl AffinityTerm {
    /// Compiles a term of a pod in `namespace` with `labels`.
    pub fn of(term: &PodAffinityTerm, namespace: &str, labels: &BTreeMap<String, String>) -> Self {
        let mut namespaces = term.namespaces.clone().unwrap_or_default();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.push(namespace.to_string());
        }
        namespaces.sort();
        let same = (Operator::In, term.match_label_keys.as_deref().unwrap_or_default());
        let other = (Operator::NotIn, term.mismatch_label_keys.as_deref().unwrap_or_default());
        let selector = selector(term.label_selector.as_ref(), labels, &[same, other]);
        let namespace_selector = term.namespace_selector.as_ref().map(|s| selector_of(Some(s)));
        let selection = Selection { namespaces, namespace_selector, selector };
        let id = format!("{}@{}", selection.text(), term.topology_key);
        Self { selection, topology_key: term.topology_key.clone(), id }
    }

    pub fn matches(&self, pod: &PodInfo, namespaces: &Namespaces) -> bool {
        self.selection.matches(pod.namespace(), pod.labels(), namespaces)
    }

    /// The pods that one term selects.
    pub fn query(&self) -> Query {
        Query::new(vec![self.selection.clone()], None, true)
    }

    /// The pods that all terms select.
    pub fn query_all(terms: &[Self]) -> Query {
        Query::new(terms.iter().map(|t| t.selection.clone()).collect(), None, true)
    }
}

/// A topology spread constraint.
#[derive(Debug, Clone)]
pub(super) struct Spread {
    pub query: Query,
    pub topology_key: String,
    pub max_skew: i64,
    pub min_domains: usize,
    /// Whether it forbids, or only counts against a node.
    pub required: bool,
    /// Whether only nodes that the pod's selector and affinity match count.
    pub honor_affinity: bool,
    /// Whether only nodes whose taints the pod tolerates count.
    pub honor_taints: bool,
    /// Whether the pod itself counts once placed.
    pub counts_itself: bool,
}

impl Spread {
    /// Compiles a constraint of a pod in `namespace` with `labels`.
    pub fn of(constraint: &TopologySpreadConstraint, namespace: &str, labels: &BTreeMap<String, String>) -> Self {
        let same = (Operator::In, constraint.match_label_keys.as_deref().unwrap_or_default());
        let selector = selector(constraint.label_selector.as_ref(), labels, &[same]);
        let counts_itself = selector.matches(labels);
        let selection = Selection { namespaces: vec![namespace.to_string()], namespace_selector: None, selector };
        Self {
            query: Query::new(vec![selection], None, false),
            topology_key: constraint.topology_key.clone(),
            max_skew: i64::from(constraint.max_skew),
            min_domains: constraint.min_domains.map_or(1, |n| usize::try_from(n).unwrap_or(1)),
            required: constraint.when_unsatisfiable != "ScheduleAnyway",
            honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
            counts_itself,
        }
    }

    /// Canonical text.
    pub fn text(&self) -> String {
        let (key, skew, domains) = (&self.topology_key, self.max_skew, self.min_domains);
        let whose = (self.honor_affinity, self.honor_taints, self.counts_itself);
        format!("{}@{key} {skew} {domains} {whose:?}", self.query.id)
    }

    /// A constraint that every pod of a controller has unless it says its own.
    pub fn of_owner(uid: &str, topology_key: &str, max_skew: i64) -> Self {
        Self {
            query: Query::of_owner(uid),
            topology_key: topology_key.to_string(),
            max_skew,
            min_domains: 1,
            required: false,
            honor_affinity: true,
            honor_taints: false,
            counts_itself: true,
        }
    }
}

fn selector_of(selector: Option<&WireSelector>) -> LabelSelector {
    // What the API server took is well-formed; anything else selects nothing.
    LabelSelector::from_typed(selector).unwrap_or_else(|_| LabelSelector::nothing())
}

/// A selector and, for the keys that the pod has, its own values (or any but them).
fn selector(
    selector: Option<&WireSelector>,
    labels: &BTreeMap<String, String>,
    keys: &[(Operator, &[String])],
) -> LabelSelector {
    let mut compiled = selector_of(selector);
    if selector.is_none() {
        return compiled;
    }
    for (operator, keys) in keys {
        for key in *keys {
            let Some(value) = labels.get(key) else { continue };
            if let Ok(requirement) = Requirement::new(key, *operator, vec![value.clone()]) {
                compiled.require(requirement);
            }
        }
    }
    compiled
}
