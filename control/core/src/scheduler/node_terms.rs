//! Requirements on nodes' labels: `nodeSelector`, node affinity, volumes' node affinity.

use std::collections::BTreeMap;

use copepod_api::selector::{Operator, Requirement};
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

/// The field by which a term may name nodes.
const NAME_FIELD: &str = "metadata.name";

pub(super) static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

/// One term: all of its conditions hold. A term without conditions, or with one that is malformed, holds nowhere.
#[derive(Debug, Clone, Default)]
pub(super) struct Term {
    labels: Vec<Requirement>,
    /// `In` or `NotIn` the node's name.
    names: Vec<(bool, Vec<String>)>,
    never: bool,
}

impl Term {
    pub fn of(term: &NodeSelectorTerm) -> Self {
        let expressions = term.match_expressions.as_deref().unwrap_or_default();
        let fields = term.match_fields.as_deref().unwrap_or_default();
        let mut compiled = Self { never: expressions.is_empty() && fields.is_empty(), ..Self::default() };
        for expression in expressions {
            match requirement(expression) {
                Some(requirement) => compiled.labels.push(requirement),
                None => compiled.never = true,
            }
        }
        for field in fields {
            let within = match field.operator.as_str() {
                "In" => true,
                "NotIn" => false,
                _ => {
                    compiled.never = true;
                    continue;
                }
            };
            compiled.never |= field.key != NAME_FIELD;
            compiled.names.push((within, field.values.clone().unwrap_or_default()));
        }
        compiled
    }

    pub fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        !self.never
            && self.names.iter().all(|(within, names)| names.iter().any(|n| n == name) == *within)
            && self.labels.iter().all(|r| r.matches(labels))
    }

    /// The only names of nodes that can match, if the term names some.
    fn only(&self) -> Option<&Vec<String>> {
        self.names.iter().find(|(within, _)| *within).map(|(_, names)| names)
    }
}

fn requirement(expression: &NodeSelectorRequirement) -> Option<Requirement> {
    let operator = match expression.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return None,
    };
    Requirement::new(&expression.key, operator, expression.values.clone().unwrap_or_default()).ok()
}

/// Whether any of the terms holds.
pub(super) fn any(terms: &[NodeSelectorTerm], name: &str, labels: &BTreeMap<String, String>) -> bool {
    terms.iter().any(|term| Term::of(term).matches(name, labels))
}

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
        for term in terms.iter().filter(|t| !t.never) {
            names.extend(term.only()?.iter().map(String::as_str));
        }
        names.sort_unstable();
        names.dedup();
        Some(names)
    }
}
