//! exec, attach, portforward and proxy: routes that connect a client to a pod, a Service or a node. The nodes do not
//! serve them yet, so each request is checked as upstream does and then refused with 501.

use copepod_api::{ApiError, GroupResource};
use serde_json::Value;

use super::log;
use super::object;
use super::request::Request;

/// Answers a request to one of them.
///
/// # Errors
/// Always: 404 for an object that is not there, 400 for a container that the pod has not or a pod that runs nowhere,
/// else 501.
pub(crate) fn refuse(request: &Request, sub: &str) -> ApiError {
    check(request, sub).err().unwrap_or_else(|| {
        let GroupResource { resource, .. } = request.group_resource();
        let why = format!("{sub} of {resource} is not implemented: this server's nodes do not serve it yet");
        ApiError::new(501, "NotImplemented", why)
    })
}

fn check(request: &Request, sub: &str) -> Result<(), ApiError> {
    // `scheme:name:port` of a proxy.
    let whole = request.name();
    let name = match (sub, whole.split(':').collect::<Vec<_>>().as_slice()) {
        ("proxy", [_, name, _] | [name, _]) => (*name).to_string(),
        _ => whole.to_string(),
    };
    let record = request.state.store.get(&request.key(&name));
    let record = record.ok_or_else(|| ApiError::not_found(&request.group_resource(), &name))?;
    if request.resource.names.plural != "pods" || sub == "proxy" {
        return Ok(());
    }
    let pod = object::decode(request, &record)?;
    if sub != "portforward" {
        log::container(&pod, &name, request.query.get("container"))?;
    }
    if pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default().is_empty() {
        return Err(ApiError::bad_request(format!("pod {name} does not have a host assigned")));
    }
    Ok(())
}
