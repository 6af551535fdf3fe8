//! What pods ask for fits into what the node can give.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Check, Filter, Prepared, Refusal};
use crate::scheduler::change::Change;
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::snapshot::Snapshot;

pub(super) const FILTER: Filter = Filter { name: "NodeResourcesFit", prepare, helped_by };

struct Fits(Arc<PodInfo>);

fn prepare(pod: &Arc<PodInfo>, _: &mut Snapshot) -> Prepared {
    Prepared::Check(Box::new(Fits(pod.clone())))
}

impl Check for Fits {
    fn check(&self, _: &Snapshot, node: &NodeInfo) -> Result<(), Refusal> {
        let mut lacks: Option<Refusal> = None;
        let mut lack = |reason: Cow<'static, str>, resolvable: bool| match &mut lacks {
            Some(refusal) => {
                refusal.more.push(reason);
                refusal.resolvable &= resolvable;
            }
            None => lacks = Some(Refusal { reason, more: Vec::new(), resolvable }),
        };
        if node.pod_count() >= node.max_pods {
            lack("Too many pods".into(), node.max_pods > 0);
        }
        let (want, have, used) = (&self.0.request, &node.allocatable, &node.used);
        if short(want.cpu_milli, have.cpu_milli, used.cpu_milli) {
            lack("Insufficient cpu".into(), want.cpu_milli <= have.cpu_milli);
        }
        if short(want.memory, have.memory, used.memory) {
            lack("Insufficient memory".into(), want.memory <= have.memory);
        }
        for (name, amount) in &want.other {
            if short(*amount, have.other(name), used.other(name)) {
                lack(format!("Insufficient {name}").into(), *amount <= have.other(name));
            }
        }
        lacks.map_or(Ok(()), Err)
    }
}

fn short(want: i64, have: i64, used: i64) -> bool {
    want > 0 && want > have.saturating_sub(used)
}

fn helped_by(pod: &PodInfo, change: &Change, snapshot: &Snapshot) -> bool {
    let Some(node) = change.roomier(snapshot).filter(|n| pod.nodes.matches(&n.name, n.labels())) else { return false };
    let (want, have, mut used) = (&pod.request, &node.allocatable, node.used.clone());
    let mut count = node.pod_count();
    // Who may preempt is helped also if it fits only then.
    for p in node.yielding_to(pod) {
        used.subtract(&p.request);
        count -= 1;
    }
    count < node.max_pods
        && !short(want.cpu_milli, have.cpu_milli, used.cpu_milli)
        && !short(want.memory, have.memory, used.memory)
        && want.other.iter().all(|(name, amount)| !short(*amount, have.other(name), used.other(name)))
}
