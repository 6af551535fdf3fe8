//! Rules that a node must meet. Each is one file with a `FILTER`, and one line in [`ALL`]; cheap ones come first, and
//! the first that refuses a node names the reason. For each pod a rule is prepared once; one that does not concern the
//! pod costs its nodes nothing.

mod inter_pod;
mod node_affinity;
mod node_name;
mod ports;
mod resources;
mod spread;
mod taints;
mod unschedulable;
mod volume_binding;
mod volume_limits;
mod volume_restrictions;
mod volume_zone;

use std::borrow::Cow;
use std::sync::Arc;

use super::change::Change;
use super::node_info::NodeInfo;
use super::pod_info::PodInfo;
use super::snapshot::Snapshot;
pub(super) use volume_binding::{claims_settled, steps as claim_steps};

/// The rules, in the order in which nodes are asked.
pub(super) const ALL: [&Filter; 12] = [
    &unschedulable::FILTER,
    &node_name::FILTER,
    &taints::FILTER,
    &node_affinity::FILTER,
    &ports::FILTER,
    &resources::FILTER,
    &volume_restrictions::FILTER,
    &volume_limits::FILTER,
    &volume_binding::FILTER,
    &volume_zone::FILTER,
    &spread::FILTER,
    &inter_pod::FILTER,
];

/// One rule.
pub(super) struct Filter {
    /// Its name, as upstream's configuration calls it.
    pub name: &'static str,
    /// Works out what the rule means for a pod.
    pub prepare: fn(&Arc<PodInfo>, &mut Snapshot) -> Prepared,
    /// Whether a change may help a pod that the rule refused somewhere.
    pub helped_by: fn(&PodInfo, &Change, &Snapshot) -> bool,
}

/// What a rule means for a pod.
pub(super) enum Prepared {
    /// It does not concern the pod.
    Skip,
    /// Each node must pass.
    Check(Box<dyn Check>),
    /// Each node must pass, and only these can.
    Only(Vec<String>, Box<dyn Check>),
    /// No node can pass, for this reason.
    Never(String),
}

/// A rule prepared for a pod. It holds numbers of counts, not counts: it stays true while pods come and go.
pub(super) trait Check {
    /// Whether the node may have the pod.
    fn check(&self, snapshot: &Snapshot, node: &NodeInfo) -> Result<(), Refusal>;
}

/// Why a node may not have a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub reason: Cow<'static, str>,
    /// Further reasons.
    pub more: Vec<Cow<'static, str>>,
    /// Whether it would help to end pods of the node.
    pub resolvable: bool,
}

impl Refusal {
    /// A reason that ending pods may take away.
    pub fn crowded(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: reason.into(), more: Vec::new(), resolvable: true }
    }
    /// A reason that stands whichever pods are there.
    pub fn lasting(reason: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: reason.into(), more: Vec::new(), resolvable: false }
    }
    pub fn reasons(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&*self.reason).chain(self.more.iter().map(|r| &**r))
    }
}

#[cfg(test)]
mod tests;
