//! HorizontalPodAutoscaler of autoscaling/v2: what is stored. autoscaling/v1 shows the same objects
//! (`horizontal_pod_autoscaler_v1.rs`).

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{at, non_negative, one_of, required};
use super::value::{child, has, int, list, set, set_default, text};
use super::{in_all, names, with_status};
use crate::resource::{Names, Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{path_segment, quantity, report};

/// The metric of an autoscaler that names none: this share of the CPU that its pods ask for, in percent.
pub(super) const DEFAULT_CPU_PERCENT: i64 = 80;
/// Kinds of metrics with the fields that hold them.
pub(super) const SOURCES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];
const SOURCE_TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];
const TARGET_TYPES: [&str; 3] = ["AverageValue", "Utilization", "Value"];
/// How many metrics a table row shows.
const SHOWN_METRICS: usize = 2;
/// Longest look back of a scaling rule in seconds.
const MAX_WINDOW_SECONDS: i64 = 3600;
/// Longest period of a scaling policy in seconds.
const MAX_PERIOD_SECONDS: i64 = 1800;

/// HorizontalPodAutoscalers of autoscaling/v2.
pub fn resource() -> Option<Resource> {
    super::built_in(autoscaler_names("autoscaling/v2"), with_status(), HorizontalPodAutoscaler)
}

/// The names in either version.
pub(super) fn autoscaler_names(api_version: &str) -> Names {
    let (plural, kind) = ("horizontalpodautoscalers", "HorizontalPodAutoscaler");
    in_all(names(api_version, plural, kind, &["hpa"], Scope::Namespaced))
}

/// The metric of an autoscaler that names none.
pub(super) fn default_metric() -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": DEFAULT_CPU_PERCENT}}})
}

/// The kind's rules, in the form of v2.
pub(super) struct HorizontalPodAutoscaler;

impl Strategy for HorizontalPodAutoscaler {
    fn default(&self, object: &mut Value) {
        let Some(spec) = child(object, "spec") else { return };
        set_default(spec, "minReplicas", 1);
        if list(spec, "/metrics").is_empty() {
            set(spec, "metrics", json!([default_metric()]));
        }
        let Some(behavior) = spec.get_mut("behavior").filter(|b| b.is_object()) else { return };
        let percent = json!({"type": "Percent", "value": 100, "periodSeconds": 15});
        let pods = json!({"type": "Pods", "value": 4, "periodSeconds": 15});
        if let Some(up) = child(behavior, "scaleUp") {
            set_default(up, "stabilizationWindowSeconds", 0);
            rules(up, json!([pods, percent]));
        }
        if let Some(down) = child(behavior, "scaleDown") {
            rules(down, json!([percent]));
        }
    }
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"desiredReplicas": 0}));
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = at(object, "spec");
        let (min, max) = (int(spec, "/minReplicas"), int(spec, "/maxReplicas").unwrap_or(0));
        let mut invalid = |key: &str, n: i64, message: &str| {
            errors.push(FieldError::invalid(format!("spec.{key}"), &json!(n), message));
        };
        if let Some(min) = min.filter(|n| *n < 1) {
            invalid("minReplicas", min, "must be greater than or equal to 1");
        }
        if max < 1 {
            invalid("maxReplicas", max, "must be greater than 0");
        }
        if min.is_some_and(|min| max < min) {
            invalid("maxReplicas", max, "must be greater than or equal to `minReplicas`");
        }
        reference(&mut errors, at(spec, "scaleTargetRef"), "spec.scaleTargetRef");
        for (i, metric) in list(spec, "/metrics").iter().enumerate() {
            self::metric(&mut errors, metric, &format!("spec.metrics[{i}]"));
        }
        for key in ["scaleUp", "scaleDown"] {
            let rules = at(spec, "behavior").get(key).unwrap_or(&Value::Null);
            if !rules.is_null() {
                scaling_rules(&mut errors, rules, &format!("spec.behavior.{key}"));
            }
        }
        non_negative(&mut errors, at(object, "status"), "status", &["currentReplicas", "desiredReplicas"]);
        errors
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Reference", "string", "What is scaled."),
            Column::new("Targets", "string", "Each metric now, and what it should be."),
            Column::new("MinPods", "string", "Fewest pods."),
            Column::new("MaxPods", "string", "Most pods."),
            Column::new("Replicas", "string", "Pods now."),
            Column::age(),
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let target = at(object, "spec.scaleTargetRef");
        let min = int(object, "/spec/minReplicas").map_or("<unset>".into(), |n| n.to_string());
        vec![
            table::name(object),
            json!(format!("{}/{}", text(target, "/kind"), text(target, "/name"))),
            json!(metrics_cell(object)),
            json!(min),
            json!(int(object, "/spec/maxReplicas").unwrap_or(0)),
            json!(int(object, "/status/currentReplicas").unwrap_or(0)),
            table::age(object, now),
        ]
    }
}

fn rules(rules: &mut Value, policies: Value) {
    set_default(rules, "selectPolicy", "Max");
    set_default(rules, "policies", policies);
}

fn reference(errors: &mut Vec<FieldError>, reference: &Value, field: &str) {
    for key in ["kind", "name"] {
        let value = text(reference, &format!("/{key}"));
        match value {
            "" => errors.push(FieldError::required(format!("{field}.{key}"), "")),
            value => report(errors, format!("{field}.{key}"), &json!(value), path_segment(value)),
        }
    }
}

fn metric(errors: &mut Vec<FieldError>, metric: &Value, field: &str) {
    let kind = text(metric, "/type");
    if kind.is_empty() {
        errors.push(FieldError::required(format!("{field}.type"), "must specify a metric source type"));
    }
    one_of(errors, metric, field, "type", &SOURCE_TYPES);
    for (type_, key) in SOURCES {
        let source = at(metric, key);
        let field = format!("{field}.{key}");
        match (kind == type_, source.is_null()) {
            (true, true) => {
                errors.push(FieldError::required(field, "must populate information for the given metric source"));
            }
            (true, false) => self::source(errors, type_, source, &field),
            (false, false) => {
                errors.push(FieldError::forbidden(field, "must populate the given metric source only"));
            }
            (false, true) => {}
        }
    }
}

fn source(errors: &mut Vec<FieldError>, kind: &str, source: &Value, field: &str) {
    let target_field = format!("{field}.target");
    let target = at(source, "target");
    match kind {
        "Resource" | "ContainerResource" => {
            if text(source, "/name").is_empty() {
                errors.push(FieldError::required(format!("{field}.name"), "must specify a resource name"));
            }
            if kind == "ContainerResource" && text(source, "/container").is_empty() {
                errors.push(FieldError::required(format!("{field}.container"), "must specify a container"));
            }
        }
        _ => {
            if kind == "Object" {
                reference(errors, at(source, "describedObject"), &format!("{field}.describedObject"));
            }
            match text(source, "/metric/name") {
                "" => {
                    let message = "must specify a metric name";
                    errors.push(FieldError::required(format!("{field}.metric.name"), message));
                }
                name => report(errors, format!("{field}.metric.name"), &json!(name), path_segment(name)),
            }
        }
    }
    metric_target(errors, target, &target_field);
    let (value, average) = (has(target, "/value"), has(target, "/averageValue"));
    let utilization = has(target, "/averageUtilization");
    let mut need = |key: &str, message: &str| {
        errors.push(FieldError::required(format!("{target_field}.{key}"), message));
    };
    match kind {
        "Resource" | "ContainerResource" if !utilization && !average => {
            need("averageUtilization", "must set either a target raw value or a target utilization");
        }
        "Resource" | "ContainerResource" if utilization && average => {
            let message = "may not set both a target raw value and a target utilization";
            errors.push(FieldError::forbidden(format!("{target_field}.averageValue"), message));
        }
        "Pods" if !average => need("averageValue", "must specify a positive target averageValue"),
        "Object" | "External" if !value && !average => {
            need("averageValue", "must set either a target value or averageValue");
        }
        "External" if value && average => {
            let message = "may not set both a target value for metric and a per-pod target";
            errors.push(FieldError::forbidden(format!("{target_field}.value"), message));
        }
        _ => {}
    }
}

fn metric_target(errors: &mut Vec<FieldError>, target: &Value, field: &str) {
    if text(target, "/type").is_empty() {
        let message = "must specify a metric target type";
        errors.push(FieldError::required(format!("{field}.type"), message));
    } else if !TARGET_TYPES.contains(&text(target, "/type")) {
        let message = "must be either Utilization, Value, or AverageValue";
        errors.push(FieldError::invalid(format!("{field}.type"), at(target, "type"), message));
    }
    for key in ["value", "averageValue"] {
        let value = at(target, key);
        if quantity(value).is_ok_and(|q| q.is_zero() || q.is_negative()) {
            errors.push(FieldError::invalid(format!("{field}.{key}"), value, "must be positive"));
        }
    }
    if let Some(n) = int(target, "/averageUtilization").filter(|n| *n < 1) {
        errors.push(FieldError::invalid(format!("{field}.averageUtilization"), &json!(n), "must be greater than 0"));
    }
}

fn scaling_rules(errors: &mut Vec<FieldError>, rules: &Value, field: &str) {
    let key = "stabilizationWindowSeconds";
    let window = int(rules, "/stabilizationWindowSeconds").unwrap_or(0);
    if window < 0 {
        let message = "must be greater than or equal to zero";
        errors.push(FieldError::invalid(format!("{field}.{key}"), &json!(window), message));
    } else if window > MAX_WINDOW_SECONDS {
        let message = format!("must be less than or equal to {MAX_WINDOW_SECONDS}");
        errors.push(FieldError::invalid(format!("{field}.{key}"), &json!(window), &message));
    }
    one_of(errors, rules, field, "selectPolicy", &["Disabled", "Max", "Min"]);
    let tolerance = at(rules, "tolerance");
    if quantity(tolerance).is_ok_and(|q| q.is_negative()) {
        let message = "must be greater than or equal to 0";
        errors.push(FieldError::invalid(format!("{field}.tolerance"), tolerance, message));
    }
    if list(rules, "/policies").is_empty() {
        errors.push(FieldError::required(format!("{field}.policies"), "must specify at least one Policy"));
    }
    for (i, policy) in list(rules, "/policies").iter().enumerate() {
        let field = format!("{field}.policies[{i}]");
        required(errors, policy, &field, &["type"]);
        one_of(errors, policy, &field, "type", &["Percent", "Pods"]);
        for key in ["value", "periodSeconds"] {
            let n = int(policy, &format!("/{key}")).unwrap_or(0);
            if n <= 0 {
                errors.push(FieldError::invalid(format!("{field}.{key}"), &json!(n), "must be greater than zero"));
            } else if key == "periodSeconds" && n > MAX_PERIOD_SECONDS {
                let message = format!("must be less than or equal to {MAX_PERIOD_SECONDS}");
                errors.push(FieldError::invalid(format!("{field}.{key}"), &json!(n), &message));
            }
        }
    }
}

/// Each metric as `current/target`; the first two, and how many more there are.
fn metrics_cell(object: &Value) -> String {
    let metrics = list(object, "/spec/metrics");
    let current = |i: usize| list(object, "/status/currentMetrics").get(i).unwrap_or(&Value::Null);
    let shown: Vec<String> =
        metrics.iter().enumerate().take(SHOWN_METRICS).map(|(i, metric)| metric_cell(metric, current(i))).collect();
    match metrics.len() {
        0 => "<none>".into(),
        n if n > SHOWN_METRICS => format!("{} + {} more...", shown.join(", "), n - SHOWN_METRICS),
        _ => shown.join(", "),
    }
}

fn metric_cell(metric: &Value, current: &Value) -> String {
    let kind = text(metric, "/type");
    let Some((_, key)) = SOURCES.iter().find(|(type_, _)| *type_ == kind) else { return "<unknown type>".into() };
    let (source, now) = (at(metric, key), at(at(current, key), "current"));
    let target = at(source, "target");
    let amount = |of: &Value, field: &str| at(of, field).as_str().map(str::to_string);
    let percent = |of: &Value| int(of, "/averageUtilization").map(|n| format!("{n}%"));
    let unknown = || "<unknown>".to_string();
    match (kind, amount(target, "averageValue")) {
        ("Resource" | "ContainerResource", Some(wanted)) => {
            let now = amount(now, "averageValue").unwrap_or_else(unknown);
            format!("{}: {now}/{wanted}", text(source, "/name"))
        }
        ("Resource" | "ContainerResource", None) => {
            let (now, wanted) = (percent(now).unwrap_or_else(unknown), percent(target).unwrap_or("<auto>".into()));
            format!("{}: {now}/{wanted}", text(source, "/name"))
        }
        ("Pods", wanted) => {
            format!("{}/{}", amount(now, "averageValue").unwrap_or_else(unknown), wanted.unwrap_or("0".into()))
        }
        (_, Some(wanted)) => format!("{}/{wanted} (avg)", amount(now, "averageValue").unwrap_or_else(unknown)),
        (_, None) => {
            let wanted = amount(target, "value").unwrap_or("0".into());
            format!("{}/{wanted}", amount(now, "value").unwrap_or_else(unknown))
        }
    }
}
