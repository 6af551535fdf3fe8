//! Ports of Services, Endpoints and EndpointSlices.

use std::collections::HashSet;

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::value::{has, int, text};
use crate::validate::{dns1123_label, port, port_name, qualified_name, report};

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
        app_protocol(&mut errors, item, &field);
    }
    errors
}

/// The ports of a Service, each by itself.
pub(super) fn service_ports(ports: &[Value]) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut names = HashSet::new();
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
        app_protocol(&mut errors, item, &field);
    }
    errors
}

/// Checks a port's `appProtocol`.
fn app_protocol(errors: &mut Vec<FieldError>, port: &Value, field: &str) {
    if has(port, "/appProtocol") {
        let value = text(port, "/appProtocol");
        report(errors, format!("{field}.appProtocol"), &json!(value), qualified_name(value));
    }
}

/// The ports of a Service beside each other. `internal`: it is reached inside alone, so that it has no node ports.
pub(super) fn repeated_ports(ports: &[Value], internal: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let node_port = |item: &Value| int(item, "/nodePort").filter(|n| *n != 0);
    for (i, _) in ports.iter().enumerate().filter(|(_, item)| internal && node_port(item).is_some()) {
        let message = "may not be used when `type` is 'ClusterIP'";
        errors.push(FieldError::forbidden(format!("spec.ports[{i}].nodePort"), message));
    }
    let mut node_ports = HashSet::new();
    for (i, item) in ports.iter().enumerate() {
        if let Some(number) = node_port(item).filter(|n| !node_ports.insert((*n, text(item, "/protocol")))) {
            errors.push(FieldError::duplicate(format!("spec.ports[{i}].nodePort"), &json!(number)));
        }
    }
    let mut numbers = HashSet::new();
    for (i, item) in ports.iter().enumerate() {
        let (number, protocol) = (int(item, "/port").unwrap_or(0), text(item, "/protocol"));
        if !numbers.insert((number, protocol)) {
            // Upstream shows its own form of a port.
            let shown = format!(
                "Duplicate value: {{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{number},\
                 \"TargetPort\":0,\"NodePort\":0}}",
                json!(protocol)
            );
            let field = format!("spec.ports[{i}]");
            errors.push(FieldError { field, reason: "FieldValueDuplicate", message: shown });
        }
    }
    errors
}
