//! Namespace.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::value::{child, list, set, set_default, strings, text};
use super::{names, with_status};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{self, Check, qualified_name};

/// The finalizer that the namespace controller removes when the namespace is empty.
pub const FINALIZER: &str = "kubernetes";
/// The label that carries every namespace's name.
pub const LABEL_NAME: &str = "kubernetes.io/metadata.name";

/// Namespaces.
pub fn resource() -> Option<Resource> {
    super::built_in(names("v1", "namespaces", "Namespace", &["ns"], Scope::Cluster), with_status(), Namespace)
}

struct Namespace;

impl Strategy for Namespace {
    fn default(&self, object: &mut Value) {
        label_name(object);
        child(object, "spec");
    }
    fn prepare_create(&self, object: &mut Value) {
        // Again: the name may have been generated since.
        label_name(object);
        set(object, "status", json!({"phase": "Active"}));
        let Some(spec) = child(object, "spec") else { return };
        set_default(spec, "finalizers", json!([]));
        if !strings(spec, "/finalizers").any(|f| f == FINALIZER)
            && let Some(list) = spec.get_mut("finalizers").and_then(Value::as_array_mut)
        {
            list.push(json!(FINALIZER));
        }
    }
    /// `spec.finalizers` change only through `/finalize`.
    fn prepare_update(&self, new: &mut Value, old: &Value) {
        let finalizers = list(old, "/spec/finalizers").to_vec();
        if let Some(spec) = child(new, "spec") {
            set(spec, "finalizers", finalizers);
        }
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (i, finalizer) in strings(object, "/spec/finalizers").enumerate() {
            let field = format!("spec.finalizers[{i}]");
            let value = json!(finalizer);
            match qualified_name(finalizer) {
                Ok(()) if finalizer != FINALIZER && !finalizer.contains('/') => {
                    let message = "name is neither a standard finalizer name nor is it fully qualified";
                    errors.push(FieldError::invalid(field, &value, message));
                }
                check => validate::report(&mut errors, field, &value, check),
            }
        }
        errors
    }
    /// Namespaces are not deleted by the dozen.
    fn verbs(&self) -> &'static [&'static str] {
        &["create", "delete", "get", "list", "patch", "update", "watch"]
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![Column::name(), Column::new("Status", "string", "Active or Terminating."), Column::age()]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![table::name(object), json!(text(object, "/status/phase")), table::age(object, now)]
    }
    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("status.phase", text(object, "/status/phase").into())]
    }
    fn field_names(&self) -> &'static [&'static str] {
        &["status.phase"]
    }
    fn validate_name(&self, name: &str) -> Check {
        validate::dns1123_label(name)
    }
}

fn label_name(object: &mut Value) {
    let name = text(object, "/metadata/name").to_string();
    if !name.is_empty()
        && let Some(labels) = child(object, "metadata").and_then(|m| child(m, "labels"))
    {
        set(labels, LABEL_NAME, name);
    }
}
