use super::*;

/// One case: what `one` applied, what it applies then, what others did between, and what comes out.
struct Case {
    name: &'static str,
    first: Value,
    other: Option<Value>,
    then: Value,
    result: Value,
}

fn case(name: &'static str, first: Value, other: Option<Value>, then: Value, result: Value) -> Case {
    Case { name, first, other, then, result }
}

/// `other` applies its own configuration in between.
#[test]
fn applied_again() {
    let cases = [
        case("abandoned scalar", json!({"replicas": 3, "text": "a"}), None, json!({"text": "a"}), json!({"text": "a"})),
        case(
            "abandoned, but shared",
            json!({"replicas": 3, "text": "a"}),
            Some(json!({"replicas": 3})),
            json!({"text": "a"}),
            json!({"replicas": 3, "text": "a"}),
        ),
        case("all abandoned", json!({"replicas": 3}), None, Value::Null, Value::Null),
        case(
            "set",
            json!({"set": ["a", "b"]}),
            Some(json!({"set": ["c"]})),
            json!({"set": ["b"]}),
            json!({"set": ["b", "c"]}),
        ),
        case("set, shared item", json!({"set": ["a"]}), Some(json!({"set": ["a"]})), json!({}), json!({"set": ["a"]})),
        case(
            "set in the applied order",
            json!({"set": ["a", "b"]}),
            None,
            json!({"set": ["b", "a"]}),
            json!({"set": ["b", "a"]}),
        ),
        case("atomic list", json!({"list": ["a", "b"]}), None, json!({"list": ["c"]}), json!({"list": ["c"]})),
        case(
            "atomic map",
            json!({"atom": {"a": "1", "b": "2"}}),
            None,
            json!({"atom": {"a": "1"}}),
            json!({"atom": {"a": "1"}}),
        ),
        case(
            "granular map",
            json!({"map": {"a": "1", "b": "2"}}),
            Some(json!({"map": {"c": "3"}})),
            json!({"map": {"a": "4"}}),
            json!({"map": {"a": "4", "c": "3"}}),
        ),
        case(
            "last key of a map",
            json!({"text": "t", "map": {"a": "1"}}),
            None,
            json!({"text": "t"}),
            json!({"text": "t"}),
        ),
        case(
            "items by key",
            json!({"items": [{"name": "a", "value": 1}, {"name": "b", "value": 2}]}),
            Some(json!({"items": [{"name": "c", "value": 3}]})),
            json!({"items": [{"name": "b", "value": 4}, {"name": "d"}]}),
            json!({"items": [{"name": "b", "value": 4}, {"name": "c", "value": 3}, {"name": "d"}]}),
        ),
        case(
            "another's field keeps an item",
            json!({"items": [{"name": "a", "value": 1, "sub": {"a": "x"}}]}),
            Some(json!({"items": [{"name": "a", "sub": {"b": "y"}}]})),
            json!({}),
            json!({"items": [{"name": "a", "sub": {"b": "y"}}]}),
        ),
        case(
            "a field inside an item",
            json!({"items": [{"name": "a", "value": 1, "sub": {"a": "x", "b": "y"}}]}),
            None,
            json!({"items": [{"name": "a", "sub": {"b": "y"}}]}),
            json!({"items": [{"name": "a", "sub": {"b": "y"}}]}),
        ),
        case(
            "defaulted key",
            json!({"ports": [{"port": 80, "name": "web"}]}),
            None,
            json!({"ports": [{"port": 80, "protocol": "TCP", "name": "http"}, {"port": 80, "protocol": "UDP"}]}),
            json!({"ports": [{"port": 80, "protocol": "TCP", "name": "http"}, {"port": 80, "protocol": "UDP"}]}),
        ),
        case(
            "no schema: maps by key, lists whole",
            json!({"free": {"a": {"x": 1}, "l": [1, 2], "gone": true}}),
            Some(json!({"free": {"a": {"y": 2}}})),
            json!({"free": {"a": {"x": 3}, "l": [3]}}),
            json!({"free": {"a": {"x": 3, "y": 2}, "l": [3]}}),
        ),
        case(
            "null clears",
            json!({"replicas": 3, "text": "a"}),
            None,
            json!({"replicas": null, "text": "a"}),
            json!({"text": "a"}),
        ),
        case(
            "emptied list",
            json!({"text": "t", "items": [{"name": "a"}]}),
            None,
            json!({"text": "t", "items": []}),
            json!({"text": "t", "items": []}),
        ),
        case("emptied map", json!({"map": {"a": "1"}}), None, json!({"map": {}}), json!({"map": {}})),
        case("empty map", json!({"map": {}}), None, json!({"map": {}}), json!({"map": {}})),
    ];
    for case in cases {
        let mut c = Cluster::toy();
        c.apply("one", case.first).unwrap();
        if let Some(other) = case.other {
            c.apply("other", other).unwrap();
        }
        c.apply("one", case.then.clone()).unwrap();
        assert_eq!(c.spec(), case.result, "{}", case.name);
        // Once more changes nothing.
        let before = (c.object.clone(), c.managed.clone());
        c.apply("one", case.then).unwrap();
        assert_eq!((c.object.clone(), c.managed.clone()), before, "{}", case.name);
    }
}

/// Items keep the live order, but for what the configuration orders.
#[test]
fn order_of_items() {
    for (live, config, result) in [
        ("abc", "", "abc"),
        ("abc", "b", "abc"),
        ("abc", "d", "abcd"),
        ("abc", "ca", "bca"),
        ("abcd", "dxb", "acdxb"),
        ("", "ba", "ba"),
        ("ab", "xa", "xab"),
    ] {
        let list = |text: &str| json!({"set": text.chars().map(String::from).collect::<Vec<_>>()});
        let mut c = Cluster::toy();
        c.update("someone", list(live));
        c.apply("one", list(config)).unwrap();
        assert_eq!(c.spec(), list(result), "{live} + {config}");
    }
}

/// What nobody owns stays in a map or list as long as somebody else owns a part of it.
#[test]
fn what_nobody_owns() {
    for shared in [true, false] {
        let mut c = Cluster::toy();
        c.apply("one", json!({"items": [{"name": "a", "value": 1}], "map": {"a": "1"}})).unwrap();
        if shared {
            c.apply("two", json!({"items": [{"name": "b"}], "map": {"b": "2"}})).unwrap();
        }
        let object = c.object.as_mut().unwrap();
        object["spec"]["items"].as_array_mut().unwrap().push(json!({"name": "x"}));
        object["spec"]["map"]["x"] = json!("3");
        c.apply("one", json!({"text": "t"})).unwrap();
        let expected = json!({"text": "t", "items": [{"name": "b"}, {"name": "x"}], "map": {"b": "2", "x": "3"}});
        assert_eq!(c.spec(), if shared { expected } else { json!({"text": "t"}) });
    }
}

#[test]
fn configurations_are_judged() {
    let decode =
        |spec: Value| Config::decode(&toy(), json!({"apiVersion": "v1", "kind": "Toy", "spec": spec}), Part::Main);
    for (spec, why) in [
        (json!({"legs": 2}), ".spec.legs: field not declared in schema"),
        (
            json!({"legs": 2, "arms": 1}),
            "errors:\n  .spec.arms: field not declared in schema\n  .spec.legs: field not declared in schema",
        ),
        (json!({"items": [{"name": "a"}, {"name": "a"}]}), ".spec.items: duplicate entries for key [name=\"a\"]"),
        (json!({"set": ["a", "a"]}), ".spec.set: duplicate entries for key [=\"a\"]"),
        (
            json!({"ports": [{"port": 1}, {"port": 1, "protocol": "TCP"}]}),
            ".spec.ports: duplicate entries for key [port=1,protocol=\"TCP\"]",
        ),
        (
            json!({"items": [{"value": 1}]}),
            ".spec.items: element 0: associative list with keys has an element that omits all key fields [\"name\"] (and doesn't have default values for any key fields)",
        ),
    ] {
        assert_eq!(decode(spec).unwrap_err(), why);
    }
    assert!(decode(json!({"replicas": "many"})).unwrap_err().contains("spec.replicas of type int64"));
    assert!(decode(json!({"list": ["a", "a"]})).is_ok());
}

#[test]
fn extraction_is_the_configuration() {
    let schema = toy();
    let spec = json!({"replicas": 1, "set": ["a"], "items": [{"name": "a", "sub": {"a": "x"}}], "map": {"k": "v"},
        "ports": [{"port": 80, "name": "web"}], "atom": {"a": "1"}, "free": {"x": {"y": [1]}}});
    let mut c = Cluster::toy();
    c.update("someone", json!({"text": "t", "set": ["z"], "items": [{"name": "b", "value": 1}], "map": {"o": "p"}}));
    c.apply("one", spec.clone()).unwrap();
    let set = FieldSet::from_fields_v1(&c.entry("one").unwrap()["fieldsV1"]).unwrap();
    assert_eq!(extract(&schema, c.object.as_ref().unwrap(), &set).unwrap()["spec"], spec);
    assert_eq!(extract(&schema, c.object.as_ref().unwrap(), &FieldSet::default()), None);
}
