//! Ingress.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::value::{has, int, list, set, strings, text};
use super::{names, with_status};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{
    Check, dns1123_label, dns1123_subdomain, ip, path_segment, port, port_name, report, wildcard_dns1123_subdomain,
};

const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
/// What paths may not contain, and what they may not end with.
const BAD_SEQUENCES: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const BAD_SUFFIXES: [&str; 2] = ["/..", "/."];
const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// So many hosts stand in the table.
const SHOWN_HOSTS: usize = 3;

/// Ingresses.
pub fn resource() -> Option<Resource> {
    let names = names("networking.k8s.io/v1", "ingresses", "Ingress", &["ing"], Scope::Namespaced);
    super::built_in(names, with_status(), Ingress)
}

struct Ingress;

impl Strategy for Ingress {
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"loadBalancer": {}}));
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let rules = list(object, "/spec/rules");
        let default = object.pointer("/spec/defaultBackend").filter(|b| !b.is_null());
        if rules.is_empty() && default.is_none() {
            let message = "either `defaultBackend` or `rules` must be specified";
            errors.push(FieldError::invalid("spec", &json!([]), message));
        }
        if let Some(default) = default {
            backend(&mut errors, default, "spec.defaultBackend");
        }
        for (i, item) in rules.iter().enumerate() {
            rule(&mut errors, item, &format!("spec.rules[{i}]"));
        }
        for (i, tls) in list(object, "/spec/tls").iter().enumerate() {
            for (j, host) in strings(tls, "/hosts").enumerate() {
                report(&mut errors, format!("spec.tls[{i}].hosts[{j}]"), &json!(host), host_name(host));
            }
            let secret = text(tls, "/secretName");
            if !secret.is_empty() {
                report(&mut errors, format!("spec.tls[{i}].secretName"), &json!(secret), dns1123_subdomain(secret));
            }
        }
        if let Some(class) = object.pointer("/spec/ingressClassName").and_then(Value::as_str) {
            report(&mut errors, "spec.ingressClassName", &json!(class), dns1123_subdomain(class));
        }
        addresses(&mut errors, object);
        class(&mut errors, object);
        errors
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Class", "string", "Name of the IngressClass."),
            Column::new("Hosts", "string", "Hosts of the rules."),
            Column::new("Address", "string", "Where it is reached."),
            Column::new("Ports", "string", "Ports, 443 if it has TLS."),
            Column::age(),
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let class = object.pointer("/spec/ingressClassName").and_then(Value::as_str).unwrap_or("<none>");
        let addresses = list(object, "/status/loadBalancer/ingress").iter();
        let mut addresses: Vec<&str> =
            addresses.map(|i| if text(i, "/ip").is_empty() { text(i, "/hostname") } else { text(i, "/ip") }).collect();
        addresses.sort_unstable();
        addresses.dedup();
        vec![
            table::name(object),
            json!(class),
            json!(hosts(object)),
            json!(addresses.join(",")),
            json!(if list(object, "/spec/tls").is_empty() { "80" } else { "80, 443" }),
            table::age(object, now),
        ]
    }
}

fn hosts(object: &Value) -> String {
    let rules = list(object, "/spec/rules");
    let all: Vec<&str> = rules.iter().map(|r| text(r, "/host")).filter(|h| !h.is_empty()).collect();
    let shown: Vec<&str> = all.iter().copied().take(SHOWN_HOSTS).collect();
    match shown.join(",") {
        none if none.is_empty() => "*".into(),
        some if all.len() > SHOWN_HOSTS => format!("{some} + {} more...", rules.len() - SHOWN_HOSTS),
        some => some,
    }
}

fn host_name(host: &str) -> Check {
    if host.contains('*') { wildcard_dns1123_subdomain(host) } else { dns1123_subdomain(host) }
}

fn rule(errors: &mut Vec<FieldError>, rule: &Value, field: &str) {
    let host = text(rule, "/host");
    if !host.is_empty() {
        if ip(host).is_ok() {
            let message = "must be a DNS name, not an IP address";
            errors.push(FieldError::invalid(format!("{field}.host"), &json!(host), message));
        }
        report(errors, format!("{field}.host"), &json!(host), host_name(host));
    }
    if !has(rule, "/http") {
        return;
    }
    let paths = list(rule, "/http/paths");
    if paths.is_empty() {
        errors.push(FieldError::required(format!("{field}.http.paths"), ""));
    }
    for (i, item) in paths.iter().enumerate() {
        path(errors, item, &format!("{field}.http.paths[{i}]"));
    }
}

fn path(errors: &mut Vec<FieldError>, item: &Value, field: &str) {
    let path = text(item, "/path");
    let mut bad = |message: String| errors.push(FieldError::invalid(format!("{field}.path"), &json!(path), &message));
    match text(item, "/pathType") {
        "" => {
            errors.push(FieldError::required(format!("{field}.pathType"), "pathType must be specified"));
            return;
        }
        "Exact" | "Prefix" => {
            if !path.starts_with('/') {
                bad("must be an absolute path".into());
            }
            BAD_SEQUENCES.iter().filter(|s| path.contains(*s)).for_each(|s| bad(format!("must not contain '{s}'")));
            BAD_SUFFIXES.iter().filter(|s| path.ends_with(*s)).for_each(|s| bad(format!("cannot end with '{s}'")));
        }
        "ImplementationSpecific" => {
            if !path.is_empty() && !path.starts_with('/') {
                bad("must be an absolute path".into());
            }
        }
        other => {
            errors.push(FieldError::not_supported(format!("{field}.pathType"), &json!(other), &PATH_TYPES));
        }
    }
    backend(errors, item.get("backend").unwrap_or(&Value::Null), &format!("{field}.backend"));
}

fn backend(errors: &mut Vec<FieldError>, backend: &Value, field: &str) {
    let empty = json!("");
    match (has(backend, "/resource"), has(backend, "/service")) {
        (true, true) => {
            errors.push(FieldError::invalid(field, &empty, "cannot set both resource and service backends"));
        }
        (false, false) => errors.push(FieldError::invalid(field, &empty, "resource or service backend is required")),
        (true, false) => {
            let group = text(backend, "/resource/apiGroup");
            if !group.is_empty() {
                report(errors, format!("{field}.resource.apiGroup"), &json!(group), dns1123_subdomain(group));
            }
            for key in ["kind", "name"] {
                let field = format!("{field}.resource.{key}");
                match text(backend, &format!("/resource/{key}")) {
                    "" => errors.push(FieldError::required(field, "")),
                    value => report(errors, field, &json!(value), path_segment(value)),
                }
            }
        }
        (false, true) => service(errors, backend, field),
    }
}

fn service(errors: &mut Vec<FieldError>, backend: &Value, field: &str) {
    match text(backend, "/service/name") {
        "" => errors.push(FieldError::required(format!("{field}.service.name"), "")),
        name => report(errors, format!("{field}.service.name"), &json!(name), dns1123_label(name)),
    }
    let name = text(backend, "/service/port/name");
    match (name, int(backend, "/service/port/number").unwrap_or(0)) {
        ("", 0) => errors.push(FieldError::required(field, "port name or number is required")),
        ("", number) => report(errors, format!("{field}.service.port.number"), &json!(number), port(number)),
        (name, 0) => report(errors, format!("{field}.service.port.name"), &json!(name), port_name(name)),
        _ => errors.push(FieldError::invalid(field, &json!(""), "cannot set both port name & port number")),
    }
}

/// A class given in the old way, by annotation, and in the new one must be the same.
fn class(errors: &mut Vec<FieldError>, object: &Value) {
    let class = text(object, "/spec/ingressClassName");
    let annotated = text(object, &format!("/metadata/annotations/{}", CLASS_ANNOTATION.replace('/', "~1")));
    if !annotated.is_empty() && !class.is_empty() && annotated != class {
        let message = "must match `ingressClassName` when both are specified";
        errors.push(FieldError::invalid(format!("annotations.{CLASS_ANNOTATION}"), &json!(annotated), message));
    }
}

fn addresses(errors: &mut Vec<FieldError>, object: &Value) {
    for (i, ingress) in list(object, "/status/loadBalancer/ingress").iter().enumerate() {
        let field = format!("status.loadBalancer.ingress[{i}]");
        let (address, host) = (text(ingress, "/ip"), text(ingress, "/hostname"));
        if !address.is_empty() {
            report(errors, format!("{field}.ip"), &json!(address), ip(address));
        }
        if !host.is_empty() {
            report(errors, format!("{field}.hostname"), &json!(host), dns1123_subdomain(host));
            if ip(host).is_ok() {
                let message = "must be a DNS name, not an IP address";
                errors.push(FieldError::invalid(format!("{field}.hostname"), &json!(host), message));
            }
        }
    }
}
