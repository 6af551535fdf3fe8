//! HorizontalPodAutoscaler in both versions.

use super::columns::row;
use super::validation::check;
use super::*;

const V2: &str = "autoscaling/v2";
const KIND: &str = "HorizontalPodAutoscaler";

fn autoscaler(fields: Value) -> Value {
    let mut object = json!({"metadata": {"name": "a"}, "spec": {"maxReplicas": 5,
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}});
    for (key, value) in fields.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

fn cpu(percent: i64) -> Value {
    json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": percent}}})
}

#[test]
fn defaults() {
    let resource = kind(V2, KIND);
    let object =
        defaulted(&resource, autoscaler(json!({"behavior": {"scaleDown": {"stabilizationWindowSeconds": 60}}})));
    assert_eq!(object["spec"]["minReplicas"], 1);
    assert_eq!(object["spec"]["metrics"], json!([cpu(80)]));
    assert_eq!(
        object["spec"]["behavior"],
        json!({
            "scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": [
                {"type": "Pods", "value": 4, "periodSeconds": 15}, {"type": "Percent", "value": 100, "periodSeconds": 15}]},
            "scaleDown": {"stabilizationWindowSeconds": 60, "selectPolicy": "Max", "policies": [
                {"type": "Percent", "value": 100, "periodSeconds": 15}]}})
    );
    assert_eq!(defaulted(&resource, autoscaler(json!({})))["spec"].get("behavior"), None);
}

#[test]
fn rules() {
    let metric = |metric: Value| json!({"metrics": [metric]});
    let pods = |target: Value| metric(json!({"type": "Pods", "pods": {"metric": {"name": "m"}, "target": target}}));
    for (fields, expected) in [
        (json!({}), vec![]),
        (json!({"minReplicas": 0}), vec!["spec.minReplicas: Invalid value: 0: must be greater than or equal to 1"]),
        (
            json!({"minReplicas": 6}),
            vec!["spec.maxReplicas: Invalid value: 5: must be greater than or equal to `minReplicas`"],
        ),
        (
            json!({"scaleTargetRef": {"name": "a/b"}}),
            vec![
                "spec.scaleTargetRef.kind: Required value",
                "spec.scaleTargetRef.name: Invalid value: \"a/b\": may not contain '/'",
            ],
        ),
        (
            metric(json!({"type": "Odd"})),
            vec![
                "spec.metrics[0].type: Unsupported value: \"Odd\": supported values: \"ContainerResource\", \"External\"",
            ],
        ),
        (
            metric(json!({"type": "Pods"})),
            vec!["spec.metrics[0].pods: Required value: must populate information for the given metric source"],
        ),
        (
            metric(json!({"type": "Resource", "resource": cpu(1)["resource"], "pods": {}})),
            vec!["spec.metrics[0].pods: Forbidden: must populate the given metric source only"],
        ),
        (
            pods(json!({"type": "AverageValue"})),
            vec![
                "spec.metrics[0].pods.target.averageValue: Required value: must specify a positive target averageValue",
            ],
        ),
        (
            pods(json!({"type": "x", "averageValue": "0"})),
            vec![
                "spec.metrics[0].pods.target.type: Invalid value: \"x\": must be either Utilization, Value, or AverageValue",
                "spec.metrics[0].pods.target.averageValue: Invalid value: \"0\": must be positive",
            ],
        ),
        (
            metric(cpu(0)),
            vec!["spec.metrics[0].resource.target.averageUtilization: Invalid value: 0: must be greater than 0"],
        ),
        (
            json!({"behavior": {"scaleUp": {"stabilizationWindowSeconds": 3601, "policies": []}}}),
            vec![
                "spec.behavior.scaleUp.stabilizationWindowSeconds: Invalid value: 3601: must be less than or equal to 3600",
                "spec.behavior.scaleUp.policies: Required value: must specify at least one Policy",
            ],
        ),
        (
            json!({"behavior": {"scaleDown": {"selectPolicy": "x", "policies": [
                {"type": "Odd", "value": 0, "periodSeconds": 1801}]}}}),
            vec![
                "spec.behavior.scaleDown.selectPolicy: Unsupported value: \"x\"",
                "spec.behavior.scaleDown.policies[0].type: Unsupported value: \"Odd\": supported values: \"Percent\", \"Pods\"",
                "spec.behavior.scaleDown.policies[0].value: Invalid value: 0: must be greater than zero",
                "spec.behavior.scaleDown.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800",
            ],
        ),
    ] {
        check(V2, KIND, autoscaler(fields), &expected);
    }
    check("autoscaling/v1", KIND, autoscaler(json!({"targetCPUUtilizationPercentage": 50})), &[]);
    check(
        "autoscaling/v1",
        KIND,
        autoscaler(json!({"targetCPUUtilizationPercentage": 0})),
        &["spec.targetCPUUtilizationPercentage: Invalid value: 0: must be greater than 0"],
    );
    check(
        "autoscaling/v1",
        KIND,
        json!({"spec": {}}),
        &[
            "spec.maxReplicas: Invalid value: 0",
            "spec.maxReplicas: Invalid value: 0",
            "spec.scaleTargetRef.kind",
            "spec.scaleTargetRef.name",
        ],
    );
}

#[test]
fn rows() {
    let external = json!({"type": "External", "external": {"metric": {"name": "q"}, "target": {"value": "30"}}});
    let pods = json!({"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"averageValue": "1k"}}});
    let mut object = autoscaler(json!({"minReplicas": 2, "metrics": [cpu(80), external, pods]}));
    let shown =
        |targets: &str, replicas: &str| ["a", "Deployment/web", targets, "2", "5", replicas, "60s"].map(String::from);
    let check = |object: &Value, expected: [String; 7]| {
        row(V2, KIND, object.clone(), &expected.each_ref().map(String::as_str));
    };
    check(&object, shown("cpu: <unknown>/80%, <unknown>/30 + 1 more...", "0"));
    object["status"] = json!({"currentReplicas": 3, "currentMetrics": [
        {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 12, "averageValue": "12m"}}},
        {"type": "External", "external": {"metric": {"name": "q"}, "current": {"value": "7"}}}]});
    check(&object, shown("cpu: 12%/80%, 7/30 + 1 more...", "3"));
    object["spec"]["metrics"] = json!([pods]);
    check(&object, shown("<unknown>/1k", "3"));
    object["spec"]["metrics"] = json!([{"type": "Object", "object": {"target": {"averageValue": "5"}}}]);
    check(&object, shown("<unknown>/5 (avg)", "3"));
    object["spec"]["metrics"] = json!([]);
    check(&object, shown("<none>", "3"));
}

/// An object of v2 that has all that v1 cannot say.
fn rich() -> Value {
    let selector = json!({"matchLabels": {"a": "b"}});
    let mut object = autoscaler(json!({"minReplicas": 2, "metrics": [
        cpu(50),
        {"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": "1Gi"}}},
        {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c",
            "target": {"type": "Utilization", "averageUtilization": 70}}},
        {"type": "Pods", "pods": {"metric": {"name": "m", "selector": selector},
            "target": {"type": "AverageValue", "averageValue": "1k"}}},
        {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "n"},
            "target": {"type": "Value", "value": "10"}}},
        {"type": "External", "external": {"metric": {"name": "q", "selector": selector},
            "target": {"type": "AverageValue", "averageValue": "3"}}}],
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 60, "selectPolicy": "Max",
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 15}]}}}));
    object["apiVersion"] = json!(V2);
    object["kind"] = json!(KIND);
    object["metadata"]["annotations"] = json!({"mine": "x"});
    object["status"] = json!({"currentReplicas": 3, "desiredReplicas": 4, "observedGeneration": 1,
        "lastScaleTime": "1970-01-01T00:00:00Z",
        "conditions": [{"type": "AbleToScale", "status": "True"}],
        "currentMetrics": [
            {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 12, "averageValue": "12m"}}},
            {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "s"}, "metric": {"name": "n"},
                "current": {"value": "9"}}}]});
    object
}

#[test]
fn v1_shows_v2() {
    let view = kind("autoscaling/v1", KIND);
    let storage = view.storage.as_ref().unwrap();
    assert_eq!((storage.group.as_str(), storage.version.as_str()), ("autoscaling", "v2"));
    let shown = view.strategy.from_storage(rich());
    assert_eq!(shown["apiVersion"], "autoscaling/v1");
    assert_eq!(
        shown["spec"],
        json!({"minReplicas": 2, "maxReplicas": 5, "targetCPUUtilizationPercentage": 50,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}})
    );
    assert_eq!(
        shown["status"],
        json!({"currentReplicas": 3, "desiredReplicas": 4, "observedGeneration": 1, "currentCPUUtilizationPercentage": 12,
            "lastScaleTime": "1970-01-01T00:00:00Z"})
    );
    let annotation = |name: &str| -> Value {
        let text = shown["metadata"]["annotations"][format!("autoscaling.alpha.kubernetes.io/{name}")].as_str();
        serde_json::from_str(text.unwrap_or_else(|| panic!("{name}"))).unwrap()
    };
    let selector = json!({"matchLabels": {"a": "b"}});
    assert_eq!(
        annotation("metrics"),
        json!([
            {"type": "Resource", "resource": {"name": "memory", "targetAverageValue": "1Gi"}},
            {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "c", "targetAverageUtilization": 70}},
            {"type": "Pods", "pods": {"metricName": "m", "selector": selector, "targetAverageValue": "1k"}},
            {"type": "Object", "object": {"target": {"kind": "Service", "name": "s"}, "metricName": "n", "targetValue": "10"}},
            {"type": "External", "external": {"metricName": "q", "metricSelector": selector, "targetAverageValue": "3"}}])
    );
    assert_eq!(
        annotation("current-metrics"),
        json!([
            {"type": "Resource", "resource": {"name": "cpu", "currentAverageUtilization": 12, "currentAverageValue": "12m"}},
            {"type": "Object", "object": {"target": {"kind": "Service", "name": "s"}, "metricName": "n", "currentValue": "9"}}])
    );
    assert_eq!(annotation("conditions"), json!([{"type": "AbleToScale", "status": "True"}]));
    assert_eq!(
        annotation("behavior"),
        json!({"ScaleDown": {"StabilizationWindowSeconds": 60, "SelectPolicy": "Max",
            "Policies": [{"Type": "Percent", "Value": 100, "PeriodSeconds": 15}]}})
    );
    assert_eq!(view.strategy.to_storage(shown.clone()), rich(), "a client of v1 loses nothing");
    assert!(view.strategy.validate(&shown).is_empty(), "{:?}", view.strategy.validate(&shown));
    assert_eq!(view.strategy.cells(&shown, 100), kind(V2, KIND).strategy.cells(&rich(), 100));
}

#[test]
fn v1_writes_v2() {
    let view = kind("autoscaling/v1", KIND);
    let stored = |fields: Value| view.strategy.to_storage(autoscaler(fields))["spec"]["metrics"].clone();
    assert_eq!(stored(json!({"targetCPUUtilizationPercentage": 30})), json!([cpu(30)]));
    assert_eq!(stored(json!({})), json!([cpu(80)]), "v1's implicit target");
    let mut bad = autoscaler(json!({}));
    bad["metadata"]["annotations"] = json!({"autoscaling.alpha.kubernetes.io/metrics": "{"});
    check(
        "autoscaling/v1",
        KIND,
        bad,
        &["metadata.annotations[autoscaling.alpha.kubernetes.io/metrics]: Invalid value"],
    );
}
