//! PersistentVolume.

use copepod_api::FieldError;
use copepod_api::names::FINALIZER_VOLUME;
use serde_json::{Value, json};

use super::fields::{at, object_name, one_of, required, same};
use super::persistent_volume_claim::{or_unset, volume_mode};
use super::pod_affinity::node_selector;
use super::pod_volumes::{host_path, no_backsteps};
use super::value::{add_finalizer, child, entries, has, remove, set, set_default, set_default_nonzero, strings, text};
use super::{names, with_status};
use super::{volume_defaults, volume_sources};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{IMMUTABLE, quantity, report};

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
/// Fields of the spec that are not the volume's source.
const PLAIN_FIELDS: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

/// Types of volumes, in the order in which upstream looks for them: the first that is there counts.
const TYPES: [&str; 22] = [
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "hostPath",
    "glusterfs",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flocker",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];

/// PersistentVolumes.
pub fn resource() -> Option<Resource> {
    let names = names("v1", "persistentvolumes", "PersistentVolume", &["pv"], Scope::Cluster);
    super::built_in(names, with_status(), PersistentVolume)
}

struct PersistentVolume;

impl Strategy for PersistentVolume {
    fn default(&self, object: &mut Value) {
        if let Some(status) = child(object, "status") {
            set_default_nonzero(status, "phase", "Pending");
        }
        let Some(spec) = child(object, "spec") else { return };
        set_default_nonzero(spec, "persistentVolumeReclaimPolicy", "Retain");
        set_default(spec, "volumeMode", "Filesystem");
        volume_defaults::sources(spec);
    }
    /// The phase is as old as the volume.
    fn prepare_create(&self, object: &mut Value) {
        add_finalizer(object, FINALIZER_VOLUME);
        let created = at(object, "metadata.creationTimestamp").clone();
        set(object, "status", json!({"phase": "Pending"}));
        if let (Some(status), false) = (object.get_mut("status"), created.is_null()) {
            set(status, "lastPhaseTransitionTime", created);
        }
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        spec(at(object, "spec"), text(object, "/metadata/name"))
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if !same(&source(new, old), &source(old, old)) {
            let message = "spec.persistentvolumesource is immutable after creation";
            errors.push(FieldError::forbidden("spec.persistentvolumesource", message));
        }
        if !same(at(new, "spec.volumeMode"), at(old, "spec.volumeMode")) {
            errors.push(FieldError::invalid("volumeMode", at(new, "spec.volumeMode"), IMMUTABLE));
        }
        let (after, before) = (at(new, "spec.nodeAffinity"), at(old, "spec.nodeAffinity"));
        if !before.is_null() && !same(after, before) {
            errors.push(FieldError::invalid("nodeAffinity", after, IMMUTABLE));
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
            Column::new("Capacity", "string", "Its size."),
            Column::new("Access Modes", "string", "How it can be mounted."),
            Column::new("Reclaim Policy", "string", "What happens to it when its claim goes."),
            Column::new("Status", "string", "Its phase; Terminating while it is deleted."),
            Column::new("Claim", "string", "The claim that it is bound to."),
            Column::new("StorageClass", "string", "Its class."),
            Column::new("VolumeAttributesClass", "string", "The class of its attributes."),
            Column::new("Reason", "string", "Why it is in this phase."),
            Column::age(),
            Column::new("VolumeMode", "string", "Filesystem or Block.").wide(),
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let deleted = has(object, "/metadata/deletionTimestamp");
        let claim = if has(object, "/spec/claimRef") {
            format!("{}/{}", text(object, "/spec/claimRef/namespace"), text(object, "/spec/claimRef/name"))
        } else {
            String::new()
        };
        vec![
            table::name(object),
            json!(text(object, "/spec/capacity/storage")),
            json!(modes_cell(object, "/spec/accessModes")),
            json!(text(object, "/spec/persistentVolumeReclaimPolicy")),
            json!(if deleted { "Terminating" } else { text(object, "/status/phase") }),
            json!(claim),
            json!(storage_class(object)),
            or_unset(object, "spec.volumeAttributesClassName"),
            json!(text(object, "/status/reason")),
            table::age(object, now),
            or_unset(object, "spec.volumeMode"),
        ]
    }
}

/// Rules of `accessModes` in the spec of a volume or claim at `field`; `detail` is for a spec without any.
pub(super) fn access_modes(errors: &mut Vec<FieldError>, spec: &Value, field: &str, detail: &str) {
    let field = &format!("{field}.accessModes");
    let modes: Vec<&str> = strings(spec, "/accessModes").collect();
    if modes.is_empty() {
        errors.push(FieldError::required(field, detail));
    }
    for mode in modes.iter().filter(|m| !ACCESS_MODES.contains(m)) {
        errors.push(FieldError::not_supported(field, &json!(mode), &ACCESS_MODES));
    }
    let alone = |m: &&str| *m == "ReadWriteOncePod";
    if modes.iter().any(alone) && modes.iter().any(|m| !alone(m) && ACCESS_MODES.contains(m)) {
        errors.push(FieldError::forbidden(field, "may not use ReadWriteOncePod with other access modes"));
    }
}

/// Access modes in their short form, in upstream's order.
pub(super) fn modes_cell(object: &Value, pointer: &str) -> String {
    let short =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let given: Vec<&str> = strings(object, pointer).collect();
    short.iter().filter(|(mode, _)| given.contains(mode)).map(|(_, s)| *s).collect::<Vec<_>>().join(",")
}

/// The storage class of a volume or claim; an old annotation comes first.
pub(super) fn storage_class(object: &Value) -> &str {
    let annotation = text(object, "/metadata/annotations/volume.beta.kubernetes.io~1storage-class");
    if annotation.is_empty() { text(object, "/spec/storageClassName") } else { annotation }
}

/// Once set, the class of attributes may be changed but not removed.
pub(super) fn volume_class_update(errors: &mut Vec<FieldError>, new: &Value, old: &Value) {
    const FIELD: &str = "spec.volumeAttributesClassName";
    if at(old, FIELD).is_null() || at(new, FIELD) == at(old, FIELD) {
        return;
    }
    if at(new, FIELD).is_null() {
        errors.push(FieldError::forbidden(FIELD, "update from non-nil value to nil is forbidden"));
    } else if at(new, FIELD) == "" {
        errors.push(FieldError::forbidden(FIELD, "update from non-nil value to an empty string is forbidden"));
    }
}

fn spec(spec: &Value, name: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    access_modes(&mut errors, spec, "spec", "");
    capacity(&mut errors, at(spec, "capacity"));
    let policies = ["Delete", "Recycle", "Retain"];
    one_of(&mut errors, spec, "spec", "persistentVolumeReclaimPolicy", &policies);
    if has(spec, "/nodeAffinity/required") {
        node_selector(&mut errors, at(spec, "nodeAffinity.required"), "spec.nodeAffinity.required");
    } else if has(spec, "/nodeAffinity") {
        let message = "must specify required node constraints";
        errors.push(FieldError::required("spec.nodeAffinity.required", message));
    }
    let mut sources = TYPES.iter().filter_map(|kind| Some((*kind, spec.get(kind).filter(|s| !s.is_null())?)));
    match sources.next() {
        None => errors.push(FieldError::required("spec", "must specify a volume type")),
        Some(source) => volume_source(&mut errors, source, spec, name),
    }
    for (kind, _) in sources {
        errors.push(FieldError::forbidden(format!("spec.{kind}"), "may not specify more than 1 volume type"));
    }
    if text(spec, "/hostPath/path") == "/" && text(spec, "/persistentVolumeReclaimPolicy") == "Recycle" {
        let message = "may not be 'recycle' for a hostPath mount of '/'";
        errors.push(FieldError::forbidden("spec.persistentVolumeReclaimPolicy", message));
    }
    object_name(&mut errors, spec, "spec", "storageClassName");
    volume_mode(&mut errors, spec, "spec");
    if spec.get("volumeAttributesClassName") == Some(&json!("")) {
        errors.push(FieldError::required("spec.volumeAttributesClassName", "an empty string is disallowed"));
    }
    object_name(&mut errors, spec, "spec", "volumeAttributesClassName");
    if has(spec, "/volumeAttributesClassName") && !has(spec, "/csi") {
        errors.push(FieldError::required("spec.csi", "has to be specified when using volumeAttributesClassName"));
    }
    errors
}

fn capacity(errors: &mut Vec<FieldError>, capacity: &Value) {
    const FIELD: &str = "spec.capacity";
    let amounts: Vec<(&String, &Value)> = entries(capacity, "").collect();
    if amounts.is_empty() {
        errors.push(FieldError::required(FIELD, ""));
    } else if amounts.iter().any(|(name, _)| *name != "storage") {
        errors.push(FieldError::not_supported(FIELD, capacity, &["storage"]));
    }
    for (name, value) in amounts {
        let field = format!("{FIELD}[{name}]");
        match quantity(value) {
            Ok(size) if size.is_zero() || size.is_negative() => {
                errors.push(FieldError::invalid(field, value, "must be greater than zero"));
            }
            check => report(errors, field, value, check.map(|_| ())),
        }
    }
}

fn volume_source(errors: &mut Vec<FieldError>, (kind, source): (&str, &Value), spec: &Value, name: &str) {
    let field = format!("spec.{kind}");
    match kind {
        "hostPath" => host_path(errors, source, &field),
        "local" => {
            required(errors, source, &field, &["path"]);
            no_backsteps(errors, text(source, "/path"), &format!("{field}.path"));
            if !has(spec, "/nodeAffinity") {
                errors.push(FieldError::required("spec.nodeAffinity", "Local volume requires node affinity"));
            }
        }
        _ => volume_sources::validate(errors, (kind, source), (name, "spec"), true),
    }
}

/// The source of a volume; a secret for its controller's expansion may be added to `old`.
fn source(volume: &Value, old: &Value) -> Value {
    let mut spec = at(volume, "spec").clone();
    for key in PLAIN_FIELDS {
        remove(&mut spec, "", key);
    }
    if !has(old, "/spec/csi/controllerExpandSecretRef") {
        remove(&mut spec, "/csi", "controllerExpandSecretRef");
    }
    spec
}
