//! ResourceQuota, LimitRange, PodDisruptionBudget, PriorityClass, RuntimeClass.

use super::columns::row;
use super::updates::{update, with};
use super::validation::check;
use super::*;

#[test]
fn resource_quotas() {
    let check = |spec: Value, expected: &[&str]| check("v1", "ResourceQuota", json!({"spec": spec}), expected);
    check(
        json!({"hard": {"pods": "3", "cpu": "1500m", "count/jobs.batch": "2", "requests.example.com/gpu": "1"}}),
        &[],
    );
    check(
        json!({"hard": {"flowers": "3"}}),
        &["spec.hard[flowers]: Invalid value: \"flowers\": must be a standard resource for quota"],
    );
    check(
        json!({"hard": {"pods": "500m", "cpu": "-1"}}),
        &[
            "spec.hard[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
            "spec.hard[pods]: Invalid value: \"500m\": must be an integer",
        ],
    );
    check(json!({"hard": {"pods": "1"}, "scopes": ["BestEffort"]}), &[]);
    check(
        json!({"hard": {"cpu": "1"}, "scopes": ["BestEffort"]}),
        &["spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"],
    );
    check(json!({"scopes": ["x"]}), &["spec.scopes: Invalid value: [\"x\"]: unsupported scope"]);
    check(
        json!({"scopes": ["Terminating", "NotTerminating"]}),
        &["spec.scopes: Invalid value: [\"Terminating\",\"NotTerminating\"]: conflicting scopes"],
    );
    let selector = |requirement: Value| json!({"scopeSelector": {"matchExpressions": [requirement]}});
    let at = "spec.scopeSelector.matchExpressions[0]";
    for (requirement, expected) in [
        (json!({"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}), String::new()),
        (json!({"scopeName": "PriorityClass", "operator": "In"}), format!("{at}.values: Required value")),
        (json!({"scopeName": "x", "operator": "Exists"}), format!("{at}.scopeName: Invalid value: \"x\"")),
        (
            json!({"scopeName": "PriorityClass", "operator": "x"}),
            format!("{at}.operator: Invalid value: \"x\": not a valid selector operator"),
        ),
        (
            json!({"scopeName": "Terminating", "operator": "DoesNotExist"}),
            format!("{at}.operator: Invalid value: \"DoesNotExist\": must be 'Exist' when scope is any of"),
        ),
    ] {
        let expected: Vec<&str> = Some(expected.as_str()).filter(|e| !e.is_empty()).into_iter().collect();
        check(selector(requirement), &expected);
    }
    let old = json!({"spec": {"scopes": ["BestEffort"]}});
    let new = with(&old, "/spec/scopes", json!(["Terminating"]));
    let immutable = "spec.scopes: Invalid value: [\"Terminating\"]: field is immutable";
    update(&kind("v1", "ResourceQuota"), &old, new, &[immutable]);
    let status = json!({"hard": {"pods": "3", "limits.cpu": "2", "cpu": "1"}, "used": {"pods": "1"}});
    row("v1", "ResourceQuota", json!({"status": status}), &["a", "cpu: 0/1, pods: 1/3", "limits.cpu: 0/2", "60s"]);
}

#[test]
fn limit_ranges() {
    let range = |limit: Value| json!({"spec": {"limits": [limit]}});
    let object =
        range(json!({"type": "Container", "max": {"cpu": "2", "memory": "1Gi"}, "min": {"cpu": "1", "x/y": "1"},
        "default": {"memory": "512Mi"}}));
    assert_eq!(
        defaulted(&kind("v1", "LimitRange"), object)["spec"]["limits"][0],
        json!({"type": "Container", "max": {"cpu": "2", "memory": "1Gi"}, "min": {"cpu": "1", "x/y": "1"},
            "default": {"memory": "512Mi", "cpu": "2"},
            "defaultRequest": {"memory": "512Mi", "cpu": "2", "x/y": "1"}})
    );
    let at = "spec.limits[0]";
    for (limit, expected) in [
        (json!({"type": "Pod", "max": {"cpu": "2"}, "min": {"cpu": "1"}}), vec![]),
        (
            json!({"type": "Pod", "default": {"cpu": "2"}}),
            vec![format!("{at}.default: Forbidden: may not be specified when `type` is 'Pod'")],
        ),
        (
            json!({"type": "PersistentVolumeClaim"}),
            vec![format!("{at}.limits: Required value: either minimum or maximum storage value is required")],
        ),
        (
            json!({"type": "Pod", "max": {"cpu": "1"}, "min": {"cpu": "2"}}),
            vec![format!("{at}.min[cpu]: Invalid value: \"2\": min value 2 is greater than max value 1")],
        ),
        (
            json!({"type": "x", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "2"}}),
            vec![format!(
                "{at}.defaultRequest[cpu]: Invalid value: \"2\": default request value 2 is greater than default"
            )],
        ),
        (
            json!({"type": "Pod", "max": {"cpu": "4"}, "min": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "5"}}),
            vec![format!(
                "{at}.maxLimitRequestRatio[cpu]: Invalid value: \"5\": ratio 5 is greater than max/min = 4.000000"
            )],
        ),
        (
            json!({"type": "Pod", "maxLimitRequestRatio": {"cpu": "500m"}}),
            vec![format!("{at}.maxLimitRequestRatio[cpu]: Invalid value: \"500m\": ratio 500m is less than 1")],
        ),
    ] {
        check("v1", "LimitRange", range(limit), &expected.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let twice = json!({"spec": {"limits": [{"type": "Pod"}, {"type": "Pod"}]}});
    check("v1", "LimitRange", twice, &["spec.limits[1].type: Duplicate value: \"Pod\""]);
    row("v1", "LimitRange", json!({}), &["a", "1970-01-01T00:00:40Z"]);
}

#[test]
fn disruption_budgets() {
    const GROUP: &str = "policy/v1";
    let budget = |spec: Value, expected: &[&str]| check(GROUP, "PodDisruptionBudget", json!({"spec": spec}), expected);
    budget(json!({"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}}), &[]);
    budget(json!({}), &[]);
    let both =
        "spec: Invalid value: {\"maxUnavailable\":1,\"minAvailable\":1}: minAvailable and maxUnavailable cannot be";
    budget(json!({"maxUnavailable": 1, "minAvailable": 1}), &[both]);
    budget(json!({"minAvailable": -1}), &["spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"]);
    budget(json!({"maxUnavailable": "101%"}), &["spec.maxUnavailable: Invalid value: \"101%\": must not be greater"]);
    budget(json!({"unhealthyPodEvictionPolicy": "x"}), &["spec.unhealthyPodEvictionPolicy: Unsupported value: \"x\""]);
    let resource = kind(GROUP, "PodDisruptionBudget");
    let mut object = json!({"spec": {"minAvailable": 2}});
    resource.strategy.prepare_create(&mut object);
    let zero = json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0});
    assert_eq!(object["status"], zero);
    object["status"]["disruptionsAllowed"] = json!(1);
    row(GROUP, "PodDisruptionBudget", object, &["a", "2", "N/A", "1", "60s"]);
    row(GROUP, "PodDisruptionBudget", json!({"spec": {"maxUnavailable": "30%"}}), &["a", "N/A", "30%", "0", "60s"]);
}

#[test]
fn priority_classes() {
    const GROUP: &str = "scheduling.k8s.io/v1";
    let resource = kind(GROUP, "PriorityClass");
    let class = |name: &str, value: i64| json!({"metadata": {"name": name}, "value": value});
    assert_eq!(defaulted(&resource, class("a", 1))["preemptionPolicy"], "PreemptLowerPriority");
    for (object, expected) in [
        (class("high", 1_000_000_000), ""),
        (class("low", -5), ""),
        (class("system-node-critical", 2_000_001_000), ""),
        (
            class("high", 1_000_000_001),
            "value: Forbidden: maximum allowed value of a user defined priority is 1000000000",
        ),
        (
            class("system-mine", 1),
            "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. \
             error: system-mine is not a known system priority class",
        ),
        (
            class("system-node-critical", 1),
            "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. \
             error: value of system-node-critical PriorityClass must be 2000001000",
        ),
    ] {
        let expected: &[&str] = if expected.is_empty() { &[] } else { &[expected] };
        check(GROUP, "PriorityClass", object, expected);
    }
    for (name, value, description) in priority_class::SYSTEM {
        assert!(resource.strategy.validate(&class(name, value)).is_empty() && !description.is_empty());
    }
    let old = defaulted(&resource, class("a", 1));
    update(&resource, &old, with(&old, "/value", json!(2)), &["value: Forbidden: may not be changed in an update."]);
    let never = with(&old, "/preemptionPolicy", json!("Never"));
    update(&resource, &old, never.clone(), &["preemptionPolicy: Invalid value: \"Never\": field is immutable"]);
    assert!(!resource.strategy.bumps_generation(&never, &old));
    row(GROUP, "PriorityClass", old, &["a", "1", "false", "60s", "PreemptLowerPriority"]);
}

#[test]
fn runtime_classes() {
    const GROUP: &str = "node.k8s.io/v1";
    let class = |handler: &str| {
        json!({"handler": handler, "overhead": {"podFixed": {"cpu": "10m"}},
        "scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}]}})
    };
    check(GROUP, "RuntimeClass", class("wasm"), &[]);
    check(GROUP, "RuntimeClass", class("No"), &["handler: Invalid value: \"No\": a lowercase RFC 1123 label"]);
    let negative = with(&class("wasm"), "/overhead/podFixed/cpu", json!("-1"));
    check(GROUP, "RuntimeClass", negative, &["overhead.podFixed[cpu]: Invalid value: \"-1\": must be greater"]);
    let bad = with(&class("wasm"), "/scheduling/tolerations/0/operator", json!("x"));
    check(
        GROUP,
        "RuntimeClass",
        bad,
        &[
            "scheduling.tolerations[0].operator: Invalid value: \"x\"",
            "scheduling.tolerations[0].operator: Unsupported",
        ],
    );
    let resource = kind(GROUP, "RuntimeClass");
    let other = "handler: Invalid value: \"other\": field is immutable";
    update(&resource, &class("wasm"), class("other"), &[other]);
    row(GROUP, "RuntimeClass", class("wasm"), &["a", "wasm", "60s"]);
}
