//! RBAC kinds, reviews and signing requests.

use super::columns::row;
use super::updates::{update, with};
use super::validation::check;
use super::*;

const RBAC: &str = "rbac.authorization.k8s.io/v1";

#[test]
fn roles() {
    let rules = |rule: Value| json!({"rules": [rule]});
    let cases = [
        ("Role", rules(json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]})), vec![]),
        ("ClusterRole", rules(json!({"verbs": ["get"], "nonResourceURLs": ["/healthz"]})), vec![]),
        ("ClusterRole", json!({"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}}), vec![]),
        (
            "Role",
            rules(json!({})),
            vec![
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].apiGroups: Required value: resource rules must supply at least one api group",
                "rules[0].resources: Required value: resource rules must supply at least one resource",
            ],
        ),
        (
            "Role",
            rules(json!({"verbs": ["get"], "nonResourceURLs": ["/x"]})),
            vec!["rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource"],
        ),
        (
            "ClusterRole",
            rules(json!({"verbs": ["get"], "nonResourceURLs": ["/x"], "resources": ["pods"]})),
            vec!["rules[0].nonResourceURLs: Invalid value: [\"/x\"]: rules cannot apply to both regular resources"],
        ),
        (
            "ClusterRole",
            json!({"aggregationRule": {}}),
            vec!["aggregationRule.clusterRoleSelectors: Required value: at least one clusterRoleSelector required"],
        ),
    ];
    for (kind, object, expected) in cases {
        check(RBAC, kind, object, &expected);
    }
    let role = kind(RBAC, "Role");
    assert!(role.strategy.validate_name("system:x").is_ok() && role.strategy.validate_name("a/b").is_err());
    assert!(!role.strategy.has_generation());
    row(RBAC, "Role", json!({}), &["a", "1970-01-01T00:00:40Z"]);
}

#[test]
fn bindings() {
    let binding = |role: Value, subjects: Value| json!({"roleRef": role, "subjects": subjects});
    let role = || json!({"kind": "ClusterRole", "name": "view"});
    let resource = kind(RBAC, "RoleBinding");
    let old = defaulted(
        &resource,
        binding(
            role(),
            json!([{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s", "namespace": "n"},
                {"kind": "Group", "name": "g"}, {"kind": "Group", "name": "h"}]),
        ),
    );
    let groups: Vec<&Value> = old["subjects"].as_array().unwrap().iter().map(|s| &s["apiGroup"]).collect();
    let own = json!("rbac.authorization.k8s.io");
    assert_eq!((&old["roleRef"]["apiGroup"], groups), (&own, vec![&own, &Value::Null, &own, &own]));
    row(RBAC, "RoleBinding", old.clone(), &["a", "ClusterRole/view", "60s", "u", "g, h", "n/s"]);
    update(&resource, &old, with(&old, "/subjects", json!([])), &[]);
    update(
        &resource,
        &old,
        with(&old, "/roleRef/name", json!("edit")),
        &[
            "roleRef: Invalid value: {\"apiGroup\":\"rbac.authorization.k8s.io\",\"kind\":\"ClusterRole\",\"name\":\"edit\"}: cannot change roleRef",
        ],
    );
    let account = json!([{"kind": "ServiceAccount", "name": "s"}]);
    let cases = [
        ("RoleBinding", binding(role(), account.clone()), vec![]),
        ("ClusterRoleBinding", binding(role(), account), vec!["subjects[0].namespace: Required value"]),
        (
            "ClusterRoleBinding",
            binding(json!({"kind": "Role", "name": "x"}), json!([])),
            vec!["roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\""],
        ),
        (
            "RoleBinding",
            binding(json!({"kind": "Role", "apiGroup": "x", "name": "a/b"}), json!([{"kind": "Robot"}])),
            vec![
                "roleRef.apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\"",
                "roleRef.name: Invalid value: \"a/b\": may not contain '/'",
                "subjects[0].name: Required value",
                "subjects[0].kind: Unsupported value: \"Robot\": supported values: \"ServiceAccount\", \"User\", \"Group\"",
            ],
        ),
        (
            "RoleBinding",
            binding(
                role(),
                json!([{"kind": "User", "name": "u", "apiGroup": "x"},
                {"kind": "ServiceAccount", "name": "S", "apiGroup": "x"}]),
            ),
            vec![
                "subjects[0].apiGroup: Unsupported value: \"x\": supported values: \"rbac.authorization.k8s.io\"",
                "subjects[1].name: Invalid value: \"S\": a lowercase RFC 1123 subdomain",
                "subjects[1].apiGroup: Unsupported value: \"x\": supported values: \"\"",
            ],
        ),
    ];
    for (kind, object, expected) in cases {
        check(RBAC, kind, object, &expected);
    }
}

#[test]
fn reviews() {
    const API: &str = "authorization.k8s.io/v1";
    let pods = || json!({"resource": "pods", "verb": "get", "namespace": "n"});
    for (kind_, object, expected) in [
        ("SelfSubjectAccessReview", json!({"spec": {"resourceAttributes": pods()}}), vec![]),
        (
            "SelfSubjectAccessReview",
            json!({"metadata": {"name": "x"}, "spec": {"resourceAttributes": pods()}}),
            vec!["metadata: Invalid value: {\"name\":\"x\"}: must be empty"],
        ),
        (
            "SelfSubjectAccessReview",
            json!({"spec": {}}),
            vec!["spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or"],
        ),
        (
            "SubjectAccessReview",
            json!({"spec": {"resourceAttributes": pods(), "nonResourceAttributes": {"path": "/"}}}),
            vec![
                "spec.nonResourceAttributes: Invalid value: {\"path\":\"/\"}: cannot be specified in combination",
                "spec.user: Invalid value: \"\": at least one of user or group must be specified",
            ],
        ),
        (
            "LocalSubjectAccessReview",
            json!({"metadata": {"namespace": "m"}, "spec": {"user": "u", "resourceAttributes": pods()}}),
            vec!["spec.resourceAttributes.namespace: Invalid value: \"n\": must match metadata.namespace"],
        ),
        (
            "LocalSubjectAccessReview",
            json!({"metadata": {"namespace": "m"}, "spec": {"user": "u", "nonResourceAttributes": {"path": "/"}}}),
            vec!["spec.nonResourceAttributes: Invalid value: {\"path\":\"/\"}: disallowed on this kind of request"],
        ),
    ] {
        assert!(kind(API, kind_).serves("create") && !kind(API, kind_).is_stored());
        check(API, kind_, object, &expected);
    }
    assert!(kind("v1", "Pod").is_stored());
}

#[test]
fn signing_requests() {
    const API: &str = "certificates.k8s.io/v1";
    const KIND: &str = "CertificateSigningRequest";
    let spec = || json!({"request": "eA==", "signerName": "example.com/s", "usages": ["client auth"], "username": "u"});
    check(API, KIND, json!({"spec": spec()}), &[]);
    check(
        API,
        KIND,
        json!({"spec": {"signerName": "x", "usages": ["any", "any", "odd"], "expirationSeconds": 599}}),
        &[
            "spec.request: Required value",
            "spec.usages[1]: Duplicate value: \"any\"",
            "spec.usages[2]: Unsupported value: \"odd\"",
            "spec.signerName: Invalid value: \"x\": must be a fully qualified domain and path of the form",
            "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)",
        ],
    );
    let mut both = json!({"spec": spec(), "status": {"conditions": [{"type": "Approved", "status": "True"},
        {"type": "Denied", "status": "True"}, {"type": "Failed", "status": "False"}]}});
    check(
        API,
        KIND,
        both.clone(),
        &[
            "status.conditions[1].type: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive",
            "status.conditions[2].status: Unsupported value: \"False\": supported values: \"True\"",
        ],
    );
    let resource = kind(API, KIND);
    let pending = json!({"spec": spec(), "status": {}});
    // Only /approval approves, and it changes nothing else.
    resource.strategy.prepare_status_update(&mut both, &pending);
    assert_eq!(both["status"]["conditions"], json!([{"type": "Failed", "status": "False"}]));
    let mut asked = json!({"spec": {}, "status": {"certificate": "eA==", "conditions": [
        {"type": "Approved", "status": "True"}, {"type": "Failed", "status": "True"}]}});
    let now = "1970-01-01T00:00:10Z";
    let approved = certificate_signing_request::approval(&pending, &asked, now);
    let condition = json!({"type": "Approved", "status": "True", "lastUpdateTime": now, "lastTransitionTime": now});
    assert_eq!(approved, json!({"spec": spec(), "status": {"conditions": [condition]}}));
    asked["status"]["conditions"] = json!([]);
    let emptied = certificate_signing_request::approval(&approved, &asked, now);
    let refused = resource.strategy.validate_update(&emptied, &approved);
    assert_eq!(
        refused[0].to_string(),
        "status.conditions: Forbidden: updates may not remove a condition of type \"Approved\""
    );
    let kept = update(&resource, &pending, with(&pending, "/spec/username", json!("v")), &[]);
    assert_eq!(kept, pending, "what was asked stays");
    let mut issued = approved.clone();
    issued["status"]["certificate"] = json!("eA==");
    update(
        &resource,
        &issued,
        approved.clone(),
        &["status.certificate: Forbidden: updates may not modify existing certificate content"],
    );
    row(API, KIND, pending, &["a", "60s", "example.com/s", "u", "<none>", "Pending"]);
    issued["spec"]["expirationSeconds"] = json!(86_400);
    row(API, KIND, issued, &["a", "60s", "example.com/s", "u", "24h", "Approved,Issued"]);
}
