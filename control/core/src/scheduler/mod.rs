//! The scheduler: where a pod goes, purely. [`Snapshot`] is the cluster as the scheduler sees it, bindings under way
//! included; [`schedule`] filters its nodes, scores the rest, and says why none fits.
//! Source: <https://kubernetes.io/docs/concepts/scheduling-eviction/>.

mod filter;
mod score;
mod snapshot;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Pod;

pub use snapshot::{NodeInfo, Request, Snapshot};

/// What the scheduler decided about a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Bind it to this node.
    Bind(String),
    /// No node takes it; the message in upstream's words.
    Unschedulable(String),
}

/// Decides where a pod goes. Among nodes of equal score the choice goes round with `turn`.
pub fn schedule(pod: &Pod, snapshot: &Snapshot, turn: usize) -> Decision {
    let needs = filter::Needs::of(pod);
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let mut best: Option<i64> = None;
    let mut choice: Vec<&str> = Vec::new();
    for (name, node) in snapshot.nodes() {
        let refusals = needs.refusals(node);
        if !refusals.is_empty() {
            for refusal in refusals {
                *reasons.entry(refusal).or_default() += 1;
            }
            continue;
        }
        let score = score::score(&needs, node);
        if best.is_none_or(|b| score > b) {
            best = Some(score);
            choice.clear();
        }
        if best == Some(score) {
            choice.push(name);
        }
    }
    match choice.get(turn.checked_rem(choice.len()).unwrap_or(0)) {
        Some(name) => Decision::Bind((*name).to_string()),
        None => Decision::Unschedulable(explain(snapshot.len(), &reasons)),
    }
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
fn explain(nodes: usize, reasons: &BTreeMap<String, usize>) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".into();
    }
    let mut parts: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    format!("0/{nodes} nodes are available: {}.", parts.join(", "))
}

#[cfg(test)]
mod tests;
