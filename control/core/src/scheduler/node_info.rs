//! A node and what its pods use.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};

use super::node_terms::NO_LABELS;
use super::pod_info::{HostPort, PodInfo};
use super::request::Request;
use super::topology::NodeId;

/// A node and what its pods use.
#[derive(Debug, Default)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// The node; absent while only pods bound to it are known.
    pub node: Option<Arc<Node>>,
    /// What it can give.
    pub allocatable: Request,
    /// How many pods it takes.
    pub max_pods: i64,
    /// What its pods ask for.
    pub used: Request,
    /// What they count as in scores.
    pub counted: Request,
    pub(super) id: NodeId,
    /// Its pods by UID.
    pub(super) pods: BTreeMap<Arc<str>, Arc<PodInfo>>,
    pub(super) ports: BTreeMap<HostPort, u32>,
    /// Images that it has, with their sizes in bytes.
    pub(super) images: BTreeMap<String, i64>,
    /// Whether it was cordoned.
    pub(super) unschedulable: bool,
    /// Taints that keep pods away.
    pub(super) blocking_taints: Vec<Taint>,
    /// Taints that pods had better avoid.
    pub(super) soft_taints: Vec<Taint>,
}

impl NodeInfo {
    /// How many pods it has.
    pub fn pod_count(&self) -> i64 {
        i64::try_from(self.pods.len()).unwrap_or(i64::MAX)
    }

    /// Its pods that a pod may end to make room for itself.
    pub(super) fn yielding_to(&self, pod: &PodInfo) -> impl Iterator<Item = &Arc<PodInfo>> {
        let (preempts, priority) = (pod.may_preempt(), pod.priority);
        self.pods.values().filter(move |p| preempts && p.priority < priority)
    }

    /// Its labels.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        self.node.as_ref().and_then(|n| n.metadata.labels.as_ref()).unwrap_or(&NO_LABELS)
    }

    /// Takes in what the node says of itself; what every decision asks is kept at hand.
    pub(super) fn become_node(&mut self, node: Option<Arc<Node>>) {
        let spec = node.as_ref().and_then(|n| n.spec.as_ref());
        let taints = |effects: &[&str]| -> Vec<Taint> {
            let all = spec.and_then(|s| s.taints.as_deref()).unwrap_or_default().iter();
            all.filter(|t| effects.contains(&t.effect.as_str())).cloned().collect()
        };
        self.unschedulable = spec.and_then(|s| s.unschedulable) == Some(true);
        self.blocking_taints = taints(&["NoSchedule", "NoExecute"]);
        self.soft_taints = taints(&["PreferNoSchedule"]);
        self.node = node;
    }

    pub(super) fn add(&mut self, pod: &Arc<PodInfo>) {
        self.used.add(&pod.request);
        self.counted.add(&pod.counted);
        for port in &pod.ports {
            *self.ports.entry(port.clone()).or_default() += 1;
        }
        self.pods.insert(pod.uid.clone(), pod.clone());
    }

    pub(super) fn remove(&mut self, pod: &PodInfo) {
        if self.pods.remove(&pod.uid).is_none() {
            return;
        }
        self.used.subtract(&pod.request);
        self.counted.subtract(&pod.counted);
        for port in &pod.ports {
            if let Some(count) = self.ports.get_mut(port) {
                *count -= 1;
                if *count == 0 {
                    self.ports.remove(port);
                }
            }
        }
    }
}
