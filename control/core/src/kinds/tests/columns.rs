use super::*;

/// `now` in every test: 100 s after the epoch; objects are created at second 40.
const NOW: i64 = 100;

pub(super) fn row(api_version: &str, kind_: &str, mut object: Value, expected: &[&str]) {
    object["metadata"] = json!({"name": "a", "creationTimestamp": "1970-01-01T00:00:40Z"});
    check(api_version, kind_, object, expected);
}

pub(super) fn check(api_version: &str, kind_: &str, object: Value, expected: &[&str]) {
    let cells = kind(api_version, kind_).strategy.cells(&object, NOW);
    let shown: Vec<String> = cells.iter().map(|c| c.as_str().map_or_else(|| c.to_string(), String::from)).collect();
    assert_eq!(shown, expected, "{object}");
}

#[test]
fn simple_kinds() {
    row("v1", "Namespace", json!({"status": {"phase": "Active"}}), &["a", "Active", "60s"]);
    row("v1", "ConfigMap", json!({"data": {"a": "", "b": ""}, "binaryData": {"c": ""}}), &["a", "3", "60s"]);
    row("v1", "Secret", json!({"type": "Opaque", "data": {"a": ""}}), &["a", "Opaque", "1", "60s"]);
    row("v1", "ServiceAccount", json!({}), &["a", "0", "60s"]);
    row("coordination.k8s.io/v1", "Lease", json!({"spec": {"holderIdentity": "n1"}}), &["a", "n1", "60s"]);
    let subset = |n: usize| {
        let ips: Vec<Value> = (1..=n).map(|i| json!({"ip": format!("10.0.0.{i}")})).collect();
        json!({"subsets": [{"addresses": ips, "ports": [{"port": 80}]}]})
    };
    row("v1", "Endpoints", json!({}), &["a", "<none>", "60s"]);
    row("v1", "Endpoints", subset(2), &["a", "10.0.0.1:80,10.0.0.2:80", "60s"]);
    row("v1", "Endpoints", subset(5), &["a", "10.0.0.1:80,10.0.0.2:80,10.0.0.3:80 + 2 more...", "60s"]);
    let slice = "discovery.k8s.io/v1";
    row(slice, "EndpointSlice", json!({"addressType": "IPv4"}), &["a", "IPv4", "<unset>", "<unset>", "60s"]);
    let one = json!({"addressType": "IPv4", "ports": [{"port": 80}, {"port": null, "name": ""}],
        "endpoints": [{"addresses": ["10.0.0.1"]}]});
    row(slice, "EndpointSlice", one, &["a", "IPv4", "80,*", "10.0.0.1", "60s"]);
}

#[test]
fn nodes() {
    let object = json!({
        "metadata": {"name": "n1", "creationTimestamp": "1970-01-01T00:00:40Z",
            "labels": {"node-role.kubernetes.io/control-plane": "", "kubernetes.io/role": "edge"}},
        "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1.36.0", "osImage": "Debian"}}});
    check(
        "v1",
        "Node",
        object,
        &[
            "n1",
            "Ready,SchedulingDisabled",
            "control-plane,edge",
            "60s",
            "v1.36.0",
            "10.0.0.1",
            "<none>",
            "Debian",
            "<unknown>",
            "<unknown>",
        ],
    );
    row(
        "v1",
        "Node",
        json!({}),
        &["a", "Unknown", "<none>", "60s", "", "<none>", "<none>", "<unknown>", "<unknown>", "<unknown>"],
    );
}

#[test]
fn services() {
    let service = |spec: Value| json!({"spec": spec});
    for (object, expected) in [
        (
            service(json!({"type": "ClusterIP", "clusterIPs": ["10.43.0.1"], "selector": {"b": "2", "a": "1"},
                "ports": [{"port": 80, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]})),
            ["a", "ClusterIP", "10.43.0.1", "<none>", "80/TCP,53/UDP", "60s", "a=1,b=2"],
        ),
        (
            service(json!({"type": "NodePort", "clusterIPs": ["10.43.0.1"],
                "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]})),
            ["a", "NodePort", "10.43.0.1", "<none>", "80:30080/TCP", "60s", "<none>"],
        ),
        (
            service(json!({"type": "LoadBalancer", "clusterIPs": ["10.43.0.1"], "ports": []})),
            ["a", "LoadBalancer", "10.43.0.1", "<pending>", "<none>", "60s", "<none>"],
        ),
        (
            service(json!({"type": "ExternalName", "externalName": "example.com"})),
            ["a", "ExternalName", "<none>", "example.com", "<none>", "60s", "<none>"],
        ),
    ] {
        row("v1", "Service", object, &expected);
    }
}

#[test]
fn workloads() {
    let mut object = deployment(json!({}));
    object["spec"]["replicas"] = json!(3);
    object["status"] = json!({"replicas": 3, "readyReplicas": 1, "updatedReplicas": 2, "availableReplicas": 1});
    row("apps/v1", "Deployment", object.clone(), &["a", "1/3", "2", "1", "60s", "web", "web:1", "app=web"]);
    row("apps/v1", "ReplicaSet", object, &["a", "3", "3", "1", "60s", "web", "web:1", "app=web"]);
}

#[test]
fn events() {
    check(
        "v1",
        "Event",
        json!({"metadata": {"name": "e"}, "type": "Normal", "reason": "Started", "message": "Started it\n",
            "involvedObject": {"kind": "Pod", "name": "p", "fieldPath": "spec.containers{web}"},
            "source": {"component": "kubelet", "host": "n1"}, "count": 2,
            "firstTimestamp": "1970-01-01T00:00:10Z", "lastTimestamp": "1970-01-01T00:01:00Z"}),
        &["40s", "Normal", "Started", "pod/p", "spec.containers{web}", "kubelet, n1", "Started it", "90s", "2", "e"],
    );
    check(
        "v1",
        "Event",
        json!({"metadata": {"name": "e"}, "eventTime": "1970-01-01T00:00:10.000000Z", "reportingComponent": "scheduler",
            "involvedObject": {"kind": "Node"}}),
        &["90s", "", "", "node", "", "scheduler", "", "90s", "1", "e"],
    );
}

#[test]
fn pod_status() {
    let container = |name: &str, state: Value, ready: bool, restarts: i64| {
        json!({"name": name, "state": state, "ready": ready, "restartCount": restarts,
            "lastState": if restarts > 0 { json!({"terminated": {"finishedAt": "1970-01-01T00:01:00Z"}}) } else { json!({}) }})
    };
    let running = || json!({"running": {}});
    let waiting = |reason: &str| json!({"waiting": {"reason": reason}});
    let ended = |reason: &str, code: i64| json!({"terminated": {"reason": reason, "exitCode": code}});
    let spec = json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
    let cases = [
        (json!({"phase": "Pending"}), json!({}), "0/2", "Pending", "0"),
        (
            json!({"phase": "Running", "containerStatuses": [container("a", running(), true, 0), container("b", running(), true, 2)]}),
            json!({}),
            "2/2",
            "Running",
            "2 (40s ago)",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [container("a", waiting("CrashLoopBackOff"), false, 5), container("b", running(), true, 0)]}),
            json!({}),
            "1/2",
            "CrashLoopBackOff",
            "5 (40s ago)",
        ),
        (
            json!({"phase": "Pending", "containerStatuses": [container("a", waiting("ErrImagePull"), false, 0)]}),
            json!({}),
            "0/2",
            "ErrImagePull",
            "0",
        ),
        (
            json!({"phase": "Succeeded", "containerStatuses": [container("a", ended("Completed", 0), false, 0)]}),
            json!({}),
            "0/2",
            "Completed",
            "0",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [container("a", ended("Completed", 0), false, 0), container("b", running(), true, 0)],
                "conditions": [{"type": "Ready", "status": "True"}]}),
            json!({}),
            "1/2",
            "Running",
            "0",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [container("a", ended("", 3), false, 0)]}),
            json!({}),
            "0/2",
            "ExitCode:3",
            "0",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [container("i", ended("Completed", 0), true, 0), container("j", running(), false, 0)],
                "containerStatuses": [container("a", waiting("PodInitializing"), false, 0)]}),
            json!({}),
            "0/2",
            "Init:1/2",
            "0",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [container("i", waiting("CrashLoopBackOff"), false, 3)]}),
            json!({}),
            "0/2",
            "Init:CrashLoopBackOff",
            "3 (40s ago)",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [container("i", ended("Error", 1), false, 0)]}),
            json!({}),
            "0/2",
            "Init:Error",
            "0",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [container("a", running(), true, 0)]}),
            json!({"deletionTimestamp": "1970-01-01T00:01:00Z"}),
            "1/2",
            "Terminating",
            "0",
        ),
        (json!({"phase": "Failed", "reason": "Evicted"}), json!({}), "0/2", "Evicted", "0"),
        (
            json!({"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}),
            json!({}),
            "0/2",
            "SchedulingGated",
            "0",
        ),
    ];
    for (status, meta, ready, shown, restarts) in cases {
        let mut object = json!({"metadata": meta, "spec": spec, "status": status});
        object["metadata"]["name"] = json!("p");
        object["metadata"]["creationTimestamp"] = json!("1970-01-01T00:00:40Z");
        check("v1", "Pod", object, &["p", ready, shown, restarts, "60s", "<none>", "<none>", "<none>", "<none>"]);
    }
    let sidecar = json!({"spec": {"containers": [{"name": "a"}], "nodeName": "n1",
            "initContainers": [{"name": "s", "restartPolicy": "Always"}], "readinessGates": [{"conditionType": "x"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": "10.64.0.5"}],
            "initContainerStatuses": [{"name": "s", "started": true, "ready": true, "state": {"running": {}}}],
            "containerStatuses": [container("a", running(), true, 0)]}});
    row("v1", "Pod", sidecar, &["a", "2/2", "Running", "0", "60s", "10.64.0.5", "n1", "<none>", "0/1"]);
}
