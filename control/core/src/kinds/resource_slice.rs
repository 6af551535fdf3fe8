//! ResourceSlice.

use std::collections::HashSet;

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::immutable;
use super::resource_claim::API;
use super::value::{flag, has, int, list, text};
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{dns1123_label, dns1123_subdomain, report, too_many};

/// Most devices of one slice.
const MAX_DEVICES: usize = 128;

/// ResourceSlices.
pub fn resource() -> Option<Resource> {
    super::built_in(names(API, "resourceslices", "ResourceSlice", &[], Scope::Cluster), plain(), ResourceSlice)
}

struct ResourceSlice;

impl Strategy for ResourceSlice {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        match text(object, "/spec/driver") {
            "" => errors.push(FieldError::required("spec.driver", "")),
            name => report(&mut errors, "spec.driver", &json!(name), dns1123_subdomain(name)),
        }
        match text(object, "/spec/pool/name") {
            "" => errors.push(FieldError::required("spec.pool.name", "")),
            name => {
                let check = name.split('/').try_for_each(dns1123_subdomain);
                report(&mut errors, "spec.pool.name", &json!(name), check);
            }
        }
        if let Some(n) = int(object, "/spec/pool/resourceSliceCount").filter(|n| *n <= 0) {
            let message = "must be greater than zero";
            errors.push(FieldError::invalid("spec.pool.resourceSliceCount", &json!(n), message));
        }
        if let Some(n) = int(object, "/spec/pool/generation").filter(|n| *n < 0) {
            let message = "must be greater than or equal to zero";
            errors.push(FieldError::invalid("spec.pool.generation", &json!(n), message));
        }
        place(&mut errors, object);
        let (devices, mut seen) = (list(object, "/spec/devices"), HashSet::new());
        if devices.len() > MAX_DEVICES {
            errors.push(too_many("spec.devices", devices.len(), MAX_DEVICES));
        }
        for (i, device) in devices.iter().enumerate() {
            let (name, field) = (text(device, "/name"), format!("spec.devices[{i}].name"));
            report(&mut errors, &field, &json!(name), dns1123_label(name));
            if !seen.insert(name) {
                errors.push(FieldError::duplicate(field, &json!(name)));
            }
        }
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        immutable(new, old, &["spec.driver", "spec.pool.name", "spec.nodeName"])
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Node", "string", "The node that has the devices, if it is one."),
            Column::new("Driver", "string", "Who manages the devices."),
            Column::new("Pool", "string", "The pool that the slice is a part of."),
            Column::age(),
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let of = |pointer: &str| json!(text(object, pointer));
        let (node, driver, pool) = (of("/spec/nodeName"), of("/spec/driver"), of("/spec/pool/name"));
        vec![table::name(object), node, driver, pool, table::age(object, now)]
    }
    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![
            ("spec.driver", text(object, "/spec/driver").into()),
            ("spec.nodeName", text(object, "/spec/nodeName").into()),
        ]
    }
    fn field_names(&self) -> &'static [&'static str] {
        &["spec.driver", "spec.nodeName"]
    }
}

/// Exactly one field says where the devices are.
fn place(errors: &mut Vec<FieldError>, object: &Value) {
    let set = [
        !text(object, "/spec/nodeName").is_empty(),
        has(object, "/spec/nodeSelector"),
        flag(object, "/spec/allNodes"),
        flag(object, "/spec/perDeviceNodeSelection"),
    ];
    const RULE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match set.into_iter().filter(|is| *is).count() {
        0 => errors.push(FieldError::required("spec", RULE)),
        1 => {}
        _ => errors.push(FieldError::invalid("spec", &json!(""), &format!("{RULE}, but multiple fields are set"))),
    }
}
