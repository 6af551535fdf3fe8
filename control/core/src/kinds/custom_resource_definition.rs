//! CustomResourceDefinition, as an object: what it defines is not served.

use std::collections::HashSet;

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{at, condition, immutable, required_one_of};
use super::value::{child, flag, has, list, set, set_default, set_default_nonzero, strings, text};
use super::webhook_configuration;
use super::{names, with_status};
use crate::resource::{Resource, Scope, Strategy};
use crate::schema::Schema;
use crate::table::{self, Column};
use crate::validate::{dns1035_label, dns1123_subdomain, report};

/// CustomResourceDefinitions.
pub fn resource() -> Option<Resource> {
    let (plural, kind) = ("customresourcedefinitions", "CustomResourceDefinition");
    let mut names = names("apiextensions.k8s.io/v1", plural, kind, &["crd", "crds"], Scope::Cluster);
    names.categories.push("api-extensions".into());
    super::built_in(names, with_status(), Definition)
}

struct Definition;

impl Strategy for Definition {
    fn allows_unconditional_update(&self) -> bool {
        false
    }
    fn default(&self, object: &mut Value) {
        let Some(spec) = child(object, "spec") else { return };
        if let Some(names) = child(spec, "names") {
            let kind = text(names, "/kind").to_string();
            if !kind.is_empty() {
                set_default_nonzero(names, "singular", kind.to_lowercase());
                set_default_nonzero(names, "listKind", format!("{kind}List"));
            }
        }
        set_default(spec, "conversion", json!({"strategy": "None"}));
        if let Some(service) = spec.pointer_mut("/conversion/webhook/clientConfig/service").filter(|s| s.is_object()) {
            set_default(service, "port", 443);
        }
    }
    fn prepare_create(&self, object: &mut Value) {
        let stored: Vec<&str> = storage_versions(object).collect();
        let mut status = json!({"acceptedNames": {"plural": "", "kind": ""}});
        if !stored.is_empty() {
            set(&mut status, "storedVersions", json!(stored));
        }
        set(object, "status", status);
    }
    /// A new storage version joins those that objects may be stored in.
    fn prepare_update(&self, new: &mut Value, _old: &Value) {
        let mut stored: Vec<String> = strings(new, "/status/storedVersions").map(str::to_string).collect();
        for version in storage_versions(new).map(str::to_string).collect::<Vec<_>>() {
            if !stored.contains(&version) {
                stored.push(version);
            }
        }
        if let Some(status) = child(new, "status") {
            set(status, "storedVersions", stored);
        }
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (name, plural, group) =
            (text(object, "/metadata/name"), text(object, "/spec/names/plural"), text(object, "/spec/group"));
        if name != format!("{plural}.{group}") {
            let message = "must be spec.names.plural+\".\"+spec.group";
            errors.push(FieldError::invalid("metadata.name", &json!(name), message));
        }
        match group {
            "" => errors.push(FieldError::required("spec.group", "")),
            group => {
                report(&mut errors, "spec.group", &json!(group), dns1123_subdomain(group));
                if !group.contains('.') {
                    let message = "should be a domain with at least one dot";
                    errors.push(FieldError::invalid("spec.group", &json!(group), message));
                }
            }
        }
        required_one_of(&mut errors, at(object, "spec"), "spec", "scope", &["Cluster", "Namespaced"]);
        versions(&mut errors, object);
        if flag(object, "/spec/preserveUnknownFields") {
            let message = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                           spec.versions[*].schema instead";
            errors.push(FieldError::invalid("spec.preserveUnknownFields", &json!(true), message));
        }
        resource_names(&mut errors, object);
        conversion(&mut errors, object);
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if condition(old, "Established").is_some_and(|c| text(c, "/status") == "True") {
            errors.extend(immutable(new, old, &["spec.scope", "spec.names.kind"]));
        }
        errors.extend(immutable(new, old, &["spec.group", "spec.names.plural"]));
        let served: Vec<&str> = list(new, "/spec/versions").iter().map(|v| text(v, "/name")).collect();
        for (i, version) in strings(new, "/status/storedVersions").enumerate().filter(|(_, v)| !served.contains(v)) {
            let message = "must appear in spec.versions";
            errors.push(FieldError::invalid(format!("status.storedVersions[{i}]"), &json!(version), message));
        }
        errors
    }
    fn columns(&self) -> Vec<Column> {
        table::created_columns()
    }
    fn cells(&self, object: &Value, _now: i64) -> Vec<Value> {
        table::created_cells(object)
    }
}

fn storage_versions(object: &Value) -> impl Iterator<Item = &str> {
    list(object, "/spec/versions").iter().filter(|v| flag(v, "/storage")).map(|v| text(v, "/name"))
}

fn versions(errors: &mut Vec<FieldError>, object: &Value) {
    const FIELD: &str = "spec.versions";
    let all = list(object, "/spec/versions");
    let mut seen = HashSet::new();
    for (i, version) in all.iter().enumerate() {
        let (field, name) = (format!("{FIELD}[{i}]"), text(version, "/name"));
        report(errors, format!("{field}.name"), &json!(name), dns1035_label(name));
        if !seen.insert(name) {
            errors.push(FieldError::invalid(FIELD, &json!(name), "must contain unique version names"));
        }
        schema(errors, version, &format!("{field}.schema.openAPIV3Schema"), text(object, "/spec/names/kind"));
        scale(errors, version, &format!("{field}.subresources.scale"));
        for (j, column) in list(version, "/additionalPrinterColumns").iter().enumerate() {
            for key in ["name", "jsonPath", "type"] {
                if text(column, &format!("/{key}")).is_empty() {
                    let field = format!("{field}.additionalPrinterColumns[{j}].{key}");
                    errors.push(FieldError::required(field, ""));
                }
            }
        }
    }
    if all.is_empty() {
        errors.push(FieldError::required(FIELD, "must specify at least one version"));
    }
    if storage_versions(object).count() != 1 {
        let names: Vec<&str> = all.iter().map(|v| text(v, "/name")).collect();
        let message = "must have exactly one version marked as storage version";
        errors.push(FieldError::invalid(FIELD, &json!(names), message));
    }
}

/// The schema must be structural as far as our engine can tell: it compiles it.
fn schema(errors: &mut Vec<FieldError>, version: &Value, field: &str, kind: &str) {
    let Some(given) = version.pointer("/schema/openAPIV3Schema").filter(|s| !s.is_null()) else {
        return errors.push(FieldError::required(field, "schemas are required"));
    };
    if text(given, "/type").is_empty() {
        return errors.push(FieldError::required(format!("{field}.type"), "must not be empty at the root"));
    }
    if let Err(e) = Schema::from_openapi(kind, given) {
        let value = at(given, &e.path);
        let field = if e.path.is_empty() { field.to_string() } else { format!("{field}.{}", e.path) };
        errors.push(FieldError::invalid(field, value, &e.message));
    }
}

fn scale(errors: &mut Vec<FieldError>, version: &Value, field: &str) {
    if !has(version, "/subresources/scale") {
        return;
    }
    for (key, root) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
        let (path, field) = (text(version, &format!("/subresources/scale/{key}")), format!("{field}.{key}"));
        if path.is_empty() {
            errors.push(FieldError::required(field, ""));
        } else if !path.starts_with(root) {
            let message = format!("should be a json path under {}", root.trim_end_matches('.'));
            errors.push(FieldError::invalid(field, &json!(path), &message));
        }
    }
}

fn resource_names(errors: &mut Vec<FieldError>, object: &Value) {
    let of = |key: &str| text(object, &format!("/spec/names/{key}"));
    let mixed = |name: &str| {
        dns1035_label(&name.to_lowercase()).map_err(|m| format!("may have mixed case, but should otherwise match: {m}"))
    };
    for key in ["plural", "singular"] {
        match of(key) {
            "" if key == "plural" => errors.push(FieldError::required("spec.names.plural", "")),
            "" => {}
            name => report(errors, format!("spec.names.{key}"), &json!(name), dns1035_label(name)),
        }
    }
    for key in ["kind", "listKind"] {
        match of(key) {
            "" => errors.push(FieldError::required(format!("spec.names.{key}"), "")),
            name => report(errors, format!("spec.names.{key}"), &json!(name), mixed(name)),
        }
    }
    if !of("kind").is_empty() && of("kind") == of("listKind") {
        let message = "kind and listKind may not be the same";
        errors.push(FieldError::invalid("spec.names.listKind", &json!(of("listKind")), message));
    }
    for key in ["shortNames", "categories"] {
        for (i, name) in strings(object, &format!("/spec/names/{key}")).enumerate() {
            report(errors, format!("spec.names.{key}[{i}]"), &json!(name), dns1035_label(name));
        }
    }
}

fn conversion(errors: &mut Vec<FieldError>, object: &Value) {
    const FIELD: &str = "spec.conversion";
    let Some(conversion) = object.pointer("/spec/conversion") else { return };
    required_one_of(errors, conversion, FIELD, "strategy", &["None", "Webhook"]);
    match (text(conversion, "/strategy"), has(conversion, "/webhook")) {
        ("Webhook", _) => {
            let config = conversion.pointer("/webhook/clientConfig").unwrap_or(&Value::Null);
            if config.is_null() {
                let message = "required when strategy is set to Webhook";
                errors.push(FieldError::required(format!("{FIELD}.webhook.clientConfig"), message));
            } else {
                webhook_configuration::client(errors, config, &format!("{FIELD}.webhook.clientConfig"));
            }
            if list(conversion, "/webhook/conversionReviewVersions").is_empty() {
                errors.push(FieldError::required(format!("{FIELD}.webhook.conversionReviewVersions"), ""));
            }
        }
        (_, true) => {
            let message = "should not be set when strategy is not set to Webhook";
            errors.push(FieldError::forbidden(format!("{FIELD}.webhook"), message));
        }
        _ => {}
    }
}
