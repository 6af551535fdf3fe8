//! Rules of a pod's names and of its place in networks.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::invalid;
use super::value::{flag, has, int, list, strings, text};
use crate::validate::{dns1123_subdomain, dns1123_subdomain_with_underscore, ip, report, too_long};

/// Most name servers, and most search domains and their length in bytes, that a resolver takes.
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_BYTES: usize = 2048;
/// Longest host name in bytes.
const MAX_HOSTNAME_BYTES: usize = 64;

/// On the node's network, a port of the node is the container's own. A template may leave it out.
pub(super) fn host_ports(errors: &mut Vec<FieldError>, spec: &Value, field: &str, template: bool) {
    if !flag(spec, "/hostNetwork") {
        return;
    }
    for (i, container) in list(spec, "/containers").iter().enumerate() {
        for (j, port) in list(container, "/ports").iter().enumerate() {
            let number = |key: &str| int(port, key).unwrap_or(0);
            let (host, own) = (number("/hostPort"), number("/containerPort"));
            if host != own && !(template && host == 0) {
                let field = format!("{field}.containers[{i}].ports[{j}].hostPort");
                let message = "must match `containerPort` when `hostNetwork` is true";
                errors.push(FieldError::invalid(field, &json!(host), message));
            }
        }
    }
}

/// The rules of the `dnsConfig` of the pod spec at `field`.
pub(super) fn dns_config(errors: &mut Vec<FieldError>, spec: &Value, field: &str) {
    let (field, config) = (format!("{field}.dnsConfig"), spec.get("dnsConfig").filter(|c| !c.is_null()));
    let none = text(spec, "/dnsPolicy") == "None";
    let Some(config) = config else {
        if none {
            errors.push(FieldError::required(field, "must provide `dnsConfig` when `dnsPolicy` is None"));
        }
        return;
    };
    let servers: Vec<&str> = strings(config, "/nameservers").collect();
    if none && servers.is_empty() {
        let message = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required(format!("{field}.nameservers"), message));
        return;
    }
    if servers.len() > MAX_NAMESERVERS {
        let message = format!("must not have more than {MAX_NAMESERVERS} nameservers");
        errors.push(FieldError::invalid(format!("{field}.nameservers"), &json!(servers), &message));
    }
    for (i, server) in servers.iter().enumerate() {
        report(errors, format!("{field}.nameservers[{i}]"), &json!(server), ip(server));
    }
    let searches: Vec<&str> = strings(config, "/searches").collect();
    if searches.len() > MAX_SEARCHES {
        let message = format!("must not have more than {MAX_SEARCHES} search paths");
        errors.push(FieldError::invalid(format!("{field}.searches"), &json!(searches), &message));
    }
    if searches.join(" ").len() > MAX_SEARCH_BYTES {
        let message =
            format!("must not have more than {MAX_SEARCH_BYTES} characters (including spaces) in the search list");
        errors.push(FieldError::invalid(format!("{field}.searches"), &json!(searches), &message));
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, search)| **search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        let check = dns1123_subdomain_with_underscore(search);
        report(errors, format!("{field}.searches[{i}]"), &json!(search), check);
    }
    for (i, option) in list(config, "/options").iter().enumerate() {
        if text(option, "/name").is_empty() {
            errors.push(FieldError::required(format!("{field}.options[{i}]"), "must not be empty"));
        }
    }
}

/// The rules of the `hostnameOverride` of the pod spec at `field`.
pub(super) fn hostname_override(errors: &mut Vec<FieldError>, spec: &Value, field: &str) {
    if !has(spec, "/hostnameOverride") {
        return;
    }
    let (name, field) = (text(spec, "/hostnameOverride"), format!("{field}.hostnameOverride"));
    for key in ["setHostnameAsFQDN", "hostNetwork"] {
        if flag(spec, &format!("/{key}")) {
            errors.push(FieldError::forbidden(&field, &format!("may not be specified when {key} is true")));
        }
    }
    if name.len() > MAX_HOSTNAME_BYTES {
        errors.push(too_long(&field, MAX_HOSTNAME_BYTES));
    }
    if let Err(message) = dns1123_subdomain(name) {
        invalid(errors, &field, name, &message);
    }
}

/// The rules of the `hostAliases` of the pod spec at `field`.
pub(super) fn host_aliases(errors: &mut Vec<FieldError>, spec: &Value, field: &str) {
    for (i, alias) in list(spec, "/hostAliases").iter().enumerate() {
        let (address, field) = (text(alias, "/ip"), format!("{field}.hostAliases[{i}]"));
        report(errors, format!("{field}.ip"), &json!(address), ip(address));
        for (j, name) in strings(alias, "/hostnames").enumerate() {
            report(errors, format!("{field}.hostnames[{j}]"), &json!(name), dns1123_subdomain(name));
        }
    }
}
