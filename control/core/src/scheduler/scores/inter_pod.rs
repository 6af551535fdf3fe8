//! Preferred pod affinity and anti-affinity, the pod's own and that of pods that are there, whose required affinity
//! counts a little too.

use std::sync::Arc;

use super::{MAX, Score, Scorer};
use crate::scheduler::index::Role;
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::profile::Profile;
use crate::scheduler::snapshot::Snapshot;
use crate::scheduler::topology::NodeId;

/// What it counts that the pod meets the required affinity of one that is there.
const REQUIRED_WEIGHT: i64 = 1;

pub(super) const SCORER: Scorer = Scorer { name: "InterPodAffinity", weight: 2, prepare };

struct Neighbours {
    /// Weights of the pods that match the pod's terms.
    own: Vec<(i64, u32)>,
    /// Weights of the pods whose terms match the pod.
    others: Vec<(i64, u32)>,
}

fn prepare(pod: &Arc<PodInfo>, snapshot: &mut Snapshot, _: &Profile, _: &[NodeId]) -> Option<Box<dyn Score>> {
    let others: Vec<(i64, u32)> = snapshot
        .terms_about(pod)
        .iter()
        .filter_map(|(id, set)| match set.role {
            Role::Apart => None,
            Role::Together => Some((REQUIRED_WEIGHT, *id)),
            Role::Preferred(weight) => Some((weight, *id)),
        })
        .collect();
    if others.is_empty() && pod.preferred.is_empty() {
        return None;
    }
    let own = pod.preferred.iter().map(|(weight, term)| (*weight, snapshot.tracker(&term.query(), &term.topology_key)));
    let own = own.collect();
    Some(Box::new(Neighbours { own, others }))
}

impl Score for Neighbours {
    fn score(&self, snapshot: &Snapshot, nodes: &[&NodeInfo]) -> Vec<i64> {
        let index = &snapshot.index;
        let own = self.own.iter().filter_map(|(weight, tracker)| Some((weight, index.counts(*tracker)?)));
        let others = self.others.iter().filter_map(|(weight, set)| Some((weight, index.term_counts(*set)?)));
        let mut scores = vec![0; nodes.len()];
        for (weight, counts) in own.chain(others) {
            for (score, node) in scores.iter_mut().zip(nodes) {
                *score += weight * counts.of(node.id).unwrap_or(0);
            }
        }
        scores
    }

    fn normalize(&self, scores: &mut [i64]) {
        let (least, most) = (scores.iter().copied().min().unwrap_or(0), scores.iter().copied().max().unwrap_or(0));
        for score in scores.iter_mut() {
            *score = if most > least { MAX * (*score - least) / (most - least) } else { 0 };
        }
    }
}
