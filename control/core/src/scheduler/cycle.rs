//! One decision: filters, then scores, then, if nothing fits, preemption.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::filters::{self, Check, Filter, Prepared, Refusal};
use super::pod_info::PodInfo;
use super::preemption::{self, Outcome, Preemption};
use super::profile::Profile;
use super::scores;
use super::snapshot::Snapshot;
use super::topology::NodeId;
use super::volumes::ClaimStep;
use super::work::steps;

/// Kinds of pods that fit nowhere of which is kept why, until something changes.
const MAX_FAILURES: usize = 64;

/// What the scheduler decided about a pod.
#[derive(Debug)]
pub enum Decision {
    /// Bind it to this node.
    Bind(String),
    /// Keep room for it on this node until these steps have led to bound claims; then decide again.
    BindClaims {
        /// The node.
        node: String,
        /// What is to be written.
        steps: Vec<ClaimStep>,
    },
    /// No node takes it.
    Unschedulable(Failure),
}

/// Why no node takes a pod.
#[derive(Debug, Clone)]
pub struct Failure {
    /// In upstream's words.
    pub message: String,
    /// The rules that refused it, to know which changes may help.
    pub refused_by: RefusedBy,
    /// Pods that are to go so that the pod can be placed.
    pub preemption: Option<Preemption>,
    /// Whether room is being made for it already.
    pub waits_for_room: bool,
    /// Equal for pods that fit the same nodes, of which one try tells about all; none for a pod whose place is its own
    /// matter.
    pub needs: Option<Arc<str>>,
}

/// A set of rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RefusedBy(u32);

impl RefusedBy {
    /// The rule of this name.
    pub(super) fn by(name: &str) -> Self {
        let mut set = Self::default();
        filters::ALL.iter().position(|f| f.name == name).into_iter().for_each(|i| set.add(i));
        set
    }
    fn add(&mut self, filter: usize) {
        self.0 |= 1 << filter;
    }
    /// Whether a change that was taken into the snapshot may help a pod. One that no rule refused, such as when there
    /// were no nodes, is helped by any.
    pub fn helped_by(self, pod: &PodInfo, change: &super::Change, snapshot: &Snapshot) -> bool {
        let refused = |(i, _): &(usize, &&Filter)| self.0 & (1 << i) != 0;
        self.0 == 0
            || filters::ALL.iter().enumerate().filter(refused).any(|(_, f)| (f.helped_by)(pod, change, snapshot))
    }
}

/// Where decisions go on: which node is looked at first, and which of equal ones is taken.
#[derive(Debug, Clone, Default)]
pub struct Cursor {
    start: usize,
    pub(super) turn: usize,
    /// What was found lately of pods that fit nowhere, by their needs...
    failures: HashMap<Arc<str>, Failure>,
    /// ...as long as the snapshot is of this version.
    failures_of: u64,
}

impl Cursor {
    /// What was found of pods that fit the same nodes, if nothing has changed since.
    fn known(&self, pod: &PodInfo, snapshot: &Snapshot) -> Option<Failure> {
        if self.failures.is_empty() || self.failures_of != snapshot.version() {
            return None;
        }
        // A pod for which room is kept is another matter: it may have that room.
        snapshot.nomination(pod.uid()).is_none().then(|| self.failures.get(&pod.needs()?).cloned())?
    }

    fn learn(&mut self, failure: &Failure, snapshot: &Snapshot) {
        if self.failures_of != snapshot.version() || self.failures.len() >= MAX_FAILURES {
            self.failures.clear();
            self.failures_of = snapshot.version();
        }
        if let Some(needs) = &failure.needs {
            self.failures.insert(needs.clone(), failure.clone());
        }
    }
}

/// The rules prepared for a pod.
pub(super) struct Rules {
    checks: Vec<(usize, Box<dyn Check>)>,
    only: Option<Vec<String>>,
}

impl Rules {
    /// Prepares all rules.
    ///
    /// # Errors
    /// The rule by which no node can have the pod, and why.
    pub fn of(pod: &Arc<PodInfo>, snapshot: &mut Snapshot, profile: &Profile) -> Result<Self, (usize, String)> {
        let mut rules = Self { checks: Vec::new(), only: None };
        for (i, filter) in filters::ALL.iter().enumerate() {
            if !profile.filters(filter.name) {
                continue;
            }
            match (filter.prepare)(pod, snapshot) {
                Prepared::Skip => {}
                Prepared::Check(check) => rules.checks.push((i, check)),
                Prepared::Only(names, check) => {
                    rules.only = Some(names);
                    rules.checks.push((i, check));
                }
                Prepared::Never(why) => return Err((i, why)),
            }
        }
        Ok(rules)
    }

    fn plain(&self, snapshot: &Snapshot, id: NodeId) -> Result<(), (usize, Refusal)> {
        let Some(node) = snapshot.info(id) else { return Err((0, Refusal::lasting("node(s) not found"))) };
        self.checks.iter().try_for_each(|(i, check)| check.check(snapshot, node).map_err(|refusal| (*i, refusal)))
    }

    /// Whether a node may have the pod: as it is, and with the pods for which room is kept there that matter no less.
    pub fn check(&self, pod: &PodInfo, snapshot: &mut Snapshot, id: NodeId) -> Result<(), (usize, Refusal)> {
        snapshot.index.work.asked += 1;
        self.plain(snapshot, id)?;
        let Some(node) = snapshot.info(id) else { return Ok(()) };
        let expected = snapshot.nominated_on(&node.name);
        if expected.is_empty() {
            return Ok(());
        }
        let expected: Vec<Arc<PodInfo>> =
            expected.iter().filter(|p| p.priority >= pod.priority && p.uid != pod.uid).cloned().collect();
        if expected.is_empty() {
            return Ok(());
        }
        expected.iter().for_each(|p| snapshot.suppose(p, id));
        let with = self.plain(snapshot, id);
        expected.iter().for_each(|p| snapshot.retract(p, id));
        with
    }
}

/// Decides where a pod goes.
pub fn schedule(pod: &Arc<PodInfo>, snapshot: &mut Snapshot, profile: &Profile, cursor: &mut Cursor) -> Decision {
    snapshot.index.sweep();
    cursor.turn = cursor.turn.wrapping_add(1);
    if let Some(failure) = cursor.known(pod, snapshot) {
        return Decision::Unschedulable(failure);
    }
    let order = snapshot.order();
    let rules = match Rules::of(pod, snapshot, profile) {
        _ if order.is_empty() => return nowhere(pod),
        Ok(rules) => rules,
        Err((filter, why)) => {
            let mut refused_by = RefusedBy::default();
            refused_by.add(filter);
            let preemption = preemption::message(order.len(), &[(preemption::NOT_HELPFUL, order.len())]);
            let message = format!("0/{} nodes are available: {why}. preemption: {preemption}", order.len());
            return none(pod, message, refused_by);
        }
    };
    // The node on which room was made comes first.
    if let Some(id) = snapshot.nomination(&pod.uid).and_then(|name| snapshot.node(name)).map(|node| node.id)
        && rules.check(pod, snapshot, id).is_ok()
    {
        return place(pod, snapshot, id);
    }
    let mut refused: Vec<(NodeId, usize, Refusal)> = Vec::new();
    let feasible = find(pod, snapshot, profile, cursor, &rules, &order, &mut refused);
    if feasible.is_empty() {
        return explain(pod, snapshot, profile, cursor, &rules, order.len(), refused);
    }
    let best = match feasible.as_slice() {
        [one] => *one,
        several => {
            snapshot.index.work.scored += steps(several.len());
            let totals = scores::total(pod, snapshot, profile, several);
            let most = totals.iter().copied().max().unwrap_or(0);
            let equal: Vec<NodeId> =
                several.iter().zip(&totals).filter(|(_, t)| **t == most).map(|(id, _)| *id).collect();
            match equal.get(cursor.turn.wrapping_sub(1).checked_rem(equal.len()).unwrap_or(0)) {
                Some(id) => *id,
                None => return nowhere(pod),
            }
        }
    };
    place(pod, snapshot, best)
}

/// Finds feasible nodes until there are enough, going on where the last decision stopped.
fn find(
    pod: &PodInfo,
    snapshot: &mut Snapshot,
    profile: &Profile,
    cursor: &mut Cursor,
    rules: &Rules,
    order: &[NodeId],
    refused: &mut Vec<(NodeId, usize, Refusal)>,
) -> Vec<NodeId> {
    let mut feasible = Vec::new();
    if let Some(names) = &rules.only {
        for name in names {
            let Some(id) = snapshot.node(name).map(|node| node.id) else { continue };
            match rules.check(pod, snapshot, id) {
                Ok(()) => feasible.push(id),
                Err((filter, refusal)) => refused.push((id, filter, refusal)),
            }
        }
        return feasible;
    }
    let enough = profile.enough(order.len());
    let start = cursor.start.checked_rem(order.len()).unwrap_or(0);
    let (before, after) = order.split_at(start);
    let mut asked = 0;
    for id in after.iter().chain(before) {
        asked += 1;
        match rules.check(pod, snapshot, *id) {
            Ok(()) => feasible.push(*id),
            // Once there is a node, nobody asks why others are none.
            Err((filter, refusal)) if feasible.is_empty() => refused.push((*id, filter, refusal)),
            Err(_) => {}
        }
        if feasible.len() >= enough {
            break;
        }
    }
    // When all were looked at, the next decision begins with the same.
    cursor.start = (start + asked).checked_rem(order.len()).unwrap_or(0);
    feasible
}

fn place(pod: &PodInfo, snapshot: &Snapshot, id: NodeId) -> Decision {
    let Some(node) = snapshot.info(id) else { return nowhere(pod) };
    let steps = filters::claim_steps(pod, snapshot, node).unwrap_or_default();
    let node = node.name.clone();
    if steps.is_empty() { Decision::Bind(node) } else { Decision::BindClaims { node, steps } }
}

fn nowhere(pod: &PodInfo) -> Decision {
    none(pod, "no nodes available to schedule pods".into(), RefusedBy::default())
}

fn none(pod: &PodInfo, message: String, refused_by: RefusedBy) -> Decision {
    let (preemption, waits_for_room, needs) = (None, false, pod.needs());
    Decision::Unschedulable(Failure { message, refused_by, preemption, waits_for_room, needs })
}

/// `0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable. preemption: ...`
fn explain(
    pod: &Arc<PodInfo>,
    snapshot: &mut Snapshot,
    profile: &Profile,
    cursor: &mut Cursor,
    rules: &Rules,
    nodes: usize,
    refused: Vec<(NodeId, usize, Refusal)>,
) -> Decision {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    let mut refused_by = RefusedBy::default();
    for (_, filter, refusal) in &refused {
        refused_by.add(*filter);
        for reason in refusal.reasons() {
            *reasons.entry(reason).or_default() += 1;
        }
    }
    let unasked = nodes.saturating_sub(refused.len());
    if unasked > 0 {
        refused_by.0 |= RefusedBy::by("NodeAffinity").0;
        *reasons.entry("node(s) didn't satisfy plugin(s) [NodeAffinity]").or_default() += unasked;
    }
    let counted: Vec<(&str, usize)> = reasons.into_iter().collect();
    let mut message = preemption::message(nodes, &counted);
    let (mut found, mut waits_for_room) = (None, false);
    if profile.preempts {
        let resolvable: Vec<NodeId> = refused.iter().filter(|(_, _, r)| r.resolvable).map(|(id, _, _)| *id).collect();
        let outcome = preemption::preempt(pod, snapshot, rules, cursor, &resolvable, nodes);
        match outcome {
            Outcome::Found(preemption) => found = Some(preemption),
            Outcome::UnderWay(why) => {
                waits_for_room = true;
                message.push_str(&format!(" preemption: {why}"));
            }
            Outcome::Nothing(why) => message.push_str(&format!(" preemption: {why}")),
        }
    }
    let alone = found.is_some() || waits_for_room;
    let needs = if alone { None } else { pod.needs() };
    let failure = Failure { message, refused_by, preemption: found, waits_for_room, needs };
    cursor.learn(&failure, snapshot);
    Decision::Unschedulable(failure)
}
