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
        match node.blocking_taints().find(|taint| !self.0.tolerates(taint)) {
            None => Ok(()),
            Some(taint) => {
                let value = taint.value.as_deref().unwrap_or_default();
                Err(Refusal::lasting(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)))
            }
        }
    }
}

fn helped_by(pod: &PodInfo, change: &Change, snapshot: &Snapshot) -> bool {
    change.node(snapshot).is_some_and(|node| node.blocking_taints().all(|taint| pod.tolerates(taint)))
}
