//! The weights of the preferred node affinity terms that a node matches.

use std::sync::Arc;

use super::{Score, Scorer, scale};
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::profile::Profile;
use crate::scheduler::snapshot::Snapshot;
use crate::scheduler::topology::NodeId;

pub(super) const SCORER: Scorer = Scorer { name: "NodeAffinity", weight: 2, prepare };

struct Preferred(Arc<PodInfo>);

fn prepare(pod: &Arc<PodInfo>, _: &mut Snapshot, _: &Profile, _: &[NodeId]) -> Option<Box<dyn Score>> {
    if pod.preferred_nodes.is_empty() { None } else { Some(Box::new(Preferred(pod.clone()))) }
}

impl Score for Preferred {
    fn score(&self, _: &Snapshot, nodes: &[&NodeInfo]) -> Vec<i64> {
        let of = |node: &&NodeInfo| {
            let matching = self.0.preferred_nodes.iter().filter(|(_, t)| t.matches(&node.name, node.labels()));
            matching.map(|(weight, _)| weight).sum()
        };
        nodes.iter().map(of).collect()
    }
    fn normalize(&self, scores: &mut [i64]) {
        scale(scores);
    }
}
