//! `spec.nodeName` that was given with the pod: only that node.

use std::sync::Arc;

use super::{Check, Filter, Prepared, Refusal};
use crate::controllers::pod;
use crate::scheduler::change::Change;
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::snapshot::Snapshot;

pub(super) const FILTER: Filter = Filter { name: "NodeName", prepare, helped_by };

struct Named(Arc<PodInfo>);

fn prepare(pod: &Arc<PodInfo>, _: &mut Snapshot) -> Prepared {
    if pod::node_name(&pod.pod).is_empty() { Prepared::Skip } else { Prepared::Check(Box::new(Named(pod.clone()))) }
}

impl Check for Named {
    fn check(&self, _: &Snapshot, node: &NodeInfo) -> Result<(), Refusal> {
        if pod::node_name(&self.0.pod) == node.name {
            return Ok(());
        }
        Err(Refusal::lasting("node(s) didn't match the requested node name"))
    }
}

fn helped_by(pod: &PodInfo, change: &Change, snapshot: &Snapshot) -> bool {
    change.node(snapshot).is_some_and(|node| node.name == pod::node_name(&pod.pod))
}
