//! HorizontalPodAutoscaler: as many pods as bring their metrics to the targets.
//! Source: <https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/>.
//!
//! There are metrics of resources only: those of the other types have no API here that would tell them, and a condition
//! says so.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use copepod_api::{Gvr, LabelSelector};
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscaler, HorizontalPodAutoscalerCondition, HorizontalPodAutoscalerSpec,
    HorizontalPodAutoscalerStatus,
};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;

use super::horizontal_pod_autoscaler_limits::{Memory, normalize};
use super::horizontal_pod_autoscaler_metrics::{Invalid, Question, Sampled};
use super::meta::{self, text};
use super::{Action, Plan, Target};

/// How often each autoscaler looks at its metrics.
pub const SYNC_PERIOD: Duration = Duration::from_secs(15);
const ABLE: &str = "AbleToScale";
const ACTIVE: &str = "ScalingActive";
const LIMITED: &str = "ScalingLimited";

/// What was observed of an autoscaler's target.
pub struct Observed<'a> {
    /// The scaled resource.
    pub resource: Gvr,
    /// Its scale.
    pub scale: &'a Scale,
    /// The pods that the scale's selector selects.
    pub pods: &'a [Arc<Pod>],
    /// What those pods use, by name, or why that is not known.
    pub usage: Result<BTreeMap<String, Sampled>, String>,
    /// `namespace/name` of all autoscalers that scale some of the pods, this one among them.
    pub scalers: Vec<String>,
}

/// What was decided.
#[derive(Debug, Default)]
pub struct Decision {
    /// The writes: first the scale, then the status.
    pub plan: Plan,
    /// The write of the scale, if there is one.
    pub rescale: Option<Rescale>,
}

/// A change of the count of pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rescale {
    /// Pods asked for before.
    pub from: i32,
    /// Pods asked for from now on.
    pub to: i32,
    /// Why, for people.
    pub reason: String,
}

/// HorizontalPodAutoscalers.
pub fn autoscalers() -> Gvr {
    Gvr { group: "autoscaling".into(), version: "v2".into(), resource: "horizontalpodautoscalers".into() }
}

/// The resource of a built-in kind with a scale; `None` for all others.
pub fn scaled_resource(api_version: &str, kind: &str) -> Option<Gvr> {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let resource = match (group, kind) {
        ("apps", "Deployment") => "deployments",
        ("apps", "ReplicaSet") => "replicasets",
        ("apps", "StatefulSet") => "statefulsets",
        ("", "ReplicationController") => "replicationcontrollers",
        _ => return None,
    };
    Some(meta::v1(group, resource))
}

/// Why a kind that is not served cannot be scaled, in upstream's words.
pub fn no_such_kind(api_version: &str, kind: &str) -> String {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    match group {
        "" => format!("no matches for kind {kind:?}"),
        group => format!("no matches for kind {kind:?} in group {group:?}"),
    }
}

/// Parses a scale's selector.
///
/// # Errors
/// What is wrong with it; `None` if there is none.
pub fn selector_of(scale: &Scale) -> Result<LabelSelector, Option<String>> {
    let selector = scale.status.as_ref().and_then(|s| s.selector.as_deref()).unwrap_or_default();
    if selector.is_empty() {
        return Err(None);
    }
    LabelSelector::parse(selector).map_err(Some)
}

/// Decides for an autoscaler whose target has no scale that could be read.
pub fn unreachable(scaler: &HorizontalPodAutoscaler, error: &str, now: Timestamp) -> Plan {
    let mut pass = Pass::new(scaler, now);
    let message = format!("the HPA controller was unable to get the target's current scale: {error}");
    pass.warn_with(ABLE, "FailedGetScale", &message, "FailedGetScale", error);
    pass.finish()
}

/// Decides for an autoscaler after the write of its target's scale was refused.
pub fn refused(scaler: &HorizontalPodAutoscaler, rescale: &Rescale, error: &str, now: Timestamp) -> Plan {
    let mut pass = Pass::new(scaler, now);
    let message = format!("the HPA controller was unable to update the target scale: {error}");
    let note = format!("New size: {}; reason: {}; error: {error}", rescale.to, rescale.reason);
    pass.warn_with(ABLE, "FailedUpdateScale", &message, "FailedRescale", &note);
    pass.status.current_replicas = Some(rescale.from);
    pass.finish()
}

/// Decides for one autoscaler.
pub fn reconcile(
    scaler: &HorizontalPodAutoscaler,
    observed: &Observed,
    memory: &mut Memory,
    now: Timestamp,
) -> Decision {
    let spec = &scaler.spec;
    let mut pass = Pass::new(scaler, now);
    let current = observed.scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
    memory.begin(current, now);
    pass.set(ABLE, true, "SucceededGetScale", "the HPA controller was able to get the target's current scale".into());
    let min = spec.min_replicas.unwrap_or(1);
    let mut metrics = None;
    let (desired, reason) = if current == 0 && min != 0 {
        let message = "scaling is disabled since the replica count of the target is zero";
        pass.set(ACTIVE, false, "ScalingDisabled", message.into());
        (0, String::new())
    } else if current > spec.max_replicas {
        (spec.max_replicas, "Current number of replicas above Spec.MaxReplicas".to_string())
    } else if current < min {
        (min, "Current number of replicas below Spec.MinReplicas".to_string())
    } else {
        let proposed = pass.proposed(spec, observed, current);
        metrics = proposed.statuses;
        let Some((proposal, metric)) = proposed.best else {
            pass.status.current_replicas = Some(current);
            pass.status.current_metrics = metrics;
            return Decision { plan: pass.finish(), rescale: None };
        };
        let limited = normalize(memory, spec.behavior.as_ref(), current, proposal, (min, spec.max_replicas), now);
        pass.set(ABLE, true, limited.able.0, limited.able.1.into());
        pass.set(LIMITED, limited.limited, limited.why.0, limited.why.1.into());
        let reason =
            if proposal > current { format!("{metric} above target") } else { "All metrics below target".into() };
        (limited.replicas, reason)
    };
    let rescale = (desired != current).then_some(Rescale { from: current, to: desired, reason });
    pass.status.current_replicas = Some(current);
    pass.status.desired_replicas = desired;
    pass.status.current_metrics = metrics;
    if let Some(rescale) = &rescale {
        pass.rescale(spec, observed, rescale);
    }
    Decision { plan: pass.finish(), rescale }
}

/// What the metrics propose.
struct Proposed {
    /// The greatest count with the name of its metric; `None` if none may be acted on.
    best: Option<(i32, String)>,
    statuses: Option<Vec<k8s_openapi::api::autoscaling::v2::MetricStatus>>,
}

struct Pass<'a> {
    scaler: &'a HorizontalPodAutoscaler,
    status: HorizontalPodAutoscalerStatus,
    plan: Plan,
    now: Timestamp,
}

impl<'a> Pass<'a> {
    fn new(scaler: &'a HorizontalPodAutoscaler, now: Timestamp) -> Self {
        let mut plan = Plan::nothing("the count fits");
        plan.requeue(SYNC_PERIOD);
        Self { scaler, status: scaler.status.clone().unwrap_or_default(), plan, now }
    }

    fn finish(mut self) -> Plan {
        let meta = &self.scaler.metadata;
        self.plan.status = meta::status_patch(autoscalers(), meta, self.scaler.status.as_ref(), &self.status);
        self.plan
    }

    fn set(&mut self, kind: &str, holds: bool, reason: &str, message: String) {
        let status = if holds { "True" } else { "False" };
        let conditions = self.status.conditions.get_or_insert_default();
        let mut condition = HorizontalPodAutoscalerCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some(message),
            last_transition_time: Some(Time(self.now)),
        };
        match conditions.iter_mut().find(|c| c.type_ == kind) {
            Some(before) => {
                if before.status == condition.status {
                    condition.last_transition_time = before.last_transition_time.take();
                }
                *before = condition;
            }
            None => conditions.push(condition),
        }
    }

    /// A condition that does not hold, with an event when it is news: an autoscaler that cannot work writes nothing
    /// while nothing changes.
    fn warn_with(&mut self, kind: &str, reason: &str, message: &str, event: &'static str, note: &str) {
        if !self.is_stored(kind, reason, message) {
            self.plan.warn(event, note.into());
        }
        self.set(kind, false, reason, message.into());
    }

    fn is_stored(&self, kind: &str, reason: &str, message: &str) -> bool {
        let stored = self.scaler.status.as_ref().and_then(|s| s.conditions.as_ref()).into_iter().flatten();
        stored.into_iter().any(|c| {
            c.type_ == kind
                && c.status == "False"
                && c.reason.as_deref() == Some(reason)
                && c.message.as_deref() == Some(message)
        })
    }

    fn rescale(&mut self, spec: &HorizontalPodAutoscalerSpec, observed: &Observed, rescale: &Rescale) {
        let Rescale { from, to, reason } = rescale;
        let (meta, scale) = (&self.scaler.metadata, &observed.scale.metadata);
        self.plan.why = format!("{from} to {to} pods: {reason}");
        self.plan.actions.push(Action::Patch {
            target: Target::new(observed.resource.clone(), text(&meta.namespace), &spec.scale_target_ref.name),
            subresource: "scale",
            patch: json!({
                "metadata": {"uid": scale.uid, "resourceVersion": scale.resource_version}, "spec": {"replicas": to},
            }),
        });
        self.plan.note("SuccessfulRescale", format!("New size: {to}; reason: {reason}"));
        let message = format!("the HPA controller was able to update the target scale to {to}");
        self.set(ABLE, true, "SucceededRescale", message);
        self.status.last_scale_time = Some(Time(self.now));
    }

    /// What the metrics propose. If none can be told, or some cannot and the others would take pods away, nothing is
    /// done.
    fn proposed(&mut self, spec: &HorizontalPodAutoscalerSpec, observed: &Observed, current: i32) -> Proposed {
        if let Err(error) = self.checked_selector(observed) {
            let (reason, message, event) = error;
            self.warn_with(ACTIVE, reason, &message, event.0, &event.1);
            if !self.is_stored(ACTIVE, reason, &message) {
                self.plan.warn("FailedComputeMetricsReplicas", event.1);
            }
            return Proposed { best: None, statuses: None };
        }
        let specs = spec.metrics.as_deref().unwrap_or_default();
        let question = Question {
            namespace: text(&self.scaler.metadata.namespace),
            pods: observed.pods,
            usage: &observed.usage,
            current,
            behavior: spec.behavior.as_ref(),
            now: self.now,
        };
        let (mut best, mut statuses, mut invalid) = (None::<(i32, String)>, Vec::new(), Vec::<Invalid>::new());
        for metric in specs {
            match question.answer(metric) {
                Ok(proposal) => {
                    statuses.push(proposal.status);
                    if best.as_ref().is_none_or(|(most, _)| *most == 0 || proposal.replicas > *most) {
                        best = Some((proposal.replicas, proposal.metric));
                    }
                }
                Err(error) => {
                    statuses.push(Default::default());
                    invalid.push(error);
                }
            }
        }
        let message = |error: &Invalid| format!("the HPA was unable to compute the replica count: {}", error.why);
        let fewer = best.as_ref().is_none_or(|(replicas, _)| *replicas < current);
        match invalid.first().filter(|_| fewer) {
            Some(first) => {
                let message = message(first);
                if !self.is_stored(ACTIVE, first.reason, &message) {
                    for error in &invalid {
                        self.plan.warn(error.reason, error.why.clone());
                    }
                    let (bad, all) = (invalid.len(), specs.len());
                    let why = format!("invalid metrics ({bad} invalid out of {all}), first error is: {}", first.error);
                    self.plan.warn("FailedComputeMetricsReplicas", why);
                }
                self.set(ACTIVE, false, first.reason, message);
                Proposed { best: None, statuses: Some(statuses) }
            }
            None => {
                let best = best.unwrap_or((current, String::new()));
                let message = format!("the HPA was able to successfully calculate a replica count from {}", best.1);
                self.set(ACTIVE, true, "ValidMetricFound", message);
                Proposed { best: Some(best), statuses: Some(statuses) }
            }
        }
    }

    /// Whether the target says which pods are its own, and nobody else scales them; else the condition's reason and
    /// message, and the event's.
    #[allow(clippy::type_complexity, reason = "a condition and an event, used once")]
    fn checked_selector(&self, observed: &Observed) -> Result<(), (&'static str, String, (&'static str, String))> {
        match selector_of(observed.scale) {
            Err(None) => {
                let message = "the HPA target's scale is missing a selector";
                return Err(("InvalidSelector", message.into(), ("SelectorRequired", "selector is required".into())));
            }
            Err(Some(why)) => {
                let why = format!("couldn't convert selector into a corresponding internal selector object: {why}");
                return Err(("InvalidSelector", why.clone(), ("InvalidSelector", why)));
            }
            Ok(_) => {}
        }
        if observed.scalers.len() > 1 {
            let selector = observed.scale.status.as_ref().and_then(|s| s.selector.as_deref()).unwrap_or_default();
            let all = observed.scalers.join(" ");
            let why = format!("pods by selector {selector} are controlled by multiple HPAs: [{all}]");
            return Err(("AmbiguousSelector", why.clone(), ("AmbiguousSelector", why)));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "horizontal_pod_autoscaler_tests.rs"]
mod tests;
