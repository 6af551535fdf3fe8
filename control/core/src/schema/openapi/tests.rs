use std::sync::Arc;

use copepod_api::Gvk;
use serde_json::json;

use super::*;
use crate::resource::{Names, ScalePaths, Scope, Strategy, Subresources};
use crate::schema::{Schema, builtin};

struct Plain;
impl Strategy for Plain {}

fn registry() -> Registry {
    let resource = |group: &str, kind: &str, plural: &str, scope, scale: bool, schema: Arc<Schema>| Resource {
        names: Names {
            group: group.into(),
            version: "v1".into(),
            kind: kind.into(),
            plural: plural.into(),
            singular: kind.to_lowercase(),
            short: vec![],
            categories: vec![],
            scope,
        },
        subresources: Subresources {
            status: true,
            scale: scale.then(|| ScalePaths {
                spec_replicas: "spec.replicas".into(),
                status_replicas: "status.replicas".into(),
                selector: "spec.selector".into(),
            }),
        },
        schema,
        strategy: Box::new(Plain),
        storage: None,
    };
    let of = |group: &str, kind: &str| builtin(&Gvk::new(group, "v1", kind)).unwrap();
    let widget = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}}});
    let mut registry = Registry::default();
    registry.add(resource("", "Pod", "pods", Scope::Namespaced, false, of("", "Pod")));
    registry.add(resource("", "Namespace", "namespaces", Scope::Cluster, false, of("", "Namespace")));
    registry.add(resource("apps", "Deployment", "deployments", Scope::Namespaced, true, of("apps", "Deployment")));
    let widget = Schema::from_openapi("Widget", &widget).unwrap();
    registry.add(resource("example.com", "Widget", "widgets", Scope::Namespaced, false, widget));
    registry
}

/// Every reference of a document has its schema.
fn complete(document: &Value, prefix: &str, schemas: &Value) {
    let text = document.to_string();
    for part in text.split(&format!("\"$ref\":\"{prefix}")).skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schemas.get(name).is_some(), "{name} is missing");
    }
}

#[test]
fn v3_documents_hold_all_that_they_refer_to() {
    let registry = registry();
    for (group, schema) in [
        ("", "io.k8s.api.core.v1.Pod"),
        ("apps", "io.k8s.api.apps.v1.Deployment"),
        ("example.com", "com.example.v1.Widget"),
    ] {
        let document = group_version_document(&registry, group, "v1").unwrap();
        let schemas = document.pointer("/components/schemas").unwrap();
        complete(&document, REF_PREFIX, schemas);
        let gvk = schemas[schema]["x-kubernetes-group-version-kind"].as_array().unwrap();
        assert_eq!(gvk.len(), 1);
        assert_eq!(gvk[0]["group"], group);
        assert!(schemas.get(format!("{schema}List")).is_some());
    }
    assert!(group_version_document(&registry, "none", "v1").is_none());
}

#[test]
fn v3_patch_operations_say_what_kubectl_looks_for() {
    let document = group_version_document(&registry(), "apps", "v1").unwrap();
    let patch =
        document.pointer("/paths/~1apis~1apps~1v1~1namespaces~1{namespace}~1deployments~1{name}/patch").unwrap();
    assert_eq!(patch["x-kubernetes-action"], "patch");
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "apps", "version": "v1", "kind": "Deployment"})
    );
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_some());
    let parameters = patch["parameters"].as_array().unwrap();
    assert!(parameters.iter().any(|p| p["name"] == "fieldValidation" && p["in"] == "query"));
    let scale =
        document.pointer("/paths/~1apis~1apps~1v1~1namespaces~1{namespace}~1deployments~1{name}~1scale/put").unwrap();
    assert_eq!(scale["x-kubernetes-group-version-kind"]["kind"], "Scale");
    assert_eq!(
        document.pointer("/paths/~1apis~1apps~1v1~1deployments/get/operationId").unwrap(),
        "listAppsV1DeploymentForAllNamespaces"
    );
}

#[test]
fn own_schemas_are_published_with_metadata_and_without_strategic_merge() {
    let document = group_version_document(&registry(), "example.com", "v1").unwrap();
    let widget = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(widget["properties"]["spec"]["properties"]["size"]["type"], "integer");
    assert_eq!(widget["properties"]["metadata"]["$ref"], format!("{REF_PREFIX}{META}.ObjectMeta"));
    let patch =
        document.pointer("/paths/~1apis~1example.com~1v1~1namespaces~1{namespace}~1widgets~1{name}/patch").unwrap();
    assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_none());
}

#[test]
fn index_names_documents_by_hash() {
    let registry = registry();
    let index = index(&registry);
    let paths = index["paths"].as_object().unwrap();
    assert_eq!(paths.keys().collect::<Vec<_>>(), ["api/v1", "apis/apps/v1", "apis/example.com/v1"]);
    let hash = hash(group_version_document(&registry, "apps", "v1").unwrap().to_string().as_bytes());
    assert_eq!(hash.len(), 64);
    assert_eq!(paths["apis/apps/v1"]["serverRelativeURL"], format!("/openapi/v3/apis/apps/v1?hash={hash}"));
}

#[test]
fn v2_holds_everything_in_one_document() {
    let document = v2(&registry());
    assert_eq!(document["swagger"], "2.0");
    complete(&document, "#/definitions/", &document["definitions"]);
    assert!(!document.to_string().contains(REF_PREFIX));
    assert!(document["definitions"].get("com.example.v1.Widget").is_some());
    let patch = document.pointer("/paths/~1api~1v1~1namespaces~1{name}/patch").unwrap();
    assert!(patch["parameters"].as_array().unwrap().iter().any(|p| p["name"] == "fieldValidation"));
    assert!(patch["consumes"].as_array().unwrap().contains(&json!("application/strategic-merge-patch+json")));
}

#[test]
fn documents_carry_descriptions() {
    let v3 = group_version_document(&registry(), "apps", "v1").unwrap();
    let deployment = &v3["components"]["schemas"]["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(deployment["description"], "Deployment enables declarative updates for Pods and ReplicaSets.");
    let name = "io.k8s.api.apps.v1.DeploymentSpec";
    let expected = json!({"allOf": [{"$ref": format!("{REF_PREFIX}{name}")}],
        "description": "Specification of the desired behavior of the Deployment."});
    assert_eq!(deployment["properties"]["spec"], expected);
    let v2 = v2(&registry());
    let expected = json!({"$ref": format!("#/definitions/{name}"), "description": expected["description"]});
    assert_eq!(v2["definitions"]["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"], expected);
}

/// Byte by byte what gnostic makes of the same document.
#[test]
fn v2_as_protobuf() {
    use base64::prelude::{BASE64_STANDARD, Engine};
    let golden: Value = serde_json::from_str(include_str!("gnostic.json")).unwrap();
    let expected = BASE64_STANDARD.decode(golden["protobuf"].as_str().unwrap()).unwrap();
    let encoded = v2_protobuf(&golden["document"]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(text(&encoded), text(&expected));
    assert_eq!(encoded, expected);
}

#[test]
fn every_built_in_kind_is_published() {
    let document = v2(&crate::kinds::builtin());
    complete(&document, "#/definitions/", &document["definitions"]);
    let reviews = document.pointer("/paths/~1apis~1authentication.k8s.io~1v1~1selfsubjectreviews").unwrap();
    assert!(reviews.get("post").is_some() && reviews.get("get").is_none(), "reviews are answered, not stored");
    assert!(document["definitions"].get("io.k8s.api.authentication.v1.SelfSubjectReviewList").is_none());
    let paths = document["paths"].as_object().unwrap();
    let methods = |path: &str| paths[path].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(methods("/api/v1/componentstatuses"), ["get", "parameters"]);
    assert_eq!(methods("/api/v1/componentstatuses/{name}"), ["get", "parameters"]);
    assert_eq!(methods("/api/v1/namespaces"), ["get", "parameters", "post"]);
}
