//! What users read when something is wrong.

use std::net::TcpListener;

use copepod_tests::{Cluster, Ran, copepod, run_with_input, toolbox_pod, wait_for};

#[test]
fn broken_manifests() {
    let cluster = Cluster::start();
    let pod = |spec: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {spec}\n");
    let cases = [
        ("kind: [unclosed", vec!["yaml"]),
        (&pod("{containers: [{name: c, imag: x}]}"), vec!["unknown field \"spec.containers[0].imag\""]),
        (&pod("{containers: [{name: c, image: x, ports: [{containerPort: eighty}]}]}"), vec!["containerPort"]),
        (&pod("{containers: []}"), vec!["spec.containers", "Required value"]),
        (&pod("{containers: [{name: c}]}"), vec!["spec.containers[0].image", "Required value"]),
        (&pod("{containers: [{name: C_, image: x}]}"), vec!["spec.containers[0].name", "lowercase RFC 1123 label"]),
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {ports: [{port: 99999}]}\n",
            vec!["spec.ports[0].port", "between 1 and 65535"],
        ),
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: c, image: x}]}}}\n",
            vec!["selector` does not match template `labels`"],
        ),
        (
            "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: s}\nspec: {replicas: -1, minReadySeconds: -2, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {containers: [{name: c, image: x}]}}}\n",
            vec![
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
                "spec.minReadySeconds: Invalid value: -2",
                "selector` does not match template `labels`",
            ],
        ),
        (
            "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\nspec: {parallelism: -1, completions: -1, backoffLimit: -1, template: {spec: {restartPolicy: Never, containers: [{name: c, image: x}]}}}\n",
            vec![
                "spec.parallelism: Invalid value: -1: must be greater than or equal to 0",
                "spec.completions: Invalid value: -1",
                "spec.backoffLimit: Invalid value: -1",
            ],
        ),
        ("apiVersion: v1\nkind: Widget\nmetadata: {name: w}\n", vec!["no matches for kind \"Widget\""]),
        (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: nowhere}\n",
            vec!["namespaces \"nowhere\" not found"],
        ),
    ];
    for (yaml, words) in cases {
        let error = cluster.refuse(yaml);
        for word in words {
            assert!(error.contains(word), "{yaml}\nexpected {word:?} in:\n{error}");
        }
    }
    // Straight to the server, past kubectl's own checks.
    for (body, words) in [
        ("{\"apiVersion\":\"v1\",", "invalid JSON"),
        ("{\"apiVersion\":\"v1\",\"kind\":\"Secret\",\"metadata\":{\"name\":\"x\"}}", "Secret"),
        ("[]", ""),
    ] {
        let mut kubectl = cluster.kubectl();
        let ran =
            run_with_input(kubectl.args(["create", "--raw", "/api/v1/namespaces/default/configmaps", "-f", "-"]), body);
        assert!(
            !ran.ok && ran.err.contains("BadRequest") && ran.err.contains(words),
            "{body:?}: {}{}",
            ran.out,
            ran.err
        );
    }
}

#[test]
fn statuses_that_cannot_be() {
    let cluster = Cluster::start();
    let template = "selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: x}]}}";
    for (kind, more) in
        [("Deployment", "replicas: 0"), ("StatefulSet", "replicas: 0"), ("DaemonSet", "minReadySeconds: 0")]
    {
        let name = kind.to_lowercase();
        cluster.apply(&format!(
            "apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {{{more}, {template}}}\n"
        ));
    }
    // Another controller's, so that nobody but this test writes its status.
    cluster.apply(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {name: job}\nspec: {managedBy: example.com/me, completions: 2, template: {spec: {restartPolicy: Never, containers: [{name: c, image: x}]}}}\n",
    );
    let patch = |name: &str, status: &str| {
        cluster.k(&format!("patch {name} {name} --subresource=status --type=merge -p {{\"status\":{status}}}"))
    };
    let cases = [
        ("deployment", r#"{"replicas":-1}"#, "status.replicas: Invalid value: -1: must be greater than or equal to 0"),
        (
            "deployment",
            r#"{"replicas":1,"updatedReplicas":2}"#,
            "status.updatedReplicas: Invalid value: 2: cannot be greater than status.replicas",
        ),
        ("statefulset", r#"{"replicas":1,"readyReplicas":-1}"#, "status.readyReplicas: Invalid value: -1"),
        (
            "daemonset",
            r#"{"currentNumberScheduled":-1,"desiredNumberScheduled":0,"numberMisscheduled":0,"numberReady":0}"#,
            "status.currentNumberScheduled: Invalid value: -1",
        ),
        ("job", r#"{"active":-1}"#, "status.active: Invalid value: -1"),
        (
            "job",
            r#"{"conditions":[{"type":"Complete","status":"True"}]}"#,
            "status.startTime: Required value: startTime is required for finished job",
        ),
    ];
    for (name, status, expected) in cases {
        let ran = patch(name, status);
        assert!(!ran.ok && ran.err.contains(expected), "{name} {status}: {}{}", ran.out, ran.err);
    }
    // What counts on stays counted.
    let well = patch("job", r#"{"startTime":"2026-01-01T00:00:00Z","succeeded":1,"failed":1}"#);
    assert!(well.ok, "{}", well.err);
    let ran = patch("job", r#"{"failed":0}"#);
    assert!(!ran.ok && ran.err.contains("cannot decrease the failed counter"), "{}", ran.err);
}

#[test]
fn broken_images_name_themselves_in_the_pod() {
    let cluster = Cluster::start();
    let waiting = |pod: &str, reasons: &[&str], words: &[&str]| {
        wait_for(&format!("{pod} to say {words:?}"), || {
            let ran = cluster.k(&format!("get pod {pod} -o jsonpath={{.status.containerStatuses[0].state.waiting.reason}}|{{.status.containerStatuses[0].state.waiting.message}}"));
            let fits = reasons.iter().any(|r| ran.out.starts_with(r)) && words.iter().all(|w| ran.out.contains(w));
            if fits { Ok(()) } else { Err(ran.out + &ran.err) }
        });
    };
    // No such image: says how to push it.
    cluster.ok("run absent --image=nosuch:1");
    waiting("absent", &["ErrImagePull", "ImagePullBackOff"], &["nosuch:1", "copepod push"]);

    // Imports something that no node offers.
    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().join("odd.wasm");
    std::fs::write(&odd, odd_component()).unwrap();
    cluster.push_file(&odd, "odd:1");
    cluster.ok("run odd --image=odd:1");
    waiting("odd", &[""], &["acme:db/query"]);

    // Begins like wasm and is not.
    let corrupt = dir.path().join("corrupt.wasm");
    std::fs::write(&corrupt, b"\0asm\x01\0\0\0garbage").unwrap();
    cluster.push_file(&corrupt, "corrupt:1");
    cluster.ok("run corrupt --image=corrupt:1");
    waiting("corrupt", &[""], &["corrupt"]);

    // Not wasm at all: refused by the client, and by the server.
    let text = dir.path().join("text.wasm");
    std::fs::write(&text, "hello").unwrap();
    let ran: Ran =
        copepod().arg("push").arg(&text).arg("text:1").env("KUBECONFIG", cluster.kubeconfig()).output().unwrap().into();
    assert!(!ran.ok && ran.err.contains("not WebAssembly"), "{}", ran.err);

    // A missing ConfigMap is named.
    cluster.push("toolbox", "toolbox");
    cluster.apply(&toolbox_pod("unset", &["sleep"], "    envFrom: [{configMapRef: {name: nowhere}}]\n"));
    waiting("unset", &["CreateContainerConfigError"], &["configmap \"nowhere\" not found"]);
}

/// A component that imports an interface nobody offers: `(component (import "acme:db/query@1.0.0" (instance)))` with a
/// function in it, in the binary format (<https://github.com/WebAssembly/component-model/blob/main/design/mvp/Binary.md>).
fn odd_component() -> Vec<u8> {
    let name = b"acme:db/query@1.0.0";
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    // type section: one instance type that exports func "run": () -> ()
    let ty = [&[1, 0x42, 2, 1, 0x40, 0, 1, 0, 4, 0, 3][..], b"run", &[1, 0]].concat();
    bytes.extend([7, u8::try_from(ty.len()).unwrap()]);
    bytes.extend(ty);
    // import section: the instance of that type
    let import = [&[1, 0, u8::try_from(name.len()).unwrap()][..], name, &[5, 0]].concat();
    bytes.extend([10, u8::try_from(import.len()).unwrap()]);
    bytes.extend(import);
    bytes
}

#[test]
fn a_trap_at_start_becomes_crash_loop_back_off_with_its_message() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    cluster.apply(&toolbox_pod("trap", &["trap"], ""));
    cluster.until("pod trap", "/status/containerStatuses/0/state/waiting/reason", |v| *v == "CrashLoopBackOff");
    let status = cluster.get("pod trap")["status"]["containerStatuses"][0].clone();
    let last = &status["lastState"]["terminated"];
    assert!(last["message"].as_str().is_some_and(|m| m.contains("unreachable")), "{status}");
    assert!(last["exitCode"].as_i64() != Some(0), "{status}");
    let shown = cluster.ok("get pod trap");
    assert!(shown.contains("CrashLoopBackOff") || shown.contains("Error"), "{shown}");
    cluster.apply(&toolbox_pod("seven", &["exit", "1"], "  restartPolicy: Never\n"));
    cluster.until("pod seven", "/status/phase", |v| *v == "Failed");
}

#[test]
fn pods_that_fit_nowhere_say_why() {
    let cluster = Cluster::start();
    cluster.apply(&toolbox_pod("huge", &["sleep"], "    resources: {requests: {memory: 100Ti}}\n"));
    wait_for("FailedScheduling", || {
        let events = cluster.k("get events --field-selector involvedObject.name=huge");
        if events.out.contains("FailedScheduling") && events.out.contains("Insufficient memory") {
            Ok(())
        } else {
            Err(events.out)
        }
    });
}

#[test]
fn ports_and_directories_in_use() {
    let cluster = Cluster::start();
    let server = |args: &[&str]| -> Ran { copepod().arg("server").args(args).output().unwrap().into() };

    let second = server(&[
        "--data-dir",
        cluster.data_dir.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
        "--dns-listen",
        "127.0.0.1:0",
    ]);
    assert!(!second.ok && second.err.contains("in use by another copepod server"), "{}", second.err);

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("d");
    let busy = server(&["--data-dir", data.to_str().unwrap(), "--listen", &address, "--dns-listen", "127.0.0.1:0"]);
    assert!(!busy.ok && busy.err.contains(&address) && busy.err.contains("--listen"), "{}", busy.err);
    let busy = server(&["--data-dir", data.to_str().unwrap(), "--listen", "127.0.0.1:0", "--dns-listen", &address]);
    assert!(!busy.ok && busy.err.contains("--dns-listen"), "{}", busy.err);

    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let wrong = server(&["--data-dir", file.to_str().unwrap()]);
    assert!(
        !wrong.ok && wrong.err.contains(file.to_str().unwrap()) && wrong.err.contains("--data-dir"),
        "{}",
        wrong.err
    );
    let wrong = server(&["--data-dir", data.to_str().unwrap(), "--cluster-cidr", "10.0.0.0/8"]);
    assert!(!wrong.ok && wrong.err.contains("overlap"), "{}", wrong.err);
    // /proc takes no directories, not even root's: as good as a read-only disk.
    let wrong = server(&["--data-dir", "/proc/copepod"]);
    assert!(!wrong.ok && wrong.err.contains("cannot make the data directory /proc/copepod"), "{}", wrong.err);
}

#[test]
fn strangers_are_told_to_identify_themselves() {
    let cluster = Cluster::start();
    let answer = copepod_tests::http::get_tls(&cluster, "/api/v1/namespaces");
    assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("\"reason\":\"Unauthorized\""), "{answer}");
    for open in ["/readyz", "/livez", "/healthz"] {
        let answer = copepod_tests::http::get_tls(&cluster, open);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok"), "{open}: {answer}");
    }
    assert!(copepod_tests::http::get_tls(&cluster, "/version").contains("v1.36."));
}
