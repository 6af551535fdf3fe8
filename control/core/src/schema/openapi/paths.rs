//! The operations of resources, printed for OpenAPI v3 and v2.

use copepod_api::Gvk;
use serde_json::{Map, Value, json};

use super::{META, builtin_name, gvk_extension, reference, root_path, scale, schema_name};
use crate::codec::{JSON, PROTOBUF, YAML};
use crate::resource::Resource;

const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
const APPLY_PATCH: &str = "application/apply-patch+yaml";
const WATCH: &str = "application/json;stream=watch";

type Query = &'static [(&'static str, &'static str)];

const LIST: Query = &[
    ("allowWatchBookmarks", "boolean"),
    ("continue", "string"),
    ("fieldSelector", "string"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("sendInitialEvents", "boolean"),
    ("timeoutSeconds", "integer"),
    ("watch", "boolean"),
];
const WRITE: Query = &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")];
const PATCH: Query =
    &[("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string"), ("force", "boolean")];
const DELETE: Query = &[
    ("dryRun", "string"),
    ("gracePeriodSeconds", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
];
const DELETE_COLLECTION: Query = &[
    ("continue", "string"),
    ("dryRun", "string"),
    ("fieldSelector", "string"),
    ("gracePeriodSeconds", "integer"),
    ("labelSelector", "string"),
    ("limit", "integer"),
    ("orphanDependents", "boolean"),
    ("propagationPolicy", "string"),
    ("resourceVersion", "string"),
    ("resourceVersionMatch", "string"),
    ("timeoutSeconds", "integer"),
];

/// One method of one path.
struct Operation {
    path: String,
    method: &'static str,
    /// `x-kubernetes-action`.
    action: &'static str,
    id: String,
    tag: String,
    gvk: Gvk,
    query: Query,
    /// The schema and content types of the body.
    body: Option<(String, Vec<&'static str>)>,
    /// The schema of the answer.
    answer: String,
}

/// The paths of a v3 document.
pub(super) fn v3(resources: &[&Resource]) -> Value {
    paths(
        resources,
        |op| {
            let content = |schema: &str, types: &[&str]| -> Value {
                types
                    .iter()
                    .map(|t| ((*t).to_owned(), json!({"schema": reference(schema)})))
                    .collect::<Map<_, _>>()
                    .into()
            };
            let mut answers = vec![JSON, PROTOBUF, YAML];
            if op.action == "list" {
                answers.push(WATCH);
            }
            let mut out = json!({
                "tags": [op.tag],
                "operationId": op.id,
                "parameters": op.query.iter().map(|(name, ty)| v3_parameter("query", name, ty)).collect::<Vec<_>>(),
                "responses": {"200": {"description": "OK", "content": content(&op.answer, &answers)}},
            });
            if let (Some((schema, types)), Some(out)) = (&op.body, out.as_object_mut()) {
                out.insert(
                    "requestBody".to_owned(),
                    json!({"content": content(schema, types), "required": op.method != "delete"}),
                );
            }
            out
        },
        v3_parameter,
    )
}

/// The paths of a v2 document.
pub(super) fn v2(resources: &[&Resource]) -> Value {
    paths(
        resources,
        |op| {
            let mut parameters: Vec<Value> =
                op.query.iter().map(|(name, ty)| v2_parameter("query", name, ty)).collect();
            let mut consumes = vec!["*/*"];
            if let Some((schema, types)) = &op.body {
                consumes.clone_from(types);
                parameters.push(json!({
                    "in": "body", "name": "body", "required": op.method != "delete", "schema": reference(schema),
                }));
            }
            json!({
                "tags": [op.tag],
                "operationId": op.id,
                "consumes": consumes,
                "produces": [JSON, YAML, PROTOBUF],
                "schemes": ["https"],
                "parameters": parameters,
                "responses": {"200": {"description": "OK", "schema": reference(&op.answer)}},
            })
        },
        v2_parameter,
    )
}

fn v3_parameter(place: &str, name: &str, ty: &str) -> Value {
    let mut parameter = json!({"in": place, "name": name, "schema": {"type": ty, "uniqueItems": true}});
    if let (true, Some(parameter)) = (place == "path", parameter.as_object_mut()) {
        parameter.insert("required".to_owned(), true.into());
    }
    parameter
}

fn v2_parameter(place: &str, name: &str, ty: &str) -> Value {
    let mut parameter = json!({"in": place, "name": name, "type": ty, "uniqueItems": true});
    if let (true, Some(parameter)) = (place == "path", parameter.as_object_mut()) {
        parameter.insert("required".to_owned(), true.into());
    }
    parameter
}

fn paths(
    resources: &[&Resource],
    print: impl Fn(&Operation) -> Value,
    parameter: impl Fn(&str, &str, &str) -> Value,
) -> Value {
    let mut paths = Map::new();
    for op in resources.iter().flat_map(|r| operations(r)) {
        let mut printed = print(&op);
        if let Some(object) = printed.as_object_mut() {
            object.insert("x-kubernetes-action".to_owned(), op.action.into());
            object.insert("x-kubernetes-group-version-kind".to_owned(), gvk_extension(&op.gvk));
        }
        let item = paths.entry(op.path.clone()).or_insert_with(|| {
            let named = ["name", "namespace"].into_iter().filter(|p| op.path.contains(&format!("{{{p}}}")));
            let mut parameters: Vec<Value> = named.map(|p| parameter("path", p, "string")).collect();
            parameters.push(parameter("query", "pretty", "string"));
            json!({"parameters": parameters})
        });
        if let Some(item) = item.as_object_mut() {
            item.insert(op.method.to_owned(), printed);
        }
    }
    Value::Object(paths)
}

fn operations(resource: &Resource) -> Vec<Operation> {
    let names = &resource.names;
    let name = schema_name(resource);
    let list = format!("{name}List");
    let status = format!("{META}.Status");
    let root = format!("/{}", root_path(&names.group, &names.version));
    let scope = if resource.namespaced() { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{root}{scope}/{}", names.plural);
    let item = format!("{collection}/{{name}}");
    let group = if names.group.is_empty() { "core" } else { names.group.trim_end_matches(".k8s.io") };
    let tag = format!("{group}_{}", names.version);
    let prefix: String = group.split(['.', '-']).chain([names.version.as_str()]).map(capital).collect();
    let gvk = resource.gvk();

    let make = |path: &str, method, action: &'static str, id: String, query, body, answer: &str, gvk: &Gvk| Operation {
        path: path.to_owned(),
        method,
        action,
        id,
        tag: tag.clone(),
        gvk: gvk.clone(),
        query,
        body,
        answer: answer.to_owned(),
    };
    let object = |schema: &str| Some((schema.to_owned(), vec![JSON, YAML, PROTOBUF]));
    let options = || Some((format!("{META}.DeleteOptions"), vec![JSON, YAML, PROTOBUF]));
    let patch = || {
        let mut types = vec![APPLY_PATCH, JSON_PATCH, MERGE_PATCH];
        // Strategic merge is for built-in kinds only.
        if resource.schema.source().is_none() {
            types.push(STRATEGIC_PATCH);
        }
        Some((format!("{META}.Patch"), types))
    };
    let scoped = if resource.namespaced() { "Namespaced" } else { "" };
    let id = |verb: &str, rest: &str| format!("{verb}{prefix}{scoped}{}{rest}", names.kind);

    let mut all = vec![
        make(&collection, "get", "list", id("list", ""), LIST, None, &list, &gvk),
        make(&collection, "post", "post", id("create", ""), WRITE, object(&name), &name, &gvk),
        make(
            &collection,
            "delete",
            "deletecollection",
            format!("delete{prefix}Collection{scoped}{}", names.kind),
            DELETE_COLLECTION,
            options(),
            &status,
            &gvk,
        ),
        make(&item, "get", "get", id("read", ""), &[], None, &name, &gvk),
        make(&item, "put", "put", id("replace", ""), WRITE, object(&name), &name, &gvk),
        make(&item, "patch", "patch", id("patch", ""), PATCH, patch(), &name, &gvk),
        make(&item, "delete", "delete", id("delete", ""), DELETE, options(), &status, &gvk),
    ];
    if resource.namespaced() {
        let id = format!("list{prefix}{}ForAllNamespaces", names.kind);
        all.push(make(&format!("{root}/{}", names.plural), "get", "list", id, LIST, None, &list, &gvk));
    }
    all.retain(|op| {
        resource.serves(match op.action {
            "post" => "create",
            "put" => "update",
            action => action,
        })
    });
    let mut subresource = |sub: &str, schema: &str, gvk: &Gvk| {
        let path = format!("{item}/{sub}");
        let rest = capital(sub);
        all.push(make(&path, "get", "get", id("read", &rest), &[], None, schema, gvk));
        all.push(make(&path, "put", "put", id("replace", &rest), WRITE, object(schema), schema, gvk));
        all.push(make(&path, "patch", "patch", id("patch", &rest), PATCH, patch(), schema, gvk));
    };
    if resource.subresources.status {
        subresource("status", &name, &gvk);
    }
    if let (true, Some(schema)) = (resource.subresources.scale.is_some(), builtin_name(&scale())) {
        subresource("scale", schema, &scale());
    }
    all
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}
