//! How much of CPU and memory is free, or in use, once the pod is there.

use std::sync::Arc;

use super::{MAX, Score, Scorer};
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::profile::{Profile, Strategy};
use crate::scheduler::snapshot::Snapshot;
use crate::scheduler::topology::NodeId;

pub(super) const SCORER: Scorer = Scorer { name: "NodeResourcesFit", weight: 1, prepare };

struct Allocation {
    strategy: Strategy,
    cpu: i64,
    memory: i64,
}

fn prepare(pod: &Arc<PodInfo>, _: &mut Snapshot, profile: &Profile, _: &[NodeId]) -> Option<Box<dyn Score>> {
    let (cpu, memory) = (pod.counted.cpu_milli, pod.counted.memory);
    Some(Box::new(Allocation { strategy: profile.strategy, cpu, memory }))
}

impl Score for Allocation {
    fn score(&self, _: &Snapshot, nodes: &[&NodeInfo]) -> Vec<i64> {
        nodes.iter().map(|node| self.of(node)).collect()
    }
}

impl Allocation {
    fn of(&self, node: &NodeInfo) -> i64 {
        let one = |have: i64, used: i64| match self.strategy {
            _ if have <= 0 || used > have => 0,
            Strategy::LeastAllocated => (have - used).saturating_mul(MAX) / have,
            Strategy::MostAllocated => used.saturating_mul(MAX) / have,
        };
        let cpu = one(node.allocatable.cpu_milli, node.counted.cpu_milli.saturating_add(self.cpu));
        let memory = one(node.allocatable.memory, node.counted.memory.saturating_add(self.memory));
        (cpu + memory) / 2
    }
}
