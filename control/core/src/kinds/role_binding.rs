//! RoleBinding and ClusterRoleBinding.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::role::{API, GROUP};
use super::value::{child, items_mut, list, set_default_nonzero, text};
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{self, Check, report};

/// RoleBindings.
pub fn role_binding() -> Option<Resource> {
    let names = names(API, "rolebindings", "RoleBinding", &[], Scope::Namespaced);
    super::built_in(names, plain(), Binding { namespaced: true })
}

/// ClusterRoleBindings.
pub fn cluster_role_binding() -> Option<Resource> {
    let names = names(API, "clusterrolebindings", "ClusterRoleBinding", &[], Scope::Cluster);
    super::built_in(names, plain(), Binding { namespaced: false })
}

struct Binding {
    namespaced: bool,
}

impl Strategy for Binding {
    fn creates_on_update(&self) -> bool {
        true
    }
    fn default(&self, object: &mut Value) {
        if let Some(role) = child(object, "roleRef") {
            set_default_nonzero(role, "apiGroup", GROUP);
        }
        for subject in items_mut(object, "/subjects") {
            if matches!(text(subject, "/kind"), "User" | "Group") {
                set_default_nonzero(subject, "apiGroup", GROUP);
            }
        }
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let kinds: &[&str] = if self.namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
        for (field, valid) in [("apiGroup", [GROUP].as_slice()), ("kind", kinds)] {
            let given = text(object, &format!("/roleRef/{field}"));
            if !valid.contains(&given) {
                errors.push(FieldError::not_supported(format!("roleRef.{field}"), &json!(given), valid));
            }
        }
        match text(object, "/roleRef/name") {
            "" => errors.push(FieldError::required("roleRef.name", "")),
            name => report(&mut errors, "roleRef.name", &json!(name), validate::path_segment(name)),
        }
        for (i, item) in list(object, "/subjects").iter().enumerate() {
            subject(&mut errors, item, &format!("subjects[{i}]"), self.namespaced);
        }
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let role = |o: &Value| o.get("roleRef").cloned().unwrap_or_default();
        if role(new) == role(old) {
            return Vec::new();
        }
        vec![FieldError::invalid("roleRef", &role(new), "cannot change roleRef")]
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Role", "string", "The role that is granted."),
            Column::age(),
            Column::new("Users", "string", "Users it is granted to.").wide(),
            Column::new("Groups", "string", "Groups it is granted to.").wide(),
            Column::new("ServiceAccounts", "string", "Service accounts it is granted to.").wide(),
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let of = |kind: &str| {
            let subjects = list(object, "/subjects").iter().filter(|s| text(s, "/kind") == kind);
            let shown = subjects.map(|s| match kind {
                "ServiceAccount" => format!("{}/{}", text(s, "/namespace"), text(s, "/name")),
                _ => text(s, "/name").to_string(),
            });
            json!(shown.collect::<Vec<_>>().join(", "))
        };
        let role = format!("{}/{}", text(object, "/roleRef/kind"), text(object, "/roleRef/name"));
        let (name, age) = (table::name(object), table::age(object, now));
        vec![name, json!(role), age, of("User"), of("Group"), of("ServiceAccount")]
    }
    fn validate_name(&self, name: &str) -> Check {
        validate::path_segment(name)
    }
}

fn subject(errors: &mut Vec<FieldError>, subject: &Value, field: &str, namespaced: bool) {
    let (name, group) = (text(subject, "/name"), text(subject, "/apiGroup"));
    if name.is_empty() {
        errors.push(FieldError::required(format!("{field}.name"), ""));
    }
    let kind = text(subject, "/kind");
    let expected = match kind {
        "ServiceAccount" => "",
        "User" | "Group" => GROUP,
        _ => {
            let kinds = ["ServiceAccount", "User", "Group"];
            return errors.push(FieldError::not_supported(format!("{field}.kind"), &json!(kind), &kinds));
        }
    };
    if kind == "ServiceAccount" && !name.is_empty() {
        report(errors, format!("{field}.name"), &json!(name), validate::dns1123_subdomain(name));
    }
    if group != expected {
        errors.push(FieldError::not_supported(format!("{field}.apiGroup"), &json!(group), &[expected]));
    }
    if kind == "ServiceAccount" && !namespaced && text(subject, "/namespace").is_empty() {
        errors.push(FieldError::required(format!("{field}.namespace"), ""));
    }
}
