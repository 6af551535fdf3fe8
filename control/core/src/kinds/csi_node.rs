//! CSINode: the drivers that run on a node.

use std::collections::HashSet;

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{at, non_negative, same};
use super::value::{list, strings, text};
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{IMMUTABLE, dns1123_subdomain, qualified_name, report};

/// Longest identity of a node in a driver's words, in bytes.
const MAX_NODE_ID_BYTES: usize = 192;

/// CSINodes.
pub fn resource() -> Option<Resource> {
    let names = names("storage.k8s.io/v1", "csinodes", "CSINode", &[], Scope::Cluster);
    super::built_in(names, plain(), CsiNode)
}

struct CsiNode;

impl Strategy for CsiNode {
    fn allows_unconditional_update(&self) -> bool {
        false
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut names = HashSet::new();
        for (i, driver) in list(object, "/spec/drivers").iter().enumerate() {
            let field = format!("spec.drivers[{i}]");
            let name = text(driver, "/name");
            match name {
                "" => errors.push(FieldError::required(format!("{field}.name"), "")),
                name => report(&mut errors, format!("{field}.name"), &json!(name), dns1123_subdomain(name)),
            }
            match text(driver, "/nodeID") {
                "" => errors.push(FieldError::required(format!("{field}.nodeID"), "")),
                id if id.len() > MAX_NODE_ID_BYTES => {
                    let message = format!("must be {MAX_NODE_ID_BYTES} characters or less");
                    errors.push(FieldError::invalid(format!("{field}.nodeID"), &json!(id), &message));
                }
                _ => {}
            }
            let allocatable = format!("{field}.allocatable");
            non_negative(&mut errors, at(driver, "allocatable"), &allocatable, &["count"]);
            if !names.insert(name) {
                errors.push(FieldError::duplicate(format!("{field}.name"), &json!(name)));
            }
            let mut keys = HashSet::new();
            for key in strings(driver, "/topologyKeys") {
                if !keys.insert(key) {
                    errors.push(FieldError::duplicate(&field, &json!(key)));
                }
                report(&mut errors, &field, &json!(key), qualified_name(key));
            }
        }
        errors
    }
    /// A driver's entry may come, go and count anew; the rest of it stays.
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let fixed = ["name", "nodeID", "topologyKeys"];
        for driver in list(new, "/spec/drivers") {
            let before = list(old, "/spec/drivers").iter().find(|d| d.get("name") == driver.get("name"));
            if before.is_some_and(|before| fixed.iter().any(|key| !same(at(driver, key), at(before, key)))) {
                errors.push(FieldError::invalid("spec.drivers", driver, IMMUTABLE));
            }
        }
        errors
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![Column::name(), Column::new("Drivers", "integer", "How many drivers run on the node."), Column::age()]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![table::name(object), json!(list(object, "/spec/drivers").len()), table::age(object, now)]
    }
}
