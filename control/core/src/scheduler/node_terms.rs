//! Requirements on nodes' labels: `nodeSelector`, node affinity, volumes' node affinity.

use std::collections::BTreeMap;

pub(super) use copepod_api::node_selector::{Term, matches as any};
use k8s_openapi::api::core::v1::PodSpec;

pub(super) static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

/// The nodes that a pod asks for: its `nodeSelector` and any of its required terms.
#[derive(Debug, Clone, Default)]
pub(super) struct NodeRequirement {
    selector: BTreeMap<String, String>,
    terms: Option<Vec<Term>>,
    /// Canonical text, equal for equal requirements; empty if every node matches.
    pub id: String,
}

impl NodeRequirement {
    pub fn of(spec: &PodSpec) -> Self {
        let selector = spec.node_selector.clone().unwrap_or_default();
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        let terms = required.map(|r| r.node_selector_terms.iter().map(Term::of).collect::<Vec<_>>());
        let id = if selector.is_empty() && terms.is_none() { String::new() } else { format!("{selector:?}{terms:?}") };
        Self { selector, terms, id }
    }

    pub fn is_everything(&self) -> bool {
        self.id.is_empty()
    }

    pub fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        self.selector.iter().all(|(k, v)| labels.get(k) == Some(v))
            && self.terms.as_ref().is_none_or(|terms| terms.iter().any(|t| t.matches(name, labels)))
    }

    /// The only nodes that can match, if every term names some: daemons' pods need no look at all others.
    pub fn only(&self) -> Option<Vec<&str>> {
        let terms = self.terms.as_ref()?;
        let mut names: Vec<&str> = Vec::new();
        for term in terms.iter().filter(|t| !t.is_never()) {
            names.extend(term.only()?.iter().map(String::as_str));
        }
        names.sort_unstable();
        names.dedup();
        Some(names)
    }
}
