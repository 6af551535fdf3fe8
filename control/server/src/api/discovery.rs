//! Discovery: which groups, versions, resources and verbs there are, in the legacy and the aggregated form. All of it
//! is read off the registry and [`super::subresources`].

use axum::body::Body;
use axum::response::Response;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use copepod_api::ApiError;
use copepod_core::resource::{Resource, Scope};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::object::as_map;
use super::subresources::{self, Sub};
use super::{ApiState, present};

/// `/`: the paths that there are.
pub(crate) fn paths(state: &ApiState) -> Value {
    let mut paths: Vec<String> = [
        "/api",
        "/api/v1",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ]
    .map(String::from)
    .into();
    for group in group_names(state) {
        paths.extend(versions(state, &group).iter().map(|v| format!("/apis/{group}/{v}")));
        paths.push(format!("/apis/{group}"));
    }
    paths.sort();
    json!({ "paths": paths })
}

/// An aggregated document, or 304 if the client has it already.
pub(crate) fn tagged(headers: &HeaderMap, media_type: &str, bytes: Bytes) -> Response {
    let hex: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02X}")).collect();
    let tag = format!("\"{hex}\"");
    let known = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    let unchanged = known.is_some_and(|known| known.split(',').any(|t| t.trim().trim_start_matches("W/") == tag));
    let mut response = if unchanged {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        present::bytes_response(headers, 200, media_type, bytes)
    };
    response.headers_mut().extend(HeaderValue::from_str(&tag).ok().map(|tag| (header::ETAG, tag)));
    response
}

/// Changes when the version that objects are stored in does.
fn storage_version_hash(resource: &Resource) -> String {
    let (group, version) = match &resource.storage {
        Some(home) => (&home.group, &home.version),
        None => (&resource.names.group, &resource.names.version),
    };
    let digest = Sha256::digest(format!("{group}/{version}/{}", resource.names.kind).as_bytes());
    BASE64_STANDARD.encode(digest.get(..8).unwrap_or_default())
}

/// `/api` in the legacy form; `host` is the address that the client used.
pub(crate) fn core_versions(host: &str) -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": host}],
    })
}

/// `/apis` in the legacy form.
pub(crate) fn groups(state: &ApiState) -> Value {
    let groups: Vec<Value> = group_names(state).iter().map(|g| group_body(state, g)).collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

/// `/apis/{group}`.
pub(crate) fn group(state: &ApiState, group: &str) -> Result<Value, ApiError> {
    if group.is_empty() || versions(state, group).is_empty() {
        return Err(ApiError::no_such_path());
    }
    let mut body = group_body(state, group);
    let fields = as_map(&mut body);
    fields.insert("kind".into(), json!("APIGroup"));
    fields.insert("apiVersion".into(), json!("v1"));
    Ok(body)
}

/// `/api/v1` and `/apis/{group}/{version}`.
pub(crate) fn resources(state: &ApiState, group: &str, version: &str) -> Result<Value, ApiError> {
    let mut list = Vec::new();
    for resource in in_version(state, group, version) {
        list.push(legacy(resource));
        for sub in subresources::of(resource) {
            list.push(legacy_sub(resource, &sub));
        }
    }
    if list.is_empty() {
        return Err(ApiError::no_such_path());
    }
    if group.is_empty() && version == "v1" {
        list.push(json!({"name": "bindings", "singularName": "binding", "namespaced": true, "kind": "Binding", "verbs": ["create"]}));
    }
    list.sort_by_key(|r| r.get("name").and_then(Value::as_str).unwrap_or_default().to_string());
    Ok(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version(group, version), "resources": list,
    }))
}

/// The aggregated form of `/api` (`core`) or `/apis`.
pub(crate) fn aggregated(state: &ApiState, core: bool, version: &str) -> Value {
    let names = if core { vec![String::new()] } else { group_names(state) };
    let items: Vec<Value> = names.iter().map(|g| aggregated_group(state, g)).collect();
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {},
        "items": items,
    })
}

fn aggregated_group(state: &ApiState, group: &str) -> Value {
    let versions: Vec<Value> = versions(state, group)
        .iter()
        .map(|version| {
            let mut resources: Vec<Value> = in_version(state, group, version).map(aggregated_resource).collect();
            if group.is_empty() {
                resources.push(json!({
                    "resource": "bindings", "singularResource": "binding", "scope": "Namespaced", "verbs": ["create"],
                    "responseKind": {"group": "", "version": "v1", "kind": "Binding"},
                }));
            }
            json!({"version": version, "resources": resources, "freshness": "Current"})
        })
        .collect();
    let meta = if group.is_empty() {
        json!({"creationTimestamp": null})
    } else {
        json!({"name": group, "creationTimestamp": null})
    };
    json!({"metadata": meta, "versions": versions})
}

fn aggregated_resource(resource: &Resource) -> Value {
    let names = &resource.names;
    let kind = json!({"group": names.group, "version": names.version, "kind": names.kind});
    let subs: Vec<Value> = subresources::of(resource)
        .iter()
        .map(|sub| {
            let (group, version) = sub.api.unwrap_or((&names.group, &names.version));
            json!({
                "subresource": sub.name, "verbs": sub.verbs,
                "responseKind": {"group": group, "version": version, "kind": sub.kind.unwrap_or(&names.kind)},
            })
        })
        .collect();
    let mut out = json!({
        "resource": names.plural, "responseKind": kind, "singularResource": names.singular,
        "verbs": resource.strategy.verbs(),
        "scope": if names.scope == Scope::Namespaced { "Namespaced" } else { "Cluster" },
    });
    let fields = as_map(&mut out);
    for (field, list) in [("shortNames", &names.short), ("categories", &names.categories)] {
        if !list.is_empty() {
            fields.insert(field.into(), json!(list));
        }
    }
    if !subs.is_empty() {
        fields.insert("subresources".into(), json!(subs));
    }
    out
}

fn legacy(resource: &Resource) -> Value {
    let names = &resource.names;
    let mut out = json!({
        "name": names.plural, "singularName": names.singular, "namespaced": resource.namespaced(), "kind": names.kind,
        "verbs": resource.strategy.verbs(),
    });
    let fields = as_map(&mut out);
    for (field, list) in [("shortNames", &names.short), ("categories", &names.categories)] {
        if !list.is_empty() {
            fields.insert(field.into(), json!(list));
        }
    }
    if resource.is_stored() {
        fields.insert("storageVersionHash".into(), json!(storage_version_hash(resource)));
    }
    out
}

fn legacy_sub(resource: &Resource, sub: &Sub) -> Value {
    let names = &resource.names;
    let mut out = json!({
        "name": format!("{}/{}", names.plural, sub.name), "singularName": "", "namespaced": resource.namespaced(),
        "kind": sub.kind.unwrap_or(&names.kind), "verbs": sub.verbs,
    });
    if let Some((group, version)) = sub.api {
        let fields = as_map(&mut out);
        fields.insert("group".into(), json!(group));
        fields.insert("version".into(), json!(version));
    }
    out
}

fn group_body(state: &ApiState, group: &str) -> Value {
    let versions: Vec<Value> =
        versions(state, group).iter().map(|v| json!({"groupVersion": group_version(group, v), "version": v})).collect();
    json!({"name": group, "preferredVersion": versions.first(), "versions": versions})
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_string() } else { format!("{group}/{version}") }
}

/// The groups but core, in order of registration.
fn group_names(state: &ApiState) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for r in state.registry.all() {
        if !r.names.group.is_empty() && !names.contains(&r.names.group) {
            names.push(r.names.group.clone());
        }
    }
    names
}

fn versions(state: &ApiState, group: &str) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    for r in state.registry.all().iter().filter(|r| r.names.group == group) {
        if !list.contains(&r.names.version) {
            list.push(r.names.version.clone());
        }
    }
    list
}

fn in_version<'a>(state: &'a ApiState, group: &'a str, version: &'a str) -> impl Iterator<Item = &'a Resource> {
    state.registry.all().iter().map(AsRef::as_ref).filter(move |r| r.names.group == group && r.names.version == version)
}
