//! What makes one node better than another. Each criterion is one file with a `SCORER`, and one line in [`ALL`]; each
//! gives 0 to [`MAX`], which the profile weighs. One that tells the nodes of a pod not apart costs nothing.

mod balanced;
mod images;
mod inter_pod;
mod node_affinity;
mod resources;
mod spread;
mod taints;

use std::sync::Arc;

use super::node_info::NodeInfo;
use super::pod_info::PodInfo;
use super::profile::Profile;
use super::snapshot::Snapshot;
use super::topology::NodeId;

/// The greatest score of one criterion.
pub(super) const MAX: i64 = 100;

/// The criteria.
pub(super) const ALL: [&Scorer; 7] = [
    &resources::SCORER,
    &balanced::SCORER,
    &taints::SCORER,
    &node_affinity::SCORER,
    &images::SCORER,
    &spread::SCORER,
    &inter_pod::SCORER,
];

/// One criterion.
pub(super) struct Scorer {
    /// Its name, as upstream's configuration calls it.
    pub name: &'static str,
    /// Its weight unless the profile says another; upstream's.
    pub weight: i64,
    /// Works out what it means for a pod that may go to these nodes; `None` if it tells none of them apart.
    pub prepare: Prepare,
}

type Prepare = fn(&Arc<PodInfo>, &mut Snapshot, &Profile, &[NodeId]) -> Option<Box<dyn Score>>;

/// A criterion prepared for a pod.
pub(super) trait Score {
    /// The nodes' raw scores, one for each.
    fn score(&self, snapshot: &Snapshot, nodes: &[&NodeInfo]) -> Vec<i64>;
    /// Brings all nodes' raw scores to 0 to [`MAX`].
    fn normalize(&self, _scores: &mut [i64]) {}
}

/// Scales scores so that the greatest becomes [`MAX`].
fn scale(scores: &mut [i64]) {
    let most = scores.iter().copied().max().unwrap_or(0);
    if most > 0 {
        scores.iter_mut().for_each(|s| *s = *s * MAX / most);
    }
}

/// Scales scores so that the greatest becomes 0 and zero becomes [`MAX`].
fn scale_reversed(scores: &mut [i64]) {
    scale(scores);
    scores.iter_mut().for_each(|s| *s = MAX - *s);
}

/// Adds up all criteria for nodes that may have the pod.
pub(super) fn total(pod: &Arc<PodInfo>, snapshot: &mut Snapshot, profile: &Profile, nodes: &[NodeId]) -> Vec<i64> {
    let mut criteria: Vec<(i64, Box<dyn Score>)> = Vec::new();
    for scorer in ALL {
        let weight = profile.weight(scorer.name, scorer.weight);
        if weight != 0 {
            criteria.extend((scorer.prepare)(pod, snapshot, profile, nodes).map(|prepared| (weight, prepared)));
        }
    }
    let infos: Vec<&NodeInfo> = nodes.iter().filter_map(|id| snapshot.info(*id)).collect();
    let mut total = vec![0; nodes.len()];
    for (weight, prepared) in criteria {
        let mut scores = prepared.score(snapshot, &infos);
        prepared.normalize(&mut scores);
        for (sum, score) in total.iter_mut().zip(&scores) {
            *sum += weight * score;
        }
    }
    total
}

#[cfg(test)]
mod tests;
