//! Lists in a strategic merge patch. Items are identified by their merge key, or by themselves if they are scalars;
//! identities are hashed, so that cost stays linear.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{DIRECTIVE, ORDER_PREFIX, Object, Rule, bad_directive, bad_kind, go_value, merge_map};
use crate::patch::PatchError;

/// Merges a patch's list into an object's, in the order: patch items as in the patch, others where they were.
/// `deleting` is `$deleteFromPrimitiveList`.
pub(super) fn merge(
    original: Vec<Value>,
    patch: Vec<Value>,
    rule: Rule<'_>,
    deleting: bool,
) -> Result<Vec<Value>, PatchError> {
    if !are_objects(&original, &patch)? {
        if deleting {
            return Ok(subtract(original, &patch));
        }
        let mut seen = HashSet::new();
        let merged = original.iter().chain(&patch).filter(|v| seen.insert(v.to_string())).cloned().collect();
        return in_order(merged, &patch, &original, None);
    }
    let Some(key) = rule.merge_key else {
        return Err(PatchError::Rejected("cannot merge lists without merge key for type struct".into()));
    };
    let (original, patch) = directives(original, patch, key)?;
    let merged = merge_items(original.clone(), patch.clone(), key, rule)?;
    in_order(merged, &patch, &original, Some(key))
}

/// The items of `list` that are not in `items`.
pub(super) fn subtract(list: Vec<Value>, items: &[Value]) -> Vec<Value> {
    let gone: HashSet<String> = items.iter().map(Value::to_string).collect();
    list.into_iter().filter(|v| !gone.contains(&v.to_string())).collect()
}

/// Whether the lists hold objects; all items of both must be of one sort, and none a list.
fn are_objects(original: &[Value], patch: &[Value]) -> Result<bool, PatchError> {
    let mut items = original.iter().chain(patch);
    let Some(first) = items.next() else { return Ok(false) };
    let sort = std::mem::discriminant(first);
    if original.iter().chain(patch).any(Value::is_array) {
        return Err(PatchError::Rejected("lists of lists are not supported".into()));
    }
    if let Some(other) = items.find(|v| std::mem::discriminant(*v) != sort) {
        let both = format!("{} and {}", go_value(first), go_value(other));
        return Err(PatchError::Rejected(format!("list element types are not identical: {both}")));
    }
    Ok(first.is_object())
}

/// Carries out `$patch` of items: `delete` removes the original's items of that key, `replace` all of them.
fn directives(mut original: Vec<Value>, patch: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let (mut kept, mut replace, mut gone) = (Vec::new(), false, HashSet::new());
    for item in patch {
        match item.get(DIRECTIVE).map(|d| (d.as_str(), d)) {
            None => kept.push(item),
            Some((Some("delete"), _)) => {
                gone.insert(identity(&item, Some(key))?);
            }
            // An item with content beside `$patch: replace` is not merged by upstream either.
            Some((Some("replace"), _)) => replace = true,
            Some((Some("merge"), _)) => {
                return Err(PatchError::Rejected("merging lists cannot yet be specified in the patch".into()));
            }
            Some((_, directive)) => {
                let map = item.as_object().cloned().unwrap_or_default();
                return Err(bad_directive(directive, map));
            }
        }
    }
    if replace {
        return Ok((Vec::new(), kept));
    }
    if !gone.is_empty() {
        let mut left = Vec::with_capacity(original.len());
        for item in original {
            if !gone.contains(&identity(&item, Some(key))?) {
                left.push(item);
            }
        }
        original = left;
    }
    Ok((original, kept))
}

fn merge_items(mut merged: Vec<Value>, patch: Vec<Value>, key: &str, rule: Rule<'_>) -> Result<Vec<Value>, PatchError> {
    let mut places = positions(&merged, Some(key))?;
    for item in patch {
        let id = identity(&item, Some(key))?;
        let change = into_object(item)?;
        match places.get(&id).and_then(|i| merged.get_mut(*i)) {
            Some(slot) => {
                let old = into_object(std::mem::take(slot))?;
                *slot = Value::Object(merge_map(old, change, rule.element())?);
            }
            None => {
                places.insert(id, merged.len());
                merged.push(Value::Object(merge_map(Object::new(), change, rule.element())?));
            }
        }
    }
    Ok(merged)
}

/// Sorts a merged list: items named in `order` follow it; the others keep their places of `server`, each before the
/// named items that it stood before.
pub(super) fn in_order(
    merged: Vec<Value>,
    order: &[Value],
    server: &[Value],
    key: Option<&str>,
) -> Result<Vec<Value>, PatchError> {
    let (order, server) = (positions(order, key)?, positions(server, key)?);
    let (mut named, mut others) = (Vec::new(), Vec::new());
    for item in merged {
        let id = identity(&item, key)?;
        let place = server.get(&id).copied();
        match order.get(&id) {
            Some(rank) => named.push((*rank, place, item)),
            None => others.push((place, item)),
        }
    }
    named.sort_by_key(|(rank, _, _)| *rank);
    others.sort_by_key(|(place, _)| place.unwrap_or(usize::MAX));
    let mut sorted = Vec::with_capacity(named.len() + others.len());
    let mut others = others.into_iter().peekable();
    for (_, place, item) in named {
        while let Some((_, other)) = others.next_if(|(o, _)| matches!((o, place), (Some(o), Some(p)) if *o < p)) {
            sorted.push(other);
        }
        sorted.push(item);
    }
    sorted.extend(others.map(|(_, item)| item));
    Ok(sorted)
}

/// `$setElementOrder` must name every item of the patch's list, in the same order.
pub(super) fn check_order(patch: &[Value], order: &[Value], rule: Rule<'_>) -> Result<(), PatchError> {
    let key = rule.merge_key;
    let mut places = order.iter();
    for item in patch.iter().filter(|v| v.get(DIRECTIVE).is_none_or(|d| d != "delete")) {
        let id = identity(item, key)?;
        let mut found = false;
        for place in places.by_ref() {
            if identity(place, key)? == id {
                found = true;
                break;
            }
        }
        if !found {
            let (patch, order) = (go_value(&Value::Array(patch.to_vec())), go_value(&Value::Array(order.to_vec())));
            let prefix = ORDER_PREFIX.trim_end_matches('/');
            return Err(PatchError::Rejected(format!(
                "The order in patch list:\n{patch}\n doesn't match {prefix} list:\n{order}\n"
            )));
        }
    }
    Ok(())
}

/// The first place of each identity.
fn positions(list: &[Value], key: Option<&str>) -> Result<HashMap<String, usize>, PatchError> {
    let mut places = HashMap::with_capacity(list.len());
    for (i, item) in list.iter().enumerate() {
        places.entry(identity(item, key)?).or_insert(i);
    }
    Ok(places)
}

fn identity(item: &Value, key: Option<&str>) -> Result<String, PatchError> {
    let Some(key) = key else { return Ok(item.to_string()) };
    if !item.is_object() {
        return Err(bad_kind("map", item));
    }
    item.get(key).map(Value::to_string).ok_or_else(|| {
        PatchError::Rejected(format!("map: {} does not contain declared merge key: {key}", go_value(item)))
    })
}

fn into_object(value: Value) -> Result<Object, PatchError> {
    match value {
        Value::Object(map) => Ok(map),
        other => Err(bad_kind("map", &other)),
    }
}
