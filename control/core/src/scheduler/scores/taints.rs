//! Fewer taints of effect PreferNoSchedule that the pod does not tolerate.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Taint, Toleration};

use super::{Score, Scorer, scale_reversed};
use crate::controllers::node_lifecycle::tolerates;
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::profile::Profile;
use crate::scheduler::snapshot::Snapshot;
use crate::scheduler::topology::NodeId;

pub(super) const SCORER: Scorer = Scorer { name: "TaintToleration", weight: 3, prepare };

struct Soft(Vec<Toleration>);

fn prepare(pod: &Arc<PodInfo>, snapshot: &mut Snapshot, _: &Profile, nodes: &[NodeId]) -> Option<Box<dyn Score>> {
    let tainted = |id: &NodeId| snapshot.info(*id).is_some_and(|n| !n.soft_taints.is_empty());
    if !nodes.iter().any(tainted) {
        return None;
    }
    Some(Box::new(Soft(pod.tolerations().to_vec())))
}

impl Score for Soft {
    fn score(&self, _: &Snapshot, nodes: &[&NodeInfo]) -> Vec<i64> {
        let borne = |taint: &&Taint| self.0.iter().any(|t| tolerates(t, taint));
        let of = |node: &&NodeInfo| node.soft_taints.iter().filter(|t| !borne(t)).count();
        nodes.iter().map(|node| i64::try_from(of(node)).unwrap_or(i64::MAX)).collect()
    }
    fn normalize(&self, scores: &mut [i64]) {
        scale_reversed(scores);
    }
}
