//! Pods for which room is being made, and on which node.

use std::collections::HashMap;
use std::sync::Arc;

use super::pod_info::PodInfo;

/// Pods for which room is kept.
#[derive(Debug, Default)]
pub(super) struct Nominated {
    nodes: HashMap<Arc<str>, String>,
    pods: HashMap<String, Vec<Arc<PodInfo>>>,
}

impl Nominated {
    /// Keeps room for a pod for which none is kept.
    pub fn add(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.nodes.insert(pod.uid.clone(), node.to_string());
        self.pods.entry(node.to_string()).or_default().push(pod.clone());
    }

    /// Keeps no more room for a pod. Returns the node where it was kept.
    pub fn remove(&mut self, uid: &str) -> Option<String> {
        let node = self.nodes.remove(uid)?;
        if let Some(pods) = self.pods.get_mut(&node) {
            pods.retain(|p| &*p.uid != uid);
            if pods.is_empty() {
                self.pods.remove(&node);
            }
        }
        Some(node)
    }

    /// Where room is kept for a pod.
    pub fn node_of(&self, uid: &str) -> Option<&str> {
        self.nodes.get(uid).map(String::as_str)
    }

    /// The pods for which room is kept on a node.
    pub fn on(&self, node: &str) -> &[Arc<PodInfo>] {
        if self.pods.is_empty() {
            return &[];
        }
        self.pods.get(node).map(Vec::as_slice).unwrap_or_default()
    }
}
