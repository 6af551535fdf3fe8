//! The options of `copepod server`.

use copepod_tests::{Cluster, Ran, copepod, dns, http, toolbox_pod, wait_for};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use serde_json::Value;

#[test]
fn networks_names_and_ports_are_as_asked_for() {
    let cluster = Cluster::start_with(&[
        "--max-pods=2",
        "--cluster-cidr=10.128.0.0/16",
        "--node-cidr-mask-size=24",
        "--service-cidr=10.99.0.0/24",
        "--cluster-domain=edge.example",
        "--node-port-range=31000-31001",
        "--tls-san=copepod.example,10.1.2.3",
    ]);
    let node = cluster.get("node node-1");
    assert_eq!(node.pointer("/status/capacity/pods"), Some(&Value::from("2")));
    assert_eq!(node.pointer("/spec/podCIDR"), Some(&Value::from("10.128.0.0/24")));
    assert_eq!(cluster.get("service kubernetes").pointer("/spec/clusterIP"), Some(&Value::from("10.99.0.1")));
    for name in ["copepod.example", "10.1.2.3", "localhost", "kubernetes.default.svc.edge.example"] {
        cluster.ok(&format!("--tls-server-name={name} get --raw /readyz"));
    }
    let stranger = cluster.k("--tls-server-name=other.example get --raw /readyz");
    assert!(!stranger.ok && stranger.err.contains("not other.example"), "{}", stranger.err);

    cluster.push("toolbox", "toolbox");
    for name in ["one", "two", "three"] {
        cluster.apply(&toolbox_pod(name, &["serve", "0.0.0.0:80"], "    ports: [{containerPort: 80}]\n"));
        cluster.ok(&format!("label pod {name} app={name}"));
    }
    let ip = cluster.until("pod one", "/status/podIP", Value::is_string);
    assert!(ip.as_str().unwrap().starts_with("10.128.0."), "{ip}");
    wait_for("the third pod's event", || {
        let events = cluster.ok("get events --field-selector=involvedObject.name=three");
        if events.contains("Too many pods") { Ok(()) } else { Err(events) }
    });

    for name in ["one", "two"] {
        cluster.ok(&format!("expose pod {name} --type=NodePort --port=80"));
        let port = cluster.get(&format!("service {name}")).pointer("/spec/ports/0/nodePort").and_then(Value::as_u64);
        assert!(matches!(port, Some(31000 | 31001)), "{port:?}");
    }
    let full = cluster.k("expose pod three --type=NodePort --port=80");
    assert!(!full.ok && full.err.contains("31000-31001"), "{}", full.err);
    wait_for("the name in its own zone", || {
        match dns::ask(&cluster.dns, "one.default.svc.edge.example.", RecordType::A) {
            (ResponseCode::NoError, found) if found == [cluster.node_ports.clone()] => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    cluster.apply(&toolbox_pod("asker", &["resolve", "one.default"], "  restartPolicy: Never\n"));
    cluster.ok("delete pod three two --wait=false");
    cluster.log_holds("asker", "one.default: [\"10.99.0.");
}

#[test]
fn without_an_agent_there_is_no_node() {
    let cluster = Cluster::start_with(&["--no-agent"]);
    assert_eq!(cluster.ok("get nodes -o name"), "");
    cluster.apply(&toolbox_pod("p", &["serve", "0.0.0.0:80"], ""));
    wait_for("the pod's event", || {
        let events = cluster.ok("get events --field-selector=involvedObject.name=p");
        if events.contains("no nodes available to schedule pods") { Ok(()) } else { Err(events) }
    });
}

#[test]
fn a_node_port_in_use_is_an_event_on_its_service() {
    let cluster = Cluster::start();
    let taken = std::net::TcpListener::bind((cluster.node_ports.as_str(), 0)).unwrap();
    // Any free port of the range will do.
    drop(taken);
    let held = (30500..30600)
        .find_map(|port| std::net::TcpListener::bind((cluster.node_ports.as_str(), port)).ok())
        .expect("a free port");
    let port = held.local_addr().unwrap().port();
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec:\n  type: NodePort\n  selector: {{app: web}}\n  ports: [{{port: 80, nodePort: {port}}}]\n"
    ));
    wait_for("the event", || {
        let events = cluster.ok("get events --field-selector=involvedObject.name=web");
        if events.contains(&port.to_string()) && events.contains("in use") { Ok(()) } else { Err(events) }
    });
    drop(held);
    cluster.push("hello", "hello");
    cluster.ok("run web --image=hello --port=80 --labels=app=web");
    wait_for("the port once it is free", || match http::get(&format!("{}:{port}", cluster.node_ports), "/") {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn wrong_options_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    for (flag, value, words) in [
        ("--max-pods", "0", "--max-pods"),
        ("--max-pods", "10001", "10000"),
        ("--cluster-cidr", "10.0.0.0/33", "--cluster-cidr"),
        ("--cluster-cidr", "10.43.0.0/16", "overlap"),
        ("--node-cidr-mask-size", "9", "--node-cidr-mask-size 9"),
        ("--service-cidr", "x", "--service-cidr"),
        ("--tls-san", "%%", "neither an address nor a DNS name"),
        ("--cluster-domain", "a_b", "--cluster-domain a_b"),
        ("--node-port-range", "32767-30000", "expected FIRST-LAST"),
        ("--node-port-address", "203.0.113.1", "give an address of this machine"),
        ("--node-name", "Big Node", "--node-name"),
        ("--listen", "203.0.113.1:6443", "choose another with --listen"),
        ("--dns-listen", &taken.to_string(), "choose another with --dns-listen"),
    ] {
        let mut server = copepod();
        server.arg("server").arg("--data-dir").arg(dir.path().join("data")).arg(format!("{flag}={value}"));
        for (other, default) in [("--listen", "127.0.0.1:0"), ("--dns-listen", "127.0.0.1:0")] {
            if other != flag {
                server.args([other, default]);
            }
        }
        let ran: Ran = server.output().unwrap().into();
        assert!(!ran.ok && ran.err.contains(words), "{flag}={value}: {}", ran.err);
    }
}
