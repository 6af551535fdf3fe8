//! Rules of a pod spec, in pods and templates. Affinity and topology spread constraints have only their schema's.

use std::collections::HashSet;

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::container_validation::{self, Role};
use super::pod_volumes;
use super::value::{entries, has, int, list, text};
use crate::validate::{NON_NEGATIVE, dns1123_label, dns1123_subdomain, ip, label_value, qualified_name, report};

/// Values of `restartPolicy`.
pub(super) const RESTART_POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];
const DNS_POLICIES: [&str; 4] = ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
const EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "PreferNoSchedule"];
const OPERATORS: [&str; 2] = ["Equal", "Exists"];
const MAX_DEADLINE_SECONDS: i64 = i32::MAX as i64;

/// The rules of a defaulted pod spec at `field`.
pub(super) fn pod_spec(spec: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let volumes = pod_volumes::validate(&mut errors, list(spec, "/volumes"), &format!("{field}.volumes"));
    let mut names = HashSet::new();
    let containers = list(spec, "/containers");
    if containers.is_empty() {
        errors.push(FieldError::required(format!("{field}.containers"), ""));
    }
    for (key, role) in
        [("containers", Role::App), ("initContainers", Role::Init), ("ephemeralContainers", Role::Ephemeral)]
    {
        for (i, container) in list(spec, &format!("/{key}")).iter().enumerate() {
            let field = format!("{field}.{key}[{i}]");
            let name = text(container, "/name");
            if !name.is_empty() && !names.insert(name) {
                errors.push(FieldError::duplicate(format!("{field}.name"), &json!(name)));
            }
            errors.extend(container_validation::container(container, &field, role, &volumes));
        }
    }
    policies(&mut errors, spec, field);
    for (key, value) in entries(spec, "/nodeSelector") {
        let field = format!("{field}.nodeSelector");
        report(&mut errors, &field, &json!(key), qualified_name(key));
        report(&mut errors, &field, value, label_value(value.as_str().unwrap_or_default()));
    }
    for (key, check) in [
        ("serviceAccountName", dns1123_subdomain as fn(&str) -> Result<(), String>),
        ("nodeName", dns1123_subdomain),
        ("priorityClassName", dns1123_subdomain),
        ("runtimeClassName", dns1123_subdomain),
        ("hostname", dns1123_label),
        ("subdomain", dns1123_label),
    ] {
        let value = text(spec, &format!("/{key}"));
        if !value.is_empty() {
            report(&mut errors, format!("{field}.{key}"), &json!(value), check(value));
        }
    }
    if let Some(seconds) = int(spec, "/activeDeadlineSeconds").filter(|s| !(1..=MAX_DEADLINE_SECONDS).contains(s)) {
        let message = format!("must be between 1 and {MAX_DEADLINE_SECONDS}, inclusive");
        errors.push(FieldError::invalid(format!("{field}.activeDeadlineSeconds"), &json!(seconds), &message));
    }
    if let Some(seconds) = int(spec, "/terminationGracePeriodSeconds").filter(|s| *s < 0) {
        let field = format!("{field}.terminationGracePeriodSeconds");
        errors.push(FieldError::invalid(field, &json!(seconds), NON_NEGATIVE));
    }
    for (i, toleration) in list(spec, "/tolerations").iter().enumerate() {
        tolerations(&mut errors, toleration, &format!("{field}.tolerations[{i}]"));
    }
    for (i, alias) in list(spec, "/hostAliases").iter().enumerate() {
        let value = text(alias, "/ip");
        report(&mut errors, format!("{field}.hostAliases[{i}].ip"), &json!(value), ip(value));
    }
    for (i, gate) in list(spec, "/readinessGates").iter().enumerate() {
        let value = text(gate, "/conditionType");
        let field = format!("{field}.readinessGates[{i}].conditionType");
        report(&mut errors, field, &json!(value), qualified_name(value));
    }
    errors
}

fn policies(errors: &mut Vec<FieldError>, spec: &Value, field: &str) {
    for (key, valid) in [("restartPolicy", &RESTART_POLICIES[..]), ("dnsPolicy", &DNS_POLICIES[..])] {
        match text(spec, &format!("/{key}")) {
            "" => errors.push(FieldError::required(format!("{field}.{key}"), "")),
            value if !valid.contains(&value) => {
                errors.push(FieldError::not_supported(format!("{field}.{key}"), &json!(value), valid));
            }
            _ => {}
        }
    }
    if text(spec, "/dnsPolicy") == "None" && list(spec, "/dnsConfig/nameservers").is_empty() {
        let message = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        errors.push(FieldError::required(format!("{field}.dnsConfig.nameservers"), message));
    }
}

/// The rules of one toleration at `field`.
pub(super) fn tolerations(errors: &mut Vec<FieldError>, toleration: &Value, field: &str) {
    let at = |key: &str| text(toleration, &format!("/{key}"));
    let (key, operator, effect) = (at("key"), at("operator"), at("effect"));
    if !key.is_empty() {
        report(errors, format!("{field}.key"), &json!(key), qualified_name(key));
    } else if operator != "Exists" {
        let message = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(FieldError::invalid(format!("{field}.operator"), &json!(operator), message));
    }
    if has(toleration, "/tolerationSeconds") && effect != "NoExecute" {
        let message = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(FieldError::invalid(format!("{field}.effect"), &json!(effect), message));
    }
    match operator {
        "" | "Equal" => report(errors, format!("{field}.operator"), &json!(at("value")), label_value(at("value"))),
        "Exists" if !at("value").is_empty() => {
            let message = "value must be empty when `operator` is 'Exists'";
            errors.push(FieldError::invalid(format!("{field}.operator"), toleration, message));
        }
        "Exists" => {}
        other => errors.push(FieldError::not_supported(format!("{field}.operator"), &json!(other), &OPERATORS)),
    }
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        errors.push(FieldError::not_supported(format!("{field}.effect"), &json!(effect), &EFFECTS));
    }
}
