//! The annotation by which nodes know how long they may keep Secrets and ConfigMaps without asking again: the longer,
//! the more nodes there are.
//! Source: <https://kubernetes.io/docs/reference/labels-annotations-taints/#node-alpha-kubernetes-io-ttl>.

use k8s_openapi::api::core::v1::Node;
use serde_json::json;

use super::meta::{self, text};
use super::{Action, Plan, Target};

/// The annotation, in seconds.
pub const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";

/// Upstream's steps: the least and the most nodes, and the seconds. They overlap, so that one node more or less does not
/// change all the others.
const STEPS: [(usize, usize, u32); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

/// Where a cluster stands among the steps; starts at the lowest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Level(usize);

impl Level {
    /// Where it stands once it has so many nodes.
    pub fn after(mut self, nodes: usize) -> Self {
        let step = |level: Self| STEPS.get(level.0).copied().unwrap_or((0, usize::MAX, 0));
        while nodes > step(self).1 {
            self.0 += 1;
        }
        while nodes < step(self).0 {
            self.0 -= 1;
        }
        self
    }

    fn seconds(self) -> u32 {
        STEPS.get(self.0).map_or(0, |(_, _, seconds)| *seconds)
    }
}

/// Decides for one node.
pub fn reconcile(node: &Node, level: Level) -> Plan {
    let seconds = level.seconds().to_string();
    let mut plan = Plan::nothing("in sync");
    let standing = node.metadata.annotations.as_ref().and_then(|a| a.get(ANNOTATION));
    if node.metadata.deletion_timestamp.is_none() && standing != Some(&seconds) {
        plan.why = format!("nodes may keep things for {seconds} s");
        plan.actions.push(Action::Patch {
            target: Target::new(meta::v1("", "nodes"), "", text(&node.metadata.name)),
            subresource: "",
            patch: json!({"metadata": {"uid": node.metadata.uid, "annotations": {ANNOTATION: seconds}}}),
        });
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::super::testing::yaml;
    use super::*;

    #[test]
    fn levels_rise_and_fall_with_the_nodes() {
        let mut level = Level::default();
        for (nodes, seconds) in [
            (1, 0),
            (100, 0),
            (101, 15),
            (95, 15),
            (89, 0),
            (10_000, 300),
            (1_800, 300),
            (1_799, 60),
            (899, 30),
            (0, 0),
        ] {
            level = level.after(nodes);
            assert_eq!(level.seconds(), seconds, "{nodes}");
        }
    }

    #[test]
    fn only_what_differs_is_written() {
        let node = |annotations: &str| yaml::<Node>(&format!("metadata: {{name: n1, annotations: {annotations}}}"));
        let level = Level::default();
        assert!(reconcile(&node("{node.alpha.kubernetes.io/ttl: '0'}"), level).is_empty());
        for annotations in ["{}", "{node.alpha.kubernetes.io/ttl: '15'}"] {
            let plan = reconcile(&node(annotations), level);
            let [Action::Patch { patch, .. }] = plan.actions.as_slice() else { panic!("{plan:?}") };
            assert_eq!(patch["metadata"]["annotations"], json!({ANNOTATION: "0"}));
        }
    }
}
