use super::*;

/// Defaults, then validates; `expected` are the starts of all messages, in order.
pub(super) fn check(api_version: &str, kind_: &str, object: Value, expected: &[&str]) {
    let resource = kind(api_version, kind_);
    let object = defaulted(&resource, object);
    let errors: Vec<String> = resource.strategy.validate(&object).iter().map(ToString::to_string).collect();
    let matches = errors.len() == expected.len() && errors.iter().zip(expected).all(|(e, x)| e.starts_with(x));
    assert!(matches, "{object}\n got {errors:#?}\nwant {expected:#?}");
}

fn container(fields: Value, expected: &[&str]) {
    let mut item = json!({"name": "a", "image": "a:1"});
    for (key, value) in fields.as_object().unwrap() {
        item[key] = value.clone();
    }
    let expected: Vec<String> = expected.iter().map(|e| format!("spec.containers[0].{e}")).collect();
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    check("v1", "Pod", json!({"spec": {"containers": [item], "volumes": [{"name": "v"}]}}), &expected);
}

#[test]
fn containers() {
    container(json!({}), &[]);
    container(json!({"name": ""}), &["name: Required value"]);
    container(json!({"name": "A"}), &["name: Invalid value: \"A\": a lowercase RFC 1123 label"]);
    container(json!({"image": ""}), &["image: Required value"]);
    container(json!({"image": " a"}), &["image: Invalid value: \" a\": must not have leading or trailing whitespace"]);
    container(
        json!({"imagePullPolicy": "Now"}),
        &["imagePullPolicy: Unsupported value: \"Now\": supported values: \"Always\", \"IfNotPresent\", \"Never\""],
    );
    container(
        json!({"ports": [{"containerPort": 0}, {"containerPort": 70000}, {"containerPort": 1, "protocol": "X"}]}),
        &[
            "ports[0].containerPort: Required value",
            "ports[1].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            "ports[2].protocol: Unsupported value: \"X\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
        ],
    );
    container(
        json!({"ports": [{"containerPort": 1, "name": "x"}, {"containerPort": 2, "name": "x"}]}),
        &["ports[1].name: Duplicate value: \"x\""],
    );
    container(
        json!({"env": [{"name": ""}, {"name": "a=b"}, {"name": "A", "value": "1", "valueFrom": {}},
            {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}},
            {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "c"}}},
            {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['a']"}}}]}),
        &[
            "env[0].name: Required value",
            "env[1].name: Invalid value: \"a=b\": a valid environment variable name",
            "env[2].valueFrom: Invalid value: \"\": must specify one of:",
            "env[3].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.x\": error converting fieldPath: field label not",
            "env[4].valueFrom.configMapKeyRef.key: Required value",
        ],
    );
    container(json!({"envFrom": [{}]}), &["envFrom: Invalid value: \"\": must specify one of: `configMapRef`"]);
    container(
        json!({"volumeMounts": [{"name": "v", "mountPath": "/a"}, {"name": "w", "mountPath": "/a", "subPath": "../x"}]}),
        &[
            "volumeMounts[1].name: Not found: \"w\"",
            "volumeMounts[1].mountPath: Invalid value: \"/a\": must be unique",
            "volumeMounts.subPath: Invalid value: \"../x\": must not contain '..'",
        ],
    );
    container(
        json!({"resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "500m", "memory": "-1", "gpu": 1}}}),
        &[
            "resources.limits[gpu]: Invalid value: \"gpu\": must be a standard resource type or fully qualified",
            "resources.limits[gpu]: Invalid value: \"gpu\": must be a standard resource for containers",
            "resources.limits[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
            "resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 500m",
            "resources.requests[gpu]: Invalid value: \"gpu\": must be a standard",
            "resources.requests[gpu]: Invalid value: \"gpu\": must be a standard resource for containers",
            "resources.requests[memory]: Invalid value: \"-1\": must be greater than or equal to 0",
        ],
    );
    container(
        json!({"livenessProbe": {"httpGet": {"port": "http"}, "tcpSocket": {"port": 1}, "successThreshold": 2},
            "readinessProbe": {}, "startupProbe": {"exec": {"command": []}}}),
        &[
            "livenessProbe.tcpSocket: Forbidden: may not specify more than 1 handler type",
            "livenessProbe.successThreshold: Invalid value: 2: must be 1",
            "readinessProbe: Required value: must specify a handler type",
            "startupProbe.exec.command: Required value",
        ],
    );
}

#[test]
fn pods() {
    let pod = |spec: Value| json!({"spec": spec});
    let one = json!([{"name": "a", "image": "a:1"}]);
    check("v1", "Pod", json!({}), &["spec.containers: Required value"]);
    check(
        "v1",
        "Pod",
        pod(json!({"containers": one, "initContainers": one})),
        &["spec.initContainers[0].name: Duplicate value: \"a\""],
    );
    check(
        "v1",
        "Pod",
        pod(json!({"containers": one, "restartPolicy": "Sometimes", "nodeSelector": {"a": "b c"},
            "activeDeadlineSeconds": 0, "terminationGracePeriodSeconds": -1, "hostname": "A.b"})),
        &[
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            "spec.nodeSelector: Invalid value: \"b c\": a valid label",
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive",
            "spec.hostname: Invalid value: \"A.b\": a lowercase RFC 1123 label",
        ],
    );
    check(
        "v1",
        "Pod",
        pod(json!({"containers": one, "volumes": [{"name": "v", "emptyDir": {}, "secret": {"secretName": "s"}},
            {"name": "v", "hostPath": {"path": "/a/../b"}}, {"configMap": {"items": [{"key": "k", "path": "/x"}]}}]})),
        &[
            "spec.volumes[0].secret: Forbidden: may not specify more than 1 volume type",
            "spec.volumes[1].hostPath.path: Invalid value: \"/a/../b\": must not contain '..'",
            "spec.volumes[2].configMap.name: Required value",
            "spec.volumes[2].configMap.items[0].path: Invalid value: \"/x\": must be a relative path",
            "spec.volumes[2].name: Required value",
        ],
    );
    check(
        "v1",
        "Pod",
        pod(json!({"containers": one, "tolerations": [{"operator": "Equal", "value": "x"},
            {"key": "a", "effect": "Never"}, {"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}]})),
        &[
            "spec.tolerations[0].operator: Invalid value: \"Equal\": operator must be Exists when `key` is empty",
            "spec.tolerations[1].effect: Unsupported value: \"Never\"",
        ],
    );
    check(
        "v1",
        "Pod",
        pod(json!({"containers": one, "initContainers": [
            {"name": "i", "image": "a:1", "livenessProbe": {"tcpSocket": {"port": 1}}},
            {"name": "j", "image": "a:1", "restartPolicy": "Always", "livenessProbe": {"tcpSocket": {"port": 1}}}]})),
        &["spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers"],
    );
}

#[test]
fn workloads() {
    check("apps/v1", "Deployment", deployment(json!({})), &[]);
    check(
        "apps/v1",
        "Deployment",
        deployment(json!({"restartPolicy": "Never"})),
        &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
    );
    let with = |pointer: &str, value: Value| {
        let mut object = deployment(json!({}));
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        *object.pointer_mut(parent).unwrap() = {
            let mut p = object.pointer(parent).unwrap().clone();
            p[key] = value;
            p
        };
        object
    };
    for (object, expected) in [
        (with("/spec/selector", Value::Null), "spec.selector: Required value"),
        (
            with("/spec/selector", json!({})),
            "spec.selector: Invalid value: {}: empty selector is invalid for deployment",
        ),
        (
            with("/spec/selector/matchLabels", json!({"app": "other"})),
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
        ),
        (with("/spec/replicas", json!(-1)), "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        (
            with("/spec/strategy", json!({"type": "Now"})),
            "spec.strategy.type: Unsupported value: \"Now\": supported values: \"Recreate\", \"RollingUpdate\"",
        ),
        (
            with("/spec/strategy", json!({"type": "Recreate", "rollingUpdate": {}})),
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            with("/spec/strategy", json!({"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}})),
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"0%\": may not be 0 when `maxSurge` is 0",
        ),
        (
            with("/spec/strategy", json!({"rollingUpdate": {"maxSurge": "x"}})),
            "spec.strategy.rollingUpdate.maxSurge: Invalid value: \"x\": a valid percent string must",
        ),
        (
            with("/spec/minReadySeconds", json!(600)),
            "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
        ),
        (with("/spec/template/spec/containers", json!([])), "spec.template.spec.containers: Required value"),
    ] {
        check("apps/v1", "Deployment", object, &[expected]);
    }
    check(
        "apps/v1",
        "ReplicaSet",
        with("/spec/selector", json!({})),
        &["spec.selector: Invalid value: {}: empty selector is invalid for replica set"],
    );
}

#[test]
fn services() {
    let check = |mut spec: Value, expected: &[&str]| {
        if let Some(address) = spec.get("clusterIP").cloned() {
            spec["clusterIPs"] = json!([address]);
        }
        check("v1", "Service", json!({"spec": spec}), expected);
    };
    check(json!({"ports": [{"port": 80}]}), &[]);
    check(json!({}), &["spec.ports: Required value"]);
    check(json!({"clusterIP": "None"}), &[]);
    check(
        json!({"ports": [{"port": 80}, {"port": 80, "name": "b"}]}),
        &[
            "spec.ports[0].name: Required value",
            "spec.ports[1]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,",
        ],
    );
    check(
        json!({"ports": [{"port": 80, "nodePort": 30000, "targetPort": "Bad"}]}),
        &[
            "spec.ports[0].targetPort: Invalid value: \"Bad\": must contain only",
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ],
    );
    check(
        json!({"type": "Magic", "ports": [{"port": 80}]}),
        &[
            "spec.type: Unsupported value: \"Magic\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
        ],
    );
    check(json!({"type": "ExternalName"}), &["spec.externalName: Required value"]);
    check(
        json!({"clusterIP": "x", "ports": [{"port": 80}]}),
        &["spec.clusterIPs[0]: Invalid value: \"x\": must be a valid IP"],
    );
    check(
        json!({"clusterIP": "None", "type": "NodePort", "ports": [{"port": 80}]}),
        &["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
    );
    assert!(kind("v1", "Service").strategy.validate_name("1web").is_err());
    assert!(kind("v1", "Namespace").strategy.validate_name("a.b").is_err());
    assert!(kind("v1", "Pod").strategy.validate_name("a.b").is_ok());
}

#[test]
fn other_kinds() {
    check("v1", "ConfigMap", json!({"data": {"a/b": "x"}}), &["data[a/b]: Invalid value: \"a/b\": a valid config key"]);
    check("v1", "ConfigMap", json!({"data": {"a": "x"}, "binaryData": {"a": "eA=="}}), &["data[a]: Invalid value"]);
    check(
        "v1",
        "ConfigMap",
        json!({"data": {"a": "x".repeat(1_100_000)}}),
        &[": Too long: may not be more than 1048576 bytes"],
    );
    check(
        "v1",
        "Secret",
        json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
        &["data[tls.key]: Required value"],
    );
    check(
        "v1",
        "Secret",
        json!({"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "{"}}),
        &["data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": must be valid json"],
    );
    check(
        "coordination.k8s.io/v1",
        "Lease",
        json!({"spec": {"leaseDurationSeconds": 0}}),
        &["spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0"],
    );
    check(
        "v1",
        "Node",
        json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}, {"key": "b", "effect": "x"}]}}),
        &["metadata.taints[1]: Duplicate value", "metadata.taints[2].effect: Unsupported value: \"x\""],
    );
    check(
        "v1",
        "Endpoints",
        json!({"subsets": [{"addresses": [{"ip": "x"}], "ports": [{"port": 0}]}]}),
        &[
            "subsets[0].addresses[0].ip: Invalid value: \"x\": must be a valid IP address",
            "subsets[0].ports[0].port: Invalid value: 0: must be between",
        ],
    );
    check(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        json!({"addressType": "IPv6", "endpoints": [{"addresses": []}, {"addresses": ["10.0.0.1"]}]}),
        &[
            "endpoints[0].addresses: Required value: must contain at least 1 address",
            "endpoints[1].addresses[0]: Invalid value: \"10.0.0.1\": must be an IPv6 address",
        ],
    );
    check(
        "v1",
        "Event",
        json!({"metadata": {"namespace": "a"}, "involvedObject": {"namespace": "b"}}),
        &["involvedObject.namespace: Invalid value: \"b\": does not match event.namespace"],
    );
    check(
        "events.k8s.io/v1",
        "Event",
        json!({"metadata": {"namespace": "a"}, "regarding": {"namespace": "a"}, "eventTime": "t", "type": "Odd",
            "action": "a", "reason": "r", "reportingInstance": "i"}),
        &[
            "reportingController: Required value",
            "reportingController: Invalid value: \"\": name part must be non-empty",
        ],
    );
    check(
        "v1",
        "Namespace",
        json!({"spec": {"finalizers": ["x"]}}),
        &["spec.finalizers[0]: Invalid value: \"x\": name is neither"],
    );
}
