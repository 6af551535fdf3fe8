//! Required pod affinity and anti-affinity: the pod's own, and the anti-affinity of pods that are there.
//! Source: <https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#inter-pod-affinity-and-anti-affinity>.

use std::sync::Arc;

use super::{Check, Filter, Prepared, Refusal};
use crate::scheduler::change::Change;
use crate::scheduler::index::Role;
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::query::AffinityTerm;
use crate::scheduler::snapshot::Snapshot;

const NOT_NEAR: &str = "node(s) didn't match pod affinity rules";
const NOT_APART: &str = "node(s) didn't match pod anti-affinity rules";
const UNWANTED: &str = "node(s) didn't satisfy existing pods anti-affinity rules";

pub(super) const FILTER: Filter = Filter { name: "InterPodAffinity", prepare, helped_by };

struct Neighbours {
    /// Trackers of the pods that match all of the pod's terms of affinity, one for each term's topology.
    near: Vec<u32>,
    /// Whether the pod matches its own terms of affinity: the first of its kind may go anywhere.
    own: bool,
    /// Trackers of the pods that match each term of anti-affinity.
    apart: Vec<u32>,
    /// Sets of terms of pods that do not want this one.
    unwanted: Vec<u32>,
}

fn prepare(pod: &Arc<PodInfo>, snapshot: &mut Snapshot) -> Prepared {
    let unwanted: Vec<u32> =
        snapshot.terms_about(pod).iter().filter(|(_, set)| set.role == Role::Apart).map(|(id, _)| *id).collect();
    if unwanted.is_empty() && pod.affinity.is_empty() && pod.anti_affinity.is_empty() {
        return Prepared::Skip;
    }
    let all = AffinityTerm::query_all(&pod.affinity);
    let near = pod.affinity.iter().map(|term| snapshot.tracker(&all, &term.topology_key)).collect();
    let apart = pod.anti_affinity.iter().map(|term| snapshot.tracker(&term.query(), &term.topology_key)).collect();
    let own = pod.affinity.iter().all(|term| term.matches(pod, snapshot.namespaces()));
    Prepared::Check(Box::new(Neighbours { near, own, apart, unwanted }))
}

impl Check for Neighbours {
    fn check(&self, snapshot: &Snapshot, node: &NodeInfo) -> Result<(), Refusal> {
        let index = &snapshot.index;
        let counts = || self.near.iter().map(|tracker| index.count(*tracker, node.id));
        if !counts().all(|count| count.is_some_and(|c| c > 0)) {
            let first = self.own && self.near.iter().all(|tracker| index.total(*tracker) == 0);
            if !first || counts().any(|count| count.is_none()) {
                return Err(Refusal::lasting(NOT_NEAR));
            }
        }
        if self.apart.iter().any(|tracker| index.count(*tracker, node.id).is_some_and(|c| c > 0)) {
            return Err(Refusal::crowded(NOT_APART));
        }
        if self.unwanted.iter().any(|set| index.term_count(*set, node.id) > 0) {
            return Err(Refusal::crowded(UNWANTED));
        }
        Ok(())
    }
}

fn helped_by(pod: &PodInfo, change: &Change, snapshot: &Snapshot) -> bool {
    let namespaces = snapshot.namespaces();
    match change {
        Change::PodPlaced(other) => pod.affinity.iter().any(|t| t.matches(other, namespaces)),
        Change::PodGone { pod: other, .. } => {
            pod.anti_affinity.iter().any(|t| t.matches(other, namespaces))
                || other.anti_affinity.iter().any(|t| t.matches(pod, namespaces))
        }
        Change::Namespace => true,
        _ => change.node(snapshot).is_some(),
    }
}
