//! Rules of the containers of a pod, in the order in which upstream reports them.

use std::collections::{BTreeSet, HashMap, HashSet};

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::container_env::{env, env_from};
use super::container_mounts::{devices, mounts};
use super::fields::required_one_of;
use super::pod_probes::{lifecycle, probe};
use super::pod_resources::{self, resize_policy};
use super::pod_security;
use super::service_ports::protocol;
use super::value::{entries, has, int, list, text};
use crate::validate::{dns1123_label, port, port_name, report, too_many};

const PULL_POLICIES: [&str; 3] = ["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: [&str; 2] = ["File", "FallbackToLogsOnError"];
const RESTART_POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];
const EXIT_CODE_OPERATORS: [&str; 2] = ["In", "NotIn"];
/// Most restart rules of one container.
const MAX_RESTART_RULES: usize = 20;
/// Most exit codes of one restart rule.
const MAX_EXIT_CODES: usize = 255;
const PROBES: [&str; 3] = ["livenessProbe", "readinessProbe", "startupProbe"];
const NOT_EPHEMERAL: &str = "cannot be set for an Ephemeral Container";
/// What an ephemeral container may not have.
const NOT_OF_EPHEMERAL: [&str; 9] = [
    "ports",
    "resources",
    "resizePolicy",
    "restartPolicy",
    "restartPolicyRules",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
];

/// What the rules of a container need to know of its pod.
pub(super) struct Context<'a> {
    /// The pod's volumes that are valid, by name.
    pub volumes: HashMap<&'a str, &'a Value>,
    /// Names of the pod's resource claims.
    pub claims: BTreeSet<&'a str>,
    /// The pod's spec.
    pub spec: &'a Value,
}

/// The rules of the three lists of containers of the pod spec at `field`.
pub(super) fn all(errors: &mut Vec<FieldError>, pod: &Context, field: &str) {
    let (apps, inits) = (list(pod.spec, "/containers"), list(pod.spec, "/initContainers"));
    let mut names = HashSet::new();
    let app_field = format!("{field}.containers");
    if apps.is_empty() {
        errors.push(FieldError::required(&app_field, ""));
    }
    for (i, container) in apps.iter().enumerate() {
        let field = format!("{app_field}[{i}]");
        common(errors, container, &field, pod);
        unique(errors, &mut names, container, &field);
        running(errors, container, &field, pod);
        restart_policy(errors, container, &field);
    }
    host_ports(errors, apps, &app_field, 0);
    let init_field = format!("{field}.initContainers");
    for (i, container) in inits.iter().enumerate() {
        init(errors, &mut names, container, &format!("{init_field}[{i}]"), pod);
        host_ports(errors, std::slice::from_ref(container), &init_field, i);
    }
    let others = names.clone();
    for (i, container) in list(pod.spec, "/ephemeralContainers").iter().enumerate() {
        ephemeral(errors, (&mut names, &others), container, &format!("{field}.ephemeralContainers[{i}]"), pod);
    }
}

/// What a container's image may not be in a pod, though in a template.
pub(super) fn trimmed_image(errors: &mut Vec<FieldError>, container: &Value, field: &str) {
    let image = text(container, "/image");
    if image.trim() != image {
        let message = "must not have leading or trailing whitespace";
        errors.push(FieldError::invalid(format!("{field}.image"), &json!(image), message));
    }
}

/// The rules of a `pullPolicy` or `imagePullPolicy`.
pub(super) fn pull_policy(errors: &mut Vec<FieldError>, object: &Value, field: &str, key: &str) {
    required_one_of(errors, object, field, key, &PULL_POLICIES);
}

fn unique<'a>(errors: &mut Vec<FieldError>, names: &mut HashSet<&'a str>, container: &'a Value, field: &str) {
    let name = text(container, "/name");
    if !names.insert(name) {
        errors.push(FieldError::duplicate(format!("{field}.name"), &json!(name)));
    }
}

fn common(e: &mut Vec<FieldError>, container: &Value, field: &str, pod: &Context) {
    match text(container, "/name") {
        "" => e.push(FieldError::required(format!("{field}.name"), "")),
        name => report(e, format!("{field}.name"), &json!(name), dns1123_label(name)),
    }
    if text(container, "/image").is_empty() {
        e.push(FieldError::required(format!("{field}.image"), ""));
    }
    required_one_of(e, container, field, "terminationMessagePolicy", &MESSAGE_POLICIES);
    ports(e, list(container, "/ports"), &format!("{field}.ports"));
    for (i, variable) in list(container, "/env").iter().enumerate() {
        env(e, variable, &format!("{field}.env[{i}]"));
    }
    for source in list(container, "/envFrom").iter().enumerate() {
        env_from(e, source, &format!("{field}.envFrom"));
    }
    mounts(e, container, &format!("{field}.volumeMounts"), &pod.volumes);
    devices(e, container, &format!("{field}.volumeDevices"), &pod.volumes);
    pull_policy(e, container, field, "imagePullPolicy");
    let resources = container.get("resources").unwrap_or(&Value::Null);
    pod_resources::of_container(e, resources, &format!("{field}.resources"), &pod.claims);
    let policy = text(pod.spec, "/restartPolicy");
    resize_policy(e, list(container, "/resizePolicy"), &format!("{field}.resizePolicy"), policy);
    let host_users = pod_security::host_users(pod.spec);
    pod_security::container(e, container.get("securityContext"), &format!("{field}.securityContext"), host_users);
}

fn ports(errors: &mut Vec<FieldError>, ports: &[Value], field: &str) {
    let mut names = HashSet::new();
    for (i, item) in ports.iter().enumerate() {
        let field = format!("{field}[{i}]");
        let name = text(item, "/name");
        if !name.is_empty() {
            match port_name(name) {
                Ok(()) if !names.insert(name) => {
                    errors.push(FieldError::duplicate(format!("{field}.name"), &json!(name)));
                }
                check => report(errors, format!("{field}.name"), &json!(name), check),
            }
        }
        match int(item, "/containerPort").unwrap_or(0) {
            0 => errors.push(FieldError::required(format!("{field}.containerPort"), "")),
            number => report(errors, format!("{field}.containerPort"), &json!(number), port(number)),
        }
        if let Some(number) = int(item, "/hostPort").filter(|n| *n != 0) {
            report(errors, format!("{field}.hostPort"), &json!(number), port(number));
        }
        protocol(errors, &field, item);
    }
}

/// Two of these containers may not want the same port of the node. `first` is the index of the first.
fn host_ports(errors: &mut Vec<FieldError>, containers: &[Value], field: &str, first: usize) {
    let mut taken = HashSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, item) in list(container, "/ports").iter().enumerate() {
            let Some(number) = int(item, "/hostPort").filter(|n| *n != 0) else { continue };
            let wanted = format!("{}/{}/{number}", text(item, "/protocol"), text(item, "/hostIP"));
            if taken.contains(&wanted) {
                let field = format!("{field}[{}].ports[{j}].hostPort", i + first);
                errors.push(FieldError::duplicate(field, &json!(wanted)));
            }
            taken.insert(wanted);
        }
    }
}

/// The probes and hooks of a container that goes on running.
fn running(errors: &mut Vec<FieldError>, container: &Value, field: &str, pod: &Context) {
    if has(container, "/lifecycle") {
        lifecycle(errors, container, &format!("{field}.lifecycle"), pod.spec);
    }
    for key in PROBES {
        if let Some(value) = container.get(key).filter(|v| !v.is_null()) {
            probe(errors, value, &format!("{field}.{key}"), key == "readinessProbe");
        }
    }
}

fn restart_policy(errors: &mut Vec<FieldError>, container: &Value, field: &str) {
    let rules = list(container, "/restartPolicyRules");
    if has(container, "/restartPolicy") {
        let policy = text(container, "/restartPolicy");
        if !RESTART_POLICIES.contains(&policy) {
            let field = format!("{field}.restartPolicy");
            errors.push(FieldError::not_supported(field, &json!(policy), &RESTART_POLICIES));
        }
    } else if !rules.is_empty() {
        let message = "must specify restartPolicy when restart rules are used";
        errors.push(FieldError::required(format!("{field}.restartPolicy"), message));
    }
    let field = format!("{field}.restartPolicyRules");
    if rules.len() > MAX_RESTART_RULES {
        errors.push(too_many(&field, rules.len(), MAX_RESTART_RULES));
    }
    for (i, rule) in rules.iter().enumerate() {
        let field = format!("{field}[{i}]");
        let action = text(rule, "/action");
        if action != "Restart" {
            errors.push(FieldError::not_supported(format!("{field}.action"), &json!(action), &["Restart"]));
        }
        let field = format!("{field}.exitCodes");
        if !has(rule, "/exitCodes") {
            errors.push(FieldError::required(field, "must be specified"));
            continue;
        }
        let operator = text(rule, "/exitCodes/operator");
        if !EXIT_CODE_OPERATORS.contains(&operator) {
            let field = format!("{field}.operator");
            errors.push(FieldError::not_supported(field, &json!(operator), &EXIT_CODE_OPERATORS));
        }
        let codes = list(rule, "/exitCodes/values").len();
        if codes > MAX_EXIT_CODES {
            errors.push(too_many(format!("{field}.values"), codes, MAX_EXIT_CODES));
        }
    }
}

fn init<'a>(
    errors: &mut Vec<FieldError>,
    names: &mut HashSet<&'a str>,
    container: &'a Value,
    field: &str,
    pod: &Context,
) {
    common(errors, container, field, pod);
    let sidecar = text(container, "/restartPolicy") == "Always";
    if !sidecar && has(container, "/restartPolicy") {
        restart_policy(errors, container, field);
    } else if sidecar && !list(container, "/restartPolicyRules").is_empty() {
        let message = "restartPolicyRules are not allowed for init containers with restart policy Always";
        errors.push(FieldError::forbidden(format!("{field}.restartPolicyRules"), message));
    }
    if !text(container, "/name").is_empty() {
        unique(errors, names, container, field);
    }
    if sidecar {
        running(errors, container, field, pod);
        return;
    }
    for key in ["lifecycle"].iter().chain(&PROBES) {
        if has(container, &format!("/{key}")) {
            let message = "may not be set for init containers without restartPolicy=Always";
            errors.push(FieldError::forbidden(format!("{field}.{key}"), message));
        }
    }
}

/// `names`: all that are taken, and those of containers that are not ephemeral.
fn ephemeral<'a>(
    errors: &mut Vec<FieldError>,
    (taken, others): (&mut HashSet<&'a str>, &HashSet<&'a str>),
    container: &'a Value,
    field: &str,
    pod: &Context,
) {
    common(errors, container, field, pod);
    trimmed_image(errors, container, field);
    unique(errors, taken, container, field);
    let target = text(container, "/targetContainerName");
    if !target.is_empty() && !others.contains(target) {
        errors.push(FieldError::not_found(format!("{field}.targetContainerName"), &json!(target)));
    }
    for key in NOT_OF_EPHEMERAL {
        let set = match container.get(key) {
            None | Some(Value::Null) => false,
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::Object(_)) if key == "resources" => entries(container, "/resources").any(|(_, v)| !v.is_null()),
            Some(_) => true,
        };
        if set {
            errors.push(FieldError::forbidden(format!("{field}.{key}"), NOT_EPHEMERAL));
        }
    }
    for (i, mount) in list(container, "/volumeMounts").iter().enumerate() {
        for key in ["subPath", "subPathExpr"] {
            if !text(mount, &format!("/{key}")).is_empty() {
                errors.push(FieldError::forbidden(format!("{field}.volumeMounts[{i}].{key}"), NOT_EPHEMERAL));
            }
        }
    }
}
