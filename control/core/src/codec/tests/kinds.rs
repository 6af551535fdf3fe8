//! Every built-in kind through protobuf and YAML: as it is created from next to nothing, and with its fields set.

use super::*;
use crate::kinds;

/// Fields of kinds that what is created from next to nothing does not have, in Go's printed form.
fn samples() -> Vec<(&'static str, &'static str, Value)> {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let selector =
        json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "k", "operator": "In", "values": ["v"]}]});
    let claim =
        json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "volumeMode": "Block"});
    let target = json!({"type": "Utilization", "averageUtilization": 80});
    let job = json!({"parallelism": 0, "completions": 3, "completionMode": "Indexed", "suspend": false, "template": template,
        "podFailurePolicy": {"rules": [{"action": "FailJob", "onExitCodes": {"containerName": "c", "operator": "In", "values": [1]}},
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]},
        "successPolicy": {"rules": [{"succeededIndexes": "0-1", "succeededCount": 1}]}});
    vec![
        ("v1", "PodTemplate", json!({"template": template})),
        ("v1", "ReplicationController", json!({"spec": {"replicas": 0, "selector": {"a": "b"}, "template": template}})),
        (
            "v1",
            "ResourceQuota",
            json!({"spec": {"hard": {"pods": "1"}, "scopes": ["BestEffort"], "scopeSelector": {
            "matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["x"]}]}}}),
        ),
        (
            "v1",
            "LimitRange",
            json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "2"}}]}}),
        ),
        (
            "v1",
            "PersistentVolume",
            json!({"spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
            "csi": {"driver": "d", "volumeHandle": "h", "volumeAttributes": {"a": "b"}}, "claimRef": {"name": "c"}}}),
        ),
        (
            "v1",
            "PersistentVolumeClaim",
            json!({"spec": claim, "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}}}),
        ),
        (
            "apps/v1",
            "StatefulSet",
            json!({"spec": {"replicas": 0, "selector": selector, "template": template, "serviceName": "s",
            "volumeClaimTemplates": [{"metadata": {"name": "d"}, "spec": claim, "status": {}}],
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}},
            "status": {"replicas": 0, "availableReplicas": 0, "currentRevision": "r"}}),
        ),
        (
            "apps/v1",
            "DaemonSet",
            json!({"spec": {"selector": selector, "template": template,
            "updateStrategy": {"rollingUpdate": {"maxUnavailable": "10%", "maxSurge": 0}}}}),
        ),
        (
            "apps/v1",
            "ControllerRevision",
            json!({"data": {"spec": {"template": {"$patch": "replace", "n": 1}}}, "revision": 0}),
        ),
        (
            "batch/v1",
            "Job",
            json!({"spec": job, "status": {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}],
            "uncountedTerminatedPods": {"succeeded": ["u"]}}}),
        ),
        (
            "batch/v1",
            "CronJob",
            json!({"spec": {"schedule": "* * * * *", "timeZone": "UTC", "jobTemplate": {"metadata": {}, "spec": job}},
            "status": {"lastScheduleTime": "2026-11-21T10:00:00Z", "active": [{"name": "j"}]}}),
        ),
        (
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            json!({"spec": {"maxReplicas": 3, "minReplicas": 1,
            "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"},
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}},
                {"type": "Pods", "pods": {"metric": {"name": "m", "selector": selector}, "target": {"type": "AverageValue", "averageValue": "1k"}}}],
            "behavior": {"scaleUp": {"stabilizationWindowSeconds": 0, "policies": [{"type": "Pods", "value": 4, "periodSeconds": 15}]}}}}),
        ),
        (
            "autoscaling/v1",
            "HorizontalPodAutoscaler",
            json!({"spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
            "scaleTargetRef": {"kind": "Deployment", "name": "d"}}}),
        ),
        (
            "policy/v1",
            "PodDisruptionBudget",
            json!({"spec": {"minAvailable": "50%", "selector": selector},
            "status": {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1,
                "disruptedPods": {"p": "2026-11-21T10:00:00Z"}}}),
        ),
        (
            "scheduling.k8s.io/v1",
            "PriorityClass",
            json!({"value": 0, "globalDefault": true, "description": "d", "preemptionPolicy": "Never"}),
        ),
        (
            "node.k8s.io/v1",
            "RuntimeClass",
            json!({"handler": "wasm", "overhead": {"podFixed": {"cpu": "1"}},
            "scheduling": {"nodeSelector": {"a": "b"}, "tolerations": [{"operator": "Exists"}]}}),
        ),
        (
            "storage.k8s.io/v1",
            "StorageClass",
            json!({"provisioner": "p", "parameters": {"a": "b"}, "allowVolumeExpansion": false,
            "allowedTopologies": [{"matchLabelExpressions": [{"key": "z", "values": ["1"]}]}]}),
        ),
        (
            "storage.k8s.io/v1",
            "VolumeAttachment",
            json!({"spec": {"attacher": "d", "nodeName": "n",
            "source": {"persistentVolumeName": "pv"}}, "status": {"attached": false, "attachmentMetadata": {"a": "b"}}}),
        ),
        (
            "storage.k8s.io/v1",
            "CSIDriver",
            json!({"spec": {"attachRequired": false, "tokenRequests": [{"audience": ""}]}}),
        ),
        (
            "storage.k8s.io/v1",
            "CSINode",
            json!({"spec": {"drivers": [{"name": "d", "nodeID": "n", "topologyKeys": ["z"], "allocatable": {"count": 0}}]}}),
        ),
        (
            "storage.k8s.io/v1",
            "CSIStorageCapacity",
            json!({"storageClassName": "s", "capacity": "1Gi", "nodeTopology": selector}),
        ),
        ("storage.k8s.io/v1", "VolumeAttributesClass", json!({"driverName": "d", "parameters": {"a": "b"}})),
    ]
}

fn round_trip(object: &Value) {
    let gvk = Gvk::from_api_version(object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
    if protobuf::supports(&gvk) {
        let body = encode_protobuf(object).unwrap();
        assert_eq!(&decode(PROTOBUF, &body, None).unwrap().value, object, "{gvk}");
    }
    let body = serde_json::to_vec(object).unwrap();
    assert_eq!(&decode(YAML, &body, None).unwrap().value, object, "{gvk}: JSON is YAML");
    let decoded = schema::builtin(&gvk).unwrap().decode(&mut object.clone()).unwrap();
    assert_eq!(decoded.unknown, Vec::<String>::new(), "{gvk}");
}

#[test]
fn kinds_as_they_are_created() {
    // Those with a schema of their own are not of the generated data.
    for resource in kinds::builtin().all().iter().filter(|r| r.schema.source().is_none()) {
        let gvk = resource.gvk();
        let mut object =
            json!({"apiVersion": gvk.api_version(), "kind": gvk.kind, "metadata": {"name": "a", "uid": "u"}});
        resource.strategy.default(&mut object);
        resource.strategy.prepare_create(&mut object);
        // Go's values have no nulls and print `metadata` of embedded objects always.
        round_trip(&object);
    }
}

#[test]
fn kinds_with_their_fields() {
    for (api_version, kind, fields) in samples() {
        let mut object = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}});
        for (key, value) in fields.as_object().unwrap() {
            object[key] = value.clone();
        }
        round_trip(&object);
    }
}
