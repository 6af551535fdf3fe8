//! CPU and memory in use in like shares.

use std::sync::Arc;

use super::{MAX, Score, Scorer};
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::profile::Profile;
use crate::scheduler::snapshot::Snapshot;
use crate::scheduler::topology::NodeId;

pub(super) const SCORER: Scorer = Scorer { name: "NodeResourcesBalancedAllocation", weight: 1, prepare };

struct Balance {
    cpu: i64,
    memory: i64,
}

fn prepare(pod: &Arc<PodInfo>, _: &mut Snapshot, _: &Profile, _: &[NodeId]) -> Option<Box<dyn Score>> {
    let (cpu, memory) = (pod.request.cpu_milli, pod.request.memory);
    // A pod that asks for nothing would pile up on the node that happens to be balanced best.
    (cpu > 0 || memory > 0).then(|| Box::new(Balance { cpu, memory }) as Box<dyn Score>)
}

impl Score for Balance {
    fn score(&self, _: &Snapshot, nodes: &[&NodeInfo]) -> Vec<i64> {
        nodes.iter().map(|node| self.of(node)).collect()
    }
}

impl Balance {
    fn of(&self, node: &NodeInfo) -> i64 {
        let share = |have: i64, used: i64, more: i64| {
            if have <= 0 { None } else { Some((used.saturating_add(more) as f64 / have as f64).min(1.0)) }
        };
        let cpu = share(node.allocatable.cpu_milli, node.used.cpu_milli, self.cpu);
        let memory = share(node.allocatable.memory, node.used.memory, self.memory);
        // The standard deviation of two shares is half their difference.
        let deviation = match (cpu, memory) {
            (Some(cpu), Some(memory)) => (cpu - memory).abs() / 2.0,
            _ => 0.0,
        };
        ((1.0 - deviation) * MAX as f64) as i64
    }
}
