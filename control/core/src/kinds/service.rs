//! Service. The server's admission allocates cluster IPs and node ports; here are the rules.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::service_ports::service_ports;
use super::value::{
    child, entries, has, int, items_mut, list, remove, set, set_default, set_default_nonzero, strings, text,
};
use super::workload::format_labels;
use super::{in_all, names, with_status};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{self, Check, dns1123_subdomain, ip, label_value, qualified_name, report};

const TYPES: [&str; 4] = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const AFFINITIES: [&str; 2] = ["ClientIP", "None"];
const POLICIES: [&str; 2] = ["Cluster", "Local"];
/// Seconds for which a client stays with its pod under `sessionAffinity: ClientIP`.
const AFFINITY_SECONDS: i64 = 10_800;
const MAX_AFFINITY_SECONDS: i64 = 86_400;

/// Services.
pub fn resource() -> Option<Resource> {
    let names = in_all(names("v1", "services", "Service", &["svc"], Scope::Namespaced));
    super::built_in(names, with_status(), Service)
}

struct Service;

fn type_of(service: &Value) -> &str {
    text(service, "/spec/type")
}
fn is_external_name(service: &Value) -> bool {
    type_of(service) == "ExternalName"
}
fn has_node_ports(service: &Value) -> bool {
    matches!(type_of(service), "NodePort" | "LoadBalancer")
}
fn has_health_check(service: &Value) -> bool {
    type_of(service) == "LoadBalancer" && text(service, "/spec/externalTrafficPolicy") == "Local"
}

impl Strategy for Service {
    fn creates_on_update(&self) -> bool {
        true
    }
    fn default(&self, object: &mut Value) {
        let Some(spec) = child(object, "spec") else { return };
        set_default_nonzero(spec, "sessionAffinity", "None");
        set_default_nonzero(spec, "type", "ClusterIP");
        if text(spec, "/sessionAffinity") == "ClientIP"
            && let Some(client) = child(spec, "sessionAffinityConfig").and_then(|c| child(c, "clientIP"))
        {
            set_default(client, "timeoutSeconds", AFFINITY_SECONDS);
        }
        for port in items_mut(spec, "/ports") {
            set_default_nonzero(port, "protocol", "TCP");
            let number = port.get("port").cloned().unwrap_or_default();
            set_default_nonzero(port, "targetPort", number);
        }
        let type_ = text(spec, "/type").to_string();
        if matches!(type_.as_str(), "NodePort" | "LoadBalancer") {
            set_default_nonzero(spec, "externalTrafficPolicy", "Cluster");
        }
        if type_ != "ExternalName" {
            set_default(spec, "internalTrafficPolicy", "Cluster");
            set_default(spec, "ipFamilies", json!(["IPv4"]));
            set_default_nonzero(spec, "ipFamilyPolicy", "SingleStack");
        }
        if type_ == "LoadBalancer" {
            set_default(spec, "allocateLoadBalancerNodePorts", true);
        }
    }
    fn prepare_create(&self, object: &mut Value) {
        sync_cluster_ips(object, None);
        set(object, "status", json!({"loadBalancer": {}}));
    }
    fn prepare_update(&self, new: &mut Value, old: &Value) {
        sync_cluster_ips(new, Some(old));
        carry_allocated(new, old);
        drop_unused(new, old);
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        validate_service(object)
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        if is_external_name(new) || is_external_name(old) {
            return Vec::new();
        }
        let ips = |s: &Value| list(s, "/spec/clusterIPs").to_vec();
        let (before, after) = (ips(old), ips(new));
        if before.first().is_some_and(|first| after.first() != Some(first)) {
            return vec![FieldError::invalid("spec.clusterIPs[0]", &Value::Array(after), "may not change once set")];
        }
        let health = |s: &Value| int(s, "/spec/healthCheckNodePort").unwrap_or(0);
        if has_health_check(new) && has_health_check(old) && health(new) != health(old) {
            return vec![FieldError::forbidden("spec.healthCheckNodePort", "field is immutable")];
        }
        Vec::new()
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Type", "string", "How the service is reached."),
            Column::new("Cluster-IP", "string", "Address inside the cluster."),
            Column::new("External-IP", "string", "Addresses outside."),
            Column::new("Port(s)", "string", "Ports, with node ports after a colon."),
            Column::age(),
            Column::new("Selector", "string", "Labels of the pods behind it.").wide(),
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![
            table::name(object),
            json!(type_of(object)),
            json!(strings(object, "/spec/clusterIPs").next().unwrap_or("<none>")),
            json!(external_ips(object)),
            json!(ports_cell(object)),
            table::age(object, now),
            json!(format_labels(object.pointer("/spec/selector").unwrap_or(&Value::Null))),
        ]
    }
    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("spec.clusterIP", text(object, "/spec/clusterIP").into()), ("spec.type", type_of(object).into())]
    }
    fn field_names(&self) -> &'static [&'static str] {
        &["spec.clusterIP", "spec.type"]
    }
    fn validate_name(&self, name: &str) -> Check {
        validate::dns1035_label(name)
    }
}

/// `clusterIP` is the first of `clusterIPs`; a client that sets one of the two means both.
fn sync_cluster_ips(new: &mut Value, old: Option<&Value>) {
    let first = |s: &Value| strings(s, "/spec/clusterIPs").next().unwrap_or_default().to_string();
    let (ip, ips) = (text(new, "/spec/clusterIP").to_string(), first(new));
    let single_changed = old.is_some_and(|o| ip != text(o, "/spec/clusterIP") && ips == first(o));
    let Some(spec) = new.get_mut("spec") else { return };
    if single_changed && ip.is_empty() && !ips.is_empty() {
        remove(spec, "", "clusterIPs");
    } else if !ip.is_empty() && (ips.is_empty() || single_changed) {
        set(spec, "clusterIPs", json!([ip]));
    } else if ip.is_empty() && !ips.is_empty() {
        set(spec, "clusterIP", ips);
    }
}

/// What was allocated stays when the client leaves it out.
fn carry_allocated(new: &mut Value, old: &Value) {
    if !is_external_name(new) && !is_external_name(old) && text(new, "/spec/clusterIP").is_empty() {
        for key in ["clusterIP", "clusterIPs"] {
            if let (Some(value), Some(spec)) = (old.pointer(&format!("/spec/{key}")), new.get_mut("spec")) {
                set(spec, key, value.clone());
            }
        }
    }
    if has_node_ports(new) && has_node_ports(old) {
        let taken: Vec<i64> = list(new, "/spec/ports").iter().filter_map(|p| int(p, "/nodePort")).collect();
        for port in items_mut(new, "/spec/ports") {
            let same = |p: &&Value| p.get("port") == port.get("port") && p.get("protocol") == port.get("protocol");
            let before = list(old, "/spec/ports").iter().find(same).and_then(|p| int(p, "/nodePort"));
            if let Some(before) = before.filter(|p| *p != 0 && !taken.contains(p)) {
                set_default_nonzero(port, "nodePort", before);
            }
        }
    }
    const HEALTH: &str = "/spec/healthCheckNodePort";
    match (has_health_check(old), has_health_check(new)) {
        (true, true) => {
            if let (Some(value), Some(spec)) = (int(old, HEALTH), new.get_mut("spec")) {
                set_default_nonzero(spec, "healthCheckNodePort", value);
            }
        }
        (true, false) if int(new, HEALTH) == int(old, HEALTH) => drop(remove(new, "/spec", "healthCheckNodePort")),
        _ => {}
    }
}

/// After a change of type, fields that only the old type had and that the client merely left in place go away.
fn drop_unused(new: &mut Value, old: &Value) {
    if type_of(new) == type_of(old) {
        return;
    }
    let same = |new: &Value, pointer: &str| new.pointer(pointer) == old.pointer(pointer);
    if is_external_name(new) && same(new, "/spec/clusterIP") {
        for key in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"] {
            remove(new, "/spec", key);
        }
    }
    if has_node_ports(old) && !has_node_ports(new) {
        for port in items_mut(new, "/spec/ports") {
            let kept = int(port, "/nodePort");
            if list(old, "/spec/ports").iter().any(|p| int(p, "/nodePort") == kept) {
                remove(port, "", "nodePort");
            }
        }
        if same(new, "/spec/externalTrafficPolicy") {
            remove(new, "/spec", "externalTrafficPolicy");
        }
    }
    if type_of(old) == "LoadBalancer" {
        for key in ["allocateLoadBalancerNodePorts", "loadBalancerClass"] {
            if same(new, &format!("/spec/{key}")) {
                remove(new, "/spec", key);
            }
        }
    }
    if type_of(old) == "ExternalName" && same(new, "/spec/externalName") {
        remove(new, "/spec", "externalName");
    }
}

fn validate_service(object: &Value) -> Vec<FieldError> {
    let cluster_ip = text(object, "/spec/clusterIP");
    let headless = cluster_ip == "None";
    let mut errors = service_ports(object, list(object, "/spec/ports"), headless);
    let mut one_of = |field: &str, valid: &[&str]| {
        let value = text(object, &format!("/spec/{field}"));
        if !valid.contains(&value) {
            errors.push(FieldError::not_supported(format!("spec.{field}"), &json!(value), valid));
        }
    };
    one_of("type", &TYPES);
    one_of("sessionAffinity", &AFFINITIES);
    if has(object, "/spec/internalTrafficPolicy") {
        one_of("internalTrafficPolicy", &POLICIES);
    }
    if has_node_ports(object) {
        one_of("externalTrafficPolicy", &POLICIES);
    } else if !text(object, "/spec/externalTrafficPolicy").is_empty() && list(object, "/spec/externalIPs").is_empty() {
        let value = json!(text(object, "/spec/externalTrafficPolicy"));
        let message = "may only be set for externally-accessible services";
        errors.push(FieldError::invalid("spec.externalTrafficPolicy", &value, message));
    }
    let health = int(object, "/spec/healthCheckNodePort").unwrap_or(0);
    if health != 0 && !has_health_check(object) {
        let message = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        errors.push(FieldError::invalid("spec.healthCheckNodePort", &json!(health), message));
    }
    for (key, value) in entries(object, "/spec/selector") {
        report(&mut errors, "spec.selector", &json!(key), qualified_name(key));
        report(&mut errors, "spec.selector", value, label_value(value.as_str().unwrap_or_default()));
    }
    if let Some(seconds) = int(object, "/spec/sessionAffinityConfig/clientIP/timeoutSeconds")
        .filter(|s| !(1..=MAX_AFFINITY_SECONDS).contains(s))
    {
        let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
        errors.push(FieldError::invalid(field, &json!(seconds), "must be greater than 0 && <= 86400"));
    }
    for (i, address) in strings(object, "/spec/externalIPs").enumerate() {
        report(&mut errors, format!("spec.externalIPs[{i}]"), &json!(address), ip(address));
    }
    if is_external_name(object) {
        let name = text(object, "/spec/externalName").trim_end_matches('.');
        if name.is_empty() {
            errors.push(FieldError::required("spec.externalName", ""));
        } else {
            report(&mut errors, "spec.externalName", &json!(name), dns1123_subdomain(name));
        }
        if !cluster_ip.is_empty() {
            errors.push(FieldError::forbidden("spec.clusterIPs", "may not be set for ExternalName services"));
        }
    } else if !cluster_ip.is_empty() && !headless {
        report(&mut errors, "spec.clusterIPs[0]", &json!(cluster_ip), ip(cluster_ip));
    } else if headless && has_node_ports(object) {
        let message = "may not be set to 'None' for LoadBalancer services";
        let message =
            if type_of(object) == "NodePort" { message.replace("LoadBalancer", "NodePort") } else { message.into() };
        errors.push(FieldError::invalid("spec.clusterIPs[0]", &json!(cluster_ip), &message));
    }
    errors
}

fn external_ips(service: &Value) -> String {
    let given: Vec<&str> = strings(service, "/spec/externalIPs").collect();
    match type_of(service) {
        "ClusterIP" | "NodePort" if given.is_empty() => "<none>".into(),
        "ClusterIP" | "NodePort" => given.join(","),
        "LoadBalancer" => {
            let ingress = list(service, "/status/loadBalancer/ingress").iter();
            let ingress =
                ingress.map(|i| if text(i, "/ip").is_empty() { text(i, "/hostname") } else { text(i, "/ip") });
            let all: Vec<&str> = ingress.filter(|i| !i.is_empty()).chain(given).collect();
            if all.is_empty() { "<pending>".into() } else { all.join(",") }
        }
        "ExternalName" => text(service, "/spec/externalName").into(),
        _ => "<unknown>".into(),
    }
}

fn ports_cell(service: &Value) -> String {
    let port = |p: &Value| {
        let (number, protocol) = (int(p, "/port").unwrap_or(0), text(p, "/protocol"));
        match int(p, "/nodePort") {
            Some(node_port) if node_port > 0 => format!("{number}:{node_port}/{protocol}"),
            _ => format!("{number}/{protocol}"),
        }
    };
    let ports: Vec<String> = list(service, "/spec/ports").iter().map(port).collect();
    if ports.is_empty() { "<none>".into() } else { ports.join(",") }
}
