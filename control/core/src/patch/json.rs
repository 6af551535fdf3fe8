//! JSON patch, RFC 6902. What a patch may cost is bounded: operations, bytes made by `copy`, and nesting.

use json_patch::{PatchErrorKind, PatchOperation, jsonptr::Pointer};
use serde_json::Value;

use super::PatchError;

/// Most operations in one patch; more give 413.
pub const MAX_OPERATIONS: usize = 10_000;
/// Most bytes that the `copy` operations of one patch may add, together with what its `move` operations nest deeper;
/// more give 413.
pub const MAX_COPY_BYTES: usize = 3 * 1024 * 1024;
/// Deepest nesting that a patch may make; deeper gives 422.
pub const MAX_DEPTH: usize = 256;

pub(super) fn apply(original: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Some(list) = patch.as_array() else {
        return Err(PatchError::Malformed("invalid JSON patch: a list of operations is expected".into()));
    };
    if list.len() > MAX_OPERATIONS {
        let n = list.len();
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {n}"
        )));
    }
    let mut object = original.clone();
    let mut copied = 0;
    for operation in list {
        let operation: PatchOperation = serde_json::from_value(operation.clone())
            .map_err(|e| PatchError::Malformed(format!("invalid JSON patch: {e}: {operation}")))?;
        if !is_absent_null_test(&object, &operation) {
            bound(&object, &operation, &mut copied)?;
            json_patch::patch(&mut object, std::slice::from_ref(&operation))
                .map_err(|e| PatchError::Rejected(explain(&operation, &e.kind)))?;
        }
    }
    Ok(object)
}

/// `test` of a missing path against null holds, as upstream has it.
fn is_absent_null_test(object: &Value, operation: &PatchOperation) -> bool {
    matches!(operation, PatchOperation::Test(t) if t.value.is_null() && at(object, &t.path).is_none())
}

fn at<'a>(object: &'a Value, path: &Pointer) -> Option<&'a Value> {
    object.pointer(path.as_str())
}

fn bound(object: &Value, operation: &PatchOperation, copied: &mut usize) -> Result<(), PatchError> {
    let source = match operation {
        PatchOperation::Add(o) => Some(&o.value),
        PatchOperation::Replace(o) => Some(&o.value),
        PatchOperation::Move(o) => at(object, &o.from),
        PatchOperation::Copy(o) => at(object, &o.from),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => None,
    };
    let Some(source) = source else { return Ok(()) };
    let charged = match operation {
        PatchOperation::Copy(_) => true,
        PatchOperation::Move(o) => o.path.count() > o.from.count(),
        _ => false,
    };
    if charged {
        *copied += size(source);
        if *copied > MAX_COPY_BYTES {
            return Err(PatchError::TooLarge(format!(
                "Unable to copy, the accumulated size increase of copy is {copied}, exceeding the limit \
                 {MAX_COPY_BYTES}"
            )));
        }
    }
    let deepens = charged || !matches!(operation, PatchOperation::Move(_));
    if deepens && operation.path().count() + depth(source) > MAX_DEPTH {
        return Err(PatchError::Rejected(format!(
            "{} operation would nest the object deeper than {MAX_DEPTH}",
            name(operation)
        )));
    }
    Ok(())
}

/// About the encoded size in bytes.
fn size(value: &Value) -> usize {
    match value {
        Value::String(s) => s.len() + 2,
        Value::Array(list) => list.iter().map(|v| size(v) + 1).sum::<usize>() + 2,
        Value::Object(map) => map.iter().map(|(k, v)| k.len() + size(v) + 4).sum::<usize>() + 2,
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn name(operation: &PatchOperation) -> &'static str {
    match operation {
        PatchOperation::Add(_) => "add",
        PatchOperation::Remove(_) => "remove",
        PatchOperation::Replace(_) => "replace",
        PatchOperation::Move(_) => "move",
        PatchOperation::Copy(_) => "copy",
        PatchOperation::Test(_) => "test",
    }
}

/// The error in upstream's words.
fn explain(operation: &PatchOperation, kind: &PatchErrorKind) -> String {
    let path = operation.path();
    let key = path.last().map(|token| token.decoded().into_owned()).unwrap_or_default();
    match (operation, kind) {
        (PatchOperation::Test(_), _) => format!("testing value {path} failed: test failed"),
        (PatchOperation::Move(o), PatchErrorKind::InvalidFromPointer) => {
            format!("error in move for path: '{}': missing value", o.from)
        }
        (PatchOperation::Copy(o), PatchErrorKind::InvalidFromPointer) => {
            format!("copy operation does not apply: doc is missing from path: \"{}\": missing value", o.from)
        }
        (_, PatchErrorKind::CannotMoveInsideItself) => format!("move operation does not apply to {path}: {kind}"),
        (PatchOperation::Remove(_), _) => {
            format!("error in remove for path: '{path}': Unable to remove nonexistent key: {key}: missing value")
        }
        (PatchOperation::Replace(_), _) => {
            format!("replace operation does not apply: doc is missing key: {path}: missing value")
        }
        _ => format!("{} operation does not apply: doc is missing path: \"{path}\": missing value", name(operation)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn operations() {
        let pod = json!({"metadata": {"name": "a", "labels": {"x/y": "1"}}, "list": [1, 2]});
        for (patch, pointer, expected) in [
            (json!([{"op": "add", "path": "/metadata/labels/z", "value": "2"}]), "/metadata/labels/z", json!("2")),
            (
                json!([{"op": "replace", "path": "/metadata/labels/x~1y", "value": "2"}]),
                "/metadata/labels/x~1y",
                json!("2"),
            ),
            (json!([{"op": "add", "path": "/list/-", "value": 3}]), "/list", json!([1, 2, 3])),
            (json!([{"op": "remove", "path": "/list/0"}]), "/list", json!([2])),
            (json!([{"op": "copy", "from": "/list", "path": "/other"}]), "/other", json!([1, 2])),
            (json!([{"op": "move", "from": "/list", "path": "/other"}]), "/other", json!([1, 2])),
            (json!([{"op": "test", "path": "/nothing", "value": null}]), "/list", json!([1, 2])),
        ] {
            assert_eq!(apply(&pod, &patch).unwrap().pointer(pointer), Some(&expected), "{patch}");
        }
    }

    #[test]
    fn refusals_in_upstreams_words() {
        let pod = json!({"metadata": {"name": "a"}});
        for (patch, expected) in [
            (
                json!([{"op": "test", "path": "/metadata/name", "value": "b"}]),
                "testing value /metadata/name failed: test failed",
            ),
            (json!([{"op": "remove", "path": "/metadata/x"}]), "Unable to remove nonexistent key: x: missing value"),
            (json!([{"op": "replace", "path": "/x/y", "value": 1}]), "doc is missing key: /x/y: missing value"),
            (json!([{"op": "add", "path": "/x/y", "value": 1}]), "doc is missing path: \"/x/y\": missing value"),
        ] {
            match apply(&pod, &patch) {
                Err(PatchError::Rejected(m)) => assert!(m.ends_with(expected), "{m}"),
                other => panic!("{patch}: {other:?}"),
            }
        }
        for patch in [json!({}), json!([{"op": "burn", "path": "/x"}]), json!([{"op": "add"}])] {
            assert!(matches!(apply(&pod, &patch), Err(PatchError::Malformed(_))), "{patch}");
        }
        let many =
            Value::Array(vec![json!({"op": "test", "path": "/metadata/name", "value": "a"}); MAX_OPERATIONS + 1]);
        assert!(matches!(apply(&pod, &many), Err(PatchError::TooLarge(_))));
    }

    #[test]
    fn growth_is_bounded() {
        let doubling = Value::Array(vec![json!({"op": "copy", "from": "/a", "path": "/a/-"}); 60]);
        assert!(matches!(apply(&json!({"a": ["x"]}), &doubling), Err(PatchError::TooLarge(_))));
        let nested: Vec<Value> =
            (0..MAX_DEPTH + 1).map(|i| json!({"op": "add", "path": "/a".repeat(i + 1), "value": {}})).collect();
        assert!(matches!(apply(&json!({}), &Value::Array(nested)), Err(PatchError::Rejected(_))));
    }
}
