//! Keeps the snapshot and the queue as the caches are, and wakes pods that a change may help.

use std::sync::Arc;

use copepod_client::Change as Seen;
use copepod_core::controllers::{meta, pod};
use copepod_core::scheduler::{Change, PodInfo, State, writes};
use k8s_openapi::api::core::v1::{Node, Pod};

use super::Scheduler;

impl Scheduler {
    /// Follows all caches from now on.
    pub(super) fn follow(self: &Arc<Self>) {
        let caches = self.context.caches.clone();
        let s = self.clone();
        caches.namespaces.on_change(move |change| {
            let Some(last) = change.last() else { return };
            let name = meta::text(&last.metadata.name);
            let relabelled =
                change.old.as_ref().map(|n| &n.metadata.labels) != change.new.as_ref().map(|n| &n.metadata.labels);
            if relabelled || change.new.is_none() {
                s.took(|state| {
                    state.snapshot.set_namespace(name, change.new.as_deref());
                    Some(Change::Namespace)
                });
            }
        });
        let s = self.clone();
        caches.nodes.on_change(move |change| s.node_changed(change));
        let s = self.clone();
        caches.pods.on_change(move |change| s.pod_changed(change.old.as_ref(), change.new.as_ref()));
        let s = self.clone();
        caches.budgets.on_change(move |change| {
            let Some(last) = change.last() else { return };
            let mut state = s.state.lock();
            match &change.new {
                Some(budget) => state.snapshot.set_budget(budget),
                None => {
                    state.snapshot.remove_budget(meta::text(&last.metadata.namespace), meta::text(&last.metadata.name))
                }
            }
        });
        let s = self.clone();
        caches.claims.on_change(move |change| {
            let Some(last) = change.last() else { return };
            let (namespace, name) = (meta::text(&last.metadata.namespace), meta::text(&last.metadata.name));
            s.took(|state| {
                state.snapshot.volumes.set_claim(namespace, name, change.new.clone());
                Some(Change::Claim { namespace: namespace.into(), name: name.into() })
            });
        });
        let s = self.clone();
        caches.volumes.on_change(move |change| {
            let Some(last) = change.last() else { return };
            s.took(|state| {
                state.snapshot.volumes.set_volume(meta::text(&last.metadata.name), change.new.clone());
                Some(Change::Volume)
            });
        });
        let s = self.clone();
        caches.storage_classes.on_change(move |change| {
            let Some(last) = change.last() else { return };
            s.took(|state| {
                state.snapshot.volumes.set_class(meta::text(&last.metadata.name), change.new.clone());
                Some(Change::Volume)
            });
        });
        let s = self.clone();
        caches.csi_nodes.on_change(move |change| {
            let Some(last) = change.last() else { return };
            s.took(|state| {
                state.snapshot.volumes.set_drivers(meta::text(&last.metadata.name), change.new.clone());
                Some(Change::Volume)
            });
        });
    }

    /// Takes something in and wakes whom it may help.
    pub(super) fn took(&self, take: impl FnOnce(&mut State) -> Option<Change>) {
        let mut state = self.state.lock();
        if let Some(change) = take(&mut state) {
            state.tell(&change, self.now());
        }
        drop(state);
        self.wake.notify_one();
    }

    fn node_changed(&self, change: &Seen<Node>) {
        let Some(last) = change.last() else { return };
        let name = meta::text(&last.metadata.name);
        self.took(|state| {
            let Some(node) = &change.new else {
                state.snapshot.remove_node(name);
                return Some(Change::NodeGone);
            };
            let same = change.old.as_ref().is_some_and(|old| same_for_pods(old, node));
            state.snapshot.set_node(node.clone());
            (!same).then(|| Change::Node(name.to_string()))
        });
    }

    fn pod_changed(&self, old: Option<&Arc<Pod>>, new: Option<&Arc<Pod>>) {
        if let (Some(old), Some(new)) = (old, new)
            && old.metadata.uid != new.metadata.uid
        {
            self.pod_gone(old);
        }
        let Some(new) = new else {
            old.into_iter().for_each(|old| self.pod_gone(old));
            return;
        };
        if pod::terminal(new) || (pod::node_name(new).is_empty() && !writes::is_unplaced(new)) {
            self.pod_gone(new);
            return;
        }
        if old.is_some_and(|old| old.metadata.uid == new.metadata.uid && same_for_nodes(old, new)) {
            return;
        }
        let info = PodInfo::of(new.clone());
        self.took(|state| {
            let before = state.snapshot.placed(info.uid()).cloned();
            if pod::node_name(new).is_empty() {
                if before.is_none() && self.profile(&info).is_some() {
                    state.queue.set(info.clone(), self.now());
                }
                // What the status says counts when it is first seen and when it changes: after a restart, room is kept as
                // it was.
                let nominated = info.nominated_node();
                let said = old.filter(|old| old.metadata.uid == new.metadata.uid);
                let said = said.and_then(|old| old.status.as_ref()?.nominated_node_name.as_deref()).unwrap_or_default();
                if before.is_none() && !nominated.is_empty() && nominated != said {
                    state.snapshot.nominate(&info, nominated);
                }
                state.snapshot.set_pod(&info);
                return None;
            }
            state.queue.remove(info.uid(), self.now());
            state.snapshot.set_pod(&info);
            if let Some(before) = before.as_ref().filter(|before| before.labels() != info.labels()) {
                // As it was, it is gone for those that look at labels.
                let gone = Change::PodGone { pod: before.clone(), node: pod::node_name(new).into() };
                state.tell(&gone, self.now());
            }
            match before {
                // It may ask for less than before.
                Some(before) if before.request != info.request => Some(Change::Node(pod::node_name(new).into())),
                _ => Some(Change::PodPlaced(info.clone())),
            }
        });
    }

    fn pod_gone(&self, pod: &Arc<Pod>) {
        let uid = meta::text(&pod.metadata.uid);
        self.took(|state| {
            state.queue.remove(uid, self.now());
            let before = state.snapshot.placed(uid).cloned();
            let node = state.snapshot.forget_pod(uid)?;
            Some(Change::PodGone { pod: before.unwrap_or_else(|| PodInfo::of(pod.clone())), node })
        });
    }
}

/// Whether a change of a pod changes nothing that decisions look at: most are of the status of a running pod.
fn same_for_nodes(old: &Pod, new: &Pod) -> bool {
    let start = |pod: &Pod| pod.status.as_ref().and_then(|s| s.start_time.clone());
    let nominated = |pod: &Pod| pod.status.as_ref().and_then(|s| s.nominated_node_name.clone());
    let bound = !pod::node_name(new).is_empty();
    let meta = (&old.metadata, &new.metadata);
    bound
        && old.spec == new.spec
        && meta.0.labels == meta.1.labels
        && meta.0.deletion_timestamp == meta.1.deletion_timestamp
        && meta.0.owner_references == meta.1.owner_references
        && start(old) == start(new)
        && nominated(old) == nominated(new)
        && pod::terminal(old) == pod::terminal(new)
}

/// Whether a change of a node changes nothing that decisions look at, such as its heartbeat.
fn same_for_pods(old: &Node, new: &Node) -> bool {
    let allocatable = |node: &Node| node.status.as_ref().and_then(|s| s.allocatable.clone());
    old.spec == new.spec && old.metadata.labels == new.metadata.labels && allocatable(old) == allocatable(new)
}
