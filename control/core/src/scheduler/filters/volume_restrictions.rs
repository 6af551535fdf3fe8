//! A claim of access mode ReadWriteOncePod has one pod at a time.

use std::sync::Arc;

use super::{Check, Filter, Prepared, Refusal};
use crate::scheduler::change::Change;
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::snapshot::Snapshot;

const IN_USE: &str = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";

pub(super) const FILTER: Filter = Filter { name: "VolumeRestrictions", prepare, helped_by };

struct Alone {
    namespace: String,
    claims: Vec<String>,
}

fn prepare(pod: &Arc<PodInfo>, snapshot: &mut Snapshot) -> Prepared {
    let alone = |name: &&String| {
        let claim = snapshot.volumes.claim(pod.namespace(), name);
        let modes = claim.and_then(|c| c.spec.as_ref()?.access_modes.as_ref());
        modes.is_some_and(|modes| modes.iter().any(|m| m == "ReadWriteOncePod"))
    };
    let claims: Vec<String> = pod.claims.iter().filter(alone).cloned().collect();
    if claims.is_empty() {
        return Prepared::Skip;
    }
    Prepared::Check(Box::new(Alone { namespace: pod.namespace().into(), claims }))
}

impl Check for Alone {
    fn check(&self, snapshot: &Snapshot, _: &NodeInfo) -> Result<(), Refusal> {
        if self.claims.iter().all(|claim| snapshot.volumes.users(&self.namespace, claim) == 0) {
            return Ok(());
        }
        Err(Refusal::crowded(IN_USE))
    }
}

fn helped_by(pod: &PodInfo, change: &Change, _: &Snapshot) -> bool {
    match change {
        Change::PodGone { pod: other, .. } => {
            other.namespace() == pod.namespace() && other.claims.iter().any(|c| pod.claims.contains(c))
        }
        _ => change.of_volumes(pod),
    }
}
