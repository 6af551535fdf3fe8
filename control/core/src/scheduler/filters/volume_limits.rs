//! How many volumes of a driver a node takes, as its CSINode says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Check, Filter, Prepared, Refusal};
use crate::scheduler::change::Change;
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::snapshot::Snapshot;

pub(super) const FILTER: Filter = Filter { name: "NodeVolumeLimits", prepare, helped_by };

/// The pod's volumes by driver.
struct Attachable(BTreeMap<String, BTreeSet<String>>);

fn volumes<'a>(pod: &'a PodInfo, snapshot: &'a Snapshot) -> impl Iterator<Item = (&'a str, String)> {
    pod.claims.iter().filter_map(|claim| snapshot.volumes.attached(pod.namespace(), claim))
}

fn prepare(pod: &Arc<PodInfo>, snapshot: &mut Snapshot) -> Prepared {
    let mut by_driver: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (driver, volume) in volumes(pod, snapshot) {
        by_driver.entry(driver.to_string()).or_default().insert(volume);
    }
    if by_driver.is_empty() { Prepared::Skip } else { Prepared::Check(Box::new(Attachable(by_driver))) }
}

impl Check for Attachable {
    fn check(&self, snapshot: &Snapshot, node: &NodeInfo) -> Result<(), Refusal> {
        for (driver, wanted) in &self.0 {
            let Some(limit) = snapshot.volumes.limit(&node.name, driver) else { continue };
            let mut attached: BTreeSet<String> = wanted.clone();
            let here = node.pods.values().flat_map(|pod| volumes(pod, snapshot));
            attached.extend(here.filter(|(d, _)| d == driver).map(|(_, volume)| volume));
            if i64::try_from(attached.len()).unwrap_or(i64::MAX) > limit {
                return Err(Refusal::crowded("node(s) exceed max volume count"));
            }
        }
        Ok(())
    }
}

fn helped_by(pod: &PodInfo, change: &Change, snapshot: &Snapshot) -> bool {
    match change {
        Change::PodGone { pod: other, .. } => !other.claims.is_empty(),
        _ if change.of_volumes(pod) => true,
        _ => change.node(snapshot).is_some(),
    }
}
