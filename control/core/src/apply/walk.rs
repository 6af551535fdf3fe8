//! Walks over objects by their schema: the set of an object's fields, and what changed between two objects.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::iter::once;

use serde_json::{Map, Value};

use super::element::{Element, compare};
use super::place::{Place, Shape};
use super::set::FieldSet;

/// Why an object does not fit its schema's lists.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct WalkError {
    /// Where, such as `.spec.containers`.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl WalkError {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { path: String::new(), message: message.into() }
    }
    pub(super) fn under(mut self, element: &Element) -> Self {
        self.path.insert_str(0, &element.to_string());
        self
    }
}

/// Every field that an object mentions.
///
/// # Errors
/// If a list's items cannot be told apart by their keys.
pub(super) fn fields_of(place: Place<'_>, value: &Value) -> Result<FieldSet, WalkError> {
    mentioned(place, value).map(|(_, set)| set)
}

/// Whether a value is owned as a whole, and what of it is owned by itself.
fn mentioned(place: Place<'_>, value: &Value) -> Result<(bool, FieldSet), WalkError> {
    let mut set = FieldSet::default();
    match place.shape(value) {
        Shape::Leaf => return Ok((true, set)),
        Shape::Map => {
            for (name, value) in value.as_object().into_iter().flatten() {
                let element = Element::field(name);
                let (place, declared) = place.field(name);
                let (leaf, below) = mentioned(place, value).map_err(|e| e.under(&element))?;
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                set.add(element, leaf || empty || !declared, below);
            }
        }
        Shape::List => {
            for (element, items) in index(place, value)? {
                let below = match items.as_slice() {
                    [item] => mentioned(place.element(), item).map_err(|e| e.under(&element))?.1,
                    // Items that cannot be told apart are owned together.
                    _ => FieldSet::default(),
                };
                set.add(element, true, below);
            }
        }
    }
    Ok((false, set))
}

/// A list's items by what identifies them.
pub(super) fn index<'v>(place: Place<'_>, list: &'v Value) -> Result<BTreeMap<Element, Vec<&'v Value>>, WalkError> {
    let mut index: BTreeMap<Element, Vec<&Value>> = BTreeMap::new();
    for (i, item) in list.as_array().into_iter().flatten().enumerate() {
        let element = place.item(item).map_err(|e| WalkError::new(format!("element {i}: {e}")))?;
        index.entry(element).or_default().push(item);
    }
    Ok(index)
}

/// Refuses lists that have two items with the same keys.
pub(super) fn check_unique(place: Place<'_>, value: &Value) -> Result<(), WalkError> {
    match place.shape(value) {
        Shape::Leaf => Ok(()),
        Shape::Map => value.as_object().into_iter().flatten().try_for_each(|(name, value)| {
            check_unique(place.field(name).0, value).map_err(|e| e.under(&Element::field(name)))
        }),
        Shape::List => index(place, value)?.iter().try_for_each(|(element, items)| match items.as_slice() {
            [item] => check_unique(place.element(), item).map_err(|e| e.under(element)),
            _ => Err(WalkError::new(format!("duplicate entries for key {element}"))),
        }),
    }
}

/// What changed between two objects. No path is in two of the sets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub added: FieldSet,
    pub modified: FieldSet,
    pub removed: FieldSet,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }
    /// What is set anew.
    pub fn set(&self) -> FieldSet {
        self.added.union(&self.modified)
    }
}

/// How a place itself changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Here {
    Same,
    Added,
    Modified,
    Removed,
}

/// Compares two objects. What is equal costs a look at it and no memory.
///
/// # Errors
/// If a list's items cannot be told apart by their keys.
pub(super) fn changes(place: Place<'_>, old: &Value, new: &Value) -> Result<Changes, WalkError> {
    let mut out = Changes::default();
    compare_at(place, Some(old), Some(new), &mut out)?;
    Ok(out)
}

fn compare_at(
    place: Place<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    out: &mut Changes,
) -> Result<Here, WalkError> {
    let shape = |v: Option<&Value>| v.map(|v| place.shape(v));
    let shape = match (shape(old), shape(new)) {
        (Some(a), Some(b)) if a == b => a,
        (Some(_), Some(_)) => {
            // Another kind of value than before, where the schema allows it.
            compare_at(place, old, None, out)?;
            compare_at(place, None, new, out)?;
            return Ok(Here::Modified);
        }
        (one, other) => one.or(other).unwrap_or(Shape::Leaf),
    };
    let filled = match shape {
        Shape::Leaf => false,
        Shape::Map => [old, new].into_iter().flatten().any(|v| v.as_object().is_some_and(|m| !m.is_empty())),
        Shape::List => [old, new].into_iter().flatten().any(|v| v.as_array().is_some_and(|l| !l.is_empty())),
    };
    if !filled {
        return Ok(match (old, new) {
            (None, _) => Here::Added,
            (_, None) => Here::Removed,
            (Some(a), Some(b)) if a == b || compare(a, b).is_eq() => Here::Same,
            _ => Here::Modified,
        });
    }
    if shape == Shape::Map {
        compare_maps(place, old.and_then(Value::as_object), new.and_then(Value::as_object), out)?;
    } else if old != new {
        compare_lists(place, old, new, out)?;
    }
    Ok(match (old, new) {
        (None, _) => Here::Added,
        (_, None) => Here::Removed,
        _ => Here::Same,
    })
}

type Object = Map<String, Value>;

fn compare_maps(
    place: Place<'_>,
    old: Option<&Object>,
    new: Option<&Object>,
    out: &mut Changes,
) -> Result<(), WalkError> {
    // Both are sorted, and so are the sets that are built.
    let (mut left, mut right) = (old.into_iter().flatten().peekable(), new.into_iter().flatten().peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return Ok(()),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let before = if order.is_le() { left.next() } else { None };
        let after = if order.is_ge() { right.next() } else { None };
        let Some((name, _)) = before.or(after) else { return Ok(()) };
        let place = place.field(name).0;
        let before = before.map(|(_, v)| v).or_else(|| old.and(place.empty()));
        below(place, || Element::field(name), before, after.map(|(_, v)| v), out)?;
    }
}

fn compare_lists(
    place: Place<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    out: &mut Changes,
) -> Result<(), WalkError> {
    let (old, new) = (index(place, old.unwrap_or(&Value::Null))?, index(place, new.unwrap_or(&Value::Null))?);
    let elements: BTreeSet<&Element> = old.keys().chain(new.keys()).collect();
    for element in elements {
        let before = old.get(element).cloned().unwrap_or_default();
        let after = new.get(element).cloned().unwrap_or_default();
        let element = || element.clone();
        let mut one = |old, new| below(place.element(), element, old, new, out);
        match (before.as_slice(), after.as_slice()) {
            ([] | [_], [] | [_]) => one(before.first().copied(), after.first().copied())?,
            // Items that cannot be told apart count as one.
            ([_, _, ..], [_, _, ..]) => {
                if before != after {
                    out.modified.add(element(), true, FieldSet::default());
                }
            }
            ([_, _, ..], _) => {
                if let Some(after) = after.first().copied() {
                    one(None, Some(after))?;
                }
                out.removed.add(element(), true, FieldSet::default());
            }
            (_, [_, _, ..]) => {
                if let Some(before) = before.first().copied() {
                    one(Some(before), None)?;
                }
                out.added.add(element(), true, FieldSet::default());
            }
        }
    }
    Ok(())
}

/// Compares what is under an element, and adds it to the changes of what is above.
fn below(
    place: Place<'_>,
    element: impl Fn() -> Element,
    old: Option<&Value>,
    new: Option<&Value>,
    out: &mut Changes,
) -> Result<(), WalkError> {
    let mut deeper = Changes::default();
    let here = compare_at(place, old, new, &mut deeper).map_err(|e| e.under(&element()))?;
    let parts = once((&mut out.added, deeper.added, Here::Added))
        .chain(once((&mut out.modified, deeper.modified, Here::Modified)))
        .chain(once((&mut out.removed, deeper.removed, Here::Removed)));
    for (set, children, kind) in parts {
        if here == kind || !children.is_empty() {
            set.add(element(), here == kind, children);
        }
    }
    Ok(())
}
