//! Which nodes can take a pod, and why the others cannot.

use std::collections::BTreeMap;

use copepod_api::selector::{Operator, Requirement};
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, Pod, Taint, Toleration};

use super::snapshot::{NodeInfo, Request};
use crate::controllers::meta;
use crate::controllers::node_lifecycle::tolerates;

/// Taint key that `spec.unschedulable` stands for.
const TAINT_UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// What a pod asks for, worked out once.
pub(super) struct Needs<'a> {
    pub request: Request,
    pub owner: Option<&'a str>,
    node_name: Option<&'a str>,
    node_selector: Option<&'a BTreeMap<String, String>>,
    affinity: Option<&'a [NodeSelectorTerm]>,
    tolerations: &'a [Toleration],
}

impl<'a> Needs<'a> {
    pub fn of(pod: &'a Pod) -> Self {
        let spec = pod.spec.as_ref();
        let node_affinity = spec.and_then(|s| s.affinity.as_ref()?.node_affinity.as_ref());
        let required = node_affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
        Self {
            request: Request::of(pod),
            owner: meta::controller_of(&pod.metadata).map(|o| o.uid.as_str()),
            node_name: spec.and_then(|s| s.node_name.as_deref()).filter(|n| !n.is_empty()),
            node_selector: spec.and_then(|s| s.node_selector.as_ref()),
            affinity: required.map(|r| r.node_selector_terms.as_slice()),
            tolerations: spec.and_then(|s| s.tolerations.as_deref()).unwrap_or_default(),
        }
    }

    /// Why the node cannot take the pod; empty if it can. The first kind of reason found counts, as upstream's filters
    /// run one after another; missing resources are named all.
    pub fn refusals(&self, info: &NodeInfo) -> Vec<String> {
        let Some(node) = &info.node else { return vec!["node(s) not found".into()] };
        let name = meta::text(&node.metadata.name);
        if node.spec.as_ref().and_then(|s| s.unschedulable) == Some(true) {
            let taint = Taint { key: TAINT_UNSCHEDULABLE.into(), effect: "NoSchedule".into(), ..Taint::default() };
            if !self.tolerations.iter().any(|t| tolerates(t, &taint)) {
                return vec!["node(s) were unschedulable".into()];
            }
        }
        if self.node_name.is_some_and(|wanted| wanted != name) {
            return vec!["node(s) didn't match the requested node name".into()];
        }
        let taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
        for taint in taints.filter(|t| t.effect == "NoSchedule" || t.effect == "NoExecute") {
            if !self.tolerations.iter().any(|t| tolerates(t, taint)) {
                let value = taint.value.as_deref().unwrap_or_default();
                return vec![format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)];
            }
        }
        let labels = meta::labels(&node.metadata);
        let selected = self.node_selector.is_none_or(|s| s.iter().all(|(k, v)| labels.get(k) == Some(v)));
        if !selected || !self.affinity.is_none_or(|terms| terms.iter().any(|term| matches(term, &labels, name))) {
            return vec!["node(s) didn't match Pod's node affinity/selector".into()];
        }
        self.shortages(info)
    }

    fn shortages(&self, info: &NodeInfo) -> Vec<String> {
        let mut reasons = Vec::new();
        if info.pods >= info.max_pods {
            reasons.push("Too many pods".to_string());
        }
        let (want, have, used) = (&self.request, &info.allocatable, &info.used);
        let mut check = |name: &str, want: i64, have: i64, used: i64| {
            if want > 0 && want > have.saturating_sub(used) {
                reasons.push(format!("Insufficient {name}"));
            }
        };
        check("cpu", want.cpu_milli, have.cpu_milli, used.cpu_milli);
        check("memory", want.memory, have.memory, used.memory);
        for (name, amount) in &want.other {
            let of = |list: &BTreeMap<String, i64>| list.get(name).copied().unwrap_or(0);
            check(name, *amount, of(&have.other), of(&used.other));
        }
        reasons
    }
}

/// Whether a term's expressions all hold; an empty term holds nowhere.
fn matches(term: &NodeSelectorTerm, labels: &BTreeMap<String, String>, name: &str) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let by_name = BTreeMap::from([("metadata.name".to_string(), name.to_string())]);
    expressions.iter().all(|r| holds(r, labels)) && fields.iter().all(|r| holds(r, &by_name))
}

fn holds(requirement: &NodeSelectorRequirement, labels: &BTreeMap<String, String>) -> bool {
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
    Requirement::new(&requirement.key, operator, values).is_ok_and(|r| r.matches(labels))
}
