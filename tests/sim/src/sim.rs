//! Seeded simulations of whole clusters: the real API server, controllers and scheduler over the memory store, and hollow
//! nodes, in one thread on a paused clock. Faults first, then healing; every commit is held against the promises, and in
//! the end all is as asked for and nothing more is written.
//!
//! `COPEPOD_SIM_SEED=n` runs one seed again, `COPEPOD_SIM_SEEDS=n` runs so many of each test, `COPEPOD_SIM_TRACE=1` prints
//! each request and commit.

mod cluster;
mod entropy;
mod machine;
mod node;
mod runner;
mod scenario;
mod steps;
mod stuck;
mod views;
mod wire;
mod workloads;
mod world;

use std::time::Duration;

use cluster::Cluster;
use node::Shape;
use runner::Log;
use serde_json::json;
use workloads::{Kind, path};

async fn calm(seed: u64, _: Log) {
    let mut cluster = Cluster::start(seed).await;
    for n in 0..3 {
        let shape = Shape {
            cpu_milli: 4000,
            memory_mib: 4096,
            pods: 20,
            labels: Default::default(),
            heartbeat: Duration::from_secs(10),
            has_volumes: false,
        };
        cluster.add_node(&format!("n{n}"), shape);
    }
    let pod = json!({"containers": [{"name": "c", "image": "ok:1", "resources": {"requests": {"cpu": "100m"}}}]});
    let labels = json!({"app": "web"});
    let web = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 5, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}});
    cluster.must("POST", "/apis/apps/v1/namespaces/default/deployments", &web).await;
    cluster.live(2).await;
    cluster.converge(60).await;
    assert_eq!(cluster.world.lock().pods().count(), 5);
    cluster.quiet(600).await;
}

#[test]
fn a_calm_cluster_does_what_it_is_asked_and_is_quiet() {
    assert!(runner::run_here(1, calm));
}

/// Watches stand still again and again.
async fn lagging(seed: u64, _: Log) {
    let mut cluster = Cluster::start(seed).await;
    for n in 0..3 {
        let (labels, heartbeat) = (Default::default(), Duration::from_secs(10));
        cluster.add_node(
            &format!("n{n}"),
            Shape { cpu_milli: 4000, memory_mib: 4096, pods: 40, labels, heartbeat, has_volumes: false },
        );
    }
    cluster.live(5).await;
    cluster.wire.set_faults(wire::Faults { stall: 0.7, stall_for: wire::LONGEST_STALL, ..Default::default() });
    for kind in Kind::COMMON {
        let name = format!("{kind:?}").to_lowercase();
        let pod = json!({"containers": [{"name": "c", "image": "ok:1"}]});
        let labels = json!({"app": name});
        let spec =
            json!({"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}});
        let mut object =
            json!({"apiVersion": "apps/v1", "kind": format!("{kind:?}"), "metadata": {"name": name}, "spec": spec});
        if kind == Kind::Job {
            object["apiVersion"] = json!("batch/v1");
            object["spec"] = json!({"completions": 5, "parallelism": 2, "template": {"metadata": {"labels": labels}, "spec":
                {"restartPolicy": "Never", "containers": [{"name": "c", "image": "job:0"}]}}});
        }
        cluster.send("POST", &kind.collection(), &object).await;
    }
    for replicas in [5, 1, 4, 2] {
        for kind in Kind::COMMON.into_iter().filter(|kind| kind.has_scale()) {
            let name = format!("{kind:?}").to_lowercase();
            cluster.must("PATCH", &path(kind, &name), &json!({"spec": {"replicas": replicas}})).await;
        }
        cluster.live(100).await;
    }
    cluster.wire.set_faults(Default::default());
    cluster.converge(600).await;
}

#[test]
fn controllers_whose_watches_lag_do_nothing_twice() {
    runner::run("controllers_whose_watches_lag_do_nothing_twice", 3, lagging);
}

/// A test of seeds of one theme.
macro_rules! seeds {
    ($($test:ident: $theme:ident, $seeds:literal;)*) => {
        $(#[test]
        fn $test() {
            runner::run(stringify!($test), $seeds, |seed, log| scenario::run(seed, scenario::$theme, log));
        })*
    };
}

seeds! {
    everyday_clusters_keep_their_promises_and_heal: EVERYDAY, 70;
    cronjobs_and_autoscalers_keep_their_promises_and_heal: MOVING, 40;
    claims_and_volumes_keep_their_promises_and_heal: STORED, 40;
    crowded_clusters_keep_their_promises_and_heal: CROWDED, 50;
    hundreds_of_nodes_keep_their_promises_and_heal: LARGE, 1;
}

#[test]
fn a_seed_comes_out_the_same_each_time() {
    let digests = [39, 8, 39].map(|seed| {
        let (passed, printed) = runner::run_apart("everyday_clusters_keep_their_promises_and_heal", seed);
        assert!(passed, "{printed}");
        let digest = printed.lines().find_map(|line| line.split_once(" digest "));
        digest.unwrap_or_else(|| panic!("no digest: {printed}")).1.to_string()
    });
    assert_eq!(digests[0], digests[2]);
    assert_ne!(digests[0], digests[1]);
}
