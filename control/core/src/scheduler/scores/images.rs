//! Nodes that have the pod's images already; an image that few nodes have counts less, so that they are not swamped.

use std::sync::Arc;

use super::{MAX, Score, Scorer};
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::profile::Profile;
use crate::scheduler::snapshot::{Snapshot, full_image_name};
use crate::scheduler::topology::NodeId;

/// Fewer bytes than this do not count, as upstream has it...
const LEAST_BYTES: i64 = 23 * 1024 * 1024;
/// ...nor more than this for each container.
const MOST_BYTES: i64 = 1000 * 1024 * 1024;

pub(super) const SCORER: Scorer = Scorer { name: "ImageLocality", weight: 1, prepare };

/// Images with the share of nodes that have them.
struct Images(Vec<(String, f64)>);

fn prepare(pod: &Arc<PodInfo>, snapshot: &mut Snapshot, _: &Profile, _: &[NodeId]) -> Option<Box<dyn Score>> {
    let all = snapshot.order().len().max(1) as f64;
    let images: Vec<(String, f64)> = pod
        .images()
        .map(|name| {
            let name = full_image_name(name);
            let share = snapshot.nodes_with_image(&name) as f64 / all;
            (name, share)
        })
        .collect();
    images.iter().any(|(_, share)| *share > 0.0).then(|| Box::new(Images(images)) as Box<dyn Score>)
}

impl Score for Images {
    fn score(&self, _: &Snapshot, node: &NodeInfo) -> i64 {
        let bytes: i64 = self
            .0
            .iter()
            .filter_map(|(name, share)| node.images.get(name).map(|size| (*size as f64 * share) as i64))
            .fold(0, i64::saturating_add);
        let most = MOST_BYTES.saturating_mul(i64::try_from(self.0.len()).unwrap_or(1));
        MAX * (bytes.clamp(LEAST_BYTES, most) - LEAST_BYTES) / (most - LEAST_BYTES)
    }
}
