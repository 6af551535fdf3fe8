//! Rules of a pod's volumes. Those of the sources that cloud providers and storage systems have are in
//! `volume_sources`, those of projected volumes in `pod_projected`.

use std::collections::{HashMap, HashSet};

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::container_env::{file_field_ref, resource_ref};
use super::container_validation::pull_policy;
use super::fields::{invalid, required};
use super::persistent_volume_claim::claim_spec;
use super::value::{entries, has, int, list, text};
use super::{pod_projected, volume_sources};
use crate::validate::{annotations, dns1123_label, dns1123_subdomain, labels, quantity, report};

/// Types of volumes, in the order in which upstream looks for them: the first that is there counts.
const TYPES: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];
const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
/// The largest mode of a file.
const MAX_FILE_MODE: i64 = 0o777;

/// Reports what is wrong with the volumes at `field` and returns those that are valid, by name. `pod` is the metadata
/// of the pod; a template has none.
pub(super) fn validate<'a>(
    errors: &mut Vec<FieldError>,
    volumes: &'a [Value],
    field: &str,
    pod: Option<&Value>,
) -> HashMap<&'a str, &'a Value> {
    let pod_name = pod.map_or("", |metadata| text(metadata, "/name"));
    let claim_of = |volume: &Value| format!("{pod_name}-{}", text(volume, "/name"));
    let made: HashSet<String> =
        volumes.iter().filter(|v| !pod_name.is_empty() && has(v, "/ephemeral")).map(claim_of).collect();
    let mut valid = HashMap::new();
    for (i, volume) in volumes.iter().enumerate() {
        let field = format!("{field}[{i}]");
        let (name, name_field) = (text(volume, "/name"), format!("{field}.name"));
        let before = errors.len();
        types(errors, volume, &field, pod);
        if name.is_empty() {
            errors.push(FieldError::required(&name_field, ""));
        } else {
            report(errors, &name_field, &json!(name), dns1123_label(name));
        }
        if valid.contains_key(name) {
            errors.push(FieldError::duplicate(&name_field, &json!(name)));
        }
        if errors.len() == before {
            valid.insert(name, volume);
        }
        let claim = text(volume, "/persistentVolumeClaim/claimName");
        if made.contains(claim) {
            let message = "must not reference a PVC that gets created for an ephemeral volume";
            invalid(errors, &format!("{field}.persistentVolumeClaim.claimName"), claim, message);
        }
    }
    valid
}

fn types(errors: &mut Vec<FieldError>, volume: &Value, field: &str, pod: Option<&Value>) {
    let mut given = TYPES.iter().filter_map(|kind| Some((*kind, volume.get(kind).filter(|s| !s.is_null())?)));
    match given.next() {
        None => errors.push(FieldError::required(field, "must specify a volume type")),
        Some((kind, source)) => self::source(errors, (kind, source), volume, field, pod),
    }
    for (kind, _) in given {
        let shown = match kind {
            "cephfs" => "cephFS",
            "downwardAPI" => "downwarAPI",
            other => other,
        };
        errors.push(FieldError::forbidden(format!("{field}.{shown}"), "may not specify more than 1 volume type"));
    }
}

fn source(
    errors: &mut Vec<FieldError>,
    (kind, source): (&str, &Value),
    volume: &Value,
    volume_field: &str,
    pod: Option<&Value>,
) {
    let field = format!("{volume_field}.{kind}");
    let name = text(volume, "/name");
    match kind {
        "emptyDir" => {
            if source.get("sizeLimit").and_then(|s| quantity(s).ok()).is_some_and(|s| s.is_negative()) {
                let message = "SizeLimit field must be a valid resource quantity";
                errors.push(FieldError::forbidden(format!("{field}.sizeLimit"), message));
            }
        }
        "secret" | "configMap" => {
            required(errors, source, &field, &[if kind == "secret" { "secretName" } else { "name" }]);
            default_mode(errors, source, &field);
            for (i, item) in list(source, "/items").iter().enumerate() {
                key_to_path(errors, item, &format!("{field}.items[{i}]"));
            }
        }
        "downwardAPI" => {
            default_mode(errors, source, &field);
            for file in list(source, "/items") {
                downward_file(errors, file, &field);
            }
        }
        "projected" => {
            default_mode(errors, source, &field);
            pod_projected::sources(errors, source, &field);
        }
        "persistentVolumeClaim" => required(errors, source, &field, &["claimName"]),
        "ephemeral" => {
            ephemeral(errors, source, &field);
            let pod_name = pod.map_or("", |metadata| text(metadata, "/name"));
            if !pod_name.is_empty() && !name.is_empty() {
                let claim = format!("{pod_name}-{name}");
                let check = dns1123_subdomain(&claim).map_err(|m| format!("PVC name {claim:?}: {m}"));
                report(errors, format!("{volume_field}.name"), &json!(name), check);
            }
        }
        "image" => {
            if pod.is_some() {
                required(errors, source, &field, &["reference"]);
            }
            pull_policy(errors, source, &field, "pullPolicy");
        }
        "hostPath" => host_path(errors, source, &field),
        _ => volume_sources::validate(errors, (kind, source), (name, volume_field), false),
    }
}

/// The rules of a `hostPath`.
pub(super) fn host_path(errors: &mut Vec<FieldError>, source: &Value, field: &str) {
    let path = text(source, "/path");
    if path.is_empty() {
        errors.push(FieldError::required(format!("{field}.path"), ""));
        return;
    }
    no_backsteps(errors, path, &format!("{field}.path"));
    let kind = text(source, "/type");
    if !HOST_PATH_TYPES.contains(&kind) {
        errors.push(FieldError::not_supported(format!("{field}.type"), &json!(kind), &HOST_PATH_TYPES));
    }
}

fn ephemeral(errors: &mut Vec<FieldError>, source: &Value, field: &str) {
    let field = format!("{field}.volumeClaimTemplate");
    let Some(template) = source.get("volumeClaimTemplate").filter(|t| !t.is_null()) else {
        errors.push(FieldError::required(field, ""));
        return;
    };
    let null = Value::Null;
    let meta = |key: &str| template.pointer(&format!("/metadata/{key}")).unwrap_or(&null);
    let meta_field = format!("{field}.metadata");
    errors.extend(annotations(meta("annotations"), &format!("{meta_field}.annotations")));
    errors.extend(labels(meta("labels"), &format!("{meta_field}.labels")));
    for (key, _) in
        entries(template, "/metadata").filter(|(k, v)| *k != "annotations" && *k != "labels" && !v.is_null())
    {
        errors.push(FieldError::forbidden(format!("{meta_field}.{key}"), "cannot be set"));
    }
    errors.extend(claim_spec(template.get("spec").unwrap_or(&null), &format!("{field}.spec")));
}

/// The rules of a file that holds a field or a resource of the pod.
pub(super) fn downward_file(errors: &mut Vec<FieldError>, file: &Value, field: &str) {
    required(errors, file, field, &["path"]);
    local_path(errors, text(file, "/path"), &format!("{field}.path"));
    match (file.get("fieldRef").filter(|r| !r.is_null()), file.get("resourceFieldRef").filter(|r| !r.is_null())) {
        (Some(reference), resource) => {
            file_field_ref(errors, reference, &format!("{field}.fieldRef"));
            if resource.is_some() {
                let message = "fieldRef and resourceFieldRef can not be specified simultaneously";
                invalid(errors, field, "resource", message);
            }
        }
        (None, Some(reference)) => resource_ref(errors, reference, &format!("{field}.resourceFieldRef"), true),
        (None, None) => errors.push(FieldError::required(field, "one of fieldRef and resourceFieldRef is required")),
    }
    file_mode(errors, file, field, "mode");
}

/// The rules of a key of a ConfigMap or Secret that becomes a file.
pub(super) fn key_to_path(errors: &mut Vec<FieldError>, item: &Value, field: &str) {
    required(errors, item, field, &["key", "path"]);
    local_path(errors, text(item, "/path"), &format!("{field}.path"));
    file_mode(errors, item, field, "mode");
}

fn default_mode(errors: &mut Vec<FieldError>, source: &Value, field: &str) {
    file_mode(errors, source, field, "defaultMode");
}

fn file_mode(errors: &mut Vec<FieldError>, object: &Value, field: &str, key: &str) {
    if let Some(mode) = int(object, &format!("/{key}")).filter(|mode| !(0..=MAX_FILE_MODE).contains(mode)) {
        let message = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(format!("{field}.{key}"), &json!(mode), message));
    }
}

/// A path of a file in a volume: relative, without `..`, and its name does not start so.
pub(super) fn local_path(errors: &mut Vec<FieldError>, path: &str, field: &str) {
    descending_path(errors, path, field);
    if path.starts_with("..") && !has_backsteps(path) {
        invalid(errors, field, path, "must not start with '..'");
    }
}

/// A path below a directory: relative, without `..`.
pub(super) fn descending_path(errors: &mut Vec<FieldError>, path: &str, field: &str) {
    if path.starts_with('/') {
        invalid(errors, field, path, "must be a relative path");
    }
    no_backsteps(errors, path, field);
}

/// A path without `..`.
pub(super) fn no_backsteps(errors: &mut Vec<FieldError>, path: &str, field: &str) {
    if has_backsteps(path) {
        invalid(errors, field, path, "must not contain '..'");
    }
}

/// Whether a part of the path is `..`.
pub(super) fn has_backsteps(path: &str) -> bool {
    path.split('/').any(|part| part == "..")
}
