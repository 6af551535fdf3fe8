//! PriorityClass.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{immutable, one_of};
use super::value::{flag, int, set_default, text};
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};

/// The classes that every cluster has, with their values and what they are for.
pub const SYSTEM: [(&str, i64, &str); 2] = [
    (
        "system-cluster-critical",
        2_000_000_000,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
    (
        "system-node-critical",
        2_000_001_000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
];
const SYSTEM_PREFIX: &str = "system-";
/// The highest value of other classes.
const MAX_VALUE: i64 = 1_000_000_000;

/// PriorityClasses.
pub fn resource() -> Option<Resource> {
    let names = names("scheduling.k8s.io/v1", "priorityclasses", "PriorityClass", &["pc"], Scope::Cluster);
    super::built_in(names, plain(), PriorityClass)
}

struct PriorityClass;

impl Strategy for PriorityClass {
    fn default(&self, object: &mut Value) {
        set_default(object, "preemptionPolicy", "PreemptLowerPriority");
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (name, value) = (text(object, "/metadata/name"), int(object, "/value").unwrap_or(0));
        if name.starts_with(SYSTEM_PREFIX) {
            let why = match SYSTEM.iter().find(|(known, ..)| *known == name) {
                None => Some(format!("{name} is not a known system priority class")),
                Some((_, known, _)) if *known != value => {
                    Some(format!("value of {name} PriorityClass must be {known}"))
                }
                Some(_) if flag(object, "/globalDefault") => {
                    Some(format!("globalDefault of {name} PriorityClass must be false"))
                }
                Some(_) => None,
            };
            if let Some(why) = why {
                let message = format!(
                    "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {why}"
                );
                errors.push(FieldError::forbidden("metadata.name", &message));
            }
        } else if value > MAX_VALUE {
            let message = format!("maximum allowed value of a user defined priority is {MAX_VALUE}");
            errors.push(FieldError::forbidden("value", &message));
        }
        one_of(&mut errors, object, "", "preemptionPolicy", &["PreemptLowerPriority", "Never"]);
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if int(new, "/value").unwrap_or(0) != int(old, "/value").unwrap_or(0) {
            errors.push(FieldError::forbidden("value", "may not be changed in an update."));
        }
        errors.extend(immutable(new, old, &["preemptionPolicy"]));
        errors
    }
    /// The generation is 1 for ever: what matters cannot change.
    fn bumps_generation(&self, _new: &Value, _old: &Value) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Value", "integer", "The priority of its pods."),
            Column::new("Global-Default", "boolean", "Whether it is for pods that name no class."),
            Column::age(),
            Column::new("PreemptionPolicy", "string", "Whether its pods may push others out."),
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![
            table::name(object),
            json!(int(object, "/value").unwrap_or(0)),
            json!(flag(object, "/globalDefault")),
            table::age(object, now),
            json!(text(object, "/preemptionPolicy")),
        ]
    }
}
