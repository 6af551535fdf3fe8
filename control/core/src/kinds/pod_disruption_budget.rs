//! PodDisruptionBudget.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{amount, at, non_negative, one_of};
use super::value::{has, set};
use super::workload::{count, label_selector};
use super::{names, with_status};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};

const COUNTS: [&str; 4] = ["currentHealthy", "desiredHealthy", "disruptionsAllowed", "expectedPods"];

/// PodDisruptionBudgets.
pub fn resource() -> Option<Resource> {
    let names = names("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget", &["pdb"], Scope::Namespaced);
    super::built_in(names, with_status(), PodDisruptionBudget)
}

struct PodDisruptionBudget;

impl Strategy for PodDisruptionBudget {
    fn allows_unconditional_update(&self) -> bool {
        false
    }
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({}));
        if let Some(status) = object.get_mut("status") {
            COUNTS.iter().for_each(|key| set(status, key, 0));
        }
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = at(object, "spec");
        if has(spec, "/minAvailable") && has(spec, "/maxUnavailable") {
            let message = "minAvailable and maxUnavailable cannot be both set";
            errors.push(FieldError::invalid("spec", spec, message));
        }
        for key in ["minAvailable", "maxUnavailable"] {
            if let Err(message) = amount(at(spec, key), true) {
                errors.push(FieldError::invalid(format!("spec.{key}"), at(spec, key), &message));
            }
        }
        errors.extend(label_selector(at(spec, "selector"), "spec.selector"));
        let policies = ["AlwaysAllow", "IfHealthyBudget"];
        one_of(&mut errors, spec, "spec", "unhealthyPodEvictionPolicy", &policies);
        non_negative(&mut errors, at(object, "status"), "status", &COUNTS);
        errors
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Min Available", "string", "Pods that must stay, as a number or a share."),
            Column::new("Max Unavailable", "string", "Pods that may be away, as a number or a share."),
            Column::new("Allowed Disruptions", "integer", "Pods that may be evicted now."),
            Column::age(),
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let bound = |field: &str| match at(object, field) {
            Value::Null => json!("N/A"),
            Value::String(share) => json!(share),
            number => json!(number.to_string()),
        };
        vec![
            table::name(object),
            bound("spec.minAvailable"),
            bound("spec.maxUnavailable"),
            count(object, "/status/disruptionsAllowed"),
            table::age(object, now),
        ]
    }
}
