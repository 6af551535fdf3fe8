//! ResourceQuotas.

use copepod_api::GroupResource;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::super::amounts::to_value;
use super::super::quota::{Refusal, Write, charge, counts, is_counted, usage};

fn resource(name: &str) -> GroupResource {
    let (plural, group) = name.split_once('.').unwrap_or((name, ""));
    GroupResource { group: group.into(), resource: plural.into() }
}

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn quota(spec: Value, used: Value) -> Value {
    json!({"metadata": {"name": "q"}, "spec": spec, "status": {"hard": spec["hard"], "used": used}})
}

fn pod(cpu: Value) -> Value {
    json!({"spec": {"containers": [{"name": "c", "resources": {"requests": cpu}}]}, "status": {"qosClass": "Burstable"}})
}

/// What the quotas hold after a write, or why it is refused.
fn charged(quotas: &[Value], name: &str, object: &Value, old: Option<&Value>) -> Result<Vec<Value>, Refusal> {
    let resource = resource(name);
    let write = Write { resource: &resource, object, old, now: now() };
    charge(quotas, &write).map(|charges| charges.iter().map(|(_, used)| to_value(used)).collect())
}

fn forbidden(why: &str) -> Result<Vec<Value>, Refusal> {
    Err(Refusal::Forbidden(why.into()))
}

#[test]
fn creates_are_charged_or_refused() {
    let any = json!({});
    let cpu = |amount: &str| pod(json!({"cpu": amount}));
    let q = |hard: Value, used: Value| quota(json!({"hard": hard}), used);
    let cases = [
        ("configmaps", any.clone(), q(json!({"pods": "0"}), json!({"pods": "0"})), Ok(vec![])),
        (
            "configmaps",
            any.clone(),
            q(json!({"configmaps": "2"}), json!({"configmaps": "1"})),
            Ok(vec![json!({"configmaps": "2"})]),
        ),
        (
            "pods",
            cpu("1"),
            q(json!({"pods": "0"}), json!({"pods": "0"})),
            forbidden("exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0"),
        ),
        (
            "pods",
            cpu("1500m"),
            q(json!({"pods": "1", "requests.cpu": "2"}), json!({"pods": "1", "requests.cpu": "1"})),
            forbidden(
                "exceeded quota: q, requested: pods=1,requests.cpu=1500m, used: pods=1,requests.cpu=1, limited: \
                 pods=1,requests.cpu=2",
            ),
        ),
        (
            "pods",
            cpu("1"),
            q(json!({"pods": "9", "cpu": "2"}), json!({"pods": "1", "cpu": "1"})),
            Ok(vec![json!({"pods": "2", "cpu": "2"})]),
        ),
        (
            "pods",
            pod(json!({})),
            q(json!({"limits.cpu": "1", "requests.memory": "1"}), json!({"limits.cpu": "0", "requests.memory": "0"})),
            forbidden("failed quota: q: must specify limits.cpu for: c; requests.memory for: c"),
        ),
        (
            "pods",
            pod(json!({"cpu": "-1"})),
            q(json!({"cpu": "1"}), json!({"cpu": "0"})),
            forbidden("quota usage is negative for resource(s): cpu,requests.cpu"),
        ),
        (
            "deployments.apps",
            any.clone(),
            q(json!({"count/deployments.apps": "1", "count/deployments": "0"}), json!({"count/deployments.apps": "0"})),
            Ok(vec![json!({"count/deployments.apps": "1"})]),
        ),
        (
            "pods",
            cpu("1"),
            json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1", "cpu": "1"}}}),
            Err(Refusal::Unknown("status unknown for quota: q, resources: cpu,pods".into())),
        ),
    ];
    for (name, object, quota, want) in cases {
        assert_eq!(charged(std::slice::from_ref(&quota), name, &object, None), want, "{name} {object} {quota}");
    }
}

#[test]
fn all_quotas_must_have_room_and_updates_are_charged_by_the_difference() {
    let service = |kind: &str| json!({"spec": {"type": kind, "ports": [{"port": 1}, {"port": 2}]}});
    let hard = |most: &str| quota(json!({"hard": {"services.nodeports": most}}), json!({"services.nodeports": "1"}));
    let (wide, tight) = (hard("3"), hard("2"));
    let old = service("ClusterIP");
    let exceeded = "exceeded quota: q, requested: services.nodeports=2, used: services.nodeports=1, limited: \
                    services.nodeports=2";
    let three = Ok(vec![json!({"services.nodeports": "3"})]);
    let node_port = service("NodePort");
    assert_eq!(charged(std::slice::from_ref(&wide), "services", &node_port, Some(&old)), three);
    assert_eq!(charged(&[wide.clone(), tight], "services", &node_port, Some(&old)), forbidden(exceeded));
    assert_eq!(charged(std::slice::from_ref(&wide), "services", &node_port, Some(&node_port)), Ok(vec![]));
    assert_eq!(charged(&[wide], "services", &old, Some(&node_port)), Ok(vec![]), "less is never charged");
    let claim = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
    let storage = quota(json!({"hard": {"requests.storage": "2Gi"}}), json!({"requests.storage": "1Gi"}));
    let grown = charged(&[storage], "persistentvolumeclaims", &claim("2Gi"), Some(&claim("1Gi")));
    assert_eq!(grown, Ok(vec![json!({"requests.storage": "2Gi"})]));
}

#[test]
fn scopes_choose_the_pods() {
    let with = |spec: Value, status: Value| json!({"spec": spec, "status": status});
    let plain = || with(json!({}), json!({"qosClass": "BestEffort"}));
    let burst =
        || with(json!({"activeDeadlineSeconds": 5, "priorityClassName": "gold"}), json!({"qosClass": "Burstable"}));
    let cross = |term: Value| {
        let terms =
            json!({"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term}]});
        with(json!({"affinity": {"podAntiAffinity": terms}}), json!({"qosClass": "BestEffort"}))
    };
    let class = |operator: &str, values: Value| {
        json!({"scopeSelector": {"matchExpressions": [
        {"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
    };
    let scope = |name: &str| json!({"scopes": [name]});
    let cases = [
        (scope("BestEffort"), plain(), true),
        (scope("BestEffort"), burst(), false),
        (scope("NotBestEffort"), burst(), true),
        (scope("Terminating"), burst(), true),
        (scope("Terminating"), plain(), false),
        (scope("NotTerminating"), plain(), true),
        (json!({"scopes": ["Terminating", "BestEffort"]}), burst(), false),
        (scope("PriorityClass"), burst(), true),
        (scope("PriorityClass"), plain(), false),
        (class("In", json!(["gold"])), burst(), true),
        (class("In", json!(["lead"])), burst(), false),
        (class("NotIn", json!(["lead"])), burst(), true),
        (class("NotIn", json!(["lead"])), plain(), true),
        (class("DoesNotExist", json!([])), plain(), true),
        (class("Exists", json!([])), plain(), false),
        (scope("CrossNamespacePodAffinity"), cross(json!({"namespaces": ["a"]})), true),
        (scope("CrossNamespacePodAffinity"), cross(json!({"namespaceSelector": {}})), true),
        (scope("CrossNamespacePodAffinity"), cross(json!({})), false),
    ];
    for (mut spec, object, within) in cases {
        spec["hard"] = json!({"pods": "9"});
        let quota = quota(spec.clone(), json!({"pods": "0"}));
        let want = if within { vec![json!({"pods": "1"})] } else { vec![] };
        assert_eq!(charged(&[quota], "pods", &object, None), Ok(want), "{spec} {object}");
    }
    let scoped = quota(json!({"hard": {"configmaps": "0"}, "scopes": ["BestEffort"]}), json!({"configmaps": "0"}));
    assert_eq!(charged(&[scoped], "configmaps", &json!({}), None), Ok(vec![]), "no scope holds other kinds");
    let silver = json!({"hard": {"requests.storage": "1"}, "scopeSelector": {"matchExpressions": [
        {"scopeName": "VolumeAttributesClass", "operator": "In", "values": ["silver"]}]}});
    let claim = json!({"spec": {"volumeAttributesClassName": "silver", "resources": {"requests": {"storage": "2"}}}});
    let got = charged(&[quota(silver, json!({"requests.storage": "0"}))], "persistentvolumeclaims", &claim, None);
    assert!(matches!(got, Err(Refusal::Forbidden(_))), "{got:?}");
}

#[test]
fn what_objects_use() {
    let going = |deleted: &str| {
        json!({"metadata": {"deletionTimestamp": deleted, "deletionGracePeriodSeconds": 30},
            "spec": {"containers": []}})
    };
    let huge = json!({"spec": {"containers": [{"resources": {"requests":
        {"hugepages-2Mi": "2Mi", "example.com/gpu": "1", "ephemeral-storage": "1"}, "limits": {"memory": "5"}}}]}});
    let cases = [
        ("pods", json!({"status": {"phase": "Failed"}}), json!({"count/pods": "1"})),
        ("pods", going("2025-12-31T23:59:59Z"), json!({"count/pods": "1", "pods": "1"})),
        ("pods", going("2025-12-31T23:59:00Z"), json!({"count/pods": "1"})),
        (
            "pods",
            huge,
            json!({"count/pods": "1", "pods": "1", "hugepages-2Mi": "2Mi", "requests.hugepages-2Mi": "2Mi",
                "requests.example.com/gpu": "1", "ephemeral-storage": "1", "requests.ephemeral-storage": "1",
                "limits.memory": "5"}),
        ),
        ("secrets", json!({}), json!({"count/secrets": "1", "secrets": "1"})),
        ("replicasets.apps", json!({}), json!({"count/replicasets.apps": "1"})),
        (
            "services",
            json!({"spec": {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false,
                "ports": [{"port": 1}, {"port": 2, "nodePort": 30000}]}}),
            json!({"count/services": "1", "services": "1", "services.loadbalancers": "1", "services.nodeports": "1"}),
        ),
        (
            "persistentvolumeclaims",
            json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "1500m"}}}}),
            json!({"count/persistentvolumeclaims": "1", "persistentvolumeclaims": "1", "requests.storage": "2",
                "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
                "gold.storageclass.storage.k8s.io/requests.storage": "2"}),
        ),
    ];
    for (name, object, want) in cases {
        assert_eq!(to_value(&usage(&resource(name), &object, now())), want, "{name} {object}");
    }
}

#[test]
fn names_and_writes_that_count() {
    for (name, counted, want) in [
        ("pods", "limits.memory", true),
        ("pods", "requests.example.com/gpu", true),
        ("pods", "requests.storage", false),
        ("pods", "hugepages-1Gi", true),
        ("persistentvolumeclaims", "gold.storageclass.storage.k8s.io/requests.storage", true),
        ("services", "services.nodeports", true),
        ("configmaps", "configmaps", true),
        ("deployments.apps", "deployments", false),
        ("deployments.apps", "count/deployments.apps", true),
        ("pods.example.com", "pods", false),
    ] {
        assert_eq!(counts(&resource(name), counted), want, "{name} {counted}");
    }
    for (name, update, subresource, want) in [
        ("pods", false, "", true),
        ("pods", true, "", false),
        ("pods", true, "resize", true),
        ("pods", true, "status", false),
        ("services", true, "", true),
        ("services", true, "status", false),
        ("configmaps", true, "", false),
        ("events", false, "", false),
        ("events.events.k8s.io", false, "", false),
    ] {
        assert_eq!(is_counted(&resource(name), update, subresource), want, "{name} {update} {subresource}");
    }
}
