//! Component statuses: the health of the store, the controllers and the scheduler, asked anew for each request.

use axum::response::Response;
use copepod_api::ApiError;
use copepod_core::kinds::component_status::{DEPRECATED, status};
use copepod_store::Record;
use serde_json::Value;

use super::object;
use super::present::{self, Outcome};
use super::read::ListPage;
use super::request::{Request, Verb};
use super::selector::Selector;
use crate::components::{CONTROLLER_MANAGER, SCHEDULER};

/// GET of one component's status, or of all.
pub(crate) fn serve(request: &Request) -> Result<Response, ApiError> {
    request.warn(DEPRECATED);
    let components = [CONTROLLER_MANAGER, "etcd-0", SCHEDULER];
    if request.verb == Verb::List {
        let selector = Selector::of(&request.resource, &request.query)?;
        let mut records = Vec::new();
        for name in components {
            records.push(record(request, &observed(request, name))?);
        }
        records.retain(|record| selector.takes(request, record));
        let revision = request.state.store.current_revision();
        return present::list(request, &ListPage { records, revision, cont: None, remaining: None });
    }
    let name = request.name();
    if !components.contains(&name) {
        return Err(ApiError::not_found(&request.group_resource(), name));
    }
    present::object(request, 200, &Outcome::Unstored(observed(request, name)))
}

fn observed(request: &Request, name: &str) -> Value {
    let health = match name {
        "etcd-0" => match request.state.store.read_only() {
            None => Ok("ok: the store of the API server's process, no etcd"),
            Some(why) => Err(format!("the store takes no writes: {why}")),
        },
        part => request.state.components.health(part),
    };
    status(name, health.as_ref().map(|message| *message).map_err(String::as_str))
}

/// As if it were stored, for lists.
fn record(request: &Request, object: &Value) -> Result<Record, ApiError> {
    let (value, attrs) = object::encode(&request.state.registry, &request.resource, object)?;
    let key = request.key(object::meta_str(object, "name")).into();
    let revision = request.state.store.current_revision();
    Ok(Record { key, value, attrs: attrs.into(), created: revision, revision })
}
