//! Metrics and autoscaling with stock kubectl and guests that burn CPU time.

use copepod_tests::{Cluster, wait_for};
use serde_json::json;

const BURN: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: burn}
spec:
  selector: {matchLabels: {app: burn}}
  template:
    metadata: {labels: {app: burn}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: toolbox
        args: [spin]
        resources: {requests: {cpu: 50m, memory: 8Mi}, limits: {cpu: 100m}}
      - name: idle
        image: toolbox
        args: [sleep]
        resources: {requests: {cpu: 10m}}
";

/// The fields of a table's row that begins with a name.
fn row(table: &str, name: &str) -> Option<Vec<String>> {
    let line = table.lines().find(|l| l.starts_with(name))?;
    Some(line.split_whitespace().map(str::to_string).collect())
}

/// A number with a unit.
fn amount(text: &str, unit: &str) -> Option<u64> {
    text.strip_suffix(unit)?.parse().ok()
}

#[test]
fn use_is_told_and_scales() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    cluster.apply(BURN);
    cluster.rolled_out("burn");
    cluster.ok("autoscale deployment burn --cpu-percent=50 --min=1 --max=3");
    let pod = cluster.pods("app=burn")[0].clone();

    // What the quota lets it burn, and nothing beside it.
    let containers = wait_for("the containers' use", || {
        let ran = cluster.k(&format!("top pod {pod} --containers"));
        let line = |name: &str| ran.out.lines().find(|l| l.split_whitespace().nth(1) == Some(name)).map(str::to_string);
        let (Some(main), Some(idle)) = (line("main"), line("idle")) else {
            return Err(format!("{}{}", ran.out, ran.err));
        };
        let cpu = |line: &str| line.split_whitespace().nth(2).and_then(|cpu| amount(cpu, "m"));
        match (cpu(&main), cpu(&idle)) {
            (Some(60..=110), Some(0..=5)) => Ok(ran.out),
            _ => Err(ran.out),
        }
    });
    assert!(
        containers.lines().next().unwrap().split_whitespace().eq(["POD", "NAME", "CPU(cores)", "MEMORY(bytes)"]),
        "{containers}"
    );
    let top = cluster.ok("top pods");
    let used = row(&top, &pod).unwrap();
    assert!(amount(&used[2], "Mi").is_some_and(|mebibytes| mebibytes < 100), "{top}");
    let node = cluster.ok("top node");
    let used = row(&node, "node-1").unwrap_or_else(|| panic!("{node}"));
    assert!(amount(&used[1], "m").is_some_and(|milli| milli >= 50), "{node}");
    for percent in [&used[2], &used[4]] {
        assert!(amount(percent, "%").is_some(), "{node}");
    }
    let whole = cluster.ok("get nodes.metrics.k8s.io");
    assert!(whole.lines().next().unwrap().split_whitespace().eq(["NAME", "CPU", "MEMORY", "WINDOW"]), "{whole}");

    // It asks for 60m and uses 100m, where 30m are the target.
    cluster.until("deployment burn", "/spec/replicas", |n| *n == 3);
    cluster.until("hpa burn", "/status/desiredReplicas", |n| *n == 3);
    wait_for("the autoscaler's description", || {
        let told = cluster.ok("describe hpa burn");
        let all =
            ["ValidMetricFound", "SuccessfulRescale", "cpu resource utilization (percentage of request) above target"];
        if all.iter().all(|text| told.contains(text)) { Ok(()) } else { Err(told) }
    });
    let shown = wait_for("the autoscaler's row", || {
        let table = cluster.ok("get hpa burn");
        match row(&table, "burn") {
            Some(row) if !row[3].contains("unknown") && row[6] == "3" => Ok(row),
            _ => Err(table),
        }
    });
    assert_eq!((shown[1].as_str(), shown[4].as_str(), shown[5].as_str()), ("Deployment/burn", "1", "3"));
    let (now, target) = shown[3].split_once('/').unwrap();
    assert!(shown[2] == "cpu:" && target == "50%" && amount(now, "%").is_some_and(|now| now > 50), "{shown:?}");

    // With another target it needs fewer, at once if it may.
    let metric = json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "main",
        "target": {"type": "AverageValue", "averageValue": "2"}}});
    let spec = json!({"metrics": [metric], "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}});
    let patch = json!({"spec": spec}).to_string();
    cluster.ok(&format!("patch hpa burn --type=merge -p {patch}"));
    cluster.until("deployment burn", "/spec/replicas", |n| *n == 1);
    wait_for("the event", || {
        let told = cluster.ok("describe hpa burn");
        if told.contains("New size: 1; reason: All metrics below target") { Ok(()) } else { Err(told) }
    });
}
