//! A pod's claims are bound to volumes that the node reaches, or can be bound to such.

use std::sync::Arc;

use super::{Check, Filter, Prepared, Refusal};
use crate::controllers::meta;
use crate::scheduler::change::Change;
use crate::scheduler::node_info::NodeInfo;
use crate::scheduler::pod_info::PodInfo;
use crate::scheduler::snapshot::Snapshot;
use crate::scheduler::volumes::{ClaimStep, SELECTED_NODE, Standing, has_room, makes_for, reaches};

const UNREACHED: &str = "node(s) didn't match PersistentVolume's node affinity";
const NONE_TO_BIND: &str = "node(s) didn't find available persistent volumes to bind";
const NO_ROOM: &str = "node(s) did not have enough free storage";
const LOST: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";

pub(super) const FILTER: Filter = Filter { name: "VolumeBinding", prepare, helped_by };

struct Bindable(Arc<PodInfo>);

fn prepare(pod: &Arc<PodInfo>, snapshot: &mut Snapshot) -> Prepared {
    if pod.claims.is_empty() {
        return Prepared::Skip;
    }
    for name in &pod.claims {
        match snapshot.volumes.standing(pod.namespace(), name) {
            Standing::Missing => return Prepared::Never(format!("persistentvolumeclaim {name:?} not found")),
            Standing::Deleting => return Prepared::Never(format!("persistentvolumeclaim {name:?} is being deleted")),
            Standing::Immediate => return Prepared::Never("pod has unbound immediate PersistentVolumeClaims".into()),
            Standing::Lost | Standing::Bound(_) | Standing::Settling(_) | Standing::Waits(..) => {}
        }
    }
    Prepared::Check(Box::new(Bindable(pod.clone())))
}

impl Check for Bindable {
    fn check(&self, snapshot: &Snapshot, node: &NodeInfo) -> Result<(), Refusal> {
        steps(&self.0, snapshot, node).map(drop)
    }
}

/// What must be written so that the pod's claims come to be bound for the node; nothing if they are bound.
pub(in crate::scheduler) fn steps(
    pod: &PodInfo,
    snapshot: &Snapshot,
    node: &NodeInfo,
) -> Result<Vec<ClaimStep>, Refusal> {
    let mut steps = Vec::new();
    let mut taken: Vec<String> = Vec::new();
    for name in &pod.claims {
        match snapshot.volumes.standing(pod.namespace(), name) {
            Standing::Bound(volume) if reaches(volume, node) => {}
            Standing::Settling(volume) if reaches(volume, node) => steps.push(ClaimStep::Await { claim: name.clone() }),
            Standing::Bound(_) | Standing::Settling(_) => return Err(Refusal::lasting(UNREACHED)),
            Standing::Waits(claim, class) => {
                let selected = claim.metadata.annotations.as_ref().and_then(|a| a.get(SELECTED_NODE));
                if let Some(volume) = snapshot.volumes.find(claim, node, &taken) {
                    let volume_name = meta::text(&volume.metadata.name).to_string();
                    let kept = volume.spec.as_ref().is_some_and(|s| s.claim_ref.is_some());
                    steps.push(if kept {
                        ClaimStep::Await { claim: name.clone() }
                    } else {
                        ClaimStep::Reserve {
                            claim: name.clone(),
                            volume: volume_name.clone(),
                            uid: volume.metadata.uid.clone(),
                            revision: volume.metadata.resource_version.clone(),
                        }
                    });
                    taken.push(volume_name);
                } else if !makes_for(class, node) {
                    return Err(Refusal::lasting(NONE_TO_BIND));
                } else if !has_room(class, claim, node) {
                    return Err(Refusal::lasting(NO_ROOM));
                } else if selected.is_some_and(|s| *s == node.name) {
                    steps.push(ClaimStep::Await { claim: name.clone() });
                } else {
                    steps.push(ClaimStep::Provision { claim: name.clone(), node: node.name.clone() });
                }
            }
            Standing::Lost => return Err(Refusal::lasting(LOST)),
            Standing::Missing | Standing::Deleting | Standing::Immediate => {
                return Err(Refusal::lasting(NONE_TO_BIND));
            }
        }
    }
    Ok(steps)
}

fn helped_by(pod: &PodInfo, change: &Change, snapshot: &Snapshot) -> bool {
    if change.of_volumes(pod) {
        return claims_settled(pod, snapshot) != Some(false);
    }
    change.node(snapshot).is_some()
}

/// Whether a pod's claims are bound for the node where room is kept for it: `Some(false)` while a binder or provisioner
/// is at it, `None` if there is no such node or something is to be written first.
pub(in crate::scheduler) fn claims_settled(pod: &PodInfo, snapshot: &Snapshot) -> Option<bool> {
    let node = snapshot.node(snapshot.nomination(pod.uid())?)?;
    let steps = steps(pod, snapshot, node).ok()?;
    let under_way = steps.iter().any(|step| matches!(step, ClaimStep::Await { .. }));
    (under_way || steps.is_empty()).then_some(!under_way)
}
