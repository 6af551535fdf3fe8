use serde_json::{Value, json};

use super::*;
use copepod_api::Quantity;

const NOW: i64 = 100_000;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn time(second: i64) -> String {
    Timestamp::from_second(second).unwrap().to_string()
}

/// An autoscaler of 1 to 10 pods with these metrics.
fn scaler(metrics: Value, behavior: Value) -> HorizontalPodAutoscaler {
    let mut spec = json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "minReplicas": 1, "maxReplicas": 10, "metrics": metrics,
    });
    if !behavior.is_null() {
        spec["behavior"] = behavior;
    }
    serde_json::from_value(json!({"metadata": {"name": "a", "namespace": "d", "uid": "u"}, "spec": spec})).unwrap()
}

fn utilization(percent: i32) -> Value {
    json!([{"type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}}])
}

fn average(resource: &str, value: &str) -> Value {
    json!([{"type": "Resource",
        "resource": {"name": resource, "target": {"type": "AverageValue", "averageValue": value}}}])
}

/// No wait before pods are taken away.
fn at_once() -> Value {
    json!({"scaleUp": {"policies": [{"type": "Pods", "value": 100, "periodSeconds": 15}]},
        "scaleDown": {"stabilizationWindowSeconds": 0}})
}

fn scale(replicas: i32, selector: &str) -> Scale {
    let meta = json!({"name": "web", "namespace": "d", "uid": "w", "resourceVersion": "7"});
    let status = json!({"replicas": replicas, "selector": selector});
    serde_json::from_value(json!({"metadata": meta, "spec": {"replicas": replicas}, "status": status})).unwrap()
}

/// A pod that asks for a core in the container `c`: `STATE`, or `STATE:MILLI` with what it uses. Its use was measured
/// over the last 15 seconds.
fn pod(index: usize, told: &str) -> (Pod, Option<(String, Sampled)>) {
    let (state, used) = told.split_once(':').unwrap_or((told, ""));
    // Phase, when it started, Ready and since when.
    let (phase, started, ready, since) = match state {
        "ready" | "going" => ("Running", 0, "True", 5),
        "pending" => ("Pending", NOW - 10, "False", NOW - 10),
        "failed" => ("Failed", 0, "False", 10),
        "fresh" => ("Running", NOW - 60, "True", NOW - 10),
        "settled" => ("Running", NOW - 60, "True", NOW - 15),
        "starting" => ("Running", NOW - 60, "False", NOW - 60),
        "never" => ("Running", 0, "False", 20),
        "lapsed" => ("Running", 0, "False", 31),
        other => panic!("{other}"),
    };
    let name = format!("p{index}");
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "d", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1", "memory": "1k"}}}]},
        "status": {"phase": phase, "startTime": time(started),
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": time(since)}]},
    });
    if state == "going" {
        pod["metadata"]["deletionTimestamp"] = json!(time(NOW));
    }
    let sampled = used.parse().ok().map(|milli| {
        let usage = [("cpu".to_string(), Quantity::from_milli(milli)), ("memory".into(), Quantity::from_units(milli))];
        let containers = [("c".to_string(), usage.into())].into();
        (name, Sampled { at: now(), window: Duration::from_secs(15), containers })
    });
    (serde_json::from_value(pod).unwrap(), sampled)
}

/// Decides with pods as [`pod`] makes them.
fn decide_with(scaler: &HorizontalPodAutoscaler, replicas: i32, pods: &[&str], memory: &mut Memory) -> Decision {
    let made: Vec<_> = pods.iter().enumerate().map(|(i, told)| pod(i, told)).collect();
    let usage = made.iter().filter_map(|(_, sampled)| sampled.clone()).collect();
    let pods: Vec<Arc<Pod>> = made.into_iter().map(|(pod, _)| Arc::new(pod)).collect();
    let scale = scale(replicas, "app=web");
    let observed = Observed {
        resource: meta::deployments(),
        scale: &scale,
        pods: &pods,
        usage: Ok(usage),
        scalers: vec!["d/a".into()],
    };
    reconcile(scaler, &observed, memory, now())
}

fn decide(scaler: &HorizontalPodAutoscaler, replicas: i32, pods: &[&str]) -> Decision {
    decide_with(scaler, replicas, pods, &mut Memory::default())
}

fn status(decision: &Decision) -> Value {
    match &decision.plan.status {
        Some(Action::Patch { patch, .. }) => patch["status"].clone(),
        _ => Value::Null,
    }
}

fn condition(status: &Value, kind: &str) -> (String, String) {
    let all = status["conditions"].as_array().unwrap();
    let found = all.iter().find(|c| c["type"] == kind).unwrap_or_else(|| panic!("no {kind} in {status}"));
    let text = |key: &str| found[key].as_str().unwrap();
    (format!("{} {}", text("status"), text("reason")), text("message").to_string())
}

fn notes(plan: &Plan) -> Vec<String> {
    plan.notes.iter().map(|n| format!("{} {}", n.reason, n.message)).collect()
}

#[test]
fn use_against_requests() {
    for (pods, expected) in [
        (&["ready:500", "ready:500"][..], 2),
        (&["ready:540", "ready:549"], 2),
        (&["ready:460", "ready:450"], 2),
        (&["ready:560", "ready:560"], 3),
        (&["ready:1000", "ready:1000"], 4),
        (&["ready:9000", "ready:9000"], 10),
        (&["ready:240", "ready:240"], 1),
        (&["ready:0", "ready:0"], 1),
        // What is not measured uses nothing where there may be more pods, and all it asked for where there may be fewer.
        (&["ready:1000", "ready"], 2),
        (&["ready:1000", "ready:1000", "ready"], 4),
        (&["ready:100", "ready"], 2),
        (&["ready:100", "ready:100", "ready:100", "ready"], 3),
        (&["ready:500", "ready"], 2),
        // What is not ready uses nothing where there may be more pods, and does not count otherwise.
        (&["ready:1000", "pending"], 2),
        (&["ready:1000", "ready:1000", "pending"], 4),
        (&["ready:100", "pending"], 1),
        (&["ready:1000", "fresh:1000"], 2),
        (&["ready:1000", "settled:1000"], 4),
        (&["ready:1000", "starting:1000"], 2),
        (&["ready:1000", "never:1000"], 2),
        (&["ready:1000", "lapsed:1000"], 4),
        // What ends does not count at all.
        (&["ready:1000", "ready:1000", "failed:0", "going:0"], 4),
    ] {
        let alive = pods.iter().filter(|p| !p.starts_with("failed") && !p.starts_with("going")).count();
        let current = i32::try_from(alive).unwrap();
        let decision = decide(&scaler(utilization(50), at_once()), current, pods);
        assert_eq!(decision.rescale.map_or(current, |r| r.to), expected, "{pods:?}");
    }
    // A target above the requests: what is not measured is taken to be at the target.
    let decision = decide(&scaler(utilization(200), at_once()), 2, &["ready:1000", "ready"]);
    assert_eq!(decision.rescale, None);
}

#[test]
fn use_against_amounts_and_tolerances() {
    let with = |up: &str, down: &str| {
        let mut behavior = at_once();
        behavior["scaleUp"]["tolerance"] = json!(up);
        behavior["scaleDown"]["tolerance"] = json!(down);
        behavior
    };
    for (metrics, behavior, pods, expected) in [
        (average("cpu", "500m"), at_once(), &["ready:1000", "ready:1000"][..], 4),
        (average("cpu", "500m"), at_once(), &["ready:550", "ready:549"], 2),
        (average("cpu", "500m"), at_once(), &["ready:100", "ready:100"], 1),
        (average("cpu", "500m"), at_once(), &["ready:100", "ready"], 2),
        (average("cpu", "500m"), at_once(), &["ready:1000", "ready"], 2),
        (average("memory", "500"), at_once(), &["ready:1000", "fresh:1000"], 4),
        (utilization(50), with("0", "0"), &["ready:510", "ready:510"], 3),
        (utilization(50), with("0.5", "0"), &["ready:700", "ready:700"], 2),
        (utilization(50), with("0", "0.8"), &["ready:240", "ready:240"], 2),
    ] {
        let decision = decide(&scaler(metrics.clone(), behavior.clone()), 2, pods);
        assert_eq!(decision.rescale.map_or(2, |r| r.to), expected, "{metrics} {behavior} {pods:?}");
    }
}

#[test]
fn a_change_of_the_count() {
    let decision = decide(&scaler(utilization(50), Value::Null), 2, &["ready:1500", "ready:1500"]);
    let reason = "cpu resource utilization (percentage of request) above target";
    assert_eq!(decision.rescale, Some(Rescale { from: 2, to: 4, reason: reason.into() }));
    assert_eq!(
        decision.plan.actions,
        [Action::Patch {
            target: Target::new(meta::deployments(), "d", "web"),
            subresource: "scale",
            patch: json!({"metadata": {"uid": "w", "resourceVersion": "7"}, "spec": {"replicas": 4}}),
        }]
    );
    assert_eq!(notes(&decision.plan), [format!("SuccessfulRescale New size: 4; reason: {reason}")]);
    assert_eq!(decision.plan.requeue_after, Some(SYNC_PERIOD));
    let status = status(&decision);
    assert_eq!((&status["currentReplicas"], &status["desiredReplicas"]), (&json!(2), &json!(4)));
    assert_eq!(status["lastScaleTime"], json!(time(NOW)));
    assert_eq!(
        status["currentMetrics"],
        json!([{"type": "Resource", "resource": {"name": "cpu",
            "current": {"averageUtilization": 150, "averageValue": "1500m"}}}])
    );
    let message = "the HPA controller was able to update the target scale to 4";
    assert_eq!(condition(&status, "AbleToScale"), ("True SucceededRescale".into(), message.into()));
    let message = "the HPA was able to successfully calculate a replica count from cpu resource utilization \
                   (percentage of request)";
    assert_eq!(condition(&status, "ScalingActive"), ("True ValidMetricFound".into(), message.into()));
    assert_eq!(condition(&status, "ScalingLimited").0, "True ScaleUpLimit");

    let error = "deployments.apps \"web\" is forbidden";
    let plan = refused(&scaler(utilization(50), Value::Null), &decision.rescale.unwrap(), error, now());
    let status = self::status(&Decision { plan: plan.clone(), rescale: None });
    assert_eq!(condition(&status, "AbleToScale").0, "False FailedUpdateScale");
    assert_eq!(notes(&plan), [format!("FailedRescale New size: 4; reason: {reason}; error: {error}")]);
}

#[test]
fn nothing_is_written_while_nothing_changes() {
    let unknown = json!([{"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue",
        "averageValue": "1"}}}]);
    for (metrics, pods, events) in
        [(utilization(50), &["ready:500"][..], 0), (utilization(50), &["ready"], 2), (unknown, &["ready:500"], 2)]
    {
        let mut memory = Memory::default();
        let mut scaler = scaler(metrics.clone(), Value::Null);
        let first = decide_with(&scaler, 1, pods, &mut memory);
        assert_eq!(first.plan.notes.len(), events, "{:?}", first.plan.notes);
        scaler.status = Some(serde_json::from_value(status(&first)).unwrap());
        let again = decide_with(&scaler, 1, pods, &mut memory);
        assert!(again.plan.is_empty() && again.plan.notes.is_empty(), "{metrics}: {:?}", again.plan);
        assert_eq!(again.plan.requeue_after, Some(SYNC_PERIOD));
    }
    let mut scaler = scaler(utilization(50), Value::Null);
    let first = unreachable(&scaler, "no such thing", now());
    assert_eq!(notes(&first), ["FailedGetScale no such thing"]);
    let first = Decision { plan: first, rescale: None };
    let message = "the HPA controller was unable to get the target's current scale: no such thing";
    assert_eq!(condition(&status(&first), "AbleToScale"), ("False FailedGetScale".into(), message.into()));
    scaler.status = Some(serde_json::from_value(status(&first)).unwrap());
    let again = unreachable(&scaler, "no such thing", now());
    assert!(again.is_empty() && again.notes.is_empty());
}

#[test]
fn counts_out_of_range_and_a_count_of_zero() {
    let scaler = scaler(utilization(50), Value::Null);
    for (current, expected) in [(12, Some((10, "Current number of replicas above Spec.MaxReplicas"))), (0, None)] {
        let decision = decide(&scaler, current, &["ready:500"]);
        let got = decision.rescale.as_ref().map(|r| (r.to, r.reason.as_str()));
        assert_eq!(got, expected, "{current}");
        if current == 0 {
            let status = status(&decision);
            let message = "scaling is disabled since the replica count of the target is zero";
            assert_eq!(condition(&status, "ScalingActive"), ("False ScalingDisabled".into(), message.into()));
            assert_eq!(status["desiredReplicas"], 0);
        }
    }
    let mut more = scaler.clone();
    more.spec.min_replicas = Some(3);
    let reason = "Current number of replicas below Spec.MinReplicas".to_string();
    assert_eq!(decide(&more, 1, &["ready:500"]).rescale, Some(Rescale { from: 1, to: 3, reason }));
    let decision = decide(&scaler, 2, &["ready:100", "ready:100"]);
    assert_eq!(decision.rescale, None);
    assert_eq!(condition(&status(&decision), "AbleToScale").0, "True ScaleDownStabilized");
}

#[test]
fn metrics_that_cannot_be_told() {
    let target = json!({"type": "AverageValue", "averageValue": "1"});
    let metric = json!({"name": "m"});
    let container = |name: &str| {
        json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": name,
            "target": {"type": "Utilization", "averageUtilization": 50}}})
    };
    let custom =
        "unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered";
    for (metric, pods, reason, why, what) in [
        (
            utilization(50)[0].clone(),
            &["ready"][..],
            "FailedGetResourceMetric",
            "failed to get cpu utilization: unable to get metrics for resource cpu: no metrics returned from resource metrics API"
                .to_string(),
            "cpu resource",
        ),
        (
            average("memory", "1")[0].clone(),
            &["pending:5"],
            "FailedGetResourceMetric",
            "failed to get memory usage: did not receive metrics for targeted pods (pods might be unready)".into(),
            "memory resource",
        ),
        (
            json!({"type": "Resource", "resource": {"name": "other",
                "target": {"type": "Utilization", "averageUtilization": 50}}}),
            &["ready:500"],
            "FailedGetResourceMetric",
            "failed to get other utilization: did not receive metrics for targeted pods (pods might be unready)".into(),
            "other resource",
        ),
        (
            container("x"),
            &["ready:500"],
            "FailedGetContainerResourceMetric",
            "failed to get cpu utilization: unable to get metrics for resource cpu: failed to get container metrics: \
             container x not present in metrics for pod d/p0"
                .into(),
            "x container",
        ),
        (
            json!({"type": "Pods", "pods": {"metric": metric, "target": target}}),
            &["ready:500"],
            "FailedGetPodsMetric",
            format!("unable to get metric m: {custom}"),
            "pods",
        ),
        (
            json!({"type": "Object", "object": {"metric": metric, "target": target,
                "describedObject": {"kind": "Service", "name": "s"}}}),
            &["ready:500"],
            "FailedGetObjectMetric",
            format!("unable to get metric m: {custom} on Service d/s"),
            "object",
        ),
        (
            json!({"type": "External", "external": {"target": target,
                "metric": {"name": "m", "selector": {"matchLabels": {"q": "w"}}}}}),
            &["ready:500"],
            "FailedGetExternalMetric",
            "unable to get external metric d/m/&LabelSelector{MatchLabels:map[string]string{q: w,},\
             MatchExpressions:[]LabelSelectorRequirement{},}: unable to fetch metrics from external metrics API: no \
             external metrics API (external.metrics.k8s.io) registered"
                .into(),
            "m external",
        ),
    ] {
        let decision = decide(&scaler(json!([metric]), Value::Null), 1, pods);
        let all = format!("the HPA was unable to compute the replica count: {why}");
        let status = status(&decision);
        assert_eq!(condition(&status, "ScalingActive"), (format!("False {reason}"), all));
        assert_eq!(condition(&status, "AbleToScale").0, "True SucceededGetScale");
        let first = format!("failed to get {what} metric value: {why}");
        assert_eq!(
            notes(&decision.plan),
            [
                format!("{reason} {why}"),
                format!("FailedComputeMetricsReplicas invalid metrics (1 invalid out of 1), first error is: {first}")
            ]
        );
    }
    let decision = decide(&scaler(json!([container("c")]), at_once()), 1, &["ready:1000"]);
    let metric = "cpu container resource utilization (percentage of request)";
    assert_eq!(decision.rescale.as_ref().unwrap().reason, format!("{metric} above target"));
    let current = &status(&decision)["currentMetrics"][0]["containerResource"];
    let expected = json!({"name": "cpu", "container": "c",
        "current": {"averageUtilization": 100, "averageValue": "1"}});
    assert_eq!(current, &expected);
}

#[test]
fn several_metrics() {
    let unknown = json!({"type": "Pods", "pods": {"metric": {"name": "m"},
        "target": {"type": "AverageValue", "averageValue": "1"}}});
    let metrics = |first: &Value| json!([first, utilization(50)[0], average("memory", "250")[0]]);
    // The greatest proposal counts; what cannot be told only keeps pods from being taken away.
    let decision = decide(&scaler(metrics(&unknown), at_once()), 2, &["ready:500", "ready:500"]);
    assert_eq!(decision.rescale.as_ref().map(|r| (r.to, r.reason.as_str())), Some((4, "memory resource above target")));
    assert_eq!(status(&decision)["currentMetrics"].as_array().unwrap().len(), 3);
    let decision = decide(&scaler(metrics(&unknown), at_once()), 2, &["ready:50", "ready:50"]);
    assert_eq!(decision.rescale, None);
    assert_eq!(condition(&status(&decision), "ScalingActive").0, "False FailedGetPodsMetric");
    let cpu = utilization(80)[0].clone();
    let decision = decide(&scaler(metrics(&cpu), at_once()), 2, &["ready:50", "ready:50"]);
    let below = Rescale { from: 2, to: 1, reason: "All metrics below target".into() };
    assert_eq!(decision.rescale, Some(below));
}

#[test]
fn requests_of_pods() {
    let with =
        |spec: Value| -> Pod { serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap() };
    let asks = |name: &str, cpu: &str| json!({"name": name, "resources": {"requests": {"cpu": cpu}}});
    let lasting = |name: &str, cpu: &str| json!({"name": name, "restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
    let whole = json!({"requests": {"cpu": "3"}});
    let memory = json!({"requests": {"memory": "3"}});
    let cases = [
        (json!({"containers": [asks("a", "1"), asks("b", "200m")]}), None, Ok(1200)),
        (json!({"containers": [asks("a", "1"), asks("b", "200m")]}), Some("b"), Ok(200)),
        (
            json!({"containers": [asks("a", "1")], "initContainers": [lasting("s", "1"), asks("i", "9")]}),
            None,
            Ok(2000),
        ),
        (
            json!({"containers": [asks("a", "1"), {"name": "b"}]}),
            None,
            Err("missing request for cpu in container b of Pod p"),
        ),
        (json!({"containers": [asks("a", "1")]}), Some("b"), Err("container b not found in Pod p")),
        (json!({"containers": [{"name": "a"}], "resources": whole}), None, Ok(3000)),
        (json!({"containers": [asks("a", "1")], "resources": whole}), Some("a"), Ok(1000)),
        (json!({"containers": [asks("a", "1")], "resources": memory}), None, Ok(1000)),
        (
            json!({"containers": [{"name": "a"}], "resources": memory}),
            None,
            Err("missing pod-level request for cpu in Pod p"),
        ),
    ];
    for (spec, container, expected) in cases {
        let got = super::super::horizontal_pod_autoscaler_metrics::request(&with(spec.clone()), container, "cpu");
        assert_eq!(got, expected.map_err(str::to_string), "{spec} {container:?}");
    }
}

#[test]
fn selectors() {
    let scaler = scaler(utilization(50), Value::Null);
    let decide = |selector: &str, scalers: &[&str]| {
        let scale = scale(1, selector);
        let observed = Observed {
            resource: meta::deployments(),
            scale: &scale,
            pods: &[],
            usage: Ok(BTreeMap::new()),
            scalers: scalers.iter().map(ToString::to_string).collect(),
        };
        let decision = reconcile(&scaler, &observed, &mut Memory::default(), now());
        assert_eq!(decision.rescale, None);
        (condition(&status(&decision), "ScalingActive"), notes(&decision.plan))
    };
    let ((reason, message), events) = decide("", &["d/a"]);
    assert_eq!(
        (reason.as_str(), message.as_str()),
        ("False InvalidSelector", "the HPA target's scale is missing a selector")
    );
    assert_eq!(events, ["SelectorRequired selector is required", "FailedComputeMetricsReplicas selector is required"]);
    let ((reason, message), _) = decide("a==b==c", &["d/a"]);
    assert_eq!(reason, "False InvalidSelector");
    assert!(
        message.starts_with("couldn't convert selector into a corresponding internal selector object: "),
        "{message}"
    );
    let ((reason, message), events) = decide("app=web", &["d/a", "d/b"]);
    assert_eq!(reason, "False AmbiguousSelector");
    assert_eq!(message, "pods by selector app=web are controlled by multiple HPAs: [d/a d/b]");
    assert_eq!(events[0], format!("AmbiguousSelector {message}"));
}

#[test]
fn kinds_with_a_scale() {
    for (api_version, kind, expected) in [
        ("apps/v1", "Deployment", Some("deployments")),
        ("apps/v1", "StatefulSet", Some("statefulsets")),
        ("apps/v1", "ReplicaSet", Some("replicasets")),
        ("v1", "ReplicationController", Some("replicationcontrollers")),
        ("v1", "Deployment", None),
        ("apps/v1", "DaemonSet", None),
        ("shop/v1", "Deployment", None),
    ] {
        assert_eq!(scaled_resource(api_version, kind).map(|g| g.resource).as_deref(), expected, "{api_version} {kind}");
    }
    assert_eq!(no_such_kind("shop/v1", "Cart"), "no matches for kind \"Cart\" in group \"shop\"");
    assert_eq!(no_such_kind("v1", "Cart"), "no matches for kind \"Cart\"");
}
