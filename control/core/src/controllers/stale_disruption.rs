//! Pods that were to be disrupted and were not: what says so is taken back, so that a later failure of theirs is not
//! forgiven for it.
//! Source: <https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions>.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::disruption::DELETION_TIMEOUT;
use super::job_status::demand_revision;
use super::meta::{self, text};
use super::{Plan, pod};

/// The node's own reason, which it takes back itself.
const BY_NODE: &str = "TerminationByKubelet";

/// Decides for one pod.
pub fn reconcile(pod: &Pod, now: Timestamp) -> Plan {
    let said = pod::condition(pod, pod::DISRUPTION_TARGET).filter(|c| c.status == "True");
    let Some(said) = said.filter(|c| c.reason.as_deref() != Some(BY_NODE) && pod::active(pod)) else {
        return Plan::nothing("nothing says that it is disrupted");
    };
    let since = said.last_transition_time.as_ref().map_or(now, |t| t.0);
    let passed = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    let left = DELETION_TIMEOUT.saturating_sub(passed);
    if !left.is_zero() {
        let mut plan = Plan::nothing("it may be deleted yet");
        plan.requeue(left);
        return plan;
    }
    let mut status = pod.status.clone().unwrap_or_default();
    for condition in status.conditions.iter_mut().flatten().filter(|c| c.type_ == pod::DISRUPTION_TARGET) {
        *condition = PodCondition {
            type_: pod::DISRUPTION_TARGET.into(),
            status: "False".into(),
            last_transition_time: Some(Time(now)),
            ..PodCondition::default()
        };
    }
    let mut write = meta::status_patch(meta::pods(), &pod.metadata, pod.status.as_ref(), &status);
    demand_revision(write.as_mut(), text(&pod.metadata.resource_version));
    Plan { status: write, ..Plan::nothing("it was not deleted") }
}

#[cfg(test)]
mod tests {
    use super::super::Action;
    use super::super::testing::*;
    use super::*;

    #[test]
    fn what_was_not_deleted_is_no_target_any_more() {
        // (age of the condition, its reason, phase, being deleted; whether it is taken back, when it is looked at again)
        let cases = [
            (-119, "EvictionByEvictionAPI", "Running", false, false, Some(1)),
            (-120, "EvictionByEvictionAPI", "Running", false, true, None),
            (-999, "PreemptionByScheduler", "Pending", false, true, None),
            (-999, "TerminationByKubelet", "Running", false, false, None),
            (-999, "EvictionByEvictionAPI", "Failed", false, false, None),
            (-999, "EvictionByEvictionAPI", "Running", true, false, None),
        ];
        for (age, reason, phase, going, taken, again) in cases {
            let mut pod = pod_yaml("p", "");
            pod.metadata.resource_version = Some("7".into());
            pod.metadata.deletion_timestamp = going.then(|| Time(now()));
            let mut status = pod_status(phase, Some(-1000));
            pod::doom(&mut status, reason, "said", at(age));
            pod.status = Some(status);
            let plan = reconcile(&pod, now());
            assert_eq!(plan.requeue_after, again.map(Duration::from_secs), "{age} {reason} {phase}");
            let Some(Action::Patch { patch, .. }) = &plan.status else {
                assert!(!taken, "{age} {reason} {phase}");
                continue;
            };
            assert!(taken, "{age} {reason} {phase}");
            assert_eq!(patch["metadata"]["resourceVersion"], "7");
            let conditions = patch["status"]["conditions"].as_array().unwrap();
            let now_said = conditions.iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
            assert_eq!((&now_said["status"], now_said.get("reason")), (&"False".into(), None));
        }
        assert!(reconcile(&pod_yaml("p", ""), now()).is_empty());
    }
}
