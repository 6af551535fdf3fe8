//! The scale subresource: an `autoscaling/v1 Scale` seen through the kind's [`ScalePaths`].

use std::collections::BTreeMap;

use axum::response::Response;
use copepod_api::{ApiError, FieldError, LabelSelector};
use copepod_core::resource::ScalePaths;
use copepod_core::table::{self, Column};
use serde_json::{Value, json};

use super::accept::Shape;
use super::object::{as_map, at_path, meta_str, set_path};
use super::patch::Patch;
use super::present::{self, Outcome};
use super::request::{Request, Verb};
use super::update::{Part, check_names, update};
use super::{apply, body, object};

/// GET, PUT and PATCH of `/scale`.
pub(crate) async fn serve(request: &Request, paths: &ScalePaths) -> Result<Response, ApiError> {
    let name = request.name();
    let outcome = match request.verb {
        Verb::Get => {
            let record = request.state.store.get(&request.key(name));
            Outcome::Stored(record.ok_or_else(|| ApiError::not_found(&request.group_resource(), name))?)
        }
        Verb::Update => {
            let scale = body::decode_options(request, "Scale")?;
            check_names(request, &scale)?;
            update(request, name, Part::Scale, |old| scaled(request, paths, old, &scale)).await?
        }
        Verb::Patch if request.is_apply() => apply::scale(request, paths).await?,
        Verb::Patch => {
            let patch = Patch::of(request)?;
            update(request, name, Part::Scale, |old| {
                let scale = patch.apply_plain(request, &scale_of(paths, old))?;
                scaled(request, paths, old, &scale)
            })
            .await?
        }
        _ => return Err(ApiError::method_not_allowed(&request.group_resource(), request.verb.name())),
    };
    let scale = scale_of(paths, &outcome.value(request)?);
    match &request.accept.shape {
        Shape::Table(version) => present::plain(request, 200, &table_of(request, version, &scale)),
        _ => present::plain(request, 200, &scale),
    }
}

/// A Scale as kubectl prints it.
fn table_of(request: &Request, version: &str, scale: &Value) -> Value {
    let columns = [
        Column::name(),
        Column::new("Desired", "integer", "Count that is asked for."),
        Column::new("Available", "integer", "Count that there is."),
        Column::age(),
    ];
    let cells = json!([
        table::name(scale),
        scale.pointer("/spec/replicas"),
        scale.pointer("/status/replicas"),
        table::age(scale, request.state.now().as_second()),
    ]);
    json!({
        "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": {"resourceVersion": meta_str(scale, "resourceVersion")}, "columnDefinitions": columns,
        "rows": [{"cells": cells, "object": object::metadata_only(scale, version)}],
    })
}

/// The Scale of an object.
fn scale_of(paths: &ScalePaths, object: &Value) -> Value {
    let count = |path: &str| at_path(object, path).and_then(Value::as_i64).unwrap_or(0);
    let mut meta = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object.pointer(&format!("/metadata/{field}")) {
            as_map(&mut meta).insert(field.into(), value.clone());
        }
    }
    let mut status = json!({"replicas": count(&paths.status_replicas)});
    let selector =
        at_path(object, &paths.selector).filter(|_| !paths.selector.is_empty()).map(|selector| match selector {
            Value::String(text) => text.clone(),
            // A ReplicationController's selector is a plain map of labels.
            selector => match serde_json::from_value::<BTreeMap<String, String>>(selector.clone()) {
                Ok(labels) => LabelSelector::from_labels(&labels).to_string(),
                Err(_) => LabelSelector::from_json(selector).unwrap_or_default().to_string(),
            },
        });
    if let Some(selector) = selector.filter(|s| !s.is_empty()) {
        as_map(&mut status).insert("selector".into(), selector.into());
    }
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": meta,
        "spec": {"replicas": count(&paths.spec_replicas)}, "status": status,
    })
}

/// The count that a Scale asks for.
pub(crate) fn replicas(request: &Request, scale: &Value) -> Result<i64, ApiError> {
    let replicas = match scale.pointer("/spec/replicas") {
        None | Some(Value::Null) => 0,
        Some(v) => v.as_i64().filter(|n| i32::try_from(*n).is_ok()).ok_or_else(|| {
            ApiError::bad_request(format!(
                "Scale in version \"v1\" cannot be handled as a Scale: spec.replicas: {v} is not an int32"
            ))
        })?,
    };
    if replicas < 0 {
        let e = FieldError::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0");
        return Err(ApiError::invalid("autoscaling", "Scale", request.name(), &[e]));
    }
    Ok(replicas)
}

/// The object with the Scale's count, under the Scale's preconditions.
fn scaled(request: &Request, paths: &ScalePaths, old: &Value, scale: &Value) -> Result<Value, ApiError> {
    let replicas = replicas(request, scale)?;
    let mut new = old.clone();
    set_path(&mut new, &paths.spec_replicas, json!(replicas));
    for field in ["resourceVersion", "uid"] {
        let given = meta_str(scale, field);
        if !given.is_empty() {
            object::meta_mut(&mut new).insert(field.into(), given.into());
        }
    }
    Ok(new)
}
