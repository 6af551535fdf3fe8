//! CSIDriver.

use std::collections::HashSet;

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{at, immutable, one_of};
use super::value::{child, flag, has, int, list, set, set_default, strings, text};
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::IMMUTABLE;

const FS_GROUP_POLICIES: [&str; 3] = ["File", "None", "ReadWriteOnceWithFSType"];
const LIFECYCLE_MODES: [&str; 2] = ["Persistent", "Ephemeral"];
/// Shortest lifetime of a token in seconds.
const MIN_TOKEN_SECONDS: i64 = 600;
/// Longest lifetime of a token in seconds.
const MAX_TOKEN_SECONDS: i64 = 1 << 32;
/// Shortest time in seconds between updates of a node's allocatable volumes.
const MIN_UPDATE_SECONDS: i64 = 10;

/// CSIDrivers.
pub fn resource() -> Option<Resource> {
    let names = names("storage.k8s.io/v1", "csidrivers", "CSIDriver", &[], Scope::Cluster);
    super::built_in(names, plain(), CsiDriver)
}

struct CsiDriver;

impl Strategy for CsiDriver {
    fn allows_unconditional_update(&self) -> bool {
        false
    }
    fn default(&self, object: &mut Value) {
        let Some(spec) = child(object, "spec") else { return };
        set_default(spec, "attachRequired", true);
        for key in ["podInfoOnMount", "storageCapacity", "requiresRepublish", "seLinuxMount"] {
            set_default(spec, key, false);
        }
        set_default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        if list(spec, "/volumeLifecycleModes").is_empty() {
            set(spec, "volumeLifecycleModes", json!(["Persistent"]));
        }
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = at(object, "spec");
        one_of(&mut errors, spec, "spec", "fsGroupPolicy", &FS_GROUP_POLICIES);
        let mut audiences = HashSet::new();
        for (i, token) in list(spec, "/tokenRequests").iter().enumerate() {
            let field = format!("spec.tokenRequests[{i}]");
            let audience = text(token, "/audience");
            if !audiences.insert(audience) {
                errors.push(FieldError::duplicate(format!("{field}.audience"), &json!(audience)));
                continue;
            }
            let seconds = int(token, "/expirationSeconds").unwrap_or(MIN_TOKEN_SECONDS);
            let message = match seconds {
                ..MIN_TOKEN_SECONDS => "may not specify a duration less than 10 minutes",
                MIN_TOKEN_SECONDS..=MAX_TOKEN_SECONDS => continue,
                _ => "may not specify a duration larger than 2^32 seconds",
            };
            errors.push(FieldError::invalid(format!("{field}.expirationSeconds"), &json!(seconds), message));
        }
        for mode in strings(spec, "/volumeLifecycleModes").filter(|m| !LIFECYCLE_MODES.contains(m)) {
            errors.push(FieldError::not_supported("spec.volumeLifecycleModes", &json!(mode), &LIFECYCLE_MODES));
        }
        if let Some(n) = int(spec, "/nodeAllocatableUpdatePeriodSeconds").filter(|n| *n < MIN_UPDATE_SECONDS) {
            let message = format!("must be greater than or equal to {MIN_UPDATE_SECONDS} seconds");
            errors.push(FieldError::invalid("spec.nodeAllocatableUpdatePeriodSeconds", &json!(n), &message));
        }
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if at(new, "spec.attachRequired") != at(old, "spec.attachRequired") {
            // The name is upstream's.
            errors.push(FieldError::invalid("spec.attachedRequired", at(new, "spec.attachRequired"), IMMUTABLE));
        }
        errors.extend(immutable(new, old, &["spec.volumeLifecycleModes"]));
        errors
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("AttachRequired", "boolean", "Whether volumes are attached before they are mounted."),
            Column::new("PodInfoOnMount", "boolean", "Whether the driver is told of the pod."),
            Column::new("StorageCapacity", "boolean", "Whether its free capacity is looked at when pods are placed."),
            Column::new("TokenRequests", "string", "Audiences of the tokens that it is given."),
            Column::new("RequiresRepublish", "boolean", "Whether volumes are published again and again."),
            Column::new("Modes", "string", "Lifecycles of volumes that it supports."),
            Column::age(),
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let spec = at(object, "spec");
        let audiences = list(spec, "/tokenRequests").iter().map(|t| text(t, "/audience")).collect::<Vec<_>>();
        let tokens = if has(spec, "/tokenRequests") { audiences.join(",") } else { "<unset>".into() };
        let modes = strings(spec, "/volumeLifecycleModes").collect::<Vec<_>>().join(",");
        vec![
            table::name(object),
            json!(at(spec, "attachRequired").as_bool().unwrap_or(true)),
            json!(flag(spec, "/podInfoOnMount")),
            json!(flag(spec, "/storageCapacity")),
            json!(tokens),
            json!(flag(spec, "/requiresRepublish")),
            json!(if modes.is_empty() { "<none>" } else { &modes }),
            table::age(object, now),
        ]
    }
}
