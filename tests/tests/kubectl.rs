//! Stock kubectl, as people use it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use copepod_tests::{Cluster, toolbox_pod, wait_for};

#[test]
fn everyday_commands() {
    let cluster = Cluster::start();
    cluster.push("hello", "hello:1");
    cluster.push("toolbox", "toolbox");

    // Namespaces, generators, expose.
    let namespaces = cluster.ok("get namespaces -o name");
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        assert!(namespaces.contains(&format!("namespace/{name}")), "{namespaces}");
    }
    cluster.ok("create namespace shop");
    cluster.ok("-n shop create deployment web --image=hello:1 --replicas=2 --port=80");
    cluster.ok("-n shop expose deployment web --port=80");
    cluster.ok("-n shop rollout status deployment/web --timeout=120s");
    let wide = cluster.ok("-n shop get pods -o wide");
    assert!(
        wide.contains("NODE") && wide.contains("node-1") && wide.contains("1/1") && wide.contains("Running"),
        "{wide}"
    );
    let deployment = cluster.ok("-n shop get deployment web");
    assert!(deployment.contains("READY") && deployment.contains("2/2"), "{deployment}");
    let service = cluster.ok("-n shop get service web");
    assert!(service.contains("ClusterIP") && service.contains("10.43.") && service.contains("80/TCP"), "{service}");
    wait_for("endpoints", || {
        let slices = cluster.get("-n shop endpointslices");
        let n = slices["items"][0]["endpoints"].as_array().map_or(0, Vec::len);
        if n == 2 { Ok(()) } else { Err(slices.to_string()) }
    });

    // Each namespace has its account and the cluster's CA.
    cluster.until("-n shop serviceaccount default", "/metadata/uid", |v| v.is_string());
    cluster.until("-n shop configmap kube-root-ca.crt", "/data/ca.crt", |v| {
        v.as_str().is_some_and(|s| s.contains("BEGIN CERTIFICATE"))
    });

    // The cluster's own Service.
    let kubernetes = cluster.get("service kubernetes");
    assert_eq!(kubernetes["spec"]["clusterIP"], "10.43.0.1");

    // describe, explain, api-resources, label, annotate, patch, events.
    let described = cluster.ok("-n shop describe deployment web");
    assert!(described.contains("RollingUpdateStrategy") && described.contains("NewReplicaSet"), "{described}");
    let pod = cluster.ok("-n shop get pods -o jsonpath={.items[0].metadata.name}");
    let described = cluster.ok(&format!("-n shop describe pod {pod}"));
    assert!(described.contains("Scheduled") && described.contains("Started"), "{described}");
    assert!(cluster.ok("explain deployment.spec.replicas").contains("replicas <integer>"));
    assert!(cluster.ok("api-resources").contains("deployments"));
    cluster.ok("-n shop label deployment web tier=front");
    cluster.ok("-n shop annotate deployment web note=yes");
    let patch = r#"{"spec":{"template":{"metadata":{"labels":{"extra":"1"}}}}}"#;
    cluster.ok(&format!("-n shop patch deployment web -p {patch}"));
    cluster.ok("-n shop rollout status deployment/web --timeout=120s");
    let history = cluster.ok("-n shop rollout history deployment/web");
    assert!(history.contains('2'), "{history}");
    assert!(cluster.ok("-n shop get pods -l extra=1 --field-selector=status.phase=Running -o name").contains("pod/"));
    assert!(cluster.ok("version").contains("Server Version: v1.36."));
    assert!(cluster.ok("get nodes").contains("Ready"));

    // A namespace goes with all that is in it.
    cluster.ok("delete namespace shop --timeout=120s");
    assert!(cluster.k("-n shop get pods,deployments,replicasets,services -o name").out.trim().is_empty());
    assert!(!cluster.k("get namespace shop").ok);
}

#[test]
fn logs_follow_tail_and_previous() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    cluster.apply(&toolbox_pod("writer", &["lines", "50"], ""));
    let log = cluster.log_holds("writer", "line 50");
    assert_eq!(log.lines().count(), 50, "{log}");
    assert_eq!(cluster.ok("logs writer --tail=2"), "line 49\nline 50\n");
    let stamped = cluster.ok("logs writer --tail=1 --timestamps");
    assert!(stamped.starts_with("20") && stamped.contains("Z line 50"), "{stamped}");
    assert!(cluster.ok("logs writer --since=1h").contains("line 1\n"));

    cluster.apply(&toolbox_pod("clock", &["tick"], ""));
    cluster.log_holds("clock", "tick 1");
    let mut follow = cluster.kubectl().args(["logs", "-f", "clock"]).stdout(Stdio::piped()).spawn().expect("kubectl");
    let lines = BufReader::new(follow.stdout.take().expect("stdout")).lines();
    let reached = lines.map_while(Result::ok).any(|l| l == "tick 20");
    let _ = follow.kill();
    let _ = follow.wait();
    assert!(reached, "follow ended early");

    cluster.apply(&toolbox_pod("crasher", &["trap"], ""));
    cluster.until("pod crasher", "/status/containerStatuses/0/restartCount", |v| v.as_i64() >= Some(1));
    wait_for("the previous log", || {
        let ran = cluster.k("logs crasher --previous");
        if ran.out.contains("deliberate trap") { Ok(()) } else { Err(ran.out + &ran.err) }
    });
}

#[test]
fn watches_show_a_pod_come_and_go() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    let mut watch = cluster
        .kubectl()
        .args(["get", "pods", "-w", "--no-headers", "--output-watch-events"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubectl");
    let mut lines = BufReader::new(watch.stdout.take().expect("stdout")).lines().map_while(Result::ok);
    cluster.apply(&toolbox_pod("seen", &["sleep"], ""));
    assert!(lines.by_ref().any(|l| l.starts_with("ADDED") && l.contains("seen")));
    assert!(lines.by_ref().any(|l| l.starts_with("MODIFIED") && l.contains("Running")));
    cluster.ok("delete pod seen --wait=false");
    assert!(lines.by_ref().any(|l| l.starts_with("DELETED") && l.contains("seen")));
    let _ = watch.kill();
    let _ = watch.wait();
}

#[test]
fn pods_get_their_configuration() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    cluster.ok("create configmap settings --from-literal=color=blue --from-literal=size=9");
    cluster.ok("create secret generic keys --from-literal=token=s3cret");
    let main = "  initContainers:
  - name: first
    image: toolbox
    args: [write, /shared/mark, made-by-init]
    volumeMounts: [{name: shared, mountPath: /shared}]
  containers:
  - name: main
    image: toolbox
    args: [env, LITERAL, EXPANDED, POD, IP, COLOR, TOKEN, P_size, ABSENT]
    env:
    - {name: LITERAL, value: plain}
    - {name: EXPANDED, value: '$(LITERAL)-more'}
    - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: COLOR, valueFrom: {configMapKeyRef: {name: settings, key: color}}}
    - {name: TOKEN, valueFrom: {secretKeyRef: {name: keys, key: token}}}
    - {name: ABSENT, valueFrom: {configMapKeyRef: {name: settings, key: nope, optional: true}}}
    envFrom: [{prefix: P_, configMapRef: {name: settings}}]
  - name: files
    image: toolbox
    args: [cat, /config/color, /shared/mark]
    volumeMounts: [{name: config, mountPath: /config}, {name: shared, mountPath: /shared}]
  - name: argv
    image: toolbox
    command: [renamed]
    args: [argv, '$(POD_NAME)']
    env: [{name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]
";
    cluster.apply(&format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: configured}}\nspec:\n  restartPolicy: Never\n  volumes: [{{name: config, configMap: {{name: settings}}}}, {{name: shared, emptyDir: {{}}}}]\n{main}"));
    cluster.until("pod configured", "/status/phase", |v| *v == "Succeeded");
    let env = cluster.ok("logs configured -c main");
    let ip = cluster.get("pod configured")["status"]["podIP"].as_str().unwrap().to_string();
    for line in [
        "LITERAL=plain",
        "EXPANDED=plain-more",
        "POD=configured",
        "COLOR=blue",
        "TOKEN=s3cret",
        "P_size=9",
        "ABSENT=<unset>",
        &format!("IP={ip}"),
    ] {
        assert!(env.lines().any(|l| l == line), "{line} in {env}");
    }
    let files = cluster.ok("logs configured -c files");
    assert!(
        files.contains("/config/color: Ok(\"blue\")") && files.contains("/shared/mark: Ok(\"made-by-init\")"),
        "{files}"
    );
    assert_eq!(cluster.ok("logs configured -c argv").trim(), r#"["renamed", "argv", "configured"]"#);
    // Without a command, argv[0] is the component's file name.
    cluster.apply(&toolbox_pod("plain", &["argv"], "  restartPolicy: Never\n"));
    assert_eq!(cluster.log_holds("plain", "argv").trim(), r#"["toolbox.wasm", "argv"]"#);
}

#[test]
fn what_the_node_does_not_serve_is_told() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    cluster.apply(&toolbox_pod("p", &["sleep"], "    resources: {limits: {memory: 64Mi}}\n"));
    cluster.until("pod p", "/status/phase", |v| *v == "Running");
    let grown = r#"{"spec":{"containers":[{"name":"main","resources":{"limits":{"memory":"128Mi"},"requests":{"memory":"128Mi"}}}]}}"#;
    cluster.ok(&format!("patch pod p --subresource=resize -p {grown}"));
    let conditions = cluster.until("pod p", "/status/conditions", |v| v.to_string().contains("PodResizePending"));
    assert!(conditions.to_string().contains("does not resize running containers"), "{conditions}");
    cluster.ok("debug p --image=toolbox --container=debug --attach=false");
    cluster.until("pod p", "/status/ephemeralContainerStatuses/0/state/waiting/message", |v| {
        v.as_str().is_some_and(|why| why.contains("does not run ephemeral containers"))
    });
}
