use copepod_api::Gvk;
use serde_json::{Value, json};

use super::*;

fn check(kind: (&str, &str, &str), original: Value, patch: Value, expected: Result<Value, &str>) {
    let schema = crate::schema::builtin(&Gvk::new(kind.0, kind.1, kind.2)).unwrap();
    match (apply(&schema, &original, &patch), expected) {
        (Ok(actual), Ok(expected)) => assert_eq!(actual, expected, "{patch}"),
        (Err(e), Err(expected)) => assert!(e.to_string().contains(expected), "{e}"),
        (actual, expected) => panic!("{patch}: {actual:?}, not {expected:?}"),
    }
}

const POD: (&str, &str, &str) = ("", "v1", "Pod");
const DEPLOYMENT: (&str, &str, &str) = ("apps", "v1", "Deployment");
const SERVICE: (&str, &str, &str) = ("", "v1", "Service");

fn containers(list: Value) -> Value {
    json!({"spec": {"containers": list}})
}

#[test]
fn lists_merge_by_key() {
    let two = || containers(json!([{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]));
    for (patch, expected) in [
        (json!([{"name": "b", "image": "z"}]), json!([{"name": "a", "image": "x"}, {"name": "b", "image": "z"}])),
        (
            json!([{"name": "c", "image": "z"}]),
            json!([{"name": "c", "image": "z"}, {"name": "a", "image": "x"}, {"name": "b", "image": "y"}]),
        ),
        (json!([{"name": "a", "$patch": "delete"}]), json!([{"name": "b", "image": "y"}])),
        (json!([{"$patch": "replace"}, {"name": "c"}]), json!([{"name": "c"}])),
        (json!([{"name": "a", "image": null}]), json!([{"name": "a"}, {"name": "b", "image": "y"}])),
    ] {
        check(POD, two(), containers(patch), Ok(containers(expected)));
    }
    check(
        POD,
        two(),
        containers(json!([{"image": "z"}])),
        Err("map: map[image:z] does not contain declared merge key: name"),
    );
    check(POD, two(), containers(json!([{"name": "a", "$patch": "burn"}])), Err("unknown patch type burn in map"));
    check(POD, two(), containers(json!(["a"])), Err("list element types are not identical"));
    let ports = |v: Value| json!({"spec": {"ports": v}});
    check(
        SERVICE,
        ports(json!([{"port": 80, "name": "a"}, {"port": 81}])),
        ports(json!([{"port": 80, "name": "b"}])),
        Ok(ports(json!([{"port": 80, "name": "b"}, {"port": 81}]))),
    );
}

#[test]
fn new_lists_are_taken_as_they_are() {
    let dns = || json!([{"port": 53, "protocol": "TCP", "name": "a"}, {"port": 53, "protocol": "UDP", "name": "b"}]);
    check(SERVICE, json!({"spec": {}}), json!({"spec": {"ports": dns()}}), Ok(json!({"spec": {"ports": dns()}})));
    let ordered = json!({"spec": {"$setElementOrder/ports": [{"port": 53}, {"port": 53}], "ports": dns()}});
    check(SERVICE, json!({"spec": {}}), ordered, Ok(json!({"spec": {"ports": dns()}})));
    let ports = json!([{"containerPort": 53, "protocol": "TCP"}, {"containerPort": 53, "protocol": "UDP"}]);
    let container = containers(json!([{"name": "c", "ports": ports}]));
    check(POD, containers(json!([])), container.clone(), Ok(container.clone()));
    check(POD, json!({"spec": {}}), container.clone(), Ok(container));
    let gone =
        containers(json!([{"name": "a", "$patch": "delete"}, {"$patch": "replace"}, {"name": "b", "image": null}]));
    check(POD, json!({"spec": {}}), gone, Ok(containers(json!([{"name": "b"}]))));
}

#[test]
fn nested_lists_and_atomic_lists() {
    check(
        DEPLOYMENT,
        json!({"spec": {"template": {"spec": {"containers": [
            {"name": "a", "args": ["1", "2"], "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}]}}}}),
        json!({"spec": {"template": {"spec": {"containers": [
            {"name": "a", "args": ["3"], "env": [{"name": "Y", "value": "3"}]}]}}}}),
        Ok(json!({"spec": {"template": {"spec": {"containers": [
            {"name": "a", "args": ["3"], "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "3"}]}]}}}})),
    );
}

#[test]
fn maps_merge_replace_and_delete() {
    let object = || json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
    for (patch, expected) in [
        (json!({"a": null, "c": "3"}), json!({"b": "2", "c": "3"})),
        (json!({"$patch": "replace", "c": "3"}), json!({"c": "3"})),
        (json!({"$patch": "delete"}), json!({})),
    ] {
        let patch = json!({"metadata": {"labels": patch}});
        check(POD, object(), patch, Ok(json!({"metadata": {"labels": expected}})));
    }
    check(POD, object(), json!({"metadata": {"labels": {"$patch": "merge"}}}), Err("unknown patch type merge in map"));
    check(
        POD,
        json!({}),
        json!({"metadata": {"labels": {"a": null, "b": "1"}}}),
        Ok(json!({"metadata": {"labels": {"b": "1"}}})),
    );
}

#[test]
fn primitive_lists() {
    let object = |f: Value| json!({"metadata": {"finalizers": f}});
    check(POD, object(json!(["a", "b"])), object(json!(["c", "a"])), Ok(object(json!(["c", "a", "b"]))));
    check(
        POD,
        object(json!(["a", "b", "c"])),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a", "c"]}}),
        Ok(object(json!(["b"]))),
    );
    check(
        POD,
        json!({"metadata": {}}),
        json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}),
        Ok(json!({"metadata": {}})),
    );
    check(
        POD,
        object(json!(["a", "b", "c"])),
        json!({"metadata": {"$setElementOrder/finalizers": ["c", "a"]}}),
        Ok(object(json!(["b", "c", "a"]))),
    );
}

#[test]
fn element_order() {
    let names = |list: &[&str]| Value::Array(list.iter().map(|n| json!({"name": n})).collect());
    let cases: &[[&[&str]; 4]] = &[
        [&["a", "b", "c"], &["c", "b", "a"], &["b"], &["c", "b", "a"]],
        [&["a", "server", "b"], &["b", "a"], &["b"], &["server", "b", "a"]],
        [&["server", "a", "b"], &["a", "b", "c"], &["c"], &["server", "a", "b", "c"]],
        [&["a", "b"], &["b", "a"], &[], &["b", "a"]],
    ];
    for [live, order, patch, expected] in cases {
        let patch = json!({"spec": {"$setElementOrder/containers": names(order), "containers": names(patch)}});
        check(POD, containers(names(live)), patch, Ok(containers(names(expected))));
    }
    let wrong = json!({"spec": {"$setElementOrder/containers": names(&["a"]), "containers": names(&["b"])}});
    check(POD, containers(names(&["a"])), wrong, Err("doesn't match $setElementOrder list"));
    let bad = json!({"spec": {"$setElementOrder/containers": "a"}});
    check(POD, containers(names(&["a"])), bad, Err("invalid patch format of setElementOrder list"));
    let deleted = json!({"spec": {"$setElementOrder/containers": names(&["b"]),
        "containers": [{"name": "a", "$patch": "delete"}]}});
    check(POD, containers(names(&["a", "b"])), deleted, Ok(containers(names(&["b"]))));
}

#[test]
fn retain_keys() {
    let object = || json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
    check(
        DEPLOYMENT,
        object(),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        Ok(json!({"spec": {"strategy": {"type": "Recreate"}}})),
    );
    check(
        DEPLOYMENT,
        object(),
        json!({"spec": {"strategy": {"$retainKeys": ["type"], "rollingUpdate": {}}}}),
        Err("invalid patch format of retainKeys"),
    );
    check(
        POD,
        json!({"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}),
        json!({"spec": {"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/x"}}]}}),
        Ok(json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}})),
    );
}

#[test]
fn not_an_object() {
    check(POD, json!({}), json!([]), Err("an object is expected"));
    assert_eq!(go_value(&json!({"b": [1, "x", null], "a": true})), "map[a:true b:[1 x <nil>]]");
}
