//! Seeded simulations of whole clusters: the real API server, controllers and scheduler over the memory store, and hollow
//! nodes, in one thread on a paused clock. Faults first, then healing; every commit is held against the promises, and in
//! the end all is as asked for and nothing more is written.
//!
//! `COPEPOD_SIM_SEED=n` runs one seed again, `COPEPOD_SIM_SEEDS=n` runs so many, `COPEPOD_SIM_TRACE=1` prints each commit.

mod cluster;
mod entropy;
mod node;
mod runner;
mod scenario;
mod stuck;
mod wire;
mod workloads;
mod world;

use std::time::Duration;

use cluster::Cluster;
use node::Shape;
use runner::Log;
use serde_json::json;

async fn calm(seed: u64, _: Log) {
    let mut cluster = Cluster::start(seed).await;
    for n in 0..3 {
        let shape = Shape {
            cpu_milli: 4000,
            memory_mib: 4096,
            pods: 20,
            labels: Default::default(),
            heartbeat: Duration::from_secs(10),
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

async fn small(seed: u64, log: Log) {
    scenario::run(seed, scenario::SMALL, log).await;
}

const SMALL: &str = "small_clusters_keep_their_promises_and_heal";

#[test]
fn small_clusters_keep_their_promises_and_heal() {
    runner::run(SMALL, 20, small);
}

#[test]
fn a_seed_comes_out_the_same_each_time() {
    let digests = [7, 8, 7].map(|seed| {
        let (passed, printed) = runner::run_apart(SMALL, seed);
        assert!(passed, "{printed}");
        let digest = printed.lines().find_map(|line| line.split_once(" digest "));
        digest.unwrap_or_else(|| panic!("no digest: {printed}")).1.to_string()
    });
    assert_eq!(digests[0], digests[2]);
    assert_ne!(digests[0], digests[1]);
}
