//! Delete and deletecollection: preconditions, graceful periods, propagation policies and finalizers. What a delete
//! does is decided by the pure [`plan`].

use axum::response::Response;
use bytes::BytesMut;
use copepod_api::{ApiError, FieldError, Gvk};
use copepod_core::resource::Resource;
use copepod_core::schema;
use copepod_store::{Expect, StoreError};
use futures::{StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::admission::{Operation, Review};
use super::error::{self, invalid_options};
use super::object::{self, as_map, child_mut, finalizers, is_deleting, meta_i64, meta_mut, meta_str};
use super::present::{self, Outcome};
use super::request::{Query, Request, dry_run, parse_revision, success, timestamp};
use super::selector::Selector;
use super::update::with_revision;
use super::{body, read};

/// How often a delete is tried again when others commit in between.
const MAX_TRIES: usize = 32;
/// How many objects of a deletecollection are deleted at once.
const COLLECTION_CONCURRENCY: usize = 32;
/// Core kinds whose delete answers with the object instead of a Status, as upstream's do.
const RETURNED: &[&str] =
    &["pods", "services", "serviceaccounts", "namespaces", "persistentvolumes", "persistentvolumeclaims"];

/// `metav1.DeleteOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DeleteOptions {
    grace_seconds: Option<i64>,
    propagation: Option<Propagation>,
    uid: Option<String>,
    /// The revision that the object must have.
    pub resource_version: Option<String>,
    /// Change nothing.
    pub dry_run: bool,
}

/// What happens to an object's dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Propagation {
    Orphan,
    Background,
    Foreground,
}

impl DeleteOptions {
    /// From the body, or from the query if the body is empty.
    pub fn of(request: &Request) -> Result<Self, ApiError> {
        let mut options = if request.is_empty_body() {
            Self::from_query(&request.query)?
        } else {
            let mut given = body::decode_options(request, "DeleteOptions")?;
            let gvk = Gvk::new("", "v1", "DeleteOptions");
            if let Some(schema) = schema::builtin(&gvk) {
                schema.decode(&mut given).map_err(|e| ApiError::bad_request(e.bad_request(&gvk)))?;
            }
            Self::from_value(&given)?
        };
        options.dry_run |= request.dry_run;
        Ok(options)
    }

    /// From a decoded DeleteOptions.
    pub fn from_value(v: &Value) -> Result<Self, ApiError> {
        let text = |pointer: &str| v.pointer(pointer).and_then(Value::as_str).filter(|s| !s.is_empty());
        let dry = v.get("dryRun").and_then(Value::as_array);
        let dry = dry.into_iter().flatten().filter_map(Value::as_str).collect();
        Ok(Self {
            grace_seconds: v.get("gracePeriodSeconds").and_then(Value::as_i64),
            propagation: propagation(text("/propagationPolicy"), v.get("orphanDependents").and_then(Value::as_bool))?,
            uid: text("/preconditions/uid").map(Into::into),
            resource_version: text("/preconditions/resourceVersion").map(Into::into),
            dry_run: dry_run("DeleteOptions", dry)?,
        })
    }

    fn from_query(query: &Query) -> Result<Self, ApiError> {
        let orphan = query.get("orphanDependents").map(|v| v != "false" && v != "0");
        Ok(Self {
            grace_seconds: query.integer("gracePeriodSeconds")?,
            propagation: propagation(query.get("propagationPolicy"), orphan)?,
            ..Self::default()
        })
    }
}

fn propagation(policy: Option<&str>, orphan: Option<bool>) -> Result<Option<Propagation>, ApiError> {
    let invalid = |e| Err(invalid_options("DeleteOptions", e));
    match (policy, orphan) {
        (Some(p), Some(_)) => invalid(FieldError::invalid(
            "propagationPolicy",
            &json!(p),
            "orphanDependents and deletionPropagation cannot be both set",
        )),
        (Some("Orphan"), None) | (None, Some(true)) => Ok(Some(Propagation::Orphan)),
        (Some("Background"), None) | (None, Some(false)) => Ok(Some(Propagation::Background)),
        (Some("Foreground"), None) => Ok(Some(Propagation::Foreground)),
        (Some(p), None) => invalid(FieldError::not_supported(
            "propagationPolicy",
            &json!(p),
            &["Foreground", "Background", "Orphan", "nil"],
        )),
        (None, None) => Ok(None),
    }
}

/// DELETE of one object.
pub(crate) async fn delete(request: &Request) -> Result<Response, ApiError> {
    let options = DeleteOptions::of(request)?;
    let names = &request.resource.names;
    match delete_object(request, request.name(), &options).await? {
        Deleted::Gone(object) if !(names.group.is_empty() && RETURNED.contains(&names.plural.as_str())) => {
            let mut details = json!({"name": request.name(), "kind": names.plural, "uid": meta_str(&object, "uid")});
            if !names.group.is_empty() {
                as_map(&mut details).insert("group".into(), json!(names.group));
            }
            present::plain(request, 200, &success(details))
        }
        Deleted::Gone(object) => present::object(request, 200, &Outcome::Unstored(object)),
        Deleted::Marked(outcome) => present::object(request, 200, &outcome),
    }
}

/// DELETE of a collection: every selected object, as a delete of it would; of a limited one a page, and the token that
/// leads to the next. Each answer is encoded as it comes: decoded objects would take many times the room of their bytes.
pub(crate) async fn delete_collection(request: &Request) -> Result<Response, ApiError> {
    let options = DeleteOptions::of(request)?;
    let selector = Selector::of(&request.resource, &request.query)?;
    let page = read::list_page(request, &selector)?;
    let gvk = request.resource.gvk();
    let mut list = BytesMut::from(page.head(&format!("{}List", gvk.kind), &gvk.api_version()).as_bytes());
    let tasks = page.records.into_iter().map(|record| {
        let options = &options;
        async move {
            let name = record.key.rsplit('/').next().unwrap_or_default().to_string();
            // Across namespaces the key, not the URL, says where the object is.
            match delete_at(request, &record.key, &name, options).await {
                Ok(Deleted::Gone(object)) => Outcome::Unstored(object).bytes(request).map(Some),
                Ok(Deleted::Marked(outcome)) => outcome.bytes(request).map(Some),
                Err(e) if e.code == 404 => Ok(None),
                Err(e) => Err(e),
            }
        }
    });
    let mut deleted = std::pin::pin!(futures::stream::iter(tasks).buffered(COLLECTION_CONCURRENCY));
    let mut first = true;
    while let Some(answer) = deleted.try_next().await? {
        let Some(object) = answer else { continue };
        if !std::mem::take(&mut first) {
            list.extend_from_slice(b",");
        }
        list.extend_from_slice(&object);
    }
    list.extend_from_slice(b"]}");
    present::encoded(request, 200, list.freeze())
}

/// What became of a deleted object.
pub(crate) enum Deleted {
    /// It is gone; its last form.
    Gone(Value),
    /// It stays until its grace or finalizers end.
    Marked(Outcome),
}

/// Deletes an object of the request's resource and namespace.
pub(crate) async fn delete_object(request: &Request, name: &str, options: &DeleteOptions) -> Result<Deleted, ApiError> {
    delete_at(request, &request.key(name), name, options).await
}

async fn delete_at(request: &Request, key: &str, name: &str, options: &DeleteOptions) -> Result<Deleted, ApiError> {
    let (resource, group_resource) = (&request.resource, request.group_resource());
    let store = &request.state.store;
    for _ in 0..MAX_TRIES {
        let record = store.get(key).ok_or_else(|| ApiError::not_found(&group_resource, name))?;
        let mut object = object::decode(request, &record)?;
        check_preconditions(request, name, record.revision, &object, options)?;
        let mut review = Review::new(request, Operation::Delete, name, &mut object, None);
        request.state.admit(&mut review).await?;
        drop(review);
        meta_mut(&mut object).remove("resourceVersion");
        let revision = Expect::Revision(record.revision);
        let result = match plan(resource, &object, options, request.state.now()) {
            Plan::Keep => return Ok(Deleted::Marked(Outcome::Stored(record))),
            Plan::Remove if options.dry_run => return Ok(Deleted::Gone(with_revision(object, record.revision))),
            Plan::Mark(new) if options.dry_run => return Ok(Deleted::Marked(Outcome::Unstored(new))),
            Plan::Remove => match store.delete(key, revision).await {
                Ok(removed) => Ok(Deleted::Gone(with_revision(object, removed.revision))),
                Err(e) => Err(e),
            },
            Plan::Mark(new) => {
                let (bytes, attrs) = object::encode(&request.state.registry, resource, &new)?;
                store.put(key, bytes, attrs, revision).await.map(|r| Deleted::Marked(Outcome::Stored(r)))
            }
        };
        match result {
            Ok(deleted) => return Ok(deleted),
            Err(StoreError::Conflict { .. }) => {}
            Err(e) => return Err(error::from_store(e, &group_resource, name)),
        }
    }
    Err(ApiError::stale(&group_resource, name))
}

/// Refuses an object, as it was at a revision, that is not the one that the options mean.
pub(crate) fn check_preconditions(
    request: &Request,
    name: &str,
    revision: u64,
    object: &Value,
    options: &DeleteOptions,
) -> Result<(), ApiError> {
    let conflict = |why: String| Err(ApiError::conflict(&request.group_resource(), name, why));
    let uid = meta_str(object, "uid");
    if let Some(wanted) = options.uid.as_deref().filter(|w| *w != uid) {
        return conflict(format!(
            "the UID in the precondition ({wanted}) does not match the UID in record ({uid}). The object might have been \
             deleted and then recreated"
        ));
    }
    if let Some(wanted) = &options.resource_version
        && parse_revision(wanted)? != revision
    {
        return conflict(format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record \
             ({revision}). The object might have been modified"
        ));
    }
    Ok(())
}

/// Whether finalizers keep an object that is being deleted.
pub(crate) fn is_held(resource: &Resource, object: &Value) -> bool {
    let own = object.pointer("/spec/finalizers").and_then(Value::as_array).is_some_and(|l| !l.is_empty());
    !finalizers(object).is_empty() || (is_namespaces(resource) && own)
}

/// Namespaces have finalizers of their own in their spec and a phase.
pub(crate) fn is_namespaces(resource: &Resource) -> bool {
    resource.names.group.is_empty() && resource.names.plural == "namespaces"
}

#[derive(Debug, PartialEq)]
enum Plan {
    /// Remove it now.
    Remove,
    /// Store this: deletion begins, or its grace got shorter.
    Mark(Value),
    /// Deletion is under way; nothing changes.
    Keep,
}

/// What a delete does to an object.
fn plan(resource: &Resource, object: &Value, options: &DeleteOptions, now: Timestamp) -> Plan {
    let mut new = object.clone();
    let deleting = is_deleting(object);
    let foreground = finalizers(object).iter().any(|f| f == "foregroundDeletion");
    let orphans =
        || (!deleting && !foreground && resource.strategy.orphans_by_default()).then_some(Propagation::Orphan);
    set_propagation(&mut new, options.propagation.or_else(orphans));
    let pending = meta_i64(object, "deletionGracePeriodSeconds").filter(|_| deleting);
    if let Some(default) = resource.strategy.default_grace_seconds(object)
        && pending != Some(0)
    {
        // A default of 0 means that nothing runs: no client may ask for more.
        let wanted = if default == 0 { Some(0) } else { options.grace_seconds.map(|s| if s < 0 { 1 } else { s }) };
        match (pending, wanted) {
            (Some(_), None) => return keep_or_mark(new, object),
            (Some(had), Some(wanted)) if wanted >= had => return keep_or_mark(new, object),
            (Some(had), Some(wanted)) if wanted > 0 => {
                let until = meta_str(object, "deletionTimestamp").parse::<Timestamp>().unwrap_or(now);
                mark(&mut new, until - SignedDuration::from_secs(had - wanted), wanted);
                return Plan::Mark(new);
            }
            (None, wanted) if wanted.unwrap_or(default) > 0 => {
                let seconds = wanted.unwrap_or(default);
                let until = now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
                mark(&mut new, until, seconds);
                bump(&mut new);
                return Plan::Mark(new);
            }
            _ => {}
        }
    }
    if !is_held(resource, &new) {
        return Plan::Remove;
    }
    if !deleting {
        mark(&mut new, now, 0);
        bump(&mut new);
    } else if pending.is_some_and(|p| p > 0) {
        mark(&mut new, now, 0);
    }
    if is_namespaces(resource) {
        child_mut(as_map(&mut new), "status").insert("phase".into(), json!("Terminating"));
    }
    keep_or_mark(new, object)
}

fn keep_or_mark(new: Value, old: &Value) -> Plan {
    if new == *old { Plan::Keep } else { Plan::Mark(new) }
}

fn mark(object: &mut Value, at: Timestamp, grace_seconds: i64) {
    let meta = meta_mut(object);
    meta.insert("deletionTimestamp".into(), timestamp(at).into());
    meta.insert("deletionGracePeriodSeconds".into(), json!(grace_seconds));
}

fn bump(object: &mut Value) {
    if let Some(generation) = meta_i64(object, "generation").filter(|g| *g > 0) {
        meta_mut(object).insert("generation".into(), json!(generation + 1));
    }
}

fn set_propagation(object: &mut Value, policy: Option<Propagation>) {
    let Some(policy) = policy else { return };
    let mut list: Vec<String> =
        finalizers(object).into_iter().filter(|f| f != "orphan" && f != "foregroundDeletion").collect();
    match policy {
        Propagation::Orphan => list.push("orphan".into()),
        Propagation::Foreground => list.push("foregroundDeletion".into()),
        Propagation::Background => {}
    }
    let meta = meta_mut(object);
    if list.is_empty() {
        meta.remove("finalizers");
    } else {
        meta.insert("finalizers".into(), json!(list));
    }
}
