//! DaemonSet: one pod on every node that it is for.
//! Source: <https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/>.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use copepod_api::{Gvr, LabelSelector};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec, DaemonSetStatus};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::backoff::Backoff;
use super::daemonset_nodes::{Daemon, Fit, node_of};
use super::daemonset_rollout as rollout;
use super::history::{self, LABEL_REVISION, Latest, Workload};
use super::meta::{self, HasMeta, text};
use super::{Action, Plan, Propagation, Target, pod};

/// The most pods created, and the most deleted, in one pass, as upstream's burst; the next pass goes on.
pub const MAX_BURST: usize = 250;

/// DaemonSets.
pub fn daemonsets() -> Gvr {
    meta::v1("apps", "daemonsets")
}

impl HasMeta for DaemonSet {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// Decides for one DaemonSet. `pods` and `revisions` are those that it may claim, and revisions that have names which it
/// needs; `failures` remembers how often its pods ended and were replaced.
pub fn reconcile(
    set: &DaemonSet,
    pods: &[Arc<Pod>],
    nodes: &[Arc<Node>],
    revisions: &[Arc<ControllerRevision>],
    failures: &mut Backoff,
    now: Timestamp,
) -> Plan {
    let Some(spec) = &set.spec else { return Plan::nothing("no spec") };
    let selector = match LabelSelector::from_typed(Some(&spec.selector)) {
        Ok(selector) if !selector.is_empty() => selector,
        _ => {
            let mut plan = Plan::nothing("the selector selects all pods or none");
            plan.warn(
                "SelectingAll",
                "This daemon set is selecting all pods. A non-empty selector is required.".into(),
            );
            return plan;
        }
    };
    if set.metadata.deletion_timestamp.is_some() {
        return Plan::nothing("being deleted");
    }
    let reference = meta::controller_ref("apps/v1", "DaemonSet", &set.metadata);
    let collisions = set.status.as_ref().and_then(|s| s.collision_count);
    let workload = Workload {
        meta: &set.metadata,
        reference: &reference,
        selector: &selector,
        template: &spec.template,
        collisions: collisions.unwrap_or(0),
        hash_label: LABEL_REVISION,
    };
    let history = history::resolve(&workload, revisions);
    let mut plan = Plan { confirm_owner: history.adopts, ..Plan::default() };
    let latest = match &history.latest {
        Latest::Known(known) => known.clone(),
        Latest::Missing(create) => {
            plan.actions.extend(history.actions.iter().chain([create]).cloned());
            plan.why = "a new template: its revision first".into();
            plan.requeue(Duration::ZERO);
            return plan;
        }
        Latest::Collides => {
            let mut status = set.status.clone().unwrap_or_default();
            status.collision_count = Some(collisions.unwrap_or(0).saturating_add(1));
            plan.why = "the revision's name is taken: counting a collision".into();
            plan.status = meta::status_patch(daemonsets(), &set.metadata, set.status.as_ref(), &status);
            return plan;
        }
    };
    let claim = meta::claim(&set.metadata, &reference, &selector, &meta::pods(), pods);
    plan.confirm_owner |= claim.adopts;
    plan.actions.extend(history.actions.iter().cloned().chain(claim.actions));

    let daemon = Daemon::of(set);
    let (places, homeless) = places(&daemon, nodes, &claim.owned);
    let hash = hash(&latest);
    failures.observe(set.metadata.generation);
    let mut pass = Pass { set, spec, reference: &reference, daemon: &daemon, hash, now, plan, creates: 0, deletes: 0 };
    pass.manage(&places, &homeless, failures);
    let rolling = spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) != Some("OnDelete");
    if rolling && pass.creates + pass.deletes == 0 {
        // What is under way counts: the next step waits until it is seen.
        let step = rollout::step(spec, &places, hash, now);
        step.delete.iter().for_each(|p| pass.delete(p));
        step.create_on.iter().for_each(|node| pass.create(node));
    }
    let status = pass.status(&places, collisions);
    let mut plan = pass.plan;
    let live = |r: &ControllerRevision| {
        r.metadata.name == latest.metadata.name || claim.owned.iter().any(|p| up_to_date(p, self::hash(r)))
    };
    plan.actions.extend(history.excess(spec.revision_history_limit, live));
    plan.status_observed = true;
    plan.status = meta::status_patch(daemonsets(), &set.metadata, set.status.as_ref(), &status);
    plan
}

/// A revision's hash, as its pods' label has it.
fn hash(revision: &ControllerRevision) -> &str {
    let label = revision.metadata.labels.as_ref().and_then(|l| l.get(LABEL_REVISION));
    label.map_or_else(|| text(&revision.metadata.name), String::as_str)
}

/// Whether a pod is of the revision with this hash.
pub(super) fn up_to_date(pod: &Pod, hash: &str) -> bool {
    pod.metadata.labels.as_ref().and_then(|l| l.get(LABEL_REVISION)).is_some_and(|label| label == hash)
}

/// A node and the set's pods on it or meant for it, the first to be kept first.
pub(super) struct Place<'a> {
    pub node: &'a str,
    pub fit: Fit,
    pub pods: Vec<Arc<Pod>>,
}

/// All nodes with their pods, and the pods of nodes that are no more.
fn places<'a>(daemon: &Daemon, nodes: &'a [Arc<Node>], pods: &[Arc<Pod>]) -> (Vec<Place<'a>>, Vec<Arc<Pod>>) {
    let mut by_node: BTreeMap<&str, Vec<Arc<Pod>>> = BTreeMap::new();
    for pod in pods {
        if let Some(node) = node_of(pod) {
            by_node.entry(node).or_default().push(pod.clone());
        }
    }
    let age = |p: &Pod| p.metadata.creation_timestamp.as_ref().map(|t| t.0);
    let mut places = Vec::with_capacity(nodes.len());
    for node in nodes {
        let name = text(&node.metadata.name);
        let mut pods = by_node.remove(name).unwrap_or_default();
        pods.sort_by_key(|p| (pod::node_name(p).is_empty(), age(p), p.metadata.name.clone()));
        places.push(Place { node: name, fit: daemon.fit(node), pods });
    }
    (places, by_node.into_values().flatten().collect())
}

struct Pass<'a> {
    set: &'a DaemonSet,
    spec: &'a DaemonSetSpec,
    reference: &'a OwnerReference,
    daemon: &'a Daemon,
    /// Hash of the present template's revision.
    hash: &'a str,
    now: Timestamp,
    plan: Plan,
    creates: usize,
    deletes: usize,
}

impl Pass<'_> {
    /// Makes and ends pods so that each node has what it should, whatever their revision.
    fn manage(&mut self, places: &[Place<'_>], homeless: &[Arc<Pod>], failures: &mut Backoff) {
        for place in places {
            if place.fit.should_run && place.pods.is_empty() {
                self.create(place.node);
            } else if place.fit.may_stay {
                self.tidy(place, failures);
            } else {
                place.pods.iter().filter(|p| !pod::terminating(p)).for_each(|p| self.delete(p));
            }
        }
        // Nobody else ends a pod that waits for a node which is no more.
        let waits = |p: &&Arc<Pod>| pod::node_name(p).is_empty() && !pod::terminating(p);
        homeless.iter().filter(waits).for_each(|p| self.delete(p));
    }

    /// Ends what ended by itself and what is too much on a node.
    fn tidy(&mut self, place: &Place<'_>, failures: &mut Backoff) {
        let mut running: Vec<&Arc<Pod>> = Vec::new();
        for pod in place.pods.iter().filter(|p| !pod::terminating(p)) {
            if pod::terminal(pod) {
                self.replace(place.node, pod, failures);
            } else {
                running.push(pod);
            }
        }
        // Of several of a kind the one that serves stays, whichever is the older.
        running.sort_by_key(|p| self.available_in(p) != Some(Duration::ZERO));
        let (_, surge) = rollout::limits(self.spec, usize::MAX);
        if surge == 0 {
            running.iter().skip(1).for_each(|p| self.delete(p));
            return;
        }
        if running.is_empty() && place.fit.should_run && place.pods.iter().all(|p| pod::terminating(p)) {
            self.create(place.node);
        }
        if running.len() < 2 {
            return;
        }
        let (new, old): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) = running.into_iter().partition(|p| up_to_date(p, self.hash));
        new.iter().chain(&old).filter(|p| ![new.first(), old.first()].contains(&Some(*p))).for_each(|p| self.delete(p));
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!pod::ready(old) || self.available_in(new) == Some(Duration::ZERO))
        {
            self.delete(old);
        }
    }

    /// Ends a pod that ended by itself, so that another is made; not too often.
    fn replace(&mut self, node: &str, pod: &Pod, failures: &mut Backoff) {
        if let Err(wait) = failures.replace(node, self.now) {
            self.plan.requeue(wait);
            return;
        }
        let name = format!("{}/{}", text(&pod.metadata.namespace), text(&pod.metadata.name));
        if pod::phase(pod) == "Failed" {
            let message = format!("Found failed daemon pod {name} on node {node}, will try to kill it");
            self.plan.warn("FailedDaemonPod", message);
        } else {
            let message = format!("Found succeeded daemon pod {name} on node {node}, will try to delete it");
            self.plan.note("SucceededDaemonPod", message);
        }
        self.delete(pod);
    }

    fn create(&mut self, node: &str) {
        if self.creates < MAX_BURST {
            self.creates += 1;
            self.plan.actions.push(self.daemon.create(self.set, self.reference, self.hash, node));
            self.plan.why = format!("creating pods for {} nodes, {node} the last", self.creates);
        }
    }

    fn delete(&mut self, pod: &Pod) {
        if self.deletes < MAX_BURST {
            self.deletes += 1;
            self.plan.actions.push(Action::Delete {
                target: Target::new(meta::pods(), text(&pod.metadata.namespace), text(&pod.metadata.name)),
                propagation: Propagation::Background,
                uid: pod.metadata.uid.clone(),
                grace: None,
            });
            self.plan.why = format!("ending {} pods, {} the last", self.deletes, text(&pod.metadata.name));
        }
    }

    fn available_in(&self, pod: &Pod) -> Option<Duration> {
        pod::available_in(pod, self.spec.min_ready_seconds.unwrap_or(0), self.now)
    }

    fn status(&mut self, places: &[Place<'_>], collisions: Option<i32>) -> DaemonSetStatus {
        let mut status = DaemonSetStatus {
            observed_generation: self.set.metadata.generation,
            collision_count: collisions,
            conditions: self.set.status.as_ref().and_then(|s| s.conditions.clone()),
            ..DaemonSetStatus::default()
        };
        let (mut updated, mut available) = (0, 0);
        for place in places {
            // Of several pods the oldest counts, as upstream has it.
            let first = place.pods.first();
            if !place.fit.should_run {
                status.number_misscheduled += i32::from(first.is_some());
                continue;
            }
            status.desired_number_scheduled += 1;
            let Some(first) = first else { continue };
            status.current_number_scheduled += 1;
            status.number_ready += i32::from(pod::ready(first));
            updated += i32::from(up_to_date(first, self.hash));
            available += i32::from(self.available_in(first) == Some(Duration::ZERO));
            let soonest = place.pods.iter().filter_map(|p| self.available_in(p)).filter(|wait| !wait.is_zero()).min();
            if let Some(wait) = soonest {
                self.plan.requeue(wait);
            }
        }
        let nonzero = |n: i32| (n != 0).then_some(n);
        status.updated_number_scheduled = nonzero(updated);
        status.number_available = nonzero(available);
        status.number_unavailable = nonzero(status.desired_number_scheduled - available);
        status
    }
}

#[cfg(test)]
#[path = "daemonset_tests.rs"]
mod tests;
