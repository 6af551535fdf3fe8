//! Which nodes a node selector's terms mean.
//! Source: <https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/>.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

use crate::selector::{Operator, Requirement};

/// The field by which a term may name nodes.
const NAME_FIELD: &str = "metadata.name";

/// One term: all of its conditions hold. A term without conditions, or with one that is malformed, holds nowhere.
#[derive(Debug, Clone, Default)]
pub struct Term {
    labels: Vec<Requirement>,
    /// `In` or `NotIn` the node's name.
    names: Vec<(bool, Vec<String>)>,
    never: bool,
}

impl Term {
    /// Reads a term once, to be matched many times.
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

    /// Whether it holds for a node of this name with these labels.
    pub fn matches(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        !self.never
            && self.names.iter().all(|(within, names)| names.iter().any(|n| n == name) == *within)
            && self.labels.iter().all(|r| r.matches(labels))
    }

    /// Whether it holds for no node at all.
    pub fn is_never(&self) -> bool {
        self.never
    }

    /// The only names of nodes that can match, if the term names some.
    pub fn only(&self) -> Option<&Vec<String>> {
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

/// Whether one of the terms holds for a node of this name with these labels.
pub fn matches(terms: &[NodeSelectorTerm], name: &str, labels: &BTreeMap<String, String>) -> bool {
    terms.iter().any(|term| Term::of(term).matches(name, labels))
}
