//! Role and ClusterRole. What they allow is the authorizer's business; here they are objects.

use copepod_api::FieldError;
use serde_json::Value;

use super::value::{has, list};
use super::workload::label_selector;
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{self, Check};

/// The group of RBAC kinds.
pub(super) const GROUP: &str = "rbac.authorization.k8s.io";
/// Its served version.
pub(super) const API: &str = "rbac.authorization.k8s.io/v1";

/// Roles.
pub fn role() -> Option<Resource> {
    super::built_in(names(API, "roles", "Role", &[], Scope::Namespaced), plain(), Role { namespaced: true })
}

/// ClusterRoles.
pub fn cluster_role() -> Option<Resource> {
    let names = names(API, "clusterroles", "ClusterRole", &[], Scope::Cluster);
    super::built_in(names, plain(), Role { namespaced: false })
}

struct Role {
    namespaced: bool,
}

impl Strategy for Role {
    fn creates_on_update(&self) -> bool {
        true
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (i, item) in list(object, "/rules").iter().enumerate() {
            rule(&mut errors, item, &format!("rules[{i}]"), self.namespaced);
        }
        if has(object, "/aggregationRule") {
            let selectors = list(object, "/aggregationRule/clusterRoleSelectors");
            let field = "aggregationRule.clusterRoleSelectors";
            if selectors.is_empty() {
                let message = "at least one clusterRoleSelector required if aggregationRule is non-nil";
                errors.push(FieldError::required(field, message));
            }
            for (i, selector) in selectors.iter().enumerate() {
                errors.extend(label_selector(selector, &format!("{field}[{i}]")));
            }
        }
        errors
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        table::created_columns()
    }
    fn cells(&self, object: &Value, _now: i64) -> Vec<Value> {
        table::created_cells(object)
    }
    fn validate_name(&self, name: &str) -> Check {
        validate::path_segment(name)
    }
}

fn rule(errors: &mut Vec<FieldError>, rule: &Value, field: &str, namespaced: bool) {
    let empty = |key: &str| list(rule, key).is_empty();
    if empty("/verbs") {
        errors.push(FieldError::required(format!("{field}.verbs"), "verbs must contain at least one value"));
    }
    if let Some(urls) = rule.get("nonResourceURLs").filter(|_| !empty("/nonResourceURLs")) {
        let field = format!("{field}.nonResourceURLs");
        if namespaced {
            let message = "namespaced rules cannot apply to non-resource URLs";
            errors.push(FieldError::invalid(&field, urls, message));
        }
        if !empty("/apiGroups") || !empty("/resources") || !empty("/resourceNames") {
            let message = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(FieldError::invalid(&field, urls, message));
        }
        return;
    }
    if empty("/apiGroups") {
        let message = "resource rules must supply at least one api group";
        errors.push(FieldError::required(format!("{field}.apiGroups"), message));
    }
    if empty("/resources") {
        let message = "resource rules must supply at least one resource";
        errors.push(FieldError::required(format!("{field}.resources"), message));
    }
}
