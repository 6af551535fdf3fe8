//! Server-side apply: field ownership ([`FieldSet`], `metadata.managedFields`) and merging by list types. Pure; the
//! server reads the object, calls [`apply`] or [`track`], and commits what comes out.

mod config;
mod element;
mod error;
mod last_applied;
mod managers;
mod merge;
mod place;
mod set;
mod update;
mod walk;

use serde_json::Value;

pub use config::{Config, Part};
pub use element::Element;
pub use error::{ApplyError, Conflict};
pub use managers::{Manager, Operation};
pub use set::FieldSet;
pub use update::{Applied, Writer, apply, given_or_had, same_but_time, track};

use crate::schema::Schema;

/// Most managers that own fields of one object by updates; the oldest are merged.
pub const MAX_UPDATERS: usize = 10;
/// Most managers that apply to one object; one more is refused.
pub const MAX_APPLIERS: usize = 256;
/// Longest name of a manager, in bytes.
pub const MAX_MANAGER_NAME: usize = 128;
/// The manager that the oldest updaters are merged into.
const ANCIENT_CHANGES: &str = "ancient-changes";
/// The manager of what was there before an object's first apply, if nobody was known to own it.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// The part of an object that a set of fields names, with the keys of the list items in it; `None` if there is
/// nothing of it.
pub fn extract(schema: &Schema, object: &Value, fields: &FieldSet) -> Option<Value> {
    merge::extract(place::Place::root(schema), object, fields)
}

#[cfg(test)]
mod tests;
