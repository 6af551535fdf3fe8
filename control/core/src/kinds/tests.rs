use copepod_api::Gvk;
use serde_json::{Value, json};

use super::*;

mod access;
mod autoscaling;
mod batch;
mod columns;
mod defaults;
mod devices;
mod extension;
mod networking;
mod pod_rules;
mod pod_rules_more;
mod policies;
mod service_rules;
mod updates;
mod validation;
mod volumes;
mod workloads;

/// A built-in kind by `apiVersion` and kind.
fn kind(api_version: &str, kind: &str) -> Arc<Resource> {
    let gvk = Gvk::from_api_version(api_version, kind);
    builtin().find_kind(&gvk).unwrap_or_else(|| panic!("{gvk}")).clone()
}

/// The object with its kind's defaults.
fn defaulted(resource: &Resource, mut object: Value) -> Value {
    resource.strategy.default(&mut object);
    object
}

/// A valid Deployment whose pod spec has these fields besides one container.
fn deployment(spec: Value) -> Value {
    let mut pod = json!({"containers": [{"name": "web", "image": "web:1"}]});
    for (key, value) in spec.as_object().unwrap() {
        pod[key] = value.clone();
    }
    json!({"metadata": {"name": "web"}, "spec": {
        "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": pod}}})
}

#[test]
fn every_kind_is_served() {
    let registry = builtin();
    let served: Vec<String> = registry.all().iter().map(|r| r.gvk().to_string()).collect();
    assert_eq!(
        served,
        [
            "v1, Kind=Namespace",
            "v1, Kind=Node",
            "v1, Kind=Pod",
            "v1, Kind=Service",
            "v1, Kind=Endpoints",
            "v1, Kind=ConfigMap",
            "v1, Kind=Secret",
            "v1, Kind=Event",
            "v1, Kind=ServiceAccount",
            "v1, Kind=ComponentStatus",
            "apps/v1, Kind=Deployment",
            "apps/v1, Kind=ReplicaSet",
            "v1, Kind=PodTemplate",
            "v1, Kind=ReplicationController",
            "v1, Kind=ResourceQuota",
            "v1, Kind=LimitRange",
            "v1, Kind=PersistentVolume",
            "v1, Kind=PersistentVolumeClaim",
            "apps/v1, Kind=StatefulSet",
            "apps/v1, Kind=DaemonSet",
            "apps/v1, Kind=ControllerRevision",
            "batch/v1, Kind=Job",
            "batch/v1, Kind=CronJob",
            "autoscaling/v2, Kind=HorizontalPodAutoscaler",
            "autoscaling/v1, Kind=HorizontalPodAutoscaler",
            "policy/v1, Kind=PodDisruptionBudget",
            "scheduling.k8s.io/v1, Kind=PriorityClass",
            "node.k8s.io/v1, Kind=RuntimeClass",
            "storage.k8s.io/v1, Kind=StorageClass",
            "storage.k8s.io/v1, Kind=VolumeAttachment",
            "storage.k8s.io/v1, Kind=CSIDriver",
            "storage.k8s.io/v1, Kind=CSINode",
            "storage.k8s.io/v1, Kind=CSIStorageCapacity",
            "storage.k8s.io/v1, Kind=VolumeAttributesClass",
            "coordination.k8s.io/v1, Kind=Lease",
            "discovery.k8s.io/v1, Kind=EndpointSlice",
            "events.k8s.io/v1, Kind=Event",
            "authentication.k8s.io/v1, Kind=TokenReview",
            "authentication.k8s.io/v1, Kind=SelfSubjectReview",
            "authorization.k8s.io/v1, Kind=SubjectAccessReview",
            "authorization.k8s.io/v1, Kind=LocalSubjectAccessReview",
            "authorization.k8s.io/v1, Kind=SelfSubjectAccessReview",
            "authorization.k8s.io/v1, Kind=SelfSubjectRulesReview",
            "rbac.authorization.k8s.io/v1, Kind=Role",
            "rbac.authorization.k8s.io/v1, Kind=ClusterRole",
            "rbac.authorization.k8s.io/v1, Kind=RoleBinding",
            "rbac.authorization.k8s.io/v1, Kind=ClusterRoleBinding",
            "certificates.k8s.io/v1, Kind=CertificateSigningRequest",
            "networking.k8s.io/v1, Kind=Ingress",
            "networking.k8s.io/v1, Kind=IngressClass",
            "networking.k8s.io/v1, Kind=NetworkPolicy",
            "networking.k8s.io/v1, Kind=ServiceCIDR",
            "networking.k8s.io/v1, Kind=IPAddress",
            "admissionregistration.k8s.io/v1, Kind=ValidatingWebhookConfiguration",
            "admissionregistration.k8s.io/v1, Kind=MutatingWebhookConfiguration",
            "admissionregistration.k8s.io/v1, Kind=ValidatingAdmissionPolicy",
            "admissionregistration.k8s.io/v1, Kind=ValidatingAdmissionPolicyBinding",
            "admissionregistration.k8s.io/v1, Kind=MutatingAdmissionPolicy",
            "admissionregistration.k8s.io/v1, Kind=MutatingAdmissionPolicyBinding",
            "apiextensions.k8s.io/v1, Kind=CustomResourceDefinition",
            "apiregistration.k8s.io/v1, Kind=APIService",
            "flowcontrol.apiserver.k8s.io/v1, Kind=FlowSchema",
            "flowcontrol.apiserver.k8s.io/v1, Kind=PriorityLevelConfiguration",
            "resource.k8s.io/v1, Kind=ResourceClaim",
            "resource.k8s.io/v1, Kind=ResourceClaimTemplate",
            "resource.k8s.io/v1, Kind=DeviceClass",
            "resource.k8s.io/v1, Kind=ResourceSlice",
            "metrics.k8s.io/v1beta1, Kind=NodeMetrics",
            "metrics.k8s.io/v1beta1, Kind=PodMetrics",
        ]
    );
    for resource in registry.all() {
        // Columns and cells agree, and no method trips over an empty object.
        let strategy = &resource.strategy;
        let mut empty = json!({});
        strategy.default(&mut empty);
        strategy.prepare_create(&mut empty);
        strategy.prepare_update(&mut empty, &json!({}));
        strategy.validate(&empty);
        strategy.validate_update(&empty, &json!({}));
        assert_eq!(strategy.columns().len(), strategy.cells(&empty, 0).len(), "{}", resource.gvk());
        let fields: Vec<&str> = strategy.fields(&empty).iter().map(|f| f.0).collect();
        assert_eq!(fields, strategy.field_names(), "{}", resource.gvk());
    }
    for wrong in [json!({"spec": "x", "metadata": [], "data": 1, "status": 2, "subsets": {}}), json!([]), json!(null)] {
        for resource in registry.all() {
            let mut object = wrong.clone();
            resource.strategy.default(&mut object);
            resource.strategy.prepare_create(&mut object);
            resource.strategy.validate(&object);
            resource.strategy.cells(&object, 0);
        }
    }
}

#[test]
fn a_kind_from_its_schema_alone() {
    let schema = Schema::from_openapi("Widget", &json!({"type": "object", "properties": {"spec": {"type": "object"}}}));
    let widget = from_schema(
        names("shop.example/v1", "widgets", "Widget", &["wd"], Scope::Namespaced),
        with_status(),
        schema.unwrap(),
    );
    assert_eq!((widget.gvk().api_version().as_str(), widget.namespaced()), ("shop.example/v1", true));
    assert_eq!(widget.strategy.columns().len(), 2);
    assert!(widget.schema.source().is_some());
}

#[test]
fn events_are_one_storage_under_two_names() {
    let (core, view) = (kind("v1", "Event"), kind("events.k8s.io/v1", "Event"));
    assert!(core.storage.is_none());
    assert_eq!(view.storage.as_ref().unwrap().plural, "events");
    let stored = json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"},
        "message": "it broke", "involvedObject": {"kind": "Pod", "name": "p"}, "source": {"component": "kubelet"},
        "reportingComponent": "kubelet", "reportingInstance": "n1", "count": 3, "type": "Warning", "reason": "Failed",
        "firstTimestamp": "1970-01-01T00:00:10Z", "lastTimestamp": "1970-01-01T00:01:00Z"});
    let shown = view.strategy.from_storage(stored.clone());
    assert_eq!(
        shown,
        json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"},
            "note": "it broke", "regarding": {"kind": "Pod", "name": "p"}, "deprecatedSource": {"component": "kubelet"},
            "reportingController": "kubelet", "reportingInstance": "n1", "deprecatedCount": 3, "type": "Warning",
            "reason": "Failed", "deprecatedFirstTimestamp": "1970-01-01T00:00:10Z",
            "deprecatedLastTimestamp": "1970-01-01T00:01:00Z"})
    );
    assert_eq!(view.strategy.to_storage(shown.clone()), stored);
    assert_eq!(view.strategy.cells(&shown, 90), core.strategy.cells(&stored, 90));
    assert_eq!(view.strategy.fields(&shown)[2], ("regarding.name", "p".to_string()));
}
