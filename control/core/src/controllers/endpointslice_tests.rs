use copepod_api::names::{LABEL_MANAGED_BY, LABEL_SERVICE_NAME};
use serde_json::{Value, json};

use super::super::Action;
use super::super::testing::*;
use super::*;

/// Decides where all nodes are there and in no zone.
fn reconcile(service: &Service, pods: &[Arc<Pod>], slices: &[Arc<EndpointSlice>]) -> Plan {
    super::reconcile(service, pods, slices, &|_| Some(String::new()))
}

fn service(extra: &str) -> Service {
    yaml(&format!(
        "metadata: {{name: web, namespace: shop, uid: s1, labels: {{team: a}}}}\n\
         spec: {{clusterIP: 10.43.0.9, selector: {{app: web}}, ports: [{{name: http, port: 80, targetPort: http}}]{extra}}}"
    ))
}

fn backend(name: &str, ip: &str, ready: bool, extra: &str) -> Arc<Pod> {
    let mut pod = pod_yaml(name, &format!("labels: {{app: web}}{extra}"));
    pod.spec = Some(yaml(
        "{nodeName: n1, hostname: h, subdomain: web, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}",
    ));
    let mut status = pod_status("Running", ready.then_some(-5));
    status.pod_ip = (!ip.is_empty()).then(|| ip.into());
    pod.status = Some(status);
    Arc::new(pod)
}

/// The endpoints of a slice that a plan writes.
fn endpoints_of(action: &Action) -> Option<&Value> {
    match action {
        Action::Create { object, .. } => object.get("endpoints"),
        Action::Patch { patch, .. } => patch.get("endpoints"),
        Action::Delete { .. } => None,
    }
}

/// The slice that a create action makes.
fn made(action: &Action, name: &str) -> Arc<EndpointSlice> {
    let Action::Create { object, .. } = action else { panic!("{action:?}") };
    let mut slice: EndpointSlice = serde_json::from_value(object.clone()).unwrap();
    slice.metadata.name = Some(name.into());
    slice.metadata.uid = Some(format!("uid-{name}"));
    Arc::new(slice)
}

#[test]
fn endpoint_states() {
    let gone = ", deletionTimestamp: '2026-01-01T00:00:00Z'";
    // (case, service, pod, (ready, serving, terminating) if it is an endpoint)
    let cases = [
        ("ready", "", backend("a", "10.64.0.1", true, ""), Some((true, true, false))),
        ("not ready", "", backend("a", "10.64.0.1", false, ""), Some((false, false, false))),
        (
            "published anyway",
            ", publishNotReadyAddresses: true",
            backend("a", "10.64.0.1", false, ""),
            Some((true, false, false)),
        ),
        ("terminating", "", backend("a", "10.64.0.1", true, gone), Some((false, true, true))),
        ("no address", "", backend("a", "", true, ""), None),
    ];
    for (name, extra, pod, expected) in cases {
        let plan = reconcile(&service(extra), &[pod], &[]);
        assert_eq!(plan.actions.len(), 1, "{name}");
        let Action::Create { object, .. } = &plan.actions[0] else { panic!() };
        let endpoint = &object["endpoints"][0];
        match expected {
            None => assert!(endpoint.is_null(), "{name}"),
            Some((ready, serving, terminating)) => {
                assert_eq!(
                    endpoint["conditions"],
                    json!({"ready": ready, "serving": serving, "terminating": terminating}),
                    "{name}"
                );
                assert_eq!(
                    (&endpoint["nodeName"], &endpoint["hostname"], &endpoint["targetRef"]["uid"]),
                    (&json!("n1"), &json!("h"), &json!("uid-a"))
                );
                assert_eq!(object["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
            }
        }
        assert_eq!(
            object["metadata"]["labels"],
            json!({"team": "a", LABEL_SERVICE_NAME: "web", LABEL_MANAGED_BY: MANAGER})
        );
    }
}

#[test]
fn endpoints_stay_in_their_slice_and_nothing_changes_nothing() {
    let pods = [backend("a", "10.64.0.1", true, ""), backend("b", "10.64.0.2", true, "")];
    let slice = made(&reconcile(&service(""), &pods, &[]).actions[0], "web-1");
    assert!(reconcile(&service(""), &pods, std::slice::from_ref(&slice)).is_empty());
    let plan = reconcile(&service(""), &pods[..1], std::slice::from_ref(&slice));
    let [Action::Patch { target, patch, .. }] = plan.actions.as_slice() else { panic!("{plan:?}") };
    assert_eq!((target.name.as_str(), patch["endpoints"].as_array().unwrap().len()), ("web-1", 1));
    // The last endpoint goes: the slice becomes the placeholder, and again a slice of endpoints.
    let plan = reconcile(&service(""), &[], std::slice::from_ref(&slice));
    let [Action::Patch { patch, .. }] = plan.actions.as_slice() else { panic!("{plan:?}") };
    assert_eq!((&patch["ports"], &patch["endpoints"]), (&json!([]), &json!([])));
    let placeholder = made(&reconcile(&service(""), &[], &[]).actions[0], "web-2");
    assert!(reconcile(&service(""), &[], std::slice::from_ref(&placeholder)).is_empty());
    let plan = reconcile(&service(""), &pods, &[placeholder]);
    assert!(matches!(plan.actions.as_slice(), [Action::Patch { .. }]), "{plan:?}");
    // The slices of an earlier Service of this name are not its own.
    let mut later = service("");
    later.metadata.uid = Some("s2".into());
    let plan = reconcile(&later, &pods, &[slice]);
    assert!(matches!(plan.actions.as_slice(), [Action::Create { .. }, Action::Delete { .. }]), "{plan:?}");
}

/// Pods `from..to`.
fn many(from: usize, to: usize) -> Vec<Arc<Pod>> {
    (from..to).map(|n| backend(&format!("p{n:04}"), &format!("10.64.{}.{}", n / 250, n % 250 + 1), true, "")).collect()
}

#[test]
fn many_endpoints_are_split() {
    let pods = many(0, 250);
    let plan = reconcile(&service(""), &pods, &[]);
    let sizes: Vec<_> = plan.actions.iter().map(|a| endpoints_of(a).unwrap().as_array().unwrap().len()).collect();
    assert_eq!(sizes, [100, 100, 50]);
    let slices: Vec<_> = plan.actions.iter().enumerate().map(|(n, a)| made(a, &format!("s{n}"))).collect();
    assert!(reconcile(&service(""), &pods, &slices).is_empty());
}

/// (case, the pods' numbers, the writes: `+` a new slice, `-` a slice that goes, with how many endpoints)
type Case<'a> = (&'a str, &'a [(usize, usize)], &'a [&'a str]);

#[test]
fn changes_touch_few_slices() {
    let slices: Vec<_> = [(0, 100), (100, 200), (200, 260), (300, 330)]
        .map(|(from, to)| made(&reconcile(&service(""), &many(from, to), &[]).actions[0], &format!("s{from}")))
        .into();
    let all = |ranges: &[(usize, usize)]| -> Vec<Arc<Pod>> {
        ranges.iter().flat_map(|(from, to)| many(*from, *to)).collect()
    };
    let cases: [Case<'_>; 6] = [
        ("a few more go where it is fullest", &[(0, 260), (300, 330), (400, 410)], &["s200:70"]),
        ("more than fit anywhere make a new one", &[(0, 260), (300, 330), (400, 480)], &["+80"]),
        ("some go, others come", &[(0, 50), (100, 260), (300, 330), (400, 420)], &["s0:70"]),
        ("an emptied slice is used again", &[(100, 260), (300, 330), (400, 420)], &["s0:20"]),
        ("an emptied slice goes", &[(100, 260), (300, 330)], &["-s0"]),
        ("those that change are filled first", &[(1, 260), (301, 330), (400, 490)], &["s0:100", "s300:100", "s200:78"]),
    ];
    for (name, ranges, expected) in cases {
        let plan = reconcile(&service(""), &all(ranges), &slices);
        let short = |action: &Action| {
            let len = endpoints_of(action).map_or(0, |e| e.as_array().unwrap().len());
            match action {
                Action::Create { .. } => format!("+{len}"),
                Action::Patch { target, .. } => format!("{}:{len}", target.name),
                Action::Delete { target, .. } => format!("-{}", target.name),
            }
        };
        assert_eq!(plan.actions.iter().map(short).collect::<Vec<_>>(), expected, "{name}");
    }
}

#[test]
fn zones_and_hints() {
    let zone_of = |node: &str| (node == "n1").then(|| "west".to_string());
    let zone = json!([{"name": "west"}]);
    // (trafficDistribution, ready, hints)
    let cases = [
        ("", true, json!(null)),
        (", trafficDistribution: PreferClose", true, json!({"forZones": zone})),
        (", trafficDistribution: PreferSameZone", true, json!({"forZones": zone})),
        (", trafficDistribution: PreferSameNode", true, json!({"forZones": zone, "forNodes": [{"name": "n1"}]})),
        (", trafficDistribution: PreferSameZone", false, json!(null)),
    ];
    for (extra, ready, hints) in cases {
        let plan = super::reconcile(&service(extra), &[backend("a", "10.64.0.1", ready, "")], &[], &zone_of);
        let Action::Create { object, .. } = &plan.actions[0] else { panic!() };
        let endpoint = &object["endpoints"][0];
        assert_eq!((&endpoint["zone"], &endpoint["hints"]), (&json!("west"), &hints), "{extra} {ready}");
    }
    // A node of no zone.
    let plan =
        reconcile(&service(", trafficDistribution: PreferSameNode"), &[backend("a", "10.64.0.1", true, "")], &[]);
    let Action::Create { object, .. } = &plan.actions[0] else { panic!() };
    assert_eq!(object["endpoints"][0]["zone"], json!(null));
    assert_eq!(object["endpoints"][0]["hints"], json!({"forNodes": [{"name": "n1"}]}));
    // A node that is not there: its pods do not answer, unless all addresses are published.
    for (extra, expected, again) in
        [("", json!([]), Some(NODE_WAIT)), (", publishNotReadyAddresses: true", json!(["10.64.0.1"]), None)]
    {
        let plan = super::reconcile(&service(extra), &[backend("a", "10.64.0.1", true, "")], &[], &|_| None);
        let endpoints = endpoints_of(&plan.actions[0]).unwrap();
        assert_eq!(endpoints.get(0).map_or(json!([]), |e| e["addresses"].clone()), expected);
        assert_eq!(plan.requeue_after, again);
    }
}

#[test]
fn each_family_has_its_slices() {
    let dual = ", ipFamilies: [IPv6, IPv4]";
    let mut pod = (*backend("a", "10.64.0.1", true, "")).clone();
    pod.status.as_mut().unwrap().pod_ips = Some(yaml("[{ip: 10.64.0.1}, {ip: 'fd00::1'}]"));
    let families = |plan: &Plan| -> Vec<String> {
        let mut found: Vec<String> = plan
            .actions
            .iter()
            .map(|a| match a {
                Action::Create { object, .. } => {
                    format!("{} {}", object["addressType"].as_str().unwrap(), object["endpoints"][0]["addresses"])
                }
                Action::Delete { target, .. } => format!("-{}", target.name),
                Action::Patch { target, .. } => target.name.clone(),
            })
            .collect();
        found.sort();
        found
    };
    let plan = reconcile(&service(dual), &[Arc::new(pod.clone())], &[]);
    assert_eq!(families(&plan), ["IPv4 [\"10.64.0.1\"]", "IPv6 [\"fd00::1\"]"]);
    // A pod of one family stands in that family's slice alone; the other's is empty.
    let one = reconcile(&service(dual), &[backend("b", "10.64.0.2", true, "")], &[]);
    assert_eq!(families(&one), ["IPv4 [\"10.64.0.2\"]", "IPv6 null"]);
    // The Service gives up a family.
    let slices: Vec<_> = plan.actions.iter().enumerate().map(|(n, a)| made(a, &format!("s{n}"))).collect();
    let plan = reconcile(&service(", ipFamilies: [IPv4]"), &[Arc::new(pod)], &slices);
    assert_eq!(families(&plan), ["-s1"]);
}

#[test]
fn left_alone() {
    let mut foreign = (*made(&reconcile(&service(""), &[], &[]).actions[0], "mine")).clone();
    foreign.metadata.labels.as_mut().unwrap().insert(LABEL_MANAGED_BY.into(), "someone".into());
    let plan = reconcile(&service(""), &[], &[Arc::new(foreign)]);
    assert!(matches!(plan.actions.as_slice(), [Action::Create { .. }]), "{plan:?}");
    let no_selector: Service = yaml("metadata: {name: kubernetes, namespace: default}\nspec: {clusterIP: 10.43.0.1}");
    assert!(reconcile(&no_selector, &[], &[]).is_empty());
    let external: Service =
        yaml("metadata: {name: e, namespace: d}\nspec: {type: ExternalName, externalName: x, selector: {a: b}}");
    assert!(reconcile(&external, &[], &[]).is_empty());
}

#[test]
fn headless_without_ports() {
    let service: Service =
        yaml("metadata: {name: web, namespace: shop, uid: s1}\nspec: {clusterIP: None, selector: {app: web}}");
    let plan = reconcile(&service, &[backend("a", "10.64.0.1", true, "")], &[]);
    let Action::Create { object, .. } = &plan.actions[0] else { panic!() };
    assert_eq!((&object["ports"], &object["endpoints"][0]["addresses"]), (&json!([]), &json!(["10.64.0.1"])));
    assert_eq!(object["metadata"]["labels"][LABEL_HEADLESS], json!(""));
}
