//! Topology spread constraints of ScheduleAnyway, and those that a controller's pods have by default: fewer siblings in
//! the node's domains are better.

use std::sync::Arc;

use super::{MAX, Score, Scorer};
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::profile::Profile;
use crate::scheduler::snapshot::Snapshot;
use crate::scheduler::topology::{NOWHERE, NodeId, Topology};

/// The raw score of a node that lacks a label: it becomes 0.
const IGNORED: i64 = -1;

pub(super) const SCORER: Scorer = Scorer { name: "PodTopologySpread", weight: 2, prepare };

struct Constraint {
    tracker: u32,
    max_skew: i64,
    /// More domains make each sibling count more, by the logarithm of their number.
    weight: f64,
}

struct Spread {
    constraints: Vec<Constraint>,
    /// Whether nodes must have all labels.
    all_keys: bool,
}

fn prepare(pod: &Arc<PodInfo>, snapshot: &mut Snapshot, _: &Profile, nodes: &[NodeId]) -> Option<Box<dyn Score>> {
    let soft: Vec<_> = pod.spread.iter().filter(|c| !c.required).collect();
    if soft.is_empty() {
        return None;
    }
    let all_keys = soft.iter().all(|c| c.query.owner.is_none());
    let keys: Vec<&str> = soft.iter().map(|c| c.topology_key.as_str()).collect();
    let mut constraints = Vec::new();
    for constraint in soft {
        let own = [constraint.topology_key.as_str()];
        let tracker = snapshot.spread(pod, constraint, if all_keys { &keys } else { &own });
        constraints.push(Constraint { tracker, max_skew: constraint.max_skew, weight: 0.0 });
    }
    let index = &snapshot.index;
    let topologies: Vec<&Topology> =
        constraints.iter().filter_map(|c| index.counts(c.tracker)).map(|counts| counts.topology).collect();
    let counted = |id: &NodeId| !all_keys || topologies.iter().all(|topology| topology.of(*id) != NOWHERE);
    for (constraint, topology) in constraints.iter_mut().zip(&topologies) {
        let domains = topology.distinct(nodes.iter().copied().filter(counted));
        constraint.weight = (domains as f64 + 2.0).ln();
    }
    Some(Box::new(Spread { constraints, all_keys }))
}

impl Score for Spread {
    fn score(&self, snapshot: &Snapshot, nodes: &[&NodeInfo]) -> Vec<i64> {
        let mut sums = vec![0.0; nodes.len()];
        for constraint in &self.constraints {
            let Some(counts) = snapshot.index.counts(constraint.tracker) else { continue };
            for (sum, node) in sums.iter_mut().zip(nodes) {
                match counts.of(node.id) {
                    Some(count) => *sum += count as f64 * constraint.weight + (constraint.max_skew - 1) as f64,
                    None if self.all_keys => *sum = f64::NAN,
                    None => {}
                }
            }
        }
        sums.into_iter().map(|sum: f64| if sum.is_nan() { IGNORED } else { sum.round() as i64 }).collect()
    }

    fn normalize(&self, scores: &mut [i64]) {
        let counted = || scores.iter().copied().filter(|s| *s != IGNORED);
        let (least, most) = (counted().min().unwrap_or(0), counted().max().unwrap_or(0));
        for score in scores.iter_mut() {
            *score = match *score {
                IGNORED => 0,
                _ if most == 0 => MAX,
                score => MAX * (most + least - score) / most,
            };
        }
    }
}
