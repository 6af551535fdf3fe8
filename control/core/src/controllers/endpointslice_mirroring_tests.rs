use std::fmt::Write;

use copepod_api::names::{LABEL_MANAGED_BY, LABEL_SERVICE_NAME};
use serde_json::json;

use super::super::Action;
use super::super::testing::*;
use super::*;

fn custom(metadata: &str, subsets: &str) -> Endpoints {
    yaml(&format!("metadata: {{name: db, namespace: shop, uid: e1, {metadata}}}\nsubsets: {subsets}"))
}

fn service(spec: &str) -> Service {
    yaml(&format!("metadata: {{name: db, namespace: shop, uid: s1}}\nspec: {{{spec}}}"))
}

fn decide(endpoints: &Endpoints, slices: &[Arc<EndpointSlice>]) -> Plan {
    reconcile("shop", Some(endpoints), Some(&service("")), slices)
}

/// The slices that a plan makes.
fn made(plan: &Plan) -> Vec<Arc<EndpointSlice>> {
    let slice = |(n, action): (usize, &Action)| {
        let Action::Create { object, .. } = action else { panic!("{action:?}") };
        let mut slice: EndpointSlice = serde_json::from_value(object.clone()).unwrap();
        slice.metadata.name = Some(format!("db-{n}"));
        slice.metadata.uid = Some(format!("uid-{n}"));
        Arc::new(slice)
    };
    plan.actions.iter().enumerate().map(slice).collect()
}

const SUBSETS: &str = "[{addresses: [{ip: 192.0.2.1, hostname: a, nodeName: n1}, {ip: '2001:DB8::1'}], \
    notReadyAddresses: [{ip: 192.0.2.2}], ports: [{name: sql, port: 5432}]}]";

#[test]
fn each_family_and_each_set_of_ports_has_a_slice() {
    let metadata = "labels: {team: a}, annotations: {note: b, kubectl.kubernetes.io/last-applied-configuration: c}";
    let endpoints = custom(metadata, SUBSETS);
    let plan = decide(&endpoints, &[]);
    let slices = made(&plan);
    let shown: Vec<_> = slices
        .iter()
        .map(|s| {
            let endpoints = s.endpoints.iter().flatten();
            let states = endpoints.map(|e| (e.addresses.concat(), e.conditions.as_ref().unwrap().ready.unwrap()));
            (s.address_type.as_str(), states.collect::<Vec<_>>())
        })
        .collect();
    let v4 = vec![("192.0.2.1".to_string(), true), ("192.0.2.2".into(), false)];
    assert_eq!(shown, [("IPv4", v4), ("IPv6", vec![("2001:db8::1".into(), true)])]);
    let Action::Create { object, .. } = &plan.actions[0] else { panic!() };
    assert_eq!(object["ports"], json!([{"name": "sql", "port": 5432, "protocol": "TCP"}]));
    assert_eq!((&object["endpoints"][0]["hostname"], &object["endpoints"][0]["nodeName"]), (&json!("a"), &json!("n1")));
    let meta = &object["metadata"];
    assert_eq!(meta["labels"], json!({"team": "a", LABEL_SERVICE_NAME: "db", LABEL_MANAGED_BY: MANAGER}));
    assert_eq!((&meta["annotations"], &meta["generateName"]), (&json!({"note": "b"}), &json!("db-")));
    assert_eq!(
        (&meta["ownerReferences"][0]["kind"], &meta["ownerReferences"][0]["uid"]),
        (&json!("Endpoints"), &json!("e1"))
    );

    // What is in sync is left; what changes is changed in place, labels too.
    assert!(decide(&endpoints, &slices).is_empty());
    let plan = decide(&custom(metadata, &SUBSETS.replace("192.0.2.2", "192.0.2.3")), &slices);
    let [Action::Patch { patch, .. }] = plan.actions.as_slice() else { panic!("{plan:?}") };
    assert_eq!(patch["endpoints"][1]["addresses"], json!(["192.0.2.3"]));
    assert_eq!(decide(&custom("labels: {team: b}", SUBSETS), &slices).actions.len(), 2);
    // Other ports take over the slices of the old ones.
    let plan = decide(&custom(metadata, &SUBSETS.replace("5432", "5433")), &slices);
    let patched: Vec<_> = plan.actions.iter().map(|a| matches!(a, Action::Patch { .. })).collect();
    assert_eq!(patched, [true, true], "{plan:?}");
    // One family goes.
    let plan =
        decide(&custom(metadata, "[{addresses: [{ip: '2001:db8::1'}], ports: [{name: sql, port: 5432}]}]"), &slices);
    assert!(matches!(plan.actions.as_slice(), [Action::Delete { .. }]), "{plan:?}");
}

#[test]
fn what_is_not_mirrored_loses_its_slices() {
    let plain = custom("", SUBSETS);
    let slices = made(&decide(&plain, &[]));
    let lock = custom("annotations: {control-plane.alpha.kubernetes.io/leader: '{}'}", SUBSETS);
    let skip = custom("labels: {endpointslice.kubernetes.io/skip-mirror: 'true'}", SUBSETS);
    let no_skip = custom("labels: {endpointslice.kubernetes.io/skip-mirror: 'false'}", SUBSETS);
    let without = service("");
    let (selecting, external) = (service("selector: {a: b}"), service("type: ExternalName, externalName: x.example"));
    // (case, Endpoints, Service, mirrored)
    let cases = [
        ("no selector", Some(&plain), Some(&without), true),
        ("an empty selector", Some(&plain), Some(&service("selector: {}")), true),
        ("a name outside", Some(&plain), Some(&external), true),
        ("not skipped", Some(&no_skip), Some(&without), true),
        ("skipped", Some(&skip), Some(&without), false),
        ("a lock", Some(&lock), Some(&without), false),
        ("a selector", Some(&plain), Some(&selecting), false),
        ("no Service", Some(&plain), None, false),
        ("no Endpoints", None, Some(&without), false),
    ];
    for (name, endpoints, service, mirrored) in cases {
        let plan = reconcile("shop", endpoints, service, &[]);
        assert_eq!(plan.actions.len(), if mirrored { 2 } else { 0 }, "{name}");
        let plan = reconcile("shop", endpoints, service, &slices);
        let deletes = plan.actions.iter().filter(|a| matches!(a, Action::Delete { .. })).count();
        assert_eq!(deletes, if mirrored { 0 } else { 2 }, "{name}");
    }
    // Others' slices stay.
    let mut foreign = (*slices[0]).clone();
    foreign.metadata.labels.as_mut().unwrap().insert(LABEL_MANAGED_BY.into(), "me".into());
    assert!(reconcile("shop", None, Some(&without), &[Arc::new(foreign)]).is_empty());
}

#[test]
fn what_cannot_be_mirrored_is_told_once() {
    let mut addresses = String::new();
    for n in 0..1010 {
        write!(addresses, "{{ip: 198.51.{}.{}}},", n / 250, n % 250 + 1).unwrap();
    }
    let endpoints = custom("", &format!("[{{addresses: [{{ip: nowhere}}, {addresses}], ports: [{{port: 1}}]}}]"));
    let plan = decide(&endpoints, &[]);
    let slices = made(&plan);
    assert_eq!((slices.len(), slices[0].endpoints.as_ref().unwrap().len()), (1, MAX_ADDRESSES));
    let said: Vec<_> = plan.notes.iter().map(|n| (n.reason, n.message.as_str())).collect();
    assert_eq!(
        said,
        [
            ("InvalidIPAddress", "Skipped 1 invalid IP addresses when mirroring to EndpointSlices"),
            (
                "TooManyAddressesToMirror",
                "A max of 1000 addresses can be mirrored to EndpointSlices per Endpoints subset. 10 addresses were skipped"
            ),
        ]
    );
    let again = decide(&endpoints, &slices);
    assert!(again.is_empty() && again.notes.is_empty(), "{again:?}");
    // The same address twice is one endpoint.
    let twice = custom("", "[{addresses: [{ip: 192.0.2.1}, {ip: 192.0.2.1}], ports: [{port: 1}]}]");
    assert_eq!(made(&decide(&twice, &[]))[0].endpoints.as_ref().unwrap().len(), 1);
}
