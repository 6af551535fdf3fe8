//! StatefulSet.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{amount, at, non_negative, same};
use super::value::{child, has, items_mut, list, remove, set, set_default, set_default_nonzero, text};
use super::workload::{self, container_cells, count, wide_columns};
use super::{in_all, names, persistent_volume_claim, pod_template, with_scale};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{self, Check, report};

const RETENTION: [&str; 2] = ["Retain", "Delete"];
/// What may change in the spec.
const MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];
const FORBIDDEN: &str = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
    'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are \
    forbidden";

/// StatefulSets.
pub fn resource() -> Option<Resource> {
    let names = in_all(names("apps/v1", "statefulsets", "StatefulSet", &["sts"], Scope::Namespaced));
    super::built_in(names, with_scale(), StatefulSet)
}

struct StatefulSet;

const COUNTS: [&str; 7] = [
    "replicas",
    "readyReplicas",
    "currentReplicas",
    "updatedReplicas",
    "availableReplicas",
    "observedGeneration",
    "collisionCount",
];
const AT_MOST: [(&str, &str, &str); 5] = [
    ("readyReplicas", "replicas", "status.replicas"),
    ("currentReplicas", "replicas", "status.replicas"),
    ("updatedReplicas", "replicas", "status.replicas"),
    ("availableReplicas", "replicas", "status.replicas"),
    ("availableReplicas", "readyReplicas", "status.readyReplicas"),
];

impl Strategy for StatefulSet {
    fn default(&self, object: &mut Value) {
        let Some(spec) = child(object, "spec") else { return };
        set_default(spec, "replicas", 1);
        set_default(spec, "revisionHistoryLimit", 10);
        set_default_nonzero(spec, "podManagementPolicy", "OrderedReady");
        if let Some(strategy) = child(spec, "updateStrategy") {
            set_default_nonzero(strategy, "type", "RollingUpdate");
            if text(strategy, "/type") == "RollingUpdate"
                && let Some(rolling) = child(strategy, "rollingUpdate")
            {
                set_default(rolling, "partition", 0);
            }
        }
        if let Some(retention) = child(spec, "persistentVolumeClaimRetentionPolicy") {
            set_default_nonzero(retention, "whenDeleted", "Retain");
            set_default_nonzero(retention, "whenScaled", "Retain");
        }
        for claim in items_mut(spec, "/volumeClaimTemplates") {
            set_default(claim, "apiVersion", "v1");
            set_default(claim, "kind", "PersistentVolumeClaim");
            persistent_volume_claim::default(claim);
        }
        pod_template::default(spec);
    }
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"replicas": 0, "availableReplicas": 0}));
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = workload::selected(object, "statefulset");
        let template = with_claims(object);
        errors.extend(pod_template::validate_always(&template, "spec.template", "StatefulSet"));
        match text(object, "/spec/podManagementPolicy") {
            "OrderedReady" | "Parallel" => {}
            "" => errors.push(FieldError::required("spec.podManagementPolicy", "")),
            other => {
                let message = "must be 'OrderedReady' or 'Parallel'";
                errors.push(FieldError::invalid("spec.podManagementPolicy", &json!(other), message));
            }
        }
        let service = at(object, "spec.serviceName");
        if let Some(name) = service.as_str().filter(|name| !name.is_empty()) {
            // It becomes the pods' subdomain.
            report(&mut errors, "spec.serviceName", service, validate::dns1123_label(name));
        }
        for (i, claim) in list(object, "/spec/volumeClaimTemplates").iter().enumerate() {
            let field = format!("spec.volumeClaimTemplates[{i}].spec");
            errors.extend(persistent_volume_claim::claim_spec(at(claim, "spec"), &field));
        }
        update_strategy(&mut errors, at(object, "spec.updateStrategy"));
        for key in ["whenDeleted", "whenScaled"] {
            let field = format!("spec.persistentVolumeClaimRetentionPolicy.{key}");
            let value = at(object, &field);
            if !value.is_null() && !RETENTION.iter().any(|r| value == r) {
                errors.push(FieldError::not_supported(field, value, &RETENTION));
            }
        }
        non_negative(&mut errors, at(object, "spec"), "spec", &["revisionHistoryLimit"]);
        non_negative(&mut errors, at(object, "spec.ordinals"), "spec.ordinals", &["start"]);
        errors.extend(workload::status_counts(object, &COUNTS, &AT_MOST));
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let rest = |object: &Value| {
            let mut spec = at(object, "spec").clone();
            for key in MUTABLE {
                remove(&mut spec, "", key);
            }
            spec
        };
        let mut errors: Vec<FieldError> = workload::collisions(new, old).into_iter().collect();
        if !same(&rest(new), &rest(old)) {
            errors.push(FieldError::forbidden("spec", FORBIDDEN));
        }
        errors
    }
    fn columns(&self) -> Vec<Column> {
        let [containers, images, _] = wide_columns();
        vec![
            Column::name(),
            Column::new("Ready", "string", "Ready pods of those asked for."),
            Column::age(),
            containers,
            images,
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let ready = format!("{}/{}", count(object, "/status/readyReplicas"), count(object, "/spec/replicas"));
        let [containers, images] = container_cells(at(object, "spec.template"));
        vec![table::name(object), json!(ready), table::age(object, now), containers, images]
    }
    /// Pods are named after the set and serve as hosts.
    fn validate_name(&self, name: &str) -> Check {
        validate::dns1123_label(name)
    }
}

/// The pod template with a volume for each claim template, as the pods will have them.
fn with_claims(object: &Value) -> Value {
    let mut template = at(object, "spec.template").clone();
    let mut volumes = list(&template, "/spec/volumes").to_vec();
    for claim in list(object, "/spec/volumeClaimTemplates") {
        let name = text(claim, "/metadata/name");
        if !volumes.iter().any(|v| text(v, "/name") == name) {
            volumes.push(json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
        }
    }
    if let Some(spec) = template.get_mut("spec").filter(|s| s.is_object()) {
        set(spec, "volumes", volumes);
    }
    template
}

fn update_strategy(errors: &mut Vec<FieldError>, strategy: &Value) {
    const FIELD: &str = "spec.updateStrategy";
    let rolling = at(strategy, "rollingUpdate");
    let field = format!("{FIELD}.rollingUpdate");
    match text(strategy, "/type") {
        "RollingUpdate" => {
            non_negative(errors, rolling, &field, &["partition"]);
            let value = at(rolling, "maxUnavailable");
            let field = format!("{field}.maxUnavailable");
            match amount(value, true) {
                Ok(0) if !value.is_null() => errors.push(FieldError::invalid(field, value, "cannot be 0")),
                Ok(_) => {}
                Err(message) => errors.push(FieldError::invalid(field, value, &message)),
            }
        }
        "OnDelete" => {
            if has(strategy, "/rollingUpdate") {
                let message = "only allowed for updateStrategy 'RollingUpdate'";
                errors.push(FieldError::invalid(field, rolling, message));
            }
        }
        "" => errors.push(FieldError::required(FIELD, "")),
        _ => errors.push(FieldError::invalid(FIELD, strategy, "must be 'RollingUpdate' or 'OnDelete'")),
    }
}
