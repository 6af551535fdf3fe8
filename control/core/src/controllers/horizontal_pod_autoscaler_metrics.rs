//! How many pods a metric asks for: use against target, with care for pods that are not ready or not measured.
//! Source: <https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/#algorithm-details>.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use copepod_api::Quantity;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::{
    ContainerResourceMetricStatus, HPAScalingRules, HorizontalPodAutoscalerBehavior, MetricIdentifier, MetricSpec,
    MetricStatus, MetricTarget, MetricValueStatus, ResourceMetricStatus,
};
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;

use super::horizontal_pod_autoscaler_limits::whole;
use super::meta::text;
use super::pod;

/// Deviation from the target that changes nothing, unless a rule says otherwise.
const TOLERANCE: f64 = 0.1;
/// How long after its start a pod's CPU use counts only when it is ready and was so for a whole window.
const CPU_INITIALIZATION: Duration = Duration::from_secs(300);
/// A pod that became unready within this time after its start was never ready.
const INITIAL_READINESS: Duration = Duration::from_secs(30);

/// What a pod used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sampled {
    /// When.
    pub at: Timestamp,
    /// Over which time before.
    pub window: Duration,
    /// By container and resource.
    pub containers: BTreeMap<String, BTreeMap<String, Quantity>>,
}

/// What is asked about each metric.
pub(super) struct Question<'a> {
    pub namespace: &'a str,
    pub pods: &'a [Arc<Pod>],
    pub usage: &'a Result<BTreeMap<String, Sampled>, String>,
    /// Pods asked for now.
    pub current: i32,
    pub behavior: Option<&'a HorizontalPodAutoscalerBehavior>,
    pub now: Timestamp,
}

/// What a metric proposes.
pub(super) struct Proposal {
    pub replicas: i32,
    /// The metric's name in messages.
    pub metric: String,
    pub status: MetricStatus,
}

/// Why a metric proposes nothing.
pub(super) struct Invalid {
    /// Of the condition and the event.
    pub reason: &'static str,
    pub why: String,
    /// The same with what was wanted.
    pub error: String,
}

/// Values in thousandths by pod.
type Values<'a> = BTreeMap<&'a str, i64>;

/// Use against target.
struct Ratio {
    ratio: f64,
    /// Percent of what was requested, where that is the target.
    utilization: Option<i32>,
    /// Mean of the pods in thousandths.
    average: i64,
}

/// The pods, sorted by what their values are worth.
#[derive(Default)]
struct Groups<'a> {
    ready: usize,
    unready: BTreeSet<&'a str>,
    missing: BTreeSet<&'a str>,
    ignored: BTreeSet<&'a str>,
}

impl Question<'_> {
    /// What a metric proposes.
    ///
    /// # Errors
    /// Why it cannot be told.
    pub fn answer(&self, metric: &MetricSpec) -> Result<Proposal, Invalid> {
        let invalid = |reason, what: String, why: String| {
            let error = format!("failed to get {what} metric value: {why}");
            Invalid { reason, why, error }
        };
        let no_custom = |name: &str| {
            format!(
                "unable to get metric {name}: unable to fetch metrics from custom metrics API: no custom metrics API \
                 (custom.metrics.k8s.io) registered"
            )
        };
        match metric {
            MetricSpec { resource: Some(source), .. } => {
                let outcome = self.of_resource(&source.name, None, &source.target);
                let outcome =
                    outcome.map_err(|e| invalid("FailedGetResourceMetric", format!("{} resource", source.name), e));
                outcome.map(|(replicas, metric, current)| {
                    let resource = Some(ResourceMetricStatus { name: source.name.clone(), current });
                    let status = MetricStatus { type_: "Resource".into(), resource, ..Default::default() };
                    Proposal { replicas, metric, status }
                })
            }
            MetricSpec { container_resource: Some(source), .. } => {
                let container = source.container.as_str();
                let outcome = self.of_resource(&source.name, Some(container), &source.target);
                let outcome = outcome
                    .map_err(|e| invalid("FailedGetContainerResourceMetric", format!("{container} container"), e));
                outcome.map(|(replicas, metric, current)| {
                    let (name, container) = (source.name.clone(), container.to_string());
                    let container_resource = Some(ContainerResourceMetricStatus { name, container, current });
                    let type_ = "ContainerResource".into();
                    Proposal {
                        replicas,
                        metric,
                        status: MetricStatus { type_, container_resource, ..Default::default() },
                    }
                })
            }
            MetricSpec { pods: Some(source), .. } => {
                Err(invalid("FailedGetPodsMetric", "pods".into(), no_custom(&source.metric.name)))
            }
            MetricSpec { object: Some(source), .. } => {
                let object = &source.described_object;
                let why =
                    format!("{} on {} {}/{}", no_custom(&source.metric.name), object.kind, self.namespace, object.name);
                Err(invalid("FailedGetObjectMetric", "object".into(), why))
            }
            MetricSpec { external: Some(source), .. } => {
                let name = &source.metric.name;
                let why = format!(
                    "unable to get external metric {}/{name}/{}: unable to fetch metrics from external metrics API: no \
                     external metrics API (external.metrics.k8s.io) registered",
                    self.namespace,
                    selector_text(&source.metric)
                );
                Err(invalid("FailedGetExternalMetric", format!("{name} external"), why))
            }
            other => {
                let why = format!("unknown metric source type {:?}", other.type_);
                Err(Invalid { reason: "InvalidMetricSourceType", error: why.clone(), why })
            }
        }
    }

    /// The count, the metric's name and its present value.
    fn of_resource(
        &self,
        resource: &str,
        container: Option<&str>,
        target: &MetricTarget,
    ) -> Result<(i32, String, MetricValueStatus), String> {
        let average = |milli| Some(WireQuantity(Quantity::from_milli(milli).to_string()));
        if let Some(target) = &target.average_value {
            let failed = |why| format!("failed to get {resource} usage: {why}");
            let target = Quantity::parse(&target.0).map_err(failed)?.milli();
            let (replicas, now) = self.by_average(resource, container, target).map_err(failed)?;
            let status = MetricValueStatus { average_value: average(now.average), ..Default::default() };
            return Ok((replicas, format!("{resource} resource"), status));
        }
        let Some(target) = target.average_utilization else {
            return Err("invalid resource metric source: neither an average utilization target nor an average value \
                        (usage) target was set"
                .into());
        };
        let failed = |why| format!("failed to get {resource} utilization: {why}");
        let (replicas, now) = self.by_utilization(resource, container, target).map_err(failed)?;
        let what = if container.is_some() { "container resource" } else { "resource" };
        let status = MetricValueStatus {
            average_utilization: now.utilization,
            average_value: average(now.average),
            ..Default::default()
        };
        Ok((replicas, format!("{resource} {what} utilization (percentage of request)"), status))
    }

    fn by_utilization(&self, resource: &str, container: Option<&str>, target: i32) -> Result<(i32, Ratio), String> {
        let values = self.values(resource, container)?;
        let groups = self.groups(&values, resource)?;
        let mut requests = Values::new();
        let measured = values.keys().any(|pod| !groups.ignored.contains(pod) && !groups.unready.contains(pod));
        for pod in self.pods.iter().filter(|_| measured) {
            requests.insert(text(&pod.metadata.name), request(pod, container, resource)?);
        }
        let ratio = |values: &Values| {
            let requested: i128 = values.keys().filter_map(|pod| requests.get(pod)).map(|n| i128::from(*n)).sum();
            if requested == 0 {
                return Err("no metrics returned matched known pods".to_string());
            }
            let used: i128 = values.values().map(|n| i128::from(*n)).sum();
            let percent = i32::try_from(used * 100 / requested).unwrap_or(i32::MAX);
            let ratio = f64::from(percent) / f64::from(target.max(1));
            Ok(Ratio { ratio, utilization: Some(percent), average: mean(values) })
        };
        // A pod that is not measured is taken to use all that it asked for, or what it should use if that is more.
        let full = |pod: &str| {
            let request = requests.get(pod).copied().unwrap_or(0);
            request.saturating_mul(i64::from(target.max(100))) / 100
        };
        self.replicas(values, &groups, ratio, full)
    }

    fn by_average(&self, resource: &str, container: Option<&str>, target: i64) -> Result<(i32, Ratio), String> {
        let values = self.values(resource, container)?;
        let groups = self.groups(&values, resource)?;
        let ratio = |values: &Values| {
            let average = mean(values);
            Ok(Ratio { ratio: average as f64 / target.max(1) as f64, utilization: None, average })
        };
        self.replicas(values, &groups, ratio, |_| target)
    }

    /// Each measured pod's use of a resource, in all its containers or one.
    fn values(&self, resource: &str, container: Option<&str>) -> Result<Values<'_>, String> {
        let failed = |why: &str| format!("unable to get metrics for resource {resource}: {why}");
        let usage = self
            .usage
            .as_ref()
            .map_err(|why| failed(&format!("unable to fetch metrics from resource metrics API: {why}")))?;
        if usage.is_empty() {
            return Err(failed("no metrics returned from resource metrics API"));
        }
        let mut values = Values::new();
        for (pod, sampled) in usage {
            let of = |name: &str| sampled.containers.get(name).and_then(|usage| usage.get(resource));
            let value = match container {
                Some(name) if !sampled.containers.contains_key(name) => {
                    let why = format!("container {name} not present in metrics for pod {}/{pod}", self.namespace);
                    return Err(failed(&format!("failed to get container metrics: {why}")));
                }
                Some(name) => of(name).map(Quantity::milli),
                None => {
                    let mut all = sampled.containers.keys().map(|name| of(name).map(Quantity::milli));
                    all.try_fold(0_i64, |sum, milli| Some(sum.saturating_add(milli?)))
                }
            };
            if let Some(value) = value.filter(|_| !sampled.containers.is_empty()) {
                values.insert(pod.as_str(), value);
            }
        }
        Ok(values)
    }

    fn groups(&self, values: &Values, resource: &str) -> Result<Groups<'_>, String> {
        if self.pods.is_empty() {
            return Err("no pods returned by selector while calculating replica count".into());
        }
        let mut groups = Groups::default();
        for pod in self.pods {
            let name = text(&pod.metadata.name);
            if pod::terminating(pod) || pod::phase(pod) == "Failed" {
                groups.ignored.insert(name);
            } else if pod::phase(pod) == "Pending" {
                groups.unready.insert(name);
            } else if !values.contains_key(name) {
                groups.missing.insert(name);
            } else if resource == "cpu" && self.is_warming_up(pod) {
                groups.unready.insert(name);
            } else {
                groups.ready += 1;
            }
        }
        Ok(groups)
    }

    /// Whether a pod's CPU use does not tell yet what it will be.
    fn is_warming_up(&self, pod: &Pod) -> bool {
        let started = pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
        let (Some(started), Some(ready)) = (started, pod::condition(pod, "Ready")) else { return true };
        let (unready, since) = (ready.status == "False", ready.last_transition_time.as_ref().map(|t| t.0));
        let since = since.unwrap_or(Timestamp::MIN);
        let plus = |at: Timestamp, span: Duration| at.checked_add(span).unwrap_or(Timestamp::MAX);
        if plus(started, CPU_INITIALIZATION) > self.now {
            let sampled = self.usage.as_ref().ok().and_then(|usage| usage.get(text(&pod.metadata.name)));
            return unready || sampled.is_none_or(|sampled| sampled.at < plus(since, sampled.window));
        }
        unready && plus(started, INITIAL_READINESS) > since
    }

    /// The count that brings the ratio to one; the present count if it is near enough, or if pods whose use had to be
    /// guessed would turn the direction.
    fn replicas<'a>(
        &'a self,
        mut values: Values<'a>,
        groups: &Groups<'a>,
        ratio: impl Fn(&Values) -> Result<Ratio, String>,
        full: impl Fn(&str) -> i64,
    ) -> Result<(i32, Ratio), String> {
        let known: BTreeSet<&str> = self.pods.iter().map(|p| text(&p.metadata.name)).collect();
        values.retain(|pod, _| known.contains(pod) && !groups.ignored.contains(pod) && !groups.unready.contains(pod));
        if values.is_empty() {
            return Err("did not receive metrics for targeted pods (pods might be unready)".into());
        }
        let now = ratio(&values)?;
        let up_with_unready = !groups.unready.is_empty() && now.ratio > 1.0;
        if !up_with_unready && groups.missing.is_empty() {
            let count = u32::try_from(groups.ready).unwrap_or(u32::MAX);
            let wanted =
                if self.tolerates(now.ratio) { self.current } else { whole((now.ratio * f64::from(count)).ceil()) };
            return Ok((wanted, now));
        }
        for pod in &groups.missing {
            if now.ratio < 1.0 {
                values.insert(pod, full(pod));
            } else if now.ratio > 1.0 {
                values.insert(pod, 0);
            }
        }
        if up_with_unready {
            values.extend(groups.unready.iter().map(|pod| (*pod, 0)));
        }
        let guessed = ratio(&values)?.ratio;
        if self.tolerates(guessed) || (now.ratio < 1.0 && guessed > 1.0) || (now.ratio > 1.0 && guessed < 1.0) {
            return Ok((self.current, now));
        }
        let count = u32::try_from(values.len()).unwrap_or(u32::MAX);
        let wanted = whole((guessed * f64::from(count)).ceil());
        let turns = (guessed < 1.0 && wanted > self.current) || (guessed > 1.0 && wanted < self.current);
        Ok((if turns { self.current } else { wanted }, now))
    }

    fn tolerates(&self, ratio: f64) -> bool {
        let tolerance = |rules: Option<&HPAScalingRules>| {
            let given = rules.and_then(|r| r.tolerance.as_ref()).and_then(|q| Quantity::parse(&q.0).ok());
            given.map_or(TOLERANCE, |q| i32::try_from(q.milli()).map_or(f64::MAX, |milli| f64::from(milli) / 1000.0))
        };
        let down = tolerance(self.behavior.and_then(|b| b.scale_down.as_ref()));
        let up = tolerance(self.behavior.and_then(|b| b.scale_up.as_ref()));
        (1.0 - down..=1.0 + up).contains(&ratio)
    }
}

fn mean(values: &Values) -> i64 {
    let sum: i128 = values.values().map(|n| i128::from(*n)).sum();
    let count = i128::try_from(values.len().max(1)).unwrap_or(i128::MAX);
    i64::try_from(sum / count).unwrap_or(i64::MAX)
}

/// What a pod, or one of its containers, asks for in thousandths.
pub(super) fn request(pod: &Pod, container: Option<&str>, resource: &str) -> Result<i64, String> {
    let name = text(&pod.metadata.name);
    let of = |resources: Option<&ResourceRequirements>| {
        let request = resources.and_then(|r| r.requests.as_ref()).and_then(|r| r.get(resource));
        request.and_then(|q| Quantity::parse(&q.0).ok()).map(|q| q.milli())
    };
    let Some(spec) = &pod.spec else { return Err(format!("missing request for {resource} in Pod {name}")) };
    let whole_pod = spec.resources.as_ref().filter(|r| r.requests.as_ref().is_some_and(|r| !r.is_empty()));
    let lasting = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(lasting));
    let mut sum = None::<i64>;
    for c in containers.filter(|c| container.is_none_or(|wanted| wanted == c.name)) {
        match of(c.resources.as_ref()) {
            Some(milli) => sum = Some(sum.unwrap_or(0).saturating_add(milli)),
            None if whole_pod.is_some() && container.is_none() => {}
            None => return Err(format!("missing request for {resource} in container {} of Pod {name}", c.name)),
        }
    }
    match (container, whole_pod) {
        (Some(container), _) => sum.ok_or_else(|| format!("container {container} not found in Pod {name}")),
        (None, Some(_)) => {
            of(whole_pod).or(sum).ok_or_else(|| format!("missing pod-level request for {resource} in Pod {name}"))
        }
        (None, None) => Ok(sum.unwrap_or(0)),
    }
}

/// A metric's selector as upstream's messages show it.
fn selector_text(metric: &MetricIdentifier) -> String {
    let Some(selector) = &metric.selector else { return "nil".into() };
    let labels: String =
        selector.match_labels.iter().flatten().map(|(key, value)| format!("{key}: {value},")).collect();
    let expressions: String = (selector.match_expressions.iter().flatten())
        .map(|e| {
            let values = e.values.as_deref().unwrap_or_default().join(" ");
            format!("LabelSelectorRequirement{{Key:{},Operator:{},Values:[{values}],}},", e.key, e.operator)
        })
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}
