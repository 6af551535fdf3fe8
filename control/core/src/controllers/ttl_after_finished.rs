//! TTL after finished: Jobs that have ended go after a while.
//! Source: <https://kubernetes.io/docs/concepts/workloads/controllers/ttlafterfinished/>.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;

use super::job;
use super::meta::{self, text};
use super::{Action, Plan, Propagation, Target};

/// Decides for one Job.
pub fn reconcile(job: &Job, now: Timestamp) -> Plan {
    let ttl = job.spec.as_ref().and_then(|s| s.ttl_seconds_after_finished);
    let ended = job::finished(job).and_then(|c| c.last_transition_time.as_ref()).map(|t| t.0);
    let (Some(ttl), Some(ended), None) = (ttl, ended, &job.metadata.deletion_timestamp) else {
        return Plan::nothing("it stays");
    };
    let Ok(end) = Timestamp::from_second(ended.as_second().saturating_add(i64::from(ttl))) else {
        return Plan::nothing("it stays for ever");
    };
    let left = Duration::try_from(end.duration_since(now)).unwrap_or_default();
    if !left.is_zero() {
        let mut plan = Plan::nothing("it stays for a while");
        plan.requeue(left);
        return plan;
    }
    let meta = &job.metadata;
    let delete = Action::Delete {
        target: Target::new(meta::v1("batch", "jobs"), text(&meta.namespace), text(&meta.name)),
        propagation: Propagation::Foreground,
        uid: meta.uid.clone(),
        grace: None,
    };
    Plan { actions: vec![delete], ..Plan::nothing(format!("ended {ttl} s ago")) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_job_goes_when_its_time_is_over() {
        let job = |ttl: &str, condition: &str, extra: &str| -> Job {
            yaml(&format!(
                "metadata: {{name: j, namespace: shop, uid: u{extra}}}\nspec: {{template: {{}}{ttl}}}\n\
                 status: {{conditions: [{{type: {condition}, status: 'True', lastTransitionTime: '{}'}}]}}",
                at(-30)
            ))
        };
        let going = format!(", deletionTimestamp: '{}'", at(-1));
        for (ttl, condition, extra, deletes, again) in [
            (", ttlSecondsAfterFinished: 30", "Complete", "", true, None),
            (", ttlSecondsAfterFinished: 0", "Failed", "", true, None),
            (", ttlSecondsAfterFinished: 40", "Failed", "", false, Some(10)),
            (", ttlSecondsAfterFinished: 0", "SuccessCriteriaMet", "", false, None),
            (", ttlSecondsAfterFinished: 0", "Complete", going.as_str(), false, None),
            ("", "Complete", "", false, None),
        ] {
            let plan = reconcile(&job(ttl, condition, extra), now());
            assert_eq!(plan.requeue_after, again.map(Duration::from_secs), "{ttl} {condition}");
            match plan.actions.as_slice() {
                [] => assert!(!deletes, "{ttl} {condition}"),
                [Action::Delete { uid, propagation, .. }] => {
                    assert!(deletes, "{ttl} {condition}");
                    assert_eq!((uid.as_deref(), *propagation), (Some("u"), Propagation::Foreground));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
