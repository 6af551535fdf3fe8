//! POST of an Eviction: a graceful delete that asks the pod's disruption budget first. What it may do is decided by
//! the pure `copepod_core::eviction`.

use std::sync::Arc;

use axum::response::Response;
use copepod_api::ApiError;
use copepod_api::names::{GROUP_MASTERS, USER_APISERVER};
use copepod_core::eviction::{self, Verdict};
use copepod_core::resource::Resource;
use copepod_store::ListOptions;
use http::HeaderMap;
use serde_json::Value;

use super::delete::{self, DeleteOptions};
use super::object::{self, meta_str};
use super::path::Target;
use super::present::{self, Outcome};
use super::request::{Query, Request, Verb, created};
use super::update::{Part, update};
use super::{body, create, error};
use crate::identity::Identity;

/// How often an eviction is tried again when the pod changes in between.
const MAX_TRIES: usize = 32;
/// The field manager of the budgets' statuses.
const MANAGER: &str = "kube-apiserver";

/// Answers the POST.
pub(crate) async fn evict(request: &Request) -> Result<Response, ApiError> {
    let eviction = body::decode_options(request, "Eviction")?;
    if meta_str(&eviction, "name") != request.name() {
        return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
    }
    create::check_namespace(request, &eviction)?;
    let mut options = DeleteOptions::from_value(eviction.get("deleteOptions").unwrap_or(&Value::Null))?;
    options.dry_run |= request.dry_run;
    for _ in 0..MAX_TRIES {
        if attempt(request, &options).await? {
            return present::plain(request, 201, &created());
        }
    }
    Err(ApiError::too_many_requests("Cannot evict pod as it changes all the time.", 1))
}

/// Evicts the pod as it is now; `false` if it changed meanwhile and has to be judged again.
async fn attempt(request: &Request, options: &DeleteOptions) -> Result<bool, ApiError> {
    let (state, name) = (&request.state, request.name());
    let record =
        state.store.get(&request.key(name)).ok_or_else(|| ApiError::not_found(&request.group_resource(), name))?;
    let pod = object::decode(request, &record)?;
    delete::check_preconditions(request, name, record.revision, &pod, options)?;
    let mut options = options.clone();
    let Some(kind) = state.registry.find("policy", "v1", "poddisruptionbudgets") else {
        return mark_and_delete(request, options).await.map(|()| true);
    };
    let budgets = budgets(request, kind)?;
    let may_change = match eviction::judge(&pod, &budgets)? {
        Verdict::Free => false,
        Verdict::FreeAsSeen => {
            options.resource_version = Some(record.revision.to_string());
            true
        }
        Verdict::Guarded(budget) => {
            spend(request, kind, meta_str(budget, "name"), options.dry_run).await?;
            false
        }
    };
    match mark_and_delete(request, options).await {
        Err(e) if may_change && e.reason == "Conflict" => Ok(false),
        other => other.map(|()| true),
    }
}

/// The budgets of the pod's namespace.
fn budgets(request: &Request, kind: &Resource) -> Result<Vec<Value>, ApiError> {
    let prefix = object::prefix(kind, request.namespace());
    let page = request.state.store.list(&prefix, &ListOptions::default());
    let page = page.map_err(|e| error::from_store(e, &kind.group_resource(), ""))?;
    page.records.iter().map(|record| object::stored(request, record)).collect()
}

/// Takes one disruption from a budget: a write to its status in the server's own name.
async fn spend(request: &Request, kind: &Arc<Resource>, budget: &str, dry_run: bool) -> Result<(), ApiError> {
    let target = Target {
        group: kind.names.group.clone(),
        version: kind.names.version.clone(),
        namespace: request.target.namespace.clone(),
        resource: kind.names.plural.clone(),
        name: Some(budget.into()),
        subresource: Some("status".into()),
        watch: false,
    };
    let identity = Identity::new(USER_APISERVER, &[GROUP_MASTERS]);
    let (state, query) = (request.state.clone(), Query::default());
    let mut own = Request::new(state, identity, kind.clone(), target, Verb::Update, query, HeaderMap::new())?;
    own.manager = MANAGER.into();
    own.dry_run = dry_run;
    let now = request.now();
    update(&own, budget, Part::Status, |present| eviction::spend(present, request.name(), &now)).await.map(|_| ())
}

/// Says in the pod's status that it is evicted, and deletes it.
async fn mark_and_delete(request: &Request, mut options: DeleteOptions) -> Result<(), ApiError> {
    let name = request.name();
    if !options.dry_run {
        let now = request.now();
        let marked = update(request, name, Part::Internal, |old| {
            let revision = meta_str(old, "resourceVersion").parse().unwrap_or(0);
            delete::check_preconditions(request, name, revision, old, &options)?;
            Ok(eviction::evicted(old, &now))
        })
        .await?;
        if let (Some(wanted), Outcome::Stored(record)) = (&mut options.resource_version, &marked) {
            *wanted = record.revision.to_string();
        }
    }
    delete::delete_object(request, name, &options).await.map(|_| ())
}
