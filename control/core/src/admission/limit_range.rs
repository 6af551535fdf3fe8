//! LimitRanges: defaults for containers, and bounds for containers, pods and claims.
//! Source: <https://kubernetes.io/docs/concepts/policy/limit-range/>.

use copepod_api::Quantity;
use serde_json::{Value, json};

use super::amounts::{self, Amounts, Ask};
use crate::kinds::value::{child, items_mut, list, set, text};

/// Says on a pod what was filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Fills in what a new pod's containers leave out, and notes it.
pub fn fill(range: &Value, pod: &mut Value) {
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    for limit in of_type(range, "Container") {
        requests.extend(amounts::at(limit, "/defaultRequest"));
        limits.extend(amounts::at(limit, "/default"));
    }
    let mut notes = Vec::new();
    for (field, kind) in [("/spec/containers", "container"), ("/spec/initContainers", "init container")] {
        for container in items_mut(pod, field) {
            let name = text(container, "/name").to_string();
            for (ask, defaults, word) in [("requests", &requests, "request"), ("limits", &limits, "limit")] {
                let filled = fill_in(container, ask, defaults);
                if !filled.is_empty() {
                    notes.push(format!("{} {word} for {kind} {name}", filled.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty()
        && let Some(annotations) = child(pod, "metadata").and_then(|meta| child(meta, "annotations"))
    {
        set(annotations, ANNOTATION, format!("LimitRanger plugin set: {}", notes.join("; ")));
    }
}

fn fill_in(container: &mut Value, ask: &str, defaults: &Amounts) -> Vec<String> {
    if defaults.is_empty() {
        return Vec::new();
    }
    let Some(given) = child(container, "resources").and_then(|r| child(r, ask)) else { return Vec::new() };
    let missing: Vec<&String> = defaults.keys().filter(|name| given.get(name.as_str()).is_none()).collect();
    for (name, amount) in defaults.iter().filter(|(name, _)| missing.contains(name)) {
        set(given, name, json!(amount.to_string()));
    }
    missing.into_iter().cloned().collect()
}

/// Checks a pod against a LimitRange.
///
/// # Errors
/// What is beyond its bounds, as one message.
pub fn check_pod(range: &Value, pod: &Value) -> Result<(), String> {
    let mut errors = Vec::new();
    for limit in of_type(range, "Container") {
        for container in list(pod, "/spec/containers").iter().chain(list(pod, "/spec/initContainers")) {
            bounds(&mut errors, limit, &Ask::Requests.of(container), &Ask::Limits.of(container));
        }
    }
    for limit in of_type(range, "Pod") {
        let (requests, limits) = (amounts::of_pod(pod, Ask::Requests), amounts::of_pod(pod, Ask::Limits));
        bounds(&mut errors, limit, &requests, &limits);
    }
    aggregate(errors)
}

/// Checks a claim against a LimitRange: only what it requests counts.
///
/// # Errors
/// What is beyond its bounds, as one message.
pub fn check_claim(range: &Value, claim: &Value) -> Result<(), String> {
    let requests = claim.get("spec").map(|spec| Ask::Requests.of(spec)).unwrap_or_default();
    let mut errors = Vec::new();
    for limit in of_type(range, "PersistentVolumeClaim") {
        let kind = text(limit, "/type");
        for (name, min) in amounts::at(limit, "/min") {
            errors.extend(below(kind, &name, min, &requests, &Amounts::new()));
        }
        for (name, max) in amounts::at(limit, "/max") {
            let bound = format!("maximum {name} usage per {kind} is {max}");
            match requests.get(&name) {
                None => errors.push(format!("{bound}.  No request is specified")),
                Some(request) if *request > max => errors.push(format!("{bound}, but request is {request}")),
                Some(_) => {}
            }
        }
    }
    aggregate(errors)
}

fn of_type<'a>(range: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    list(range, "/spec/limits").iter().filter(move |limit| text(limit, "/type") == kind)
}

fn bounds(errors: &mut Vec<String>, limit: &Value, requests: &Amounts, limits: &Amounts) {
    let kind = text(limit, "/type");
    for (name, min) in amounts::at(limit, "/min") {
        errors.extend(below(kind, &name, min, requests, limits));
    }
    for (name, max) in amounts::at(limit, "/max") {
        errors.extend(above(kind, &name, max, requests, limits));
    }
    for (name, ratio) in amounts::at(limit, "/maxLimitRequestRatio") {
        errors.extend(beyond_ratio(kind, &name, ratio, requests, limits));
    }
}

fn below(kind: &str, name: &str, min: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let bound = format!("minimum {name} usage per {kind} is {min}");
    match (requests.get(name), limits.get(name)) {
        (None, _) => Some(format!("{bound}.  No request is specified")),
        (Some(request), _) if *request < min => Some(format!("{bound}, but request is {request}")),
        (_, Some(limit)) if *limit < min => Some(format!("{bound}, but limit is {limit}")),
        _ => None,
    }
}

fn above(kind: &str, name: &str, max: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let bound = format!("maximum {name} usage per {kind} is {max}");
    match (limits.get(name), requests.get(name)) {
        (None, _) => Some(format!("{bound}.  No limit is specified")),
        (Some(limit), _) if *limit > max => Some(format!("{bound}, but limit is {limit}")),
        (_, Some(request)) if *request > max => Some(format!("{bound}, but request is {request}")),
        _ => None,
    }
}

fn beyond_ratio(kind: &str, name: &str, most: Quantity, requests: &Amounts, limits: &Amounts) -> Option<String> {
    let bound = format!("{name} max limit to request ratio per {kind} is {most}, but");
    let given = |amounts: &Amounts| amounts.get(name).copied().filter(|q| !q.is_zero());
    let Some(request) = given(requests) else {
        return Some(format!("{bound} no request is specified or request is 0"));
    };
    let Some(limit) = given(limits) else {
        return Some(format!("{bound} no limit is specified or limit is 0"));
    };
    let ratio = approximate(limit) / approximate(request);
    (ratio > approximate(most)).then(|| format!("{bound} provided ratio is {ratio:.6}"))
}

#[allow(clippy::cast_precision_loss, reason = "a ratio is shown and compared to six digits")]
fn approximate(quantity: Quantity) -> f64 {
    match quantity.milli() {
        i64::MAX => quantity.value() as f64,
        milli => milli as f64 / 1000.0,
    }
}

/// One message of several, as upstream joins them: each once.
fn aggregate(mut errors: Vec<String>) -> Result<(), String> {
    let mut seen = std::collections::BTreeSet::new();
    errors.retain(|e| seen.insert(e.clone()));
    match errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}
