//! Rules of what containers and pods ask for: resources, claims, and how they are resized.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use copepod_api::{FieldError, Quantity};
use serde_json::{Value, json};

use super::value::{entries, has, list, text};
use crate::validate::{NON_NEGATIVE, dns1123_label, qualified_name, quantity, report};

const CONTAINER_RESOURCES: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];
/// Names without a domain that quotas, limits or volumes have, but containers have not; the first are counts.
const COUNTS: [&str; 9] = [
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "services.nodeports",
    "services.loadbalancers",
];
const OTHER_RESOURCES: [&str; 8] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "storage",
];
const HUGE_PAGES: &str = "hugepages-";
const POD_RESOURCES: [&str; 3] = ["cpu", HUGE_PAGES, "memory"];
const RESIZED: [&str; 2] = ["cpu", "memory"];
const RESIZE_POLICIES: [&str; 2] = ["NotRequired", "RestartContainer"];
/// Thousandths of a unit in a unit.
const MILLI: i64 = 1000;

type Rule = fn(&mut Vec<FieldError>, &str, &str);

/// The rules of a container's `resources` at `field`; `claims` are the names of its pod's.
pub(super) fn of_container(errors: &mut Vec<FieldError>, resources: &Value, field: &str, claims: &BTreeSet<&str>) {
    requirements(errors, resources, field, container_resource, claims);
}

/// The rules of a pod's own `resources` and `overhead`; its spec stands at `field`.
pub(super) fn of_pod(errors: &mut Vec<FieldError>, spec: &Value, field: &str, claims: &BTreeSet<&str>) {
    let Some(resources) = spec.get("resources").filter(|r| !r.is_null()) else { return };
    let field = format!("{field}.resources");
    if text(spec, "/os/name") == "windows" {
        errors.push(FieldError::forbidden(field, "may not be set for a windows pod"));
        return;
    }
    if has(resources, "/claims") {
        let message = "claims may not be set for Resources at pod-level";
        errors.push(FieldError::forbidden(format!("{field}.claims"), message));
    }
    requirements(errors, resources, &field, pod_resource, claims);
    consistent(errors, spec, resources, &field);
}

/// The rules of a pod's `overhead`.
pub(super) fn overhead(errors: &mut Vec<FieldError>, spec: &Value, field: &str) {
    if let Some(overhead) = spec.get("overhead").filter(|o| !o.is_null()) {
        of_container(errors, &json!({"limits": overhead}), &format!("{field}.overhead"), &BTreeSet::new());
    }
}

/// The rules of a container's `resizePolicy`; `pod_policy` is the pod's restart policy.
pub(super) fn resize_policy(errors: &mut Vec<FieldError>, policies: &[Value], field: &str, pod_policy: &str) {
    let mut seen = HashSet::new();
    for (i, item) in policies.iter().enumerate() {
        let (name, policy) = (text(item, "/resourceName"), text(item, "/restartPolicy"));
        if !seen.insert(name) {
            errors.push(FieldError::duplicate(format!("{field}[{i}]"), &json!(name)));
        }
        for (value, valid) in [(name, &RESIZED), (policy, &RESIZE_POLICIES)] {
            if value.is_empty() {
                errors.push(FieldError::required(field, ""));
            } else if !valid.contains(&value) {
                errors.push(FieldError::not_supported(field, &json!(value), valid));
            }
        }
        if pod_policy == "Never" && policy != "NotRequired" {
            let message = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.push(FieldError::invalid(field, &json!(policy), message));
        }
    }
}

fn requirements(errors: &mut Vec<FieldError>, resources: &Value, field: &str, rule: Rule, claims: &BTreeSet<&str>) {
    let limits = format!("{field}.limits");
    for (name, value) in entries(resources, "/limits") {
        amount(errors, name, value, &format!("{limits}[{name}]"), rule);
    }
    for (name, value) in entries(resources, "/requests") {
        amount(errors, name, value, &format!("{field}.requests[{name}]"), rule);
        let limit = resources.get("limits").and_then(|l| l.get(name));
        let overcommit = is_native(name) && !name.starts_with(HUGE_PAGES);
        match (limit.map(quantity), quantity(value)) {
            (None, _) if !overcommit => {
                errors.push(FieldError::required(&limits, "Limit must be set for non overcommitable resources"));
            }
            (Some(Ok(limit)), Ok(request)) if request > limit || request != limit && !overcommit => {
                let relation = if overcommit { "less than or equal to" } else { "equal to" };
                let message = format!("must be {relation} {name} limit of {limit}");
                let value = json!(request.to_string());
                errors.push(FieldError::invalid(format!("{field}.requests"), &value, &message));
            }
            _ => {}
        }
    }
    let any = |wanted: fn(&str) -> bool| {
        ["/limits", "/requests"].iter().any(|kind| entries(resources, kind).any(|(name, _)| wanted(name)))
    };
    if any(|name| name.starts_with(HUGE_PAGES)) && !any(|name| name == "cpu" || name == "memory") {
        errors.push(FieldError::forbidden(field, "HugePages require cpu or memory"));
    }
    claim_names(errors, list(resources, "/claims"), &format!("{field}.claims"), claims);
}

fn amount(errors: &mut Vec<FieldError>, name: &str, value: &Value, field: &str, rule: Rule) {
    rule(errors, name, field);
    let amount = match quantity(value) {
        Ok(amount) => amount,
        Err(message) => {
            errors.push(FieldError::invalid(field, value, &message));
            return;
        }
    };
    let shown = json!(amount.to_string());
    if amount.is_negative() {
        errors.push(FieldError::invalid(field, &shown, NON_NEGATIVE));
    }
    if is_whole(name) && amount.milli() % MILLI != 0 {
        errors.push(FieldError::invalid(field, &shown, "must be an integer"));
    }
    if let Some(size) = name.strip_prefix(HUGE_PAGES) {
        let size = Quantity::parse(size).ok().filter(|s| s.value() > 0 && s.milli() % MILLI == 0);
        if size.is_none_or(|size| amount.value() % size.value() != 0) {
            let message = format!("{amount} is not positive integer multiple of {name}");
            errors.push(FieldError::invalid(field, &shown, &message));
        }
    }
}

/// Whether a quantity of this resource must be a whole number.
pub(super) fn is_whole(name: &str) -> bool {
    COUNTS.contains(&name) || is_extended(name)
}

/// Whether the resource is one of Kubernetes itself.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Whether the resource is someone else's, such as `example.com/gpu`.
fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && qualified_name(&format!("requests.{name}")).is_ok()
}

fn any_resource(errors: &mut Vec<FieldError>, name: &str, field: &str) -> bool {
    let check = qualified_name(name).and_then(|()| {
        let standard = CONTAINER_RESOURCES.contains(&name)
            || COUNTS.contains(&name)
            || OTHER_RESOURCES.contains(&name)
            || name.starts_with(HUGE_PAGES)
            || name.starts_with("requests.hugepages-");
        let known = name.contains('/') || standard;
        if known { Ok(()) } else { Err("must be a standard resource type or fully qualified".into()) }
    });
    let holds = check.is_ok();
    report(errors, field, &json!(name), check);
    holds
}

fn container_resource(errors: &mut Vec<FieldError>, name: &str, field: &str) {
    any_resource(errors, name, field);
    let message = if !name.contains('/') && !CONTAINER_RESOURCES.contains(&name) && !name.starts_with(HUGE_PAGES) {
        "must be a standard resource for containers"
    } else if !is_native(name) && !is_extended(name) {
        "doesn't follow extended resource name standard"
    } else {
        return;
    };
    errors.push(FieldError::invalid(field, &json!(name), message));
}

fn pod_resource(errors: &mut Vec<FieldError>, name: &str, field: &str) {
    if any_resource(errors, name, field) && !RESIZED.contains(&name) && !name.starts_with(HUGE_PAGES) {
        errors.push(FieldError::not_supported(field, &json!(name), &POD_RESOURCES));
    }
}

fn claim_names(errors: &mut Vec<FieldError>, claims: &[Value], field: &str, known: &BTreeSet<&str>) {
    let mut seen: BTreeSet<(&str, &str)> = BTreeSet::new();
    for (i, claim) in claims.iter().enumerate() {
        let field = format!("{field}[{i}]");
        let (name, request) = (text(claim, "/name"), text(claim, "/request"));
        if name.is_empty() {
            errors.push(FieldError::required(field, ""));
            continue;
        }
        if seen.contains(&(name, "")) || request.is_empty() && seen.iter().any(|(n, _)| *n == name) {
            errors.push(FieldError::duplicate(&field, &json!(name)));
        } else if seen.contains(&(name, request)) {
            errors.push(FieldError::duplicate(&field, &json!(format!("{name}/{request}"))));
        } else if !request.is_empty() {
            report(errors, format!("{field}.request"), &json!(request), dns1123_label(request));
        }
        seen.insert((name, request));
        if !known.contains(name) {
            let mut error = FieldError::not_found(field, &json!(name));
            let all = known.iter().copied().collect::<Vec<_>>().join(", ");
            error.message.push_str(": must be one of the names in pod.spec.resourceClaims");
            error.message.push_str(&if all.is_empty() { " which is empty".to_string() } else { format!(": {all}") });
            errors.push(error);
        }
    }
}

/// What the containers ask for together must fit into what the pod asks for, and so must each one's limit.
fn consistent(errors: &mut Vec<FieldError>, spec: &Value, resources: &Value, field: &str) {
    let of_pod = |kind: &str, name: &str| quantity(resources.get(kind)?.get(name)?).ok();
    for (kind, huge_only) in [("requests", false), ("limits", true)] {
        for (name, sum) in together(spec, kind) {
            let Some(whole) = of_pod(kind, name).filter(|w| sum > *w) else { continue };
            if !huge_only || name.starts_with(HUGE_PAGES) {
                let message = format!("must be greater than or equal to aggregate container {kind} of {sum}");
                let value = json!(whole.to_string());
                errors.push(FieldError::invalid(format!("{field}.{kind}[{name}]"), &value, &message));
            }
        }
    }
    for (i, container) in list(spec, "/containers").iter().enumerate() {
        for (name, value) in entries(container, "/resources/limits") {
            let (Some(whole), Ok(limit)) = (of_pod("limits", name), quantity(value)) else { continue };
            if limit > whole {
                let field = format!("{field}.containers[{i}][{name}].limits");
                let message = format!("must be less than or equal to pod limits of {whole}");
                errors.push(FieldError::invalid(field, &json!(limit.to_string()), &message));
            }
        }
    }
}

/// What the containers of a pod ask for together: those that run side by side in sum, or what one that prepares the
/// pod asks for beside the sidecars that then run, if that is more.
fn together<'a>(spec: &'a Value, kind: &str) -> BTreeMap<&'a str, Quantity> {
    let pointer = format!("/resources/{kind}");
    let amounts = |c: &'a Value| {
        entries(c, &pointer).filter_map(|(name, v)| Some((name.as_str(), quantity(v).ok()?))).collect::<Vec<_>>()
    };
    let add = |sum: &mut BTreeMap<&'a str, Quantity>, c: &'a Value| {
        amounts(c).into_iter().for_each(|(name, amount)| *sum.entry(name).or_default() += amount);
    };
    let (mut sum, mut sidecars, mut most) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    list(spec, "/containers").iter().for_each(|c| add(&mut sum, c));
    for container in list(spec, "/initContainers") {
        let mut now = sidecars.clone();
        add(&mut now, container);
        if text(container, "/restartPolicy") == "Always" {
            add(&mut sum, container);
            sidecars.clone_from(&now);
        }
        for (name, amount) in now {
            let most = most.entry(name).or_insert(amount);
            *most = amount.max(*most);
        }
    }
    for (name, amount) in most {
        let sum = sum.entry(name).or_default();
        *sum = amount.max(*sum);
    }
    sum
}
