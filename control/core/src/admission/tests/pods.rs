//! Classes and accounts of pods, claims and Ingresses.

use serde_json::{Value, json};

use super::super::classes::{
    Marked, choose, claim_class, default_ingress_class, default_storage_class, give, has_ingress_class,
};
use super::super::priority::{self, Class};
use super::super::{runtime_class, service_account};

fn pod(spec: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": spec})
}

#[test]
fn priorities_come_from_classes() {
    let gold = Class::of(&json!({"metadata": {"name": "gold"}, "value": 7, "preemptionPolicy": "Never"}));
    let none = Class::default_of([]);
    let cases: [(&Class, Value, Result<Value, &str>); 6] = [
        (&none, json!({}), Ok(json!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority"}))),
        (&none, json!({"priority": 0}), Ok(json!({"priority": 0, "preemptionPolicy": "PreemptLowerPriority"}))),
        (&gold, json!({}), Ok(json!({"priority": 7, "preemptionPolicy": "Never", "priorityClassName": "gold"}))),
        (
            &gold,
            json!({"priority": 7, "preemptionPolicy": "Never"}),
            Ok(json!({"priority": 7, "preemptionPolicy": "Never", "priorityClassName": "gold"})),
        ),
        (
            &gold,
            json!({"priority": 8}),
            Err("the integer value of priority (8) must not be provided in pod spec; priority admission controller \
                 computed 7 from the given PriorityClass name"),
        ),
        (
            &gold,
            json!({"preemptionPolicy": "PreemptLowerPriority"}),
            Err("the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided in pod spec; \
                 priority admission controller computed Never from the given PriorityClass name"),
        ),
    ];
    for (class, spec, want) in cases {
        let mut p = pod(spec.clone());
        let got = priority::resolve(&mut p, class).map(|()| p["spec"].clone());
        assert_eq!(got, want.map_err(String::from), "{spec}");
    }
}

#[test]
fn one_class_is_the_default_and_updates_keep_priorities() {
    let class = |name: &str, value: i64| json!({"metadata": {"name": name}, "value": value, "globalDefault": true});
    let defaults = [class("b", 9), class("a", 3)].map(|c| Class::of_default(&c).unwrap());
    let default = Class::default_of(defaults);
    assert_eq!((default.name.as_str(), default.value), ("a", 3));
    assert_eq!(Class::of_default(&json!({"value": 1})), None);
    let why = "PriorityClass a is already marked as default. Only one default can exist";
    for (class, want) in
        [(class("b", 1), Err(why.to_string())), (class("a", 1), Ok(())), (json!({"metadata": {"name": "b"}}), Ok(()))]
    {
        assert_eq!(priority::check_class(&class, &default), want, "{class}");
    }
    assert_eq!(priority::check_class(&class("b", 1), &Class::default_of([])), Ok(()));
    let mut new = pod(json!({"preemptionPolicy": "Never"}));
    priority::carry(&mut new, &pod(json!({"priority": 3, "preemptionPolicy": "PreemptLowerPriority"})));
    assert_eq!(new["spec"], json!({"priority": 3, "preemptionPolicy": "Never"}));
}

#[test]
fn runtime_classes_are_merged() {
    let class = json!({
        "overhead": {"podFixed": {"cpu": "100m"}},
        "scheduling": {"nodeSelector": {"wasm": "yes"}, "tolerations": [
            {"key": "wasm", "operator": "Exists", "effect": "NoExecute"},
        ]},
    });
    let bare = json!({"handler": "h"});
    let own = json!({"key": "wasm", "operator": "Equal", "value": "x", "effect": "NoExecute", "tolerationSeconds": 9});
    let other = json!({"key": "a", "operator": "Exists"});
    let merged = json!({"overhead": {"cpu": "100m"}, "nodeSelector": {"wasm": "yes", "a": "b"},
        "tolerations": [other, {"key": "wasm", "operator": "Exists", "effect": "NoExecute"}]});
    let no_match = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
    let no_class = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
    let conflict = "conflict: runtimeClass.scheduling.nodeSelector[wasm] = yes; pod.spec.nodeSelector[wasm] = no";
    let cases: [(Option<&Value>, Value, Result<Value, &str>); 7] = [
        (None, json!({}), Ok(json!({}))),
        (None, json!({"overhead": {"cpu": "1"}}), Err(no_class)),
        (Some(&bare), json!({"overhead": {"cpu": "1"}}), Err(no_class)),
        (Some(&bare), json!({"nodeSelector": {"a": "b"}}), Ok(json!({"nodeSelector": {"a": "b"}}))),
        (Some(&class), json!({"overhead": {"cpu": "0.2"}}), Err(no_match)),
        (Some(&class), json!({"nodeSelector": {"wasm": "no"}}), Err(conflict)),
        (
            Some(&class),
            json!({"overhead": {"cpu": "0.1"}, "nodeSelector": {"a": "b"}, "tolerations": [own, other]}),
            Ok(merged),
        ),
    ];
    for (class, spec, want) in cases {
        let mut p = pod(spec.clone());
        let got = runtime_class::merge(&mut p, class).map(|()| p["spec"].clone());
        assert_eq!(got, want.map_err(String::from), "{spec}");
    }
}

#[test]
fn accounts_give_pull_secrets_and_keep_from_others() {
    let account = json!({"metadata": {"name": "robot"}, "imagePullSecrets": [{"name": "pull"}]});
    let mut p = pod(json!({}));
    service_account::apply(&mut p, &account).unwrap();
    assert_eq!(p["spec"]["imagePullSecrets"], json!([{"name": "pull"}]));
    let mut own = pod(json!({"imagePullSecrets": [{"name": "mine"}]}));
    service_account::apply(&mut own, &account).unwrap();
    assert_eq!(own["spec"]["imagePullSecrets"], json!([{"name": "mine"}]));
    for (spec, want) in [
        (json!({}), "default"),
        (json!({"serviceAccount": "old"}), "old"),
        (json!({"serviceAccountName": "new", "serviceAccount": "old"}), "new"),
    ] {
        let mut p = pod(spec);
        assert_eq!(service_account::name(&mut p), want);
        assert_eq!(p["spec"], json!({"serviceAccountName": want, "serviceAccount": want}));
    }

    let strict = json!({"metadata": {"name": "robot", "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}},
        "secrets": [{"name": "own"}]});
    let env = |secret: &str| json!({"containers": [{"name": "c", "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": secret}}}]}]});
    for (spec, want) in [
        (env("own"), None),
        (json!({"volumes": [{"secret": {"secretName": "own"}}, {"emptyDir": {}}]}), None),
        (
            env("x"),
            Some(
                "container c with envVar E referencing secret.secretName=\"x\" is not allowed because service account \
                  robot does not reference that secret",
            ),
        ),
        (
            json!({"volumes": [{"secret": {"secretName": "x"}}]}),
            Some(
                "volume with secret.secretName=\"x\" is not allowed because service account robot does not reference \
                  that secret",
            ),
        ),
        (
            json!({"imagePullSecrets": [{"name": "x"}]}),
            Some(
                "imagePullSecrets[0].name=\"x\" is not allowed because service account robot does not reference that \
                  imagePullSecret",
            ),
        ),
    ] {
        let got = service_account::apply(&mut pod(spec.clone()), &strict);
        assert_eq!(got.err().as_deref(), want, "{spec}");
    }
}

#[test]
fn the_newest_default_class_is_taken() {
    let class = |name: &str, created: &str, mark: &str| json!({"metadata": {"name": name, "creationTimestamp": created, "annotations": {mark: "true"}}});
    let storage = "storageclass.kubernetes.io/is-default-class";
    let ingress = "ingressclass.kubernetes.io/is-default-class";
    let old = class("old", "2026-01-01T00:00:00Z", storage);
    let new = |name: &str| class(name, "2026-02-01T00:00:00Z", storage);
    let marked = |classes: &[Value]| -> Vec<Marked> { classes.iter().filter_map(default_storage_class).collect() };
    assert_eq!(choose(marked(&[old.clone(), new("b"), new("a")])).as_deref(), Some("a"));
    assert_eq!(choose(marked(&[json!({"metadata": {"name": "plain"}})])), None);
    assert_eq!(default_ingress_class(&old), None);
    assert!(default_ingress_class(&class("i", "", ingress)).is_some());

    let annotated = json!({"metadata": {"annotations": {"volume.beta.kubernetes.io/storage-class": "x"}}});
    for (claim, want) in [
        (json!({"spec": {}}), None),
        (json!({"spec": {"storageClassName": ""}}), Some("")),
        (json!({"spec": {"storageClassName": "y"}}), Some("y")),
        (annotated, Some("x")),
    ] {
        assert_eq!(claim_class(&claim), want);
    }
    let annotated = json!({"metadata": {"annotations": {"kubernetes.io/ingress.class": "x"}}});
    for (ingress, want) in
        [(json!({"spec": {}}), false), (json!({"spec": {"ingressClassName": "y"}}), true), (annotated, true)]
    {
        assert_eq!(has_ingress_class(&ingress), want);
    }
    let mut claim = json!({});
    give(&mut claim, "storageClassName", "gold");
    assert_eq!(claim, json!({"spec": {"storageClassName": "gold"}}));
}
