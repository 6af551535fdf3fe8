//! Service. The server's admission allocates cluster IPs and node ports; here are the rules.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::value::{
    child, entries, has, int, items_mut, list, remove, set, set_default, set_default_nonzero, strings, text,
};
use super::workload::format_labels;
use super::{in_all, names, service_rules, with_status};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{self, Check, IMMUTABLE};

/// Seconds for which a client stays with its pod under `sessionAffinity: ClientIP`.
const AFFINITY_SECONDS: i64 = 10_800;

/// Services.
pub fn resource() -> Option<Resource> {
    let names = in_all(names("v1", "services", "Service", &["svc"], Scope::Namespaced));
    super::built_in(names, with_status(), Service)
}

struct Service;

/// The Service's type.
pub(super) fn type_of(service: &Value) -> &str {
    text(service, "/spec/type")
}
/// Whether it is a name for something outside.
pub(super) fn is_external_name(service: &Value) -> bool {
    type_of(service) == "ExternalName"
}
/// Whether it has no address of its own.
pub(super) fn is_headless(service: &Value) -> bool {
    text(service, "/spec/clusterIP") == "None"
}
/// Whether no selector picks its endpoints.
pub(super) fn picks_itself(service: &Value) -> bool {
    entries(service, "/spec/selector").next().is_none()
}
/// Whether a Service with this spec can be reached from outside.
pub(super) fn externally_reached(spec: &Value) -> bool {
    match text(spec, "/type") {
        "LoadBalancer" | "NodePort" => true,
        "ClusterIP" => !list(spec, "/externalIPs").is_empty(),
        _ => false,
    }
}
/// Whether a Service with this spec has a port where a load balancer asks for its health.
pub(super) fn needs_health_check(spec: &Value) -> bool {
    text(spec, "/type") == "LoadBalancer" && text(spec, "/externalTrafficPolicy") == "Local"
}
fn has_node_ports(service: &Value) -> bool {
    matches!(type_of(service), "NodePort" | "LoadBalancer")
}
fn has_health_check(service: &Value) -> bool {
    service.get("spec").is_some_and(needs_health_check)
}

impl Strategy for Service {
    fn creates_on_update(&self) -> bool {
        true
    }
    fn default(&self, object: &mut Value) {
        let Some(spec) = child(object, "spec") else { return };
        set_default_nonzero(spec, "sessionAffinity", "None");
        set_default_nonzero(spec, "type", "ClusterIP");
        if text(spec, "/sessionAffinity") == "None" {
            remove(spec, "", "sessionAffinityConfig");
        }
        if text(spec, "/sessionAffinity") == "ClientIP" && !has(spec, "/sessionAffinityConfig/clientIP/timeoutSeconds")
        {
            set(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": AFFINITY_SECONDS}}));
        }
        for port in items_mut(spec, "/ports") {
            set_default_nonzero(port, "protocol", "TCP");
            let number = port.get("port").cloned().unwrap_or_default();
            set_default_nonzero(port, "targetPort", number);
        }
        if externally_reached(spec) {
            set_default_nonzero(spec, "externalTrafficPolicy", "Cluster");
        }
        if text(spec, "/type") != "ExternalName" {
            set_default(spec, "internalTrafficPolicy", "Cluster");
        }
        if text(spec, "/type") != "LoadBalancer" {
            return;
        }
        set_default(spec, "allocateLoadBalancerNodePorts", true);
        for point in items_mut(object, "/status/loadBalancer/ingress") {
            if !text(point, "/ip").is_empty() {
                set_default(point, "ipMode", "VIP");
            }
        }
    }
    fn prepare_create(&self, object: &mut Value) {
        sync_cluster_ips(object, None);
        families(object, None);
        set(object, "status", json!({"loadBalancer": {}}));
    }
    fn prepare_update(&self, new: &mut Value, old: &Value) {
        sync_cluster_ips(new, Some(old));
        carry_allocated(new, old);
        drop_unused(new, old);
        families(new, Some(old));
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        service_rules::validate(object)
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let at = |s: &Value, key: &str| list(s, &format!("/spec/{key}")).to_vec();
        for (key, message) in [("clusterIPs", "may not change once set"), ("ipFamilies", "may not change once set")] {
            let (before, after) = (at(old, key), at(new, key));
            let external = is_external_name(new) || is_external_name(old);
            if !external && before.first().is_some_and(|first| after.first() != Some(first)) {
                errors.push(FieldError::invalid(format!("spec.{key}[0]"), &Value::Array(after), message));
            }
        }
        let class = |s: &Value| s.pointer("/spec/loadBalancerClass").cloned().unwrap_or_default();
        if [new, old].iter().all(|s| type_of(s) == "LoadBalancer") && class(new) != class(old) {
            errors.push(FieldError::invalid("spec.loadBalancerClass", &class(new), "may not change once set"));
        }
        let health = |s: &Value| {
            s.get("spec").filter(|spec| needs_health_check(spec)).map(|spec| int(spec, "/healthCheckNodePort"))
        };
        if let (Some(after), Some(before)) = (health(new), health(old))
            && after != before
        {
            errors.push(FieldError::forbidden("spec.healthCheckNodePort", IMMUTABLE));
        }
        errors
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

/// The families of a Service's addresses, where it names none: those that it had, else the cluster's one. A headless
/// Service without a selector has endpoints of any family.
fn families(new: &mut Value, old: Option<&Value>) {
    if is_external_name(new) {
        return;
    }
    let any = is_headless(new) && picks_itself(new);
    let before = |key: &str| old.and_then(|o| o.pointer(&format!("/spec/{key}"))).filter(|v| !v.is_null()).cloned();
    let Some(spec) = child(new, "spec") else { return };
    let policy =
        before("ipFamilyPolicy").unwrap_or_else(|| json!(if any { "RequireDualStack" } else { "SingleStack" }));
    set_default_nonzero(spec, "ipFamilyPolicy", policy);
    if list(spec, "/ipFamilies").is_empty() {
        let families = before("ipFamilies").unwrap_or_else(|| json!(["IPv4"]));
        set(spec, "ipFamilies", families);
    }
    let single = text(spec, "/ipFamilyPolicy") == "SingleStack";
    let given = list(spec, "/ipFamilies").to_vec();
    match given.as_slice() {
        [first, _] if single && before("ipFamilies").is_some_and(|b| b == json!(given)) => {
            set(spec, "ipFamilies", json!([first]));
        }
        [first] if any && !single => {
            let other = if first == "IPv6" { "IPv4" } else { "IPv6" };
            set(spec, "ipFamilies", json!([first, other]));
        }
        _ => {}
    }
}

/// After a change of type, fields that only the old type had and that the client merely left in place go away.
fn drop_unused(new: &mut Value, old: &Value) {
    if type_of(new) != "LoadBalancer" && has(new, "/status/loadBalancer/ingress") {
        set(new, "status", json!({"loadBalancer": {}}));
    }
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
