//! Where a Service's connections go: endpoints that a user keeps, zones and hints.

use std::io::Read;
use std::net::TcpStream;

use copepod_tests::{Cluster, FurtherNode, toolbox_pod, wait_for};
use serde_json::{Value, json};

/// The slices of a Service: who manages each, and its endpoints.
fn slices(cluster: &Cluster, service: &str) -> Vec<(String, Vec<Value>)> {
    let list = cluster.get(&format!("endpointslices -l kubernetes.io/service-name={service}"));
    let slice = |slice: &Value| {
        let manager = &slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"];
        let endpoints = slice["endpoints"].as_array().cloned().unwrap_or_default();
        (manager.as_str().unwrap_or_default().to_string(), endpoints)
    };
    list["items"].as_array().unwrap().iter().map(slice).collect()
}

#[test]
fn endpoints_that_a_user_keeps_are_mirrored_and_reached() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    cluster.apply(&toolbox_pod("db-0", &["serve", "0.0.0.0:7777"], "    ports: [{containerPort: 7777}]\n"));
    let ip = cluster.until("pod db-0", "/status/podIP", Value::is_string);
    let ip = ip.as_str().unwrap();
    cluster.apply("apiVersion: v1\nkind: Service\nmetadata: {name: db}\nspec: {ports: [{name: sql, port: 5432}]}\n");
    let endpoints = |ip: &str| {
        format!(
            "apiVersion: v1\nkind: Endpoints\nmetadata: {{name: db}}\nsubsets: [{{addresses: [{{ip: {ip}}}], ports: \
             [{{name: sql, port: 7777}}]}}]\n"
        )
    };
    let mirrored = |expected: &[&str]| {
        wait_for(&format!("{expected:?} mirrored"), || {
            let found = slices(&cluster, "db");
            let ours = found.iter().all(|(m, _)| m == "endpointslicemirroring-controller.k8s.io");
            let addresses: Vec<&str> =
                found.iter().flat_map(|(_, e)| e).filter_map(|e| e["addresses"][0].as_str()).collect();
            if ours && addresses == expected { Ok(()) } else { Err(format!("{found:?}")) }
        });
    };
    cluster.apply(&endpoints(ip));
    mirrored(&[ip]);
    cluster.apply(&toolbox_pod("asker", &["ask", "db:5432", "3"], "  restartPolicy: OnFailure\n"));
    cluster.log_holds("asker", "answer: db-0");

    cluster.apply(&endpoints("192.0.2.7"));
    mirrored(&["192.0.2.7"]);
    cluster.ok("label endpoints db endpointslice.kubernetes.io/skip-mirror=true");
    mirrored(&[]);
    cluster.ok("label endpoints db endpointslice.kubernetes.io/skip-mirror-");
    mirrored(&["192.0.2.7"]);
    // A selector takes over.
    cluster.ok("patch service db -p {\"spec\":{\"selector\":{\"app\":\"db-0\"}}}");
    wait_for("the pod's slice alone", || match slices(&cluster, "db").as_slice() {
        [(manager, endpoints)] if manager == "endpointslice-controller.k8s.io" && endpoints.len() == 1 => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn endpoints_say_where_they_are_and_for_whom() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    cluster.ok("label node node-1 topology.kubernetes.io/zone=west");
    cluster.apply(&toolbox_pod("near", &["serve", "0.0.0.0:7777"], "    ports: [{containerPort: 7777}]\n"));
    cluster.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: near}\nspec: {selector: {app: near}, ports: [{port: 7777}], \
         trafficDistribution: PreferSameNode}\n",
    );
    let endpoint = |zone: &str, hints: &Value| {
        wait_for(&format!("{zone} and {hints}"), || {
            let found = slices(&cluster, "near");
            let endpoint = found.first().and_then(|(_, e)| e.first()).cloned().unwrap_or_default();
            let fits = endpoint["zone"] == zone && endpoint["hints"] == *hints && endpoint["nodeName"] == "node-1";
            if fits { Ok(()) } else { Err(endpoint.to_string()) }
        });
    };
    let node = json!([{"name": "node-1"}]);
    endpoint("west", &json!({"forZones": [{"name": "west"}], "forNodes": node}));
    // A zone that changes is followed, and so is the wish.
    cluster.ok("label node node-1 topology.kubernetes.io/zone=east --overwrite");
    endpoint("east", &json!({"forZones": [{"name": "east"}], "forNodes": node}));
    cluster.ok("patch service near -p {\"spec\":{\"trafficDistribution\":\"PreferClose\"}}");
    endpoint("east", &json!({"forZones": [{"name": "east"}]}));
    cluster.ok("patch service near -p {\"spec\":{\"trafficDistribution\":null}}");
    endpoint("east", &Value::Null);
}

/// Who answers `count` connections to an address, one after the other; empty where nobody does.
fn answers(address: &str, count: usize) -> Vec<String> {
    let ask = |_| {
        let mut text = String::new();
        let answered = TcpStream::connect(address).and_then(|mut stream| stream.read_to_string(&mut text));
        answered.map(|_| text.trim().to_string()).unwrap_or_default()
    };
    (0..count).map(ask).collect()
}

#[test]
fn connections_stay_in_their_zone_or_on_their_node_where_the_hints_say_so() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    let other = FurtherNode::join(&cluster, "node-2", "10.100.0.0/20");
    // Pods of other nodes are not reached yet, and a connection tries some endpoints only: with one endpoint here and
    // five there, connections fail unless the hints keep them here.
    for (name, node, replicas) in [("near", "node-1", 1), ("far", "node-2", 5)] {
        cluster.apply(&format!(
            "apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}, role: web}}}}
    spec:
      nodeSelector: {{kubernetes.io/hostname: {node}}}
      containers:
      - {{name: main, image: toolbox, args: [serve, '0.0.0.0:7777'], ports: [{{containerPort: 7777}}]}}
"
        ));
        cluster.rolled_out(name);
    }
    cluster.apply(
        "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {type: NodePort, selector: {role: web}, \
         ports: [{port: 7777, nodePort: 30095}], trafficDistribution: PreferSameZone}\n",
    );
    let (here, there) = (format!("{}:30095", cluster.node_ports), format!("{}:30095", other.node_ports));
    let wide = |why: &str| {
        wait_for(why, || match answers(&here, 12) {
            all if all.iter().any(String::is_empty) && all.iter().any(|a| a.starts_with("near-")) => Ok(()),
            all => Err(format!("{all:?}")),
        });
    };
    let kept = |address: &str, app: &str| {
        wait_for(&format!("{app} alone"), || match answers(address, 12) {
            all if all.iter().all(|a| a.starts_with(app)) => Ok(()),
            all => Err(format!("{all:?}")),
        });
    };
    wide("all endpoints while nobody is in a zone");
    // The nodes follow their labels.
    cluster.ok("label node node-1 topology.kubernetes.io/zone=west");
    cluster.ok("label node node-2 topology.kubernetes.io/zone=east");
    kept(&here, "near-");
    kept(&there, "far-");
    cluster.ok("label node node-1 topology.kubernetes.io/zone=east --overwrite");
    wide("all endpoints in one zone");
    cluster.ok("patch service web -p {\"spec\":{\"trafficDistribution\":\"PreferSameNode\"}}");
    kept(&here, "near-");
    // A policy needs no hints.
    cluster.ok("patch service web -p {\"spec\":{\"trafficDistribution\":null}}");
    wide("all endpoints without hints");
    cluster.ok("patch service web -p {\"spec\":{\"internalTrafficPolicy\":\"Local\"}}");
    cluster.apply(&toolbox_pod("asker", &["ask", "web:7777", "6"], "  nodeName: node-1\n  restartPolicy: Never\n"));
    cluster.until("pod asker", "/status/phase", |v| *v == "Succeeded");
    let asked = cluster.ok("logs asker");
    assert_eq!(asked.matches("answer: near-").count(), 6, "{asked}");
}
