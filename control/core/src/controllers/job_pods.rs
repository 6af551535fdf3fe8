//! A Job's pods: how they are made, what their end means to the Job, which go first.

use std::cmp::Reverse;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobSpec, PodFailurePolicyOnExitCodesRequirement};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde_json::{Map, Value, json};

use super::meta::{self, text};
use super::pod;
use super::{Action, Propagation, Target};

/// The finalizer of pods that their Job has not counted yet.
pub const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// Annotation and label of an Indexed Job's pods.
pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Annotation: how often the pod's index failed before.
pub const FAILURE_COUNT: &str = "batch.kubernetes.io/job-index-failure-count";
/// Annotation: how often the pod's index failed before in ways that do not count.
pub const IGNORED_COUNT: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// Longest generated name in bytes before its random part.
const MAX_GENERATE_NAME: usize = 58;
/// The wait after a first failure; doubles with each further one...
const FIRST_BACKOFF: Duration = Duration::from_secs(10);
/// ...up to this.
const LONGEST_BACKOFF: Duration = Duration::from_secs(360);

/// Whether the Job has still to count the pod.
pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER)
}

/// The pod's completion index.
pub fn index_of(pod: &Pod) -> Option<i32> {
    pod.metadata.annotations.as_ref()?.get(COMPLETION_INDEX)?.parse().ok().filter(|index| *index >= 0)
}

/// How often the pod's index failed before it: in ways that count, and in ways that do not.
pub fn index_failures(pod: &Pod) -> (i32, i32) {
    let count = |key: &str| {
        let noted = pod.metadata.annotations.as_ref().and_then(|a| a.get(key));
        noted.and_then(|n| n.parse::<i32>().ok()).filter(|n| *n >= 0).unwrap_or(0)
    };
    (count(FAILURE_COUNT), count(IGNORED_COUNT))
}

/// When a pod ended: its last container's end; without that, when it stopped being ready, was deleted or was made.
pub fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let sidecars: Vec<&str> = pod
        .spec
        .iter()
        .flat_map(|s| s.init_containers.iter().flatten())
        .filter(|c| c.restart_policy.as_deref() == Some("Always"))
        .map(|c| c.name.as_str())
        .collect();
    let status = pod.status.as_ref();
    let inits = status.and_then(|s| s.init_container_statuses.as_ref()).into_iter().flatten();
    let mains = status.and_then(|s| s.container_statuses.as_ref()).into_iter().flatten();
    let ends = mains.chain(inits.filter(|c| sidecars.contains(&c.name.as_str()))).map(|c| {
        let ended = c.state.as_ref().and_then(|s| s.terminated.as_ref()).and_then(|t| t.finished_at.as_ref());
        ended.map(|t| t.0)
    });
    // All of them must have ended.
    let last = ends.collect::<Option<Vec<Timestamp>>>().and_then(|ends| ends.into_iter().max());
    let not_ready = || {
        let condition = pod::condition(pod, "Ready").filter(|c| c.status == "False")?;
        condition.last_transition_time.as_ref().map(|t| t.0)
    };
    let deleted = || {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        let at = pod.metadata.deletion_timestamp.as_ref()?.0.as_second().checked_sub(grace)?;
        Timestamp::from_second(at).ok()
    };
    last.or_else(not_ready).or_else(deleted).or_else(|| pod.metadata.creation_timestamp.as_ref().map(|t| t.0))
}

/// What is left of the wait after `failures` in a row, the last at `last`; `None` if nothing is.
pub fn backoff(failures: i32, last: Option<Timestamp>, now: Timestamp) -> Option<Duration> {
    let doublings = u32::try_from(failures.checked_sub(1)?).ok()?.min(16);
    let wait = FIRST_BACKOFF.saturating_mul(1 << doublings).min(LONGEST_BACKOFF);
    let passed = Duration::try_from(now.duration_since(last?)).unwrap_or_default();
    wait.checked_sub(passed).filter(|left| !left.is_zero())
}

/// What a Job's `podFailurePolicy` makes of a failed pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The failure does not count.
    pub ignored: bool,
    /// The pod's index has failed for good.
    pub fails_index: bool,
    /// The whole Job has failed, and why.
    pub fails_job: Option<String>,
}

/// Judges a failed pod by the first rule that fits; without one the failure counts and no more.
pub fn judge(spec: &JobSpec, pod: &Pod) -> Verdict {
    let rules = spec.pod_failure_policy.iter().flat_map(|p| &p.rules);
    let name = format!("{}/{}", text(&pod.metadata.namespace), text(&pod.metadata.name));
    for (place, rule) in rules.enumerate() {
        let action = rule.action.as_str();
        let why = if let Some(wanted) = &rule.on_exit_codes {
            exit_code(pod, wanted).map(|(container, code)| {
                format!(
                    "Container {container} for pod {name} failed with exit code {code} matching {action} rule at index {place}"
                )
            })
        } else {
            let patterns = || rule.on_pod_conditions.iter().flatten();
            let mut conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
            let fits = conditions
                .find(|c| patterns().any(|p| c.type_ == p.type_ && c.status == p.status.as_deref().unwrap_or("True")));
            fits.map(|c| format!("Pod {name} has condition {} matching {action} rule at index {place}", c.type_))
        };
        let Some(why) = why else { continue };
        match action {
            "Ignore" => return Verdict { ignored: true, ..Verdict::default() },
            "FailIndex" => return Verdict { fails_index: true, ..Verdict::default() },
            "FailJob" => return Verdict { fails_job: Some(why), ..Verdict::default() },
            "Count" => return Verdict::default(),
            _ => {}
        }
    }
    Verdict::default()
}

/// The first container that failed with a code as wanted.
fn exit_code<'a>(pod: &'a Pod, wanted: &PodFailurePolicyOnExitCodesRequirement) -> Option<(&'a str, i32)> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    all.filter(|c| wanted.container_name.as_ref().is_none_or(|name| *name == c.name)).find_map(|c: &ContainerStatus| {
        let code = c.state.as_ref()?.terminated.as_ref()?.exit_code;
        let listed = wanted.values.contains(&code);
        let fits = match wanted.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        (code != 0 && fits).then_some((c.name.as_str(), code))
    })
}

/// What a new pod of an Indexed Job is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewIndex {
    /// Its completion index.
    pub index: i32,
    /// How often the index failed before, counted and ignored, if the Job has a limit per index.
    pub failures: Option<(i32, i32)>,
}

/// The creation of a pod, of an index if the Job is Indexed.
pub fn create(job: &Job, new: Option<NewIndex>) -> Action {
    let name = text(&job.metadata.name);
    let template = job.spec.as_ref().map(|s| meta::value(&s.template)).unwrap_or_default();
    let map = |pointer: &str| template.pointer(pointer).and_then(Value::as_object).cloned().unwrap_or_default();
    let (mut labels, mut annotations) = (map("/metadata/labels"), map("/metadata/annotations"));
    let mut finalizers: Vec<Value> =
        template.pointer("/metadata/finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(json!(FINALIZER));
    }
    let mut spec = map("/spec");
    let mut generate_name = format!("{name}-");
    if let Some(NewIndex { index, failures }) = new {
        let suffix = format!("-{index}-");
        generate_name = format!("{}{suffix}", head(name, MAX_GENERATE_NAME.saturating_sub(suffix.len())));
        labels.insert(COMPLETION_INDEX.into(), json!(index.to_string()));
        annotations.insert(COMPLETION_INDEX.into(), json!(index.to_string()));
        if let Some((counted, ignored)) = failures {
            annotations.insert(FAILURE_COUNT.into(), json!(counted.to_string()));
            if ignored > 0 {
                annotations.insert(IGNORED_COUNT.into(), json!(ignored.to_string()));
            }
        }
        spec.insert("hostname".into(), json!(format!("{name}-{index}")));
        for key in ["containers", "initContainers"] {
            for container in spec.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten() {
                add_index_variable(container);
            }
        }
    } else {
        generate_name = format!("{}-", head(name, MAX_GENERATE_NAME - 1));
    }
    let reference = meta::controller_ref("batch/v1", "Job", &job.metadata);
    let mut metadata = Map::from_iter([
        ("generateName".to_string(), json!(generate_name)),
        ("finalizers".to_string(), Value::Array(finalizers)),
        ("ownerReferences".to_string(), json!([reference])),
        ("labels".to_string(), Value::Object(labels)),
    ]);
    if !annotations.is_empty() {
        metadata.insert("annotations".into(), Value::Object(annotations));
    }
    Action::Create {
        target: Target::new(meta::pods(), text(&job.metadata.namespace), ""),
        object: json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}),
    }
}

/// The longest beginning of at most so many bytes.
fn head(name: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    name.get(..end).unwrap_or_default()
}

/// Tells a container its index, unless it has a variable of that name.
fn add_index_variable(container: &mut Value) {
    let Some(container) = container.as_object_mut() else { return };
    let Some(env) = container.entry("env").or_insert_with(|| json!([])).as_array_mut() else { return };
    if !env.iter().any(|v| v.get("name").is_some_and(|n| n == INDEX_VARIABLE)) {
        let path = format!("metadata.labels['{COMPLETION_INDEX}']");
        env.push(json!({"name": INDEX_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": path}}}));
    }
}

/// The write that lets a pod go: it is counted, or shall not be. `None` if it is not held.
pub fn release(pod: &Pod) -> Option<Action> {
    if !is_tracked(pod) {
        return None;
    }
    let meta = &pod.metadata;
    let rest: Vec<&String> = meta.finalizers.iter().flatten().filter(|f| *f != FINALIZER).collect();
    Some(Action::Patch {
        target: Target::new(meta::pods(), text(&meta.namespace), text(&meta.name)),
        subresource: "",
        patch: json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": rest}}),
    })
}

/// The deletion of a pod.
pub fn delete(pod: &Pod) -> Action {
    Action::Delete {
        target: Target::new(meta::pods(), text(&pod.metadata.namespace), text(&pod.metadata.name)),
        propagation: Propagation::Background,
        uid: pod.metadata.uid.clone(),
        grace: None,
    }
}

/// By what pods that are too many go: unbound first, then pending, not ready, ready for a shorter time, younger.
pub fn removal_order(pod: &Pod) -> impl Ord + use<> {
    let running = match pod::phase(pod) {
        "Running" => 2,
        "Unknown" => 1,
        _ => 0,
    };
    (
        !pod::node_name(pod).is_empty(),
        running,
        pod::ready(pod),
        Reverse(pod::ready_since(pod)),
        Reverse(pod::restarts(pod)),
        Reverse(pod.metadata.creation_timestamp.as_ref().map(|t| t.0)),
        pod.metadata.uid.clone(),
    )
}
