//! Volumes that carry a zone's or region's label are reached from that zone or region only.

use std::sync::Arc;

use super::{Check, Filter, Prepared, Refusal};
use crate::scheduler::change::Change;
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::snapshot::Snapshot;
use crate::scheduler::volumes::Standing;

/// The labels, with their older names.
const LABELS: [[&str; 2]; 2] = [
    ["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"],
    ["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"],
];
/// Between the values of a volume that is in several zones.
const SEPARATOR: &str = "__";

pub(super) const FILTER: Filter = Filter { name: "VolumeZone", prepare, helped_by };

/// Labels that the node must have, each with one of the values.
struct Zones(Vec<([&'static str; 2], Vec<String>)>);

fn prepare(pod: &Arc<PodInfo>, snapshot: &mut Snapshot) -> Prepared {
    let mut zones = Vec::new();
    for claim in &pod.claims {
        let Standing::Bound(volume) = snapshot.volumes.standing(pod.namespace(), claim) else { continue };
        for keys in LABELS {
            let labels = volume.metadata.labels.as_ref();
            let value = labels.and_then(|l| keys.iter().find_map(|key| l.get(*key)));
            zones.extend(value.map(|v| (keys, v.split(SEPARATOR).map(Into::into).collect())));
        }
    }
    if zones.is_empty() { Prepared::Skip } else { Prepared::Check(Box::new(Zones(zones))) }
}

impl Check for Zones {
    fn check(&self, _: &Snapshot, node: &NodeInfo) -> Result<(), Refusal> {
        // A node without any such label is in a cluster without zones.
        let labels = node.labels();
        if !LABELS.iter().flatten().any(|key| labels.contains_key(*key)) {
            return Ok(());
        }
        let held = |(keys, values): &([&'static str; 2], Vec<String>)| {
            keys.iter().any(|key| labels.get(*key).is_some_and(|v| values.contains(v)))
        };
        if self.0.iter().all(held) { Ok(()) } else { Err(Refusal::lasting("node(s) had no available volume zone")) }
    }
}

fn helped_by(pod: &PodInfo, change: &Change, snapshot: &Snapshot) -> bool {
    change.of_volumes(pod) || change.node(snapshot).is_some()
}
