//! Making room for a pod by ending pods that matter less: on the node where it costs least.
//! Source: <https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/>.

use std::cmp::Reverse;
use std::sync::Arc;

use super::cycle::{Cursor, Rules};
use super::pod_info::PodInfo;
use super::snapshot::{Budget, Snapshot};
use super::topology::NodeId;
use crate::controllers::meta;
use crate::controllers::pod;

/// The node cannot have the pod whoever goes.
pub(super) const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";
/// Those that could go do not suffice.
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
/// Nodes with victims that are compared: this share of all in percent...
const CANDIDATES_PERCENT: usize = 10;
/// ...and at least so many.
const LEAST_CANDIDATES: usize = 100;
/// The condition of pods that go for others, and its reason.
pub const DISRUPTION_TARGET: (&str, &str) = ("DisruptionTarget", "PreemptionByScheduler");

/// Pods that are to go so that a pod can be placed.
#[derive(Debug, Clone)]
pub struct Preemption {
    /// The node on which they are.
    pub node: String,
    /// Those that go, the most important first.
    pub victims: Vec<Arc<PodInfo>>,
    /// Less important pods for which room was kept on the node, and is no longer.
    pub withdrawn: Vec<Arc<PodInfo>>,
}

pub(super) enum Outcome {
    Found(Preemption),
    /// Others are going already.
    UnderWay(&'static str),
    /// Why nobody goes, for the message.
    Nothing(String),
}

struct Candidate {
    node: NodeId,
    victims: Vec<Arc<PodInfo>>,
    /// Victims that their budgets cannot spare.
    violations: usize,
}

impl Candidate {
    /// Less is better: violations, the most important victim, how important they are together, how many they are; then
    /// the node whose most important victims started latest.
    fn cost(&self) -> impl Ord + use<> {
        let highest = self.victims.iter().map(|v| v.priority).max().unwrap_or(i32::MIN);
        // Shifted, so that more victims of negative priority do not look better.
        let sum: i64 = self.victims.iter().map(|v| i64::from(v.priority) - i64::from(i32::MIN)).sum();
        let first = self.victims.iter().filter(|v| v.priority == highest).map(|v| v.started()).min();
        (self.violations, highest, sum, self.victims.len(), Reverse(first))
    }
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.`
pub(super) fn message(nodes: usize, reasons: &[(&str, usize)]) -> String {
    let mut parts: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    parts.sort();
    format!("0/{nodes} nodes are available: {}.", parts.join(", "))
}

/// Looks for the node on which ending pods makes room at the least cost. `resolvable` are the nodes where it may.
pub(super) fn preempt(
    pod: &Arc<PodInfo>,
    snapshot: &mut Snapshot,
    rules: &Rules,
    cursor: &Cursor,
    resolvable: &[NodeId],
    nodes: usize,
) -> Outcome {
    if !pod.may_preempt() {
        return Outcome::Nothing("not eligible due to preemptionPolicy=Never.".into());
    }
    if others_are_going(pod, snapshot) {
        return Outcome::UnderWay("not eligible due to a terminating pod on the nominated node.");
    }
    let enough = (nodes * CANDIDATES_PERCENT / 100).max(LEAST_CANDIDATES);
    let start = cursor.turn.checked_rem(resolvable.len()).unwrap_or(0);
    let (before, after) = resolvable.split_at(start);
    let mut candidates: Vec<Candidate> = Vec::new();
    // Where nobody matters less, no node need be looked at.
    let some = snapshot.has_lower(pod.priority);
    let budgets: Vec<Budget> = snapshot.budgets().filter(|_| some).cloned().collect();
    for node in after.iter().chain(before).filter(|_| some) {
        candidates.extend(victims(pod, snapshot, rules, &budgets, *node));
        if candidates.len() >= enough && candidates.iter().any(|c| c.violations == 0) {
            break;
        }
    }
    let Some(best) = candidates.into_iter().min_by_key(Candidate::cost) else {
        let mut reasons = Vec::new();
        if !resolvable.is_empty() {
            reasons.push((NO_VICTIMS, resolvable.len()));
        }
        if nodes > resolvable.len() {
            reasons.push((NOT_HELPFUL, nodes - resolvable.len()));
        }
        return Outcome::Nothing(message(nodes, &reasons));
    };
    let Some(name) = snapshot.info(best.node).map(|n| n.name.clone()) else {
        return Outcome::Nothing(message(nodes, &[(NOT_HELPFUL, nodes)]));
    };
    let less = |p: &&Arc<PodInfo>| p.priority < pod.priority;
    let withdrawn = snapshot.nominated_on(&name).iter().filter(less).cloned().collect();
    Outcome::Found(Preemption { node: name, victims: best.victims, withdrawn })
}

/// Whether pods that were ended for this one are still there.
fn others_are_going(pod: &PodInfo, snapshot: &Snapshot) -> bool {
    let named = snapshot.nomination(pod.uid()).and_then(|name| snapshot.node(name));
    let going = |v: &Arc<PodInfo>| {
        v.terminating
            && v.priority < pod.priority
            && pod::condition(&v.pod, DISRUPTION_TARGET.0)
                .is_some_and(|c| c.status == "True" && c.reason.as_deref() == Some(DISRUPTION_TARGET.1))
    };
    named.is_some_and(|node| node.pods.values().any(going))
}

/// The least that must go from a node: all pods that matter less are taken away, and put back one by one, the most
/// important first, as long as the pod still fits. The snapshot ends as it began.
fn victims(
    pod: &Arc<PodInfo>,
    snapshot: &mut Snapshot,
    rules: &Rules,
    budgets: &[Budget],
    node: NodeId,
) -> Option<Candidate> {
    let info = snapshot.info(node)?;
    let mut lower: Vec<Arc<PodInfo>> = info.pods.values().filter(|p| p.priority < pod.priority).cloned().collect();
    if lower.is_empty() {
        return None;
    }
    for p in &lower {
        snapshot.retract(p, node);
    }
    if rules.check(pod, snapshot, node).is_err() {
        for p in &lower {
            snapshot.suppose(p, node);
        }
        return None;
    }
    lower.sort_by_key(|p| (Reverse(p.priority), p.started(), p.uid.clone()));
    let (violating, spare) = by_budget(lower, budgets);
    let mut victims: Vec<Arc<PodInfo>> = Vec::new();
    let mut violations = 0;
    let first = violating.len();
    for (i, p) in violating.into_iter().chain(spare).enumerate() {
        snapshot.suppose(&p, node);
        if rules.check(pod, snapshot, node).is_err() {
            snapshot.retract(&p, node);
            violations += usize::from(i < first);
            victims.push(p);
        }
    }
    for p in &victims {
        snapshot.suppose(p, node);
    }
    victims.sort_by_key(|p| (Reverse(p.priority), p.started()));
    (!victims.is_empty()).then_some(Candidate { node, victims, violations })
}

/// Parts pods into those that their budgets cannot spare, were all to go, and the others.
fn by_budget(pods: Vec<Arc<PodInfo>>, budgets: &[Budget]) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut allowed: Vec<i64> = budgets.iter().map(|b| b.allowed).collect();
    pods.into_iter().partition(|p| {
        let mut violates = false;
        for (budget, allowed) in budgets.iter().zip(&mut allowed) {
            let guards = budget.namespace == p.namespace()
                && meta::selects(&budget.selector, &p.pod.metadata)
                && !budget.disrupted.contains(p.name());
            if guards {
                *allowed -= 1;
                violates |= *allowed < 0;
            }
        }
        violates
    })
}
