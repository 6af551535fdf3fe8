//! What only pods (and namespaces) can do: binding, finalize. Eviction has a file of its own.

use axum::response::Response;
use copepod_api::{ApiError, FieldError, GroupResource};
use serde_json::{Value, json};

use super::object::{as_map, child_mut, is_deleting, meta_mut, meta_str};
use super::present;
use super::request::{Request, Verb, created};
use super::update::{Part, check_names, update};
use super::{body, create};

/// POST of a Binding: to `pods/x/binding` or to `bindings`.
pub(crate) async fn bind(request: &Request) -> Result<Response, ApiError> {
    let binding = body::decode_options(request, "Binding")?;
    create::check_namespace(request, &binding)?;
    let given = meta_str(&binding, "name");
    let name = request.target.name.as_deref().unwrap_or(given);
    if name.is_empty() || (!given.is_empty() && given != name) {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    let target = |field: &str| binding.pointer(&format!("/target/{field}")).and_then(Value::as_str).unwrap_or_default();
    let invalid = |e: FieldError| Err(ApiError::invalid("", "Binding", name, &[e]));
    if !matches!(target("kind"), "" | "Node") {
        return invalid(FieldError::not_supported("target.kind", &json!(target("kind")), &["Node"]));
    }
    if target("name").is_empty() {
        return invalid(FieldError::required("target.name", ""));
    }
    let bindings = GroupResource { group: String::new(), resource: "pods/binding".into() };
    let now = request.now();
    update(request, name, Part::Binding, |old| {
        let conflict = |why: String| Err(ApiError::conflict(&bindings, name, why));
        let uid = meta_str(&binding, "uid");
        if !uid.is_empty() && uid != meta_str(old, "uid") {
            return conflict(format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                meta_str(old, "uid")
            ));
        }
        if is_deleting(old) {
            return conflict(format!("pod {name} is being deleted, cannot be assigned to a host"));
        }
        let revision = meta_str(&binding, "resourceVersion");
        if !revision.is_empty() && revision != meta_str(old, "resourceVersion") {
            return conflict(format!(
                "Precondition failed: ResourceVersion in precondition: {revision}, ResourceVersion in object meta: {}",
                meta_str(old, "resourceVersion")
            ));
        }
        if old.pointer("/spec/schedulingGates").and_then(Value::as_array).is_some_and(|gates| !gates.is_empty()) {
            return conflict(format!("pod {name} has non-empty .spec.schedulingGates"));
        }
        let node = old.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
        if !node.is_empty() {
            return conflict(format!("pod {name} is already assigned to node {node:?}"));
        }
        Ok(bound(old.clone(), target("name"), &binding, &now))
    })
    .await?;
    present::plain(request, 201, &created())
}

fn bound(mut pod: Value, node: &str, binding: &Value, now: &str) -> Value {
    for field in ["annotations", "labels"] {
        if let Some(given) = binding.pointer(&format!("/metadata/{field}")).and_then(Value::as_object) {
            child_mut(meta_mut(&mut pod), field).extend(given.clone());
        }
    }
    let fields = as_map(&mut pod);
    child_mut(fields, "spec").insert("nodeName".into(), node.into());
    let status = child_mut(fields, "status");
    // It has its room.
    status.remove("nominatedNodeName");
    let scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    let conditions = status.entry("conditions").or_insert_with(|| json!([]));
    if let Some(list) = conditions.as_array_mut() {
        list.retain(|c| c.get("type").and_then(Value::as_str) != Some("PodScheduled"));
        list.push(scheduled);
    }
    pod
}

/// PUT of a namespace's `/finalize`: only `spec.finalizers` change, and an emptied namespace that is being deleted goes.
pub(crate) async fn finalize(request: &Request) -> Result<Response, ApiError> {
    if request.verb != Verb::Update {
        return Err(ApiError::method_not_allowed(&request.group_resource(), request.verb.name()));
    }
    let new = body::decode(request)?;
    check_names(request, &new)?;
    let finalizers = new.pointer("/spec/finalizers").cloned().unwrap_or_else(|| json!([]));
    let outcome = update(request, request.name(), Part::Internal, |old| {
        let mut changed = old.clone();
        child_mut(as_map(&mut changed), "spec").insert("finalizers".into(), finalizers.clone());
        // The precondition is the client's.
        let meta = meta_mut(&mut changed);
        match new.pointer("/metadata/resourceVersion") {
            Some(given) => meta.insert("resourceVersion".into(), given.clone()),
            None => meta.remove("resourceVersion"),
        };
        Ok(changed)
    })
    .await?;
    present::object(request, 200, &outcome)
}
