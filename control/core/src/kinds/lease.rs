//! Lease.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::value::{int, text};
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::NON_NEGATIVE;

/// Leases.
pub fn resource() -> Option<Resource> {
    super::built_in(names("coordination.k8s.io/v1", "leases", "Lease", &[], Scope::Namespaced), plain(), Lease)
}

struct Lease;

impl Strategy for Lease {
    fn creates_on_update(&self) -> bool {
        true
    }
    fn allows_unconditional_update(&self) -> bool {
        false
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if object.pointer("/spec/holderIdentity").is_some_and(|h| *h == "") {
            errors.push(FieldError::invalid("spec.holderIdentity", &json!(""), "must not be empty"));
        }
        if let Some(seconds) = int(object, "/spec/leaseDurationSeconds").filter(|s| *s <= 0) {
            errors.push(FieldError::invalid("spec.leaseDurationSeconds", &json!(seconds), "must be greater than 0"));
        }
        if let Some(n) = int(object, "/spec/leaseTransitions").filter(|n| *n < 0) {
            errors.push(FieldError::invalid("spec.leaseTransitions", &json!(n), NON_NEGATIVE));
        }
        errors
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![Column::name(), Column::new("Holder", "string", "Who holds the lease."), Column::age()]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![table::name(object), json!(text(object, "/spec/holderIdentity")), table::age(object, now)]
    }
}
