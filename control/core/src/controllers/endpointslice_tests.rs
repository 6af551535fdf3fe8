use super::super::testing::*;
use super::*;

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
    // The last endpoint goes: one placeholder without ports replaces the slice.
    let plan = reconcile(&service(""), &[], &[slice]);
    assert!(matches!(plan.actions.as_slice(), [Action::Create { .. }, Action::Delete { .. }]), "{plan:?}");
    let placeholder = made(&plan.actions[0], "web-2");
    assert!(reconcile(&service(""), &[], &[placeholder]).is_empty());
}

#[test]
fn many_endpoints_are_split() {
    let pods: Vec<_> =
        (0..2500).map(|n| backend(&format!("p{n}"), &format!("10.64.{}.{}", n / 250, n % 250 + 1), true, "")).collect();
    let plan = reconcile(&service(""), &pods, &[]);
    let sizes: Vec<_> = plan.actions.iter().map(|a| endpoints_of(a).unwrap().as_array().unwrap().len()).collect();
    assert_eq!(sizes, [1000, 1000, 500]);
    let slices: Vec<_> = plan.actions.iter().enumerate().map(|(n, a)| made(a, &format!("s{n}"))).collect();
    assert!(reconcile(&service(""), &pods, &slices).is_empty());
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
