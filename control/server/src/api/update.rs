//! Replace, and the one read-change-commit loop under every write to an existing object: replace, patch, status,
//! scale, binding, finalize.

use std::hash::{Hash, Hasher};

use axum::response::Response;
use copepod_api::{ApiError, FieldError};
use copepod_core::apply::same_but_time;
use copepod_core::validate::{IMMUTABLE, object_meta_update, standard_finalizers};
use copepod_store::{Expect, Record, StoreError};
use serde_json::{Value, json};

use super::admission::{Operation, Review};
use super::object::{self, is_deleting, meta_i64, meta_mut, meta_str};
use super::present::{self, Outcome};
use super::request::{Request, parse_revision};
use super::{body, create, delete, error, managers};

/// How often a write without a resourceVersion is tried again when others commit in between.
const MAX_TRIES: usize = 256;
/// Groups of the kinds whose labels and annotations a write to `/status` carries too, as upstream's older kinds do.
const META_WITH_STATUS: [&str; 5] = ["", "apps", "autoscaling", "batch", "policy"];
/// Locks that contended keys share.
const TURNS: usize = 64;

/// Lets the writers of one object that got in each other's way go one after the other.
pub(crate) struct Turns([tokio::sync::Mutex<()>; TURNS]);

impl Default for Turns {
    fn default() -> Self {
        Self(std::array::from_fn(|_| tokio::sync::Mutex::default()))
    }
}

impl Turns {
    async fn take(&self, key: &str) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let mut hasher = std::hash::DefaultHasher::new();
        key.hash(&mut hasher);
        let place = usize::try_from(hasher.finish() % TURNS as u64).unwrap_or_default();
        Some(self.0.get(place)?.lock().await)
    }
}

/// Which part of an object a write may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All but status (if the kind has a status subresource) and what the server sets.
    Main,
    /// Status only.
    Status,
    /// The count, through `/scale`: a write to the main part whose manager is another.
    Scale,
    /// What the server's own change function made of the present object (finalize, approval): trusted.
    Internal,
    /// The same of a binding, which is no change of what a pod should be: its generation stays.
    Binding,
}

/// PUT of a whole object, or to its status.
pub(crate) async fn replace(request: &Request, part: Part) -> Result<Response, ApiError> {
    let new = body::decode(request)?;
    check_names(request, &new)?;
    let blind = matches!(meta_str(&new, "resourceVersion"), "" | "0");
    let change = |_: &Value| {
        if blind && !request.resource.strategy.allows_unconditional_update() {
            let field = "metadata.resourceVersion";
            let error = FieldError::invalid(field, &json!(0), "must be specified for an update");
            return Err(request.invalid(request.name(), &[error]));
        }
        Ok(new.clone())
    };
    match update(request, request.name(), part, change).await {
        Err(e) if e.code == 404 && part == Part::Main => replace_nothing(request, new, e).await,
        outcome => present::object(request, 200, &outcome?),
    }
}

/// PUT of an object that does not exist: some kinds are created so.
async fn replace_nothing(request: &Request, mut new: Value, missing: ApiError) -> Result<Response, ApiError> {
    let uid = meta_str(&new, "uid");
    if !uid.is_empty() {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: ");
        return Err(ApiError::conflict(&request.group_resource(), request.name(), why));
    }
    if !request.resource.strategy.creates_on_update() {
        return Err(missing);
    }
    meta_mut(&mut new).remove("resourceVersion");
    present::object(request, 201, &create::create_object(request, new).await?)
}

/// Refuses an object whose name or namespace is not the URL's.
pub(crate) fn check_names(request: &Request, new: &Value) -> Result<(), ApiError> {
    let (given, name) = (meta_str(new, "name"), request.name());
    if given.is_empty() {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        )));
    }
    if given != name {
        return Err(ApiError::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    create::check_namespace(request, new)
}

/// Reads the object, lets `change` make the new one (it sees `metadata.resourceVersion`), and commits it if nobody was
/// faster; else tries again. A resourceVersion in the new object must be the present one.
pub(crate) async fn update(
    request: &Request,
    name: &str,
    part: Part,
    mut change: impl FnMut(&Value) -> Result<Value, ApiError>,
) -> Result<Outcome, ApiError> {
    let (key, group_resource) = (request.key(name), request.group_resource());
    let mut turn = None;
    for _ in 0..MAX_TRIES {
        let record = request.state.store.get(&key).ok_or_else(|| ApiError::not_found(&group_resource, name))?;
        let old = object::decode(request, &record)?;
        let new = change(&old)?;
        let given = meta_str(&new, "resourceVersion");
        if !given.is_empty() && given != "0" && parse_revision(given)? != record.revision {
            return Err(ApiError::stale(&group_resource, name));
        }
        match commit(request, name, part, &record, old, new).await {
            // From now on one after the other, so that each gets through.
            Err(Retry::Again) if turn.is_none() => turn = request.state.turns.take(&key).await,
            Err(Retry::Again) => {}
            Err(Retry::Failed(e)) => return Err(e),
            Ok(outcome) => return Ok(outcome),
        }
    }
    Err(ApiError::stale(&group_resource, name))
}

enum Retry {
    Again,
    Failed(ApiError),
}
impl From<ApiError> for Retry {
    fn from(e: ApiError) -> Self {
        Self::Failed(e)
    }
}

async fn commit(
    request: &Request,
    name: &str,
    part: Part,
    record: &Record,
    mut old: Value,
    mut new: Value,
) -> Result<Outcome, Retry> {
    let (resource, group_resource) = (&request.resource, request.group_resource());
    let (old_uid, uid) = (meta_str(&old, "uid"), meta_str(&new, "uid"));
    if !uid.is_empty() && uid != old_uid {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {old_uid}");
        return Err(ApiError::conflict(&group_resource, name, why).into());
    }
    meta_mut(&mut old).remove("resourceVersion");
    let had = meta_mut(&mut old).remove("managedFields");
    let foreign = if matches!(part, Part::Main | Part::Scale) { foreign_deletion(&new, &old) } else { Vec::new() };
    if !foreign.is_empty() {
        return Err(request.invalid(name, &foreign).into());
    }
    let given = meta_mut(&mut new).remove("managedFields");
    new = prepare(request, part, &old, new);
    // Before admission: what the server fills in belongs to nobody.
    let managed = managers::track(request, part, (Some(&old), had.as_ref()), (&new, given));

    let mut review = Review::new(request, Operation::Update, name, &mut new, Some(&old));
    request.state.admit(&mut review).await?;
    let _guards = review.into_guards();
    // Admission may have given addresses; a change made only of defaults is no change either.
    if same(&new, &old) && (managed == had || same_but_time(managed.as_ref(), had.as_ref())) {
        return Ok(Outcome::Stored(record.clone()));
    }
    if !matches!(part, Part::Status | Part::Binding)
        && resource.strategy.has_generation()
        && (resource.strategy.bumps_generation(&new, &old) || is_deleting(&new) != is_deleting(&old))
    {
        let next = meta_i64(&old, "generation").unwrap_or(0) + 1;
        meta_mut(&mut new).insert("generation".into(), json!(next));
    }
    validate(request, name, part, &old, &new)?;
    let mut review = Review::new(request, Operation::Update, name, &mut new, Some(&old));
    request.state.check(&mut review).await?;
    let _checked = review.into_guards();
    if let Some(managed) = managed {
        meta_mut(&mut new).insert("managedFields".into(), managed);
    }

    let store = &request.state.store;
    let finished = is_deleting(&new)
        && !delete::is_held(resource, &new)
        && meta_i64(&new, "deletionGracePeriodSeconds").unwrap_or(0) == 0;
    if request.dry_run {
        return Ok(Outcome::Unstored(with_revision(new, record.revision)));
    }
    let expect = Expect::Revision(record.revision);
    let written = if finished {
        let removed = store.delete(&record.key, expect).await;
        removed.map(|r| Outcome::Unstored(with_revision(new, r.revision)))
    } else {
        let (bytes, attrs) = managers::encode(request, &mut new)?;
        store.put(&record.key, bytes, attrs, expect).await.map(Outcome::Stored)
    };
    written.map_err(|e| match e {
        StoreError::Conflict { .. } => Retry::Again,
        other => Retry::Failed(error::from_store(other, &group_resource, name)),
    })
}

/// Carries over what this write may not change, then defaults.
fn prepare(request: &Request, part: Part, old: &Value, mut new: Value) -> Value {
    let (resource, strategy) = (&request.resource, &request.resource.strategy);
    match part {
        Part::Internal | Part::Binding => {
            meta_mut(&mut new).remove("resourceVersion");
            return new;
        }
        Part::Status => {
            let mut kept = old.clone();
            let status = new.get("status").cloned();
            if let Some(fields) = kept.as_object_mut() {
                match status {
                    Some(status) => fields.insert("status".into(), status),
                    None => fields.remove("status"),
                };
            }
            if META_WITH_STATUS.contains(&resource.names.group.as_str()) {
                for field in ["labels", "annotations"] {
                    match meta_mut(&mut new).remove(field) {
                        Some(given) => meta_mut(&mut kept).insert(field.into(), given),
                        None => meta_mut(&mut kept).remove(field),
                    };
                }
            }
            new = kept;
            strategy.default(&mut new);
            strategy.prepare_status_update(&mut new, old);
        }
        Part::Main | Part::Scale => {
            carry_metadata(&mut new, old);
            if resource.subresources.status
                && let Some(fields) = new.as_object_mut()
            {
                match old.get("status") {
                    Some(status) => fields.insert("status".into(), status.clone()),
                    None => fields.remove("status"),
                };
            }
            strategy.default(&mut new);
            strategy.prepare_update(&mut new, old);
        }
    }
    new
}

/// Errors of times of deletion that a client sets itself.
fn foreign_deletion(new: &Value, old: &Value) -> Vec<FieldError> {
    let fields = ["deletionTimestamp", "deletionGracePeriodSeconds"].into_iter();
    let given = |field: &str| new.get("metadata").and_then(|m| m.get(field)).filter(|v| !v.is_null());
    let differs =
        |field: &&str| given(field).is_some_and(|v| Some(v) != old.get("metadata").and_then(|m| m.get(*field)));
    let error =
        |field: &str| FieldError::invalid(format!("metadata.{field}"), given(field).unwrap_or(&Value::Null), IMMUTABLE);
    fields.filter(differs).map(error).collect()
}

fn carry_metadata(new: &mut Value, old: &Value) {
    let meta = meta_mut(new);
    for field in ["resourceVersion", "selfLink"] {
        meta.remove(field);
    }
    meta.retain(|_, v| !v.is_null());
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "generation",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generateName",
    ] {
        match old.get("metadata").and_then(|m| m.get(field)) {
            Some(value) => meta.insert(field.into(), value.clone()),
            None => meta.remove(field),
        };
    }
    // Empty maps and lists are absent ones on the wire.
    for field in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let empty = match meta.get(field) {
            Some(Value::Object(m)) => m.is_empty(),
            Some(Value::Array(l)) => l.is_empty(),
            _ => false,
        };
        if empty {
            meta.remove(field);
        }
    }
}

fn validate(request: &Request, name: &str, part: Part, old: &Value, new: &Value) -> Result<(), ApiError> {
    let strategy = &request.resource.strategy;
    let mut errors: Vec<FieldError> = Vec::new();
    if matches!(part, Part::Main | Part::Scale) {
        errors.extend(object_meta_update(new, old));
    }
    if !matches!(part, Part::Internal | Part::Binding) {
        let found = |object: &Value| {
            let mut found = standard_finalizers(object, &request.resource.names.group);
            found.extend(strategy.validate(object));
            found
        };
        let now = found(new);
        if !now.is_empty() {
            // What was wrong before this write, such as under older rules, does not stand in its way.
            let before = found(old);
            errors.extend(now.into_iter().filter(|error| !before.contains(error)));
        }
        errors.extend(strategy.validate_update(new, old));
    }
    if errors.is_empty() { Ok(()) } else { Err(request.invalid(name, &errors)) }
}

/// Whether two objects are stored as the same bytes.
fn same(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_object(), old.as_object()) else { return false };
    let own = |k: &str| !matches!(k, "apiVersion" | "kind");
    new.iter().filter(|(k, _)| own(k)).count() == old.iter().filter(|(k, _)| own(k)).count()
        && new.iter().filter(|(k, _)| own(k)).all(|(k, v)| old.get(k) == Some(v))
}

/// The object as a client sees it at a revision.
pub(crate) fn with_revision(mut object: Value, revision: u64) -> Value {
    meta_mut(&mut object).insert("resourceVersion".into(), revision.to_string().into());
    object
}
