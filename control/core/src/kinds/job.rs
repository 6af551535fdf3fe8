//! Job.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{at, immutable, same};
use super::job_status::{self, holds};
use super::job_validation;
use super::value::{child, flag, has, int, items_mut, remove, set, set_default, set_default_nonzero, text};
use super::workload::{wide_cells, wide_columns};
use super::{in_all, names, pod_template, with_status};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{IMMUTABLE, dns1123_label};

/// Labels of a job's pods: the job's uid, under the old name and the new.
pub(super) const UID_LABELS: [&str; 2] = ["controller-uid", "batch.kubernetes.io/controller-uid"];
/// Labels of a job's pods: the job's name, under the old name and the new.
pub(super) const NAME_LABELS: [&str; 2] = ["job-name", "batch.kubernetes.io/job-name"];
const BACKOFF_LIMIT: i64 = 6;
/// Of jobs whose indexes have limits of their own: none.
const NO_BACKOFF_LIMIT: i64 = i32::MAX as i64;
/// Parts of the pod template that may change while a job is suspended and has no pods, as its containers' resources.
const SCHEDULING: [(&str, &str); 6] = [
    ("/metadata", "labels"),
    ("/metadata", "annotations"),
    ("/spec", "nodeSelector"),
    ("/spec", "tolerations"),
    ("/spec", "schedulingGates"),
    ("/spec/affinity", "nodeAffinity"),
];

/// Jobs.
pub fn resource() -> Option<Resource> {
    let names = in_all(names("batch/v1", "jobs", "Job", &[], Scope::Namespaced));
    super::built_in(names, with_status(), Job)
}

struct Job;

impl Strategy for Job {
    fn default(&self, object: &mut Value) {
        let Some(spec) = child(object, "spec") else { return };
        if !has(spec, "/completions") && !has(spec, "/parallelism") {
            set(spec, "completions", 1);
        }
        set_default(spec, "parallelism", 1);
        let limit = if has(spec, "/backoffLimitPerIndex") { NO_BACKOFF_LIMIT } else { BACKOFF_LIMIT };
        set_default(spec, "backoffLimit", limit);
        set_default(spec, "completionMode", "NonIndexed");
        set_default(spec, "suspend", false);
        set_default(spec, "manualSelector", false);
        let replacement = if has(spec, "/podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
        set_default(spec, "podReplacementPolicy", replacement);
        template_defaults(spec);
        labels_from_template(object);
    }
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({}));
        if !flag(object, "/spec/manualSelector") {
            generate_selector(object);
            labels_from_template(object);
        }
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = job_validation::generated_selector(object);
        errors.extend(job_validation::job(object));
        let completions = int(object, "/spec/completions").unwrap_or(0);
        if text(object, "/spec/completionMode") == "Indexed" && completions > 0 {
            let name = text(object, "/metadata/name");
            let last = format!("{name}-{}", completions - 1);
            if dns1123_label(&last).is_err() {
                let message = format!("will not able to create pod with invalid DNS label: {last}");
                errors.push(FieldError::invalid("metadata.name", &json!(name), &message));
            }
        }
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = completions(new, old);
        errors.extend(immutable(new, old, &["spec.selector"]));
        if !same(&fixed_template(new, old), &fixed_template(old, old)) {
            errors.push(FieldError::invalid("spec.template", at(new, "spec.template"), IMMUTABLE));
        }
        let fields = ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"];
        let fields = fields.map(|f| format!("spec.{f}"));
        errors.extend(immutable(new, old, &fields.each_ref().map(String::as_str)));
        errors.extend(job_status::change(new, old));
        errors
    }
    fn orphans_by_default(&self) -> bool {
        true
    }
    fn columns(&self) -> Vec<Column> {
        let mut columns = vec![
            Column::name(),
            Column::new("Status", "string", "Running, Complete, Failed, Suspended ..."),
            Column::new("Completions", "string", "Pods that succeeded, of those asked for."),
            Column::new("Duration", "string", "Time from its start to its end, or to now."),
            Column::age(),
        ];
        columns.extend(wide_columns());
        columns
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let mut cells = vec![
            table::name(object),
            json!(status(object)),
            json!(completions_cell(object)),
            json!(duration(object, now)),
            table::age(object, now),
        ];
        cells.extend(wide_cells(at(object, "spec")));
        cells
    }
    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("status.successful", int(object, "/status/succeeded").unwrap_or(0).to_string())]
    }
    fn field_names(&self) -> &'static [&'static str] {
        &["status.successful"]
    }
}

/// What the jobs of a CronJob's template get by default too.
pub(super) fn template_defaults(spec: &mut Value) {
    for rule in items_mut(spec, "/podFailurePolicy/rules") {
        for pattern in items_mut(rule, "/onPodConditions") {
            set_default_nonzero(pattern, "status", "True");
        }
    }
    pod_template::default(spec);
}

/// A job without labels has its pods'.
fn labels_from_template(object: &mut Value) {
    let labels = at(object, "spec.template.metadata.labels").clone();
    let empty = |labels: &Value| labels.as_object().is_none_or(serde_json::Map::is_empty);
    if !empty(&labels)
        && empty(at(object, "metadata.labels"))
        && let Some(metadata) = child(object, "metadata")
    {
        set(metadata, "labels", labels);
    }
}

/// Labels the pods with the job's name and uid, and selects them by the uid.
fn generate_selector(object: &mut Value) {
    let (name, uid) = (text(object, "/metadata/name").to_string(), text(object, "/metadata/uid").to_string());
    let Some(spec) = child(object, "spec") else { return };
    let metadata = child(spec, "template").and_then(|t| child(t, "metadata"));
    if let Some(labels) = metadata.and_then(|m| child(m, "labels")) {
        NAME_LABELS.iter().for_each(|label| set_default(labels, label, name.clone()));
        UID_LABELS.iter().for_each(|label| set_default(labels, label, uid.clone()));
    }
    let [_, label] = UID_LABELS;
    if let Some(labels) = child(spec, "selector").and_then(|s| child(s, "matchLabels")) {
        set_default(labels, label, uid);
    }
}

/// Only indexed jobs may change their completions, and only with their parallelism.
fn completions(new: &Value, old: &Value) -> Vec<FieldError> {
    const FIELD: &str = "spec.completions";
    let after = at(new, FIELD);
    if text(new, "/spec/completionMode") != "Indexed" {
        return immutable(new, old, &[FIELD]);
    }
    if after.is_null() || after == at(old, FIELD) || after == at(new, "spec.parallelism") {
        return Vec::new();
    }
    vec![FieldError::invalid(FIELD, after, "can only be modified in tandem with spec.parallelism")]
}

/// The part of a job's template that may not change from `old` on.
fn fixed_template(job: &Value, old: &Value) -> Value {
    let mut template = at(job, "spec.template").clone();
    let rests = !has(old, "/status/startTime") || holds(old, "Suspended");
    if flag(old, "/spec/suspend") && rests && int(old, "/status/active").unwrap_or(0) == 0 {
        for (parent, key) in SCHEDULING {
            remove(&mut template, parent, key);
        }
        for containers in ["/spec/containers", "/spec/initContainers"] {
            items_mut(&mut template, containers).for_each(|container| drop(remove(container, "", "resources")));
        }
    }
    template
}

fn status(object: &Value) -> &'static str {
    if holds(object, "Complete") {
        "Complete"
    } else if holds(object, "Failed") {
        "Failed"
    } else if has(object, "/metadata/deletionTimestamp") {
        "Terminating"
    } else if holds(object, "Suspended") {
        "Suspended"
    } else if holds(object, "FailureTarget") {
        "FailureTarget"
    } else {
        "Running"
    }
}

fn completions_cell(object: &Value) -> String {
    let succeeded = int(object, "/status/succeeded").unwrap_or(0);
    match (int(object, "/spec/completions"), int(object, "/spec/parallelism").unwrap_or(0)) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        _ => format!("{succeeded}/1"),
    }
}

fn duration(object: &Value, now: i64) -> String {
    let time = |field: &str| table::epoch_seconds(text(object, field));
    let Some(start) = time("/status/startTime") else { return String::new() };
    table::human_duration(time("/status/completionTime").unwrap_or(now).saturating_sub(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_of_a_job_at_rest_may_be_placed_and_sized_anew() {
        let job = |suspend: bool, status: Value, image: &str, cpu: &str, zone: &str| {
            json!({"spec": {"suspend": suspend, "template": {"spec": {"nodeSelector": {"zone": zone},
                "containers": [{"name": "c", "image": image, "resources": {"requests": {"cpu": cpu}}}]}}}, "status": status})
        };
        let suspended = json!([{"type": "Suspended", "status": "True"}]);
        for (suspend, status, may) in [
            (false, json!({}), false),
            (true, json!({}), true),
            (true, json!({"startTime": "2026-01-01T00:00:00Z"}), false),
            (true, json!({"startTime": "2026-01-01T00:00:00Z", "conditions": suspended}), true),
            (true, json!({"active": 1, "conditions": suspended}), false),
        ] {
            let old = job(suspend, status.clone(), "i", "1", "a");
            let refused = |new: Value| !Job.validate_update(&new, &old).is_empty();
            assert!(!refused(old.clone()), "{status}");
            assert_eq!(refused(job(suspend, status.clone(), "i", "2", "a")), !may, "resources: {status}");
            assert_eq!(refused(job(suspend, status.clone(), "i", "1", "b")), !may, "placing: {status}");
            assert!(refused(job(suspend, status.clone(), "j", "1", "a")), "image: {status}");
        }
    }
}
