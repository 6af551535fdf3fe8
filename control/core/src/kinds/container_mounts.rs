//! Rules of what a container mounts, and of the raw devices that it has.

use std::collections::{HashMap, HashSet};

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::invalid;
use super::pod_volumes::{descending_path, has_backsteps};
use super::value::{flag, has, list, text};

const PROPAGATIONS: [&str; 3] = ["Bidirectional", "HostToContainer", "None"];
const RECURSIVE: [&str; 3] = ["Disabled", "Enabled", "IfPossible"];

/// The rules of the container's mounts, at `field`. Upstream reports some with the path of the list alone.
pub(super) fn mounts(errors: &mut Vec<FieldError>, container: &Value, field: &str, volumes: &HashMap<&str, &Value>) {
    let devices = list(container, "/volumeDevices");
    let taken = |key: &str, value: &str| devices.iter().any(|d| text(d, key) == value);
    let mut paths = HashSet::new();
    for (i, mount) in list(container, "/volumeMounts").iter().enumerate() {
        let item = format!("{field}[{i}]");
        let (name, path) = (text(mount, "/name"), text(mount, "/mountPath"));
        let (name_field, path_field) = (format!("{item}.name"), format!("{item}.mountPath"));
        if name.is_empty() {
            errors.push(FieldError::required(&name_field, ""));
        }
        if !volumes.contains_key(name) {
            errors.push(FieldError::not_found(&name_field, &json!(name)));
        }
        if path.is_empty() {
            errors.push(FieldError::required(&path_field, ""));
        }
        if !paths.insert(path) {
            invalid(errors, &path_field, path, "must be unique");
        }
        if taken("/name", name) {
            invalid(errors, &name_field, name, "must not already exist in volumeDevices");
        }
        if taken("/devicePath", path) {
            invalid(errors, &path_field, path, "must not already exist as a path in volumeDevices");
        }
        let (sub, expression) = (text(mount, "/subPath"), text(mount, "/subPathExpr"));
        descending_path(errors, sub, &format!("{field}.subPath"));
        if !sub.is_empty() && !expression.is_empty() {
            let field = format!("{item}.subPathExpr");
            invalid(errors, &field, expression, "subPathExpr and subPath are mutually exclusive");
        }
        descending_path(errors, expression, &format!("{field}.subPathExpr"));
        propagation(errors, mount, container, field);
    }
}

fn propagation(errors: &mut Vec<FieldError>, mount: &Value, container: &Value, field: &str) {
    let propagation = text(mount, "/mountPropagation");
    if has(mount, "/mountPropagation") {
        let field = format!("{field}.mountPropagation");
        if !PROPAGATIONS.contains(&propagation) {
            errors.push(FieldError::not_supported(&field, &json!(propagation), &PROPAGATIONS));
        }
        if propagation == "Bidirectional" && !flag(container, "/securityContext/privileged") {
            let message = "Bidirectional mount propagation is available only to privileged containers";
            errors.push(FieldError::forbidden(field, message));
        }
    }
    if !has(mount, "/recursiveReadOnly") {
        return;
    }
    let field = format!("{field}.recursiveReadOnly");
    match text(mount, "/recursiveReadOnly") {
        "Disabled" => {}
        "Enabled" | "IfPossible" => {
            if !flag(mount, "/readOnly") {
                errors.push(FieldError::forbidden(&field, "may only be specified when readOnly is true"));
            }
            if has(mount, "/mountPropagation") && propagation != "None" {
                let message = "may only be specified when mountPropagation is None or not specified";
                errors.push(FieldError::forbidden(field, message));
            }
        }
        other => errors.push(FieldError::not_supported(field, &json!(other), &RECURSIVE)),
    }
}

/// The rules of the container's devices, at `field`.
pub(super) fn devices(errors: &mut Vec<FieldError>, container: &Value, field: &str, volumes: &HashMap<&str, &Value>) {
    let mounts = list(container, "/volumeMounts");
    let taken = |key: &str, value: &str| mounts.iter().any(|m| text(m, key) == value);
    let (mut names, mut paths) = (HashSet::new(), HashSet::new());
    for (i, device) in list(container, "/volumeDevices").iter().enumerate() {
        let (name, path) = (text(device, "/name"), text(device, "/devicePath"));
        let (name_field, path_field) = (format!("{field}[{i}].name"), format!("{field}[{i}].devicePath"));
        let matched = volumes.get(name);
        if name.is_empty() {
            errors.push(FieldError::required(&name_field, ""));
        }
        if names.contains(name) {
            invalid(errors, &name_field, name, "must be unique");
        }
        match matched {
            Some(volume) if !has(volume, "/persistentVolumeClaim") && !has(volume, "/ephemeral") => {
                let message = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                invalid(errors, &name_field, name, message);
            }
            Some(_) => {}
            None => errors.push(FieldError::not_found(&name_field, &json!(name))),
        }
        if path.is_empty() {
            errors.push(FieldError::required(&path_field, ""));
        }
        if paths.contains(path) {
            invalid(errors, &path_field, path, "must be unique");
        }
        if has_backsteps(path) {
            invalid(errors, &path_field, path, "can not contain backsteps ('..')");
        } else {
            paths.insert(path);
        }
        if taken("/name", name) {
            invalid(errors, &name_field, name, "must not already exist in volumeMounts");
        }
        if taken("/mountPath", path) {
            invalid(errors, &path_field, path, "must not already exist as a path in volumeMounts");
        }
        if !name.is_empty() {
            names.insert(name);
        }
    }
}
