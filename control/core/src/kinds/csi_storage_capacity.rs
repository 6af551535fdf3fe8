//! CSIStorageCapacity: how much room a driver has in a part of the cluster.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{at, immutable};
use super::value::text;
use super::workload::label_selector;
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{NON_NEGATIVE, dns1123_subdomain, quantity, report};

/// CSIStorageCapacities.
pub fn resource() -> Option<Resource> {
    let names = names("storage.k8s.io/v1", "csistoragecapacities", "CSIStorageCapacity", &[], Scope::Namespaced);
    super::built_in(names, plain(), CsiStorageCapacity)
}

struct CsiStorageCapacity;

impl Strategy for CsiStorageCapacity {
    fn allows_unconditional_update(&self) -> bool {
        false
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = label_selector(at(object, "nodeTopology"), "nodeTopology");
        let class = text(object, "/storageClassName");
        report(&mut errors, "storageClassName", &json!(class), dns1123_subdomain(class));
        let capacity = at(object, "capacity");
        match quantity(capacity) {
            _ if capacity.is_null() => {}
            Ok(amount) if amount.is_negative() => {
                errors.push(FieldError::invalid("capacity", capacity, NON_NEGATIVE));
            }
            check => report(&mut errors, "capacity", capacity, check.map(|_| ())),
        }
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        immutable(new, old, &["nodeTopology", "storageClassName"])
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("StorageClassName", "string", "The class that it is for."),
            Column::new("Capacity", "string", "How much is free."),
        ]
    }
    fn cells(&self, object: &Value, _now: i64) -> Vec<Value> {
        let capacity = at(object, "capacity").as_str().unwrap_or("<unset>");
        vec![table::name(object), json!(text(object, "/storageClassName")), json!(capacity)]
    }
}
