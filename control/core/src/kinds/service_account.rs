//! ServiceAccount.

use serde_json::{Value, json};

use super::value::list;
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};

/// ServiceAccounts.
pub fn resource() -> Option<Resource> {
    super::built_in(
        names("v1", "serviceaccounts", "ServiceAccount", &["sa"], Scope::Namespaced),
        plain(),
        ServiceAccount,
    )
}

struct ServiceAccount;

impl Strategy for ServiceAccount {
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![Column::name(), Column::new("Secrets", "string", "How many secrets pods may name."), Column::age()]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![table::name(object), json!(list(object, "/secrets").len().to_string()), table::age(object, now)]
    }
}
