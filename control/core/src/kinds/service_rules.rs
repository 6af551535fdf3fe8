//! Rules of a Service, in the order in which upstream reports them.

use std::collections::HashSet;
use std::net::IpAddr;

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{at, invalid, one_of, required_one_of};
use super::service::{externally_reached, is_external_name, is_headless, needs_health_check, picks_itself, type_of};
use super::service_ports::{repeated_ports, service_ports};
use super::value::{has, int, list, strings, text};
use crate::validate::{cidr, dns1123_subdomain, endpoint_ip, ip, labels, port, qualified_name, report};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const AFFINITIES: [&str; 2] = ["ClientIP", "None"];
const POLICIES: [&str; 2] = ["Cluster", "Local"];
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
/// The families that this cluster has addresses of.
const CONFIGURED: [&str; 1] = ["IPv4"];
const FAMILY_POLICIES: [&str; 3] = ["PreferDualStack", "RequireDualStack", "SingleStack"];
const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameZone", "PreferSameNode"];
const IP_MODES: [&str; 2] = ["Proxy", "VIP"];
const MAX_AFFINITY_SECONDS: i64 = 86_400;
/// Most cluster IPs: one of each family.
const MAX_CLUSTER_IPS: usize = 2;
const BALANCER_ONLY: &str = "may only be used when `type` is 'LoadBalancer'";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// The rules of a defaulted Service.
pub(super) fn validate(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let e = &mut errors;
    let annotation = |key: &str| at(object, "metadata.annotations").get(key).and_then(Value::as_str);
    if let (Some(mode), Some(hints)) = (annotation(TOPOLOGY_MODE), annotation(TOPOLOGY_HINTS))
        && mode != hints
    {
        let message = format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified");
        invalid(e, &format!("metadata.annotations[{TOPOLOGY_MODE}]"), mode, &message);
    }
    let ports = list(object, "/spec/ports");
    if ports.is_empty() && !is_headless(object) && !is_external_name(object) {
        e.push(FieldError::required("spec.ports", ""));
    }
    of_type(e, object);
    e.extend(service_ports(ports));
    e.extend(labels(at(object, "spec.selector"), "spec.selector"));
    affinity(e, object);
    if !is_external_name(object) {
        cluster_ips(e, object);
        families(e, object);
    }
    for (i, address) in strings(object, "/spec/externalIPs").enumerate() {
        let check = ip(address).and_then(|()| endpoint_ip(address));
        report(e, format!("spec.externalIPs[{i}]"), &json!(address), check);
    }
    required_one_of(e, at(object, "spec"), "spec", "type", &TYPES);
    e.extend(repeated_ports(ports, type_of(object) == "ClusterIP"));
    source_ranges(e, object, annotation(SOURCE_RANGES));
    balancer(e, object);
    traffic(e, object);
    ingress(e, object);
    errors
}

fn of_type(errors: &mut Vec<FieldError>, object: &Value) {
    let type_ = type_of(object);
    if is_headless(object) && matches!(type_, "LoadBalancer" | "NodePort") {
        let message = format!("may not be set to 'None' for {type_} services");
        invalid(errors, "spec.clusterIPs[0]", "None", &message);
    }
    if !is_external_name(object) {
        return;
    }
    const NOT_ALLOWED: &str = "may not be set for ExternalName services";
    if !text(object, "/spec/clusterIP").is_empty() || !list(object, "/spec/clusterIPs").is_empty() {
        errors.push(FieldError::forbidden("spec.clusterIPs", NOT_ALLOWED));
    }
    if !list(object, "/spec/ipFamilies").is_empty() {
        errors.push(FieldError::forbidden("spec.ipFamilies", NOT_ALLOWED));
    }
    if has(object, "/spec/ipFamilyPolicy") {
        errors.push(FieldError::forbidden("spec.ipFamilyPolicy", NOT_ALLOWED));
    }
    let given = text(object, "/spec/externalName");
    match given.strip_suffix('.').unwrap_or(given) {
        "" => errors.push(FieldError::required("spec.externalName", "")),
        name => report(errors, "spec.externalName", &json!(name), dns1123_subdomain(name)),
    }
}

fn affinity(errors: &mut Vec<FieldError>, object: &Value) {
    const FIELD: &str = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
    required_one_of(errors, at(object, "spec"), "spec", "sessionAffinity", &AFFINITIES);
    if text(object, "/spec/sessionAffinity") != "ClientIP" {
        return;
    }
    let seconds = at(object, FIELD).as_i64().unwrap_or(0);
    if !(1..=MAX_AFFINITY_SECONDS).contains(&seconds) {
        let message = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
        errors.push(FieldError::invalid(FIELD, &json!(seconds), &message));
    }
}

fn cluster_ips(errors: &mut Vec<FieldError>, object: &Value) {
    const FIELD: &str = "spec.clusterIPs";
    let (single, all): (_, Vec<&str>) =
        (text(object, "/spec/clusterIP"), strings(object, "/spec/clusterIPs").collect());
    let whole = |errors: &mut Vec<FieldError>, message: &str| {
        errors.push(FieldError::invalid(FIELD, &json!(all), message));
    };
    match (single, all.first()) {
        ("", None) => {}
        ("", Some(_)) => whole(errors, "must be empty when `clusterIP` is not specified"),
        (_, None) => errors.push(FieldError::required(FIELD, "")),
        (single, Some(first)) if single != *first => whole(errors, "first value must match `clusterIP`"),
        _ => {}
    }
    let before = errors.len();
    for (i, address) in all.iter().enumerate() {
        if i > 0 || *address != "None" {
            report(errors, format!("{FIELD}[{i}]"), &json!(address), ip(address));
        } else if all.len() > 1 {
            whole(errors, "'None' must be the first and only value");
        }
    }
    let wrong = errors.len() > before;
    if all.len() > MAX_CLUSTER_IPS {
        whole(errors, "may only hold up to 2 values");
    }
    if wrong {
        return;
    }
    let family = |address: &str| match address.parse::<IpAddr>() {
        Ok(IpAddr::V4(_)) => Some("IPv4"),
        Ok(IpAddr::V6(_)) => Some("IPv6"),
        Err(_) => None,
    };
    let kinds: HashSet<_> = all.iter().map(|address| family(address)).collect();
    if all.len() > 1 && kinds.len() < 2 {
        whole(errors, "may specify no more than one IP for each IP family");
    }
    for (i, (address, wanted)) in all.iter().zip(strings(object, "/spec/ipFamilies")).enumerate() {
        if family(address).is_some_and(|family| family != wanted) && FAMILIES.contains(&wanted) {
            let message = format!("expected an {wanted} value as indicated by `ipFamilies[{i}]`");
            invalid(errors, &format!("{FIELD}[{i}]"), address, &message);
        }
    }
}

/// The families of addresses; this cluster has one of them.
fn families(errors: &mut Vec<FieldError>, object: &Value) {
    const POLICY: &str = "spec.ipFamilyPolicy";
    let before = errors.len();
    let given: Vec<&str> = strings(object, "/spec/ipFamilies").collect();
    let mut seen = HashSet::new();
    for (i, family) in given.iter().enumerate() {
        let field = format!("spec.ipFamilies[{i}]");
        if !FAMILIES.contains(family) {
            errors.push(FieldError::not_supported(&field, &json!(family), &FAMILIES));
        }
        if !seen.insert(family) {
            errors.push(FieldError::duplicate(field, &json!(family)));
        }
    }
    let policy = text(object, "/spec/ipFamilyPolicy");
    if has(object, "/spec/ipFamilyPolicy") && !FAMILY_POLICIES.contains(&policy) {
        errors.push(FieldError::not_supported(POLICY, &json!(policy), &FAMILY_POLICIES));
    }
    if policy == "SingleStack" {
        for (key, what) in [("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")] {
            if list(object, &format!("/spec/{key}")).len() == 2 {
                let message =
                    format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
                invalid(errors, POLICY, policy, &message);
            }
        }
    }
    // Who names the endpoints himself may give them any addresses.
    if errors.len() > before || is_headless(object) && picks_itself(object) {
        return;
    }
    if policy == "RequireDualStack" && CONFIGURED.len() < FAMILIES.len() {
        invalid(errors, POLICY, policy, "this cluster is not configured for dual-stack services");
    }
    for (i, family) in given.iter().enumerate().filter(|(_, family)| !CONFIGURED.contains(family)) {
        invalid(errors, &format!("spec.ipFamilies[{i}]"), family, "not configured on this cluster");
    }
}

fn source_ranges(errors: &mut Vec<FieldError>, object: &Value, annotation: Option<&str>) {
    let balancer = type_of(object) == "LoadBalancer";
    let ranges: Vec<&str> = strings(object, "/spec/loadBalancerSourceRanges").map(str::trim).collect();
    let field = match annotation {
        // Upstream writes it with a capital here.
        _ if !ranges.is_empty() => "spec.LoadBalancerSourceRanges".to_string(),
        Some(_) => format!("metadata.annotations[{SOURCE_RANGES}]"),
        None => return,
    };
    if !balancer {
        errors.push(FieldError::forbidden(&field, BALANCER_ONLY));
    }
    for (i, range) in ranges.iter().enumerate() {
        report(errors, format!("{field}[{i}]"), &json!(range), cidr(range).map(|_| ()));
    }
    let annotated = annotation.filter(|a| ranges.is_empty() && !a.trim().is_empty());
    for range in annotated.unwrap_or_default().split(',').map(str::trim).filter(|_| annotated.is_some()) {
        report(errors, &field, &json!(range), cidr(range).map(|_| ()));
    }
}

fn balancer(errors: &mut Vec<FieldError>, object: &Value) {
    let balancer = type_of(object) == "LoadBalancer";
    if has(object, "/spec/allocateLoadBalancerNodePorts") && !balancer {
        errors.push(FieldError::forbidden("spec.allocateLoadBalancerNodePorts", BALANCER_ONLY));
    }
    if has(object, "/spec/loadBalancerClass") {
        let class = text(object, "/spec/loadBalancerClass");
        if balancer {
            report(errors, "spec.loadBalancerClass", &json!(class), qualified_name(class));
        } else {
            errors.push(FieldError::forbidden("spec.loadBalancerClass", BALANCER_ONLY));
        }
    }
}

fn traffic(errors: &mut Vec<FieldError>, object: &Value) {
    let spec = at(object, "spec");
    let policy = text(spec, "/externalTrafficPolicy");
    if externally_reached(spec) {
        required_one_of(errors, spec, "spec", "externalTrafficPolicy", &POLICIES);
    } else if !policy.is_empty() {
        let message = "may only be set for externally-accessible services";
        invalid(errors, "spec.externalTrafficPolicy", policy, message);
    }
    // One that is needed and not there is given later.
    if let Some(number) = int(spec, "/healthCheckNodePort").filter(|n| *n != 0) {
        let check = if needs_health_check(spec) {
            port(number)
        } else {
            Err("may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'".into())
        };
        report(errors, "spec.healthCheckNodePort", &json!(number), check);
    }
    one_of(errors, spec, "spec", "internalTrafficPolicy", &POLICIES);
    if has(spec, "/trafficDistribution") {
        required_one_of(errors, spec, "spec", "trafficDistribution", &DISTRIBUTIONS);
    }
}

fn ingress(errors: &mut Vec<FieldError>, object: &Value) {
    const FIELD: &str = "status.loadBalancer.ingress";
    let points = list(object, "/status/loadBalancer/ingress");
    if type_of(object) != "LoadBalancer" {
        if !points.is_empty() {
            errors.push(FieldError::forbidden(FIELD, "may only be used when `spec.type` is 'LoadBalancer'"));
        }
        return;
    }
    for (i, point) in points.iter().enumerate() {
        let field = format!("{FIELD}[{i}]");
        let (address, mode, host) = (text(point, "/ip"), text(point, "/ipMode"), text(point, "/hostname"));
        if !address.is_empty() {
            report(errors, format!("{field}.ip"), &json!(address), ip(address));
        }
        if !has(point, "/ipMode") && !address.is_empty() {
            errors.push(FieldError::required(format!("{field}.ipMode"), "must be specified when `ip` is set"));
        } else if has(point, "/ipMode") && address.is_empty() {
            errors.push(FieldError::forbidden(format!("{field}.ipMode"), "may not be specified when `ip` is not set"));
        } else if has(point, "/ipMode") && !IP_MODES.contains(&mode) {
            errors.push(FieldError::not_supported(format!("{field}.ipMode"), &json!(mode), &IP_MODES));
        }
        if !host.is_empty() {
            let field = format!("{field}.hostname");
            report(errors, &field, &json!(host), dns1123_subdomain(host));
            if host.parse::<IpAddr>().is_ok() {
                invalid(errors, &field, host, "must be a DNS name, not an IP address");
            }
        }
    }
}
