//! Strategic merge patch: a merge patch that knows from the schema which lists are merged and by which key.
//! <https://github.com/kubernetes/community/blob/master/contributors/devel/sig-api-machinery/strategic-merge-patch.md>

mod lists;

use serde_json::{Map, Value};

use super::PatchError;
use crate::schema::{Node, PatchStrategy, Schema, Type};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PREFIX: &str = "$deleteFromPrimitiveList/";
const ORDER_PREFIX: &str = "$setElementOrder/";

type Object = Map<String, Value>;

pub(super) fn apply(schema: &Schema, original: &Value, patch: &Value) -> Result<Value, PatchError> {
    let (Value::Object(original), Value::Object(patch)) = (original, patch) else {
        return Err(PatchError::Malformed("invalid JSON document: an object is expected".into()));
    };
    merge_map(original.clone(), patch.clone(), Some(schema.root())).map(Value::Object)
}

/// What the schema says of one field: its type, and how to merge it.
#[derive(Clone, Copy, Default)]
struct Rule<'a> {
    node: Option<Node<'a>>,
    strategy: PatchStrategy,
    merge_key: Option<&'a str>,
}

impl<'a> Rule<'a> {
    fn of(parent: Option<Node<'a>>, key: &str) -> Self {
        let Some(parent) = parent else { return Self::default() };
        match parent.kind() {
            Type::Map => Self { node: parent.element(), ..Self::default() },
            _ => parent.field(key).map_or_else(Self::default, |f| Self {
                node: Some(f.node()),
                strategy: f.patch_strategy(),
                merge_key: f.merge_key(),
            }),
        }
    }
    fn element(self) -> Option<Node<'a>> {
        self.node.and_then(Node::element)
    }
}

fn merge_map(mut original: Object, mut patch: Object, node: Option<Node<'_>>) -> Result<Object, PatchError> {
    if let Some(directive) = patch.remove(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => Ok(patch),
            Some("delete") => Ok(Map::new()),
            _ => Err(bad_directive(&directive, patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, node)?;
    for (key, change) in patch {
        let (key, deleting) = match key.strip_prefix(DELETE_PREFIX) {
            Some(list) => (list.to_string(), true),
            None => (key, false),
        };
        if deleting && !change.is_array() {
            return Err(PatchError::Malformed("invalid patch format of primitive list".into()));
        }
        if change.is_null() {
            original.remove(&key);
            continue;
        }
        let Some(slot) = original.get_mut(&key) else {
            if !deleting && change.get(DIRECTIVE).is_none_or(|d| d != "delete") {
                let fresh = merge_fresh(change, Rule::of(node, &key))?;
                original.insert(key, fresh);
            }
            continue;
        };
        let rule = Rule::of(node, &key);
        *slot = match (std::mem::take(slot), change) {
            (Value::Object(old), Value::Object(new)) if rule.strategy != PatchStrategy::Replace => {
                Value::Object(merge_map(old, new, rule.node)?)
            }
            (Value::Array(old), Value::Array(new)) if rule.strategy.merges() => {
                Value::Array(lists::merge(old, new, rule, deleting)?)
            }
            (Value::Array(old), Value::Array(new)) if deleting => Value::Array(lists::subtract(old, &new)),
            (_, new) => merge_fresh(new, rule)?,
        };
    }
    Ok(original)
}

/// A patch's value where the object has none: directives are carried out on nothing, and nulls dropped. Lists are
/// taken as they are, whether or not their items have keys of their own (a port for TCP and UDP shares its key).
fn merge_fresh(patch: Value, rule: Rule<'_>) -> Result<Value, PatchError> {
    Ok(match patch {
        Value::Object(map) => Value::Object(merge_map(Map::new(), map, rule.node)?),
        Value::Array(list) => {
            let item = Rule { node: rule.element(), ..Rule::default() };
            let real = list.into_iter().filter(|v| !v.get(DIRECTIVE).is_some_and(|d| d == "delete" || d == "replace"));
            Value::Array(real.map(|v| merge_fresh(v, item)).collect::<Result<_, _>>()?)
        }
        scalar => scalar,
    })
}

/// `$retainKeys`: the object keeps only the named keys, and the patch may set no other.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let bad = || PatchError::Malformed("invalid patch format of retainKeys".into());
    let keys: std::collections::HashSet<&str> =
        keys.as_array().ok_or_else(bad)?.iter().map(|k| k.as_str().ok_or_else(bad)).collect::<Result<_, _>>()?;
    let directive = |k: &str| k.starts_with(DELETE_PREFIX) || k.starts_with(ORDER_PREFIX);
    if patch.iter().any(|(k, v)| !v.is_null() && !directive(k) && !keys.contains(k.as_str())) {
        return Err(bad());
    }
    original.retain(|k, _| keys.contains(k.as_str()));
    Ok(())
}

/// Merges the lists that have a `$setElementOrder` directive and brings them in its order.
fn merge_ordered_lists(original: &mut Object, patch: &mut Object, node: Option<Node<'_>>) -> Result<(), PatchError> {
    let ordered: Vec<String> = patch.keys().filter_map(|k| k.strip_prefix(ORDER_PREFIX)).map(String::from).collect();
    for key in ordered {
        let order = match patch.remove(&format!("{ORDER_PREFIX}{key}")) {
            Some(Value::Array(order)) => order,
            _ => return Err(PatchError::Malformed("invalid patch format of setElementOrder list".into())),
        };
        let (old, new) = (original.get(&key).cloned(), patch.remove(&key));
        let rule = Rule::of(node, &key);
        let (old, merged) = match (old, new) {
            // An explicit null removes the list, order or not.
            (_, Some(Value::Null)) => {
                original.remove(&key);
                continue;
            }
            (None | Some(Value::Null), None) => continue,
            (Some(Value::Array(old)), None) => (old.clone(), old),
            (None | Some(Value::Null), Some(Value::Array(new))) => {
                lists::check_order(&new, &order, rule)?;
                let Value::Array(fresh) = merge_fresh(Value::Array(new), rule)? else { continue };
                (Vec::new(), fresh)
            }
            (Some(Value::Array(old)), Some(Value::Array(new))) => {
                lists::check_order(&new, &order, rule)?;
                let merged = if rule.strategy.merges() { lists::merge(old.clone(), new, rule, false)? } else { new };
                (old, merged)
            }
            (old, new) => {
                let other = old.filter(|v| !v.is_array()).or(new).unwrap_or_default();
                return Err(bad_kind("list", &other));
            }
        };
        let sorted = lists::in_order(merged, &order, &old, rule.merge_key)?;
        original.insert(key, Value::Array(sorted));
    }
    Ok(())
}

fn bad_directive(directive: &Value, mut patch: Object) -> PatchError {
    patch.insert(DIRECTIVE.into(), directive.clone());
    let map = go_value(&Value::Object(patch));
    PatchError::Rejected(format!("unknown patch type {} in map: {map}", go_value(directive)))
}

fn bad_kind(expected: &str, actual: &Value) -> PatchError {
    let received = match actual {
        Value::Object(_) => "map",
        Value::Array(_) => "list",
        Value::Null => "null",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
    };
    PatchError::Rejected(format!("expected a {expected}, but received a {received}"))
}

/// A value as Go's `%v` prints it: `map[name:web ports:[1 2]]`. Clients see this in errors.
pub fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".into(),
        Value::String(s) => s.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(go_value).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(k, _)| k.as_str());
            let inner: Vec<String> = entries.into_iter().map(|(k, v)| format!("{k}:{}", go_value(v))).collect();
            format!("map[{}]", inner.join(" "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
