//! NetworkPolicy.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{format_selector, one_of};
use super::value::{child, has, int, items_mut, list, set_default, set_default_nonzero, strings, text};
use super::workload::label_selector;
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{self, port, port_name, report};

const TYPES: [&str; 2] = ["Ingress", "Egress"];
const PROTOCOLS: [&str; 3] = ["TCP", "UDP", "SCTP"];

/// NetworkPolicies.
pub fn resource() -> Option<Resource> {
    let names = names("networking.k8s.io/v1", "networkpolicies", "NetworkPolicy", &["netpol"], Scope::Namespaced);
    super::built_in(names, plain(), NetworkPolicy)
}

struct NetworkPolicy;

impl Strategy for NetworkPolicy {
    fn default(&self, object: &mut Value) {
        let Some(spec) = child(object, "spec") else { return };
        set_default(spec, "podSelector", json!({}));
        if list(spec, "/policyTypes").is_empty() {
            let types = if list(spec, "/egress").is_empty() { json!(["Ingress"]) } else { json!(TYPES) };
            super::value::set(spec, "policyTypes", types);
        }
        for direction in ["/ingress", "/egress"] {
            for rule in items_mut(spec, direction) {
                for item in items_mut(rule, "/ports") {
                    set_default_nonzero(item, "protocol", "TCP");
                }
            }
        }
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let selector = object.pointer("/spec/podSelector").unwrap_or(&Value::Null);
        let mut errors = label_selector(selector, "spec.podSelector");
        for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
            for (i, rule) in list(object, &format!("/spec/{direction}")).iter().enumerate() {
                let field = format!("spec.{direction}[{i}]");
                for (j, item) in list(rule, "/ports").iter().enumerate() {
                    ports(&mut errors, item, &format!("{field}.ports[{j}]"));
                }
                for (j, item) in list(rule, &format!("/{peers}")).iter().enumerate() {
                    peer(&mut errors, item, &format!("{field}.{peers}[{j}]"));
                }
            }
        }
        let types = list(object, "/spec/policyTypes");
        if types.len() > TYPES.len() {
            let message = "may not specify more than two policyTypes";
            errors.push(FieldError::invalid("spec.policyTypes", &json!(types), message));
            return errors;
        }
        for (i, type_) in strings(object, "/spec/policyTypes").enumerate().filter(|(_, t)| !TYPES.contains(t)) {
            errors.push(FieldError::not_supported(format!("spec.policyTypes[{i}]"), &json!(type_), &TYPES));
        }
        errors
    }
    fn columns(&self) -> Vec<Column> {
        vec![Column::name(), Column::new("Pod-Selector", "string", "Which pods it is about."), Column::age()]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let selector = format_selector(object.pointer("/spec/podSelector").unwrap_or(&Value::Null));
        vec![table::name(object), json!(selector), table::age(object, now)]
    }
}

fn ports(errors: &mut Vec<FieldError>, item: &Value, field: &str) {
    one_of(errors, item, field, "protocol", &PROTOCOLS);
    let end = int(item, "/endPort");
    let mut bad_end = |end: i64, message: &str| {
        errors.push(FieldError::invalid(format!("{field}.endPort"), &json!(end), message));
    };
    match (item.get("port"), end) {
        (Some(Value::String(_)), Some(end)) => bad_end(end, "may not be specified when `port` is non-numeric"),
        (Some(Value::Number(first)), Some(end)) if first.as_i64().is_some_and(|first| end < first) => {
            bad_end(end, "must be greater than or equal to `port`");
        }
        (None | Some(Value::Null), Some(end)) => bad_end(end, "may not be specified when `port` is not specified"),
        _ => {}
    }
    match item.get("port") {
        Some(Value::String(name)) => report(errors, format!("{field}.port"), &json!(name), port_name(name)),
        Some(Value::Number(number)) => {
            let number = number.as_i64().unwrap_or(0);
            report(errors, format!("{field}.port"), &json!(number), port(number));
            if let Some(end) = end {
                report(errors, format!("{field}.endPort"), &json!(end), port(end));
            }
        }
        _ => {}
    }
}

fn peer(errors: &mut Vec<FieldError>, peer: &Value, field: &str) {
    let selectors = ["podSelector", "namespaceSelector"].map(|key| (key, peer.get(key).filter(|v| !v.is_null())));
    let block = peer.get("ipBlock").filter(|b| !b.is_null());
    for (key, selector) in &selectors {
        if let Some(selector) = selector {
            errors.extend(label_selector(selector, &format!("{field}.{key}")));
        }
    }
    if let Some(block) = block {
        ip_block(errors, block, &format!("{field}.ipBlock"));
    }
    let by_label = selectors.iter().any(|(_, s)| s.is_some());
    match (by_label, block.is_some()) {
        (false, false) => errors.push(FieldError::required(field, "must specify a peer")),
        (true, true) => errors.push(FieldError::forbidden(field, "may not specify both ipBlock and another peer")),
        _ => {}
    }
}

fn ip_block(errors: &mut Vec<FieldError>, block: &Value, field: &str) {
    if !has(block, "/cidr") || text(block, "/cidr").is_empty() {
        return errors.push(FieldError::required(format!("{field}.cidr"), ""));
    }
    let given = text(block, "/cidr");
    let whole = match validate::cidr(given) {
        Ok(whole) => whole,
        Err(message) => {
            return errors.push(FieldError::invalid(format!("{field}.cidr"), &json!(given), &message));
        }
    };
    for (i, except) in strings(block, "/except").enumerate() {
        let field = format!("{field}.except[{i}]");
        match validate::cidr(except) {
            Err(message) => errors.push(FieldError::invalid(field, &json!(except), &message)),
            Ok(part) if !strictly_within(part, whole) => {
                let message = "must be a strict subset of `cidr`";
                errors.push(FieldError::invalid(field, &json!(except), message));
            }
            Ok(_) => {}
        }
    }
}

/// Whether a network is a smaller part of another.
fn strictly_within(part: (std::net::IpAddr, u8), whole: (std::net::IpAddr, u8)) -> bool {
    use std::net::IpAddr::{V4, V6};
    let (bits, a, b) = match (part.0, whole.0) {
        (V4(a), V4(b)) => (32, u128::from(a.to_bits()), u128::from(b.to_bits())),
        (V6(a), V6(b)) => (128, a.to_bits(), b.to_bits()),
        _ => return false,
    };
    let shift = u32::from(bits - whole.1);
    part.1 > whole.1 && a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)
}
