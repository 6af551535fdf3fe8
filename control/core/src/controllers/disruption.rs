//! PodDisruptionBudget: how many of its pods may be evicted now.
//! Source: <https://kubernetes.io/docs/tasks/run-application/configure-pdb/>.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use copepod_api::LabelSelector;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::job_status::demand_revision;
use super::meta::{self, text};
use super::{Plan, pod};

/// How long an evicted pod may stay undeleted before it counts as not evicted after all.
pub const DELETION_TIMEOUT: Duration = Duration::from_secs(120);
/// The condition that tells whether evictions are allowed.
const ALLOWED: &str = "DisruptionAllowed";

/// A controller that can be scaled: its UID and the pods it is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scale {
    /// UID of the object with `spec.replicas`: a Deployment's rather than its ReplicaSet's.
    pub uid: String,
    /// `spec.replicas`.
    pub replicas: i32,
}

/// Decides for one budget. `pods` are those of its namespace that it selects, others change nothing; `scale_of` finds what
/// scales a pod's controller.
pub fn reconcile(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    scale_of: impl Fn(&OwnerReference) -> Option<Scale>,
    now: Timestamp,
) -> Plan {
    let mut plan = Plan::default();
    let status = match count(budget, pods, scale_of) {
        Ok(counts) => {
            let disrupted = disrupted(budget, pods, &counts.selector, now, &mut plan);
            if counts.unmanaged {
                let selector = meta::value(&budget.spec.as_ref().and_then(|s| s.selector.as_ref()));
                plan.warn(
                    "UnmanagedPods",
                    format!(
                        "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As a \
                         result, the status of the PDB cannot be calculated correctly, which may result in undefined \
                         behavior. To account for these pods please set \".spec.minAvailable\" field of the PDB to an \
                         integer value."
                    ),
                );
            }
            if counts.selected == 0 {
                plan.note("NoPods", "No matching pods found".into());
            }
            counted(budget, pods, &counts, disrupted, now)
        }
        Err(why) => {
            plan.warn(
                "CalculateExpectedPodCountFailed",
                format!("Failed to calculate the number of expected pods: {why}"),
            );
            failed(budget, &why, now)
        }
    };
    plan.status = meta::status_patch(
        meta::v1("policy", "poddisruptionbudgets"),
        &budget.metadata,
        budget.status.as_ref(),
        &status,
    );
    // An eviction that was allowed meanwhile counts.
    demand_revision(plan.status.as_mut(), text(&budget.metadata.resource_version));
    if plan.status.is_none() {
        // Told once, with the status that came of it.
        plan.notes.clear();
    }
    plan.why = format!("{} disruptions allowed", status.disruptions_allowed.unwrap_or(0));
    plan
}

struct Counts {
    selector: LabelSelector,
    selected: usize,
    expected: i32,
    desired: i32,
    /// Whether pods that nobody controls were left out.
    unmanaged: bool,
}

fn count(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    scale_of: impl Fn(&OwnerReference) -> Option<Scale>,
) -> Result<Counts, String> {
    let spec = budget.spec.clone().unwrap_or_default();
    let selector = LabelSelector::from_typed(spec.selector.as_ref()).map_err(|e| format!("invalid selector: {e}"))?;
    let selected: Vec<&Arc<Pod>> =
        pods.iter().filter(|p| spec.selector.is_some() && meta::selects(&selector, &p.metadata)).collect();
    let scaled = |round: Option<&IntOrString>, total| meta::scaled(round, total, true);
    let mut unmanaged = false;
    let mut expected = || {
        unmanaged = selected.iter().any(|p| meta::controller_of(&p.metadata).is_none());
        scaled_to(&selected, &scale_of)
    };
    let (expected, desired) = match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let expected = expected()?;
            (expected, (expected - scaled(Some(most), expected)).max(0))
        }
        (None, Some(IntOrString::Int(least))) => (i32::try_from(selected.len()).unwrap_or(i32::MAX), *least),
        (None, Some(least)) => {
            let expected = expected()?;
            (expected, scaled(Some(least), expected))
        }
        (None, None) => (0, 0),
    };
    Ok(Counts { selector, selected: selected.len(), expected, desired, unmanaged })
}

/// The pods that the controllers of these pods are to have together; pods that nobody controls do not count.
fn scaled_to(pods: &[&Arc<Pod>], scale_of: &impl Fn(&OwnerReference) -> Option<Scale>) -> Result<i32, String> {
    let mut scales: HashMap<String, i32> = HashMap::new();
    for owner in pods.iter().filter_map(|p| meta::controller_of(&p.metadata)) {
        let scale = scale_of(owner)
            .ok_or_else(|| format!("{} {:?} does not implement the scale subresource", owner.kind, owner.name))?;
        scales.insert(scale.uid, scale.replicas);
    }
    Ok(scales.into_values().fold(0, i32::saturating_add))
}

/// The evictions that were allowed and whose pods still stand. Pods that it no longer selects do not count.
fn disrupted(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    selector: &LabelSelector,
    now: Timestamp,
    plan: &mut Plan,
) -> BTreeMap<String, Time> {
    let noted = budget.status.as_ref().and_then(|s| s.disrupted_pods.clone()).unwrap_or_default();
    let guarded = pods.iter().filter(|p| meta::selects(selector, &p.metadata) && !pod::terminating(p));
    let guarded: HashSet<&str> = guarded.map(|p| text(&p.metadata.name)).collect();
    let standing = |name: &str| guarded.contains(name);
    noted
        .into_iter()
        .filter(|(name, since)| {
            let left =
                since.0.as_second().saturating_add_unsigned(DELETION_TIMEOUT.as_secs()).saturating_sub(now.as_second());
            let counts = standing(name) && left > 0;
            if counts {
                plan.requeue(Duration::from_secs(left.unsigned_abs()));
            } else if standing(name) {
                plan.warn("NotDeleted", format!("Pod was expected by PDB to be deleted but it wasn't: {name}"));
            }
            counts
        })
        .collect()
}

fn counted(
    budget: &PodDisruptionBudget,
    pods: &[Arc<Pod>],
    counts: &Counts,
    disrupted: BTreeMap<String, Time>,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let healthy = pods.iter().filter(|p| {
        meta::selects(&counts.selector, &p.metadata)
            && !pod::terminating(p)
            && pod::ready(p)
            && !disrupted.contains_key(text(&p.metadata.name))
    });
    let healthy = if counts.selected == 0 { 0 } else { i32::try_from(healthy.count()).unwrap_or(i32::MAX) };
    let allowed = if counts.expected > 0 { (healthy - counts.desired).max(0) } else { 0 };
    let (status, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
    PodDisruptionBudgetStatus {
        conditions: Some(conditions(budget, status, reason, "", now)),
        current_healthy: Some(healthy),
        desired_healthy: Some(counts.desired),
        disrupted_pods: Some(disrupted).filter(|d| !d.is_empty()),
        disruptions_allowed: Some(allowed),
        expected_pods: Some(counts.expected),
        observed_generation: budget.metadata.generation,
    }
}

/// Fail safe: no evictions while the number of pods is not known.
fn failed(budget: &PodDisruptionBudget, why: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    let before = budget.status.clone().unwrap_or_default();
    PodDisruptionBudgetStatus {
        conditions: Some(conditions(budget, "False", "SyncFailed", why, now)),
        disruptions_allowed: Some(0),
        observed_generation: budget.metadata.generation,
        ..before
    }
}

fn conditions(
    budget: &PodDisruptionBudget,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> Vec<Condition> {
    let mut all = budget.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
    let standing = all.iter().find(|c| c.type_ == ALLOWED && c.status == status);
    let condition = Condition {
        type_: ALLOWED.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        observed_generation: budget.metadata.generation,
        last_transition_time: standing.map_or(Time(now), |c| c.last_transition_time.clone()),
    };
    all.retain(|c| c.type_ != ALLOWED);
    all.push(condition);
    all
}

#[cfg(test)]
mod tests {
    use super::super::Action;
    use super::super::testing::*;
    use super::*;

    fn budget(spec: &str, status: &str) -> PodDisruptionBudget {
        yaml(&format!(
            "metadata: {{name: b, namespace: shop, uid: b, generation: 3}}\nspec: {{selector: {{matchLabels: {{app: a}}}}, {spec}}}\nstatus: {status}"
        ))
    }

    /// `ready` and `unready` pods of one ReplicaSet.
    fn pods(ready: usize, unready: usize) -> Vec<Arc<Pod>> {
        let owner = "labels: {app: a}, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: r, uid: r, controller: true}]";
        let one = |n: usize, since| {
            let mut pod = pod_yaml(&format!("p{n}"), owner);
            pod.status = Some(pod_status("Running", since));
            Arc::new(pod)
        };
        (0..ready).map(|n| one(n, Some(-9))).chain((ready..ready + unready).map(|n| one(n, None))).collect()
    }

    fn scale(replicas: i32) -> impl Fn(&OwnerReference) -> Option<Scale> {
        move |owner| (owner.kind == "ReplicaSet").then(|| Scale { uid: owner.uid.clone(), replicas })
    }

    fn status(plan: &Plan) -> serde_json::Value {
        match &plan.status {
            Some(Action::Patch { patch, subresource: "status", .. }) => patch["status"].clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn how_many_may_go() {
        // (spec, ready, unready, replicas, healthy, desired, expected, allowed)
        for (spec, ready, unready, replicas, healthy, desired, expected, allowed) in [
            ("minAvailable: 2", 3, 0, 3, 3, 2, 3, 1),
            ("minAvailable: 2", 2, 1, 3, 2, 2, 3, 0),
            ("minAvailable: 5", 3, 0, 3, 3, 5, 3, 0),
            ("minAvailable: 50%", 3, 0, 3, 3, 2, 3, 1),
            ("minAvailable: 50%", 2, 0, 5, 2, 3, 5, 0),
            ("maxUnavailable: 1", 3, 0, 3, 3, 2, 3, 1),
            ("maxUnavailable: 1", 2, 1, 3, 2, 2, 3, 0),
            ("maxUnavailable: 30%", 10, 0, 10, 10, 7, 10, 3),
            ("maxUnavailable: 34%", 3, 0, 3, 3, 1, 3, 2),
            ("maxUnavailable: 100%", 2, 0, 2, 2, 0, 2, 2),
            ("maxUnavailable: 9", 2, 0, 2, 2, 0, 2, 2),
            ("minAvailable: 0", 1, 0, 1, 1, 0, 1, 1),
        ] {
            let got = status(&reconcile(&budget(spec, "{}"), &pods(ready, unready), scale(replicas), now()));
            let of = |field: &str| got[field].as_i64().unwrap_or(0);
            assert_eq!(
                (of("currentHealthy"), of("desiredHealthy"), of("expectedPods"), of("disruptionsAllowed")),
                (healthy, desired, expected, allowed),
                "{spec}: {ready} ready, {unready} not, {replicas} wanted"
            );
            let reason = if allowed > 0 { "SufficientPods" } else { "InsufficientPods" };
            assert_eq!(got["conditions"][0]["reason"], reason, "{spec}");
            assert_eq!(got["observedGeneration"], 3);
        }
    }

    #[test]
    fn nothing_to_guard_allows_nothing() {
        let plan = reconcile(&budget("minAvailable: 0", "{}"), &[], scale(0), now());
        assert_eq!(status(&plan)["conditions"][0]["status"], "False");
        assert_eq!(plan.notes[0].reason, "NoPods");
    }

    #[test]
    fn evictions_under_way_count_until_their_pod_goes() {
        let noted = |age: i64| {
            format!("{{observedGeneration: 3, disruptionsAllowed: 0, disruptedPods: {{p0: '{}'}}}}", at(-age))
        };
        let three = pods(3, 0);
        let fresh = reconcile(&budget("minAvailable: 1", &noted(10)), &three, scale(3), now());
        let got = status(&fresh);
        assert_eq!((&got["currentHealthy"], &got["disruptionsAllowed"]), (&2.into(), &1.into()));
        assert_eq!(fresh.requeue_after, Some(Duration::from_secs(110)));
        let late = reconcile(&budget("minAvailable: 1", &noted(121)), &three, scale(3), now());
        assert_eq!((status(&late)["currentHealthy"].as_i64(), late.notes[0].reason), (Some(3), "NotDeleted"));
        let gone = reconcile(&budget("minAvailable: 1", &noted(10)), &three[1..], scale(3), now());
        assert_eq!(status(&gone)["currentHealthy"], 2);
        assert!(status(&gone)["disruptedPods"].is_null());
        // One that is no longer selected does not count, whether or not it is among those given.
        let mut left = pods(3, 0);
        Arc::make_mut(&mut left[0]).metadata.labels = None;
        for some in [&left[..], &left[1..]] {
            let plan = reconcile(&budget("minAvailable: 1", &noted(10)), some, scale(3), now());
            let got = status(&plan);
            assert_eq!((&got["currentHealthy"], &got["expectedPods"]), (&2.into(), &2.into()));
            assert!(got["disruptedPods"].is_null() && plan.requeue_after.is_none(), "{plan:?}");
        }
    }

    #[test]
    fn pods_without_a_scale_block_percentages() {
        let plan = reconcile(&budget("maxUnavailable: 1", "{disruptionsAllowed: 4}"), &pods(1, 0), |_| None, now());
        let got = status(&plan);
        assert_eq!((&got["disruptionsAllowed"], &got["conditions"][0]["reason"]), (&0.into(), &"SyncFailed".into()));
        assert!(plan.notes[0].warning && plan.notes[0].message.contains("does not implement the scale subresource"));
    }

    #[test]
    fn pods_that_nobody_controls_are_left_out() {
        let mut alone = pods(4, 0);
        Arc::make_mut(&mut alone[0]).metadata.owner_references = None;
        // (spec, desired, expected, allowed)
        for (spec, desired, expected, allowed) in [("maxUnavailable: 1", 2, 3, 2), ("minAvailable: 50%", 2, 3, 2)] {
            let plan = reconcile(&budget(spec, "{}"), &alone, scale(3), now());
            let got = status(&plan);
            let of = |field: &str| got[field].as_i64().unwrap_or(0);
            assert_eq!(
                (of("desiredHealthy"), of("expectedPods"), of("disruptionsAllowed")),
                (desired, expected, allowed)
            );
            assert!(plan.notes[0].warning && plan.notes[0].reason == "UnmanagedPods", "{spec}");
            assert!(plan.notes[0].message.contains("(selector: {\"matchLabels\":{\"app\":\"a\"}})"), "{spec}");
        }
        let absolute = reconcile(&budget("minAvailable: 1", "{}"), &alone, scale(3), now());
        assert_eq!((status(&absolute)["disruptionsAllowed"].as_i64(), absolute.notes.len()), (Some(3), 0));
    }

    #[test]
    fn what_was_not_seen_is_not_overwritten() {
        let mut seen = budget("minAvailable: 2", "{}");
        seen.metadata.resource_version = Some("7".into());
        let plan = reconcile(&seen, &pods(3, 0), scale(3), now());
        let Some(Action::Patch { patch, .. }) = &plan.status else { panic!("{plan:?}") };
        assert_eq!(patch["metadata"], serde_json::json!({"uid": "b", "resourceVersion": "7"}));
    }

    #[test]
    fn what_is_right_is_not_written_again() {
        let three = pods(3, 0);
        let first = reconcile(&budget("minAvailable: 2", "{}"), &three, scale(3), now());
        let mut settled = budget("minAvailable: 2", "{}");
        settled.status = serde_json::from_value(status(&first)).unwrap();
        let again = reconcile(&settled, &three, scale(3), at(60));
        assert!(again.is_empty() && again.notes.is_empty(), "{again:?}");
    }
}
