//! RuntimeClass.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{amounts, at, immutable};
use super::pod_validation::tolerations;
use super::value::{list, text};
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{self, dns1123_label, report};

/// RuntimeClasses.
pub fn resource() -> Option<Resource> {
    let names = names("node.k8s.io/v1", "runtimeclasses", "RuntimeClass", &[], Scope::Cluster);
    super::built_in(names, plain(), RuntimeClass)
}

struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn allows_unconditional_update(&self) -> bool {
        false
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let handler = text(object, "/handler");
        report(&mut errors, "handler", &json!(handler), dns1123_label(handler));
        amounts(&mut errors, at(object, "overhead.podFixed"), "overhead.podFixed");
        errors.extend(validate::labels(at(object, "scheduling.nodeSelector"), "scheduling.nodeSelector"));
        for (i, toleration) in list(object, "/scheduling/tolerations").iter().enumerate() {
            tolerations(&mut errors, toleration, &format!("scheduling.tolerations[{i}]"));
        }
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        immutable(new, old, &["handler"])
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![Column::name(), Column::new("Handler", "string", "What runs its pods on a node."), Column::age()]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![table::name(object), json!(text(object, "/handler")), table::age(object, now)]
    }
}
