//! StatefulSets, DaemonSets, ReplicaSets and ReplicationControllers, driven with stock kubectl.

use copepod_tests::{Cluster, PATIENCE, dns, wait_for};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use serde_json::{Value, json};

const WEB: &str = "apiVersion: v1
kind: Service
metadata: {name: svc}
spec:
  clusterIP: None
  selector: {app: web}
  ports: [{port: 80}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  serviceName: svc
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: hello:1
        ports: [{containerPort: 80}]
        readinessProbe: {httpGet: {path: /, port: 80}, periodSeconds: 1}
";

/// `kubectl rollout status` until it succeeds; what it said.
fn rolled_out(cluster: &Cluster, what: &str) -> String {
    let ran = cluster.k(&format!("rollout status {what} --timeout={}s", PATIENCE.as_secs()));
    assert!(ran.ok, "{}{}\n{}\n{}", ran.out, ran.err, cluster.k("get pods -A -o wide").out, cluster.log());
    ran.out
}

/// The images of the pods with a label, by the pods' names.
fn images(cluster: &Cluster, selector: &str) -> Vec<String> {
    let images = cluster.ok(&format!("get pods -l {selector} -o jsonpath={{.items[*].spec.containers[0].image}}"));
    images.split_whitespace().map(str::to_string).collect()
}

fn ready_since(pod: &Value) -> &str {
    let conditions = pod["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|c| c["type"] == "Ready").unwrap()["lastTransitionTime"].as_str().unwrap()
}

/// Waits until the name of a pod within its Service resolves to the pod.
fn resolves(cluster: &Cluster, pod: &str) {
    wait_for("the pod's own name", || {
        let ip = cluster.get(&format!("pod {pod}"))["status"]["podIP"].as_str().unwrap_or_default().to_string();
        match dns::ask(&cluster.dns, &format!("{pod}.svc.default.svc.cluster.local."), RecordType::A) {
            (ResponseCode::NoError, found) if found == [ip.as_str()] => Ok(()),
            other => Err(format!("{other:?} instead of {ip}")),
        }
    });
}

#[test]
fn a_stateful_set_comes_up_in_order_rolls_by_partition_and_is_undone() {
    let cluster = Cluster::start();
    cluster.push("hello", "hello:1");
    cluster.push("hello", "hello:2");
    cluster.apply(WEB);
    rolled_out(&cluster, "statefulset/web");
    assert_eq!(cluster.pods("app=web"), ["web-0", "web-1", "web-2"]);
    let pods = cluster.get("pods -l app=web")["items"].as_array().unwrap().clone();
    for (before, after) in pods.iter().zip(&pods[1..]) {
        let created = after["metadata"]["creationTimestamp"].as_str().unwrap();
        assert!(created >= ready_since(before), "{created} is before {}", ready_since(before));
    }
    for (at, pod) in pods.iter().enumerate() {
        assert_eq!(pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"], json!(at.to_string()));
        resolves(&cluster, &format!("web-{at}"));
    }
    let (_, all) = dns::ask(&cluster.dns, "svc.default.svc.cluster.local.", RecordType::A);
    assert_eq!(all.len(), 3, "{all:?}");
    let table = cluster.ok("get sts web -o wide");
    assert!(table.contains("3/3") && table.contains("hello:1"), "{table}");
    let events = cluster.ok("get events --field-selector=involvedObject.kind=StatefulSet");
    assert!(events.contains("create Pod web-0 in StatefulSet web successful"), "{events}");

    // Only the ordinals from the partition on change.
    let partition = |n: i32| {
        cluster.ok(&format!(
            "patch sts web -p {{\"spec\":{{\"updateStrategy\":{{\"rollingUpdate\":{{\"partition\":{n}}}}}}}}}"
        ))
    };
    partition(2);
    cluster.ok("set image sts/web web=hello:2");
    let said = rolled_out(&cluster, "sts/web");
    assert!(said.contains("partitioned roll out complete: 1 new pods have been updated"), "{said}");
    assert_eq!(images(&cluster, "app=web"), ["hello:1", "hello:1", "hello:2"]);
    partition(0);
    rolled_out(&cluster, "sts/web");
    assert_eq!(images(&cluster, "app=web"), ["hello:2"; 3]);
    let status = cluster.get("sts web")["status"].clone();
    assert_eq!(status["currentRevision"], status["updateRevision"], "{status}");

    let history = cluster.ok("rollout history sts/web");
    assert!(history.contains("\n1 ") && history.contains("\n2 "), "{history}");
    assert!(cluster.ok("rollout history sts/web --revision=1").contains("hello:1"));
    let undone = cluster.ok("rollout undo sts/web");
    assert!(undone.contains("statefulset.apps/web rolled back"), "{undone}");
    rolled_out(&cluster, "sts/web");
    assert_eq!(images(&cluster, "app=web"), ["hello:1"; 3]);
    assert_eq!(
        cluster.get("controllerrevisions -l app=web")["items"].as_array().unwrap().len(),
        2,
        "the first came back"
    );

    let restarted = cluster.ok("rollout restart sts/web");
    assert!(restarted.contains("statefulset.apps/web restarted"), "{restarted}");
    rolled_out(&cluster, "sts/web");
    let pods = cluster.get("pods -l app=web")["items"].as_array().unwrap().clone();
    assert!(pods.iter().all(|p| p["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"].is_string()));

    // A deleted pod comes back under its name.
    let uid = cluster.get("pod web-1")["metadata"]["uid"].clone();
    cluster.ok("delete pod web-1");
    cluster.until("pod web-1", "/metadata/uid", |now| *now != uid && now.is_string());
    rolled_out(&cluster, "sts/web");
    resolves(&cluster, "web-1");

    cluster.ok("scale sts web --replicas=1");
    wait_for("the highest ordinals to go", || match cluster.pods("app=web") {
        pods if pods == ["web-0"] => Ok(()),
        pods => Err(format!("{pods:?}")),
    });
    cluster.until("sts web", "/status/replicas", |v| *v == 1);
    let refused = cluster.k("patch sts web -p {\"spec\":{\"serviceName\":\"other\"}}");
    assert!(refused.err.contains("updates to statefulset spec for fields other than 'replicas'"), "{}", refused.err);
}

#[test]
fn claims_of_a_stateful_set_are_made_first_and_go_as_its_policy_says() {
    let cluster = Cluster::start();
    let set = WEB.replace(
        "  replicas: 3\n",
        "  replicas: 2\n  podManagementPolicy: Parallel\n  \
         persistentVolumeClaimRetentionPolicy: {whenDeleted: Delete}\n  \
         volumeClaimTemplates:\n  - metadata: {name: data}\n    \
         spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}\n",
    );
    cluster.apply(&set);
    for n in 0..2 {
        let volume = cluster.until(&format!("pod web-{n}"), "/spec/volumes/0", Value::is_object);
        assert_eq!(volume["persistentVolumeClaim"]["claimName"], json!(format!("data-web-{n}")));
        let claim = cluster.get(&format!("pvc data-web-{n}"));
        assert_eq!(claim["metadata"]["ownerReferences"][0]["kind"], "StatefulSet");
        assert_eq!(claim["metadata"]["labels"]["app"], "web");
    }
    cluster.ok("delete sts web");
    wait_for("the claims to go", || match cluster.ok("get pvc -o name") {
        left if left.is_empty() => Ok(()),
        left => Err(left),
    });
}

#[test]
fn a_daemon_set_is_on_every_node_and_rolls() {
    let cluster = Cluster::start();
    cluster.push("hello", "hello:1");
    cluster.push("hello", "hello:2");
    cluster.apply(
        "apiVersion: apps/v1
kind: DaemonSet
metadata: {name: log}
spec:
  selector: {matchLabels: {app: log}}
  template:
    metadata: {labels: {app: log}}
    spec:
      terminationGracePeriodSeconds: 1
      tolerations: [{operator: Exists}]
      containers: [{name: log, image: 'hello:1', ports: [{containerPort: 80}]}]
",
    );
    rolled_out(&cluster, "daemonset/log");
    let pod = cluster.get("pods -l app=log")["items"][0].clone();
    assert_eq!(pod["spec"]["nodeName"], "node-1");

    cluster.ok("set image ds/log log=hello:2");
    rolled_out(&cluster, "ds/log");
    wait_for("the new image alone", || match images(&cluster, "app=log") {
        images if images == ["hello:2"] => Ok(()),
        images => Err(format!("{images:?}")),
    });
    let history = cluster.ok("rollout history ds/log");
    assert!(history.contains("\n1 ") && history.contains("\n2 "), "{history}");
    let undone = cluster.ok("rollout undo ds/log --to-revision=1");
    assert!(undone.contains("daemonset.apps/log rolled back"), "{undone}");
    rolled_out(&cluster, "ds/log");
    cluster.ok("rollout restart ds/log");
    rolled_out(&cluster, "ds/log");
    let after = cluster.get("pods -l app=log")["items"].as_array().unwrap().clone();
    assert!(after.iter().any(|p| p["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"].is_string()));

    // A second node, of which nothing but the object exists.
    cluster.apply("apiVersion: v1\nkind: Node\nmetadata: {name: node-2}\n");
    cluster.ok("patch node node-2 --subresource=status -p {\"status\":{\"allocatable\":{\"cpu\":\"4\",\"memory\":\"4Gi\",\"pods\":\"10\"}}}");
    cluster.until("ds log", "/status/desiredNumberScheduled", |v| *v == 2);
    wait_for("a pod on node-2", || {
        match cluster.ok("get pods -l app=log --field-selector=spec.nodeName=node-2 -o name") {
            none if none.is_empty() => Err(cluster.ok("get pods -o wide")),
            _ => Ok(()),
        }
    });
    cluster.ok("patch ds log -p {\"spec\":{\"template\":{\"spec\":{\"nodeSelector\":{\"kubernetes.io/hostname\":\"node-1\"}}}}}");
    cluster.until("ds log", "/status/desiredNumberScheduled", |v| *v == 1);
    let table = cluster.ok("get ds log");
    assert!(table.contains("kubernetes.io/hostname=node-1"), "{table}");
}

#[test]
fn a_replica_set_takes_in_replaces_lets_go_and_ends_the_cheapest() {
    let cluster = Cluster::start();
    cluster.push("hello", "hello:1");
    let set = |name: &str, replicas: i32| {
        cluster.apply(&format!(
            "apiVersion: apps/v1
kind: ReplicaSet
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{{name: web, image: 'hello:1', ports: [{{containerPort: 80}}]}}]
"
        ))
    };
    let pods_until = |what: &str, pass: &dyn Fn(&[String]) -> bool| {
        wait_for(what, || match cluster.pods("app=web") {
            pods if pass(&pods) => Ok(pods),
            pods => Err(format!("{pods:?}")),
        })
    };
    let owner = |pod: &str| cluster.get(&format!("pod {pod}"))["metadata"]["ownerReferences"][0]["name"].clone();
    // A pod that is there already counts.
    cluster.ok("run first --image=hello:1 --labels=app=web");
    set("web", 3);
    cluster.until("rs web", "/status/readyReplicas", |v| *v == 3);
    let pods = cluster.pods("app=web");
    assert_eq!((pods.len(), pods.contains(&"first".to_string())), (3, true), "{pods:?}");
    assert!(pods.iter().all(|pod| owner(pod) == "web"), "{pods:?}");
    let row = cluster.ok("get rs web --no-headers");
    assert_eq!(row.split_whitespace().take(4).collect::<Vec<_>>(), ["web", "3", "3", "3"], "{row}");
    let status = cluster.get("rs web")["status"].clone();
    assert_eq!((&status["fullyLabeledReplicas"], &status["observedGeneration"]), (&json!(3), &json!(1)), "{status}");

    // One that is deleted is replaced; one that is labelled otherwise is replaced and let go.
    let gone = pods.iter().find(|pod| *pod != "first").unwrap();
    cluster.ok(&format!("delete pod {gone}"));
    pods_until("a replacement", &|pods| pods.len() == 3 && !pods.contains(gone));
    cluster.ok("label pod first app=loose --overwrite");
    pods_until("another replacement", &|pods| pods.len() == 3 && !pods.contains(&"first".into()));
    cluster.until("pod first", "/metadata/ownerReferences", Value::is_null);
    cluster.ok("wait --for=condition=Ready pod -l app=web --timeout=120s");

    // The cheapest ends first.
    let pods = cluster.pods("app=web");
    cluster.ok(&format!("annotate pod {} controller.kubernetes.io/pod-deletion-cost=-1", pods[1]));
    cluster.ok("scale rs web --replicas=2");
    pods_until("the cheapest to go", &|left| left == [pods[0].clone(), pods[2].clone()]);
    cluster.until("rs web", "/status/replicas", |v| *v == 2);
    let events = cluster.ok("get events --field-selector=involvedObject.kind=ReplicaSet");
    assert!(events.contains("Created pod: web-") && events.contains(&format!("Deleted pod: {}", pods[1])), "{events}");

    // Its pods outlive it if asked to, another takes them in, and they go with that one.
    let kept = cluster.pods("app=web");
    cluster.ok("delete rs web --cascade=orphan");
    for pod in &kept {
        cluster.until(&format!("pod {pod}"), "/metadata/ownerReferences", Value::is_null);
    }
    set("other", 2);
    for pod in &kept {
        cluster.until(&format!("pod {pod}"), "/metadata/ownerReferences/0/name", |v| *v == "other");
    }
    assert_eq!(cluster.pods("app=web"), kept);
    cluster.ok("delete rs other");
    pods_until("no pod", &|pods| pods.is_empty());
    assert_eq!(cluster.get("pod first")["status"]["phase"], "Running");
}

#[test]
fn a_replication_controller_keeps_its_count() {
    let cluster = Cluster::start();
    cluster.push("hello", "hello:1");
    cluster.apply(
        "apiVersion: v1
kind: ReplicationController
metadata: {name: old}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: old}}
    spec: {containers: [{name: old, image: 'hello:1', ports: [{containerPort: 80}]}]}
",
    );
    cluster.until("rc old", "/status/readyReplicas", |v| *v == 2);
    cluster.ok("scale rc old --replicas=4");
    cluster.until("rc old", "/status/readyReplicas", |v| *v == 4);
    let pods = cluster.pods("app=old");
    cluster.ok(&format!("delete pod {}", pods[0]));
    wait_for("a replacement", || match cluster.pods("app=old") {
        now if now.len() == 4 && !now.contains(&pods[0]) => Ok(()),
        now => Err(format!("{now:?}")),
    });
    cluster.ok("scale rc old --replicas=1");
    cluster.until("rc old", "/status/replicas", |v| *v == 1);
    let events = cluster.ok("get events --field-selector=involvedObject.kind=ReplicationController");
    assert!(events.contains("Created pod: old-") && events.contains("Deleted pod: old-"), "{events}");
    cluster.ok("delete rc old");
    wait_for("no pod", || match cluster.pods("app=old") {
        none if none.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
}
