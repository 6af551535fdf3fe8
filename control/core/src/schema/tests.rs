use copepod_api::Gvk;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn kind(api_version: &str, kind: &str) -> Arc<Schema> {
    builtin(&Gvk::from_api_version(api_version, kind)).unwrap()
}

fn deployment() -> Arc<Schema> {
    kind("apps/v1", "Deployment")
}

#[test]
fn builtin_kinds_are_found_with_their_lists() {
    for (api_version, name) in [
        ("v1", "Pod"),
        ("v1", "PodList"),
        ("v1", "Secret"),
        ("apps/v1", "Deployment"),
        ("apps/v1", "ReplicaSet"),
        ("coordination.k8s.io/v1", "Lease"),
        ("discovery.k8s.io/v1", "EndpointSlice"),
        ("events.k8s.io/v1", "Event"),
        ("autoscaling/v1", "Scale"),
        ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
        ("v1", "DeleteOptions"),
        ("v1", "Status"),
    ] {
        assert_eq!(kind(api_version, name).root().name(), name);
    }
    assert!(builtin(&Gvk::from_api_version("v1", "Nonsense")).is_none());
}

#[test]
fn fields_know_how_they_merge() {
    let schema = deployment();
    let pod = schema.at("spec.template.spec").unwrap();
    let containers = pod.field("containers").unwrap();
    assert_eq!(containers.node().kind(), Type::List);
    assert_eq!(containers.patch_strategy(), PatchStrategy::Merge);
    assert_eq!(containers.merge_key(), Some("name"));
    assert_eq!((containers.list_type(), containers.list_keys()), (ListType::Map, &["name".to_owned()][..]));
    let ports = containers.node().element().unwrap().field("ports").unwrap();
    assert_eq!(ports.merge_key(), Some("containerPort"));
    assert_eq!(ports.list_keys(), ["containerPort", "protocol"]);
    assert_eq!(pod.field("volumes").unwrap().patch_strategy(), PatchStrategy::MergeRetainKeys);
    assert!(PatchStrategy::MergeRetainKeys.merges() && PatchStrategy::MergeRetainKeys.retains_keys());
    let strategy = schema.at("spec").unwrap().field("strategy").unwrap();
    assert_eq!(strategy.patch_strategy(), PatchStrategy::RetainKeys);
    assert!(schema.at("spec").unwrap().field("selector").unwrap().map_atomic());
    let finalizers = schema.at("metadata").unwrap().field("finalizers").unwrap();
    assert_eq!((finalizers.patch_strategy(), finalizers.merge_key()), (PatchStrategy::Merge, None));
    assert_eq!(
        schema.at("spec.template.spec.containers.resources.limits").unwrap().element().unwrap().kind(),
        Type::Quantity
    );
}

#[test]
fn types_may_be_recursive() {
    let schema = kind("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    let mut node = schema.at("spec.versions.schema.openAPIV3Schema").unwrap();
    for _ in 0..50 {
        node = node.field("not").unwrap().node();
    }
    assert_eq!(node.name(), "JSONSchemaProps");
}

#[test]
fn wrong_types_are_worded_as_go_words_them() {
    let cases = [
        (
            json!({"spec": {"replicas": "three"}}),
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"spec": {"replicas": 1.5}}),
            "json: cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"spec": {"replicas": 3_000_000_000_u64}}),
            "json: cannot unmarshal number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32",
        ),
        (
            json!({"spec": {"paused": 1}}),
            "json: cannot unmarshal number into Go struct field DeploymentSpec.spec.paused of type bool",
        ),
        (
            json!({"metadata": {"labels": {"a": 1}}}),
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        (
            json!({"metadata": {"labels": ["a"]}}),
            "json: cannot unmarshal array into Go struct field ObjectMeta.metadata.labels of type map[string]string",
        ),
        (
            json!({"spec": {"template": {"spec": {"containers": {}}}}}),
            "json: cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
        ),
        (
            json!({"spec": {"template": {"spec": {"containers": [{"env": [{"value": 1}]}]}}}}),
            "json: cannot unmarshal number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string",
        ),
        (
            json!({"spec": {"template": {"spec": {"containers": [{"resources": {"limits": {"cpu": "a lot"}}}]}}}}),
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": true}}}}),
            "json: cannot unmarshal bool into Go value of type int32",
        ),
        (
            json!({"metadata": {"creationTimestamp": "today"}}),
            "parsing time \"today\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"today\" as \"2006\"",
        ),
        (
            json!({"metadata": {"creationTimestamp": "2026-13-01T00:00:00Z"}}),
            "parsing time \"2026-13-01T00:00:00Z\": month out of range",
        ),
        (
            json!({"metadata": {"creationTimestamp": "2026-02-30T00:00:00Z"}}),
            "parsing time \"2026-02-30T00:00:00Z\": day out of range",
        ),
        (
            json!({"metadata": {"creationTimestamp": "2026-11-21 10:00:00"}}),
            "parsing time \"2026-11-21 10:00:00\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \" 10:00:00\" as \"T\"",
        ),
        (json!("text"), "json: cannot unmarshal string into Go value of type v1.Deployment"),
    ];
    for (mut object, message) in cases {
        assert_eq!(deployment().decode(&mut object).unwrap_err().message, message);
    }
    let mut secret = json!({"data": {"key": "not*base64"}});
    let error = kind("v1", "Secret").decode(&mut secret).unwrap_err();
    assert_eq!(
        error.bad_request(&Gvk::new("", "v1", "Secret")),
        "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 3"
    );
}

#[test]
fn unknown_fields_are_named_and_removed() {
    let mut object = json!({
        "spec": {"foo": 1, "template": {"spec": {"containers": [{"name": "a", "imag": "x"}, {"name": "b", "ports": [{"port": 1}]}]}}},
        "bar": null,
    });
    let decoded = deployment().decode(&mut object).unwrap();
    let mut unknown = decoded.unknown.clone();
    unknown.sort();
    assert_eq!(
        unknown,
        [
            "unknown field \"bar\"",
            "unknown field \"spec.foo\"",
            "unknown field \"spec.template.spec.containers[0].imag\"",
            "unknown field \"spec.template.spec.containers[1].ports[0].port\"",
        ]
    );
    let clean = json!({"spec": {"template": {"spec": {"containers": [{"name": "a"}, {"name": "b", "ports": [{}]}]}}}});
    assert_eq!(object, clean);
    let error = strict_error(&["duplicate field \"spec\"".to_owned()], &["unknown field \"bar\"".to_owned()]).unwrap();
    assert_eq!(error.message, "strict decoding error: duplicate field \"spec\", unknown field \"bar\"");
    assert!(strict_error(&[], &[]).is_none());
    let fields: serde_json::Map<String, Value> = (0..500).map(|i| (format!("f{i}"), Value::from(i))).collect();
    assert_eq!(deployment().decode(&mut fields.into()).unwrap().unknown.len(), MAX_UNKNOWN);
}

#[test]
fn values_take_their_stored_form() {
    let mut object = json!({
        "metadata": {"name": "a", "labels": null, "annotations": {"x": null}, "creationTimestamp": "2026-11-21T12:00:00.75+02:00"},
        "spec": {
            "replicas": null,
            "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
            "template": {"spec": {"containers": [
                null,
                {"resources": {"limits": {"cpu": 2, "memory": "1024Mi", "x": "0.5", "y": null}}},
            ]}},
        },
    });
    deployment().decode(&mut object).unwrap();
    assert_eq!(
        object,
        json!({
            "metadata": {"name": "a", "annotations": {"x": ""}, "creationTimestamp": "2026-11-21T10:00:00Z"},
            "spec": {
                "strategy": {"rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0}},
                "template": {"spec": {"containers": [
                    {},
                    {"resources": {"limits": {"cpu": "2", "memory": "1Gi", "x": "500m", "y": "0"}}},
                ]}},
            },
        })
    );
    let mut lease = json!({"spec": {"renewTime": "2026-11-21T12:00:00.1Z"}});
    kind("coordination.k8s.io/v1", "Lease").decode(&mut lease).unwrap();
    assert_eq!(lease["spec"]["renewTime"], "2026-11-21T12:00:00.100000Z");
}

#[test]
fn nesting_is_bounded() {
    let deep = (0..MAX_DEPTH).fold(json!({}), |inner, _| json!({"f:a": inner}));
    let mut object = json!({"metadata": {"managedFields": [{"fieldsV1": deep}]}});
    let error = deployment().decode(&mut object).unwrap_err();
    assert!(error.message.starts_with("exceeded max depth of 100"), "{error}");
    let deep = (0..200).fold(json!({}), |inner, _| json!({"not": inner}));
    let mut crd = json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": deep}}]}});
    assert!(kind("apiextensions.k8s.io/v1", "CustomResourceDefinition").decode(&mut crd).is_err());
}

#[test]
fn prune_judges_no_types() {
    let mut object =
        json!({"spec": {"replicas": "three", "foo": 1, "paused": null}, "metadata": {"name": "a", "x": 1}});
    deployment().prune(&mut object);
    assert_eq!(object, json!({"spec": {"replicas": "three"}, "metadata": {"name": "a"}}));
}

fn widget() -> Arc<Schema> {
    let openapi = json!({"type": "object", "required": ["spec"], "properties": {"spec": {
        "type": "object",
        "required": ["size"],
        "properties": {
            "size": {"type": "integer", "format": "int32", "minimum": 1, "maximum": 9},
            "color": {"type": "string", "enum": ["red", "blue"], "maxLength": 4},
            "note": {"type": "string", "nullable": true},
            "port": {"x-kubernetes-int-or-string": true},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "any": {"x-kubernetes-preserve-unknown-fields": true},
            "tags": {"type": "object", "additionalProperties": {"type": "string"}},
            "parts": {"type": "array", "minItems": 1, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                      "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
            "pod": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
        },
    }}});
    Schema::from_openapi("Widget", &openapi).unwrap()
}

#[test]
fn given_schemas_decode_prune_and_keep() {
    let schema = widget();
    let mut object = json!({
        "apiVersion": "example.com/v1", "kind": "Widget",
        "metadata": {"name": "w", "wrong": 1, "ownerReferences": [{"uid": "u"}]},
        "spec": {"size": 2, "color": null, "note": null, "port": "http", "free": {"x": {"y": null}}, "any": [1, {"z": 2}],
                 "tags": {"a": "b"}, "parts": [{"name": "p", "extra": 1}], "pod": {"metadata": {"name": "q"}, "spec": {}}, "typo": 1},
    });
    let decoded = schema.decode(&mut object).unwrap();
    assert_eq!(
        decoded.unknown,
        ["unknown field \"metadata.wrong\"", "unknown field \"spec.parts[0].extra\"", "unknown field \"spec.typo\""]
    );
    assert_eq!(object["spec"]["free"], json!({"x": {"y": null}}));
    assert_eq!(object["spec"]["note"], Value::Null);
    assert!(object["spec"].as_object().unwrap().contains_key("note"));
    assert!(!object["spec"].as_object().unwrap().contains_key("color"));
    assert_eq!(object["spec"]["pod"], json!({"metadata": {"name": "q"}, "spec": {}}));
    assert_eq!(schema.at("spec").unwrap().field("parts").unwrap().list_type(), ListType::Map);
    assert_eq!(schema.at("metadata.ownerReferences").unwrap().kind(), Type::List);
    assert_eq!(schema.at("metadata").unwrap().field("ownerReferences").unwrap().merge_key(), Some("uid"));
    let mut wrong = json!({"spec": {"size": "big"}});
    assert_eq!(
        schema.decode(&mut wrong).unwrap_err().message,
        "json: cannot unmarshal string into Go struct field Widget.spec.size of type int32"
    );
}

#[test]
fn given_schemas_check_values() {
    let errors = |spec: Value| -> Vec<String> {
        widget().validate_values(&json!({"spec": spec})).iter().map(ToString::to_string).collect()
    };
    assert!(errors(json!({"size": 1, "color": "red"})).is_empty());
    assert_eq!(errors(json!({})), ["spec.size: Required value"]);
    assert_eq!(
        errors(json!({"size": 0})),
        ["spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1"]
    );
    assert_eq!(
        errors(json!({"size": 10, "color": "green", "parts": []})),
        [
            "spec.color: Invalid value: \"green\": spec.color in body should be at most 4 chars long",
            "spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\"",
            "spec.parts: Invalid value: []: spec.parts in body should have at least 1 items",
            "spec.size: Invalid value: 10: spec.size in body should be less than or equal to 9",
        ]
    );
    assert_eq!(widget().validate_values(&json!({}))[0].field, "spec");
}

#[test]
fn bad_schemas_are_refused_with_their_place() {
    let deep = (0..200).fold(json!({"type": "string"}), |inner, _| json!({"type": "array", "items": inner}));
    for (schema, path) in [
        (json!([]), ""),
        (json!({"type": "string"}), "type"),
        (json!({"type": "object", "properties": {"a": {"type": "text"}}}), "properties.a.type"),
        (json!({"type": "object", "properties": {"a": {}}}), "properties.a.type"),
        (json!({"type": "object", "properties": {"a": {"type": "array"}}}), "properties.a.items"),
        (json!({"type": "object", "properties": {"a": {"$ref": "#/x"}}}), "properties.a.$ref"),
    ] {
        assert_eq!(Schema::from_openapi("X", &schema).unwrap_err().path, path, "{schema}");
    }
    assert!(Schema::from_openapi("X", &json!({"type": "object", "properties": {"a": deep}})).is_err());
}

#[test]
fn zero_values_go_where_go_prints_none() {
    let object = |spec: Value, mut pod: Value, container: Value| {
        pod["containers"] = json!([container]);
        let mut object = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": spec});
        object["spec"]["template"] = json!({"spec": pod});
        object
    };
    let mut given = object(
        json!({"replicas": 0, "paused": false, "minReadySeconds": 0, "selector": {"matchLabels": {}}}),
        json!({"hostNetwork": false, "nodeSelector": {}, "securityContext": {}, "automountServiceAccountToken": false,
            "nodeName": "", "volumes": [{"name": "v", "emptyDir": {"medium": ""}}]}),
        json!({"name": "c", "stdin": false, "args": [], "ports": [{"containerPort": 0, "hostPort": 0}],
            "resources": {"limits": {}}, "env": [{"name": "", "value": ""}]}),
    );
    let kept = object(
        json!({"replicas": 0, "selector": {}}),
        json!({"securityContext": {}, "automountServiceAccountToken": false, "volumes": [{"name": "v", "emptyDir": {}}]}),
        json!({"name": "c", "ports": [{"containerPort": 0}], "resources": {}, "env": [{"name": ""}]}),
    );
    deployment().decode(&mut given).unwrap();
    assert_eq!(given, kept);
    let mut given = json!({"metadata": {"name": "n", "labels": {}}, "spec": {"podSelector": {}, "ingress": [],
        "egress": [{"to": [{"namespaceSelector": {}}], "ports": []}], "policyTypes": []}});
    kind("networking.k8s.io/v1", "NetworkPolicy").decode(&mut given).unwrap();
    let kept = json!({"metadata": {"name": "n"}, "spec": {"podSelector": {}, "egress": [{"to": [{"namespaceSelector": {}}]}]}});
    assert_eq!(given, kept, "an empty selector selects everything, no selector nothing");
}

/// Any JSON, with names that the schema knows among the keys.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~]{0,12}|object|array|string|[0-9]{1,3}[mkKMGi]{0,2}|20[0-9]{2}-[01][0-9]-[0-3][0-9]T00:00:00Z"
            .prop_map(Value::from),
    ];
    let keys = "metadata|spec|template|containers|name|resources|limits|creationTimestamp|managedFields|fieldsV1|ports|strategy|type|properties|items|[a-z]{1,3}";
    leaf.prop_recursive(8, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(keys, inner, 0..6).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn decoding_never_panics_and_is_idempotent(mut object in any_json()) {
        let schema = deployment();
        schema.prune(&mut object.clone());
        if schema.decode(&mut object).is_ok() {
            let mut again = object.clone();
            prop_assert!(schema.decode(&mut again).unwrap().unknown.is_empty());
            prop_assert_eq!(again, object);
        }
    }

    #[test]
    fn any_schema_compiles_or_is_refused(schema in any_json()) {
        let _ = Schema::from_openapi("X", &schema);
    }
}
