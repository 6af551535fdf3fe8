//! StatefulSet: pods with names that stay, made and replaced in the order of their ordinals.
//! Source: <https://kubernetes.io/docs/concepts/workloads/controllers/statefulset/>.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use copepod_api::{Gvr, LabelSelector};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec, StatefulSetStatus};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::backoff::Backoff;
use super::history::{self, LABEL_REVISION, Latest, Workload};
use super::meta::{self, HasMeta, text};
use super::pod;
use super::statefulset_pods::{self as pods, Retention};
use super::{Action, Plan, Propagation, Target};

/// The most pods created or deleted in one pass, as upstream's batches; the next pass goes on.
pub const MAX_BURST: usize = 500;

/// StatefulSets.
pub fn statefulsets() -> Gvr {
    meta::v1("apps", "statefulsets")
}

impl HasMeta for StatefulSet {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// What a set may have.
pub struct Observed<'a> {
    /// The pods that it may claim.
    pub pods: &'a [Arc<Pod>],
    /// The claims that have names of its pods' claims; others change nothing.
    pub claims: &'a [Arc<PersistentVolumeClaim>],
    /// The revisions that it may claim and those that have names which it needs.
    pub revisions: &'a [Arc<ControllerRevision>],
}

/// Decides for one StatefulSet. `failures` remembers how often its pods ended and were replaced.
pub fn reconcile(set: &StatefulSet, seen: &Observed<'_>, failures: &mut Backoff, now: Timestamp) -> Plan {
    let Some(spec) = &set.spec else { return Plan::nothing("no spec") };
    let selector = match LabelSelector::from_typed(Some(&spec.selector)) {
        Ok(selector) if !selector.is_empty() => selector,
        Ok(_) => return Plan::nothing("an empty selector selects nothing here"),
        Err(why) => return Plan::nothing(format!("invalid selector: {why}")),
    };
    let going = set.metadata.deletion_timestamp.is_some();
    let reference = meta::controller_ref("apps/v1", "StatefulSet", &set.metadata);
    let collisions = set.status.as_ref().and_then(|s| s.collision_count).unwrap_or(0);
    let workload = Workload {
        meta: &set.metadata,
        reference: &reference,
        selector: &selector,
        template: &spec.template,
        collisions,
        hash_label: "controller.kubernetes.io/hash",
    };
    let history = history::resolve(&workload, seen.revisions);
    let mut plan = Plan { confirm_owner: history.adopts, ..Plan::default() };
    let latest = match &history.latest {
        Latest::Known(known) => known.clone(),
        _ if going => return Plan::nothing("being deleted"),
        Latest::Missing(create) => {
            plan.actions.extend(history.actions.iter().chain([create]).cloned());
            plan.why = "a new template: its revision first".into();
            plan.requeue(Duration::ZERO);
            return plan;
        }
        Latest::Collides => {
            let mut status = set.status.clone().unwrap_or_default();
            status.collision_count = Some(collisions.saturating_add(1));
            plan.why = "the revision's name is taken: counting a collision".into();
            plan.status = meta::status_patch(statefulsets(), &set.metadata, set.status.as_ref(), &status);
            return plan;
        }
    };
    let current = set.status.as_ref().and_then(|s| s.current_revision.as_deref());
    let current = current.and_then(|name| history.named(name)).unwrap_or(&latest).clone();

    let name = text(&set.metadata.name);
    let members: Vec<Arc<Pod>> =
        seen.pods.iter().filter(|p| pods::ordinal(name, text(&p.metadata.name)).is_some()).cloned().collect();
    let claim = meta::claim(&set.metadata, &reference, &selector, &meta::pods(), &members);
    plan.confirm_owner |= claim.adopts;
    plan.actions.extend(history.actions.iter().cloned().chain(claim.actions));
    let start = spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0);
    let mut pass = Pass {
        set,
        spec,
        reference: &reference,
        now,
        ordered: spec.pod_management_policy.as_deref() != Some("Parallel"),
        range: start..start.saturating_add(spec.replicas.unwrap_or(1).max(0)),
        pods: claim
            .owned
            .iter()
            .filter_map(|p| Some((pods::ordinal(name, text(&p.metadata.name))?, p.clone())))
            .collect(),
        claims: seen.claims.iter().map(|c| (text(&c.metadata.name), c.as_ref())).collect(),
        current: &current,
        latest: &latest,
        changes: 0,
        plan,
    };
    if !going {
        failures.observe(set.metadata.generation);
        pass.run(failures);
        let named = |r: &ControllerRevision, name: &str| r.metadata.name.as_deref() == Some(name);
        pass.plan.actions.extend(history.excess(spec.revision_history_limit, |r| {
            let live = [&current, &latest].iter().any(|live| live.metadata.name == r.metadata.name);
            live || claim.owned.iter().any(|p| named(r, revision(p)))
        }));
    }
    let status = pass.status(collisions);
    pass.plan.status_observed = true;
    pass.plan.status = meta::status_patch(statefulsets(), &set.metadata, set.status.as_ref(), &status);
    pass.plan
}

/// The name of the revision that a pod is of.
fn revision(pod: &Pod) -> &str {
    pod.metadata.labels.as_ref().and_then(|l| l.get(LABEL_REVISION)).map_or("", String::as_str)
}

/// One pass over a set's ordinals.
struct Pass<'a> {
    set: &'a StatefulSet,
    spec: &'a StatefulSetSpec,
    reference: &'a OwnerReference,
    now: Timestamp,
    /// Whether each step waits for the one before.
    ordered: bool,
    /// The ordinals that there should be.
    range: Range<i32>,
    pods: BTreeMap<i32, Arc<Pod>>,
    claims: HashMap<&'a str, &'a PersistentVolumeClaim>,
    /// The revision before the present rollout.
    current: &'a ControllerRevision,
    /// The revision of the present template.
    latest: &'a ControllerRevision,
    /// Pods created and deleted so far.
    changes: usize,
    plan: Plan,
}

impl Pass<'_> {
    /// First the pods that should be there, then those that should not, then those of an old revision.
    fn run(&mut self, failures: &mut Backoff) {
        for ordinal in self.range.clone() {
            let waits = match self.pods.get(&ordinal).cloned() {
                Some(pod) => self.tend(ordinal, &pod, failures),
                None => self.create(ordinal),
            };
            if self.changes >= MAX_BURST || (waits && self.ordered) {
                return;
            }
        }
        if !self.scale_down() && self.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref()) != Some("OnDelete")
        {
            self.roll();
        }
    }

    /// Creates the pod of an ordinal, after its claims. Whether the next ordinal waits for it.
    fn create(&mut self, ordinal: i32) -> bool {
        let name = pods::pod_name(text(&self.set.metadata.name), ordinal);
        let retention = Retention::of(Some(self.spec));
        let stale = pods::claims_of(self.set, ordinal)
            .filter_map(|(claim, _)| self.claims.get(claim.as_str()).copied())
            .any(|c| c.metadata.deletion_timestamp.is_some() || retention.stale(c, &name));
        if stale {
            self.plan.why = format!("{name} waits until an old claim is gone");
            return true;
        }
        self.changes += 1;
        if self.create_claims(ordinal) {
            self.plan.why = format!("claims of {name}");
            self.plan.requeue(Duration::ZERO);
            return true;
        }
        let old = self.rolling_from().is_some_and(|first| ordinal < first);
        let revision = if old { self.current } else { self.latest };
        let template = history::template(revision).unwrap_or_else(|| self.spec.template.clone());
        let revision = text(&revision.metadata.name);
        self.plan.why = format!("creating {name}");
        self.plan.actions.push(pods::create_pod(self.set, self.reference, &template, revision, ordinal));
        true
    }

    /// Creates the claims that an ordinal lacks; whether there are such.
    fn create_claims(&mut self, ordinal: i32) -> bool {
        let missing = pods::claims_of(self.set, ordinal).filter(|(name, _)| !self.claims.contains_key(name.as_str()));
        let before = self.plan.actions.len();
        let creates = missing.map(|(name, template)| pods::create_claim(self.set, self.reference, &name, template));
        self.plan.actions.extend(creates);
        self.plan.actions.len() > before
    }

    /// Looks after a pod that should be there. Whether the next ordinal waits for it.
    fn tend(&mut self, ordinal: i32, pod: &Pod, failures: &mut Backoff) -> bool {
        let name = text(&pod.metadata.name);
        if pod::terminating(pod) {
            self.plan.why = format!("{name} is ending");
            return true;
        }
        if pod::terminal(pod) {
            match failures.replace(&ordinal.to_string(), self.now) {
                Ok(()) => self.delete(pod, "it ended"),
                Err(wait) => {
                    self.plan.why = format!("{name} ended again and waits for its replacement");
                    self.plan.requeue(wait);
                }
            }
            return true;
        }
        if !matches!(pod::phase(pod), "Running" | "Unknown") {
            self.create_claims(ordinal);
        }
        let available = self.available(pod);
        if available || !self.ordered {
            self.plan.actions.extend(pods::relabel(pod));
            self.own_claims(ordinal, pod, false);
        } else {
            self.plan.why = format!("{name} is not available yet");
        }
        !available
    }

    /// Gives the claims of a pod the owners that the retention policy asks for.
    fn own_claims(&mut self, ordinal: i32, pod: &Pod, condemned: bool) {
        let retention = Retention::of(Some(self.spec));
        for (name, _) in pods::claims_of(self.set, ordinal) {
            let claim = self.claims.get(name.as_str()).filter(|c| c.metadata.deletion_timestamp.is_none());
            self.plan.actions.extend(claim.and_then(|c| retention.own(c, self.reference, pod, condemned)));
        }
    }

    /// Ends pods whose ordinals are too many, the highest first. Whether the rollout waits for it.
    fn scale_down(&mut self) -> bool {
        let condemned: Vec<(i32, Arc<Pod>)> =
            self.pods.iter().rev().filter(|(n, _)| !self.range.contains(n)).map(|(n, p)| (*n, p.clone())).collect();
        for (ordinal, pod) in &condemned {
            self.own_claims(*ordinal, pod, true);
        }
        // What ended will never be available: nothing waits for it.
        let waits = |pass: &mut Self, p: &Pod| !pod::terminal(p) && !pass.available(p);
        let lowest_waiting = condemned.iter().rev().find(|(_, p)| waits(self, p)).map(|(n, _)| *n);
        for (ordinal, pod) in &condemned {
            if self.changes >= MAX_BURST {
                return true;
            }
            if pod::terminating(pod) {
                if self.ordered {
                    self.plan.why = format!("{} is ending", text(&pod.metadata.name));
                    return true;
                }
                continue;
            }
            if self.ordered && lowest_waiting != Some(*ordinal) && waits(self, pod) {
                self.plan.why = format!("{} is not available yet", text(&pod.metadata.name));
                return true;
            }
            self.delete(pod, "scaling down");
            if self.ordered {
                return true;
            }
        }
        false
    }

    /// The first ordinal that a rolling update changes; `None` under OnDelete.
    fn rolling_from(&self) -> Option<i32> {
        let strategy = self.spec.update_strategy.as_ref();
        if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
            return None;
        }
        let partition = strategy.and_then(|s| s.rolling_update.as_ref()?.partition).unwrap_or(0);
        Some(self.range.start.saturating_add(partition))
    }

    /// Ends pods of other revisions, as many as may be unavailable besides those that are and stay so: first those that
    /// are unavailable themselves, then the highest ordinals.
    fn roll(&mut self) {
        let Some(first) = self.rolling_from() else { return };
        let replicas = self.range.end.saturating_sub(self.range.start);
        let rolling = self.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
        let allowed = match rolling.and_then(|r| r.max_unavailable.as_ref()) {
            Some(value) => meta::scaled(Some(value), replicas, false).max(1),
            None => 1,
        };
        let old =
            |n: i32, p: &Pod| n >= first && pod::active(p) && self.latest.metadata.name.as_deref() != Some(revision(p));
        let (mut old, others): (Vec<_>, Vec<_>) =
            self.pods.range(self.range.clone()).map(|(n, p)| (*n, p.clone())).partition(|(n, p)| old(*n, p));
        let standing = old.len() + others.iter().filter(|(_, p)| self.stands(p)).count();
        let down = i64::from(replicas) - i64::try_from(standing).unwrap_or(i64::MAX);
        let room = usize::try_from(i64::from(allowed) - down).unwrap_or(0);
        old.sort_by_key(|(n, p)| (self.stands(p), self.available_in(p).is_some(), Reverse(*n)));
        for (_, pod) in old.into_iter().take(room.min(MAX_BURST.saturating_sub(self.changes))) {
            self.delete(&pod, "rolling update");
        }
    }

    fn delete(&mut self, pod: &Pod, why: &str) {
        let name = text(&pod.metadata.name);
        self.changes += 1;
        self.plan.why = format!("ending {name}: {why}");
        self.plan.actions.push(Action::Delete {
            target: Target::new(meta::pods(), text(&pod.metadata.namespace), name),
            propagation: Propagation::Background,
            uid: pod.metadata.uid.clone(),
            grace: None,
        });
    }

    /// How long until a pod is available; `None` if it is not running and ready, or ends.
    fn available_in(&self, pod: &Pod) -> Option<Duration> {
        let min_ready = self.spec.min_ready_seconds.unwrap_or(0);
        let running = pod::phase(pod) == "Running";
        pod::available_in(pod, min_ready, self.now).filter(|_| running)
    }

    /// Whether a pod has been ready for long enough.
    fn stands(&self, pod: &Pod) -> bool {
        !pod::terminating(pod) && self.available_in(pod).is_some_and(|wait| wait.is_zero())
    }

    /// Like [`Self::stands`]; asks to look again when it will.
    fn available(&mut self, pod: &Pod) -> bool {
        match self.available_in(pod).filter(|_| !pod::terminating(pod)) {
            Some(Duration::ZERO) => true,
            Some(wait) => {
                self.plan.requeue(wait);
                false
            }
            None => false,
        }
    }

    fn status(&mut self, collisions: i32) -> StatefulSetStatus {
        let all: Vec<Arc<Pod>> = self.pods.values().cloned().collect();
        let count = |pass: &Self, which: &dyn Fn(&Pass<'_>, &Pod) -> bool| {
            i32::try_from(all.iter().filter(|p| which(pass, p)).count()).unwrap_or(i32::MAX)
        };
        for pod in &all {
            // Asks to look again when it becomes available.
            self.available(pod);
        }
        let of =
            |p: &Pod, r: &ControllerRevision| !pod::terminating(p) && r.metadata.name.as_deref() == Some(revision(p));
        let mut status = StatefulSetStatus {
            replicas: count(self, &|_, _| true),
            ready_replicas: nonzero(count(self, &|s, p| s.available_in(p).is_some())),
            available_replicas: Some(count(self, &|s, p| s.available_in(p).is_some_and(|w| w.is_zero()))),
            current_replicas: nonzero(count(self, &|s, p| of(p, s.current))),
            updated_replicas: nonzero(count(self, &|s, p| of(p, s.latest))),
            current_revision: self.current.metadata.name.clone(),
            update_revision: self.latest.metadata.name.clone(),
            observed_generation: self.set.metadata.generation,
            collision_count: Some(collisions),
            conditions: self.set.status.as_ref().and_then(|s| s.conditions.clone()),
        };
        let wanted = self.range.end.saturating_sub(self.range.start);
        let complete =
            status.replicas == wanted && [status.updated_replicas, status.ready_replicas] == [nonzero(wanted); 2];
        if self.rolling_from().is_some() && complete {
            status.current_revision.clone_from(&status.update_revision);
            status.current_replicas = status.updated_replicas;
        }
        status
    }
}

/// A count as the API keeps it: absent when it is zero.
fn nonzero(count: i32) -> Option<i32> {
    (count != 0).then_some(count)
}

#[cfg(test)]
#[path = "statefulset_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "statefulset_sim.rs"]
mod sim;
