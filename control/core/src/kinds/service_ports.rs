//! Ports of Services, Endpoints and EndpointSlices.

use std::collections::HashSet;

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::value::{has, int, text};
use crate::validate::{dns1123_label, port, port_name, report};

/// Protocols of a port, in the order of upstream's messages.
pub(super) const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// Checks a port's `protocol`.
pub(super) fn protocol(errors: &mut Vec<FieldError>, field: &str, port: &Value) {
    match text(port, "/protocol") {
        "" => errors.push(FieldError::required(format!("{field}.protocol"), "")),
        p if !PROTOCOLS.contains(&p) => {
            errors.push(FieldError::not_supported(format!("{field}.protocol"), &json!(p), &PROTOCOLS));
        }
        _ => {}
    }
}

/// The ports of an Endpoints subset (`numbered`: each must have a number) or of an EndpointSlice.
pub(super) fn endpoint_ports(ports: &[Value], field: &str, numbered: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut names = HashSet::new();
    for (i, item) in ports.iter().enumerate() {
        let field = format!("{field}[{i}]");
        let name = text(item, "/name");
        if numbered && ports.len() > 1 && name.is_empty() {
            errors.push(FieldError::required(format!("{field}.name"), ""));
        } else if !name.is_empty() {
            report(&mut errors, format!("{field}.name"), &json!(name), dns1123_label(name));
        }
        if !numbered && !names.insert(name) {
            errors.push(FieldError::duplicate(format!("{field}.name"), &json!(name)));
        }
        if numbered || has(item, "/port") {
            let number = int(item, "/port").unwrap_or(0);
            report(&mut errors, format!("{field}.port"), &json!(number), port(number));
        }
        protocol(&mut errors, &field, item);
    }
    errors
}

/// The ports of a Service. `headless` Services and ExternalNames may have none.
pub(super) fn service_ports(service: &Value, ports: &[Value], headless: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let type_ = text(service, "/spec/type");
    if ports.is_empty() && !headless && type_ != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    let (mut names, mut numbers, mut node_ports) = (HashSet::new(), HashSet::new(), HashSet::new());
    for (i, item) in ports.iter().enumerate() {
        let field = format!("spec.ports[{i}]");
        let name = text(item, "/name");
        if name.is_empty() && ports.len() > 1 {
            errors.push(FieldError::required(format!("{field}.name"), ""));
        } else if !name.is_empty() {
            report(&mut errors, format!("{field}.name"), &json!(name), dns1123_label(name));
            if !names.insert(name) {
                errors.push(FieldError::duplicate(format!("{field}.name"), &json!(name)));
            }
        }
        let number = int(item, "/port").unwrap_or(0);
        report(&mut errors, format!("{field}.port"), &json!(number), port(number));
        protocol(&mut errors, &field, item);
        match item.get("targetPort") {
            Some(Value::String(target)) => {
                report(&mut errors, format!("{field}.targetPort"), &json!(target), port_name(target));
            }
            Some(target) => {
                let number = target.as_i64().unwrap_or(0);
                report(&mut errors, format!("{field}.targetPort"), target, port(number));
            }
            None => {}
        }
        let protocol = text(item, "/protocol");
        if !numbers.insert((number, protocol)) {
            errors.push(FieldError::duplicate(&field, &json!({"port": number, "protocol": protocol})));
        }
        let node_port = int(item, "/nodePort").unwrap_or(0);
        if node_port != 0 {
            if !matches!(type_, "NodePort" | "LoadBalancer") {
                let message = format!("may not be used when `type` is '{type_}'");
                errors.push(FieldError::forbidden(format!("{field}.nodePort"), &message));
            } else if !node_ports.insert((node_port, protocol)) {
                errors.push(FieldError::duplicate(format!("{field}.nodePort"), &json!(node_port)));
            }
        }
    }
    errors
}
