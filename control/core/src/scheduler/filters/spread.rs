//! Topology spread constraints that forbid.
//! Source: <https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/>.

use std::sync::Arc;

use super::{Check, Filter, Prepared, Refusal};
use crate::scheduler::change::Change;
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::snapshot::Snapshot;

const UNEVEN: &str = "node(s) didn't match pod topology spread constraints";
const NO_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";

pub(super) const FILTER: Filter = Filter { name: "PodTopologySpread", prepare, helped_by };

struct Constraint {
    tracker: u32,
    max_skew: i64,
    min_domains: usize,
    own: i64,
}

struct Even(Vec<Constraint>);

fn prepare(pod: &Arc<PodInfo>, snapshot: &mut Snapshot) -> Prepared {
    let required = || pod.spread.iter().filter(|c| c.required);
    let keys: Vec<&str> = required().map(|c| c.topology_key.as_str()).collect();
    if keys.is_empty() {
        return Prepared::Skip;
    }
    let constraints = required().map(|c| Constraint {
        tracker: snapshot.spread(pod, c, &keys),
        max_skew: c.max_skew,
        min_domains: c.min_domains,
        own: i64::from(c.counts_itself),
    });
    Prepared::Check(Box::new(Even(constraints.collect())))
}

impl Check for Even {
    fn check(&self, snapshot: &Snapshot, node: &NodeInfo) -> Result<(), Refusal> {
        for constraint in &self.0 {
            let Some(here) = snapshot.index.count(constraint.tracker, node.id) else {
                return Err(Refusal::lasting(NO_LABEL));
            };
            let (least, domains) = snapshot.index.least(constraint.tracker);
            let least = if domains < constraint.min_domains { 0 } else { least };
            if here + constraint.own - least > constraint.max_skew {
                return Err(Refusal::crowded(UNEVEN));
            }
        }
        Ok(())
    }
}

fn helped_by(pod: &PodInfo, change: &Change, snapshot: &Snapshot) -> bool {
    let mut required = pod.spread.iter().filter(|c| c.required);
    match change {
        Change::PodPlaced(other) | Change::PodGone { pod: other, .. } => {
            required.any(|c| c.query.matches(other, snapshot.namespaces()) || other.terminating)
        }
        Change::NodeGone => true,
        _ => change.node(snapshot).is_some(),
    }
}
