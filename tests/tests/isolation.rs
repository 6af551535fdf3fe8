//! Guests touch neither host sockets nor host files, and share only what their pod shares.

use copepod_tests::{Cluster, toolbox_pod, wait_for};

#[test]
fn two_pods_listen_on_the_same_port_and_the_host_has_no_listener() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    for name in ["a", "b"] {
        cluster.apply(&toolbox_pod(name, &["serve", "0.0.0.0:7777"], ""));
    }
    for name in ["a", "b"] {
        cluster.log_holds(name, "serving on 0.0.0.0:7777");
    }
    // The kernel's own table of the network namespace of the agent: nobody listens on 7777 (0x1E61).
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = std::fs::read_to_string(table).unwrap_or_default();
        let listening = text.lines().any(|l| {
            let words: Vec<&str> = l.split_whitespace().collect();
            words.get(1).is_some_and(|local| local.ends_with(":1E61")) && words.get(3) == Some(&"0A")
        });
        assert!(!listening, "the host listens on 7777:\n{text}");
    }
    // Each is reached under its own address by a third pod.
    for name in ["a", "b"] {
        let ip = cluster.until(&format!("pod {name}"), "/status/podIP", |v| v.is_string());
        let ip = ip.as_str().unwrap();
        let asker = format!("ask-{name}");
        cluster.apply(&toolbox_pod(&asker, &["ask", &format!("{ip}:7777"), "1"], "  restartPolicy: Never\n"));
        cluster.log_holds(&asker, &format!("answer: {name}"));
    }
    // A pod's loopback is its own: nobody listens on 7777 inside this one.
    cluster.apply(&toolbox_pod("lonely", &["ask", "127.0.0.1:7777", "1"], "  restartPolicy: Never\n"));
    cluster.log_holds("lonely", "error: ");
    // The metadata address is denied by default.
    cluster.apply(&toolbox_pod("curious", &["ask", "169.254.169.254:80", "1"], "  restartPolicy: Never\n"));
    cluster.log_holds("curious", "error: ");
}

#[test]
fn guest_files_stay_in_memory_and_in_their_pod() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    let secret = "a-text-that-stands-nowhere-else-7f3a";
    // Put together at run time: the manifest itself is stored on disk, by the server.
    let (left, right) = secret.split_at(20);
    let init = |name: &str, path: &str| {
        format!(
            "  - name: {name}\n    image: toolbox\n    args: [write, {path}, '{right}']\n    volumeMounts: [{{name: v, mountPath: /v}}]\n"
        )
    };
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: scribe}}\nspec:\n  restartPolicy: Never\n  volumes: [{{name: v, emptyDir: {{}}}}]\n  initContainers:\n{}{}  containers:\n  - name: main\n    image: toolbox\n    args: [cat, /v/note-{left}, /note-{left}, /end]\n    volumeMounts: [{{name: v, mountPath: /v}}]\n",
        init("volume", &format!("/v/note-{left}")),
        init("root", &format!("/note-{left}")),
    ));
    let log = cluster.log_holds("scribe", "/end:");
    let shared = log.matches(&format!("Ok(\"{right}\")")).count();
    assert_eq!(shared, 2, "the pod's filesystem and its volume are shared by its containers: {log}");
    cluster.apply(&toolbox_pod("stranger", &["cat", &format!("/note-{left}")], "  restartPolicy: Never\n"));
    let log = cluster.log_holds("stranger", "note-");
    assert!(log.contains("Err("), "another pod sees nothing of it: {log}");
    let mut stack = vec![cluster.data_dir.clone()];
    while let Some(dir) = stack.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            assert!(
                !path.file_name().unwrap().to_string_lossy().contains(left),
                "a guest's file lies on disk: {}",
                path.display()
            );
            if path.is_dir() {
                stack.push(path);
            }
        }
    }
}

#[test]
fn a_pod_of_two_components_shares_files_and_loopback() {
    let cluster = Cluster::start();
    cluster.push("pair_writer", "pair-writer");
    cluster.push("pair_reader", "pair-reader");
    let yaml = include_str!("../../examples/pair/pair.yaml")
        .replace("./pair-writer.wasm", "pair-writer")
        .replace("./pair-reader.wasm", "pair-reader");
    cluster.apply(&yaml);
    let log = wait_for("the reader's line", || {
        let ran = cluster.k("logs pair -c reader");
        if ran.out.contains("file: written by the writer / call: the writer heard: round 0") {
            Ok(ran.out)
        } else {
            Err(ran.out + &ran.err)
        }
    });
    assert!(!log.is_empty());
    let both = cluster.k("logs pair");
    assert!(
        both.ok || both.err.contains("a container name must be specified") || both.err.contains("Defaulted container"),
        "{}",
        both.err
    );
}

#[test]
fn a_frontend_calls_its_backend_by_name() {
    let cluster = Cluster::start();
    cluster.push("guestbook_frontend", "guestbook-frontend");
    cluster.push("guestbook_backend", "guestbook-backend");
    let yaml = include_str!("../../examples/guestbook/guestbook.yaml")
        .replace("./guestbook-frontend.wasm", "guestbook-frontend")
        .replace("./guestbook-backend.wasm", "guestbook-backend");
    cluster.apply(&yaml);
    cluster.rolled_out("guestbook-backend");
    cluster.rolled_out("guestbook");
    let authority = format!("{}:30081", cluster.node_ports);
    let signed =
        wait_for("the signed book", || match copepod_tests::http::call(&authority, "POST", "/", "hello book") {
            Ok((200, body)) if body.contains("hello book") => Ok(body),
            other => Err(format!("{other:?}")),
        });
    assert!(signed.starts_with("Guestbook"), "{signed}");
    // Once it works, it works every time: no call meets a connection that somebody is just closing.
    for round in 0..40 {
        let (status, body) = copepod_tests::http::get(&authority, "/").unwrap();
        assert!(status == 200 && body.contains("hello book"), "call {round}: {status} {body}");
    }
}

#[test]
fn memory_limits_end_in_oom_killed_and_spinning_neighbours_do_not_matter() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    cluster.apply(&toolbox_pod("spinner", &["spin"], ""));
    cluster.apply(&toolbox_pod(
        "glutton",
        &["alloc", "64"],
        "    resources: {limits: {memory: 16Mi}}\n  restartPolicy: Never\n",
    ));
    let state = cluster.until("pod glutton", "/status/containerStatuses/0/state/terminated", |v| v.is_object());
    assert_eq!((&state["reason"], &state["exitCode"]), (&"OOMKilled".into(), &137.into()), "{state}");
    // The spinner is still there, the node still answers, and the spinner goes when told.
    cluster.until("pod spinner", "/status/phase", |v| *v == "Running");
    cluster.ok("delete pod spinner --grace-period=1");
}
