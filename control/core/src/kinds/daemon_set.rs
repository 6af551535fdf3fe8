//! DaemonSet.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{amount, at, immutable, non_negative, same};
use super::value::{child, has, set, set_default, set_default_nonzero, text};
use super::workload::{self, count, format_labels, wide_cells, wide_columns};
use super::{in_all, names, pod_template, with_status};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};

/// How often the template has changed; kept as old clients know it.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// DaemonSets.
pub fn resource() -> Option<Resource> {
    let names = in_all(names("apps/v1", "daemonsets", "DaemonSet", &["ds"], Scope::Namespaced));
    super::built_in(names, with_status(), DaemonSet)
}

struct DaemonSet;

const COUNTS: [&str; 9] = [
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
    "collisionCount",
];

impl Strategy for DaemonSet {
    fn default(&self, object: &mut Value) {
        let Some(spec) = child(object, "spec") else { return };
        set_default(spec, "revisionHistoryLimit", 10);
        if let Some(strategy) = child(spec, "updateStrategy") {
            set_default_nonzero(strategy, "type", "RollingUpdate");
            if text(strategy, "/type") == "RollingUpdate"
                && let Some(rolling) = child(strategy, "rollingUpdate")
            {
                set_default(rolling, "maxUnavailable", 1);
                set_default(rolling, "maxSurge", 0);
            }
        }
        pod_template::default(spec);
    }
    fn prepare_create(&self, object: &mut Value) {
        set_template_generation(object, template_generation(object).max(1));
        set(
            object,
            "status",
            json!({"currentNumberScheduled": 0, "desiredNumberScheduled": 0,
            "numberMisscheduled": 0, "numberReady": 0}),
        );
    }
    fn prepare_update(&self, new: &mut Value, old: &Value) {
        let changed = !same(at(new, "spec.template"), at(old, "spec.template"));
        set_template_generation(new, template_generation(old).saturating_add(i64::from(changed)));
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = workload::validate(object, "daemonset", "DaemonSet");
        non_negative(&mut errors, at(object, "spec"), "spec", &["revisionHistoryLimit"]);
        update_strategy(&mut errors, at(object, "spec.updateStrategy"));
        errors.extend(workload::status_counts(object, &COUNTS, &[]));
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = immutable(new, old, &["spec.selector"]);
        errors.extend(workload::collisions(new, old));
        errors
    }
    fn columns(&self) -> Vec<Column> {
        let mut columns = vec![
            Column::name(),
            Column::new("Desired", "integer", "Nodes that should run a pod."),
            Column::new("Current", "integer", "Nodes that run at least one."),
            Column::new("Ready", "integer", "Nodes whose pod is ready."),
            Column::new("Up-to-date", "integer", "Nodes with a pod of the latest template."),
            Column::new("Available", "integer", "Nodes whose pod has been ready for minReadySeconds."),
            Column::new("Node Selector", "string", "Labels of the nodes it is for."),
            Column::age(),
        ];
        columns.extend(wide_columns());
        columns
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let mut cells = vec![
            table::name(object),
            count(object, "/status/desiredNumberScheduled"),
            count(object, "/status/currentNumberScheduled"),
            count(object, "/status/numberReady"),
            count(object, "/status/updatedNumberScheduled"),
            count(object, "/status/numberAvailable"),
            json!(format_labels(at(object, "spec.template.spec.nodeSelector"))),
            table::age(object, now),
        ];
        cells.extend(wide_cells(at(object, "spec")));
        cells
    }
}

fn template_generation(object: &Value) -> i64 {
    let annotations = at(object, "metadata.annotations");
    annotations.get(TEMPLATE_GENERATION).and_then(Value::as_str).and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn set_template_generation(object: &mut Value, generation: i64) {
    if let Some(annotations) = child(object, "metadata").and_then(|m| child(m, "annotations")) {
        set(annotations, TEMPLATE_GENERATION, generation.to_string());
    }
}

fn update_strategy(errors: &mut Vec<FieldError>, strategy: &Value) {
    const FIELD: &str = "spec.updateStrategy";
    let field = format!("{FIELD}.rollingUpdate");
    match text(strategy, "/type") {
        "OnDelete" => {}
        "RollingUpdate" if !has(strategy, "/rollingUpdate") => errors.push(FieldError::required(field, "")),
        "RollingUpdate" => {
            let mut number = |key: &str| {
                let value = at(strategy, "rollingUpdate").get(key).unwrap_or(&Value::Null);
                amount(value, true).unwrap_or_else(|message| {
                    errors.push(FieldError::invalid(format!("{field}.{key}"), value, &message));
                    // Not zero: one message is enough.
                    i64::from(key == "maxUnavailable")
                })
            };
            match (number("maxUnavailable"), number("maxSurge")) {
                (0, 0) => {
                    let message = "cannot be 0 when maxSurge is 0";
                    errors.push(FieldError::required(format!("{field}.maxUnavailable"), message));
                }
                (0, _) | (_, 0) => {}
                _ => {
                    let message = "may not be set when maxUnavailable is non-zero";
                    let value = at(strategy, "rollingUpdate.maxSurge");
                    errors.push(FieldError::invalid(format!("{field}.maxSurge"), value, message));
                }
            }
        }
        _ => errors.push(FieldError::not_supported(FIELD, strategy, &["RollingUpdate", "OnDelete"])),
    }
}
