//! Node.

use std::collections::BTreeSet;

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::pod_resources::is_whole;
use super::pod_validation::EFFECTS;
use super::value::{entries, flag, has, list, set, strings, text};
use super::{names, with_status};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{NON_NEGATIVE, cidr, label_value, qualified_name, quantity, report};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

/// Nodes.
pub fn resource() -> Option<Resource> {
    super::built_in(names("v1", "nodes", "Node", &["no"], Scope::Cluster), with_status(), Node)
}

struct Node;

impl Strategy for Node {
    fn default(&self, object: &mut Value) {
        super::value::child(object, "spec");
        if has(object, "/status/capacity")
            && !has(object, "/status/allocatable")
            && let Some(status) = object.get_mut("status")
        {
            let capacity = status.get("capacity").cloned().unwrap_or_default();
            set(status, "allocatable", capacity);
        }
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut seen = BTreeSet::new();
        for (i, taint) in list(object, "/spec/taints").iter().enumerate() {
            // Upstream reports them so.
            let field = format!("metadata.taints[{i}]");
            let (key, value, effect) = (text(taint, "/key"), text(taint, "/value"), text(taint, "/effect"));
            report(&mut errors, format!("{field}.key"), &json!(key), qualified_name(key));
            report(&mut errors, format!("{field}.value"), &json!(value), label_value(value));
            if effect.is_empty() {
                errors.push(FieldError::required(format!("{field}.effect"), ""));
            } else if !EFFECTS.contains(&effect) {
                errors.push(FieldError::not_supported(format!("{field}.effect"), &json!(effect), &EFFECTS));
            }
            if !seen.insert((key, effect)) {
                let mut error = FieldError::duplicate(&field, taint);
                error.message.push_str(": taints must be unique by key and effect pair");
                errors.push(error);
            }
        }
        resources(&mut errors, object);
        let cidrs: Vec<&str> = strings(object, "/spec/podCIDRs").collect();
        if cidrs.first().is_some_and(|first| *first != text(object, "/spec/podCIDR")) {
            let message = "must contain the podCIDR as its first entry";
            errors.push(FieldError::invalid("spec.podCIDRs", &json!(cidrs), message));
        }
        for (i, range) in cidrs.iter().enumerate() {
            report(&mut errors, format!("spec.podCIDRs[{i}]"), &json!(range), cidr(range).map(|_| ()));
        }
        let families: BTreeSet<bool> = cidrs.iter().map(|range| range.contains(':')).collect();
        if cidrs.len() > families.len() {
            let message = "may specify no more than one CIDR for each IP family";
            errors.push(FieldError::invalid("spec.podCIDRs", &json!(cidrs), message));
        }
        let mut addresses = BTreeSet::new();
        for (i, address) in list(object, "/status/addresses").iter().enumerate() {
            if !addresses.insert((text(address, "/type"), text(address, "/address"))) {
                errors.push(FieldError::duplicate(format!("status.addresses[{i}]"), address));
            }
        }
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for field in ["podCIDRs", "providerID"] {
            let pointer = format!("/spec/{field}");
            let at = |o: &Value| o.pointer(&pointer).filter(|v| !v.is_null() && **v != "").cloned();
            if at(old).is_some() && at(new) != at(old) {
                let message = "node updates may not change podCIDR except from \"\" to valid";
                let message = if field == "podCIDRs" {
                    message
                } else {
                    "node updates may not change providerID except from \"\" to valid"
                };
                errors.push(FieldError::forbidden(format!("spec.{field}"), message));
            }
        }
        errors
    }
    fn prepare_create(&self, object: &mut Value) {
        sync_cidrs(object);
    }
    fn keeps_status(&self) -> bool {
        true
    }
    fn prepare_update(&self, new: &mut Value, _old: &Value) {
        sync_cidrs(new);
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Status", "string", "Whether the node is ready and takes new pods."),
            Column::new("Roles", "string", "Roles from the node's labels."),
            Column::age(),
            Column::new("Version", "string", "Version of the node's agent."),
            Column::new("Internal-IP", "string", "Address inside the cluster's network.").wide(),
            Column::new("External-IP", "string", "Address for the world.").wide(),
            Column::new("OS-Image", "string", "Operating system.").wide(),
            Column::new("Kernel-Version", "string", "Kernel.").wide(),
            Column::new("Container-Runtime", "string", "What runs the containers.").wide(),
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let info = |key: &str, none: &str| match text(object, &format!("/status/nodeInfo/{key}")) {
            "" => json!(none),
            some => json!(some),
        };
        vec![
            table::name(object),
            json!(status(object)),
            json!(roles(object)),
            table::age(object, now),
            info("kubeletVersion", ""),
            json!(address(object, "InternalIP")),
            json!(address(object, "ExternalIP")),
            info("osImage", "<unknown>"),
            info("kernelVersion", "<unknown>"),
            info("containerRuntimeVersion", "<unknown>"),
        ]
    }
    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("spec.unschedulable", flag(object, "/spec/unschedulable").to_string())]
    }
    fn field_names(&self) -> &'static [&'static str] {
        &["spec.unschedulable"]
    }
}

/// The rules of what the node has and can give.
fn resources(errors: &mut Vec<FieldError>, object: &Value) {
    for kind in ["capacity", "allocatable"] {
        for (name, value) in entries(object, &format!("/status/{kind}")) {
            let field = format!("status.{kind}.{name}");
            match quantity(value) {
                Ok(amount) if amount.is_negative() => {
                    errors.push(FieldError::invalid(field, &json!(amount.to_string()), NON_NEGATIVE));
                }
                Ok(amount) if is_whole(name) && amount.milli() % 1000 != 0 => {
                    errors.push(FieldError::invalid(field, &json!(amount.to_string()), "must be an integer"));
                }
                check => report(errors, field, value, check.map(|_| ())),
            }
        }
    }
}

/// `podCIDR` and `podCIDRs` are two forms of one field: the empty one follows the other.
fn sync_cidrs(object: &mut Value) {
    let single = text(object, "/spec/podCIDR").to_string();
    let first = strings(object, "/spec/podCIDRs").next().unwrap_or_default().to_string();
    let Some(spec) = object.get_mut("spec") else { return };
    if first.is_empty() && !single.is_empty() {
        set(spec, "podCIDRs", json!([single]));
    } else if single.is_empty() && !first.is_empty() {
        set(spec, "podCIDR", first);
    }
}

fn status(object: &Value) -> String {
    let ready = list(object, "/status/conditions").iter().find(|c| text(c, "/type") == "Ready");
    let mut status = match ready.map(|c| text(c, "/status")) {
        None => "Unknown",
        Some("True") => "Ready",
        Some(_) => "NotReady",
    }
    .to_string();
    if flag(object, "/spec/unschedulable") {
        status.push_str(",SchedulingDisabled");
    }
    status
}

fn roles(object: &Value) -> String {
    let roles: BTreeSet<&str> = entries(object, "/metadata/labels")
        .filter_map(|(key, value)| match key.strip_prefix(ROLE_PREFIX) {
            Some(role) => Some(role),
            None if key == ROLE_LABEL => value.as_str(),
            None => None,
        })
        .filter(|role| !role.is_empty())
        .collect();
    if roles.is_empty() { "<none>".into() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}

fn address<'a>(object: &'a Value, type_: &str) -> &'a str {
    list(object, "/status/addresses")
        .iter()
        .find(|a| text(a, "/type") == type_)
        .map_or("<none>", |a| text(a, "/address"))
}
