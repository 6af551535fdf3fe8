//! ControllerRevision: a snapshot of a workload's template, kept for rollbacks.

use copepod_api::{FieldError, Gvk};
use serde_json::{Value, json};

use super::fields::{immutable, non_negative};
use super::value::{flag, has, int, list, text};
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};

/// ControllerRevisions.
pub fn resource() -> Option<Resource> {
    let names = names("apps/v1", "controllerrevisions", "ControllerRevision", &[], Scope::Namespaced);
    super::built_in(names, plain(), ControllerRevision)
}

struct ControllerRevision;

impl Strategy for ControllerRevision {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if !has(object, "/data") {
            errors.push(FieldError::required("data", "data is mandatory"));
        }
        non_negative(&mut errors, object, "", &["revision"]);
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        immutable(new, old, &["data"])
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Controller", "string", "The workload whose state it is."),
            Column::new("Revision", "integer", "Its number, higher when newer."),
            Column::age(),
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let owner = list(object, "/metadata/ownerReferences").iter().find(|o| flag(o, "/controller"));
        let controller = owner.map_or("<none>".into(), |owner| {
            let gvk = Gvk::from_api_version(text(owner, "/apiVersion"), text(owner, "/kind"));
            let kind = gvk.kind.to_lowercase();
            let kind = if gvk.group.is_empty() { kind } else { format!("{kind}.{}", gvk.group) };
            format!("{kind}/{}", text(owner, "/name"))
        });
        let revision = int(object, "/revision").unwrap_or(0);
        vec![table::name(object), json!(controller), json!(revision), table::age(object, now)]
    }
}
