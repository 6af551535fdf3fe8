//! Which nodes a node selector's terms mean.
//! Source: <https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/>.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

use crate::selector::{Operator, Requirement};

/// Whether one of the terms matches a node of this name with these labels. An empty term matches none.
pub fn matches(terms: &[NodeSelectorTerm], name: &str, labels: &BTreeMap<String, String>) -> bool {
    let fields = BTreeMap::from([("metadata.name".to_string(), name.to_string())]);
    terms.iter().any(|term| {
        let expressions = term.match_expressions.as_deref().unwrap_or_default();
        let on_fields = term.match_fields.as_deref().unwrap_or_default();
        !(expressions.is_empty() && on_fields.is_empty())
            && expressions.iter().all(|r| holds(r, labels))
            && on_fields.iter().all(|r| holds(r, &fields))
    })
}

fn holds(requirement: &NodeSelectorRequirement, on: &BTreeMap<String, String>) -> bool {
    let operator = match requirement.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return false,
    };
    let values = requirement.values.clone().unwrap_or_default();
    Requirement::new(&requirement.key, operator, values).is_ok_and(|r| r.matches(on))
}
