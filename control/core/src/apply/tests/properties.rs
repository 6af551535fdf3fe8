use proptest::prelude::*;

use super::*;

/// Specs with every list and map type. Values are few, so that managers meet.
fn specs() -> impl Strategy<Value = Value> {
    let word = || "[ab]";
    let some = |key: &'static str, value: BoxedStrategy<Value>| {
        proptest::option::of(value).prop_map(move |v| v.map(|v| (key.to_string(), v)))
    };
    let words = || proptest::collection::btree_set("[abcd]", 1..4).prop_map(|s| json!(s)).boxed();
    let items =
        proptest::collection::btree_map("[abc]", (proptest::option::of(0..3), proptest::option::of(word())), 1..3)
            .prop_map(|m| {
                let item = |(name, (value, a)): (String, (Option<i32>, Option<String>))| {
                    let mut item = json!({"name": name});
                    if let Some(value) = value {
                        item["value"] = json!(value);
                    }
                    if let Some(a) = a {
                        item["sub"] = json!({"a": a});
                    }
                    item
                };
                json!(m.into_iter().map(item).collect::<Vec<_>>())
            })
            .boxed();
    let ports = proptest::collection::btree_set((80..82, prop_oneof![Just("TCP"), Just("UDP")]), 1..3)
        .prop_map(|s| json!(s.into_iter().map(|(p, x)| json!({"port": p, "protocol": x})).collect::<Vec<_>>()))
        .boxed();
    let map = proptest::collection::btree_map("[abc]", word(), 1..3).prop_map(|m| json!(m)).boxed();
    let free = proptest::collection::btree_map("[ab]", proptest::collection::vec(0..2, 0..2), 1..2)
        .prop_map(|m| json!(m))
        .boxed();
    (
        some("replicas", (0..3).prop_map(|n| json!(n)).boxed()),
        some("list", words()),
        some("set", words()),
        some("items", items),
        some("ports", ports),
        some("map", map),
        some("atom", word().prop_map(|a| json!({"a": a})).boxed()),
        some("free", free),
    )
        .prop_map(|(a, b, c, d, e, f, g, h)| Value::Object([a, b, c, d, e, f, g, h].into_iter().flatten().collect()))
}

/// An object's fields without its managers' times.
fn state(c: &Cluster) -> (Option<Value>, Option<Value>) {
    let mut managed = c.managed.clone();
    for entry in managed.iter_mut().filter_map(Value::as_array_mut).flatten() {
        entry.as_object_mut().unwrap().remove("time");
    }
    (c.object.clone(), managed)
}

proptest! {
    /// To apply again changes nothing, not even a time.
    #[test]
    fn idempotent(live in specs(), a in specs(), b in specs()) {
        let mut c = Cluster::toy();
        c.update("someone", live);
        c.force("one", a);
        c.force("one", b.clone());
        let before = (c.object.clone(), c.managed.clone());
        c.force("one", b.clone());
        prop_assert_eq!((c.object.clone(), c.managed.clone()), before.clone());
        c.apply("one", b).unwrap();
        prop_assert_eq!((c.object.clone(), c.managed.clone()), before);
    }

    /// What was applied is there, and is what extraction gives back.
    #[test]
    fn applied(live in specs(), a in specs()) {
        let mut c = Cluster::toy();
        c.update("someone", live);
        c.force("one", a.clone());
        let config = Config::decode(&c.schema, c.whole(a), Part::Main).unwrap();
        let object = c.object.as_ref().unwrap();
        let own = extract(&c.schema, object, &config.fields).unwrap_or_default();
        let again = walk::fields_of(place::Place::root(&c.schema), &own).unwrap();
        prop_assert!(again.contains(&config.fields));
    }

    /// To let go of everything leaves what was there before, if nothing of it was touched.
    #[test]
    fn come_and_go(live in specs(), a in specs()) {
        let mut c = Cluster::toy();
        let mut live = live;
        live["text"] = json!("t");
        c.apply("base", live).unwrap();
        let before = state(&c);
        if c.apply("one", a).is_ok() {
            c.apply("one", Value::Null).unwrap();
            // Lists may have another order: a configuration orders what it shares.
            let place = place::Place::root(&c.schema);
            let (old, new) = (before.0.unwrap(), c.object.clone().unwrap());
            let set = |v: &Value| walk::fields_of(place, v).unwrap().leaves();
            prop_assert_eq!(set(&old).difference(&set(&new)), FieldSet::default());
            prop_assert!(c.entry("one").is_none());
        }
    }

    /// Appliers of different fields may come in any order.
    #[test]
    fn disjoint_appliers_commute(a in specs(), b in specs()) {
        let keep = |v: &Value, names: &[&str]| -> Value {
            let object = v.as_object().unwrap().clone();
            Value::Object(object.into_iter().filter(|(k, _)| names.contains(&k.as_str())).collect())
        };
        let a = keep(&a, &["replicas", "items", "map"]);
        let b = keep(&b, &["list", "set", "ports", "atom", "free"]);
        let (mut x, mut y) = (Cluster::toy(), Cluster::toy());
        x.apply("a", a.clone()).unwrap();
        x.apply("b", b.clone()).unwrap();
        y.apply("b", b).unwrap();
        y.apply("a", a).unwrap();
        prop_assert_eq!(&x.object, &y.object);
        prop_assert_eq!((x.owns("a"), x.owns("b")), (y.owns("a"), y.owns("b")));
    }

    /// After any update every field that is there belongs to somebody, and nobody owns one that is not.
    #[test]
    fn everything_is_owned(versions in proptest::collection::vec((specs(), "[ab]"), 1..5)) {
        let mut c = Cluster::toy();
        for (spec, who) in versions {
            c.update(&who, spec);
        }
        let place = place::Place::root(&c.schema);
        let there = walk::fields_of(place, c.object.as_ref().unwrap()).unwrap();
        let entries = c.managed.iter().filter_map(Value::as_array).flatten();
        let owned = entries.fold(FieldSet::default(), |all, e| {
            all.union(&FieldSet::from_fields_v1(&e["fieldsV1"]).unwrap())
        });
        let missing = there.leaves().difference(&config::NEVER_OWNED).difference(&owned);
        prop_assert!(missing.is_empty(), "{:?}", missing);
    }
}
