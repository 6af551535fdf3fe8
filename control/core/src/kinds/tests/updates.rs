use super::*;

/// Prepares and checks an update; `expected` are the starts of all messages.
pub(super) fn update(resource: &Resource, old: &Value, mut new: Value, expected: &[&str]) -> Value {
    resource.strategy.prepare_update(&mut new, old);
    let errors: Vec<String> = resource.strategy.validate_update(&new, old).iter().map(ToString::to_string).collect();
    let matches = errors.len() == expected.len() && errors.iter().zip(expected).all(|(e, x)| e.starts_with(x));
    assert!(matches, "{new}\n got {errors:#?}\nwant {expected:#?}");
    new
}

pub(super) fn with(old: &Value, pointer: &str, value: Value) -> Value {
    let mut new = old.clone();
    *new.pointer_mut(pointer).unwrap() = value;
    new
}

#[test]
fn pods() {
    let resource = kind("v1", "Pod");
    let old = defaulted(
        &resource,
        json!({"spec": {"containers": [{"name": "a", "image": "a:1", "args": ["1"]}],
        "tolerations": [{"key": "x", "operator": "Exists"}], "activeDeadlineSeconds": 10}}),
    );
    update(&resource, &old, old.clone(), &[]);
    update(&resource, &old, with(&old, "/spec/containers/0/image", json!("a:2")), &[]);
    update(&resource, &old, with(&old, "/spec/activeDeadlineSeconds", json!(5)), &[]);
    let more = json!([{"key": "x", "operator": "Exists"}, {"key": "y", "operator": "Exists"}]);
    update(&resource, &old, with(&old, "/spec/tolerations", more), &[]);
    update(
        &resource,
        &old,
        with(&old, "/spec/activeDeadlineSeconds", json!(20)),
        &["spec.activeDeadlineSeconds: Invalid value: 20: must be less than or equal to previous value"],
    );
    update(
        &resource,
        &old,
        with(&old, "/spec/tolerations", json!([])),
        &["spec.tolerations: Forbidden: existing toleration"],
    );
    update(
        &resource,
        &old,
        with(&old, "/spec/containers", json!([])),
        &["spec.containers: Forbidden: pod updates may not add or remove containers"],
    );
    update(
        &resource,
        &old,
        with(&old, "/spec/containers/0/args", json!(["2"])),
        &[
            "spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`",
        ],
    );
    let mut waits = old.clone();
    waits["spec"]["schedulingGates"] = json!([{"name": "g"}]);
    waits["spec"]["nodeSelector"] = json!({"a": "1"});
    let mut other = waits.clone();
    other["spec"]["schedulingGates"] = json!([{"name": "h"}]);
    other["spec"]["nodeSelector"] = json!({"b": "1"});
    update(
        &resource,
        &waits,
        other,
        &[
            "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'h'",
            "spec.nodeSelector: Invalid value: {\"b\":\"1\"}: only additions to spec.nodeSelector are allowed",
        ],
    );
    let mut closer = waits.clone();
    closer["spec"]["nodeSelector"] = json!({"a": "1", "b": "2"});
    closer["spec"]["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
        "nodeSelectorTerms": [{"matchExpressions": [{"key": "z", "operator": "Exists"}]}]}}});
    update(&resource, &waits, closer.clone(), &[]);
    let terms = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
    let looser = with(&closer, terms, json!([{}]));
    update(
        &resource,
        &closer,
        looser,
        &[
            "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]: Invalid value: {}: only additions are allowed",
        ],
    );
    let mut mirror = old.clone();
    mirror["metadata"] = json!({"annotations": {"kubernetes.io/config.mirror": "x"}});
    update(
        &resource,
        &old,
        mirror,
        &["metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not add mirror pod annotation"],
    );
    let mut bound = old.clone();
    bound["spec"]["nodeName"] = json!("n1");
    assert!(resource.strategy.bumps_generation(&bound, &old));
    assert!(
        !resource.strategy.bumps_generation(&with(&old, "/spec/tolerations", old["spec"]["tolerations"].clone()), &old)
    );
}

#[test]
fn services() {
    let resource = kind("v1", "Service");
    let old = defaulted(
        &resource,
        json!({"spec": {"type": "NodePort", "clusterIP": "10.43.0.5", "clusterIPs": ["10.43.0.5"],
        "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "ports": [{"port": 80, "nodePort": 30080}]}}),
    );
    let without = |service: &Value| {
        let mut new = service.clone();
        let spec = new["spec"].as_object_mut().unwrap();
        spec.remove("clusterIP");
        spec.remove("clusterIPs");
        spec["ports"][0].as_object_mut().unwrap().remove("nodePort");
        new
    };
    assert_eq!(update(&resource, &old, without(&old), &[]), old, "what was allocated stays");
    update(
        &resource,
        &old,
        with(&old, "/spec/clusterIP", json!("10.43.0.6")),
        &["spec.clusterIPs[0]: Invalid value: [\"10.43.0.6\"]: may not change once set"],
    );
    let plain = update(&resource, &old, with(&old, "/spec/type", json!("ClusterIP")), &[]);
    assert_eq!(plain["spec"]["ports"][0].get("nodePort"), None);
    assert_eq!(plain["spec"].get("externalTrafficPolicy"), None);
    assert!(resource.strategy.validate(&plain).is_empty(), "{:?}", resource.strategy.validate(&plain));
    let mut external = with(&old, "/spec/type", json!("ExternalName"));
    external["spec"]["externalName"] = json!("x.example");
    let external = update(&resource, &old, external, &[]);
    assert_eq!(external["spec"].get("clusterIP"), None);
    assert!(resource.strategy.validate(&external).is_empty());
}

#[test]
fn workloads() {
    let resource = kind("apps/v1", "Deployment");
    let old = defaulted(&resource, deployment(json!({})));
    update(
        &resource,
        &old,
        with(&old, "/spec/selector", json!({"matchLabels": {"app": "x"}})),
        &["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"x\"}}: field is immutable"],
    );
    let bumps = |new: &Value| resource.strategy.bumps_generation(new, &old);
    assert!(bumps(&with(&old, "/spec/replicas", json!(2))));
    assert!(bumps(&with(&old, "/metadata", json!({"name": "web", "annotations": {"a": "b"}}))));
    assert!(!bumps(&with(&old, "/metadata", json!({"name": "web", "labels": {"a": "b"}}))));
    let set = kind("apps/v1", "ReplicaSet");
    assert!(!set.strategy.bumps_generation(&with(&old, "/metadata", json!({"annotations": {"a": "b"}})), &old));
}

#[test]
fn immutable_fields() {
    let maps = kind("v1", "ConfigMap");
    let old = json!({"immutable": true, "data": {"a": "1"}});
    update(&maps, &old, json!({"immutable": true, "data": {"a": "1"}, "metadata": {"labels": {"x": "y"}}}), &[]);
    update(
        &maps,
        &old,
        json!({"data": {"a": "2"}}),
        &[
            "immutable: Forbidden: field is immutable when `immutable` is set",
            "data: Forbidden: field is immutable when `immutable` is set",
        ],
    );
    let secrets = kind("v1", "Secret");
    update(
        &secrets,
        &json!({"type": "Opaque"}),
        json!({"type": "x"}),
        &["type: Invalid value: \"x\": field is immutable"],
    );
    let slices = kind("discovery.k8s.io/v1", "EndpointSlice");
    update(
        &slices,
        &json!({"addressType": "IPv4"}),
        json!({"addressType": "IPv6"}),
        &["addressType: Invalid value: \"IPv6\": field is immutable"],
    );
    let nodes = kind("v1", "Node");
    let old = json!({"spec": {"podCIDR": "10.64.0.0/20", "podCIDRs": ["10.64.0.0/20"]}});
    update(
        &nodes,
        &old,
        json!({"spec": {"podCIDR": "10.65.0.0/20"}}),
        &["spec.podCIDRs: Forbidden: node updates may not change"],
    );
    let unset = update(&nodes, &json!({"spec": {}}), json!({"spec": {"podCIDR": "10.64.0.0/20"}}), &[]);
    assert_eq!(unset["spec"]["podCIDRs"], json!(["10.64.0.0/20"]));
    let namespaces = kind("v1", "Namespace");
    let old = json!({"spec": {"finalizers": ["kubernetes"]}});
    assert_eq!(update(&namespaces, &old, json!({"spec": {}}), &[]), old);
}
