//! The cluster and the pods that wait, and what decisions and changes do to both.

use std::time::Duration;

use super::change::Change;
use super::cycle::{Cursor, Decision, schedule};
use super::profile::Profile;
use super::queue::{Next, Queue};
use super::snapshot::Snapshot;

/// All that the scheduler keeps between decisions. Times count from any fixed moment.
#[derive(Default)]
pub struct State {
    /// The cluster.
    pub snapshot: Snapshot,
    /// Pods without a node.
    pub queue: Queue,
    cursor: Cursor,
}

impl State {
    /// Decides about a pod, and takes the decision in at once. None for a pod that has its node already.
    pub fn decide(&mut self, next: &Next, profile: &Profile, now: Duration) -> Option<Decision> {
        let pod = &next.pod;
        let Self { snapshot, queue, cursor } = &mut *self;
        if snapshot.is_placed(pod.uid()) {
            queue.remove(pod.uid(), now);
            return None;
        }
        let decision = schedule(pod, snapshot, profile, cursor);
        match &decision {
            Decision::Bind(node) => {
                snapshot.assume(pod, node);
                queue.pass_on(pod.uid(), now);
            }
            Decision::BindClaims { node, steps } => {
                snapshot.nominate(pod, node);
                snapshot.volumes.reserve(pod.namespace(), steps);
                queue.unschedulable(pod.uid(), Snapshot::claims_refused(), None, now);
            }
            Decision::Unschedulable(failure) => {
                if let Some(preemption) = &failure.preemption {
                    for other in &preemption.withdrawn {
                        snapshot.withdraw(other.uid());
                        queue.failed(other.uid(), now);
                    }
                    // Being nominated it is of a kind of its own: others of its former kind come next, and may preempt as well.
                    snapshot.nominate(pod, &preemption.node);
                }
                queue.unschedulable(pod.uid(), failure.refused_by, failure.needs.as_ref(), now);
                if failure.preemption.is_none()
                    && !failure.waits_for_room
                    && let Some(node) = snapshot.withdraw(pod.uid())
                {
                    self.tell(&Change::PodGone { pod: pod.clone(), node }, now);
                }
            }
        }
        Some(decision)
    }

    /// Wakes pods that a change may help, which was taken into the snapshot.
    pub fn tell(&mut self, change: &Change, now: Duration) {
        let Self { snapshot, queue, .. } = self;
        queue.wake(now, |pod, refused_by| {
            let helped = refused_by.helped_by(pod, change, snapshot);
            helped.then(|| change.settles(pod, snapshot))
        });
    }
}
