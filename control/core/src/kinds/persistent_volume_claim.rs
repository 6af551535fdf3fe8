//! PersistentVolumeClaim.

use copepod_api::FieldError;
use copepod_api::names::FINALIZER_CLAIM;
use serde_json::{Value, json};

use super::fields::{amounts, at, object_name, required, same};
use super::persistent_volume::{access_modes, modes_cell, storage_class, volume_class_update};
use super::value::{add_finalizer, child, has, remove, set, set_default, set_default_nonzero, text};
use super::workload::label_selector;
use super::{names, with_status};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{IMMUTABLE, dns1123_label, quantity, report};

const IMMUTABLE_SPEC: &str =
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];

/// PersistentVolumeClaims.
pub fn resource() -> Option<Resource> {
    let names = names("v1", "persistentvolumeclaims", "PersistentVolumeClaim", &["pvc"], Scope::Namespaced);
    super::built_in(names, with_status(), PersistentVolumeClaim)
}

struct PersistentVolumeClaim;

impl Strategy for PersistentVolumeClaim {
    fn default(&self, object: &mut Value) {
        default(object);
    }
    fn prepare_create(&self, object: &mut Value) {
        add_finalizer(object, FINALIZER_CLAIM);
        set(object, "status", json!({"phase": "Pending"}));
        if let Some(spec) = child(object, "spec") {
            sync_sources(spec);
        }
    }
    fn prepare_update(&self, new: &mut Value, _old: &Value) {
        if let Some(spec) = child(new, "spec") {
            sync_sources(spec);
        }
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = claim_spec(at(object, "spec"), "spec");
        amounts(&mut errors, at(object, "status.capacity"), "status.capacity");
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        // No class and the class "" are not the same.
        let (class, was) = (at(new, "spec.storageClassName"), at(old, "spec.storageClassName"));
        let bound = [new, old].into_iter().any(|claim| text(claim, "/status/phase") == "Bound");
        if !same(&kept(new, old, bound), &kept(old, old, bound)) || !was.is_null() && class != was {
            errors.push(FieldError::forbidden("spec", IMMUTABLE_SPEC));
        }
        let size = |o: &Value, field: &str| quantity(at(o, field)).ok();
        if let (Some(after), Some(before)) =
            (size(new, "spec.resources.requests.storage"), size(old, "spec.resources.requests.storage"))
            && after < before
            && size(old, "status.capacity.storage").is_none_or(|capacity| after <= capacity)
        {
            let message = "field can not be less than status.capacity";
            errors.push(FieldError::forbidden("spec.resources.requests.storage", message));
        }
        if !same(at(new, "spec.volumeMode"), at(old, "spec.volumeMode")) {
            errors.push(FieldError::invalid("volumeMode", at(new, "spec.volumeMode"), IMMUTABLE));
        }
        volume_class_update(&mut errors, new, old);
        errors
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Status", "string", "Pending, Bound or Lost; Terminating while it is deleted."),
            Column::new("Volume", "string", "The volume that it is bound to."),
            Column::new("Capacity", "string", "Size of that volume."),
            Column::new("Access Modes", "string", "How that volume can be mounted."),
            Column::new("StorageClass", "string", "The class that it asks for."),
            Column::new("VolumeAttributesClass", "string", "The class of attributes that it asks for."),
            Column::age(),
            Column::new("VolumeMode", "string", "Filesystem or Block.").wide(),
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let deleted = has(object, "/metadata/deletionTimestamp");
        let volume = text(object, "/spec/volumeName");
        let (mut capacity, mut modes) = ("", String::new());
        if !volume.is_empty() {
            capacity = text(object, "/status/capacity/storage");
            modes = modes_cell(object, "/status/accessModes");
        }
        vec![
            table::name(object),
            json!(if deleted { "Terminating" } else { text(object, "/status/phase") }),
            json!(volume),
            json!(capacity),
            json!(modes),
            json!(storage_class(object)),
            or_unset(object, "spec.volumeAttributesClassName"),
            table::age(object, now),
            or_unset(object, "spec.volumeMode"),
        ]
    }
}

/// A text cell; `<unset>` if the field is absent.
pub(super) fn or_unset(object: &Value, field: &str) -> Value {
    json!(at(object, field).as_str().unwrap_or("<unset>"))
}

/// Defaults of a claim, of its own or a StatefulSet's template.
pub(super) fn default(claim: &mut Value) {
    if let Some(spec) = child(claim, "spec") {
        set_default(spec, "volumeMode", "Filesystem");
    }
    if let Some(status) = child(claim, "status") {
        set_default_nonzero(status, "phase", "Pending");
    }
}

/// `dataSource` and `dataSourceRef` say the same where only one is given, if that can be said in both.
fn sync_sources(spec: &mut Value) {
    let (source, reference) = (at(spec, "dataSource").clone(), at(spec, "dataSourceRef").clone());
    if !source.is_null() && reference.is_null() {
        set(spec, "dataSourceRef", source);
    } else if source.is_null() && !reference.is_null() && text(&reference, "/namespace").is_empty() {
        let claim = text(&reference, "/apiGroup").is_empty() && text(&reference, "/kind") == "PersistentVolumeClaim";
        let snapshot =
            text(&reference, "/apiGroup") == "snapshot.storage.k8s.io" && text(&reference, "/kind") == "VolumeSnapshot";
        if claim || snapshot {
            set(spec, "dataSource", reference);
        }
    }
}

/// The rules of a claim's spec at `field`, in a claim or in the template of one.
pub(super) fn claim_spec(spec: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    access_modes(&mut errors, spec, field, "at least 1 access mode is required");
    if has(spec, "/selector") {
        errors.extend(label_selector(at(spec, "selector"), &format!("{field}.selector")));
    }
    let (storage, storage_field) = (at(spec, "resources.requests.storage"), format!("{field}.resources[storage]"));
    match quantity(storage) {
        _ if storage.is_null() => errors.push(FieldError::required(storage_field, "")),
        Ok(size) if size.is_zero() || size.is_negative() => {
            errors.push(FieldError::invalid(storage_field, storage, "must be greater than zero"));
        }
        check => report(&mut errors, storage_field, storage, check.map(|_| ())),
    }
    object_name(&mut errors, spec, field, "storageClassName");
    volume_mode(&mut errors, spec, field);
    for key in ["dataSource", "dataSourceRef"] {
        if has(spec, &format!("/{key}")) {
            data_source(&mut errors, at(spec, key), &format!("{field}.{key}"));
        }
    }
    let (source, reference) = (at(spec, "dataSource"), at(spec, "dataSourceRef"));
    let message = if source.is_null() || reference.is_null() {
        ""
    } else if !text(reference, "/namespace").is_empty() {
        "may not be specified when dataSourceRef.namespace is specified"
    } else if ["apiGroup", "kind", "name"].iter().any(|key| source.get(key) != reference.get(key)) {
        "must match dataSourceRef"
    } else {
        ""
    };
    if !message.is_empty() {
        errors.push(FieldError::invalid(field, &json!({}), message));
    }
    object_name(&mut errors, spec, field, "volumeAttributesClassName");
    errors
}

/// The rules of the `volumeMode` in the spec of a volume or claim at `field`.
pub(super) fn volume_mode(errors: &mut Vec<FieldError>, spec: &Value, field: &str) {
    let mode = text(spec, "/volumeMode");
    if has(spec, "/volumeMode") && !VOLUME_MODES.contains(&mode) {
        errors.push(FieldError::not_supported(format!("{field}.volumeMode"), &json!(mode), &VOLUME_MODES));
    }
}

fn data_source(errors: &mut Vec<FieldError>, source: &Value, field: &str) {
    required(errors, source, field, &["name", "kind"]);
    let kind = text(source, "/kind");
    if text(source, "/apiGroup").is_empty() && kind != "PersistentVolumeClaim" {
        let message = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
        errors.push(FieldError::invalid(field, &json!(kind), message));
    }
    object_name(errors, source, field, "apiGroup");
    let namespace = text(source, "/namespace");
    if !namespace.is_empty() {
        report(errors, format!("{field}.namespace"), &json!(namespace), dns1123_label(namespace));
    }
}

/// The part of a claim's spec that may not change from `old` on.
fn kept(claim: &Value, old: &Value, bound: bool) -> Value {
    let mut spec = at(claim, "spec").clone();
    remove(&mut spec, "", "volumeAttributesClassName");
    if text(old, "/spec/volumeName").is_empty() {
        remove(&mut spec, "", "volumeName");
    }
    if !has(old, "/spec/storageClassName") {
        remove(&mut spec, "", "storageClassName");
    }
    if bound {
        remove(&mut spec, "/resources/requests", "storage");
    }
    spec
}
