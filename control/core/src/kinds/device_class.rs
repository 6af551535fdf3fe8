//! DeviceClass.

use copepod_api::FieldError;
use serde_json::Value;

use super::resource_claim::{API, selectors};
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::Column;

/// DeviceClasses.
pub fn resource() -> Option<Resource> {
    super::built_in(names(API, "deviceclasses", "DeviceClass", &[], Scope::Cluster), plain(), DeviceClass)
}

struct DeviceClass;

impl Strategy for DeviceClass {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        selectors(&mut errors, object.get("spec").unwrap_or(&Value::Null), "spec");
        errors
    }
    fn columns(&self) -> Vec<Column> {
        vec![Column::name(), Column::age()]
    }
}
