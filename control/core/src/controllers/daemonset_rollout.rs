//! The rolling update of a DaemonSet, node by node.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSetSpec;
use k8s_openapi::api::core::v1::Pod;

use super::daemonset::{Place, up_to_date};
use super::meta;
use super::pod;

/// What a rolling update changes now.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Nodes that get a new pod beside the old one.
    pub create_on: Vec<String>,
    /// Old pods that end.
    pub delete: Vec<Arc<Pod>>,
}

/// How many nodes may be without an available pod, and how many may have a second one, during a rolling update of
/// `desired` nodes. Where rounding leaves neither, one may be unavailable.
pub(super) fn limits(spec: &DaemonSetSpec, desired: usize) -> (usize, usize) {
    let rolling = spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    let total = i32::try_from(desired).unwrap_or(i32::MAX);
    let count = |value| usize::try_from(meta::scaled(value, total, true)).unwrap_or(0);
    let Some(rolling) = rolling else { return (1, 0) };
    let surge = count(rolling.max_surge.as_ref());
    let unavailable = match &rolling.max_unavailable {
        None => 1,
        value => count(value.as_ref()),
    };
    if unavailable == 0 && surge == 0 { (1, 0) } else { (unavailable, surge) }
}

/// Decides the next step over the nodes that should run a pod.
pub(super) fn step(spec: &DaemonSetSpec, places: &[Place<'_>], hash: &str, now: Timestamp) -> Step {
    let should_run = || places.iter().filter(|p| p.fit.should_run);
    let (unavailable, surge) = limits(spec, should_run().count());
    let min_ready = spec.min_ready_seconds.unwrap_or(0);
    let available = |p: &Pod| pod::available_in(p, min_ready, now).is_some_and(|wait| wait.is_zero());
    let mut step = Step::default();
    // What may be changed only within the limit, and how much of the limit is used.
    let mut candidates: Vec<(&str, &Arc<Pod>)> = Vec::new();
    let mut used = 0;
    for place in should_run() {
        let Some((new, old)) = new_and_old(&place.pods, hash) else {
            used += 1;
            continue;
        };
        match (new, old) {
            // Without a surge there is never a second pod: the node is between two pods.
            (None, None) | (Some(_), Some(_)) if surge == 0 => used += 1,
            (Some(new), None) if surge == 0 => used += usize::from(!available(new)),
            (None, Some(old)) if surge == 0 => {
                if available(old) {
                    candidates.push((place.node, old));
                } else {
                    used += 1;
                    step.delete.push(old.clone());
                }
            }
            (None, Some(old)) => {
                if available(old) {
                    candidates.push((place.node, old));
                } else {
                    step.create_on.push(place.node.into());
                }
            }
            (Some(new), Some(old)) => {
                if available(new) {
                    step.delete.push(old.clone());
                } else {
                    used += 1;
                }
            }
            (_, None) => {}
        }
    }
    let room = if surge == 0 { unavailable } else { surge }.saturating_sub(used);
    for (node, old) in candidates.into_iter().take(room) {
        if surge == 0 {
            step.delete.push(old.clone());
        } else {
            step.create_on.push(node.into());
        }
    }
    step
}

/// A pod, if there is one.
type Found<'a> = Option<&'a Arc<Pod>>;

/// The pods of a node that do not end, of the present template and of another; `None` if there are several of one.
fn new_and_old<'a>(pods: &'a [Arc<Pod>], hash: &str) -> Option<(Found<'a>, Found<'a>)> {
    let (mut new, mut old) = (None, None);
    for pod in pods.iter().filter(|p| !pod::terminating(p)) {
        let slot = if up_to_date(pod, hash) { &mut new } else { &mut old };
        if slot.replace(pod).is_some() {
            return None;
        }
    }
    Some((new, old))
}
