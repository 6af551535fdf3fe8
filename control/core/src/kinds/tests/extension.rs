//! admissionregistration.k8s.io, apiextensions.k8s.io and apiregistration.k8s.io kinds.

use super::columns::row;
use super::updates::{update, with};
use super::validation::check;
use super::*;

const ADMISSION: &str = "admissionregistration.k8s.io/v1";

fn hook(change: impl FnOnce(&mut Value)) -> Value {
    let mut hook = json!({"name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"name": "s", "namespace": "n"}},
        "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]});
    change(&mut hook);
    json!({"webhooks": [hook]})
}

#[test]
fn webhooks() {
    const KIND: &str = "ValidatingWebhookConfiguration";
    let mutating = defaulted(&kind(ADMISSION, "MutatingWebhookConfiguration"), hook(|_| ()));
    let filled = json!({"failurePolicy": "Fail", "matchPolicy": "Equivalent", "namespaceSelector": {},
        "objectSelector": {}, "timeoutSeconds": 10, "reinvocationPolicy": "Never"});
    for (key, value) in filled.as_object().unwrap() {
        assert_eq!(&mutating["webhooks"][0][key], value, "{key}");
    }
    assert_eq!(mutating.pointer("/webhooks/0/clientConfig/service/port"), Some(&json!(443)));
    assert_eq!(mutating.pointer("/webhooks/0/rules/0/scope"), Some(&json!("*")));
    row(ADMISSION, KIND, mutating, &["a", "1", "60s"]);
    let cases: Vec<(Value, Vec<&str>)> = vec![
        (hook(|_| ()), vec![]),
        (hook(|h| h["clientConfig"] = json!({"url": "https://a.example/x"})), vec![]),
        (
            hook(|h| h["clientConfig"] = json!({"url": "http://a"})),
            vec![
                ".clientConfig.url: Invalid value: \"http://a\": 'https' is the only allowed URL scheme, not \"http\"",
            ],
        ),
        (
            hook(|h| h["clientConfig"] = json!({})),
            vec![".clientConfig: Required value: exactly one of url or service is required"],
        ),
        (
            hook(|h| h["name"] = json!("a.b")),
            vec![".name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots"],
        ),
        (
            hook(|h| h["sideEffects"] = json!("Some")),
            vec![".sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\""],
        ),
        (
            hook(|h| h["sideEffects"] = Value::Null),
            vec![".sideEffects: Required value: must specify one of None, NoneOnDryRun"],
        ),
        (
            hook(|h| h["timeoutSeconds"] = json!(31)),
            vec![".timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds"],
        ),
        (
            hook(|h| h["admissionReviewVersions"] = json!(["v2", "v2"])),
            vec![
                ".admissionReviewVersions[1]: Invalid value: \"v2\": duplicate version",
                ".admissionReviewVersions: Invalid value: [\"v2\",\"v2\"]: must include at least one of v1, v1beta1",
            ],
        ),
        (
            hook(|h| {
                h["rules"][0] = json!({"operations": ["*", "X"], "apiGroups": ["*", "a"], "resources": ["*/*", "pods"]})
            }),
            vec![
                ".rules[0].operations: Invalid value: [\"*\",\"X\"]: if '*' is present, must not specify other operations",
                ".rules[0].operations[1]: Unsupported value: \"X\"",
                ".rules[0].apiGroups: Invalid value: [\"*\",\"a\"]: if '*' is present, must not specify other API groups",
                ".rules[0].apiVersions: Required value",
                ".rules[0].resources: Invalid value: [\"*/*\",\"pods\"]: if '*/*' is present, must not specify other",
            ],
        ),
        (
            hook(|h| {
                h["matchConditions"] = json!([{"name": "a", "expression": "true"}, {"name": "a", "expression": " "}])
            }),
            vec![".matchConditions[1].expression: Required value", ".matchConditions[1].name: Duplicate value: \"a\""],
        ),
    ];
    for (object, expected) in cases {
        let expected: Vec<String> = expected.iter().map(|e| format!("webhooks[0]{e}")).collect();
        check(ADMISSION, KIND, object, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

fn policy(change: impl FnOnce(&mut Value)) -> Value {
    let mut policy = json!({"spec": {
        "matchConstraints": {"resourceRules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]},
        "validations": [{"expression": "true"}]}});
    change(&mut policy["spec"]);
    policy
}

#[test]
fn policies() {
    const KIND: &str = "ValidatingAdmissionPolicy";
    let resource = kind(ADMISSION, KIND);
    let filled = defaulted(&resource, policy(|_| ()));
    assert_eq!(
        (&filled["spec"]["failurePolicy"], &filled["spec"]["matchConstraints"]["matchPolicy"]),
        (&json!("Fail"), &json!("Equivalent"))
    );
    row(ADMISSION, KIND, filled, &["a", "1", "<unset>", "60s"]);
    let parameters = policy(|s| s["paramKind"] = json!({"apiVersion": "x.io/v1", "kind": "P"}));
    row(ADMISSION, KIND, parameters, &["a", "1", "x.io/v1/P", "60s"]);
    let cases: Vec<(Value, Vec<&str>)> = vec![
        (policy(|_| ()), vec![]),
        (
            policy(|s| *s = json!({})),
            vec![
                "spec.matchConstraints: Required value",
                "spec.validations: Required value: validations or auditAnnotations must contain at least one item",
                "spec.auditAnnotations: Required value: validations or auditAnnotations must contain at least one item",
            ],
        ),
        (
            policy(|s| s["validations"][0] = json!({"message": "a\nb", "reason": "Odd"})),
            vec![
                "spec.validations[0].expression: Required value: expression is not specified",
                "spec.validations[0].message: Invalid value: \"a\\nb\": message must not contain line breaks",
                "spec.validations[0].reason: Unsupported value: \"Odd\"",
            ],
        ),
        (
            policy(|s| s["paramKind"] = json!({"apiVersion": "a/b/c"})),
            vec![
                "spec.paramKind.apiVersion: Invalid value: \"a/b/c\": unexpected GroupVersion string: a/b/c",
                "spec.paramKind.kind: Required value",
            ],
        ),
    ];
    for (object, expected) in cases {
        check(ADMISSION, KIND, object, &expected);
    }
    let mutation = json!([{"patchType": "JSONPatch", "jsonPatch": {"expression": "[]"}}, {"patchType": "JSONPatch", "applyConfiguration": {}}]);
    check(
        ADMISSION,
        "MutatingAdmissionPolicy",
        policy(|s| s["mutations"] = mutation),
        &[
            "spec.reinvocationPolicy: Required value",
            "spec.mutations[1].applyConfiguration: Forbidden: must not be specified unless patchType is ApplyConfiguration",
            "spec.mutations[1].jsonPatch: Required value: must be specified when patchType is JSONPatch",
        ],
    );
}

#[test]
fn policy_bindings() {
    const KIND: &str = "ValidatingAdmissionPolicyBinding";
    let binding = json!({"spec": {"policyName": "p", "validationActions": ["Deny"],
        "paramRef": {"name": "x", "parameterNotFoundAction": "Deny"}}});
    check(ADMISSION, KIND, binding.clone(), &[]);
    row(ADMISSION, KIND, binding, &["a", "p", "*/x", "60s"]);
    row(
        ADMISSION,
        "MutatingAdmissionPolicyBinding",
        json!({"spec": {"policyName": "p"}}),
        &["a", "p", "<unset>", "60s"],
    );
    check(
        ADMISSION,
        KIND,
        json!({"spec": {"validationActions": ["Deny", "Warn", "Warn", "Odd"], "paramRef": {"name": "x", "selector": {}}}}),
        &[
            "spec.policyName: Required value",
            "spec.paramRef.selector: Forbidden: name and selector are mutually exclusive",
            "spec.paramRef.parameterNotFoundAction: Required value",
            "spec.validationActions[2]: Duplicate value: \"Warn\"",
            "spec.validationActions[3]: Unsupported value: \"Odd\": supported values: \"Audit\", \"Deny\", \"Warn\"",
            "spec.validationActions: Invalid value: [\"Deny\",\"Warn\",\"Warn\",\"Odd\"]: must not contain both Deny and Warn",
        ],
    );
    check(
        ADMISSION,
        KIND,
        json!({"spec": {"policyName": "p"}}),
        &["spec.validationActions: Required value: at least one"],
    );
}

fn definition(change: impl FnOnce(&mut Value)) -> Value {
    let mut object = json!({"metadata": {"name": "toys.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "toys", "kind": "Toy"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    change(&mut object);
    object
}

#[test]
fn custom_resource_definitions() {
    let (api, kind_) = ("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    let resource = kind(api, kind_);
    let mut old = defaulted(&resource, definition(|_| ()));
    let names = json!({"plural": "toys", "singular": "toy", "kind": "Toy", "listKind": "ToyList"});
    assert_eq!((&old["spec"]["names"], &old["spec"]["conversion"]), (&names, &json!({"strategy": "None"})));
    resource.strategy.prepare_create(&mut old);
    assert_eq!(old["status"]["storedVersions"], json!(["v1"]));
    let mut next = old.clone();
    next["spec"]["versions"][0]["storage"] = json!(false);
    let mut v2 = old["spec"]["versions"][0].clone();
    v2["name"] = json!("v2");
    next["spec"]["versions"].as_array_mut().unwrap().push(v2);
    let moved = update(&resource, &old, next, &[]);
    assert_eq!(moved["status"]["storedVersions"], json!(["v1", "v2"]));
    update(
        &resource,
        &moved,
        with(&moved, "/spec/versions", json!([moved["spec"]["versions"][1]])),
        &["status.storedVersions[0]: Invalid value: \"v1\": must appear in spec.versions"],
    );
    let mut established = old.clone();
    established["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    let rescoped = with(&established, "/spec/scope", json!("Cluster"));
    update(&resource, &old, with(&old, "/spec/scope", json!("Cluster")), &[]);
    update(&resource, &established, rescoped, &["spec.scope: Invalid value: \"Cluster\": field is immutable"]);
    let schema = |schema: Value| definition(|d| d["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema);
    let cases: Vec<(Value, Vec<&str>)> = vec![
        (definition(|_| ()), vec![]),
        (
            definition(|d| d["metadata"]["name"] = json!("x")),
            vec!["metadata.name: Invalid value: \"x\": must be spec.names.plural+\".\"+spec.group"],
        ),
        (
            definition(|d| d["spec"]["versions"][0]["storage"] = json!(false)),
            vec!["spec.versions: Invalid value: [\"v1\"]: must have exactly one version marked as storage version"],
        ),
        (
            definition(|d| d["spec"]["versions"][0]["schema"] = Value::Null),
            vec!["spec.versions[0].schema.openAPIV3Schema: Required value: schemas are required"],
        ),
        (
            definition(|d| d["spec"]["scope"] = json!("World")),
            vec!["spec.scope: Unsupported value: \"World\": supported values: \"Cluster\", \"Namespaced\""],
        ),
        (
            definition(|d| d["spec"]["names"]["listKind"] = json!("Toy")),
            vec!["spec.names.listKind: Invalid value: \"Toy\": kind and listKind may not be the same"],
        ),
        (
            definition(|d| d["spec"]["preserveUnknownFields"] = json!(true)),
            vec!["spec.preserveUnknownFields: Invalid value: true: cannot set to true"],
        ),
        (
            definition(|d| d["spec"]["conversion"] = json!({"strategy": "Webhook"})),
            vec![
                "spec.conversion.webhook.clientConfig: Required value",
                "spec.conversion.webhook.conversionReviewVersions: Required value",
            ],
        ),
        (
            definition(|d| d["spec"]["versions"][0]["subresources"] = json!({"scale": {"specReplicasPath": ".x"}})),
            vec![
                "spec.versions[0].subresources.scale.specReplicasPath: Invalid value: \".x\": should be a json path under .spec",
                "spec.versions[0].subresources.scale.statusReplicasPath: Required value",
            ],
        ),
        (
            schema(json!({})),
            vec!["spec.versions[0].schema.openAPIV3Schema.type: Required value: must not be empty at the root"],
        ),
        (
            schema(json!({"type": "string"})),
            vec!["spec.versions[0].schema.openAPIV3Schema.type: Invalid value: \"string\": must be object at the root"],
        ),
        (
            schema(json!({"type": "object", "properties": {"spec": {"$ref": "#/x"}}})),
            vec![
                "spec.versions[0].schema.openAPIV3Schema.properties.spec.$ref: Invalid value: \"#/x\": references are not",
            ],
        ),
    ];
    for (object, expected) in cases {
        check(api, kind_, object, &expected);
    }
    row(api, kind_, json!({}), &["a", "1970-01-01T00:00:40Z"]);
}

#[test]
fn api_services() {
    let (api, kind_) = ("apiregistration.k8s.io/v1", "APIService");
    let service = json!({"metadata": {"name": "v1.example.com"}, "spec": {"group": "example.com", "version": "v1",
        "groupPriorityMinimum": 1000, "versionPriority": 10, "service": {"namespace": "n", "name": "s"}}});
    check(api, kind_, service.clone(), &[]);
    let filled = defaulted(&kind(api, kind_), service.clone());
    assert_eq!(filled["spec"]["service"]["port"], 443);
    row(api, kind_, filled, &["a", "n/s", "Unknown", "60s"]);
    let down = json!({"status": {"conditions": [{"type": "Available", "status": "False", "reason": "Gone"}]}});
    row(api, kind_, down, &["a", "Local", "False (Gone)", "60s"]);
    let mut bad = with(&service, "/spec/service", json!({}));
    bad["metadata"]["name"] = json!("x");
    bad["spec"]["groupPriorityMinimum"] = json!(20_001);
    check(
        api,
        kind_,
        bad,
        &[
            "metadata.name: Invalid value: \"x\": must be `spec.version+\".\"+spec.group`: \"v1.example.com\"",
            "spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000",
            "spec.service.namespace: Required value",
            "spec.service.name: Required value",
        ],
    );
    let mut local = with(&service, "/spec/service", Value::Null);
    local["spec"]["caBundle"] = json!("eA==");
    check(api, kind_, local, &["spec.caBundle: Invalid value: \"eA==\": local APIServices may not have a caBundle"]);
}
