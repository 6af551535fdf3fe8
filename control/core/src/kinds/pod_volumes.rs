//! Rules of a pod's volumes.

use std::collections::HashSet;

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::value::{entries, list, text};
use crate::validate::{dns1123_label, report};

/// Reports what is wrong with the volumes and returns their names.
pub(super) fn validate<'a>(errors: &mut Vec<FieldError>, volumes: &'a [Value], field: &str) -> HashSet<&'a str> {
    let mut names = HashSet::new();
    for (i, volume) in volumes.iter().enumerate() {
        let field = format!("{field}[{i}]");
        let name = text(volume, "/name");
        if name.is_empty() {
            errors.push(FieldError::required(format!("{field}.name"), ""));
        } else {
            report(errors, format!("{field}.name"), &json!(name), dns1123_label(name));
            if !names.insert(name) {
                errors.push(FieldError::duplicate(format!("{field}.name"), &json!(name)));
            }
        }
        let mut sources = entries(volume, "").filter(|(key, value)| *key != "name" && !value.is_null());
        match sources.next() {
            None => errors.push(FieldError::required(&field, "must specify a volume type")),
            Some((kind, source)) => self::source(errors, kind, source, &format!("{field}.{kind}")),
        }
        for (kind, _) in sources {
            errors.push(FieldError::forbidden(format!("{field}.{kind}"), "may not specify more than 1 volume type"));
        }
    }
    names
}

fn source(errors: &mut Vec<FieldError>, kind: &str, source: &Value, field: &str) {
    let needed = match kind {
        "configMap" => "name",
        "secret" => "secretName",
        "persistentVolumeClaim" => "claimName",
        "hostPath" => "path",
        _ => "",
    };
    if !needed.is_empty() && text(source, &format!("/{needed}")).is_empty() {
        errors.push(FieldError::required(format!("{field}.{needed}"), ""));
    }
    if kind == "hostPath" && text(source, "/path").split('/').any(|part| part == "..") {
        let value = json!(text(source, "/path"));
        errors.push(FieldError::invalid(format!("{field}.path"), &value, "must not contain '..'"));
    }
    if let Some(mode) = source.get("defaultMode").and_then(Value::as_i64) {
        file_mode(errors, mode, &format!("{field}.defaultMode"));
    }
    for (i, item) in list(source, "/items").iter().enumerate() {
        self::item(errors, item, &format!("{field}.items[{i}]"), kind != "downwardAPI");
    }
    for (i, projected) in list(source, "/sources").iter().enumerate() {
        for (kind, part) in entries(projected, "") {
            for (j, item) in list(part, "/items").iter().enumerate() {
                self::item(errors, item, &format!("{field}.sources[{i}].{kind}.items[{j}]"), kind != "downwardAPI");
            }
        }
    }
}

fn item(errors: &mut Vec<FieldError>, item: &Value, field: &str, keyed: bool) {
    if keyed && text(item, "/key").is_empty() {
        errors.push(FieldError::required(format!("{field}.key"), ""));
    }
    let path = text(item, "/path");
    if path.is_empty() {
        errors.push(FieldError::required(format!("{field}.path"), ""));
    } else {
        relative_path(errors, path, &format!("{field}.path"));
    }
    if let Some(mode) = item.get("mode").and_then(Value::as_i64) {
        file_mode(errors, mode, &format!("{field}.mode"));
    }
}

fn file_mode(errors: &mut Vec<FieldError>, mode: i64, field: &str) {
    if !(0..=0o777).contains(&mode) {
        let message = "must be a number between 0 and 0777 (octal), both inclusive";
        errors.push(FieldError::invalid(field, &json!(mode), message));
    }
}

/// A path inside a volume: relative, without `..`.
pub(super) fn relative_path(errors: &mut Vec<FieldError>, path: &str, field: &str) {
    let message = if path.starts_with('/') {
        "must be a relative path"
    } else if path.split('/').any(|part| part == "..") {
        "must not contain '..'"
    } else {
        return;
    };
    errors.push(FieldError::invalid(field, &json!(path), message));
}
