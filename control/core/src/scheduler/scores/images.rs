//! Nodes that have the pod's images already; an image that few nodes have counts less, so that they are not swamped.

use std::sync::Arc;

use super::{MAX, Score, Scorer};
use crate::scheduler::images::full_image_name;
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::profile::Profile;
use crate::scheduler::snapshot::Snapshot;
use crate::scheduler::topology::{NodeId, NodeMap};

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
            let share = snapshot.nodes_with_image(&name).map_or(0, NodeMap::len) as f64 / all;
            (name, share)
        })
        .collect();
    images.iter().any(|(_, share)| *share > 0.0).then(|| Box::new(Images(images)) as Box<dyn Score>)
}

impl Score for Images {
    fn score(&self, snapshot: &Snapshot, nodes: &[&NodeInfo]) -> Vec<i64> {
        let mut bytes = vec![0_i64; nodes.len()];
        for (name, share) in &self.0 {
            let Some(sizes) = snapshot.nodes_with_image(name) else { continue };
            for (bytes, node) in bytes.iter_mut().zip(nodes) {
                let size = sizes.get(&node.id).map_or(0, |size| (*size as f64 * share) as i64);
                *bytes = bytes.saturating_add(size);
            }
        }
        let most = MOST_BYTES.saturating_mul(i64::try_from(self.0.len()).unwrap_or(1));
        let scale = |bytes: i64| MAX * (bytes.clamp(LEAST_BYTES, most) - LEAST_BYTES) / (most - LEAST_BYTES);
        bytes.into_iter().map(scale).collect()
    }
}
