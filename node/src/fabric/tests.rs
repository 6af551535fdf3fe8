use super::*;
use crate::service_table::Locality;
use crate::sim::SimSandbox;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn ip(n: u8) -> IpAddr {
    IpAddr::from([10, 64, 0, n])
}
fn key(n: u8) -> PodKey {
    PodKey { namespace: "n".into(), name: format!("p{n}"), uid: format!("u{n}") }
}

/// A fabric with the pods 2 and 3 listening on 8080, and a Service of both.
fn setup(endpoints: &[u8]) -> Arc<Fabric> {
    let config = FabricConfig {
        api_server: ("127.0.0.1".into(), 1),
        node_ips: vec!["192.0.2.1".parse().unwrap()],
        virtual_ranges: vec!["10.64.0.0/20".parse().unwrap()],
    };
    let fabric = Fabric::new(config);
    for n in [2, 3] {
        fabric.attach(&key(n).uid, &[ip(n)], SimSandbox::echoing(8080, &format!("pod {n}: ")));
    }
    let service: Service = serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "n"},
        "spec": {"clusterIP": "10.43.0.9", "ports": [{"port": 80, "targetPort": 8080, "nodePort": 30080}]}}))
    .unwrap();
    let list: Vec<_> = endpoints.iter().map(|n| json!({"addresses": [ip(*n).to_string()]})).collect();
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": "web-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": list}))
    .unwrap();
    fabric.set_services(Arc::new(ServiceTable::build(
        &Locality::default(),
        [&service],
        [&slice],
        &ServiceTable::default(),
    )));
    fabric.set_records(Arc::new(Records::build("cluster.local", [&service], [&slice], &[])));
    fabric
}

async fn talk(endpoint: Endpoint) -> String {
    let Endpoint::Stream(mut stream) = endpoint else { panic!("a stream was expected") };
    stream.write_all(b"hi").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn ask(fabric: &Arc<Fabric>, to: &str) -> Result<String, NetError> {
    let uplink = fabric.uplink(&key(9), "p9", &[ip(9)]);
    let from = SocketAddr::new(ip(9), 40000);
    Ok(talk(uplink.connect(from, to.parse().unwrap()).await?).await)
}

#[tokio::test]
async fn pods_services_and_node_ports() {
    let fabric = setup(&[2, 3]);
    assert_eq!(ask(&fabric, "10.64.0.2:8080").await.unwrap(), "pod 2: hi");
    let by_service = [ask(&fabric, "10.43.0.9:80").await.unwrap(), ask(&fabric, "10.43.0.9:80").await.unwrap()];
    assert_eq!(by_service, ["pod 2: hi", "pod 3: hi"]);
    assert!(ask(&fabric, "192.0.2.1:30080").await.is_ok(), "the node's own port, without leaving the process");
    for refused in ["10.64.0.2:81", "10.43.0.9:81"] {
        assert_eq!(ask(&fabric, refused).await, Err(NetError::ConnectionRefused), "{refused}");
    }
}

#[tokio::test]
async fn a_gone_endpoint_is_passed_over_and_none_refuses() {
    let fabric = setup(&[2, 3]);
    fabric.attach("u2", &[ip(2)], SimSandbox::echoing(9999, ""));
    for _ in 0..4 {
        assert_eq!(ask(&fabric, "10.43.0.9:80").await.unwrap(), "pod 3: hi");
    }
    assert_eq!(ask(&setup(&[]), "10.43.0.9:80").await, Err(NetError::ConnectionRefused));
}

#[tokio::test]
async fn guests_reach_neither_the_hosts_loopback_nor_metadata() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fabric = setup(&[2]);
    let port = listener.local_addr().unwrap().port();
    for to in [format!("127.0.0.1:{port}"), format!("[::ffff:127.0.0.1]:{port}"), "169.254.169.254:80".into()] {
        assert!(matches!(ask(&fabric, &to).await, Err(NetError::AccessDenied(_))), "{to}");
    }
}

#[tokio::test]
async fn a_pods_address_without_a_pod_never_leaves_the_node() {
    let fabric = setup(&[2, 3]);
    assert_eq!(ask(&fabric, "10.64.0.77:8080").await, Err(NetError::Unreachable));
    fabric.detach("u2");
    assert_eq!(ask(&fabric, "10.64.0.2:8080").await, Err(NetError::Unreachable));
    for _ in 0..4 {
        assert_eq!(ask(&fabric, "10.43.0.9:80").await.unwrap(), "pod 3: hi");
    }
}

#[tokio::test]
async fn names_resolve_with_search_domains_and_own_name() {
    let fabric = setup(&[2]);
    let uplink = fabric.uplink(&key(9), "p9", &[ip(9)]);
    let vip: IpAddr = "10.43.0.9".parse().unwrap();
    for name in ["web", "web.n", "web.n.svc.cluster.local"] {
        assert_eq!(uplink.resolve(name).await, Ok(vec![vip]), "{name}");
    }
    assert_eq!(uplink.resolve("p9").await, Ok(vec![ip(9)]));
    assert_eq!(uplink.resolve("10.1.2.3").await, Ok(vec!["10.1.2.3".parse().unwrap()]));
    assert_eq!(uplink.resolve("none.n.svc.cluster.local").await, Err(NetError::NameUnresolvable));
}

#[tokio::test]
async fn the_api_service_leads_to_the_server() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = FabricConfig {
        api_server: ("127.0.0.1".into(), listener.local_addr().unwrap().port()),
        node_ips: vec![],
        virtual_ranges: vec![],
    };
    let fabric = Fabric::new(config);
    let service: Service = serde_json::from_value(json!({"metadata": {"name": "kubernetes", "namespace": "default"},
        "spec": {"clusterIP": "10.43.0.1", "ports": [{"name": "https", "port": 443}]}}))
    .unwrap();
    fabric.set_services(Arc::new(ServiceTable::build(&Locality::default(), [&service], [], &ServiceTable::default())));
    let uplink = fabric.uplink(&key(9), "p9", &[ip(9)]);
    let (connected, accepted) =
        tokio::join!(uplink.connect(SocketAddr::new(ip(9), 1), "10.43.0.1:443".parse().unwrap()), listener.accept());
    assert!(connected.is_ok() && accepted.is_ok());
}

#[tokio::test]
async fn a_guest_cannot_speak_as_another_pod() {
    let fabric = setup(&[2]);
    let sandbox = SimSandbox::echoing(8080, "");
    fabric.attach("u4", &[ip(4)], sandbox.clone());
    let uplink = fabric.uplink(&key(9), "p9", &[ip(9)]);
    uplink.connect(SocketAddr::new(ip(3), 5), SocketAddr::new(ip(4), 8080)).await.map(|_| ()).unwrap();
    assert_eq!(sandbox.last_peer(), Some(SocketAddr::new(ip(9), 5)));
}

#[tokio::test]
async fn names_outside_the_cluster_are_asked_for_at_a_rate() {
    let fabric = setup(&[2]);
    let asked = std::cell::Cell::new(0);
    for name in ["a.example", "b.example"] {
        let may_ask = || {
            asked.set(asked.get() + 1);
            false
        };
        assert_eq!(fabric.resolve("n", name, may_ask).await, Err(NetError::TemporaryResolverFailure), "{name}");
    }
    assert_eq!(asked.get(), 2);
    let never = || unreachable!("nobody outside knows it");
    assert_eq!(fabric.resolve("n", "none.n.svc.cluster.local", never).await, Err(NetError::NameUnresolvable));
}

#[tokio::test]
async fn a_local_policy_binds_clients_outside_the_cluster_alone() {
    let fabric = setup(&[2, 3]);
    let service: Service = serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "n"},
        "spec": {"clusterIP": "10.43.0.9", "externalTrafficPolicy": "Local",
            "ports": [{"port": 80, "targetPort": 8080, "nodePort": 30080}]}}))
    .unwrap();
    let at = |n: u8, node: &str| json!({"addresses": [ip(n).to_string()], "nodeName": node});
    let slice = |endpoints: serde_json::Value| -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {"name": "web-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": endpoints}))
        .unwrap()
    };
    let here = Locality { node: "n1".into(), zone: String::new() };
    let follow = |slice: EndpointSlice| {
        fabric.set_services(Arc::new(ServiceTable::build(&here, [&service], [&slice], &fabric.services())));
    };
    let outside = async |client: &str| -> Result<String, NetError> {
        Ok(talk(fabric.connect_node_port(client.parse().unwrap(), 30080).await?).await)
    };
    follow(slice(json!([at(2, "n2"), at(3, "n1")])));
    for _ in 0..3 {
        assert_eq!(outside("203.0.113.5:9").await.unwrap(), "pod 3: hi");
    }
    follow(slice(json!([at(2, "n2")])));
    assert_eq!(outside("203.0.113.5:9").await, Err(NetError::ConnectionRefused));
    for own in ["127.0.0.1:9", "[::ffff:127.0.0.1]:9", "192.0.2.1:9"] {
        assert_eq!(outside(own).await.unwrap(), "pod 2: hi", "{own}");
    }
    assert_eq!(ask(&fabric, "192.0.2.1:30080").await.unwrap(), "pod 2: hi");
}
