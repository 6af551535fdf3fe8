use super::*;
use serde_json::json;

fn service(extra: serde_json::Value) -> Service {
    let mut spec = json!({"clusterIP": "10.43.0.9", "ports": [{"name": "web", "port": 80, "nodePort": 30080}]});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n"}, "spec": spec})).unwrap()
}
fn slice(endpoints: serde_json::Value) -> EndpointSlice {
    serde_json::from_value(json!({
        "metadata": {"name": "s-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4", "ports": [{"name": "web", "port": 8080}], "endpoints": endpoints,
    }))
    .unwrap()
}
fn table(extra: serde_json::Value, endpoints: serde_json::Value, before: &ServiceTable) -> ServiceTable {
    ServiceTable::build(&here(), [&service(extra)], [&slice(endpoints)], before)
}
fn here() -> Locality {
    Locality { node: "n1".into(), zone: "west".into() }
}
fn vip() -> SocketAddr {
    "10.43.0.9:80".parse().unwrap()
}
fn client(n: u8) -> IpAddr {
    IpAddr::from([10, 64, 0, n])
}
fn shown(p: &ServicePort) -> Vec<String> {
    p.endpoints.iter().map(ToString::to_string).collect()
}

#[test]
fn only_ready_endpoints_then_serving_ones_that_leave() {
    let ready = json!({"addresses": ["10.64.0.2"]});
    let unready = json!({"addresses": ["10.64.0.3"], "conditions": {"ready": false}});
    let leaving =
        json!({"addresses": ["10.64.0.4"], "conditions": {"ready": false, "serving": true, "terminating": true}});
    let cases = [
        (json!([ready, unready, leaving]), vec!["10.64.0.2:8080"]),
        (json!([unready, leaving]), vec!["10.64.0.4:8080"]),
        (json!([unready]), vec![]),
    ];
    for (endpoints, expected) in cases {
        let t = table(json!({}), endpoints, &ServiceTable::default());
        assert_eq!(shown(t.at(vip(), Protocol::Tcp).unwrap()), expected);
    }
}

#[test]
fn turns_go_round_and_survive_a_rebuild() {
    let both = json!([{"addresses": ["10.64.0.2"]}, {"addresses": ["10.64.0.3"]}]);
    let one = table(json!({}), both.clone(), &ServiceTable::default());
    let first =
        |t: &ServiceTable| t.at(vip(), Protocol::Tcp).unwrap().candidates(client(9)).next().unwrap().to_string();
    assert_eq!(
        (first(&one), first(&one), first(&one)),
        ("10.64.0.2:8080".into(), "10.64.0.3:8080".into(), "10.64.0.2:8080".into())
    );
    let two = table(json!({}), both, &one);
    assert_eq!(first(&two), "10.64.0.3:8080");
    assert_eq!(two.at(vip(), Protocol::Tcp).unwrap().candidates(client(9)).count(), 2);
}

#[test]
fn affinity_keeps_a_client_until_its_endpoint_goes() {
    let all: Vec<_> = (2..10).map(|n| json!({"addresses": [format!("10.64.0.{n}")]})).collect();
    let t = table(json!({"sessionAffinity": "ClientIP"}), json!(all), &ServiceTable::default());
    let port = t.at(vip(), Protocol::Tcp).unwrap();
    let mine = port.candidates(client(1)).next().unwrap();
    assert!((0..10).all(|_| port.candidates(client(1)).next().unwrap() == mine));
    let others: std::collections::HashSet<_> = (1..40).map(|n| port.candidates(client(n)).next().unwrap()).collect();
    assert!(others.len() > 2, "clients spread");
    let last = all.iter().filter(|e| !mine.to_string().starts_with(e["addresses"][0].as_str().unwrap()));
    let fewer = json!(last.take(7).collect::<Vec<_>>());
    let t2 = table(json!({"sessionAffinity": "ClientIP"}), fewer, &t);
    assert_ne!(t2.at(vip(), Protocol::Tcp).unwrap().candidates(client(1)).next().unwrap(), mine);
}

#[test]
fn addresses_ports_and_types() {
    let ep = json!([{"addresses": ["10.64.0.2"]}]);
    let t = table(json!({}), ep.clone(), &ServiceTable::default());
    assert!(t.at("10.43.0.9:81".parse().unwrap(), Protocol::Tcp).is_none());
    assert!(t.at(vip(), Protocol::Udp).is_none());
    assert!(t.is_service_ip(vip().ip()) && !t.is_service_ip(client(2)));
    assert_eq!(t.node_ports().len(), 1);
    assert_eq!(t.at_node_port(Protocol::Tcp, 30080, Side::Outside).unwrap().service, "s");
    let headless = table(json!({"clusterIP": "None", "ports": [{"port": 80}]}), ep.clone(), &ServiceTable::default());
    assert!(headless.node_ports().is_empty() && !headless.is_service_ip(vip().ip()));
    let external = table(json!({"type": "ExternalName"}), ep, &ServiceTable::default());
    assert!(external.at(vip(), Protocol::Tcp).is_none());
}

/// An endpoint `10.64.0.N` on a node, hinted for zones and nodes (separated by blanks), with more.
fn hinted(n: u8, node: &str, zones: &str, nodes: &str, conditions: serde_json::Value) -> serde_json::Value {
    let names = |all: &str| json!(all.split_whitespace().map(|name| json!({"name": name})).collect::<Vec<_>>());
    json!({
        "addresses": [format!("10.64.0.{n}")], "nodeName": node, "conditions": conditions,
        "hints": {"forZones": names(zones), "forNodes": names(nodes)},
    })
}

#[test]
fn hints_count_when_every_ready_endpoint_has_one_and_one_is_for_us() {
    let ready = json!({"ready": true});
    let unready = json!({"ready": false});
    let leaving = json!({"ready": false, "serving": true, "terminating": true});
    let near = |n| hinted(n, "n1", "west", "", ready.clone());
    let far = |n| hinted(n, "n2", "east", "", ready.clone());
    let bare = |n| json!({"addresses": [format!("10.64.0.{n}")], "nodeName": "n2"});
    let on = |n, node: &str, zone: &str| hinted(n, node, zone, node, ready.clone());
    let cases: [(&str, serde_json::Value, &[u8]); 15] = [
        ("no hints", json!([bare(2), bare(3)]), &[2, 3]),
        ("one for our zone", json!([near(2), far(3)]), &[2]),
        ("two for our zone", json!([near(2), far(3), near(4)]), &[2, 4]),
        ("for several zones", json!([hinted(2, "n3", "north west", "", ready.clone()), far(3)]), &[2]),
        ("one without a hint", json!([near(2), far(3), bare(4)]), &[2, 3, 4]),
        ("none for our zone", json!([far(2), far(3)]), &[2, 3]),
        ("one that is not ready has none", json!([near(2), far(3), hinted(4, "n1", "", "", unready.clone())]), &[2]),
        ("the one for our zone is not ready", json!([hinted(2, "n1", "west", "", unready.clone()), far(3)]), &[3]),
        (
            "none is ready: those that leave, whatever their hints",
            json!([hinted(2, "n1", "west", "", leaving.clone()), hinted(3, "n2", "east", "", leaving.clone())]),
            &[2, 3],
        ),
        ("one in our zone leaves", json!([hinted(2, "n1", "west", "", leaving.clone()), near(4), far(3)]), &[4]),
        ("for our node", json!([on(2, "n1", "west"), on(3, "n3", "west"), on(4, "n2", "east")]), &[2]),
        ("for our node alone, no zones", json!([on(2, "n1", ""), on(3, "n2", "")]), &[2]),
        ("none for our node: our zone", json!([on(3, "n3", "west"), on(4, "n2", "east")]), &[3]),
        ("not all are for nodes: our zone", json!([on(2, "n1", "west"), near(3), far(4)]), &[2, 3]),
        ("neither our node nor our zone", json!([on(3, "n4", "east"), on(4, "n2", "east")]), &[3, 4]),
    ];
    for (name, endpoints, expected) in cases {
        let t = table(json!({}), endpoints.clone(), &ServiceTable::default());
        let expected: Vec<String> = expected.iter().map(|n| format!("10.64.0.{n}:8080")).collect();
        assert_eq!(shown(t.at(vip(), Protocol::Tcp).unwrap()), expected, "{name}");
        for side in [Side::Inside, Side::Outside] {
            assert_eq!(shown(t.at_node_port(Protocol::Tcp, 30080, side).unwrap()), expected, "{name} {side:?}");
        }
    }
}

#[test]
fn a_node_without_a_zone_takes_no_notice_of_zones() {
    let endpoints = json!([hinted(2, "n1", "west", "", json!({})), hinted(3, "n2", "east", "", json!({}))]);
    for (zone, expected) in [("", 2), ("north", 2), ("east", 1)] {
        let here = Locality { node: "n1".into(), zone: zone.into() };
        let (service, slice) = (service(json!({})), slice(endpoints.clone()));
        let t = ServiceTable::build(&here, [&service], [&slice], &ServiceTable::default());
        assert_eq!(t.at(vip(), Protocol::Tcp).unwrap().endpoints.len(), expected, "{zone:?}");
    }
}

#[test]
fn hints_are_weighed_over_all_slices_of_a_service() {
    let (service, near) = (service(json!({})), slice(json!([hinted(2, "n1", "west", "", json!({}))])));
    let mut bare = slice(json!([{"addresses": ["10.64.0.3"]}]));
    bare.metadata.name = Some("s-2".into());
    let t = ServiceTable::build(&here(), [&service], [&near, &bare], &ServiceTable::default());
    assert_eq!(t.at(vip(), Protocol::Tcp).unwrap().endpoints.len(), 2);
}

#[test]
fn local_policies_keep_to_the_node_and_win_over_hints() {
    let ready = json!({"ready": true});
    let leaving = json!({"ready": false, "serving": true, "terminating": true});
    let far = hinted(3, "n2", "west", "n2", ready.clone());
    let here = hinted(2, "n1", "east", "n2", ready);
    let left = hinted(4, "n1", "west", "n1", leaving);
    let (both, far, left) = (json!([here, far]), json!([far]), json!([far, left]));
    let external = "203.0.113.9:80".parse().unwrap();
    // (policies, endpoints, at the cluster IP, at the node's port from inside and from outside)
    type Case<'a> = (&'a str, &'a str, &'a serde_json::Value, &'a [u8], &'a [u8], &'a [u8]);
    let cases: [Case<'_>; 7] = [
        ("Cluster", "Cluster", &both, &[3], &[3], &[3]),
        ("Local", "Cluster", &both, &[2], &[3], &[3]),
        ("Cluster", "Local", &both, &[3], &[3], &[2]),
        ("Local", "Local", &both, &[2], &[3], &[2]),
        ("Local", "Local", &far, &[], &[3], &[]),
        ("Local", "Local", &left, &[4], &[3], &[4]),
        ("Cluster", "Cluster", &left, &[3], &[3], &[3]),
    ];
    for (internal, outer, endpoints, at_ip, inside, outside) in cases {
        let policies = json!({
            "internalTrafficPolicy": internal, "externalTrafficPolicy": outer, "externalIPs": ["203.0.113.9"],
        });
        let t = table(policies, endpoints.clone(), &ServiceTable::default());
        let list = |ns: &[u8]| ns.iter().map(|n| format!("10.64.0.{n}:8080")).collect::<Vec<_>>();
        let got = |side| shown(t.at_node_port(Protocol::Tcp, 30080, side).unwrap());
        let name = format!("{internal} {outer} {endpoints}");
        assert_eq!(shown(t.at(vip(), Protocol::Tcp).unwrap()), list(at_ip), "{name}");
        assert_eq!((got(Side::Inside), got(Side::Outside)), (list(inside), list(outside)), "{name}");
        assert_eq!(shown(t.at(external, Protocol::Tcp).unwrap()), list(inside), "{name}: pods at an external address");
        assert_eq!(t.node_ports().len(), 1);
    }
}
