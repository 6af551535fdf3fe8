//! Ports of the node itself, which one pod at a time can have.

use std::sync::Arc;

use super::{Check, Filter, Prepared, Refusal};
use crate::scheduler::change::Change;
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::snapshot::Snapshot;

pub(super) const FILTER: Filter = Filter { name: "NodePorts", prepare, helped_by };

struct Free(Arc<PodInfo>);

fn prepare(pod: &Arc<PodInfo>, _: &mut Snapshot) -> Prepared {
    if pod.ports.is_empty() { Prepared::Skip } else { Prepared::Check(Box::new(Free(pod.clone()))) }
}

fn free(pod: &PodInfo, node: &NodeInfo) -> bool {
    !pod.ports.iter().any(|wanted| node.ports.keys().any(|used| wanted.conflicts(used)))
}

impl Check for Free {
    fn check(&self, _: &Snapshot, node: &NodeInfo) -> Result<(), Refusal> {
        if free(&self.0, node) {
            return Ok(());
        }
        Err(Refusal::crowded("node(s) didn't have free ports for the requested pod ports"))
    }
}

fn helped_by(pod: &PodInfo, change: &Change, snapshot: &Snapshot) -> bool {
    let Some(node) = change.roomier(snapshot).filter(|n| pod.nodes.matches(&n.name, n.labels())) else { return false };
    // Who may preempt is helped also if its ports are free only then.
    let yielding: Vec<&str> = node.yielding_to(pod).map(|p| p.uid()).collect();
    let mut staying = node.pods.values().filter(|p| !yielding.contains(&p.uid()));
    staying.all(|p| !pod.ports.iter().any(|wanted| p.ports.iter().any(|used| wanted.conflicts(used))))
}
