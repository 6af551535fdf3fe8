//! ReplicaSet.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{at, immutable};
use super::value::{child, set, set_default};
use super::workload::{self, count, wide_cells, wide_columns};
use super::{in_all, names, pod_template, with_scale};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};

/// ReplicaSets.
pub fn resource() -> Option<Resource> {
    let names = in_all(names("apps/v1", "replicasets", "ReplicaSet", &["rs"], Scope::Namespaced));
    super::built_in(names, with_scale(), ReplicaSet)
}

struct ReplicaSet;

/// Counts in the status of a ReplicaSet or ReplicationController.
pub(super) const COUNTS: [&str; 6] = [
    "replicas",
    "fullyLabeledReplicas",
    "readyReplicas",
    "availableReplicas",
    "terminatingReplicas",
    "observedGeneration",
];
/// Which of them are at most which.
pub(super) const AT_MOST: [(&str, &str, &str); 4] = [
    ("fullyLabeledReplicas", "replicas", "status.replicas"),
    ("readyReplicas", "replicas", "status.replicas"),
    ("availableReplicas", "replicas", "status.replicas"),
    ("availableReplicas", "readyReplicas", "readyReplicas"),
];

impl Strategy for ReplicaSet {
    fn default(&self, object: &mut Value) {
        let Some(spec) = child(object, "spec") else { return };
        set_default(spec, "replicas", 1);
        pod_template::default(spec);
    }
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"replicas": 0}));
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = workload::validate(object, "replica set", "ReplicaSet");
        errors.extend(workload::status_counts(object, &COUNTS, &AT_MOST));
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        immutable(new, old, &["spec.selector"])
    }
    fn columns(&self) -> Vec<Column> {
        let mut columns = vec![
            Column::name(),
            Column::new("Desired", "integer", "Pods asked for."),
            Column::new("Current", "integer", "Pods that exist."),
            Column::new("Ready", "integer", "Pods that are ready."),
            Column::age(),
        ];
        columns.extend(wide_columns());
        columns
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let mut cells = vec![
            table::name(object),
            count(object, "/spec/replicas"),
            count(object, "/status/replicas"),
            count(object, "/status/readyReplicas"),
            table::age(object, now),
        ];
        cells.extend(wide_cells(at(object, "spec")));
        cells
    }
    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("status.replicas", super::value::int(object, "/status/replicas").unwrap_or(0).to_string())]
    }
    fn field_names(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }
}
