//! HorizontalPodAutoscaler of autoscaling/v1: the objects of v2 as their CPU target alone. What v1 has no fields for
//! stands in annotations, so that a client of v1 can read an object and write it back without loss.

use copepod_api::FieldError;
use serde_json::{Map, Value, json};

use super::fields::at;
use super::horizontal_pod_autoscaler::{HorizontalPodAutoscaler, SOURCES, autoscaler_names, default_metric};
use super::value::{child, int, list, remove, set, set_default, text};
use super::with_status;
use crate::resource::{Resource, StorageView, Strategy};
use crate::table::Column;
use crate::validate::NON_NEGATIVE;

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
/// Fields that both versions have.
const SHARED_SPEC: [&str; 3] = ["scaleTargetRef", "minReplicas", "maxReplicas"];
const SHARED_STATUS: [&str; 4] = ["observedGeneration", "lastScaleTime", "currentReplicas", "desiredReplicas"];

/// HorizontalPodAutoscalers of autoscaling/v1.
pub fn resource() -> Option<Resource> {
    let names = autoscaler_names("autoscaling/v1");
    let plural = names.plural.clone();
    let mut resource = super::built_in(names, with_status(), HorizontalPodAutoscalerV1)?;
    resource.storage = Some(StorageView { group: "autoscaling".into(), version: "v2".into(), plural });
    Some(resource)
}

struct HorizontalPodAutoscalerV1;

impl Strategy for HorizontalPodAutoscalerV1 {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = child(object, "spec") {
            set_default(spec, "minReplicas", 1);
        }
    }
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"currentReplicas": 0, "desiredReplicas": 0}));
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for key in [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR] {
            if annotation(object, key).is_some_and(|text| serde_json::from_str::<Value>(text).is_err()) {
                let value = json!(annotation(object, key));
                errors.push(FieldError::invalid(format!("metadata.annotations[{key}]"), &value, "must be valid json"));
            }
        }
        if let Some(n) = int(object, "/spec/targetCPUUtilizationPercentage").filter(|n| *n < 1) {
            let field = "spec.targetCPUUtilizationPercentage";
            errors.push(FieldError::invalid(field, &json!(n), "must be greater than 0"));
            return errors;
        }
        if let Some(n) = int(object, "/status/currentReplicas").filter(|n| *n < 0) {
            errors.push(FieldError::invalid("status.currentReplicas", &json!(n), NON_NEGATIVE));
        }
        errors.extend(HorizontalPodAutoscaler.validate(&self.to_storage(object.clone())));
        errors
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        HorizontalPodAutoscaler.columns()
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        HorizontalPodAutoscaler.cells(&self.to_storage(object.clone()), now)
    }
    fn from_storage(&self, mut stored: Value) -> Value {
        let (spec, status) = (at(&stored, "spec").clone(), at(&stored, "status").clone());
        let mut shown = pick(&spec, &SHARED_SPEC);
        let (cpu, others): (Vec<&Value>, Vec<&Value>) = list(&spec, "/metrics").iter().partition(|m| is_cpu_target(m));
        if let Some(percent) = cpu.first().and_then(|m| int(m, "/resource/target/averageUtilization")) {
            set(&mut shown, "targetCPUUtilizationPercentage", percent);
        }
        set(&mut stored, "spec", shown);
        if !status.is_null() {
            let mut shown = pick(&status, &SHARED_STATUS);
            let percent = list(&status, "/currentMetrics").iter().find_map(|m| {
                (text(m, "/resource/name") == "cpu").then(|| int(m, "/resource/current/averageUtilization"))?
            });
            if let Some(percent) = percent {
                set(&mut shown, "currentCPUUtilizationPercentage", percent);
            }
            // v1 has it always.
            set_default(&mut shown, "currentReplicas", 0);
            set(&mut stored, "status", shown);
        }
        let others: Vec<Value> = others.into_iter().map(|m| flat(m, "target")).collect();
        let current: Vec<Value> = list(&status, "/currentMetrics").iter().map(|m| flat(m, "current")).collect();
        let behavior = spec.get("behavior").map(|b| rename_keys(b, capital));
        for (key, value) in [
            (METRICS, (!others.is_empty()).then_some(Value::Array(others))),
            (CURRENT_METRICS, (!current.is_empty()).then_some(Value::Array(current))),
            (CONDITIONS, status.get("conditions").filter(|c| !list(c, "").is_empty()).cloned()),
            (BEHAVIOR, behavior.filter(|b| !b.is_null())),
        ] {
            let annotations = child(&mut stored, "metadata").filter(|_| value.is_some());
            if let (Some(annotations), Some(value)) = (annotations.and_then(|m| child(m, "annotations")), value) {
                set(annotations, key, value.to_string());
            }
        }
        set(&mut stored, "apiVersion", "autoscaling/v1");
        stored
    }
    fn to_storage(&self, mut object: Value) -> Value {
        let (spec, status) = (at(&object, "spec").clone(), at(&object, "status").clone());
        let parsed = |key: &str| annotation(&object, key).and_then(|text| serde_json::from_str::<Value>(text).ok());
        let items = |value: Option<Value>| value.and_then(|v| v.as_array().cloned()).unwrap_or_default();
        let others = items(parsed(METRICS));
        let current = items(parsed(CURRENT_METRICS));
        let conditions = items(parsed(CONDITIONS));
        let behavior = parsed(BEHAVIOR).filter(Value::is_object);

        let mut stored = pick(&spec, &SHARED_SPEC);
        let mut metrics = Vec::new();
        if let Some(percent) = int(&spec, "/targetCPUUtilizationPercentage") {
            let mut metric = default_metric();
            if let Some(target) = metric.pointer_mut("/resource/target") {
                set(target, "averageUtilization", percent);
            }
            metrics.push(metric);
        }
        metrics.extend(others.iter().map(|m| nested(m, "target")));
        if metrics.is_empty() {
            metrics.push(default_metric());
        }
        set(&mut stored, "metrics", metrics);
        if let Some(behavior) = behavior {
            set(&mut stored, "behavior", rename_keys(&behavior, small));
        }
        set(&mut object, "spec", stored);
        if !status.is_null() {
            let mut stored = pick(&status, &SHARED_STATUS);
            let mut metrics: Vec<Value> = current.iter().map(|m| nested(m, "current")).collect();
            if let (Some(percent), true) = (int(&status, "/currentCPUUtilizationPercentage"), metrics.is_empty()) {
                metrics.push(json!({"type": "Resource", "resource": {"name": "cpu",
                    "current": {"averageUtilization": percent}}}));
            }
            for (key, list) in [("currentMetrics", metrics), ("conditions", conditions)] {
                if !list.is_empty() {
                    set(&mut stored, key, list);
                }
            }
            set(&mut object, "status", stored);
        }
        for key in [METRICS, CURRENT_METRICS, CONDITIONS, BEHAVIOR] {
            remove(&mut object, "/metadata/annotations", key);
        }
        if at(&object, "metadata.annotations").as_object().is_some_and(Map::is_empty) {
            remove(&mut object, "/metadata", "annotations");
        }
        set(&mut object, "apiVersion", "autoscaling/v2");
        object
    }
}

fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    at(object, "metadata.annotations").get(key).and_then(Value::as_str)
}

/// Whether v1's own field can say the metric.
fn is_cpu_target(metric: &Value) -> bool {
    text(metric, "/type") == "Resource"
        && text(metric, "/resource/name") == "cpu"
        && int(metric, "/resource/target/averageUtilization").is_some()
}

fn pick(object: &Value, keys: &[&str]) -> Value {
    let found = keys.iter().filter_map(|k| Some(((*k).to_string(), object.get(*k)?.clone())));
    Value::Object(found.collect())
}

/// (field of v1's metrics without `target` or `current` before it, path in v2's)
const AMOUNTS: [(&str, &str); 3] =
    [("AverageUtilization", "averageUtilization"), ("AverageValue", "averageValue"), ("Value", "value")];

/// The name of an amount in v1's form of a metric of kind `source`; `part` is `target` or `current`.
fn amount_name(source: &str, part: &str, amount: &str) -> String {
    // Of objects, the average is the younger field and has no prefix.
    if source == "object" && amount == "AverageValue" { "averageValue".into() } else { format!("{part}{amount}") }
}

/// (field of v1's metric, path in v2's), by source.
fn names_of(source: &str) -> &'static [(&'static str, &'static str)] {
    match source {
        "resource" => &[("name", "/name")],
        "containerResource" => &[("name", "/name"), ("container", "/container")],
        "pods" => &[("metricName", "/metric/name"), ("selector", "/metric/selector")],
        "object" => &[("target", "/describedObject"), ("metricName", "/metric/name"), ("selector", "/metric/selector")],
        _ => &[("metricName", "/metric/name"), ("metricSelector", "/metric/selector")],
    }
}

/// A metric of v2 in v1's form, whose sources have no structure. `part` is `target` or `current`.
fn flat(metric: &Value, part: &str) -> Value {
    let mut out = json!({"type": text(metric, "/type")});
    for (_, source) in SOURCES {
        let Some(from) = metric.get(source).filter(|s| s.is_object()) else { continue };
        let mut to = json!({});
        for (name, path) in names_of(source) {
            if let Some(value) = from.pointer(path) {
                set(&mut to, name, value.clone());
            }
        }
        for (name, key) in AMOUNTS {
            if let Some(value) = at(from, part).get(key) {
                set(&mut to, &amount_name(source, part, name), value.clone());
            }
        }
        set(&mut out, source, to);
    }
    out
}

/// The reverse of [`flat`].
fn nested(metric: &Value, part: &str) -> Value {
    let mut out = json!({"type": text(metric, "/type")});
    for (_, source) in SOURCES {
        let Some(from) = metric.get(source).filter(|s| s.is_object()) else { continue };
        let mut to = json!({});
        for (name, path) in names_of(source) {
            let Some(value) = from.get(name) else { continue };
            match path.trim_start_matches('/').split_once('/') {
                Some((parent, key)) => {
                    if let Some(parent) = child(&mut to, parent) {
                        set(parent, key, value.clone());
                    }
                }
                None => set(&mut to, path.trim_start_matches('/'), value.clone()),
            }
        }
        let Some(amounts) = child(&mut to, part) else { continue };
        let mut kind = "Value";
        for (name, key) in AMOUNTS {
            if let Some(value) = from.get(amount_name(source, part, name)) {
                set(amounts, key, value.clone());
                kind = if name == "AverageUtilization" { "Utilization" } else { name };
                // A target has one amount; beside an average of v1's form there may stand a zero.
                if part == "target" {
                    break;
                }
            }
        }
        if part == "target" {
            set(amounts, "type", kind);
        }
        set(&mut out, source, to);
    }
    out
}

/// A value with all its objects' keys renamed.
fn rename_keys(value: &Value, name: fn(&str) -> String) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (name(k), rename_keys(v, name))).collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(|v| rename_keys(v, name)).collect()),
        other => other.clone(),
    }
}

fn capital(key: &str) -> String {
    first_letter(key, |c| c.to_ascii_uppercase())
}

fn small(key: &str) -> String {
    first_letter(key, |c| c.to_ascii_lowercase())
}

fn first_letter(key: &str, change: fn(char) -> char) -> String {
    let mut chars = key.chars();
    chars.next().map(change).into_iter().chain(chars).collect()
}
