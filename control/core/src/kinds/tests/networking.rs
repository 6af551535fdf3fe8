//! networking.k8s.io kinds.

use super::columns::row;
use super::updates::{update, with};
use super::validation::check;
use super::*;

const API: &str = "networking.k8s.io/v1";

fn ingress(path: Value) -> Value {
    json!({"spec": {"rules": [{"host": "a.example", "http": {"paths": [path]}}]}})
}

fn to(service: Value) -> Value {
    json!({"path": "/", "pathType": "Prefix", "backend": {"service": service}})
}

#[test]
fn ingresses() {
    const AT: &str = "spec.rules[0].http.paths[0]";
    let ok = to(json!({"name": "web", "port": {"number": 80}}));
    let path = |path: &str, type_: &str| {
        let mut item = ok.clone();
        item["path"] = json!(path);
        item["pathType"] = json!(type_);
        ingress(item)
    };
    let cases = [
        (ingress(ok.clone()), vec![]),
        (path("x", "ImplementationSpecific"), vec![".path: Invalid value: \"x\": must be an absolute path"]),
        (
            path("/a//b/..", "Exact"),
            vec![
                ".path: Invalid value: \"/a//b/..\": must not contain '//'",
                ".path: Invalid value: \"/a//b/..\": cannot end with '/..'",
            ],
        ),
        (path("/", ""), vec![".pathType: Required value: pathType must be specified"]),
        (
            path("/", "Odd"),
            vec![
                ".pathType: Unsupported value: \"Odd\": supported values: \"Exact\", \"ImplementationSpecific\", \"Prefix\"",
            ],
        ),
        (
            ingress(json!({"path": "/", "pathType": "Exact", "backend": {}})),
            vec![".backend: Invalid value: \"\": resource or service backend is required"],
        ),
        (
            ingress(to(json!({"port": {"number": 80, "name": "x"}}))),
            vec![
                ".backend.service.name: Required value",
                ".backend: Invalid value: \"\": cannot set both port name & port number",
            ],
        ),
        (ingress(to(json!({"name": "w"}))), vec![".backend: Required value: port name or number is required"]),
    ];
    for (object, expected) in cases {
        let expected: Vec<String> = expected.iter().map(|e| format!("{AT}{e}")).collect();
        check(API, "Ingress", object, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    }
    check(
        API,
        "Ingress",
        json!({"spec": {}}),
        &["spec: Invalid value: []: either `defaultBackend` or `rules` must be specified"],
    );
    check(
        API,
        "Ingress",
        json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "x"}},
            "spec": {"ingressClassName": "y", "tls": [{"hosts": ["*.a", "a.*"], "secretName": "S"}],
                "rules": [{"host": "10.0.0.1"}, {"host": "*.a.example"}, {"http": {}}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "x"}]}}}),
        &[
            "spec.rules[0].host: Invalid value: \"10.0.0.1\": must be a DNS name, not an IP address",
            "spec.rules[2].http.paths: Required value",
            "spec.tls[0].hosts[1]: Invalid value: \"a.*\": a wildcard DNS-1123 subdomain must start with '*.'",
            "spec.tls[0].secretName: Invalid value: \"S\"",
            "status.loadBalancer.ingress[0].ip: Invalid value: \"x\": must be a valid IP address",
            "annotations.kubernetes.io/ingress.class: Invalid value: \"x\": must match `ingressClassName`",
        ],
    );
    row(API, "Ingress", json!({}), &["a", "<none>", "*", "", "80", "60s"]);
    let hosts: Vec<Value> = ["a", "b", "c", "d", "e"].iter().map(|h| json!({"host": h})).collect();
    row(
        API,
        "Ingress",
        json!({"spec": {"ingressClassName": "n", "rules": hosts, "tls": [{}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.2"}, {"hostname": "x.y"}]}}}),
        &["a", "n", "a,b,c + 2 more...", "10.0.0.2,x.y", "80, 443", "60s"],
    );
}

#[test]
fn ingress_classes() {
    const KIND: &str = "IngressClass";
    let class = |parameters: Value| json!({"spec": {"controller": "example.com/x", "parameters": parameters}});
    let resource = kind(API, KIND);
    let old = defaulted(&resource, class(json!({"kind": "K", "name": "n", "apiGroup": "g.io"})));
    assert_eq!(old["spec"]["parameters"]["scope"], "Cluster");
    row(API, KIND, old.clone(), &["a", "example.com/x", "K.g.io/n", "60s"]);
    row(API, KIND, json!({"spec": {"controller": "c/x"}}), &["a", "c/x", "<none>", "60s"]);
    update(
        &resource,
        &old,
        with(&old, "/spec/controller", json!("example.com/y")),
        &["spec.controller: Invalid value: \"example.com/y\": field is immutable"],
    );
    check(API, KIND, class(Value::Null), &[]);
    check(
        API,
        KIND,
        json!({"spec": {"controller": "x"}}),
        &["spec.controller: Invalid value: \"x\": must be a domain-"],
    );
    check(API, KIND, json!({}), &["spec.controller: Required value"]);
    check(
        API,
        KIND,
        class(json!({"kind": "K", "name": "n", "namespace": "x"})),
        &["spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'"],
    );
    check(
        API,
        KIND,
        class(json!({"scope": "Namespace"})),
        &[
            "spec.parameters.kind: Required value",
            "spec.parameters.name: Required value",
            "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'",
        ],
    );
}

#[test]
fn network_policies() {
    const KIND: &str = "NetworkPolicy";
    let resource = kind(API, KIND);
    let types = |spec: Value| defaulted(&resource, json!({"spec": spec}))["spec"]["policyTypes"].clone();
    assert_eq!(types(json!({})), json!(["Ingress"]));
    assert_eq!(types(json!({"egress": [{}]})), json!(["Ingress", "Egress"]));
    assert_eq!(types(json!({"policyTypes": ["Egress"]})), json!(["Egress"]));
    let ported = defaulted(&resource, json!({"spec": {"ingress": [{"ports": [{"port": 80}]}]}}));
    assert_eq!(ported["spec"]["ingress"][0]["ports"], json!([{"port": 80, "protocol": "TCP"}]));
    let block = |cidr: &str, except: &str| json!({"ipBlock": {"cidr": cidr, "except": [except]}});
    check(
        API,
        KIND,
        json!({"spec": {"podSelector": {}, "ingress": [{"from": [block("10.0.0.0/8", "10.1.0.0/16"),
            block("10.0.0.0/8", "11.0.0.0/16"), block("::/0", "fd00::/8"), block("10.0.0.0/8", "10.0.0.0/8"),
            {"ipBlock": {"cidr": "x"}}, {}, {"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]}]}}),
        &[
            "spec.ingress[0].from[1].ipBlock.except[0]: Invalid value: \"11.0.0.0/16\": must be a strict subset of `cidr`",
            "spec.ingress[0].from[3].ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset",
            "spec.ingress[0].from[4].ipBlock.cidr: Invalid value: \"x\": must be a valid CIDR value",
            "spec.ingress[0].from[5]: Required value: must specify a peer",
            "spec.ingress[0].from[6]: Forbidden: may not specify both ipBlock and another peer",
        ],
    );
    check(
        API,
        KIND,
        json!({"spec": {"policyTypes": ["Odd"], "egress": [{"ports": [{"port": 80, "endPort": 90}, {"port": 80, "endPort": 79},
            {"port": "http", "endPort": 90}, {"endPort": 90}, {"port": 0}, {"protocol": "X"}]}]}}),
        &[
            "spec.egress[0].ports[1].endPort: Invalid value: 79: must be greater than or equal to `port`",
            "spec.egress[0].ports[2].endPort: Invalid value: 90: may not be specified when `port` is non-numeric",
            "spec.egress[0].ports[3].endPort: Invalid value: 90: may not be specified when `port` is not specified",
            "spec.egress[0].ports[4].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.egress[0].ports[5].protocol: Unsupported value: \"X\": supported values: \"TCP\", \"UDP\", \"SCTP\"",
            "spec.policyTypes[0]: Unsupported value: \"Odd\": supported values: \"Ingress\", \"Egress\"",
        ],
    );
    row(API, KIND, json!({"spec": {"podSelector": {"matchLabels": {"a": "b"}}}}), &["a", "a=b", "60s"]);
    row(API, KIND, json!({"spec": {"podSelector": {}}}), &["a", "<none>", "60s"]);
}

#[test]
fn addresses() {
    let resource = kind(API, "ServiceCIDR");
    let cidrs = |list: Value| json!({"spec": {"cidrs": list}});
    let one = cidrs(json!(["10.43.0.0/16"]));
    for (list, expected) in [
        (json!(["10.43.0.0/16"]), vec![]),
        (json!(["10.43.0.0/16", "fd00::/112"]), vec![]),
        (json!([]), vec!["spec.cidrs: Required value: at least one CIDR required"]),
        (json!(["a", "b", "c"]), vec!["spec.cidrs: Invalid value: [\"a\",\"b\",\"c\"]: may only hold up to 2 values"]),
        (
            json!(["10.43.0.1/16"]),
            vec!["spec.cidrs[0]: Invalid value: \"10.43.0.1/16\": must not have bits set beyond"],
        ),
        (
            json!(["10.43.0.0/16", "10.44.0.0/16"]),
            vec![
                "spec.cidrs: Invalid value: [\"10.43.0.0/16\",\"10.44.0.0/16\"]: may specify no more than one IP for each",
            ],
        ),
    ] {
        check(API, "ServiceCIDR", cidrs(list), &expected);
    }
    update(&resource, &one, cidrs(json!(["10.43.0.0/16", "fd00::/112"])), &[]);
    let changed = "spec.cidrs[0]: Invalid value: \"10.44.0.0/16\": field is immutable";
    update(&resource, &one, cidrs(json!(["10.44.0.0/16"])), &[changed]);
    update(&resource, &one, cidrs(json!([])), &["spec.cidrs: Invalid value: []: field is immutable"]);
    row(API, "ServiceCIDR", cidrs(json!(["10.43.0.0/16", "fd00::/112"])), &["a", "10.43.0.0/16,fd00::/112", "60s"]);

    let resource = kind(API, "IPAddress");
    let name = |name: &str| resource.strategy.validate_name(name).is_ok();
    assert!(name("10.0.0.1") && name("fd00::1") && !name("10.0.0.256") && !name("fd00:0::1"));
    let parent = json!({"spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "kubernetes"}}});
    check(API, "IPAddress", parent.clone(), &[]);
    check(API, "IPAddress", json!({"spec": {}}), &["spec.parentRef: Required value"]);
    check(
        API,
        "IPAddress",
        json!({"spec": {"parentRef": {"name": "a/b"}}}),
        &[
            "spec.parentRef.resource: Required value",
            "spec.parentRef.name: Invalid value: \"a/b\": may not contain '/'",
        ],
    );
    let moved = with(&parent, "/spec/parentRef/name", json!("x"));
    update(&resource, &parent, moved, &["spec.parentRef: Invalid value: {\"name\":\"x\","]);
    row(API, "IPAddress", parent, &["a", "services/default/kubernetes", "60s"]);
}
