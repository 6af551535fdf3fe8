//! kubectl exec, attach and run with a terminal's streams; probes that run commands.

use copepod_tests::{Cluster, run_with_input, toolbox_pod};

fn kubectl(cluster: &Cluster, args: &str) -> std::process::Command {
    let mut command = cluster.kubectl();
    command.args(args.split(' '));
    command
}

#[test]
fn exec_runs_a_fresh_instance_in_the_container() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    cluster.apply(&toolbox_pod("box", &["sleep"], "    env: [{name: COLOUR, value: blue}]\n"));
    cluster.until("pod box", "/status/phase", |v| *v == "Running");

    // Arguments, environment, files and exit codes are those of the container.
    assert_eq!(cluster.ok("exec box -- toolbox env COLOUR HOSTNAME"), "COLOUR=blue\nHOSTNAME=box\n");
    assert_eq!(cluster.ok("exec box -- toolbox write /tmp-note first"), "Ok(())\n");
    assert_eq!(cluster.ok("exec box -c main -- toolbox cat /tmp-note"), "/tmp-note: Ok(\"first\")\n");
    let failed = cluster.k("exec box -- toolbox exit 3");
    assert!(!failed.ok && failed.err.contains("command terminated with exit code 1"), "{}", failed.err);
    let trapped = cluster.k("exec box -- toolbox trap");
    assert!(trapped.err.contains("deliberate trap") && trapped.err.contains("exit code 134"), "{}", trapped.err);

    // Standard input arrives whole and ends; much output comes back whole.
    let lines: String = (0..5000).map(|n| format!("line {n} of some length\n")).collect();
    let upper = run_with_input(&mut kubectl(&cluster, "exec -i box -- toolbox upper"), &lines);
    assert!(upper.ok && upper.out == lines.to_uppercase(), "{} bytes, {}", upper.out.len(), upper.err);

    // What cannot be done says why.
    for (args, words) in [
        ("exec box -c nobody -- toolbox env", "container nobody is not valid for pod box"),
        ("exec nobody -- toolbox env", "pods \"nobody\" not found"),
    ] {
        let ran = cluster.k(args);
        assert!(!ran.ok && ran.err.contains(words), "{args}: {}", ran.err);
    }
    cluster.push("hello", "hello");
    cluster.ok("run web --image=hello");
    cluster.until("pod web", "/status/phase", |v| *v == "Running");
    let web = cluster.k("exec web -- ls");
    assert!(!web.ok && web.err.contains("serves HTTP requests and has no command to run"), "{}", web.err);

    // A process ends with its client, and with its container.
    let mut spinning = kubectl(&cluster, "exec box -- toolbox spin").spawn().unwrap();
    cluster.ok("delete pod box --grace-period=1");
    assert!(!spinning.wait().unwrap().success());
}

#[test]
fn a_container_with_an_open_input_can_be_attached_to() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    let run = "run once -i --rm --restart=Never --quiet --image=toolbox --pod-running-timeout=1m -- upper";
    let ran = run_with_input(&mut kubectl(&cluster, run), "hello\nthere\n");
    assert!(ran.ok && ran.out.contains("HELLO\nTHERE\n"), "{:?} {}", ran.out, ran.err);
    cluster.apply(&toolbox_pod("open", &["upper"], "    stdin: true\n"));
    cluster.until("pod open", "/status/phase", |v| *v == "Running");
    // Without stdinOnce the input outlives its writers.
    for word in ["one", "two"] {
        let mut attached = kubectl(&cluster, "attach -i open");
        let mut attached =
            attached.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
        std::io::Write::write_all(attached.stdin.as_mut().unwrap(), format!("{word}\n").as_bytes()).unwrap();
        cluster.log_holds("open", &word.to_uppercase());
        attached.kill().unwrap();
        attached.wait().unwrap();
    }
}

#[test]
fn probes_run_commands() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    let probe = "    readinessProbe: {periodSeconds: 1, timeoutSeconds: 20, exec: {command: [toolbox, env, X]}}\n    \
                 livenessProbe: {periodSeconds: 1, timeoutSeconds: 20, failureThreshold: 1, exec: {command: [toolbox, exit, \"1\"]}}\n";
    cluster.apply(&toolbox_pod("probed", &["sleep"], probe));
    cluster.until("pod probed", "/status/containerStatuses/0/restartCount", |v| v.as_u64() >= Some(1));
    let events = cluster.ok("get events");
    assert!(events.contains("Liveness probe failed: command exited with code 1"), "{events}");
}
