//! Where a Service's connections go: endpoints that a user keeps, zones and hints.

use copepod_tests::{Cluster, toolbox_pod, wait_for};
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
