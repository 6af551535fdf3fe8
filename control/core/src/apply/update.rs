//! What a write means for the managers of an object: appliers own what they apply, updaters what they change.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::config::{Config, NEVER_OWNED};
use super::error::{ApplyError, Conflict};
use super::last_applied;
use super::managers::{Entry, Manager, Managers, Operation};
use super::merge::{is_outdated, merge, reconcile, remove, with_named_fields};
use super::place::Place;
use super::set::FieldSet;
use super::walk::{WalkError, changes, fields_of};
use super::{ANCIENT_CHANGES, BEFORE_FIRST_APPLY, MAX_APPLIERS, MAX_UPDATERS};
use crate::schema::Schema;

/// Who writes, what and when.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    /// Field manager; `""` is known as `unknown`.
    pub name: &'a str,
    /// The version of the request, such as `apps/v1`.
    pub api_version: &'a str,
    /// The subresource of the request, `""` for the object itself.
    pub subresource: &'a str,
    /// The present time.
    pub time: Timestamp,
}

impl Writer<'_> {
    fn manager(&self, operation: Operation) -> Manager {
        Manager {
            name: if self.name.is_empty() { "unknown" } else { self.name }.to_owned(),
            operation,
            api_version: self.api_version.to_owned(),
            subresource: self.subresource.to_owned(),
        }
    }
}

/// `metadata.managedFields` after a write that did not apply: the changed fields belong to the writer. `old` is `None`
/// for a new object; neither object has managedFields itself. An object whose managers are not known stays so.
pub fn track(
    schema: &Schema,
    old: Option<&Value>,
    new: &Value,
    managed: Option<Value>,
    writer: &Writer<'_>,
) -> Option<Value> {
    let place = Place::root(schema);
    let nothing = Value::Object(Map::new());
    // Items that cannot be told apart cannot be tracked.
    let Ok(changes) = changes(place, old.unwrap_or(&nothing), new) else { return managed };
    if changes.is_empty() {
        return managed;
    }
    let mut managers = Managers::decode(managed).unwrap_or_default();
    if managers.entries.is_empty() && old.is_some() {
        return None;
    }
    let me = writer.manager(Operation::Update);
    let set = changes.set();
    let touched = set.union(&changes.removed);
    for entry in managers.entries.iter_mut().filter(|e| e.manager.same_group(&me) && e.may_own(&touched)) {
        refresh(place, entry);
        let lost = if entry.manager.is(&me) { &changes.removed } else { &touched };
        if entry.fields().intersects(lost) {
            entry.set_fields(entry.fields().difference(lost));
        }
    }
    let own = set.difference(&NEVER_OWNED);
    if !own.is_empty() {
        match managers.get_mut(&me) {
            Some(entry) => {
                if !entry.fields().contains(&own) {
                    entry.set_fields(entry.fields().union(&own));
                }
                entry.time = Some(writer.time);
            }
            None => managers.entries.push(Entry::new(me, writer.time, own)),
        }
    }
    managers.drop_empty();
    managers.cap_updaters(MAX_UPDATERS, ANCIENT_CHANGES);
    managers.encode()
}

/// Brings an entry up to the schema.
fn refresh(place: Place<'_>, entry: &mut Entry) {
    if is_outdated(place, entry.fields()) {
        entry.set_fields(reconcile(place, entry.fields()));
    }
}

/// What an update starts from: the managedFields in the new object, if a client changed or reset them, else those of
/// the old one.
pub fn given_or_had(given: Option<Value>, had: Option<&Value>) -> Option<Value> {
    let Some(Value::Array(list)) = &given else { return had.cloned() };
    if given.as_ref() == had {
        return given;
    }
    let reset = match list.as_slice() {
        [] => true,
        [only] => only.as_object().is_some_and(Map::is_empty),
        _ => false,
    };
    if reset {
        return None;
    }
    match Managers::decode(given).and_then(Managers::canonical) {
        Ok(managers) if !managers.entries.is_empty() && !too_many(&managers) => managers.encode(),
        _ => had.cloned(),
    }
}

fn too_many(managers: &Managers) -> bool {
    managers.entries.iter().filter(|e| e.manager.operation == Operation::Apply).count() > MAX_APPLIERS
}

/// Whether two managedFields differ in nothing but times.
pub fn same_but_time(a: Option<&Value>, b: Option<&Value>) -> bool {
    let entries = |v: Option<&Value>| -> Vec<Value> {
        let mut list = v.and_then(Value::as_array).cloned().unwrap_or_default();
        for entry in list.iter_mut().filter_map(Value::as_object_mut) {
            entry.remove("time");
        }
        list
    };
    let (a, b) = (entries(a), entries(b));
    a.len() == b.len() && a.iter().all(|entry| b.contains(entry))
}

/// An object after an apply, still to be defaulted and validated.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// The object, without managedFields.
    pub object: Value,
    /// Its `metadata.managedFields`.
    pub managed: Option<Value>,
}

/// Applies a configuration to the live object (`None`: there is none yet), whose managedFields are given by
/// themselves.
///
/// # Errors
/// Conflicts with other managers, unless `force` takes their fields; managedFields that cannot be read; more appliers
/// than [`MAX_APPLIERS`].
pub fn apply(
    schema: &Schema,
    live: Option<&Value>,
    managed: Option<Value>,
    config: &Config,
    writer: &Writer<'_>,
    force: bool,
) -> Result<Applied, ApplyError> {
    let mut managed = managed;
    if let Some(live) = live
        && managed.as_ref().and_then(Value::as_array).is_none_or(Vec::is_empty)
    {
        let before = Writer { name: BEFORE_FIRST_APPLY, ..*writer };
        managed = track(schema, None, live, None, &before);
    }
    let managers = Managers::decode(managed).map_err(ApplyError::Managers)?;
    let nothing = json!({});
    let live = live.unwrap_or(&nothing);
    let applied = match apply_to(schema, live, managers.clone(), config, writer, force) {
        Err(ApplyError::Conflicts(conflicts)) if writer.name == last_applied::MANAGER => {
            let allowed = last_applied::owned(schema, live, writer.api_version);
            let left: Vec<Conflict> = conflicts.into_iter().filter(|c| !allowed.has(&c.fields)).collect();
            if !left.is_empty() {
                return Err(ApplyError::Conflicts(left));
            }
            apply_to(schema, live, managers, config, writer, true)
        }
        other => other,
    };
    let (mut object, managers) = applied?;
    if writer.name == last_applied::MANAGER {
        last_applied::renew(&mut object, &config.sent);
    }
    Ok(Applied { object, managed: managers.encode() })
}

fn apply_to(
    schema: &Schema,
    live: &Value,
    mut managers: Managers,
    config: &Config,
    writer: &Writer<'_>,
    force: bool,
) -> Result<(Value, Managers), ApplyError> {
    let place = Place::root(schema);
    let me = writer.manager(Operation::Apply);
    let foreign = |e: &Entry| !e.manager.same_group(&me);
    managers.entries.iter_mut().filter(|e| !foreign(e)).for_each(|e| refresh(place, e));
    let mut object = merge(place, live, &config.value)?;
    let last = managers.get(&me).map(|e| e.fields().clone()).unwrap_or_default();
    if !config.fields.contains(&last) {
        let others = managers.entries.iter().filter(|e| !foreign(e) && !e.manager.is(&me));
        let owned = others.fold(config.fields.clone(), |all, e| all.union(e.fields()));
        let mut pruned = prune(place, &object, &owned, &last)?;
        // Emptied maps and lists go, but for those that the configuration itself gives.
        schema.prune(&mut pruned);
        object = merge(place, &pruned, &config.value)?;
    }
    let changes = changes(place, live, &object)?;
    let set = changes.set();
    let others = || managers.entries.iter().filter(|e| !foreign(e) && !e.manager.is(&me));
    if !force {
        let conflicts: Vec<Conflict> = others().flat_map(|e| Conflict::all(&e.manager, e.fields(), &set)).collect();
        if !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
    }
    let lost = set.union(&changes.removed);
    for entry in managers.entries.iter_mut().filter(|e| !foreign(e) && !e.manager.is(&me)) {
        if entry.fields().intersects(&lost) {
            entry.set_fields(entry.fields().difference(&lost));
        }
    }
    // Nulls that cleared fields have done their work.
    schema.prune(&mut object);
    let changed = object != *live;
    match managers.get_mut(&me) {
        Some(entry) => {
            let renewed = entry.set_fields(config.fields.clone()) || entry.manager.api_version != me.api_version;
            entry.manager = me;
            if changed || renewed {
                entry.time = Some(writer.time);
            }
        }
        None => managers.entries.push(Entry::new(me, writer.time, config.fields.clone())),
    }
    managers.drop_empty();
    if too_many(&managers) {
        return Err(ApplyError::TooManyAppliers);
    }
    Ok((object, managers))
}

/// The merged object without what the manager applied the last time (`last`), does not apply any more, and nobody else
/// owns.
fn prune(place: Place<'_>, merged: &Value, owned: &FieldSet, last: &FieldSet) -> Result<Value, WalkError> {
    let named = |set: &FieldSet| with_named_fields(place, set);
    let all = named(&fields_of(place, merged)?);
    let last = named(last);
    // Without all that was applied, then again with what somebody owns of it.
    let left = named(&fields_of(place, &remove(place, merged, &last))?);
    let with_owned = remove(place, merged, &all.difference(&left.union(&named(owned))));
    // What is gone by now without having been applied is not the manager's to take away.
    let left = named(&fields_of(place, &with_owned)?);
    Ok(remove(place, merged, &all.difference(&left).intersection(&last)))
}
