//! What happened in the cluster, as far as it may help pods that wait.

use std::sync::Arc;

use super::filters::claims_settled;
use super::node_info::NodeInfo;
use super::pod_info::PodInfo;
use super::snapshot::Snapshot;

/// A change that was taken into the snapshot already.
#[derive(Debug, Clone)]
pub enum Change {
    /// A node is new, or gives, is labelled or is tainted otherwise than before.
    Node(String),
    /// A node is gone.
    NodeGone,
    /// A pod is on a node, or its labels changed there.
    PodPlaced(Arc<PodInfo>),
    /// A pod is no longer on a node, or no room is kept for it there any more.
    PodGone {
        /// The pod.
        pod: Arc<PodInfo>,
        /// The node.
        node: String,
    },
    /// A claim changed.
    Claim {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A volume, a storage class or a node's drivers changed.
    Volume,
    /// A namespace's labels changed.
    Namespace,
}

impl Change {
    /// Whether a pod for which room is kept may be tried at once: that room was made, or its claims are bound.
    pub fn settles(&self, pod: &PodInfo, snapshot: &Snapshot) -> bool {
        match self {
            Self::PodGone { node, .. } => snapshot.nomination(pod.uid()) == Some(node),
            Self::Volume | Self::Claim { .. } => claims_settled(pod, snapshot) == Some(true),
            _ => false,
        }
    }

    /// Whether it is of volumes that the pod may use.
    pub(super) fn of_volumes(&self, pod: &PodInfo) -> bool {
        match self {
            Self::Volume => true,
            Self::Claim { namespace, name } => pod.namespace() == namespace && pod.claims.contains(name),
            _ => false,
        }
    }

    /// The node that changed.
    pub(super) fn node<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a NodeInfo> {
        match self {
            Self::Node(name) => snapshot.node(name),
            _ => None,
        }
    }

    /// The node that may have more room than before.
    pub(super) fn roomier<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a NodeInfo> {
        match self {
            Self::Node(name) | Self::PodGone { node: name, .. } => snapshot.node(name),
            _ => None,
        }
    }
}
