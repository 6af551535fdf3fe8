//! VolumeAttributesClass.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::storage_class::{driver, frozen, parameters};
use super::value::{entries, text};
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};

/// VolumeAttributesClasses.
pub fn resource() -> Option<Resource> {
    let (plural, short) = ("volumeattributesclasses", &["vac"]);
    let names = names("storage.k8s.io/v1", plural, "VolumeAttributesClass", short, Scope::Cluster);
    super::built_in(names, plain(), VolumeAttributesClass)
}

struct VolumeAttributesClass;

impl Strategy for VolumeAttributesClass {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        driver(&mut errors, object, "driverName");
        parameters(&mut errors, object);
        if entries(object, "/parameters").next().is_none() {
            errors.push(FieldError::required("parameters", "must contain at least one key/value pair"));
        }
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        frozen(new, old, &["driverName", "parameters"])
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![Column::name(), Column::new("DriverName", "string", "The driver whose volumes it is for."), Column::age()]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![table::name(object), json!(text(object, "/driverName")), table::age(object, now)]
    }
}
