//! The scheduler as kubectl sees it: why pods wait, gates, preemption, schedulers by name.

use copepod_tests::{Cluster, copepod, wait_for};
use serde_json::Value;

/// A pod of an image that is never there: it is placed all the same.
fn pod(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  terminationGracePeriodSeconds: 0\n  containers: [{{name: main, image: 'nowhere:1', resources: {{requests: {{{spec}}}}}}}]\n"
    )
}

fn scheduled(cluster: &Cluster, name: &str) -> Value {
    let conditions = cluster.get(&format!("pod {name}"))["status"]["conditions"].clone();
    conditions.as_array().into_iter().flatten().find(|c| c["type"] == "PodScheduled").cloned().unwrap_or_default()
}

fn until_scheduled(cluster: &Cluster, name: &str, status: &str, reason: &str) -> Value {
    wait_for(&format!("PodScheduled of {name} is {status} {reason}"), || {
        let condition = scheduled(cluster, name);
        let right = condition["status"] == status && condition["reason"].as_str().unwrap_or_default() == reason;
        if right { Ok(condition) } else { Err(condition.to_string()) }
    })
}

fn event(cluster: &Cluster, pod: &str, reason: &str) -> Value {
    wait_for(&format!("event {reason} of {pod}"), || {
        let events = cluster.get(&format!("events --field-selector involvedObject.name={pod},reason={reason}"));
        events["items"].get(0).cloned().ok_or_else(|| events.to_string())
    })
}

#[test]
fn pods_that_wait_say_why_and_are_placed_when_they_can_be() {
    let cluster = Cluster::start();

    // More than there is.
    cluster.apply(&pod("big", "cpu: '10000'"));
    let why = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    assert_eq!(until_scheduled(&cluster, "big", "False", "Unschedulable")["message"], why);
    let told = event(&cluster, "big", "FailedScheduling");
    assert_eq!((&told["message"], &told["type"]), (&why.into(), &"Warning".into()));

    // A taint, until it is gone.
    cluster.ok("taint node node-1 team=red:NoSchedule");
    cluster.apply(&pod("tainted", "cpu: 1m"));
    let condition = until_scheduled(&cluster, "tainted", "False", "Unschedulable");
    let message = condition["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("0/1 nodes are available: 1 node(s) had untolerated taint(s)."), "{message}");
    cluster.ok("taint node node-1 team-");
    until_scheduled(&cluster, "tainted", "True", "");
    let told = event(&cluster, "tainted", "Scheduled");
    assert_eq!(told["message"], "Successfully assigned default/tainted to node-1");

    // A label that comes later.
    cluster.apply(&format!("{}  nodeSelector: {{disk: ssd}}\n", pod("selective", "cpu: 1m")));
    until_scheduled(&cluster, "selective", "False", "Unschedulable");
    cluster.ok("label node node-1 disk=ssd");
    until_scheduled(&cluster, "selective", "True", "");

    // Gates.
    cluster.apply(&format!("{}  schedulingGates: [{{name: example.com/wait}}]\n", pod("gated", "cpu: 1m")));
    assert_eq!(scheduled(&cluster, "gated")["reason"], "SchedulingGated");
    assert!(cluster.ok("get pod gated").contains("SchedulingGated"));
    let patch = r#"[{"op":"remove","path":"/spec/schedulingGates"}]"#;
    cluster.ok(&format!("patch pod gated --type=json -p {patch}"));
    until_scheduled(&cluster, "gated", "True", "");

    // Another scheduler's pod is left alone; what came after it is placed.
    cluster.apply(&format!("{}  schedulerName: other\n", pod("others", "cpu: 1m")));
    cluster.apply(&pod("after", "cpu: 1m"));
    until_scheduled(&cluster, "after", "True", "");
    assert_eq!(cluster.get("pod others")["spec"]["nodeName"], Value::Null);
    assert!(scheduled(&cluster, "others").is_null());
}

#[test]
fn more_important_pods_make_room() {
    let cluster = Cluster::start();
    cluster.ok("create priorityclass high --value=1000");
    cluster.ok("create priorityclass meek --value=1000 --preemption-policy=Never");
    // Milli-CPUs: half of the node and a little more.
    let cpus = cluster.get("node node-1")["status"]["allocatable"]["cpu"].as_str().unwrap_or_default().to_string();
    let milli: u64 = match cpus.strip_suffix('m') {
        Some(milli) => milli.parse().expect("milli-CPUs"),
        None => cpus.parse::<u64>().expect("CPUs") * 1000,
    };
    let most = format!("cpu: {}m", milli / 2 + 1);
    cluster.apply(&pod("low", &most));
    until_scheduled(&cluster, "low", "True", "");
    let uid = cluster.get("pod low")["metadata"]["uid"].clone();

    cluster.apply(&format!("{}  priorityClassName: meek\n", pod("polite", &most)));
    let condition = until_scheduled(&cluster, "polite", "False", "Unschedulable");
    let message = condition["message"].as_str().unwrap_or_default();
    assert!(message.ends_with("preemption: not eligible due to preemptionPolicy=Never."), "{message}");
    assert_eq!(cluster.get("pod low")["metadata"]["uid"], uid, "nobody went");
    cluster.ok("delete pod polite");

    cluster.apply(&format!("{}  priorityClassName: high\n", pod("urgent", &most)));
    until_scheduled(&cluster, "urgent", "True", "");
    let told = event(&cluster, "low", "Preempted");
    let urgent = cluster.get("pod urgent");
    let expected =
        format!("Preempted by pod {} on node node-1", urgent["metadata"]["uid"].as_str().unwrap_or_default());
    assert_eq!(told["message"], expected.as_str());
    assert_eq!(urgent["spec"]["nodeName"], "node-1");
    wait_for("low gone", || {
        let ran = cluster.k("get pod low");
        if ran.ok { Err(ran.out) } else { Ok(()) }
    });
}

#[test]
fn a_node_offers_its_disk_and_what_others_say_it_has() {
    let cluster = Cluster::start();
    cluster.apply(&pod("disk", "ephemeral-storage: 1Mi"));
    until_scheduled(&cluster, "disk", "True", "");

    // As the documentation advertises an extended resource: by a patch of the capacity alone.
    let dongle = pod("dongle", "").replace("requests: {}", "limits: {example.com/dongle: '3'}");
    cluster.apply(&dongle);
    let condition = until_scheduled(&cluster, "dongle", "False", "Unschedulable");
    let message = condition["message"].as_str().unwrap_or_default();
    assert!(message.starts_with("0/1 nodes are available: 1 Insufficient example.com/dongle."), "{message}");
    let patch = "[{\"op\":\"add\",\"path\":\"/status/capacity/example.com~1dongle\",\"value\":\"4\"}]";
    cluster.ok(&format!("patch node node-1 --subresource=status --type=json -p {patch}"));
    until_scheduled(&cluster, "dongle", "True", "");
    let node = cluster.get("node node-1")["status"].clone();
    for has in ["capacity", "allocatable"] {
        assert_eq!(node[has]["example.com/dongle"], "4", "{node}");
        assert!(node[has]["ephemeral-storage"].is_string(), "{node}");
    }
}

#[test]
fn schedulers_by_name_come_from_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("scheduler.yaml");
    let config = |profiles: &str| {
        let head = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n";
        std::fs::write(&file, format!("{head}profiles: [{profiles}]\n")).unwrap();
        file.to_str().unwrap().to_string()
    };
    // What is not followed is refused by name, before anything starts.
    let given = config("{pluginConfig: [{name: InterPodAffinity, args: {hardPodAffinityWeight: 7}}]}");
    let data = dir.path().join("data");
    let refused = copepod().args(["server", "--scheduler-config", &given, "--data-dir"]).arg(&data).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains(&given), "{said}");
    assert!(said.contains("profiles[0].pluginConfig[0].args.hardPodAffinityWeight: Forbidden"), "{said}");

    // A second one that looks at no taints.
    let given = config("{}, {schedulerName: bold, plugins: {filter: {disabled: [{name: TaintToleration}]}}}");
    let cluster = Cluster::start_with(&["--scheduler-config", &given]);
    cluster.ok("taint node node-1 team=red:NoSchedule");
    cluster.apply(&pod("shy", "cpu: 1m"));
    cluster.apply(&format!("{}  schedulerName: bold\n", pod("brave", "cpu: 1m")));
    until_scheduled(&cluster, "brave", "True", "");
    until_scheduled(&cluster, "shy", "False", "Unschedulable");
    assert_eq!(event(&cluster, "brave", "Scheduled")["message"], "Successfully assigned default/brave to node-1");
}
