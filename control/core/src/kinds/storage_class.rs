//! StorageClass.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{immutable, one_of, same};
use super::value::{entries, flag, list, set_default_nonzero, text};
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{qualified_name, report, too_long};

/// Most parameters of a class.
const MAX_PARAMETERS: usize = 512;
/// Most bytes of all names and values of a class' parameters.
const MAX_PARAMETER_BYTES: usize = 256 * 1024;
/// Annotations that make a class the default.
pub(crate) const IS_DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

/// StorageClasses.
pub fn resource() -> Option<Resource> {
    let names = names("storage.k8s.io/v1", "storageclasses", "StorageClass", &["sc"], Scope::Cluster);
    super::built_in(names, plain(), StorageClass)
}

struct StorageClass;

impl Strategy for StorageClass {
    fn default(&self, object: &mut Value) {
        set_default_nonzero(object, "reclaimPolicy", "Delete");
        set_default_nonzero(object, "volumeBindingMode", "Immediate");
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        driver(&mut errors, object, "provisioner");
        parameters(&mut errors, object);
        one_of(&mut errors, object, "", "reclaimPolicy", &["Delete", "Retain"]);
        one_of(&mut errors, object, "", "volumeBindingMode", &["Immediate", "WaitForFirstConsumer"]);
        for (i, term) in list(object, "/allowedTopologies").iter().enumerate() {
            for (j, expression) in list(term, "/matchLabelExpressions").iter().enumerate() {
                let field = format!("allowedTopologies[{i}].matchLabelExpressions[{j}]");
                let key = text(expression, "/key");
                report(&mut errors, format!("{field}.key"), &json!(key), qualified_name(key));
                if list(expression, "/values").is_empty() {
                    errors.push(FieldError::required(format!("{field}.values"), ""));
                }
            }
        }
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = frozen(new, old, &["parameters", "provisioner", "reclaimPolicy"]);
        errors.extend(immutable(new, old, &["volumeBindingMode"]));
        errors
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Provisioner", "string", "What makes its volumes."),
            Column::new("ReclaimPolicy", "string", "What happens to a volume when its claim goes."),
            Column::new("VolumeBindingMode", "string", "When claims are bound."),
            Column::new("AllowVolumeExpansion", "string", "Whether volumes can grow."),
            Column::age(),
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let annotations = object.pointer("/metadata/annotations");
        let is_default = IS_DEFAULT.iter().any(|key| annotations.and_then(|a| a.get(key)).is_some_and(|v| v == "true"));
        let name = text(object, "/metadata/name");
        vec![
            json!(if is_default { format!("{name} (default)") } else { name.to_string() }),
            json!(text(object, "/provisioner")),
            json!(text(object, "/reclaimPolicy")),
            json!(text(object, "/volumeBindingMode")),
            json!(flag(object, "/allowVolumeExpansion")),
            table::age(object, now),
        ]
    }
}

/// The name of a driver at `field` of a class.
pub(super) fn driver(errors: &mut Vec<FieldError>, object: &Value, field: &str) {
    match text(object, &format!("/{field}")) {
        "" => errors.push(FieldError::required(field, "")),
        name => report(errors, field, &json!(name), qualified_name(&name.to_lowercase())),
    }
}

/// The parameters of a class: few enough, and named.
pub(super) fn parameters(errors: &mut Vec<FieldError>, object: &Value) {
    const FIELD: &str = "parameters";
    let (mut number, mut bytes) = (0, 0);
    for (key, value) in entries(object, "/parameters") {
        if key.is_empty() {
            errors.push(FieldError::invalid(FIELD, &json!(key), "field can not be empty."));
        }
        number += 1;
        bytes += key.len() + value.as_str().map_or(0, str::len);
    }
    if number > MAX_PARAMETERS {
        errors.push(too_long(FIELD, MAX_PARAMETERS));
    } else if bytes > MAX_PARAMETER_BYTES {
        errors.push(too_long(FIELD, MAX_PARAMETER_BYTES));
    }
}

/// Fields of a class that may not change.
pub(super) fn frozen(new: &Value, old: &Value, fields: &[&str]) -> Vec<FieldError> {
    let value = |o: &Value, field: &str| o.get(field).cloned().unwrap_or_default();
    let changed = fields.iter().filter(|f| !same(&value(new, f), &value(old, f)));
    changed.map(|f| FieldError::forbidden(*f, &format!("updates to {f} are forbidden."))).collect()
}
