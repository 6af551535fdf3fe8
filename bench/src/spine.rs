//! `cargo xtask bench spine`: start, idle cost, size, a Deployment of 100, a pod's way to Running, and requests per
//! second through a Service beside a plain `wasmtime serve`.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Tools;
use crate::cluster::{Cluster, Parts, poll};
use crate::http::Connection;
use crate::load::{self, Ask};
use crate::process;
use crate::program::{Program, step};
use crate::report::{self, Report, Row, Samples};
use crate::target::Target;
use crate::wasmtime::{Serve, Wasmtime};
use crate::watch::{Poster, Watch};

const START_RUNS: usize = 5;
const IDLE_RUNS: usize = 3;
const SETTLE: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(10);

const DEPLOYMENT_RUNS: usize = 3;
const REPLICAS: u64 = 100;
const POD_RUNS: usize = 3;
const PODS: usize = 50;
/// How long the replicas, or a pod, may take before the part fails.
const PATIENCE: Duration = Duration::from_secs(150);

const ROUNDS: usize = 5;
const CONNECTIONS: usize = 8;
const ROUND: Duration = Duration::from_secs(5);
const WARM_UP: Duration = Duration::from_secs(2);

const IMAGE: &str = "bench/hello:1";
const MIB: f64 = 1024.0 * 1024.0;

/// Measures, prints the table.
///
/// # Errors
/// A part failed; the table says which.
pub fn run(tools: &Tools, component: &Path, wasmtime: Option<&Path>) -> Result<()> {
    let peer = Wasmtime::at(wasmtime);
    let peer_version = peer.as_ref().map_or("no wasmtime", |p| p.version.as_str());
    let about = report::about("spine", &tools.copepod, peer_version)?;
    let mut report = Report::default();
    report.add("start to ready", starts(tools));
    report.add("idle", idle(tools));
    report.add("binary", size(tools));
    let cluster = Cluster::start(tools, &tools.scratch.join("work"), Parts::Whole);
    match cluster.and_then(|c| with_service(&c, component).map(|at| (c, at))) {
        Ok((cluster, address)) => {
            report.add("requests", requests(component, &cluster, address, peer));
            report.add("deployment of 100", deployments(&cluster));
            report.add("pod create to Running", pods(&cluster));
        }
        Err(error) => report.add("a cluster with a Service", Err(error)),
    }
    println!("{about} Medians (least to greatest).\n\n{}", report.markdown());
    report.outcome()
}

/// Cold on an empty data directory, then warm on what the first start left.
fn starts(tools: &Tools) -> Result<Vec<Row>> {
    let (mut cold, mut warm) = (Samples::default(), Samples::default());
    for run in 0..START_RUNS {
        step(&format!("start to ready, run {} of {START_RUNS}", run + 1));
        let data = tools.scratch.join(format!("start-{run}"));
        for samples in [&mut cold, &mut warm] {
            let cluster = Cluster::start(tools, &data, Parts::Whole)?;
            // A node that has registered makes the second start a real one.
            cluster.node_ready()?;
            samples.push(millis(cluster.started_in));
        }
        let _ = std::fs::remove_dir_all(&data);
    }
    let command = "copepod server --data-dir DIR --listen 127.0.0.1:0 ...";
    Ok(vec![
        Row { what: "start to ready, empty data".into(), ours: cold.show("ms"), command, ..Row::default() },
        Row { what: "start to ready, second start".into(), ours: warm.show("ms"), command, ..Row::default() },
    ])
}

/// Memory after 5 s without work, CPU over the 10 s that follow.
fn idle(tools: &Tools) -> Result<Vec<Row>> {
    let (mut memory, mut cpu, mut parts) = (Samples::default(), Samples::default(), String::new());
    for run in 0..IDLE_RUNS {
        step(&format!("idle for {} s, run {} of {IDLE_RUNS}", (SETTLE + IDLE).as_secs(), run + 1));
        let data = tools.scratch.join(format!("idle-{run}"));
        let cluster = Cluster::start(tools, &data, Parts::Whole)?;
        cluster.node_ready()?;
        std::thread::sleep(SETTLE);
        let pid = cluster.server.pid();
        let processes: Vec<f64> = process::memory(pid)?.iter().map(|m| m.pss).collect();
        memory.push(processes.iter().sum());
        parts = processes.iter().map(|mib| format!("{mib:.1}")).collect::<Vec<_>>().join(" + ");
        let before = process::cpu_seconds(pid)?;
        std::thread::sleep(IDLE);
        cpu.push(process::cpu_seconds(pid)? - before);
        drop(cluster);
        let _ = std::fs::remove_dir_all(&data);
    }
    Ok(vec![
        Row {
            what: "idle memory, PSS of all processes".into(),
            ours: format!("{}; server + agent in the last run: {parts}", memory.show("MiB")),
            command: "grep ^Pss: /proc/PID/smaps_rollup",
            ..Row::default()
        },
        Row {
            what: "idle CPU in 10 s".into(),
            ours: cpu.show("s"),
            command: "cut -d' ' -f14-17 /proc/PID/stat",
            ..Row::default()
        },
    ])
}

fn size(tools: &Tools) -> Result<Vec<Row>> {
    let mib = process::file_size(&tools.copepod)? as f64 / MIB;
    let command = "ls -l target/release/copepod";
    Ok(vec![Row { what: "binary, stripped".into(), ours: format!("{mib:.1} MiB"), command, ..Row::default() }])
}

/// Pushes the component and runs one replica of it behind a node port; returns where it answers.
fn with_service(cluster: &Cluster, component: &Path) -> Result<SocketAddr> {
    step("one replica behind a Service");
    cluster.node_ready()?;
    cluster.push(component, IMAGE)?;
    let labels = json!({"app": "hello"});
    let container = json!({"name": "web", "image": IMAGE, "ports": [{"containerPort": 80}]});
    let template = json!({"metadata": {"labels": labels}, "spec": {"containers": [container]}});
    cluster.create(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "hello"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }))?;
    cluster.create(&json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "hello"},
        "spec": {"type": "NodePort", "selector": labels, "ports": [{"port": 80}]},
    }))?;
    let port = cluster.kubectl(&["get", "service", "hello", "-o", "jsonpath={.spec.ports[0].nodePort}"])?;
    let port: u16 = port.trim().parse().with_context(|| format!("the Service's node port is {port:?}"))?;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    answers(address)?;
    Ok(address)
}

/// Waits until a server answers with 200.
fn answers(address: SocketAddr) -> Result<()> {
    let target = Target::plain(address);
    let request = target.request("GET", "/", "");
    poll(PATIENCE, || {
        let status = Connection::open(&target)?.exchange(&request)?.status;
        ensure!(status == 200, "http://{address}/ answered {status}");
        Ok(())
    })
}

/// What one side gave over all rounds.
#[derive(Default)]
struct Side {
    rate: Samples,
    p50: Samples,
    p99: Samples,
    /// Milliseconds of the server's CPU for 1,000 requests.
    cpu: Samples,
    failures: u64,
}

impl Side {
    fn round(&mut self, server: &Program, address: SocketAddr) -> Result<()> {
        let load = get(server, address, ROUND)?;
        self.rate.push(load.rate());
        self.p50.push(load.latencies.quantile(0.5));
        self.p99.push(load.latencies.quantile(0.99));
        self.cpu.push(load.cpu_per_thousand() * 1000.0);
        self.failures += load.failures;
        Ok(())
    }
}

/// `GET /` of a server for so long.
fn get(server: &Program, address: SocketAddr, length: Duration) -> Result<load::Load> {
    let target = Target::plain(address);
    let request = target.request("GET", "/", "");
    let next = |_, _| Some(Ask { request: request.clone(), expect: 200 });
    load::run(&target, server.pid(), CONNECTIONS, length, next)
}

/// Rounds in turn, both servers up all the time, one load generator.
fn requests(component: &Path, cluster: &Cluster, address: SocketAddr, peer: Result<Wasmtime>) -> Result<Vec<Row>> {
    let serve = peer.and_then(|wasmtime| {
        let serve = wasmtime.serve(component)?;
        answers(serve.address)?;
        Ok(serve)
    });
    if let Err(error) = &serve {
        eprintln!("    without a peer: {error:#}");
    }
    get(&cluster.server, address, WARM_UP)?;
    if let Ok(Serve { address, program }) = &serve {
        get(program, *address, WARM_UP)?;
    }
    let (mut ours, mut theirs) = (Side::default(), Side::default());
    for round in 0..ROUNDS {
        step(&format!("requests, round {} of {ROUNDS}", round + 1));
        ours.round(&cluster.server, address)?;
        if let Ok(serve) = &serve {
            theirs.round(&serve.program, serve.address)?;
        }
    }
    let row = |what: &'static str, command, unit: &str, pick: fn(&Side) -> &Samples| {
        let (a, b) = (pick(&ours), pick(&theirs));
        let peer = match &serve {
            Ok(_) => b.show(unit),
            Err(error) => format!("cannot be had: {error:#}"),
        };
        let ratio = (serve.is_ok() && b.median() > 0.0).then(|| a.median() / b.median());
        Row { what: what.into(), ours: a.show(unit), peer: Some(peer), ratio, command }
    };
    let by_hand = "wasmtime serve -S cli --addr 127.0.0.1:0 hello.wasm";
    let mut rows = vec![
        row("requests through the Service, 8 connections", by_hand, "/s", |s| &s.rate),
        row("their latency, p50", "", "ms", |s| &s.p50),
        row("their latency, p99", "", "ms", |s| &s.p99),
        row("CPU of the servers for 1,000 requests", "", "ms", |s| &s.cpu),
    ];
    if ours.failures + theirs.failures > 0 {
        let (ours, peer) = (ours.failures.to_string(), Some(theirs.failures.to_string()));
        rows.push(Row { what: "failed requests, all rounds".into(), ours, peer, ..Row::default() });
    }
    Ok(rows)
}

/// From starting kubectl, and from the Deployment's first event, to the event that says 100 are ready.
fn deployments(cluster: &Cluster) -> Result<Vec<Row>> {
    let (mut whole, mut seen) = (Samples::default(), Samples::default());
    let replicas = format!("--replicas={REPLICAS}");
    for run in 0..DEPLOYMENT_RUNS {
        step(&format!("a Deployment of {REPLICAS} replicas, run {} of {DEPLOYMENT_RUNS}", run + 1));
        let name = format!("many-{run}");
        let watch = Watch::start(cluster, "/apis/apps/v1/namespaces/default/deployments")?;
        let start = Instant::now();
        cluster.kubectl(&["create", "deployment", &name, &format!("--image={IMAGE}"), &replicas])?;
        let added = watch.until(PATIENCE, &name, "ADDED", |kind, _| kind == "ADDED")?;
        let ready = watch.until(PATIENCE, &name, "all replicas ready", |_, deployment| {
            deployment.pointer("/status/readyReplicas").and_then(Value::as_u64) == Some(REPLICAS)
        })?;
        whole.push(millis(ready.duration_since(start)));
        seen.push(millis(ready.duration_since(added)));
        cluster.kubectl(&["delete", "deployment", &name, "--timeout=120s"])?;
        cluster.pods_gone(&format!("app={name}"))?;
    }
    let command = "kubectl create deployment many --image=bench/hello:1 --replicas=100";
    Ok(vec![
        Row {
            what: "Deployment of 100, kubectl's start to all Ready".into(),
            ours: whole.show("ms"),
            command,
            ..Row::default()
        },
        Row {
            what: "the same from its ADDED event".into(),
            ours: seen.show("ms"),
            command: "kubectl get deployment -w",
            ..Row::default()
        },
    ])
}

/// Pods one after another, each Running before the next; times as a watcher sees them.
fn pods(cluster: &Cluster) -> Result<Vec<Row>> {
    const PATH: &str = "/api/v1/namespaces/default/pods";
    let mut quantiles: [Samples; 4] = Default::default();
    for run in 0..POD_RUNS {
        step(&format!("{PODS} pods one after another, run {} of {POD_RUNS}", run + 1));
        let watch = Watch::start(cluster, PATH)?;
        let mut poster = Poster::start(cluster)?;
        let (mut seen, mut whole) = (Samples::default(), Samples::default());
        for pod in 0..PODS {
            let name = format!("one-{run}-{pod}");
            let object = json!({
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"bench": "one"}},
                "spec": {"containers": [{"name": "web", "image": IMAGE}], "terminationGracePeriodSeconds": 1},
            });
            let start = Instant::now();
            poster.post(PATH, &object)?;
            let added = watch.until(PATIENCE, &name, "ADDED", |kind, _| kind == "ADDED")?;
            let running = watch.until(PATIENCE, &name, "Running", |_, pod| {
                pod.pointer("/status/phase").and_then(Value::as_str) == Some("Running")
            })?;
            seen.push(millis(running.duration_since(added)));
            whole.push(millis(running.duration_since(start)));
        }
        let values = [seen.quantile(0.5), seen.quantile(0.99), whole.quantile(0.5), whole.quantile(0.99)];
        quantiles.iter_mut().zip(values).for_each(|(samples, value)| samples.push(value));
        cluster.kubectl(&["delete", "pods", "-l", "bench=one", "--timeout=120s"])?;
        cluster.pods_gone("bench=one")?;
    }
    let command = "kubectl get --raw '/api/v1/namespaces/default/pods?watch=1'";
    let names = [
        "pod's ADDED to Running event, p50 of 50",
        "pod's ADDED to Running event, p99 of 50",
        "POST sent (kubectl proxy) to Running event, p50 of 50",
        "POST sent (kubectl proxy) to Running event, p99 of 50",
    ];
    let rows = names.into_iter().zip(&quantiles);
    Ok(rows
        .map(|(what, samples)| Row { what: what.into(), ours: samples.show("ms"), command, ..Row::default() })
        .collect())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
