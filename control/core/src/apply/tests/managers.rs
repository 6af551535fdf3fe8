use super::*;

fn conflict(c: &mut Cluster, name: &str, spec: Value) -> String {
    let e = c.apply(name, spec).unwrap_err();
    assert!(matches!(e, ApplyError::Conflicts(_)), "{e}");
    e.to_string()
}

#[test]
fn conflicts_and_force() {
    let mut c = Cluster::toy();
    c.apply("one", json!({"replicas": 3, "text": "a"})).unwrap();
    // Equal values are shared.
    c.apply("two", json!({"replicas": 3})).unwrap();
    assert_eq!(c.owns("one"), [".spec.replicas", ".spec.text"]);
    assert_eq!(c.owns("two"), [".spec.replicas"]);
    // Another value is a conflict with each owner.
    let three = json!({"replicas": 4, "text": "b"});
    assert_eq!(
        conflict(&mut c, "three", three.clone()),
        "Apply failed with 3 conflicts: conflicts with \"one\":\n- .spec.replicas\n- .spec.text\nconflicts with \"two\":\n- .spec.replicas"
    );
    assert_eq!(c.spec(), json!({"replicas": 3, "text": "a"}));
    c.force("three", three);
    assert_eq!(c.spec(), json!({"replicas": 4, "text": "b"}));
    assert!(c.entry("one").is_none() && c.entry("two").is_none(), "who owns nothing is dropped");
    assert_eq!(c.owns("three"), [".spec.replicas", ".spec.text"]);
}

#[test]
fn conflicts_with_updaters() {
    let mut c = Cluster::toy();
    c.apply("one", json!({"replicas": 3})).unwrap();
    c.update("scaler", json!({"replicas": 5}));
    assert_eq!(c.owns("scaler"), [".spec.replicas"]);
    assert!(c.entry("one").is_none());
    let e = c.apply("one", json!({"replicas": 3})).unwrap_err();
    assert_eq!(
        e.to_string(),
        "Apply failed with 1 conflict: conflict with \"scaler\" using toys.example.com/v1: .spec.replicas"
    );
    let api = e.api_error("", "Toy", "x");
    assert_eq!((api.code, api.reason), (409, "Conflict"));
    assert_eq!(
        api.details.unwrap(),
        json!({"causes": [{"reason": "FieldManagerConflict", "field": ".spec.replicas",
            "message": "conflict with \"scaler\" using toys.example.com/v1"}]})
    );
    // Not to mention the field is the way to leave it to the updater.
    c.apply("one", json!({"text": "a"})).unwrap();
    assert_eq!(c.spec(), json!({"replicas": 5, "text": "a"}));
    // In an item: its key and the field.
    c.update("scaler", json!({"replicas": 5, "text": "a", "items": [{"name": "a", "value": 1}]}));
    let message = conflict(&mut c, "one", json!({"items": [{"name": "a", "value": 2}]}));
    assert!(message.ends_with(": .spec.items[name=\"a\"].value"), "{message}");
}

#[test]
fn subresources_are_managers_of_their_own() {
    let schema = toy();
    let time = jiff::Timestamp::UNIX_EPOCH;
    let writer = |subresource| Writer { name: "m", api_version: "toys.example.com/v1", subresource, time };
    let live = json!({"apiVersion": "toys.example.com/v1", "kind": "Toy", "spec": {"replicas": 1}});
    let managed = track(&schema, None, &live, None, &writer(""));
    let mut new = live.clone();
    new["status"] = json!({"ready": 1});
    let managed = track(&schema, Some(&live), &new, managed, &writer("status")).unwrap();
    let names: Vec<&Value> = managed.as_array().unwrap().iter().map(|e| &e["subresource"]).collect();
    assert_eq!(names, [&Value::Null, &json!("status")]);
    // A configuration of the object has no status, one of the status nothing else.
    let sent = json!({"apiVersion": "toys.example.com/v1", "kind": "Toy", "metadata": {"name": "x", "labels": {"a": "b"}},
        "spec": {"replicas": 2}, "status": {"ready": 2}});
    let paths = |part| {
        let config = Config::decode(&schema, sent.clone(), part).unwrap();
        config.fields.paths().iter().map(|p| p.iter().map(ToString::to_string).collect()).collect::<Vec<String>>()
    };
    assert_eq!(paths(Part::Main), [".metadata.labels.a", ".spec.replicas"]);
    assert_eq!(paths(Part::Status), [".status.ready"]);
    assert_eq!(paths(Part::Whole).len(), 3);
    let config = Config::decode(&schema, sent, Part::Status).unwrap();
    let e = apply(&schema, Some(&new), Some(managed), &config, &writer("status"), false).unwrap_err();
    assert_eq!(
        e.to_string(),
        "Apply failed with 1 conflict: conflict with \"m\" with subresource \"status\" using toys.example.com/v1: .status.ready"
    );
}

#[test]
fn times_and_order() {
    let mut c = Cluster::toy();
    c.apply("b", json!({"replicas": 3})).unwrap();
    let first = c.entry("b").unwrap()["time"].clone();
    assert_eq!(first, "2026-01-01T00:00:01Z");
    c.apply("a", json!({"text": "x"})).unwrap();
    c.apply("b", json!({"replicas": 3})).unwrap();
    assert_eq!(c.entry("b").unwrap()["time"], first, "nothing changed");
    c.update("z", json!({"replicas": 3, "text": "x", "list": ["a"]}));
    c.update("y", json!({"replicas": 3, "text": "x", "list": ["b"]}));
    c.apply("b", json!({"replicas": 4})).unwrap();
    assert_ne!(c.entry("b").unwrap()["time"], first);
    let names: Vec<&str> =
        c.managed.as_ref().unwrap().as_array().unwrap().iter().map(|e| e["manager"].as_str().unwrap()).collect();
    assert_eq!(names, ["a", "b", "y"]);
}

#[test]
fn old_updaters_are_merged() {
    let mut c = Cluster::toy();
    c.update("creator", json!({"map": {"start": "0"}}));
    let mut map = json!({"start": "0"});
    for i in 0..20 {
        map[format!("k{i}")] = json!("v");
        c.update(&format!("updater-{i}"), json!({"map": map}));
    }
    let managed = c.managed.clone().unwrap();
    assert_eq!(managed.as_array().unwrap().len(), MAX_UPDATERS);
    assert!(c.owns("ancient-changes").contains(&".spec.map.k3".to_string()));
    assert!(c.entry("updater-11").is_some() && c.entry("updater-10").is_none());
}

#[test]
fn appliers_are_bounded() {
    let mut c = Cluster::toy();
    for i in 0..MAX_APPLIERS {
        c.apply(&format!("m{i}"), json!({"map": {format!("k{i}"): "v"}})).unwrap();
    }
    let e = c.apply("one-more", json!({"map": {"more": "v"}})).unwrap_err();
    assert_eq!(e, ApplyError::TooManyAppliers);
    assert_eq!(e.api_error("", "Toy", "x").code, 422);
    c.apply("m0", json!({"map": {"k0": "w"}})).unwrap();
}

#[test]
fn before_the_first_apply() {
    let mut c = Cluster::toy();
    c.update("someone", json!({"replicas": 1, "text": "a"}));
    c.managed = None;
    // Nobody is known: updates do not change that.
    c.update("someone", json!({"replicas": 2, "text": "a"}));
    assert_eq!(c.managed, None);
    let message = conflict(&mut c, "one", json!({"replicas": 3}));
    assert!(message.contains("conflict with \"before-first-apply\" using"), "{message}");
    c.apply("one", json!({"text": "a"})).unwrap();
    assert_eq!(c.owns("before-first-apply"), [".spec", ".spec.replicas", ".spec.text"]);
    assert_eq!(c.owns("one"), [".spec.text"]);
}

#[test]
fn managed_fields_of_clients() {
    let entry = |manager: &str| {
        json!({"manager": manager, "operation": "Apply", "apiVersion": "v1", "time": "2026-01-01T01:00:00+01:00",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"k:{\"b\":1, \"a\":2}": {}}}})
    };
    let had = Some(json!([entry("had")]));
    assert_eq!(given_or_had(None, had.as_ref()), had);
    assert_eq!(given_or_had(Some(Value::Null), had.as_ref()), had);
    assert_eq!(given_or_had(Some(json!([])), had.as_ref()), None);
    assert_eq!(given_or_had(Some(json!([{}])), had.as_ref()), None);
    let unparsed =
        json!([{"operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:a": {"bad": {}}}}]);
    for bad in [
        unparsed,
        json!([1]),
        json!([{"manager": "x"}]),
        json!({}),
        json!([{"operation": "Apply", "apiVersion": "v1"}]),
    ] {
        assert_eq!(given_or_had(Some(bad), had.as_ref()), had);
    }
    let given = given_or_had(Some(json!([entry("new")])), had.as_ref()).unwrap();
    assert_eq!(given[0]["manager"], "new");
    assert_eq!(given[0]["time"], "2026-01-01T00:00:00Z");
    assert_eq!(given[0]["fieldsV1"], json!({"f:spec": {"k:{\"a\":2,\"b\":1}": {}}}));

    let mut later = given.clone();
    later[0]["time"] = json!("2027-01-01T00:00:00Z");
    assert!(same_but_time(Some(&given), Some(&later)) && same_but_time(None, None));
    later[0]["manager"] = json!("other");
    assert!(!same_but_time(Some(&given), Some(&later)) && !same_but_time(Some(&given), None));
}

/// An entry that owns part by part what is one now owns it as one.
#[test]
fn the_schema_became_atomic() {
    let mut c = Cluster::toy();
    c.apply("one", json!({"atom": {"a": "1"}, "list": ["x"]})).unwrap();
    let mut managed = c.managed.take().unwrap();
    managed[0]["fieldsV1"] = json!({"f:spec": {"f:atom": {"f:a": {}}, "f:list": {".": {}, "v:\"x\"": {}}}});
    c.managed = Some(managed);
    let message = conflict(&mut c, "two", json!({"atom": {"a": "2"}, "list": ["y"]}));
    assert!(message.contains("2 conflicts") && message.contains("- .spec.atom\n- .spec.list"), "{message}");
}
