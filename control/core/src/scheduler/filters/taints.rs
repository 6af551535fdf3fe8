//! Taints keep away pods that do not tolerate them.
//! Source: <https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/>.

use std::sync::Arc;

use super::{Check, Filter, Prepared, Refusal};
use crate::scheduler::change::Change;
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::snapshot::Snapshot;

pub(super) const FILTER: Filter = Filter { name: "TaintToleration", prepare, helped_by };

struct Tolerated(Arc<PodInfo>);

fn prepare(pod: &Arc<PodInfo>, _: &mut Snapshot) -> Prepared {
    Prepared::Check(Box::new(Tolerated(pod.clone())))
}

impl Check for Tolerated {
    fn check(&self, _: &Snapshot, node: &NodeInfo) -> Result<(), Refusal> {
        if node.blocking_taints.iter().all(|taint| self.0.tolerates(taint)) {
            return Ok(());
        }
        Err(Refusal::lasting("node(s) had untolerated taint(s)"))
    }
}

fn helped_by(pod: &PodInfo, change: &Change, snapshot: &Snapshot) -> bool {
    change.node(snapshot).is_some_and(|node| node.blocking_taints.iter().all(|taint| pod.tolerates(taint)))
}
