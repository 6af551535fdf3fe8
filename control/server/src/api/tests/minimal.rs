//! A small valid object of every built-in kind, and a status that a client may write to it.

use super::*;

/// (apiVersion, kind, the object without apiVersion and kind, its status if it has `/status`)
pub(super) type Entry = (&'static str, &'static str, Value, Value);

const NOW: &str = "2026-01-01T00:00:00Z";

fn named(fields: Value) -> Value {
    let mut object = json!({"metadata": {"name": "a"}});
    for (key, value) in fields.as_object().unwrap() {
        object[key] = value.clone();
    }
    object
}

fn spec(spec: Value) -> Value {
    named(json!({"spec": spec}))
}

fn workload(more: Value) -> Value {
    let mut object = spec(json!({"selector": {"matchLabels": {"a": "b"}}, "template": template("Always")}));
    for (key, value) in more.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

fn template(restart: &str) -> Value {
    json!({"metadata": {"labels": {"a": "b"}},
        "spec": {"restartPolicy": restart, "containers": [{"name": "a", "image": "a:1"}]}})
}

fn conditions() -> Value {
    json!({"conditions": [{"type": "Ready", "status": "True", "reason": "Why", "message": "it is", "lastTransitionTime": NOW}]})
}

fn signing_request() -> Value {
    use base64::Engine;
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::new(vec!["a.example".into()]).unwrap().serialize_request(&key).unwrap();
    let request = base64::engine::general_purpose::STANDARD.encode(request.pem().unwrap());
    spec(json!({"request": request, "signerName": "example.com/s", "usages": ["client auth"]}))
}

fn webhooks() -> Value {
    named(json!({"webhooks": [{"name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://a.example.com"},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}]}))
}

fn policy(more: Value) -> Value {
    let rule = json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["pods"]});
    let mut object = spec(json!({"matchConstraints": {"resourceRules": [rule]}}));
    for (key, value) in more.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

fn definition() -> Value {
    json!({"metadata": {"name": "toys.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "toys", "kind": "Toy"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer", "default": 1}}}}}}}]}})
}

fn access() -> Vec<Entry> {
    const RBAC: &str = "rbac.authorization.k8s.io/v1";
    let rules = json!({"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]});
    let role = json!({"roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "User", "name": "u", "apiGroup": "rbac.authorization.k8s.io"}]});
    let failed = json!({"conditions": [{"type": "Failed", "status": "True", "reason": "Why"}]});
    vec![
        (RBAC, "Role", named(rules.clone()), Value::Null),
        (RBAC, "ClusterRole", named(rules), Value::Null),
        (RBAC, "RoleBinding", named(role.clone()), Value::Null),
        (RBAC, "ClusterRoleBinding", named(role), Value::Null),
        ("certificates.k8s.io/v1", "CertificateSigningRequest", signing_request(), failed),
    ]
}

fn networking() -> Vec<Entry> {
    const API: &str = "networking.k8s.io/v1";
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let parent = json!({"resource": "services", "namespace": "default", "name": "web"});
    vec![
        (
            API,
            "Ingress",
            spec(json!({"defaultBackend": backend})),
            json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.9"}]}}),
        ),
        (API, "IngressClass", spec(json!({"controller": "example.com/c"})), Value::Null),
        (API, "NetworkPolicy", spec(json!({"podSelector": {}})), Value::Null),
        (API, "ServiceCIDR", spec(json!({"cidrs": ["10.44.0.0/16"]})), conditions()),
        (API, "IPAddress", json!({"metadata": {"name": "10.43.0.9"}, "spec": {"parentRef": parent}}), Value::Null),
    ]
}

fn extension() -> Vec<Entry> {
    const API: &str = "admissionregistration.k8s.io/v1";
    let binding = json!({"policyName": "p", "validationActions": ["Deny"]});
    let mutation = json!({"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}});
    let service = json!({"group": "example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 10});
    let accepted = json!({"storedVersions": ["v1"], "acceptedNames": {"plural": "toys", "kind": "Toy"}});
    vec![
        (API, "ValidatingWebhookConfiguration", webhooks(), Value::Null),
        (API, "MutatingWebhookConfiguration", webhooks(), Value::Null),
        (
            API,
            "ValidatingAdmissionPolicy",
            policy(json!({"validations": [{"expression": "true"}]})),
            json!({"observedGeneration": 1}),
        ),
        (API, "ValidatingAdmissionPolicyBinding", spec(binding), Value::Null),
        (
            API,
            "MutatingAdmissionPolicy",
            policy(json!({"mutations": [mutation], "reinvocationPolicy": "Never"})),
            Value::Null,
        ),
        (API, "MutatingAdmissionPolicyBinding", spec(json!({"policyName": "p"})), Value::Null),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition", definition(), accepted),
        (
            "apiregistration.k8s.io/v1",
            "APIService",
            json!({"metadata": {"name": "v1.example.com"}, "spec": service}),
            conditions(),
        ),
    ]
}

fn flow_and_devices() -> Vec<Entry> {
    const FLOW: &str = "flowcontrol.apiserver.k8s.io/v1";
    const DEVICES: &str = "resource.k8s.io/v1";
    let rule = json!({"subjects": [{"kind": "User", "user": {"name": "u"}}],
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/x"]}]});
    let limited = json!({"limitResponse": {"type": "Queue", "queuing": {}}});
    let claim = json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "c"}}]}});
    let slice = json!({"driver": "d.example.com", "nodeName": "n", "devices": [{"name": "x"}],
        "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}});
    vec![
        (FLOW, "FlowSchema", spec(json!({"priorityLevelConfiguration": {"name": "p"}, "rules": [rule]})), conditions()),
        (FLOW, "PriorityLevelConfiguration", spec(json!({"type": "Limited", "limited": limited})), conditions()),
        (DEVICES, "ResourceClaim", spec(claim.clone()), json!({"allocation": {"devices": {}}})),
        (DEVICES, "ResourceClaimTemplate", spec(json!({"spec": claim})), Value::Null),
        (DEVICES, "DeviceClass", spec(json!({})), Value::Null),
        (DEVICES, "ResourceSlice", spec(slice), Value::Null),
    ]
}

fn core() -> Vec<Entry> {
    let event = json!({"involvedObject": {"kind": "Pod", "namespace": "default", "name": "p"}, "reason": "Started",
        "message": "it runs", "type": "Normal", "source": {"component": "c"}, "firstTimestamp": NOW, "lastTimestamp": NOW});
    let new_event = json!({"regarding": {"kind": "Pod", "namespace": "default", "name": "p"}, "reason": "Started",
        "note": "it runs", "type": "Normal", "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Start",
        "reportingController": "example.com/c", "reportingInstance": "i"});
    let endpoint =
        json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"name": "", "port": 80}]});
    let subset = json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]});
    let storage = json!({"requests": {"storage": "1Gi"}});
    vec![
        ("v1", "Namespace", named(json!({})), conditions()),
        ("v1", "Node", named(json!({})), json!({"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]})),
        ("v1", "Pod", spec(json!({"containers": [{"name": "a", "image": "a:1"}]})), json!({"phase": "Running"})),
        ("v1", "Service", spec(json!({"ports": [{"port": 80}]})), conditions()),
        ("v1", "Endpoints", named(subset), Value::Null),
        ("v1", "ConfigMap", named(json!({"data": {"a": "b"}})), Value::Null),
        ("v1", "Secret", named(json!({"data": {"a": "eA=="}})), Value::Null),
        ("v1", "Event", named(event), Value::Null),
        ("v1", "ServiceAccount", named(json!({})), Value::Null),
        ("v1", "PodTemplate", named(json!({"template": template("Always")})), Value::Null),
        (
            "v1",
            "ReplicationController",
            spec(json!({"selector": {"a": "b"}, "template": template("Always")})),
            json!({"replicas": 1}),
        ),
        ("v1", "ResourceQuota", spec(json!({"hard": {"pods": "10"}})), json!({"used": {"pods": "1"}})),
        ("v1", "LimitRange", spec(json!({"limits": [{"type": "Pod", "max": {"cpu": "1"}}]})), Value::Null),
        (
            "v1",
            "PersistentVolume",
            spec(json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/x"}})),
            json!({"phase": "Available"}),
        ),
        (
            "v1",
            "PersistentVolumeClaim",
            spec(json!({"accessModes": ["ReadWriteOnce"], "resources": storage})),
            json!({"phase": "Bound"}),
        ),
        ("coordination.k8s.io/v1", "Lease", spec(json!({"holderIdentity": "n"})), Value::Null),
        ("discovery.k8s.io/v1", "EndpointSlice", named(endpoint), Value::Null),
        ("events.k8s.io/v1", "Event", named(new_event), Value::Null),
    ]
}

fn workloads() -> Vec<Entry> {
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let hpa = |fields: Value| {
        let mut object = spec(json!({"scaleTargetRef": target, "minReplicas": 1, "maxReplicas": 3}));
        for (key, value) in fields.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        object
    };
    let observed = || json!({"currentReplicas": 1, "desiredReplicas": 2});
    let job = json!({"template": template("Never")});
    let placed =
        json!({"currentNumberScheduled": 1, "numberMisscheduled": 0, "desiredNumberScheduled": 1, "numberReady": 1});
    let budget = json!({"disruptionsAllowed": 1, "currentHealthy": 1, "desiredHealthy": 0, "expectedPods": 1});
    vec![
        ("apps/v1", "Deployment", workload(json!({})), json!({"replicas": 1})),
        ("apps/v1", "ReplicaSet", workload(json!({})), json!({"replicas": 1})),
        ("apps/v1", "StatefulSet", workload(json!({"serviceName": "web"})), json!({"replicas": 1})),
        ("apps/v1", "DaemonSet", workload(json!({})), placed),
        ("apps/v1", "ControllerRevision", named(json!({"revision": 1, "data": {"spec": {}}})), Value::Null),
        ("batch/v1", "Job", spec(job.clone()), json!({"active": 1})),
        (
            "batch/v1",
            "CronJob",
            spec(json!({"schedule": "* * * * *", "jobTemplate": {"spec": job}})),
            json!({"lastScheduleTime": NOW}),
        ),
        ("autoscaling/v1", "HorizontalPodAutoscaler", hpa(json!({"targetCPUUtilizationPercentage": 50})), observed()),
        ("autoscaling/v2", "HorizontalPodAutoscaler", hpa(json!({})), observed()),
        (
            "policy/v1",
            "PodDisruptionBudget",
            spec(json!({"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}})),
            budget,
        ),
    ]
}

fn cluster() -> Vec<Entry> {
    const STORAGE: &str = "storage.k8s.io/v1";
    let volume = json!({"attacher": "d.example.com", "nodeName": "n", "source": {"persistentVolumeName": "v"}});
    vec![
        ("scheduling.k8s.io/v1", "PriorityClass", named(json!({"value": 10})), Value::Null),
        ("node.k8s.io/v1", "RuntimeClass", named(json!({"handler": "wasm"})), Value::Null),
        (STORAGE, "StorageClass", named(json!({"provisioner": "example.com/p"})), Value::Null),
        (STORAGE, "CSIDriver", spec(json!({})), Value::Null),
        (STORAGE, "CSINode", spec(json!({"drivers": [{"name": "d.example.com", "nodeID": "n"}]})), Value::Null),
        (STORAGE, "CSIStorageCapacity", named(json!({"storageClassName": "s"})), Value::Null),
        (STORAGE, "VolumeAttachment", spec(volume), json!({"attached": true})),
        (
            STORAGE,
            "VolumeAttributesClass",
            named(json!({"driverName": "d.example.com", "parameters": {"a": "b"}})),
            Value::Null,
        ),
    ]
}

/// All entries. One of a kind that is not served is not used.
pub(super) fn entries() -> Vec<Entry> {
    [core(), workloads(), cluster(), access(), networking(), extension(), flow_and_devices()].concat()
}
