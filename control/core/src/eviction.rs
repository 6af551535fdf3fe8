//! What an eviction may do: which disruption budget guards a pod, and whether the budget can spare it.
//! Source: <https://kubernetes.io/docs/concepts/scheduling-eviction/api-eviction/>.

use std::collections::BTreeMap;

use copepod_api::{ApiError, GroupResource, LabelSelector};
use serde_json::{Value, json};

use crate::kinds::value::{child, entries, int, items_mut, list, set, set_default, text};

/// Evicted pods that a budget remembers until its controller has seen them go; more are refused.
pub const MAX_DISRUPTED_PODS: usize = 2000;
/// Seconds after which a client may ask again while a budget's status is behind its spec.
const RETRY_SECONDS: u32 = 10;
const VIOLATES: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
const SEVERAL: &str =
    "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";

/// What stands between a pod and its eviction.
#[derive(Debug, PartialEq)]
pub enum Verdict<'a> {
    /// Nothing: it may be deleted.
    Free,
    /// Nothing, as long as the pod stays as it was judged: a later form of it may be guarded.
    FreeAsSeen,
    /// This budget: [`spend`] asks it.
    Guarded(&'a Value),
}

/// Judges a pod by the budgets of its namespace.
///
/// # Errors
/// 500 if several budgets select the pod.
pub fn judge<'a>(pod: &Value, budgets: &'a [Value]) -> Result<Verdict<'a>, ApiError> {
    if is_going(pod) || matches!(text(pod, "/status/phase"), "Succeeded" | "Failed") {
        return Ok(Verdict::Free);
    }
    if text(pod, "/status/phase") == "Pending" {
        return Ok(Verdict::FreeAsSeen);
    }
    let labels: BTreeMap<String, String> =
        entries(pod, "/metadata/labels").filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned()))).collect();
    let mut matching = budgets.iter().filter(|budget| {
        let selector = LabelSelector::from_json(budget.pointer("/spec/selector").unwrap_or(&Value::Null));
        selector.is_ok_and(|s| s.matches(&labels))
    });
    match (matching.next(), matching.next()) {
        (None, _) => Ok(Verdict::Free),
        (Some(_), Some(_)) => Err(ApiError::new(500, "", SEVERAL)),
        (Some(budget), None) if !is_ready(pod) && spares_unhealthy(budget) => Ok(Verdict::FreeAsSeen),
        (Some(budget), None) => Ok(Verdict::Guarded(budget)),
    }
}

fn is_going(pod: &Value) -> bool {
    !text(pod, "/metadata/deletionTimestamp").is_empty()
}

fn is_ready(pod: &Value) -> bool {
    list(pod, "/status/conditions").iter().any(|c| text(c, "/type") == "Ready" && text(c, "/status") == "True")
}

/// Whether pods that are not ready may go without counting: always, or while enough others are healthy.
fn spares_unhealthy(budget: &Value) -> bool {
    let desired = count(budget, "desiredHealthy");
    text(budget, "/spec/unhealthyPodEvictionPolicy") == "AlwaysAllow"
        || (desired > 0 && count(budget, "currentHealthy") >= desired)
}

fn count(budget: &Value, field: &str) -> i64 {
    int(budget, &format!("/status/{field}")).unwrap_or(0)
}

/// The budget after it gave up one disruption for the pod.
///
/// # Errors
/// 429 if it has none to give, or if its status does not belong to its present spec; 403 if its status is unusable.
pub fn spend(budget: &Value, pod: &str, now: &str) -> Result<Value, ApiError> {
    let name = text(budget, "/metadata/name");
    let observed = count(budget, "observedGeneration");
    if observed < int(budget, "/metadata/generation").unwrap_or(0) {
        let mut e = ApiError::too_many_requests(VIOLATES, RETRY_SECONDS);
        let why = format!("The disruption budget {name} is still being processed by the server.");
        add_cause(&mut e, &why);
        return Err(e);
    }
    let allowed = count(budget, "disruptionsAllowed");
    if allowed < 0 {
        return Err(unusable(name, "pdb disruptions allowed is negative", "pdb disruptions allowed is negative"));
    }
    if entries(budget, "/status/disruptedPods").count() > MAX_DISRUPTED_PODS {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(unusable(name, why, "too many pending evictions not confirmed by PDB controller"));
    }
    if allowed == 0 {
        let mut e = ApiError::new(429, "TooManyRequests", VIOLATES);
        add_cause(&mut e, &exhausted(budget, name));
        return Err(e);
    }
    let mut spent = budget.clone();
    if let Some(status) = child(&mut spent, "status") {
        set(status, "disruptionsAllowed", allowed - 1);
        if let Some(pods) = child(status, "disruptedPods") {
            set(pods, pod, now);
        }
        if allowed == 1 {
            let condition = json!({
                "type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
                "observedGeneration": observed,
            });
            set_condition(status, condition, now);
        }
    }
    Ok(spent)
}

/// Why a budget has no disruption left. Its counts say nothing if it could not be worked out.
fn exhausted(budget: &Value, name: &str) -> String {
    let (current, desired) = (count(budget, "currentHealthy"), count(budget, "desiredHealthy"));
    let condition = list(budget, "/status/conditions").iter().find(|c| text(c, "/type") == "DisruptionAllowed");
    let told = condition
        .map(|c| (text(c, "/status"), text(c, "/reason"), text(c, "/message")))
        .filter(|(status, _, message)| *status == "False" && !message.is_empty());
    let lead = format!("The disruption budget {name}");
    match told {
        Some((_, "SyncFailed", message)) => {
            format!("{lead} does not allow evicting pods currently because it failed sync: {message}")
        }
        _ if current <= desired => format!("{lead} needs {desired} healthy pods and has {current} currently"),
        Some((_, reason, message)) => format!("{lead} does not allow evicting pods currently ({reason}): {message}"),
        None => format!("{lead} does not allow evicting pods currently"),
    }
}

/// 403 of a budget that cannot be counted on.
fn unusable(name: &str, why: &str, cause: &str) -> ApiError {
    let budgets = GroupResource { group: "policy".into(), resource: "poddisruptionbudget".into() };
    let mut e = ApiError::forbidden(&budgets, name, why);
    add_cause(&mut e, &format!("The disruption budget {name} does not allow evicting pods currently: {cause}"));
    e
}

fn add_cause(e: &mut ApiError, message: &str) {
    let details = e.details.get_or_insert_with(|| json!({}));
    set(details, "causes", json!([{"reason": "DisruptionBudget", "message": message}]));
}

/// The pod with the condition that says that it is being evicted.
pub fn evicted(pod: &Value, now: &str) -> Value {
    let mut pod = pod.clone();
    if let Some(status) = child(&mut pod, "status") {
        let condition = json!({
            "type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting",
        });
        set_condition(status, condition, now);
    }
    pod
}

/// Sets a condition; its last transition is now, unless it had this status before.
fn set_condition(status: &mut Value, mut condition: Value, now: &str) {
    set_default(status, "conditions", json!([]));
    let kind = text(&condition, "/type").to_owned();
    let standing = items_mut(status, "/conditions").find(|c| text(c, "/type") == kind);
    let since = standing.as_ref().filter(|c| c.get("status") == condition.get("status"));
    let since = since.map_or(now, |c| text(c, "/lastTransitionTime")).to_owned();
    set(&mut condition, "lastTransitionTime", since);
    match standing {
        Some(standing) => *standing = condition,
        None => {
            if let Some(all) = status.get_mut("conditions").and_then(Value::as_array_mut) {
                all.push(condition);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn pod(phase: &str, ready: &str) -> Value {
        json!({"metadata": {"name": "p", "labels": {"app": "a"}},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}})
    }

    fn budget(name: &str, selector: Value, status: Value) -> Value {
        json!({"metadata": {"name": name, "generation": 2}, "spec": {"selector": selector}, "status": status})
    }

    #[test]
    fn which_budget_guards_a_pod() {
        let app = json!({"matchLabels": {"app": "a"}});
        let one = |status| vec![budget("one", app.clone(), status)];
        let guarding = one(json!({}));
        let healthy = one(json!({"desiredHealthy": 1, "currentHealthy": 1}));
        let short = one(json!({"desiredHealthy": 2, "currentHealthy": 1}));
        let mut lenient = short.clone();
        lenient[0]["spec"]["unhealthyPodEvictionPolicy"] = json!("AlwaysAllow");
        let two = [one(json!({})), vec![budget("all", json!({}), json!({}))]].concat();
        let others = vec![
            budget("other", json!({"matchLabels": {"app": "b"}}), json!({})),
            budget("unset", Value::Null, json!({})),
            budget("wrong", json!({"matchExpressions": [{"key": "app", "operator": "Odd"}]}), json!({})),
        ];
        let mut going = pod("Running", "True");
        going["metadata"]["deletionTimestamp"] = json!(NOW);
        for (what, pod, budgets, expected) in [
            ("no budget", pod("Running", "True"), &vec![], "free"),
            ("budgets of others", pod("Running", "True"), &others, "free"),
            ("a budget", pod("Running", "True"), &guarding, "guarded by one"),
            ("two budgets", pod("Running", "True"), &two, "500"),
            ("ended", pod("Succeeded", "False"), &two, "free"),
            ("failed", pod("Failed", "False"), &two, "free"),
            ("pending", pod("Pending", "False"), &two, "free as seen"),
            ("being deleted", going, &two, "free"),
            ("not ready, others are", pod("Running", "False"), &healthy, "free as seen"),
            ("not ready, too few are", pod("Running", "False"), &short, "guarded by one"),
            ("not ready, none is wanted", pod("Running", "False"), &guarding, "guarded by one"),
            ("not ready, always allowed", pod("Running", "False"), &lenient, "free as seen"),
            ("ready, always allowed for others", pod("Running", "True"), &lenient, "guarded by one"),
        ] {
            let verdict = match judge(&pod, budgets) {
                Ok(Verdict::Free) => "free".to_owned(),
                Ok(Verdict::FreeAsSeen) => "free as seen".to_owned(),
                Ok(Verdict::Guarded(budget)) => format!("guarded by {}", text(budget, "/metadata/name")),
                Err(e) => e.code.to_string(),
            };
            assert_eq!(verdict, expected, "{what}");
        }
    }

    #[test]
    fn a_budget_spends_what_it_has() {
        let status =
            json!({"observedGeneration": 2, "disruptionsAllowed": 2, "currentHealthy": 3, "desiredHealthy": 1});
        let once = spend(&budget("b", json!({}), status), "p", NOW).unwrap();
        assert_eq!(once["status"]["disruptionsAllowed"], 1);
        assert_eq!(once["status"]["disruptedPods"], json!({"p": NOW}));
        assert!(once["status"].get("conditions").is_none());
        let later = "2026-01-01T00:01:00Z";
        let twice = spend(&once, "q", later).unwrap();
        assert_eq!(twice["status"]["disruptionsAllowed"], 0);
        assert_eq!(twice["status"]["disruptedPods"], json!({"p": NOW, "q": later}));
        assert_eq!(
            twice["status"]["conditions"],
            json!([{"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods", "message": "",
                "observedGeneration": 2, "lastTransitionTime": later}])
        );
    }

    #[test]
    fn a_budget_says_why_it_refuses() {
        let many: serde_json::Map<String, Value> =
            (0..=MAX_DISRUPTED_PODS).map(|n| (format!("p{n}"), json!(NOW))).collect();
        let told = |reason: &str| json!([{"type": "DisruptionAllowed", "status": "False", "reason": reason, "message": "why"}]);
        let lead = "The disruption budget b";
        for (status, code, retry, cause) in [
            (json!({"disruptionsAllowed": 5}), 429, Some(10), "is still being processed by the server."),
            (
                json!({"observedGeneration": 2, "desiredHealthy": 3, "currentHealthy": 2}),
                429,
                None,
                "needs 3 healthy pods and has 2 currently",
            ),
            (
                json!({"observedGeneration": 2, "conditions": told("SyncFailed")}),
                429,
                None,
                "does not allow evicting pods currently because it failed sync: why",
            ),
            (
                json!({"observedGeneration": 2, "desiredHealthy": 1, "currentHealthy": 2, "conditions": told("Odd")}),
                429,
                None,
                "does not allow evicting pods currently (Odd): why",
            ),
            (
                json!({"observedGeneration": 2, "desiredHealthy": 1, "currentHealthy": 2}),
                429,
                None,
                "does not allow evicting pods currently",
            ),
            (
                json!({"observedGeneration": 2, "disruptionsAllowed": -1}),
                403,
                None,
                "does not allow evicting pods currently: pdb disruptions allowed is negative",
            ),
            (
                json!({"observedGeneration": 2, "disruptionsAllowed": 1, "disruptedPods": many}),
                403,
                None,
                "does not allow evicting pods currently: too many pending evictions not confirmed by PDB controller",
            ),
        ] {
            let e = spend(&budget("b", json!({}), status), "p", NOW).unwrap_err();
            let details = e.details.unwrap_or_default();
            assert_eq!(e.code, code, "{cause}");
            assert_eq!(details.get("retryAfterSeconds").and_then(Value::as_u64), retry, "{cause}");
            let expected = json!([{"reason": "DisruptionBudget", "message": format!("{lead} {cause}")}]);
            assert_eq!(details["causes"], expected);
        }
    }

    #[test]
    fn an_evicted_pod_says_so() {
        let marked = evicted(&pod("Running", "True"), NOW);
        let expected = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting", "lastTransitionTime": NOW});
        assert_eq!(marked["status"]["conditions"][1], expected);
        assert_eq!(evicted(&marked, "2026-01-01T00:01:00Z"), marked);
    }
}
