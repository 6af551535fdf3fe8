//! Merging an applied configuration into the live object, by list and map types.

use std::collections::{BTreeSet, VecDeque};

use serde_json::{Map, Value};

use super::element::Element;
use super::place::{Place, Shape};
use super::set::FieldSet;
use super::walk::{WalkError, index};

/// The live object with what the configuration says; nothing is removed.
///
/// # Errors
/// If a list's items cannot be told apart by their keys.
pub(super) fn merge(place: Place<'_>, live: &Value, config: &Value) -> Result<Value, WalkError> {
    let shape = place.shape(config);
    if shape != place.shape(live) {
        return Ok(config.clone());
    }
    match shape {
        Shape::Leaf => Ok(config.clone()),
        Shape::Map => {
            let object = |v: &Value| v.as_object().filter(|o| !o.is_empty()).cloned();
            let Some(config) = object(config) else {
                // An empty map takes nothing away; over nothing it says whether it is one.
                return Ok(if object(live).is_some() { live.clone() } else { config.clone() });
            };
            let mut merged: Map<String, Value> = object(live).unwrap_or_default();
            for (name, value) in config {
                let value = match merged.get(&name) {
                    Some(live) => {
                        merge(place.field(&name).0, live, &value).map_err(|e| e.under(&Element::field(&name)))?
                    }
                    None => value,
                };
                merged.insert(name, value);
            }
            Ok(merged.into())
        }
        Shape::List => merge_lists(place, live, config),
    }
}

/// Items of both: the configuration's in its order, the live object's others where they were.
fn merge_lists(place: Place<'_>, live: &Value, config: &Value) -> Result<Value, WalkError> {
    let elements = |list: &Value| -> Vec<Element> {
        list.as_array().into_iter().flatten().filter_map(|item| place.item(item).ok()).collect()
    };
    let (by_live, by_config) = (index(place, live)?, index(place, config)?);
    let (left, right) = (elements(live), elements(config));
    if right.is_empty() {
        return Ok(if left.is_empty() { config.clone() } else { live.clone() });
    }
    let live_items = live.as_array().map_or(&[][..], Vec::as_slice);
    let merged_item = |element: &Element| -> Result<Value, WalkError> {
        let applied = by_config.get(element).and_then(|items| items.first()).copied().unwrap_or(&Value::Null);
        match by_live.get(element).map(Vec::as_slice) {
            // Several live items with these keys: the applied one takes their place.
            Some([live]) => merge(place.element(), live, applied).map_err(|e| e.under(element)),
            _ => Ok(applied.clone()),
        }
    };
    let mut shared: VecDeque<&Element> = right.iter().filter(|e| by_live.contains_key(*e)).collect();
    let mut next = shared.pop_front();
    let mut done: BTreeSet<&Element> = BTreeSet::new();
    let mut out: Vec<Value> = Vec::with_capacity(left.len().max(right.len()));
    let (mut l, mut r) = (0, 0);
    loop {
        let (ours, theirs) = (left.get(l), right.get(r));
        match (ours, theirs) {
            (None, None) => return Ok(out.into()),
            (Some(a), Some(b)) if a == b => {
                done.insert(a);
                out.push(merged_item(a)?);
                (l, r) = (l + 1, r + 1);
                next = shared.pop_front();
                continue;
            }
            // Shared, but another is to come first.
            (Some(a), Some(_)) if by_config.contains_key(a) && next.is_some_and(|n| n != a) => {
                l += 1;
                continue;
            }
            (Some(a), _) if !by_config.contains_key(a) => {
                out.extend(live_items.get(l).cloned());
                l += 1;
                continue;
            }
            (Some(a), _) if done.contains(a) => l += 1,
            _ => {}
        }
        if let Some(element) = theirs {
            done.insert(element);
            out.push(merged_item(element)?);
            r += 1;
            if next == Some(element) {
                next = shared.pop_front();
            }
        }
    }
}

/// The object without some fields and items; what is below them goes with them. A map or list that loses its last
/// part becomes null.
pub(super) fn remove(place: Place<'_>, value: &Value, fields: &FieldSet) -> Value {
    let keep = |element: &Element, place: Place<'_>, value: &Value| match fields.get(element) {
        None => Some(value.clone()),
        Some(node) if node.member => None,
        Some(node) => Some(remove(place, value, &node.children)),
    };
    match (place.shape(value), value) {
        (Shape::Map, Value::Object(object)) => {
            let kept: Map<String, Value> = object
                .iter()
                .filter_map(|(name, value)| {
                    let kept = keep(&Element::field(name), place.field(name).0, value)?;
                    Some((name.clone(), kept))
                })
                .collect();
            if kept.is_empty() { Value::Null } else { kept.into() }
        }
        (Shape::List, Value::Array(items)) => {
            let kept: Vec<Value> = items
                .iter()
                .filter_map(|item| match place.item(item) {
                    Ok(element) => keep(&element, place.element(), item),
                    Err(_) => Some(item.clone()),
                })
                .collect();
            if kept.is_empty() { Value::Null } else { kept.into() }
        }
        _ => value.clone(),
    }
}

/// The part of an object that a set names, with the keys of the list items in it; `None` if it has nothing of it.
pub(super) fn extract(place: Place<'_>, value: &Value, fields: &FieldSet) -> Option<Value> {
    let part = |element: &Element, place: Place<'_>, value: &Value| {
        let node = fields.get(element)?;
        match (node.children.is_empty(), place.shape(value)) {
            (true, Shape::Map) => Some(Value::Object(Map::new())),
            (true, Shape::List) => Some(Value::Array(Vec::new())),
            (true, Shape::Leaf) => Some(value.clone()),
            (false, _) => extract(place, value, &node.children),
        }
    };
    match (place.shape(value), value) {
        (Shape::Map, Value::Object(object)) => {
            let part: Map<String, Value> = object
                .iter()
                .filter_map(|(name, value)| {
                    let part = part(&Element::field(name), place.field(name).0, value)?;
                    Some((name.clone(), part))
                })
                .collect();
            (!part.is_empty()).then(|| part.into())
        }
        (Shape::List, Value::Array(items)) => {
            let part = |item: &Value| {
                let element = place.item(item).ok()?;
                let mut part = match part(&element, place.element(), item)? {
                    Value::Object(part) => part,
                    whole => return Some(whole),
                };
                if let Element::Key(keys) = element {
                    let given = keys.into_iter().filter(|(name, _)| item.get(&**name).is_some());
                    part.extend(given.map(|(name, value)| (name.into(), value)));
                }
                Some(part.into())
            };
            let parts: Vec<Value> = items.iter().filter_map(part).collect();
            (!parts.is_empty()).then(|| parts.into())
        }
        _ => Some(value.clone()),
    }
}

/// The set with every struct field on the way to its paths: fields that upstream's sets leave out, because they are
/// there as long as anything below them is.
pub(super) fn with_named_fields(place: Place<'_>, set: &FieldSet) -> FieldSet {
    let mut out = FieldSet::default();
    for node in set.nodes() {
        let (below, declared) = place.at(&node.element);
        let named = declared && !node.children.is_empty();
        out.add(node.element.clone(), node.member || named, with_named_fields(below, &node.children));
    }
    out
}

/// Whether a set owns part by part what the schema has as a whole by now.
pub(super) fn is_outdated(place: Place<'_>, set: &FieldSet) -> bool {
    set.nodes().iter().filter(|n| !n.children.is_empty()).any(|node| {
        let below = place.at(&node.element).0;
        below.is_atomic() || is_outdated(below, &node.children)
    })
}

/// The set as the schema is now: what was owned part by part and is owned as a whole by now, is owned as a whole.
pub(super) fn reconcile(place: Place<'_>, set: &FieldSet) -> FieldSet {
    let mut out = FieldSet::default();
    for node in set.nodes() {
        let below = place.at(&node.element).0;
        if below.is_atomic() && !node.children.is_empty() {
            out.add(node.element.clone(), true, FieldSet::default());
        } else {
            out.add(node.element.clone(), node.member, reconcile(below, &node.children));
        }
    }
    out
}
