//! One row for each rule of Services and their endpoints, nodes, events and statuses, and exactly what is said.

use super::updates::{update, with};
use super::*;

/// What an object is told on a create, joined by `|`.
fn told(api_version: &str, kind_: &str, object: Value) -> String {
    let resource = kind(api_version, kind_);
    let mut object = defaulted(&resource, object);
    let status = object.get("status").cloned();
    resource.strategy.prepare_create(&mut object);
    if let Some(status) = status {
        object["status"] = status;
    }
    let mut errors = resource.strategy.validate(&object);
    errors.extend(resource.strategy.validate_create(&object));
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("|")
}

fn each(api_version: &str, kind_: &str, rows: Vec<(Value, &str)>) {
    for (object, expected) in rows {
        assert_eq!(told(api_version, kind_, object.clone()), expected, "{object}");
    }
}

fn service(fields: Value) -> Value {
    let mut spec = json!({"ports": [{"port": 80}], "selector": {"a": "b"}});
    for (key, value) in fields.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"spec": spec})
}

#[test]
fn services() {
    const BALANCER: &str = "Forbidden: may only be used when `type` is 'LoadBalancer'";
    let rows = vec![
        (json!({}), String::new()),
        (json!({"ipFamilyPolicy": "PreferDualStack"}), String::new()),
        (
            json!({"ipFamilyPolicy": "RequireDualStack"}),
            "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services".into(),
        ),
        (json!({"ipFamilyPolicy": "RequireDualStack", "clusterIP": "None", "selector": {}}), String::new()),
        (
            json!({"ipFamilyPolicy": "X"}),
            "spec.ipFamilyPolicy: Unsupported value: \"X\": supported values: \"PreferDualStack\", \"RequireDualStack\", \"SingleStack\"".into(),
        ),
        (json!({"ipFamilies": ["IPv6"]}), "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster".into()),
        (json!({"ipFamilies": ["X"]}), "spec.ipFamilies[0]: Unsupported value: \"X\": supported values: \"IPv4\", \"IPv6\"".into()),
        (
            json!({"ipFamilies": ["IPv4", "IPv6"]}),
            "spec.ipFamilyPolicy: Invalid value: \"SingleStack\": must be 'RequireDualStack' or 'PreferDualStack' when \
             multiple IP families are specified".into(),
        ),
        (
            json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.2"]}),
            "spec.clusterIPs: Invalid value: [\"10.0.0.2\"]: first value must match `clusterIP`".into(),
        ),
        (
            json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "10.0.0.2"], "ipFamilyPolicy": "PreferDualStack"}),
            "spec.clusterIPs: Invalid value: [\"10.0.0.1\",\"10.0.0.2\"]: may specify no more than one IP for each IP family".into(),
        ),
        (json!({"loadBalancerSourceRanges": ["10.0.0.0/8"], "type": "LoadBalancer"}), String::new()),
        (
            json!({"loadBalancerSourceRanges": ["x"], "type": "LoadBalancer"}),
            "spec.LoadBalancerSourceRanges[0]: Invalid value: \"x\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".into(),
        ),
        (json!({"loadBalancerSourceRanges": ["10.0.0.0/8"]}), format!("spec.LoadBalancerSourceRanges: {BALANCER}")),
        (json!({"allocateLoadBalancerNodePorts": true}), format!("spec.allocateLoadBalancerNodePorts: {BALANCER}")),
        (json!({"loadBalancerClass": "a/b"}), format!("spec.loadBalancerClass: {BALANCER}")),
        (
            json!({"healthCheckNodePort": 30000}),
            "spec.healthCheckNodePort: Invalid value: 30000: may only be set when `type` is 'LoadBalancer' and \
             `externalTrafficPolicy` is 'Local'".into(),
        ),
        (
            json!({"ports": [{"port": 80, "appProtocol": "a b"}]}),
            "spec.ports[0].appProtocol: Invalid value: \"a b\": name part must consist of alphanumeric characters, '-', '_' or \
             '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex \
             used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')".into(),
        ),
        (
            json!({"ports": [{"port": 80, "nodePort": 30000}]}),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'".into(),
        ),
        (
            json!({"externalIPs": ["127.0.0.1"]}),
            "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)".into(),
        ),
        (
            json!({"trafficDistribution": "X"}),
            "spec.trafficDistribution: Unsupported value: \"X\": supported values: \"PreferClose\", \"PreferSameZone\", \"PreferSameNode\"".into(),
        ),
        (
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}}),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 0: must be greater than 0 and less than 86400".into(),
        ),
    ];
    each("v1", "Service", rows.iter().map(|(fields, expected)| (service(fields.clone()), expected.as_str())).collect());
    let annotated = |key: &str, value: &str| {
        let mut object = service(json!({"type": "LoadBalancer"}));
        object["metadata"] = json!({"annotations": {key: value}});
        object
    };
    let lit = |type_: &str, point: Value| {
        let mut object = service(json!({"type": type_}));
        object["status"] = json!({"loadBalancer": {"ingress": [point]}});
        object
    };
    each(
        "v1",
        "Service",
        vec![
            (
                annotated("service.beta.kubernetes.io/load-balancer-source-ranges", "10.0.0.0/8, x"),
                "metadata.annotations[service.beta.kubernetes.io/load-balancer-source-ranges]: Invalid value: \"x\": must be \
                 a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ),
            (lit("LoadBalancer", json!({"ip": "10.0.0.1"})), ""),
            (
                lit("LoadBalancer", json!({"ip": "bad"})),
                "status.loadBalancer.ingress[0].ip: Invalid value: \"bad\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ),
            (
                lit("LoadBalancer", json!({"hostname": "10.0.0.1"})),
                "status.loadBalancer.ingress[0].hostname: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
            ),
            (
                lit("ClusterIP", json!({"ip": "10.0.0.1"})),
                "status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'",
            ),
        ],
    );
}

#[test]
fn families_of_services() {
    let resource = kind("v1", "Service");
    let made = |fields: Value| {
        let mut object = defaulted(&resource, service(fields));
        resource.strategy.prepare_create(&mut object);
        object
    };
    for (fields, policy, families) in [
        (json!({}), "SingleStack", json!(["IPv4"])),
        (json!({"clusterIP": "None"}), "SingleStack", json!(["IPv4"])),
        (json!({"clusterIP": "None", "selector": {}}), "RequireDualStack", json!(["IPv4", "IPv6"])),
        (json!({"ipFamilyPolicy": "PreferDualStack"}), "PreferDualStack", json!(["IPv4"])),
    ] {
        let object = made(fields);
        assert_eq!((&object["spec"]["ipFamilyPolicy"], &object["spec"]["ipFamilies"]), (&json!(policy), &families));
    }
    assert!(made(json!({"type": "ExternalName"})).pointer("/spec/ipFamilies").is_none());
    let old = made(json!({"ipFamilyPolicy": "PreferDualStack", "sessionAffinityConfig": {"clientIP": {}}}));
    assert!(old.pointer("/spec/sessionAffinityConfig").is_none());
    let new = update(&resource, &old, defaulted(&resource, service(json!({}))), &[]);
    assert_eq!(new["spec"]["ipFamilyPolicy"], "PreferDualStack", "what is left out stays");
    let mut balanced = made(json!({"type": "LoadBalancer", "loadBalancerClass": "a/b"}));
    balanced["status"] = json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.1", "ipMode": "VIP"}]}});
    let other = with(&balanced, "/spec/loadBalancerClass", json!("a/c"));
    update(&resource, &balanced, other, &["spec.loadBalancerClass: Invalid value: \"a/c\": may not change once set"]);
    let new = update(&resource, &balanced, with(&balanced, "/spec/type", json!("ClusterIP")), &[]);
    assert_eq!(new["status"], json!({"loadBalancer": {}}), "a load balancer's address goes with it");
}

#[test]
fn endpoints_and_nodes() {
    let slice = |endpoint: Value| json!({"addressType": "IPv4", "endpoints": [endpoint]});
    each(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        vec![
            (slice(json!({"addresses": ["10.0.0.1"], "hostname": "a"})), ""),
            (
                slice(json!({"addresses": ["127.0.0.1"]})),
                "endpoints[0].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            ),
            (
                slice(json!({"addresses": ["10.0.0.1"], "hostname": "A_"})),
                "endpoints[0].hostname: Invalid value: \"A_\": a lowercase RFC 1123 label must consist of lower case \
                 alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or \
                 '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ),
        ],
    );
    each(
        "v1",
        "Endpoints",
        vec![(
            json!({"subsets": [{"addresses": [{"ip": "0.0.0.0"}], "ports": [{"port": 1}]}]}),
            "subsets[0].addresses[0].ip: Invalid value: \"0.0.0.0\": may not be unspecified (0.0.0.0)",
        )],
    );
    let own = json!({"metadata": {"name": "kubernetes", "namespace": "default"},
        "subsets": [{"addresses": [{"ip": "127.0.0.1"}], "ports": [{"port": 1}]}]});
    each("v1", "Endpoints", vec![(own, "")]);
    const CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
    each(
        "v1",
        "Node",
        vec![
            (json!({"spec": {"podCIDR": "10.0.0.0/24"}}), ""),
            (json!({"spec": {"podCIDR": "x"}}), &format!("spec.podCIDRs[0]: Invalid value: \"x\": {CIDR}")),
            (
                json!({"spec": {"podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"]}}),
                "spec.podCIDRs: Invalid value: [\"10.0.0.0/24\",\"10.0.1.0/24\"]: may specify no more than one CIDR for each IP family",
            ),
            (
                json!({"status": {"capacity": {"cpu": "-1"}, "allocatable": {"pods": "500m"}}}),
                "status.capacity.cpu: Invalid value: \"-1\": must be greater than or equal to 0|\
                 status.allocatable.pods: Invalid value: \"500m\": must be an integer",
            ),
            (
                json!({"spec": {"taints": [{"key": "a", "effect": "x"}]}}),
                "metadata.taints[0].effect: Unsupported value: \"x\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"",
            ),
        ],
    );
    assert!(kind("v1", "Node").strategy.keeps_status() && !kind("v1", "Pod").strategy.keeps_status());
}

#[test]
fn statuses() {
    let status = |status: Value| {
        let mut object = deployment(json!({}));
        object["status"] = status;
        object
    };
    each(
        "apps/v1",
        "Deployment",
        vec![
            (status(json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 1})), ""),
            (
                status(json!({"replicas": -1})),
                "status.replicas: Invalid value: -1: must be greater than or equal to 0|\
                 status.updatedReplicas: Invalid value: 0: cannot be greater than status.replicas|\
                 status.readyReplicas: Invalid value: 0: cannot be greater than status.replicas|\
                 status.availableReplicas: Invalid value: 0: cannot be greater than status.replicas",
            ),
            (
                status(json!({"replicas": 2, "availableReplicas": 1})),
                "status.availableReplicas: Invalid value: 1: cannot be greater than readyReplicas",
            ),
        ],
    );
    update(
        &kind("apps/v1", "Deployment"),
        &status(json!({"collisionCount": 2})),
        status(json!({"collisionCount": 1})),
        &["status.collisionCount: Invalid value: 1: cannot be decremented"],
    );
    let pod = |status: Value| json!({"spec": {"containers": [{"name": "a", "image": "a:1"}]}, "status": status});
    each(
        "v1",
        "Pod",
        vec![
            (pod(json!({"conditions": [{"type": "Ready"}, {"type": "x.io/y"}], "podIPs": [{"ip": "10.0.0.1"}]})), ""),
            (
                pod(json!({"podIPs": [{"ip": "x"}]})),
                "status.podIPs[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
            ),
            (
                pod(json!({"hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.2"}]})),
                "status.hostIPs[0].ip: Invalid value: \"10.0.0.2\": must be equal to `hostIP`",
            ),
        ],
    );
    assert!(
        told("v1", "Pod", pod(json!({"conditions": [{"type": "a b"}]})))
            .starts_with("status.conditions[0].Type: Invalid")
    );
    let pods = kind("v1", "Pod");
    let mut new = pod(json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.2"}]}));
    pods.strategy.prepare_status_update(&mut new, &pod(json!({})));
    assert_eq!(new["status"]["podIPs"], json!([{"ip": "10.0.0.1"}]));
    let signed = |certificate: &str| {
        use base64::Engine;
        let certificate = base64::engine::general_purpose::STANDARD.encode(certificate);
        json!({"spec": {"request": "eA==", "usages": ["client auth"], "signerName": "a.b/c"}, "status": {"certificate": certificate}})
    };
    const AT: &str = "status.certificate: Invalid value: \"<certificate data>\":";
    each(
        "certificates.k8s.io/v1",
        "CertificateSigningRequest",
        vec![
            (signed("-----BEGIN CERTIFICATE-----\neA==\n-----END CERTIFICATE-----\n"), ""),
            (signed("x"), &format!("{AT} must contain at least one CERTIFICATE PEM block")),
            (
                signed("-----BEGIN KEY-----\neA==\n-----END KEY-----\n"),
                &format!("{AT} only CERTIFICATE PEM blocks are allowed, found \"KEY\""),
            ),
        ],
    );
}

#[test]
fn events() {
    let event = |fields: Value| {
        let mut event = json!({"metadata": {"namespace": "a"}, "regarding": {"namespace": "a"}, "type": "Normal", "action": "a",
            "reason": "r", "reportingController": "c", "reportingInstance": "i", "eventTime": "2026-01-01T00:00:00.000000Z"});
        for (key, value) in fields.as_object().unwrap() {
            event[key] = value.clone();
        }
        event
    };
    each(
        "events.k8s.io/v1",
        "Event",
        vec![
            (event(json!({})), ""),
            (event(json!({"type": "Odd"})), "type: Invalid value: \"\": has invalid value: Odd"),
            (event(json!({"eventTime": null})), "eventTime: Required value"),
            (event(json!({"deprecatedCount": 1})), "count: Invalid value: \"\": needs to be unset"),
            (
                event(json!({"series": {"count": 1}})),
                "series.count: Invalid value: \"\": should be at least 2|series.lastObservedTime: Required value",
            ),
            (
                event(json!({"note": "x".repeat(1025)})),
                "message: Invalid value: \"\": can have at most 1024 characters",
            ),
        ],
    );
    let resource = kind("events.k8s.io/v1", "Event");
    let old = event(json!({"note": "x"}));
    update(&resource, &old, event(json!({"note": "y"})), &["message: Invalid value: \"y\": field is immutable"]);
    let other = event(json!({"note": "x", "reportingController": "d"}));
    update(&resource, &old, other, &["reportingController: Invalid value: \"d\": field is immutable"]);
    let counted =
        event(json!({"note": "x", "series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:00.000000Z"}}));
    update(&resource, &old, counted, &[]);
    update(&kind("v1", "Event"), &json!({"message": "a"}), json!({"message": "b"}), &[]);
}
