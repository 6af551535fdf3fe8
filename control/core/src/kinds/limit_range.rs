//! LimitRange.

use std::collections::{BTreeSet, HashSet};

use copepod_api::{FieldError, Quantity};
use serde_json::{Value, json};

use super::fields::at;
use super::value::{child, entries, has, items_mut, list, set_default, text};
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{qualified_name, quantity, report};

/// The maps of amounts in one limit.
const MAPS: [&str; 5] = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"];

/// LimitRanges.
pub fn resource() -> Option<Resource> {
    super::built_in(names("v1", "limitranges", "LimitRange", &["limits"], Scope::Namespaced), plain(), LimitRange)
}

struct LimitRange;

impl Strategy for LimitRange {
    fn creates_on_update(&self) -> bool {
        true
    }
    /// Of containers alone: the limit is the maximum, the request is the limit or the minimum.
    fn default(&self, object: &mut Value) {
        for limit in items_mut(object, "/spec/limits") {
            if text(limit, "/type") != "Container" {
                continue;
            }
            for (to, from) in [("default", "max"), ("defaultRequest", "default"), ("defaultRequest", "min")] {
                let source = at(limit, from).clone();
                let Some(target) = child(limit, to) else { continue };
                for (name, value) in entries(&source, "") {
                    set_default(target, name, value.clone());
                }
            }
        }
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut types = HashSet::new();
        for (i, limit) in list(object, "/spec/limits").iter().enumerate() {
            let field = format!("spec.limits[{i}]");
            let kind = text(limit, "/type");
            report(&mut errors, format!("{field}.type"), &json!(kind), qualified_name(kind));
            if !types.insert(kind) {
                errors.push(FieldError::duplicate(format!("{field}.type"), &json!(kind)));
            }
            item(&mut errors, limit, kind, &field);
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
}

fn item(errors: &mut Vec<FieldError>, limit: &Value, kind: &str, field: &str) {
    let mut resources = BTreeSet::new();
    for map in MAPS {
        if kind == "Pod" && matches!(map, "default" | "defaultRequest") {
            if entries(at(limit, map), "").next().is_some() {
                let message = "may not be specified when `type` is 'Pod'";
                errors.push(FieldError::forbidden(format!("{field}.{map}"), message));
            }
            continue;
        }
        for (name, value) in entries(at(limit, map), "") {
            let field = format!("{field}.{map}[{name}]");
            report(errors, &field, &json!(name), qualified_name(name));
            report(errors, &field, value, quantity(value).map(|_| ()));
            resources.insert(name.as_str());
        }
    }
    if kind == "PersistentVolumeClaim" && !has(limit, "/min/storage") && !has(limit, "/max/storage") {
        let message = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(FieldError::required(format!("{field}.limits"), message));
    }
    for resource in resources {
        bounds(errors, limit, resource, field);
    }
}

/// The order of the amounts of one resource: min, default request, default, max.
fn bounds(errors: &mut Vec<FieldError>, limit: &Value, resource: &str, field: &str) {
    let amount = |map: &str| at(limit, map).get(resource).and_then(|v| quantity(v).ok());
    let [max, min, default, request, ratio] = MAPS.map(amount);
    let mut wrong = |map: &str, value: Quantity, message: String| {
        errors.push(FieldError::invalid(format!("{field}.{map}[{resource}]"), &json!(value.to_string()), &message));
    };
    let above = |a: Option<Quantity>, b: Option<Quantity>| a.zip(b).filter(|(a, b)| a > b);
    if let Some((min, max)) = above(min, max) {
        wrong("min", min, format!("min value {min} is greater than max value {max}"));
    }
    if let Some((min, request)) = above(min, request) {
        wrong("defaultRequest", request, format!("min value {min} is greater than default request value {request}"));
    }
    if let Some((request, max)) = above(request, max) {
        wrong("defaultRequest", request, format!("default request value {request} is greater than max value {max}"));
    }
    if let Some((request, default)) = above(request, default) {
        let message = format!("default request value {request} is greater than default limit value {default}");
        wrong("defaultRequest", request, message);
    }
    if let Some((min, default)) = above(min, default) {
        wrong("default", min, format!("min value {min} is greater than default value {default}"));
    }
    if let Some((default, max)) = above(default, max) {
        wrong("default", max, format!("default value {default} is greater than max value {max}"));
    }
    if let Some(ratio) = ratio.filter(|r| *r < Quantity::from_units(1)) {
        wrong("maxLimitRequestRatio", ratio, format!("ratio {ratio} is less than 1"));
    }
    if let (Some(ratio), Some(min), Some(max)) = (ratio, min, max) {
        #[allow(clippy::cast_precision_loss, reason = "the message shows a rounded number")]
        let most = max.milli() as f64 / min.milli() as f64;
        #[allow(clippy::cast_precision_loss, reason = "ratios are small")]
        if ratio.milli() as f64 / 1000.0 > most {
            wrong("maxLimitRequestRatio", ratio, format!("ratio {ratio} is greater than max/min = {most:.6}"));
        }
    }
}
