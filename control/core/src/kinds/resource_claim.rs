//! ResourceClaim and ResourceClaimTemplate.

use std::collections::HashSet;

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{immutable, required_one_of};
use super::value::{has, int, items_mut, list, set, set_default, set_default_nonzero, strings, text};
use super::{names, plain, with_status};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{dns1123_label, dns1123_subdomain, report, too_many};

/// Group and version of these kinds.
pub(super) const API: &str = "resource.k8s.io/v1";

const MODES: [&str; 2] = ["All", "ExactCount"];
/// Most requests, constraints, configurations of one claim each; most selectors of one request.
const MAX_ITEMS: usize = 32;
/// Most alternatives of one request.
const MAX_ALTERNATIVES: usize = 8;
/// Most consumers of one claim.
const MAX_CONSUMERS: usize = 256;

/// ResourceClaims.
pub fn claim() -> Option<Resource> {
    super::built_in(names(API, "resourceclaims", "ResourceClaim", &[], Scope::Namespaced), with_status(), Claim)
}

/// ResourceClaimTemplates.
pub fn template() -> Option<Resource> {
    let names = names(API, "resourceclaimtemplates", "ResourceClaimTemplate", &[], Scope::Namespaced);
    super::built_in(names, plain(), Template)
}

struct Claim;

impl Strategy for Claim {
    fn default(&self, object: &mut Value) {
        default(object.get_mut("spec"));
    }
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({}));
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        spec(&mut errors, object.get("spec").unwrap_or(&Value::Null), "spec");
        let consumers = list(object, "/status/reservedFor");
        if consumers.len() > MAX_CONSUMERS {
            errors.push(too_many("status.reservedFor", consumers.len(), MAX_CONSUMERS));
        }
        if !consumers.is_empty() && !has(object, "/status/allocation") {
            let message = "may not be specified when `allocated` is not set";
            errors.push(FieldError::forbidden("status.reservedFor", message));
        }
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = immutable(new, old, &["spec"]);
        if has(new, "/status/allocation") && has(old, "/status/allocation") {
            errors.extend(immutable(new, old, &["status.allocation"]));
        }
        errors
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![Column::name(), Column::new("State", "string", "How far its allocation got."), Column::age()]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let (deleted, allocated) = (has(object, "/metadata/deletionTimestamp"), has(object, "/status/allocation"));
        let reserved = !list(object, "/status/reservedFor").is_empty();
        let states = [
            (deleted, "deleted"),
            (allocated, "allocated"),
            (allocated && reserved, "reserved"),
            (!allocated && !deleted, "pending"),
        ];
        let state: Vec<&str> = states.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect();
        vec![table::name(object), json!(state.join(",")), table::age(object, now)]
    }
}

struct Template;

impl Strategy for Template {
    fn default(&self, object: &mut Value) {
        default(object.pointer_mut("/spec/spec"));
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        spec(&mut errors, object.pointer("/spec/spec").unwrap_or(&Value::Null), "spec.spec");
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        immutable(new, old, &["spec"])
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![Column::name(), Column::age()]
    }
}

fn default(spec: Option<&mut Value>) {
    let Some(spec) = spec else { return };
    for request in items_mut(spec, "/devices/requests") {
        if let Some(exactly) = request.get_mut("exactly").filter(|e| e.is_object()) {
            default_request(exactly);
        }
        items_mut(request, "/firstAvailable").for_each(default_request);
    }
}

fn default_request(request: &mut Value) {
    set_default_nonzero(request, "allocationMode", "ExactCount");
    if text(request, "/allocationMode") == "ExactCount" {
        set_default_nonzero(request, "count", 1);
    }
    for toleration in items_mut(request, "/tolerations") {
        set_default(toleration, "operator", "Equal");
    }
}

/// Rules of a claim's spec at `field`.
fn spec(errors: &mut Vec<FieldError>, spec: &Value, field: &str) {
    let devices = spec.get("devices").unwrap_or(&Value::Null);
    let field = format!("{field}.devices");
    for key in ["requests", "constraints", "config"] {
        let all = list(devices, &format!("/{key}"));
        if all.len() > MAX_ITEMS {
            errors.push(too_many(format!("{field}.{key}"), all.len(), MAX_ITEMS));
        }
    }
    let mut known = HashSet::new();
    for (i, item) in list(devices, "/requests").iter().enumerate() {
        let field = format!("{field}.requests[{i}]");
        let name = text(item, "/name");
        label(errors, item, &field, &mut known);
        let alternatives = list(item, "/firstAvailable");
        match (has(item, "/exactly"), alternatives.is_empty()) {
            (true, true) => request(errors, item.get("exactly").unwrap_or(&Value::Null), &format!("{field}.exactly")),
            (false, false) => {
                if alternatives.len() > MAX_ALTERNATIVES {
                    errors.push(too_many(format!("{field}.firstAvailable"), alternatives.len(), MAX_ALTERNATIVES));
                }
                let mut own = HashSet::new();
                for (j, sub) in alternatives.iter().enumerate() {
                    let field = format!("{field}.firstAvailable[{j}]");
                    label(errors, sub, &field, &mut own);
                    request(errors, sub, &field);
                }
                known.extend(own.into_iter().map(|sub| format!("{name}/{sub}")));
            }
            (true, false) => {
                let message = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
                errors.push(FieldError::invalid(field, &json!(""), message));
            }
            (false, true) => {
                errors.push(FieldError::required(field, "exactly one of `exactly` or `firstAvailable` is required"));
            }
        }
    }
    for key in ["constraints", "config"] {
        for (i, item) in list(devices, &format!("/{key}")).iter().enumerate() {
            for (j, name) in strings(item, "/requests").enumerate().filter(|(_, name)| !known.contains(*name)) {
                let message = "must be the name of a request in the claim or the name of a request and a subrequest \
                               separated by '/'";
                errors.push(FieldError::invalid(format!("{field}.{key}[{i}].requests[{j}]"), &json!(name), message));
            }
        }
    }
}

fn label(errors: &mut Vec<FieldError>, item: &Value, field: &str, known: &mut HashSet<String>) {
    let (name, field) = (text(item, "/name"), format!("{field}.name"));
    if name.is_empty() {
        return errors.push(FieldError::required(field, ""));
    }
    report(errors, &field, &json!(name), dns1123_label(name));
    if !known.insert(name.to_string()) {
        errors.push(FieldError::duplicate(field, &json!(name)));
    }
}

fn request(errors: &mut Vec<FieldError>, request: &Value, field: &str) {
    match text(request, "/deviceClassName") {
        "" => errors.push(FieldError::required(format!("{field}.deviceClassName"), "")),
        name => report(errors, format!("{field}.deviceClassName"), &json!(name), dns1123_subdomain(name)),
    }
    selectors(errors, request, field);
    required_one_of(errors, request, field, "allocationMode", &MODES);
    let count = int(request, "/count").unwrap_or(0);
    let bad = match text(request, "/allocationMode") {
        "ExactCount" if count <= 0 => "must be greater than zero",
        "All" if count != 0 => "must not be specified when allocationMode is 'All'",
        _ => return,
    };
    errors.push(FieldError::invalid(format!("{field}.count"), &json!(count), bad));
}

/// Rules of `selectors` of a request or a class.
pub(super) fn selectors(errors: &mut Vec<FieldError>, object: &Value, field: &str) {
    let all = list(object, "/selectors");
    if all.len() > MAX_ITEMS {
        errors.push(too_many(format!("{field}.selectors"), all.len(), MAX_ITEMS));
    }
    for (i, item) in all.iter().enumerate().filter(|(_, item)| text(item, "/cel/expression").is_empty()) {
        let key = if has(item, "/cel") { "cel.expression" } else { "cel" };
        errors.push(FieldError::required(format!("{field}.selectors[{i}].{key}"), ""));
    }
}
