//! `nodeSelector` and required node affinity.
//! Source: <https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/>.

use std::sync::Arc;

use super::{Check, Filter, Prepared, Refusal};
use crate::scheduler::change::Change;
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::snapshot::Snapshot;

pub(super) const FILTER: Filter = Filter { name: "NodeAffinity", prepare, helped_by };

struct Selected(Arc<PodInfo>);

fn prepare(pod: &Arc<PodInfo>, _: &mut Snapshot) -> Prepared {
    let check = Box::new(Selected(pod.clone()));
    match pod.nodes.only() {
        _ if pod.nodes.is_everything() => Prepared::Skip,
        Some(names) if !names.is_empty() => Prepared::Only(names.into_iter().map(Into::into).collect(), check),
        _ => Prepared::Check(check),
    }
}

impl Check for Selected {
    fn check(&self, _: &Snapshot, node: &NodeInfo) -> Result<(), Refusal> {
        if self.0.nodes.matches(&node.name, node.labels()) {
            return Ok(());
        }
        Err(Refusal::lasting("node(s) didn't match Pod's node affinity/selector"))
    }
}

fn helped_by(pod: &PodInfo, change: &Change, snapshot: &Snapshot) -> bool {
    change.node(snapshot).is_some_and(|node| pod.nodes.matches(&node.name, node.labels()))
}
