//! Rules of a pod spec, in pods and templates, in the order in which upstream reports them.

use std::collections::HashSet;

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::container_validation::{self, Context, trimmed_image};
use super::fields::{at, required_one_of};
use super::value::{has, int, list, text};
use super::{
    container_env, pod_affinity, pod_annotations, pod_network, pod_os, pod_resources, pod_security, pod_volumes,
};
use crate::validate::{Check, dns1123_label, dns1123_subdomain, ip, label_value, labels, qualified_name, report};

/// Values of `restartPolicy`.
pub(super) const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
const DNS_POLICIES: [&str; 4] = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
const PREEMPTION_POLICIES: [&str; 2] = ["PreemptLowerPriority", "Never"];
/// Effects of taints and tolerations.
pub(super) const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const OPERATORS: [&str; 2] = ["Equal", "Exists"];
const MAX_DEADLINE_SECONDS: i64 = i32::MAX as i64;

/// The rules of a defaulted pod spec at `field`. `pod` is the pod's metadata; a template has none.
pub(super) fn pod_spec(spec: &Value, field: &str, pod: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let e = &mut errors;
    if !has(spec, "/terminationGracePeriodSeconds") {
        e.push(FieldError::required(format!("{field}.terminationGracePeriodSeconds"), ""));
    }
    let volumes = pod_volumes::validate(e, list(spec, "/volumes"), &format!("{field}.volumes"), pod);
    let claims = list(spec, "/resourceClaims").iter().map(|c| text(c, "/name")).filter(|n| !n.is_empty()).collect();
    resource_claims(e, spec, field);
    let context = Context { volumes, claims, spec };
    container_validation::all(e, &context, field);
    pod_resources::of_pod(e, spec, field, &context.claims);
    pod_network::host_ports(e, spec, field, pod.is_none());
    required_one_of(e, spec, field, "restartPolicy", &RESTART_POLICIES);
    required_one_of(e, spec, field, "dnsPolicy", &DNS_POLICIES);
    e.extend(labels(spec.get("nodeSelector").unwrap_or(&Value::Null), &format!("{field}.nodeSelector")));
    pod_security::pod(e, spec, field);
    pod_affinity::affinity(e, spec, field);
    pod_network::dns_config(e, spec, field);
    gates(e, spec, field);
    pod_affinity::spread(e, spec, field);
    pod_os::host_processes(e, spec, field);
    pod_security::own_users(e, spec, field);
    pod_network::hostname_override(e, spec, field);
    names(e, spec, field, &[("serviceAccountName", dns1123_subdomain), ("nodeName", dns1123_subdomain)]);
    if let Some(seconds) = int(spec, "/activeDeadlineSeconds").filter(|s| !(1..=MAX_DEADLINE_SECONDS).contains(s)) {
        let message = format!("must be between 1 and {MAX_DEADLINE_SECONDS}, inclusive");
        e.push(FieldError::invalid(format!("{field}.activeDeadlineSeconds"), &json!(seconds), &message));
    }
    names(e, spec, field, &[("hostname", dns1123_label), ("subdomain", dns1123_label)]);
    for (i, toleration) in list(spec, "/tolerations").iter().enumerate() {
        tolerations(e, toleration, &format!("{field}.tolerations[{i}]"));
    }
    pod_network::host_aliases(e, spec, field);
    names(e, spec, field, &[("priorityClassName", dns1123_subdomain), ("runtimeClassName", dns1123_subdomain)]);
    if has(spec, "/preemptionPolicy") {
        required_one_of(e, spec, field, "preemptionPolicy", &PREEMPTION_POLICIES);
    }
    pod_resources::overhead(e, spec, field);
    pod_os::validate(e, spec, field);
    container_env::file_volumes(e, spec, field);
    if pod.is_some() {
        for key in ["containers", "initContainers"] {
            for (i, container) in list(spec, &format!("/{key}")).iter().enumerate() {
                trimmed_image(e, container, &format!("{field}.{key}[{i}]"));
            }
        }
    }
    errors
}

/// The rules of a defaulted pod.
pub(super) fn pod(pod: &Value) -> Vec<FieldError> {
    let (metadata, spec) = (at(pod, "metadata"), at(pod, "spec"));
    let mut errors = pod_annotations::validate(at(metadata, "annotations"), spec, "metadata.annotations");
    errors.extend(pod_spec(spec, "spec", Some(metadata)));
    status(&mut errors, at(pod, "status"));
    errors
}

fn status(errors: &mut Vec<FieldError>, status: &Value) {
    const OWN: [&str; 3] = ["Initialized", "PodScheduled", "Ready"];
    for (i, condition) in list(status, "/conditions").iter().enumerate() {
        let (kind, field) = (text(condition, "/type"), format!("status.conditions[{i}]"));
        if let Some(n) = int(condition, "/observedGeneration").filter(|n| *n < 0) {
            let message = "must be a non-negative integer";
            errors.push(FieldError::invalid(format!("{field}.observedGeneration"), &json!(n), message));
        }
        if !OWN.contains(&kind) {
            // Upstream writes it with a capital here.
            report(errors, format!("{field}.Type"), &json!(kind), qualified_name(kind));
        }
    }
    let nominated = text(status, "/nominatedNodeName");
    if !nominated.is_empty() {
        report(errors, "status.nominatedNodeName", &json!(nominated), dns1123_subdomain(nominated));
    }
    if let Some(n) = int(status, "/observedGeneration").filter(|n| *n < 0) {
        errors.push(FieldError::invalid("status.observedGeneration", &json!(n), "must be a non-negative integer"));
    }
    let hosts = list(status, "/hostIPs");
    if let Some(first) = hosts.first().map(|h| text(h, "/ip")).filter(|first| *first != text(status, "/hostIP")) {
        errors.push(FieldError::invalid("status.hostIPs[0].ip", &json!(first), "must be equal to `hostIP`"));
    }
    for (key, all) in [("podIPs", list(status, "/podIPs")), ("hostIPs", hosts)] {
        for (i, item) in all.iter().enumerate() {
            let address = text(item, "/ip");
            report(errors, format!("status.{key}[{i}]"), &json!(address), ip(address));
        }
        let families: HashSet<bool> = all.iter().map(|item| text(item, "/ip").contains(':')).collect();
        if all.len() > families.len() {
            let message = "may specify no more than one IP for each IP family";
            errors.push(FieldError::invalid(format!("status.{key}"), &json!(all), message));
        }
    }
}

/// The rules of a pod that is new; those of every pod hold beside them.
pub(super) fn new_pod(pod: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if !list(pod, "/spec/ephemeralContainers").is_empty() {
        errors.push(FieldError::forbidden("spec.ephemeralContainers", "cannot be set on create"));
    }
    if !text(pod, "/spec/nodeName").is_empty() && !list(pod, "/spec/schedulingGates").is_empty() {
        let message = "cannot be set until all schedulingGates have been cleared";
        errors.push(FieldError::forbidden("spec.nodeName", message));
    }
    errors
}

/// A field and the rule of the name in it.
type Named = (&'static str, fn(&str) -> Check);

fn names(errors: &mut Vec<FieldError>, spec: &Value, field: &str, keys: &[Named]) {
    for (key, check) in keys {
        let value = text(spec, &format!("/{key}"));
        if !value.is_empty() || *key == "runtimeClassName" && has(spec, "/runtimeClassName") {
            report(errors, format!("{field}.{key}"), &json!(value), check(value));
        }
    }
}

fn resource_claims(errors: &mut Vec<FieldError>, spec: &Value, field: &str) {
    const SOURCES: [&str; 2] = ["resourceClaimName", "resourceClaimTemplateName"];
    let mut seen = HashSet::new();
    for (i, claim) in list(spec, "/resourceClaims").iter().enumerate() {
        let (name, field) = (text(claim, "/name"), format!("{field}.resourceClaims[{i}]"));
        if name.is_empty() {
            errors.push(FieldError::required(format!("{field}.name"), ""));
        } else if seen.contains(name) {
            errors.push(FieldError::duplicate(format!("{field}.name"), &json!(name)));
        } else {
            report(errors, format!("{field}.name"), &json!(name), dns1123_label(name));
            seen.insert(name);
        }
        let given: Vec<&str> = SOURCES.into_iter().filter(|key| has(claim, &format!("/{key}"))).collect();
        let message = match given.len() {
            0 => "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
            1 => "",
            _ => "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
        };
        if !message.is_empty() {
            // Upstream shows its own form of the claim.
            let at = |key: &str| claim.get(key).cloned().unwrap_or_default();
            let shown = json!({"Name": name, "ResourceClaimName": at("resourceClaimName"),
                "ResourceClaimTemplateName": at("resourceClaimTemplateName")});
            errors.push(FieldError::invalid(&field, &shown, message));
        }
        for key in given {
            let value = text(claim, &format!("/{key}"));
            report(errors, format!("{field}.{key}"), &json!(value), dns1123_subdomain(value));
        }
    }
}

fn gates(errors: &mut Vec<FieldError>, spec: &Value, field: &str) {
    for (i, gate) in list(spec, "/readinessGates").iter().enumerate() {
        let value = text(gate, "/conditionType");
        let field = format!("{field}.readinessGates[{i}].conditionType");
        report(errors, field, &json!(value), qualified_name(value));
    }
    let mut seen = HashSet::new();
    for (i, gate) in list(spec, "/schedulingGates").iter().enumerate() {
        let (name, field) = (text(gate, "/name"), format!("{field}.schedulingGates[{i}]"));
        report(errors, &field, &json!(name), qualified_name(name));
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(field, &json!(name)));
        }
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
            errors.push(FieldError::invalid(format!("{field}.operator"), &json!(at("value")), message));
        }
        "Exists" => {}
        other => errors.push(FieldError::not_supported(format!("{field}.operator"), &json!(other), &OPERATORS)),
    }
    if !effect.is_empty() && !EFFECTS.contains(&effect) {
        errors.push(FieldError::not_supported(format!("{field}.effect"), &json!(effect), &EFFECTS));
    }
}
