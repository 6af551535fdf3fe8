//! The main job: a Deployment and a Service of a wasm component, applied with stock kubectl, answering through the
//! node port, the DNS name and, from another pod, the cluster IP and the Service's name.

use std::collections::BTreeSet;

use copepod_tests::{Cluster, dns, http, toolbox_pod, wait_for};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use serde_json::Value;

fn hello(cluster: &Cluster) {
    cluster.push("hello", "hello:1");
    let yaml = include_str!("../../examples/hello/hello.yaml").replace("./hello.wasm", "hello:1");
    cluster.apply(&yaml);
    cluster.rolled_out("hello");
}

/// The names that answer on the node port, over enough connections to meet every replica; a connection that fails
/// (the port is just being opened, its pod just left) counts as the name of its error.
fn names(cluster: &Cluster) -> BTreeSet<String> {
    let authority = format!("{}:30080", cluster.node_ports);
    (0..24)
        .map(|_| match http::get(&authority, "/") {
            Ok((200, body)) => body.trim().trim_start_matches("Hello from ").to_string(),
            other => format!("{other:?}"),
        })
        .collect()
}

#[test]
fn a_service_answers_by_node_port_name_and_cluster_ip() {
    let cluster = Cluster::start();
    hello(&cluster);

    let pods: BTreeSet<String> = cluster.pods("app=hello").into_iter().collect();
    assert_eq!(pods.len(), 3);
    wait_for("all replicas behind the node port", || {
        let seen = names(&cluster);
        if seen == pods { Ok(()) } else { Err(format!("{seen:?} instead of {pods:?}")) }
    });

    // Each replica has an address of its own.
    let list = cluster.get("pods -l app=hello");
    let ips: BTreeSet<&str> =
        list["items"].as_array().unwrap().iter().map(|p| p["status"]["podIP"].as_str().unwrap()).collect();
    assert_eq!(ips.len(), 3, "{ips:?}");

    // Machines outside: the name resolves to where the node's ports listen, SRV carries the node port, PTR points back.
    let name = "hello.default.svc.cluster.local.";
    wait_for("the name to resolve", || match dns::ask(&cluster.dns, name, RecordType::A) {
        (ResponseCode::NoError, data) if data == [cluster.node_ports.as_str()] => Ok(()),
        other => Err(format!("{other:?} instead of {}", cluster.node_ports)),
    });
    let (_, srv) = dns::ask(&cluster.dns, &format!("_http._tcp.{name}"), RecordType::SRV);
    assert_eq!(srv, [format!("30080 {name}")]);
    let cluster_ip = cluster.get("service hello")["spec"]["clusterIP"].as_str().unwrap().to_string();
    let reversed: Vec<&str> = cluster_ip.rsplit('.').collect();
    let (_, ptr) = dns::ask(&cluster.dns, &format!("{}.in-addr.arpa.", reversed.join(".")), RecordType::PTR);
    assert_eq!(ptr, [name]);
    assert_eq!(dns::ask(&cluster.dns, name, RecordType::AAAA), (ResponseCode::NoError, vec![]));
    assert_eq!(dns::ask(&cluster.dns, "no.default.svc.cluster.local.", RecordType::A).0, ResponseCode::NXDomain);

    // A guest resolves the name in process, and reaches the Service by its name and by its cluster IP.
    cluster.push("toolbox", "toolbox");
    for (pod, target) in [("by-name", "hello.default:80"), ("by-ip", &format!("{cluster_ip}:80"))] {
        cluster.apply(&toolbox_pod(pod, &["http", target], "  restartPolicy: Never\n"));
        cluster.log_holds(pod, "Hello from hello-");
    }
    cluster.apply(&toolbox_pod(
        "asker",
        &["resolve", "hello", "hello.default", "hello.default.svc.cluster.local", "nosuch.default.svc.cluster.local"],
        "  restartPolicy: Never\n",
    ));
    let log = cluster.log_holds("asker", "nosuch");
    for asked in ["hello", "hello.default", "hello.default.svc.cluster.local"] {
        assert!(log.contains(&format!("{asked}: [\"{cluster_ip}\"]")), "{log}");
    }
}

#[test]
fn traffic_leaves_a_deleted_pod_and_scaling_follows() {
    let cluster = Cluster::start();
    hello(&cluster);
    let before: BTreeSet<String> = cluster.pods("app=hello").into_iter().collect();
    let victim = before.iter().next().unwrap().clone();
    cluster.ok(&format!("delete pod {victim}"));
    let after = wait_for("three other pods to answer", || {
        let seen = names(&cluster);
        if seen.len() == 3 && !seen.contains(&victim) { Ok(seen) } else { Err(format!("{seen:?}")) }
    });
    assert_eq!(after.intersection(&before).count(), 2, "the other two stay");

    let words = cluster.ok("scale deployment hello --replicas=1");
    assert!(words.contains("deployment.apps/hello scaled"), "{words}");
    cluster.until("deployment hello", "/status/availableReplicas", |v| *v == 1);
    wait_for("one pod to answer", || {
        let seen = names(&cluster);
        if seen.len() == 1 { Ok(()) } else { Err(format!("{seen:?}")) }
    });
    cluster.ok("scale deployment hello --replicas=0");
    wait_for("no pod", || if cluster.pods("app=hello").is_empty() { Ok(()) } else { Err("pods are left".into()) });
    let authority = format!("{}:30080", cluster.node_ports);
    wait_for("the node port to refuse", || match http::get(&authority, "/") {
        Ok((200, body)) => Err(body),
        _ => Ok(()),
    });
}

#[test]
fn headless_services_name_their_pods() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    cluster.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec:\n  clusterIP: None\n  selector: {app: db-0}\n  ports: [{name: sql, port: 5432, targetPort: 7777}]\n",
    );
    cluster.apply(&toolbox_pod("db-0", &["serve", "0.0.0.0:7777"], "    ports: [{containerPort: 7777}]\n"));
    let ip = cluster.until("pod db-0", "/status/podIP", Value::is_string);
    let ip = ip.as_str().unwrap();
    wait_for("the endpoint's address", || {
        match dns::ask(&cluster.dns, "db.default.svc.cluster.local.", RecordType::A) {
            (ResponseCode::NoError, data) if data == [ip] => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
    let target = format!("{}.db.default.svc.cluster.local.", ip.replace('.', "-"));
    let (_, srv) = dns::ask(&cluster.dns, "_sql._tcp.db.default.svc.cluster.local.", RecordType::SRV);
    assert_eq!(srv, [format!("7777 {target}")]);
    assert_eq!(dns::ask(&cluster.dns, &target, RecordType::A).1, [ip]);
}
