//! ReplicationController: the ReplicaSet's forerunner, whose selector is a plain map of labels.

use copepod_api::{FieldError, LabelSelector};
use serde_json::{Value, json};

use super::fields::{at, non_negative};
use super::replica_set::{AT_MOST, COUNTS};
use super::value::{child, int, set, set_default};
use super::workload::{
    container_cells, count, format_labels, label_map, matches_template, status_counts, wide_columns,
};
use super::{in_all, names, pod_template, with_scale};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};

/// ReplicationControllers.
pub fn resource() -> Option<Resource> {
    let names = in_all(names("v1", "replicationcontrollers", "ReplicationController", &["rc"], Scope::Namespaced));
    super::built_in(names, with_scale(), ReplicationController)
}

struct ReplicationController;

impl Strategy for ReplicationController {
    fn default(&self, object: &mut Value) {
        let labels = at(object, "spec.template.metadata.labels").clone();
        let Some(spec) = child(object, "spec") else { return };
        set_default(spec, "replicas", 1);
        pod_template::default(spec);
        if label_map(&labels).is_empty() {
            return;
        }
        if label_map(at(spec, "selector")).is_empty() {
            set(spec, "selector", labels.clone());
        }
        if label_map(at(object, "metadata.labels")).is_empty()
            && let Some(metadata) = child(object, "metadata")
        {
            set(metadata, "labels", labels);
        }
    }
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"replicas": 0}));
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        non_negative(&mut errors, at(object, "spec"), "spec", &["minReadySeconds"]);
        let selector = label_map(at(object, "spec.selector"));
        if selector.is_empty() {
            errors.push(FieldError::required("spec.selector", ""));
        }
        non_negative(&mut errors, at(object, "spec"), "spec", &["replicas"]);
        matches_template(&mut errors, object, &LabelSelector::from_labels(&selector));
        let template = at(object, "spec.template");
        errors.extend(pod_template::validate_always(template, "spec.template", "ReplicationController"));
        errors.extend(status_counts(object, &COUNTS, &AT_MOST));
        errors
    }
    fn orphans_by_default(&self) -> bool {
        true
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
        let [containers, images] = container_cells(at(object, "spec.template"));
        vec![
            table::name(object),
            count(object, "/spec/replicas"),
            count(object, "/status/replicas"),
            count(object, "/status/readyReplicas"),
            table::age(object, now),
            containers,
            images,
            json!(format_labels(at(object, "spec.selector"))),
        ]
    }
    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("status.replicas", int(object, "/status/replicas").unwrap_or(0).to_string())]
    }
    fn field_names(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }
}
