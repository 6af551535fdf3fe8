//! Which of the nodes that can take a pod is the best: the least allocated, away from its siblings.

use super::filter::Needs;
use super::snapshot::NodeInfo;

/// The greatest score of one criterion.
const MAX: i64 = 100;
/// Spreading a controller's pods counts this many times as much as free resources.
const SPREAD_WEIGHT: i64 = 2;
/// What a container without requests counts as, so that such pods are spread by number: 0.1 CPU and 200 MB, as upstream.
const LEAST_CPU_MILLI: i64 = 100;
const LEAST_MEMORY: i64 = 200 * 1024 * 1024;

/// The node's score for the pod; more is better.
pub(super) fn score(needs: &Needs<'_>, info: &NodeInfo) -> i64 {
    let pods = info.pods + 1;
    let cpu = free(
        info.allocatable.cpu_milli,
        (info.used.cpu_milli + needs.request.cpu_milli).max(pods.saturating_mul(LEAST_CPU_MILLI)),
    );
    let memory =
        free(info.allocatable.memory, (info.used.memory + needs.request.memory).max(pods.saturating_mul(LEAST_MEMORY)));
    let siblings = needs.owner.and_then(|owner| info.by_owner.get(owner)).copied().unwrap_or(0);
    let spread = MAX / (siblings + 1);
    (cpu + memory) / 2 + spread * SPREAD_WEIGHT
}

/// How much is left of what there is, from 0 to [`MAX`].
fn free(have: i64, used: i64) -> i64 {
    if have <= 0 || used >= have { 0 } else { (have - used).saturating_mul(MAX) / have }
}
