//! EndpointSlice.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::endpoints::{reachable, shorten};
use super::service_ports::endpoint_ports;
use super::value::{has, int, items_mut, list, set_default, set_default_nonzero, strings, text};
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{Check, IMMUTABLE, dns1123_label, dns1123_subdomain, ip, report, too_many};

/// Most endpoints of one slice.
pub const MAX_ENDPOINTS: usize = 1000;
/// Most addresses of one endpoint.
pub const MAX_ADDRESSES: usize = 100;
/// Most ports of one slice.
pub const MAX_PORTS: usize = 20_000;
const ADDRESS_TYPES: [&str; 3] = ["FQDN", "IPv4", "IPv6"];

/// EndpointSlices.
pub fn resource() -> Option<Resource> {
    let names = names("discovery.k8s.io/v1", "endpointslices", "EndpointSlice", &[], Scope::Namespaced);
    super::built_in(names, plain(), EndpointSlice)
}

struct EndpointSlice;

impl Strategy for EndpointSlice {
    fn default(&self, object: &mut Value) {
        for port in items_mut(object, "/ports") {
            set_default(port, "name", "");
            set_default_nonzero(port, "protocol", "TCP");
        }
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let type_ = text(object, "/addressType");
        if type_.is_empty() {
            errors.push(FieldError::required("addressType", ""));
        } else if !ADDRESS_TYPES.contains(&type_) {
            errors.push(FieldError::not_supported("addressType", &json!(type_), &ADDRESS_TYPES));
        }
        let endpoints = list(object, "/endpoints");
        if endpoints.len() > MAX_ENDPOINTS {
            errors.push(too_many("endpoints", endpoints.len(), MAX_ENDPOINTS));
            return errors;
        }
        for (i, endpoint) in endpoints.iter().enumerate() {
            let field = format!("endpoints[{i}].addresses");
            match list(endpoint, "/addresses").len() {
                0 => errors.push(FieldError::required(&field, "must contain at least 1 address")),
                n if n > MAX_ADDRESSES => errors.push(too_many(&field, n, MAX_ADDRESSES)),
                _ => {}
            }
            for (j, address) in strings(endpoint, "/addresses").enumerate() {
                let mut check = of_type(type_, address);
                if type_ != "FQDN" {
                    check = check.and_then(|()| reachable(object, address));
                }
                report(&mut errors, format!("{field}[{j}]"), &json!(address), check);
            }
            for (key, check) in [("hostname", dns1123_label as fn(&str) -> Check), ("nodeName", dns1123_subdomain)] {
                let name = text(endpoint, &format!("/{key}"));
                if has(endpoint, &format!("/{key}")) {
                    report(&mut errors, format!("endpoints[{i}].{key}"), &json!(name), check(name));
                }
            }
        }
        let ports = list(object, "/ports");
        if ports.len() > MAX_PORTS {
            errors.push(too_many("ports", ports.len(), MAX_PORTS));
        }
        errors.extend(endpoint_ports(ports, "ports", false));
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let type_ = new.get("addressType").unwrap_or(&Value::Null);
        let same = Some(type_) == old.get("addressType");
        if same { Vec::new() } else { vec![FieldError::invalid("addressType", type_, IMMUTABLE)] }
    }
    fn bumps_generation(&self, new: &Value, old: &Value) -> bool {
        ["endpoints", "ports", "addressType"].iter().any(|k| new.get(k) != old.get(k))
            || new.pointer("/metadata/labels") != old.pointer("/metadata/labels")
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("AddressType", "string", "What sort of addresses the endpoints have."),
            Column::new("Ports", "string", "Ports of all endpoints."),
            Column::new("Endpoints", "string", "Addresses."),
            Column::age(),
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let ports = list(object, "/ports").iter().map(|p| match (int(p, "/port"), text(p, "/name")) {
            (Some(port), _) => port.to_string(),
            (None, "") => "*".into(),
            (None, name) => name.to_string(),
        });
        let addresses = list(object, "/endpoints").iter().flat_map(|e| strings(e, "/addresses")).map(String::from);
        vec![
            table::name(object),
            json!(text(object, "/addressType")),
            json!(or_unset(&ports.collect::<Vec<_>>())),
            json!(or_unset(&addresses.collect::<Vec<_>>())),
            table::age(object, now),
        ]
    }
}

fn of_type(type_: &str, address: &str) -> Result<(), String> {
    match type_ {
        "IPv4" | "IPv6" => ip(address).and_then(|()| {
            let v6 = address.contains(':');
            if v6 == (type_ == "IPv6") { Ok(()) } else { Err(format!("must be an {type_} address")) }
        }),
        "FQDN" => {
            let name = address.strip_suffix('.').unwrap_or(address);
            dns1123_subdomain(name)?;
            if name.contains('.') {
                Ok(())
            } else {
                Err("should be a domain with at least two segments separated by dots".into())
            }
        }
        _ => Ok(()),
    }
}

fn or_unset(all: &[String]) -> String {
    if all.is_empty() { "<unset>".into() } else { shorten(all) }
}
