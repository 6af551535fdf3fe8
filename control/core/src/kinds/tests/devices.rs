//! flowcontrol.apiserver.k8s.io and resource.k8s.io kinds.

use super::columns::row;
use super::updates::{update, with};
use super::validation::check;
use super::*;

const FLOW: &str = "flowcontrol.apiserver.k8s.io/v1";
const DEVICES: &str = "resource.k8s.io/v1";

fn flow(rule: Value) -> Value {
    json!({"spec": {"priorityLevelConfiguration": {"name": "p"}, "rules": [rule]}})
}

#[test]
fn flow_schemas() {
    let user = json!([{"kind": "User", "user": {"name": "u"}}]);
    let resources = json!([{"verbs": ["get"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}]);
    let ok = flow(json!({"subjects": user, "resourceRules": resources}));
    check(FLOW, "FlowSchema", ok.clone(), &[]);
    let filled = defaulted(&kind(FLOW, "FlowSchema"), ok);
    assert_eq!(filled["spec"]["matchingPrecedence"], 1000);
    row(FLOW, "FlowSchema", filled, &["a", "p", "1000", "<none>", "60s", "?"]);
    check(
        FLOW,
        "FlowSchema",
        json!({"metadata": {"name": "x"}, "spec": {"matchingPrecedence": 1, "distinguisherMethod": {"type": "Odd"}}}),
        &[
            "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
            "spec.distinguisherMethod.type: Unsupported value: \"Odd\": supported values: \"ByNamespace\", \"ByUser\"",
            "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
        ],
    );
    for (rule, expected) in [
        (
            json!({}),
            vec![
                ".subjects: Required value: subjects must contain at least one value",
                ": Required value: at least one of resourceRules and nonResourceRules has to be non-empty",
            ],
        ),
        (
            json!({"subjects": [{"kind": "Group", "user": {}}, {"kind": "X"}, {"kind": "ServiceAccount", "serviceAccount": {"name": "s"}}],
                "resourceRules": resources}),
            vec![
                ".subjects[0].group: Required value: group is required when subject kind is 'Group'",
                ".subjects[0].user: Forbidden: user is forbidden when subject kind is not 'User'",
                ".subjects[1].kind: Unsupported value: \"X\": supported values: \"Group\", \"ServiceAccount\", \"User\"",
                ".subjects[2].serviceAccount.namespace: Required value: must specify namespace for service account",
            ],
        ),
        (
            json!({"subjects": user, "nonResourceRules": [{"verbs": ["odd"], "nonResourceURLs": ["x", "/a*b", "/a/*"]}],
                "resourceRules": [{"verbs": ["*", "get"], "apiGroups": [""], "resources": []}]}),
            vec![
                ".resourceRules[0].verbs: Invalid value: [\"*\",\"get\"]: if '*' is present, must not specify other verbs",
                ".resourceRules[0].resources: Required value: resource rules must supply at least one resource",
                ".resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply",
                ".nonResourceRules[0].verbs: Unsupported value: [\"odd\"]",
                ".nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"x\": must start with slash",
                ".nonResourceRules[0].nonResourceURLs[1]: Invalid value: \"/a*b\": wildcard can only do suffix matching",
            ],
        ),
    ] {
        let expected: Vec<String> = expected.iter().map(|e| format!("spec.rules[0]{e}")).collect();
        check(FLOW, "FlowSchema", flow(rule), &expected.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn priority_levels() {
    const KIND: &str = "PriorityLevelConfiguration";
    let level = |queuing: Value| {
        json!({"metadata": {"name": "p"}, "spec": {"type": "Limited",
        "limited": {"limitResponse": {"type": "Queue", "queuing": queuing}}}})
    };
    let filled = defaulted(&kind(FLOW, KIND), level(json!({})));
    assert_eq!(
        filled["spec"]["limited"],
        json!({"nominalConcurrencyShares": 30, "lendablePercent": 0,
            "limitResponse": {"type": "Queue", "queuing": {"queues": 64, "handSize": 8, "queueLengthLimit": 50}}})
    );
    row(FLOW, KIND, filled, &["a", "Limited", "30", "64", "8", "50", "60s"]);
    const AT: &str = "spec.limited.limitResponse.queuing";
    let exempt = json!({"metadata": {"name": "exempt"}, "spec": {"type": "Exempt", "exempt": {}}});
    row(
        FLOW,
        KIND,
        defaulted(&kind(FLOW, KIND), exempt.clone()),
        &["a", "Exempt", "0", "<none>", "<none>", "<none>", "60s"],
    );
    for (object, expected) in [
        (level(json!({})), vec![]),
        (exempt.clone(), vec![]),
        (
            with(&exempt, "/metadata/name", json!("x")),
            vec!["spec.type: Invalid value: \"Exempt\": type must be 'Exempt' if".to_string()],
        ),
        (
            level(json!({"queues": -1})),
            vec![
                format!("{AT}.queues: Invalid value: -1: must be positive"),
                format!("{AT}.handSize: Invalid value: 8: should not be greater than queues (-1)"),
            ],
        ),
        (
            level(json!({"queues": 10_000_000})),
            vec![format!("{AT}.handSize: Invalid value: 8: required entropy bits of deckSize")],
        ),
        (
            level(Value::Null),
            vec![format!("{AT}: Required value: must not be empty if limited.limitResponse.type is Limited")],
        ),
    ] {
        check(FLOW, KIND, object, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

fn claim(requests: Value) -> Value {
    json!({"spec": {"devices": {"requests": requests}}})
}

#[test]
fn claims() {
    let resource = kind(DEVICES, "ResourceClaim");
    let old = defaulted(&resource, claim(json!([{"name": "r", "exactly": {"deviceClassName": "c"}}])));
    let exactly = json!({"deviceClassName": "c", "allocationMode": "ExactCount", "count": 1});
    assert_eq!(old["spec"]["devices"]["requests"][0]["exactly"], exactly);
    let template = defaulted(
        &kind(DEVICES, "ResourceClaimTemplate"),
        json!({"spec": claim(json!([{"name": "r", "firstAvailable": [{}]}]))}),
    );
    assert_eq!(template["spec"]["spec"]["devices"]["requests"][0]["firstAvailable"][0]["count"], 1);
    update(
        &resource,
        &old,
        with(&old, "/spec/devices/requests", json!([])),
        &["spec: Invalid value: {\"devices\":{\"requests\":[]}}: field is immutable"],
    );
    check(
        DEVICES,
        "ResourceClaim",
        json!({"spec": {"devices": {"constraints": [{"requests": ["x", "b/s"]}], "requests": [
            {"name": "A", "exactly": {"allocationMode": "All", "count": 2}}, {"name": "b", "firstAvailable": [{"name": "s", "deviceClassName": "c"}]},
            {"name": "b"}]}}}),
        &[
            "spec.devices.requests[0].name: Invalid value: \"A\": a lowercase RFC 1123 label",
            "spec.devices.requests[0].exactly.deviceClassName: Required value",
            "spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when allocationMode is 'All'",
            "spec.devices.requests[2].name: Duplicate value: \"b\"",
            "spec.devices.requests[2]: Required value: exactly one of `exactly` or `firstAvailable` is required",
            "spec.devices.constraints[0].requests[0]: Invalid value: \"x\": must be the name of a request in the claim",
        ],
    );
    for (status, state) in [
        (json!({}), "pending"),
        (json!({"allocation": {}}), "allocated"),
        (json!({"allocation": {}, "reservedFor": [{}]}), "allocated,reserved"),
    ] {
        row(DEVICES, "ResourceClaim", json!({"status": status}), &["a", state, "60s"]);
    }
    row(DEVICES, "DeviceClass", json!({}), &["a", "60s"]);
    check(DEVICES, "DeviceClass", json!({"spec": {"selectors": [{}]}}), &["spec.selectors[0].cel: Required value"]);
}

#[test]
fn slices() {
    const KIND: &str = "ResourceSlice";
    let slice = json!({"spec": {"driver": "d.example", "nodeName": "n", "devices": [{"name": "x"}],
        "pool": {"name": "p", "generation": 0, "resourceSliceCount": 1}}});
    check(DEVICES, KIND, slice.clone(), &[]);
    let resource = kind(DEVICES, KIND);
    assert_eq!(
        resource.strategy.fields(&slice),
        [("spec.driver", "d.example".to_string()), ("spec.nodeName", "n".into())]
    );
    update(
        &resource,
        &slice,
        with(&slice, "/spec/nodeName", json!("m")),
        &["spec.nodeName: Invalid value: \"m\": field is immutable"],
    );
    row(DEVICES, KIND, slice, &["a", "n", "d.example", "p", "60s"]);
    check(
        DEVICES,
        KIND,
        json!({"spec": {"driver": "d", "devices": [{"name": "x"}, {"name": "x"}], "pool": {"name": "p", "resourceSliceCount": 0}}}),
        &[
            "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
            "spec: Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`",
            "spec.devices[1].name: Duplicate value: \"x\"",
        ],
    );
}
