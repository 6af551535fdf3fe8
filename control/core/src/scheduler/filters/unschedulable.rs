//! Cordoned nodes take only pods that tolerate it.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Taint;

use super::{Check, Filter, Prepared, Refusal};
use crate::scheduler::change::Change;
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::snapshot::Snapshot;

/// The taint that `spec.unschedulable` stands for.
const TAINT: &str = "node.kubernetes.io/unschedulable";

pub(super) const FILTER: Filter = Filter { name: "NodeUnschedulable", prepare, helped_by };

struct Uncordoned;

fn prepare(pod: &Arc<PodInfo>, _: &mut Snapshot) -> Prepared {
    let taint = Taint { key: TAINT.into(), effect: "NoSchedule".into(), ..Taint::default() };
    if pod.tolerates(&taint) { Prepared::Skip } else { Prepared::Check(Box::new(Uncordoned)) }
}

impl Check for Uncordoned {
    fn check(&self, _: &Snapshot, node: &NodeInfo) -> Result<(), Refusal> {
        if node.unschedulable { Err(Refusal::lasting("node(s) were unschedulable")) } else { Ok(()) }
    }
}

fn helped_by(_: &PodInfo, change: &Change, snapshot: &Snapshot) -> bool {
    change.node(snapshot).is_some_and(|node| !node.unschedulable)
}
