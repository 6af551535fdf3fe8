//! Tables of the StatefulSet decision.

use serde_json::{Value, json};

use super::super::testing::*;
use super::super::testing_cluster::Cluster;
use super::*;

pub(super) const SET: &str = "statefulsets";

/// A set `web` of three, with more of its spec in YAML's block style.
fn set(more: &str) -> Value {
    let mut set: Value = yaml(
        "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: web}\nspec:\n  replicas: 3\n  serviceName: svc\n  \
         revisionHistoryLimit: 2\n  updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 0}}\n  \
         selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    \
         spec: {containers: [{name: c, image: a}]}\n",
    );
    let more: Value = yaml(&format!("{{{more}}}"));
    json_patch::merge(&mut set, &json!({"spec": more}));
    set
}

pub(super) fn cluster(more: &str) -> Cluster {
    let mut cluster = Cluster::default();
    cluster.create(SET, set(more)).unwrap();
    cluster
}

pub(super) fn decide(cluster: &Cluster, failures: &mut Backoff) -> Plan {
    let (pods, claims) = (cluster.list("pods"), cluster.list("persistentvolumeclaims"));
    let revisions = cluster.list("controllerrevisions");
    let seen = Observed { pods: &pods, claims: &claims, revisions: &revisions };
    reconcile(&cluster.list::<StatefulSet>(SET)[0], &seen, failures, cluster.now())
}

/// Syncs until nothing more is written; what was written to pods, in order.
fn settle(cluster: &mut Cluster) -> Vec<String> {
    let mut log = Vec::new();
    for _ in 0..50 {
        let plan = decide(cluster, &mut Backoff::default());
        if plan.is_empty() {
            return log;
        }
        log.extend(plan.actions.iter().filter(|a| a.target().gvr.resource == "pods").map(|a| match a {
            Action::Create { target, .. } => format!("+{}", target.name),
            Action::Patch { target, .. } => format!("~{}", target.name),
            Action::Delete { target, .. } => format!("-{}", target.name),
        }));
        cluster.apply(&plan, usize::MAX);
    }
    panic!("no end of writes: {log:?}");
}

fn run(cluster: &mut Cluster, pods: &[&str]) {
    pods.iter().for_each(|pod| cluster.run(pod, "n1", true));
}

pub(super) fn image(cluster: &mut Cluster, image: &str) {
    cluster.edit(SET, "web", |s| s["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image));
}

fn images(cluster: &Cluster) -> String {
    let of = |p: &Value| p["spec"]["containers"][0]["image"].as_str().unwrap().to_string();
    cluster.values("pods").map(of).collect::<Vec<_>>().join("")
}

fn status(cluster: &Cluster) -> Value {
    cluster.get(SET, "web").unwrap()["status"].clone()
}

/// A set whose pods all run.
fn running(more: &str) -> Cluster {
    let mut cluster = cluster(more);
    let replicas = cluster.get(SET, "web").unwrap()["spec"]["replicas"].as_i64().unwrap();
    for _ in 0..replicas {
        settle(&mut cluster);
        for pod in cluster.names("pods") {
            if cluster.get("pods", &pod).unwrap()["status"]["phase"] == "Pending" {
                cluster.run(&pod, "n1", true);
            }
        }
    }
    settle(&mut cluster);
    cluster
}

#[test]
fn the_revision_comes_first_then_each_pod_after_the_one_before() {
    let mut c = cluster("");
    let plan = decide(&c, &mut Backoff::default());
    assert_eq!(
        plan.actions.iter().map(|a| a.target().gvr.resource.as_str()).collect::<Vec<_>>(),
        ["controllerrevisions"]
    );
    assert_eq!(plan.requeue_after, Some(Duration::ZERO));
    for ordinal in 0..3 {
        let pod = format!("web-{ordinal}");
        assert_eq!(settle(&mut c), [format!("+{pod}")]);
        c.run(&pod, "n1", false);
        assert!(settle(&mut c).is_empty(), "waits for {pod} to be ready");
        c.run(&pod, "n1", true);
    }
    assert!(settle(&mut c).is_empty());
    let revision = &c.names("controllerrevisions")[0];
    let expected = json!({
        "replicas": 3, "readyReplicas": 3, "availableReplicas": 3, "currentReplicas": 3, "updatedReplicas": 3,
        "currentRevision": revision, "updateRevision": revision, "observedGeneration": 1, "collisionCount": 0,
    });
    assert_eq!(status(&c), expected);
}

#[test]
fn a_pod_has_its_identity() {
    let mut c = cluster("ordinals: {start: 5}, volumeClaimTemplates: [{metadata: {name: data}}]");
    c.edit(SET, "web", |s| {
        s["spec"]["template"]["spec"]["volumes"] =
            json!([{"name": "data", "emptyDir": {}}, {"name": "x", "emptyDir": {}}])
    });
    settle(&mut c);
    let pod = c.get("pods", "web-5").unwrap();
    let labels = json!({
        "app": "web", "statefulset.kubernetes.io/pod-name": "web-5", "apps.kubernetes.io/pod-index": "5",
        "controller-revision-hash": c.names("controllerrevisions")[0],
    });
    assert_eq!(pod["metadata"]["labels"], labels);
    assert_eq!((&pod["spec"]["hostname"], &pod["spec"]["subdomain"]), (&json!("web-5"), &json!("svc")));
    let volumes =
        json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data-web-5"}}, {"name": "x", "emptyDir": {}}]);
    assert_eq!(pod["spec"]["volumes"], volumes);
    assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], "StatefulSet");
}

#[test]
fn names_and_ordinals() {
    let cases = [
        ("web-0", Some(0)),
        ("web-12", Some(12)),
        ("web-01", None),
        ("web-x", None),
        ("web", None),
        ("web-1-2", None),
        ("api-1", None),
        ("web--1", None),
    ];
    for (name, expected) in cases {
        assert_eq!(pods::ordinal("web", name), expected, "{name}");
    }
    let set: StatefulSet = serde_json::from_value(set("volumeClaimTemplates: [{metadata: {name: data}}]")).unwrap();
    for (name, expected) in [("data-web-3", true), ("data-web", false), ("data-api-3", false), ("logs-web-3", false)] {
        assert_eq!(pods::may_own(&set, name), expected, "{name}");
    }
}

#[test]
fn parallel_creates_and_deletes_all_at_once() {
    let mut c = cluster("podManagementPolicy: Parallel");
    assert_eq!(settle(&mut c), ["+web-0", "+web-1", "+web-2"]);
    run(&mut c, &["web-0", "web-1", "web-2"]);
    c.edit(SET, "web", |s| s["spec"]["replicas"] = json!(1));
    assert_eq!(settle(&mut c), ["-web-2", "-web-1"]);
    c.edit(SET, "web", |s| s["spec"]["replicas"] = json!(2_000_000_000));
    let plan = decide(&c, &mut Backoff::default());
    assert_eq!(plan.actions.len(), MAX_BURST, "bounded");
}

#[test]
fn scaling_down_goes_from_the_highest_one_by_one() {
    let mut c = running("");
    c.edit(SET, "web", |s| s["spec"]["replicas"] = json!(1));
    assert_eq!(settle(&mut c), ["-web-2"]);
    c.remove("pods", "web-2");
    // A lower pod that is not ready holds it up, as long as it is not the one to go.
    c.run("web-0", "n1", false);
    assert!(settle(&mut c).is_empty());
    c.run("web-0", "n1", true);
    assert_eq!(settle(&mut c), ["-web-1"]);
}

#[test]
fn pods_that_ended_do_not_hold_a_scale_down_up() {
    let mut c = running("");
    ["web-1", "web-2"].iter().for_each(|pod| c.fail(pod));
    c.edit(SET, "web", |s| s["spec"]["replicas"] = json!(0));
    assert_eq!(settle(&mut c), ["-web-2"]);
    c.remove("pods", "web-2");
    assert_eq!(settle(&mut c), ["-web-1"]);
}

#[test]
fn moving_the_start_makes_the_new_before_the_old_go() {
    let mut c = running("");
    c.edit(SET, "web", |s| s["spec"]["ordinals"] = json!({"start": 1}));
    assert_eq!(settle(&mut c), ["+web-3"]);
    run(&mut c, &["web-3"]);
    assert_eq!(settle(&mut c), ["-web-0"]);
}

#[test]
fn rolling_update_by_partition_and_max_unavailable() {
    // (rollingUpdate, the waves of deletions)
    let cases: [(&str, &[&[&str]]); 4] = [
        ("{partition: 0}", &[&["-web-2"], &["-web-1"], &["-web-0"]]),
        ("{partition: 2}", &[&["-web-2"]]),
        ("{partition: 0, maxUnavailable: 2}", &[&["-web-2", "-web-1"], &["-web-0"]]),
        ("{partition: 0, maxUnavailable: '10%'}", &[&["-web-2"], &["-web-1"], &["-web-0"]]),
    ];
    for (rolling, waves) in cases {
        let mut c = running(&format!("updateStrategy: {{rollingUpdate: {rolling}}}"));
        image(&mut c, "b");
        for wave in waves {
            assert_eq!(settle(&mut c), *wave, "{rolling}");
            let gone: Vec<&str> = wave.iter().map(|w| w.trim_start_matches('-')).collect();
            gone.iter().for_each(|pod| c.remove("pods", pod));
            for pod in gone.iter().rev() {
                assert_eq!(settle(&mut c), [format!("+{pod}")], "{rolling}");
                c.run(pod, "n1", true);
            }
        }
        assert!(settle(&mut c).is_empty(), "{rolling}");
        let status = status(&c);
        let done = !rolling.contains("2}") || rolling.contains("maxUnavailable");
        assert_eq!(status["currentRevision"] == status["updateRevision"], done, "{rolling}: {status}");
        assert_eq!(images(&c), if done { "bbb" } else { "aab" }, "{rolling}");
    }
}

#[test]
fn a_rolling_update_counts_from_the_start_ordinal() {
    // (rollingUpdate, the waves of deletions, the images in the end)
    let cases: [(&str, &[&[&str]], &str); 5] = [
        ("{partition: 0}", &[&["-web-9"], &["-web-8"], &["-web-7"]], "bbb"),
        ("{partition: 2}", &[&["-web-9"]], "aab"),
        ("{partition: 3}", &[], "aaa"),
        ("{partition: 7}", &[], "aaa"),
        ("{partition: 1, maxUnavailable: 2}", &[&["-web-9", "-web-8"]], "abb"),
    ];
    for (policy, (rolling, waves, expected)) in
        ["OrderedReady", "Parallel"].into_iter().flat_map(|p| cases.iter().map(move |case| (p, *case)))
    {
        let mut c = running(&format!(
            "ordinals: {{start: 7}}, podManagementPolicy: {policy}, updateStrategy: {{rollingUpdate: {rolling}}}"
        ));
        assert_eq!(c.names("pods"), ["web-7", "web-8", "web-9"]);
        image(&mut c, "b");
        for wave in waves {
            assert_eq!(settle(&mut c), *wave, "{policy} {rolling}");
            let gone: Vec<&str> = wave.iter().map(|w| w.trim_start_matches('-')).collect();
            gone.iter().for_each(|pod| c.remove("pods", pod));
            while c.names("pods").len() < 3 || c.values("pods").any(|p| p["status"]["phase"] == "Pending") {
                settle(&mut c);
                for pod in gone.iter().filter(|p| c.get("pods", p).is_some()).collect::<Vec<_>>() {
                    c.run(pod, "n1", true);
                }
            }
        }
        assert!(settle(&mut c).is_empty(), "{policy} {rolling}");
        assert_eq!(images(&c), expected, "{policy} {rolling}");
        let status = status(&c);
        assert_eq!(status["currentRevision"] == status["updateRevision"], expected == "bbb", "{policy} {rolling}");
        // A pod that is lost comes back as its ordinal has it.
        for pod in ["web-7", "web-9"] {
            c.remove("pods", pod);
            settle(&mut c);
            run(&mut c, &[pod]);
            settle(&mut c);
        }
        assert_eq!(images(&c), expected, "{policy} {rolling}: after a loss");
    }
}

#[test]
fn a_parallel_rollout_takes_no_more_than_may_be_unavailable() {
    // (maxUnavailable, minReadySeconds, pods that are not ready, the first that go)
    let cases: [(&str, i64, &[&str], &[&str]); 7] = [
        ("", 0, &[], &["-web-2"]),
        ("", 0, &["web-0"], &["-web-0"]),
        ("", 0, &["web-0", "web-1", "web-2"], &["-web-2"]),
        ("", 3600, &[], &["-web-2"]),
        ("", 3600, &["web-1"], &["-web-1"]),
        ("maxUnavailable: 2", 0, &["web-0"], &["-web-0", "-web-2"]),
        ("maxUnavailable: 2", 3600, &[], &["-web-2", "-web-1"]),
    ];
    for (most, min_ready, down, expected) in cases {
        let mut c = cluster(&format!(
            "podManagementPolicy: Parallel, minReadySeconds: {min_ready}, updateStrategy: {{rollingUpdate: {{{most}}}}}"
        ));
        settle(&mut c);
        for pod in ["web-0", "web-1", "web-2"] {
            c.run(pod, "n1", !down.contains(&pod));
        }
        settle(&mut c);
        image(&mut c, "b");
        assert_eq!(settle(&mut c), expected, "{most} {min_ready} {down:?}");
        let first = expected[0].trim_start_matches('-');
        c.remove("pods", first);
        assert_eq!(settle(&mut c), [format!("+{first}")], "{most} {min_ready} {down:?}: it must be available first");
    }
}

#[test]
fn a_lost_pod_below_the_partition_comes_back_as_it_was() {
    let mut c = running("updateStrategy: {rollingUpdate: {partition: 2}}");
    image(&mut c, "b");
    assert_eq!(settle(&mut c), ["-web-2"]);
    c.remove("pods", "web-2");
    settle(&mut c);
    run(&mut c, &["web-2"]);
    c.remove("pods", "web-0");
    settle(&mut c);
    assert_eq!(images(&c), "aab");
    assert_eq!((&status(&c)["currentReplicas"], &status(&c)["updatedReplicas"]), (&json!(2), &json!(1)));
}

#[test]
fn on_delete_replaces_only_what_the_user_deletes() {
    let mut c = running("updateStrategy: {type: OnDelete, rollingUpdate: null}");
    image(&mut c, "b");
    assert!(settle(&mut c).is_empty());
    c.remove("pods", "web-1");
    assert_eq!(settle(&mut c), ["+web-1"]);
    assert_eq!(images(&c), "aba");
}

#[test]
fn a_pod_that_ended_is_replaced_with_back_off() {
    let mut c = running("");
    let mut failures = Backoff::default();
    c.fail("web-1");
    let plan = decide(&c, &mut failures);
    assert_eq!(plan.actions.len(), 1, "{plan:?}");
    let plan = decide(&c, &mut failures);
    assert!(plan.actions.is_empty() && plan.requeue_after == Some(Duration::from_secs(1)), "{plan:?}");
    c.wait(1);
    assert_eq!(decide(&c, &mut failures).actions.len(), 1);
}

#[test]
fn min_ready_seconds_hold_the_next_pod_up() {
    let mut c = cluster("minReadySeconds: 30");
    settle(&mut c);
    run(&mut c, &["web-0"]);
    let plan = decide(&c, &mut Backoff::default());
    assert_eq!((plan.actions.len(), plan.requeue_after), (0, Some(Duration::from_secs(30))));
    settle(&mut c);
    assert_eq!((&status(&c)["readyReplicas"], &status(&c)["availableReplicas"]), (&json!(1), &json!(0)));
    c.wait(30);
    assert_eq!(settle(&mut c), ["+web-1"]);
}

#[test]
fn a_template_of_before_is_rolled_back_to_its_revision() {
    let mut c = running("");
    let first = c.names("controllerrevisions")[0].clone();
    for (at, template) in ["b", "c", "d", "e"].iter().enumerate() {
        image(&mut c, template);
        settle(&mut c);
        assert_eq!(c.names("controllerrevisions").len(), (2 + at).min(4), "two in use and two spare");
    }
    image(&mut c, "a");
    settle(&mut c);
    assert_eq!(status(&c)["updateRevision"], json!(first));
    let numbers: Vec<(String, i64)> = c
        .list::<ControllerRevision>("controllerrevisions")
        .iter()
        .map(|r| (r.metadata.name.clone().unwrap(), r.revision))
        .collect();
    assert_eq!(numbers.iter().max_by_key(|(_, n)| *n).unwrap(), &(first, 6));
}

#[test]
fn claims_have_the_owners_that_the_policy_asks_for() {
    // (whenDeleted, whenScaled, owners of claims 0 and 2 at three replicas, then at one)
    let cases = [
        ("Retain", "Retain", ["", ""], ["", ""]),
        ("Delete", "Retain", ["web", "web"], ["web", "web"]),
        ("Retain", "Delete", ["", ""], ["", "web-2"]),
        ("Delete", "Delete", ["web", "web"], ["web", "web-2"]),
    ];
    for (deleted, scaled, three, one) in cases {
        let mut c = running(
            "volumeClaimTemplates: [{metadata: {name: data, labels: {tier: db}}, spec: {accessModes: [ReadWriteOnce]}}]",
        );
        c.edit(SET, "web", |s| {
            s["spec"]["persistentVolumeClaimRetentionPolicy"] = json!({"whenDeleted": deleted, "whenScaled": scaled});
        });
        settle(&mut c);
        let owners = |c: &Cluster| {
            ["data-web-0", "data-web-2"].map(|claim| {
                let owners = c.get("persistentvolumeclaims", claim).unwrap()["metadata"]["ownerReferences"].clone();
                owners.as_array().and_then(|o| o.first()).and_then(|o| o["name"].as_str()).unwrap_or("").to_string()
            })
        };
        assert_eq!(owners(&c), three, "{deleted} {scaled}");
        c.edit(SET, "web", |s| s["spec"]["replicas"] = json!(1));
        settle(&mut c);
        assert_eq!(owners(&c), one, "{deleted} {scaled}");
        // A pod that comes back waits until its old claim is gone.
        if scaled == "Delete" {
            c.remove("pods", "web-2");
            settle(&mut c);
            c.remove("pods", "web-1");
            c.remove("persistentvolumeclaims", "data-web-1");
            c.edit(SET, "web", |s| s["spec"]["replicas"] = json!(3));
            settle(&mut c);
            run(&mut c, &["web-1"]);
            assert!(settle(&mut c).is_empty(), "{deleted} {scaled}");
            c.remove("persistentvolumeclaims", "data-web-2");
            assert_eq!(settle(&mut c), ["+web-2"]);
        }
        let claim = c.get("persistentvolumeclaims", "data-web-0").unwrap();
        assert_eq!(claim["metadata"]["labels"], json!({"tier": "db", "app": "web"}));
        assert_eq!(claim["spec"], json!({"accessModes": ["ReadWriteOnce"]}));
    }
}

#[test]
fn orphans_are_taken_in_only_by_name() {
    let mut c = cluster("");
    for name in ["web-0", "web-zero"] {
        let pod = json!({"metadata": {"name": name, "labels": {"app": "web"}}, "spec": {"containers": []}});
        c.create("pods", pod).unwrap();
    }
    assert_eq!(settle(&mut c), ["~web-0"], "taken in");
    assert_eq!(c.get("pods", "web-zero").unwrap()["metadata"]["ownerReferences"], Value::Null);
    run(&mut c, &["web-0"]);
    assert_eq!(settle(&mut c), ["~web-0", "+web-1"], "labelled");
}

#[test]
fn a_set_that_is_being_deleted_only_reports() {
    let mut c = running("");
    c.remove("pods", "web-1");
    c.edit(SET, "web", |s| s["metadata"]["deletionTimestamp"] = json!(now().to_string()));
    assert!(settle(&mut c).is_empty());
    assert_eq!(status(&c)["replicas"], json!(2));
}
