//! `metadata` rules that all kinds share.

use copepod_api::{FieldError, Gvk};
use serde_json::{Value, json};

use super::{
    Check, IMMUTABLE, MAX_ANNOTATIONS_BYTES, NON_NEGATIVE, dns1123_label, label_value, qualified_name, report, too_long,
};
use crate::kinds::value::{entries, flag, int, list, strings, text};

/// The rules of `metadata` on a whole object, after its name was generated. `name_fn` is the kind's rule on names.
pub fn object_meta(object: &Value, namespaced: bool, name_fn: &dyn Fn(&str) -> Check) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = text(object, "/metadata/name");
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else {
        report(&mut errors, "metadata.name", &json!(name), name_fn(name));
    }
    let namespace = text(object, "/metadata/namespace");
    match (namespaced, namespace) {
        (true, "") => errors.push(FieldError::required("metadata.namespace", "")),
        (true, ns) => report(&mut errors, "metadata.namespace", &json!(ns), dns1123_label(ns)),
        (false, "") => {}
        (false, _) => errors.push(FieldError::forbidden("metadata.namespace", "not allowed on this type")),
    }
    if let Some(generation) = int(object, "/metadata/generation").filter(|g| *g < 0) {
        errors.push(FieldError::invalid("metadata.generation", &json!(generation), NON_NEGATIVE));
    }
    errors.extend(parts(object));
    errors
}

/// The rules of `metadata` on a change from `old` to `new`; both are whole objects whose server-set fields
/// (uid, creationTimestamp, ...) the server filled in where the client left them empty.
pub fn object_meta_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if old.pointer("/metadata/deletionTimestamp").is_some_and(|t| !t.is_null()) {
        let before: Vec<&str> = strings(old, "/metadata/finalizers").collect();
        let mut extra: Vec<&str> = strings(new, "/metadata/finalizers").filter(|f| !before.contains(f)).collect();
        extra.sort_unstable();
        if !extra.is_empty() {
            let found = extra.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ");
            errors.push(FieldError::forbidden(
                "metadata.finalizers",
                &format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers \
                     []string{{{found}}}"
                ),
            ));
        }
    }
    let generation = |o: &Value| int(o, "/metadata/generation").unwrap_or(0);
    if generation(new) < generation(old) {
        let value = json!(generation(new));
        errors.push(FieldError::invalid("metadata.generation", &value, "must not be decremented"));
    }
    for field in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        let pointer = format!("/metadata/{field}");
        let at = |o: &Value| o.pointer(&pointer).filter(|v| !v.is_null() && *v != "").cloned();
        let (after, before) = (at(new), at(old));
        if after != before {
            let shown = after.unwrap_or(Value::Null);
            errors.push(FieldError::invalid(format!("metadata.{field}"), &shown, IMMUTABLE));
        }
    }
    errors.extend(parts(new));
    errors
}

fn parts(object: &Value) -> Vec<FieldError> {
    let mut errors = labels(object.pointer("/metadata/labels").unwrap_or(&Value::Null), "metadata.labels");
    errors.extend(annotations(object.pointer("/metadata/annotations").unwrap_or(&Value::Null), "metadata.annotations"));
    errors.extend(owner_references(object));
    errors.extend(finalizers(object));
    errors
}

/// The rules of a label map found at `field`.
pub fn labels(map: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in entries(map, "") {
        report(&mut errors, field, &json!(key), qualified_name(key));
        report(&mut errors, field, value, label_value(value.as_str().unwrap_or_default()));
    }
    errors
}

/// The rules of an annotation map found at `field`: qualified names as keys, 256 KiB in all.
pub fn annotations(map: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut total = 0;
    for (key, value) in entries(map, "") {
        report(&mut errors, field, &json!(key), qualified_name(&key.to_lowercase()));
        total += key.len() + value.as_str().map_or(0, str::len);
    }
    if total > MAX_ANNOTATIONS_BYTES {
        errors.push(too_long(field, MAX_ANNOTATIONS_BYTES));
    }
    errors
}

fn owner_references(object: &Value) -> Vec<FieldError> {
    const FIELD: &str = "metadata.ownerReferences";
    let mut errors = Vec::new();
    let (mut controller, mut reported): (Option<String>, bool) = (None, false);
    for owner in list(object, "/metadata/ownerReferences") {
        for (child, message) in [
            ("apiVersion", "version must not be empty"),
            ("kind", "must not be empty"),
            ("name", "must not be empty"),
            ("uid", "must not be empty"),
        ] {
            if text(owner, &format!("/{child}")).is_empty() {
                errors.push(FieldError::invalid(format!("{FIELD}.{child}"), &json!(""), message));
            }
        }
        let (kind, name) = (text(owner, "/kind"), text(owner, "/name"));
        if text(owner, "/apiVersion") == "v1" && kind == "Event" {
            let gvk = Gvk::new("", "v1", "Event");
            errors.push(FieldError::invalid(FIELD, owner, &format!("/{gvk} is disallowed from being an owner")));
        }
        if flag(owner, "/controller") {
            let this = format!("{kind}/{name}");
            // Each would show the whole list: the first one is enough.
            if let Some(first) = controller.as_ref().filter(|_| !reported) {
                reported = true;
                let message = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and \
                     {this}"
                );
                errors.push(FieldError::invalid(FIELD, &json!(list(object, "/metadata/ownerReferences")), &message));
            }
            controller.get_or_insert(this);
        }
    }
    errors
}

fn finalizers(object: &Value) -> Vec<FieldError> {
    const FIELD: &str = "metadata.finalizers";
    let mut errors = Vec::new();
    let all: Vec<&str> = strings(object, "/metadata/finalizers").collect();
    for finalizer in &all {
        report(&mut errors, FIELD, &json!(finalizer), qualified_name(finalizer));
    }
    if all.contains(&"orphan") && all.contains(&"foregroundDeletion") {
        let message = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(FIELD, &json!(all), message));
    }
    errors
}

/// Groups whose kinds take a finalizer without a domain only if Kubernetes itself has it.
const STRICT_GROUPS: [&str; 14] = [
    "",
    "apps",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "discovery.k8s.io",
    "events.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "networking.k8s.io",
    "node.k8s.io",
    "rbac.authorization.k8s.io",
    "resource.k8s.io",
    "scheduling.k8s.io",
    "storage.k8s.io",
];
/// Finalizers that Kubernetes itself has.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// The rules of finalizers that the kinds of most of Kubernetes' own groups have beside those of every object.
pub fn standard_finalizers(object: &Value, group: &str) -> Vec<FieldError> {
    let all = strings(object, "/metadata/finalizers").enumerate().filter(|_| STRICT_GROUPS.contains(&group));
    let wrong = all.filter(|(_, finalizer)| !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(finalizer));
    let message = "name is neither a standard finalizer name nor is it fully qualified";
    wrong.map(|(i, f)| FieldError::invalid(format!("metadata.finalizers[{i}]"), &json!(f), message)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::dns1123_subdomain;

    fn shown(errors: Vec<FieldError>) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn whole_objects() {
        let cases = [
            (json!({"name": "a", "namespace": "b", "labels": {"app": "web"}, "finalizers": ["x.io/y"]}), true, ""),
            (json!({"namespace": "b"}), true, "metadata.name: Required value: name or generateName is required"),
            (json!({"name": "A", "namespace": "b"}), true, "metadata.name: Invalid value: \"A\": a lowercase RFC 1123"),
            (json!({"name": "a"}), true, "metadata.namespace: Required value"),
            (json!({"name": "a", "namespace": "b"}), false, "metadata.namespace: Forbidden: not allowed on this type"),
            (json!({"name": "a", "labels": {"a b": "x"}}), false, "metadata.labels: Invalid value: \"a b\": name part"),
            (json!({"name": "a", "labels": {"a": "x y"}}), false, "metadata.labels: Invalid value: \"x y\": a valid"),
            (
                json!({"name": "a", "annotations": {"a": "x".repeat(300_000)}}),
                false,
                "metadata.annotations: Too long: may not be more than 262144 bytes",
            ),
            (json!({"name": "a", "annotations": {"Upper/Case": "any value"}}), false, ""),
            (
                json!({"name": "a", "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p"}]}),
                false,
                "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty",
            ),
            (
                json!({"name": "a", "finalizers": ["orphan", "foregroundDeletion"]}),
                false,
                "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and",
            ),
        ];
        for (meta, namespaced, expected) in cases {
            let errors = shown(object_meta(&json!({"metadata": meta}), namespaced, &dns1123_subdomain));
            match errors.as_slice() {
                [] => assert_eq!(expected, "", "{meta}"),
                [one] => assert!(!expected.is_empty() && one.starts_with(expected), "{one}"),
                many => panic!("{many:?}"),
            }
        }
        let two = json!([
            {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1", "controller": true},
            {"apiVersion": "v1", "kind": "Pod", "name": "q", "uid": "2", "controller": true}]);
        let errors =
            shown(object_meta(&json!({"metadata": {"name": "a", "ownerReferences": two}}), false, &|_| Ok(())));
        assert!(errors[0].ends_with("references for Pod/p and Pod/q"), "{errors:?}");
    }

    #[test]
    fn many_errors_are_few() {
        let labels: serde_json::Map<_, _> = (0..10_000).map(|i| (format!("a {i}"), json!("b"))).collect();
        let owners: Vec<Value> = (0..1000)
            .map(
                |i| json!({"apiVersion": "v1", "kind": "Pod", "name": format!("p{i}"), "uid": "u", "controller": true}),
            )
            .collect();
        let labelled = object_meta(&json!({"metadata": {"name": "a", "labels": labels}}), false, &|_| Ok(()));
        assert_eq!(labelled.len(), copepod_api::MAX_FIELD_ERRORS);
        let owned = object_meta(&json!({"metadata": {"name": "a", "ownerReferences": owners}}), false, &|_| Ok(()));
        assert_eq!(owned.len(), 1, "the whole list once, not a thousand times");
    }

    #[test]
    fn finalizers_of_kubernetes() {
        let object = json!({"metadata": {"finalizers": ["orphan", "foo", "x.io/y"]}});
        let message = "metadata.finalizers[1]: Invalid value: \"foo\": name is neither a standard finalizer name nor is it \
            fully qualified";
        for group in ["", "apps", "rbac.authorization.k8s.io"] {
            assert_eq!(shown(standard_finalizers(&object, group)), [message], "{group}");
        }
        for group in ["policy", "coordination.k8s.io", "shop.example"] {
            assert!(standard_finalizers(&object, group).is_empty(), "{group}");
        }
    }

    #[test]
    fn changes() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "generation": 3, "deletionTimestamp": "t",
            "finalizers": ["x"]}});
        let mut new = old.clone();
        assert!(object_meta_update(&new, &old).is_empty());
        new["metadata"]["finalizers"] = json!([]);
        assert!(object_meta_update(&new, &old).is_empty());
        new["metadata"] = json!({"name": "b", "uid": "2", "generation": 2, "finalizers": ["x", "y"]});
        assert_eq!(
            shown(object_meta_update(&new, &old)),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found \
                 new finalizers []string{\"y\"}",
                "metadata.generation: Invalid value: 2: must not be decremented",
                "metadata.name: Invalid value: \"b\": field is immutable",
                "metadata.uid: Invalid value: \"2\": field is immutable",
                "metadata.deletionTimestamp: Invalid value: null: field is immutable",
            ]
        );
    }
}
