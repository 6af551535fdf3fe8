use copepod_api::Gvk;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::schema;

mod golden;
mod kinds;

#[test]
fn json_reports_duplicate_fields() {
    let body = br#"{"spec": {"x": 1, "x": 2, "list": [{"a": 1}, {"a": 1, "a": 3}]}, "spec": {"y": 1}}"#;
    let decoded = decode("application/json; charset=utf-8", body, None).unwrap();
    assert_eq!(decoded.value, json!({"spec": {"y": 1}}));
    assert_eq!(
        decoded.duplicate_fields,
        ["duplicate field \"spec.x\"", "duplicate field \"spec.list[1].a\"", "duplicate field \"spec\""]
    );
}

#[test]
fn bad_bodies_are_refused_with_their_place() {
    let malformed = |content_type, body: &[u8]| decode(content_type, body, None).unwrap_err().to_string();
    assert_eq!(malformed(JSON, b"{\"a\": }"), "invalid JSON: expected value at line 1 column 7");
    assert!(malformed(JSON, b"{} {}").contains("trailing"));
    assert!(malformed(JSON, "[".repeat(1000).as_bytes()).contains("recursion limit"));
    let yaml = malformed(YAML, b"a: 1\nb: [1\nc: 2\n");
    assert!(yaml.starts_with("invalid YAML at line "), "{yaml}");
    assert!(malformed(PROTOBUF, b"{}").contains("does not appear to be a protobuf message"));
    assert!(malformed(PROTOBUF, b"k8s\0\xff\xff").starts_with("invalid protobuf"));
    assert!(malformed(PROTOBUF, b"k8s\0").contains("names no kind"));
    assert_eq!(decode("text/html", b"", None), Err(CodecError::UnsupportedMediaType("text/html".into())));
    assert_eq!(decode(JSON, &vec![b' '; MAX_BODY + 1], None), Err(CodecError::TooLarge));
}

#[test]
fn yaml_reads_what_json_does() {
    let body = b"apiVersion: v1\nkind: ConfigMap\ndata: &d\n  a: '1'\n  n: null\ncopy: *d\nf: 1.5\nt: true\nlist:\n- 1\n- x: |\n    text\n";
    assert_eq!(
        decode(YAML, body, None).unwrap().value,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1", "n": null}, "copy": {"a": "1", "n": null},
               "f": 1.5, "t": true, "list": [1, {"x": "text\n"}]})
    );
    let twice = decode(YAML, b"a: 1\nb: 2\na: 3\n", None).unwrap();
    assert_eq!(twice.value, json!({"a": 3, "b": 2}));
    assert_eq!(twice.duplicate_fields, ["line 3: key \"a\" already set in map"]);
    assert_eq!(yaml::decode_all(b"a: 1\n---\n---\nb: 2\n").unwrap(), [json!({"a": 1}), json!({"b": 2})]);
}

#[test]
fn yaml_alias_bombs_are_refused() {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for i in 1..9 {
        let refs = vec![format!("*a{}", i - 1); 9].join(", ");
        bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
    }
    assert!(decode(YAML, bomb.as_bytes(), None).is_err());
    assert!(decode(YAML, "[".repeat(5000).as_bytes(), None).is_err());
}

/// Objects as Go prints them: encoding and decoding gives them back unchanged.
fn objects() -> Vec<Value> {
    let meta = json!({"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "7", "generation": 2, "creationTimestamp": "2026-11-21T10:00:00Z",
        "labels": {"x": "y"}, "finalizers": ["f"], "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "v", "controller": false}],
        "managedFields": [{"manager": "m", "operation": "Apply", "apiVersion": "v1", "time": "2026-11-21T10:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {".": {}}}}]});
    let pod = json!({
        "containers": [{
            "name": "c", "image": "i", "command": ["a", ""], "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}},
            "env": [{"name": "N", "value": "v"}, {"name": "M", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k", "optional": false}}}],
            "envFrom": [{"secretRef": {"name": "s"}}],
            "ports": [{"containerPort": 80, "name": "http", "protocol": "TCP"}],
            "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 5},
            "readinessProbe": {"tcpSocket": {"port": 0}},
            "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        }],
        "ephemeralContainers": [{"name": "debug", "image": "d", "resources": {}, "targetContainerName": "c"}],
        "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Mi"}}, {"name": "w", "configMap": {"name": "cm", "defaultMode": 420}}, {"name": "e", "emptyDir": {}}],
        "terminationGracePeriodSeconds": 0, "enableServiceLinks": false, "securityContext": {},
    });
    vec![
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod, "status": {"phase": "Running", "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-11-21T10:00:00Z"}]}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": pod}, "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}}}, "status": {}}),
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "r"}, "spec": {"replicas": 3, "template": {"metadata": {}, "spec": pod}}, "status": {"replicas": 0}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"k": "", "l": "x\ny"}, "binaryData": {"b": "AAEC"}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"k": "c2VjcmV0"}, "type": "Opaque"}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [{"name": "h", "protocol": "TCP", "port": 80, "targetPort": "http"}, {"port": 81, "targetPort": 8080}],
            "clusterIP": "10.43.0.1", "clusterIPs": ["10.43.0.1"], "allocateLoadBalancerNodePorts": false}, "status": {"loadBalancer": {}}}),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": {"podCIDR": "10.64.0.0/20", "unschedulable": true}, "status": {"capacity": {"cpu": "2"},
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}, "nodeInfo": {"machineID": "", "systemUUID": "", "bootID": "", "kernelVersion": "6", "osImage": "o",
            "containerRuntimeVersion": "c", "kubeletVersion": "v1.36.0", "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64"}}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
        json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "e"}, "subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "e"}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": false}}], "ports": [{"name": "", "port": 80, "protocol": "TCP"}]}),
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"}, "spec": {"holderIdentity": "", "leaseDurationSeconds": 0, "renewTime": "2026-11-21T10:00:00.000001Z"}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "s"}, "automountServiceAccountToken": false}),
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e"}, "involvedObject": {"kind": "Pod"}, "reason": "R", "source": {"component": "c"},
            "firstTimestamp": "2026-11-21T10:00:00Z", "count": 1, "type": "Normal", "reportingComponent": "", "reportingInstance": ""}),
        json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"}, "eventTime": "2026-11-21T10:00:00.500000Z", "reason": "R", "regarding": {}, "deprecatedSource": {}}),
        json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "9", "remainingItemCount": 0}, "items": [{"metadata": {"name": "p"}, "spec": pod, "status": {}}]}),
        json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": 2}, "status": {"replicas": 0, "selector": "a=b"}}),
        json!({"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "reason": "NotFound", "code": 404, "message": "m", "details": {"name": "x", "causes": [{"field": "f"}]}}),
        json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": "u"}, "propagationPolicy": "Background"}),
        json!({"apiVersion": "meta.k8s.io/v1", "kind": "PatchOptions", "force": false, "fieldManager": "m"}),
        json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.x.io"}, "status": {},
            "spec": {"group": "x.io", "version": "v1", "groupPriorityMinimum": 0, "versionPriority": 15, "caBundle": "YQ==",
                "service": {"namespace": "n", "name": "s", "port": 0}}}),
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}, "spec": {"user": "u", "extra": {"k": ["v"]}}, "status": {"allowed": false}}),
    ]
}

#[test]
fn protobuf_gives_back_what_it_got() {
    for object in objects() {
        let body = encode_protobuf(&object).unwrap();
        assert!(protobuf::is_protobuf(&body));
        let decoded = decode("application/vnd.kubernetes.protobuf", &body, None).unwrap().value;
        assert_eq!(decoded, object);
        let gvk = Gvk::from_api_version(object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap());
        if let Some(schema) = schema::builtin(&gvk) {
            assert_eq!(schema.decode(&mut decoded.clone()).unwrap().unknown, Vec::<String>::new(), "{gvk}");
        }
    }
}

/// `key: value` as protobuf, length-delimited.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

#[test]
fn protobuf_zero_values_follow_gos_types() {
    // A Deployment as Go's encoder writes it: every non-pointer field is there, zero or not.
    let spec = [vec![0x08, 0], vec![0x28, 0], vec![0x38, 0]].concat();
    let raw = [field(1, &[field(1, b"d"), field(3, b""), field(8, &[])].concat()), field(2, &spec)].concat();
    let meta = [field(1, b"apps/v1"), field(2, b"Deployment")].concat();
    let body = [b"k8s\0".to_vec(), field(1, &meta), field(2, &raw), field(3, b""), field(4, b"")].concat();
    // `replicas` is a pointer, so its zero counts; `minReadySeconds`, `paused`, `namespace` and a zero time do not.
    assert_eq!(
        decode(PROTOBUF, &body, None).unwrap().value,
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": 0}})
    );
    // The hint names the kind of a body that does not.
    let bare = [b"k8s\0".to_vec(), field(2, &raw)].concat();
    let hint = Gvk::new("apps", "v1", "Deployment");
    assert_eq!(decode(PROTOBUF, &bare, Some(&hint)).unwrap().value["kind"], "Deployment");
}

#[test]
fn kinds_without_messages_are_refused() {
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget"});
    assert!(matches!(encode_protobuf(&widget), Err(CodecError::NoProtobuf(_))));
    assert!(!protobuf::supports(&Gvk::new("example.com", "v1", "Widget")));
    assert!(protobuf::supports(&Gvk::new("", "v1", "PodList")));
    let wrong = json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": "none"}});
    assert_eq!(encode_protobuf(&wrong).unwrap_err().to_string(), "cannot encode a string as containers");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..4_usize) {
        let kinds = ["Pod", "Status", "DeleteOptions", "Event"];
        let hint = Gvk::new("", "v1", kinds[kind]);
        let body = [b"k8s\0".to_vec(), field(2, &bytes[..bytes.len().min(120)])].concat();
        for content_type in [JSON, YAML, PROTOBUF] {
            let _ = decode(content_type, &bytes, Some(&hint));
            let _ = decode(content_type, &body, Some(&hint));
        }
    }

    #[test]
    fn mutated_messages_never_panic(which in 0..21_usize, at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let all = objects();
        let mut body = encode_protobuf(&all[which % all.len()]).unwrap();
        let i = at.index(body.len());
        body[i] = byte;
        if let Ok(decoded) = decode(PROTOBUF, &body, None) {
            let _ = encode_protobuf(&decoded.value);
        }
        let _ = decode(PROTOBUF, &body[..cut.index(body.len())], None);
    }

    #[test]
    fn random_yaml_never_panics(text in "[a-z0-9:\\-&*\\[\\]{}, \\n'\"|>!#?]{0,200}") {
        let _ = decode(YAML, text.as_bytes(), None);
    }
}
