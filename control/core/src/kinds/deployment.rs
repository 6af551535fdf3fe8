//! Deployment.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{amount, at, immutable, non_negative};
use super::value::{child, has, int, remove, set, set_default, set_default_nonzero, text};
use super::workload::{self, collisions, count, status_counts, wide_cells, wide_columns};
use super::{in_all, names, pod_template, with_scale};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};

const STRATEGIES: [&str; 2] = ["Recreate", "RollingUpdate"];

/// Deployments.
pub fn resource() -> Option<Resource> {
    let names = in_all(names("apps/v1", "deployments", "Deployment", &["deploy"], Scope::Namespaced));
    super::built_in(names, with_scale(), Deployment)
}

struct Deployment;

const COUNTS: [&str; 8] = [
    "observedGeneration",
    "replicas",
    "updatedReplicas",
    "readyReplicas",
    "availableReplicas",
    "unavailableReplicas",
    "terminatingReplicas",
    "collisionCount",
];
const AT_MOST: [(&str, &str, &str); 4] = [
    ("updatedReplicas", "replicas", "status.replicas"),
    ("readyReplicas", "replicas", "status.replicas"),
    ("availableReplicas", "replicas", "status.replicas"),
    ("availableReplicas", "readyReplicas", "readyReplicas"),
];

impl Strategy for Deployment {
    /// Labels are no part of the status; the controller writes its annotations with it.
    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        let labels = old.pointer("/metadata/labels");
        match (child(new, "metadata"), labels) {
            (Some(meta), Some(labels)) => set(meta, "labels", labels.clone()),
            (Some(meta), None) => drop(remove(meta, "", "labels")),
            (None, _) => {}
        }
    }
    fn default(&self, object: &mut Value) {
        let Some(spec) = child(object, "spec") else { return };
        set_default(spec, "replicas", 1);
        set_default(spec, "revisionHistoryLimit", 10);
        set_default(spec, "progressDeadlineSeconds", 600);
        if let Some(strategy) = child(spec, "strategy") {
            set_default_nonzero(strategy, "type", "RollingUpdate");
            if text(strategy, "/type") == "RollingUpdate"
                && let Some(rolling) = child(strategy, "rollingUpdate")
            {
                set_default(rolling, "maxUnavailable", "25%");
                set_default(rolling, "maxSurge", "25%");
            }
        }
        pod_template::default(spec);
    }
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({}));
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = workload::validate(object, "deployment", "ReplicaSet");
        errors.extend(strategy(object));
        non_negative(&mut errors, at(object, "spec"), "spec", &["revisionHistoryLimit", "progressDeadlineSeconds"]);
        let ready = int(object, "/spec/minReadySeconds").unwrap_or(0);
        if let Some(deadline) = int(object, "/spec/progressDeadlineSeconds").filter(|d| *d <= ready) {
            let message = "must be greater than minReadySeconds";
            errors.push(FieldError::invalid("spec.progressDeadlineSeconds", &json!(deadline), message));
        }
        errors.extend(status_counts(object, &COUNTS, &AT_MOST));
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = immutable(new, old, &["spec.selector"]);
        errors.extend(collisions(new, old));
        errors
    }
    /// Annotations count: the controller copies them to ReplicaSets.
    fn bumps_generation(&self, new: &Value, old: &Value) -> bool {
        let annotations = |o: &Value| o.pointer("/metadata/annotations").filter(|a| **a != json!({})).cloned();
        new.get("spec") != old.get("spec") || annotations(new) != annotations(old)
    }
    fn columns(&self) -> Vec<Column> {
        let mut columns = vec![
            Column::name(),
            Column::new("Ready", "string", "Ready pods of those asked for."),
            Column::new("Up-to-date", "string", "Pods of the latest template."),
            Column::new("Available", "string", "Pods ready for at least minReadySeconds."),
            Column::age(),
        ];
        columns.extend(wide_columns());
        columns
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let ready = format!("{}/{}", count(object, "/status/readyReplicas"), count(object, "/spec/replicas"));
        let mut cells = vec![
            table::name(object),
            json!(ready),
            count(object, "/status/updatedReplicas"),
            count(object, "/status/availableReplicas"),
            table::age(object, now),
        ];
        cells.extend(wide_cells(at(object, "spec")));
        cells
    }
}

fn strategy(object: &Value) -> Vec<FieldError> {
    const FIELD: &str = "spec.strategy";
    let mut errors = Vec::new();
    let rolling = format!("{FIELD}.rollingUpdate");
    match text(object, "/spec/strategy/type") {
        "Recreate" => {
            if has(object, "/spec/strategy/rollingUpdate") {
                let message = "may not be specified when strategy `type` is 'Recreate'";
                errors.push(FieldError::forbidden(rolling, message));
            }
        }
        "RollingUpdate" => {
            let mut zero = true;
            for field in ["maxUnavailable", "maxSurge"] {
                let value = object.pointer(&format!("/spec/strategy/rollingUpdate/{field}")).unwrap_or(&Value::Null);
                match amount(value, field == "maxUnavailable") {
                    Ok(n) => zero &= n == 0,
                    Err(message) => {
                        zero = false;
                        errors.push(FieldError::invalid(format!("{rolling}.{field}"), value, &message));
                    }
                }
            }
            if zero {
                let value = object.pointer("/spec/strategy/rollingUpdate/maxUnavailable").unwrap_or(&Value::Null);
                let message = "may not be 0 when `maxSurge` is 0";
                errors.push(FieldError::invalid(format!("{rolling}.maxUnavailable"), value, message));
            }
        }
        "" => errors.push(FieldError::required(format!("{FIELD}.type"), "")),
        other => errors.push(FieldError::not_supported(format!("{FIELD}.type"), &json!(other), &STRATEGIES)),
    }
    errors
}
