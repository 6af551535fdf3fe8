//! Endpoints.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::service_ports::endpoint_ports;
use super::value::{int, items_mut, list, set_default_nonzero, text};
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{Check, dns1123_label, dns1123_subdomain, endpoint_ip, ip, report};

/// How many addresses a table cell names.
pub(super) const SHOWN: usize = 3;

/// Endpoints.
pub fn resource() -> Option<Resource> {
    let mut names = names("v1", "endpoints", "Endpoints", &["ep"], Scope::Namespaced);
    names.singular = "endpoints".into();
    super::built_in(names, plain(), Endpoints)
}

struct Endpoints;

/// An endpoint's address, which must not be a special one. On a machine without a network, the API server's own is.
pub(super) fn reachable(object: &Value, address: &str) -> Check {
    let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
    if namespace == "default" && name == "kubernetes" { Ok(()) } else { endpoint_ip(address) }
}

impl Strategy for Endpoints {
    fn creates_on_update(&self) -> bool {
        true
    }
    fn default(&self, object: &mut Value) {
        for subset in items_mut(object, "/subsets") {
            for port in items_mut(subset, "/ports") {
                set_default_nonzero(port, "protocol", "TCP");
            }
        }
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (i, subset) in list(object, "/subsets").iter().enumerate() {
            let field = format!("subsets[{i}]");
            let count = list(subset, "/addresses").len() + list(subset, "/notReadyAddresses").len();
            if count == 0 {
                errors.push(FieldError::required(&field, "must specify `addresses` or `notReadyAddresses`"));
            }
            for key in ["addresses", "notReadyAddresses"] {
                for (j, address) in list(subset, &format!("/{key}")).iter().enumerate() {
                    let value = text(address, "/ip");
                    let item = format!("{field}.{key}[{j}]");
                    let check = ip(value).and_then(|()| reachable(object, value));
                    report(&mut errors, format!("{item}.ip"), &json!(value), check);
                    for (part, rule) in
                        [("hostname", dns1123_label as fn(&str) -> Check), ("nodeName", dns1123_subdomain)]
                    {
                        let name = text(address, &format!("/{part}"));
                        if !name.is_empty() {
                            report(&mut errors, format!("{item}.{part}"), &json!(name), rule(name));
                        }
                    }
                }
            }
            errors.extend(endpoint_ports(list(subset, "/ports"), &format!("{field}.ports"), true));
        }
        errors
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![Column::name(), Column::new("Endpoints", "string", "Ready addresses."), Column::age()]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![table::name(object), json!(addresses(object)), table::age(object, now)]
    }
}

fn addresses(object: &Value) -> String {
    let subsets = list(object, "/subsets");
    if subsets.is_empty() {
        return "<none>".into();
    }
    let mut all = Vec::new();
    for subset in subsets {
        let ips = || list(subset, "/addresses").iter().map(|a| text(a, "/ip"));
        let ports = list(subset, "/ports");
        if ports.is_empty() {
            all.extend(ips().map(String::from));
        }
        for port in ports.iter().filter_map(|p| int(p, "/port")) {
            all.extend(
                ips().map(|ip| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }),
            );
        }
    }
    shorten(&all)
}

/// The first few items, and how many more there are.
pub(super) fn shorten(all: &[String]) -> String {
    let shown = all.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(",");
    match all.len() {
        0..=SHOWN => shown,
        n => format!("{shown} + {} more...", n - SHOWN),
    }
}
