//! A machine that holds few instances is a node that says so. A binary of its own: the limit is this process's.

use copepod_tests::{Cluster, toolbox_pod, wait_for};
use rustix::process::{Resource, Rlimit, setrlimit};

#[test]
fn a_machine_of_little_address_space_is_a_small_node_that_says_so() {
    // Inherited by the server and its agent: room for about a dozen instances.
    let limit = Some(64 << 30);
    setrlimit(Resource::As, Rlimit { current: limit, maximum: limit }).expect("limit");
    let cluster = Cluster::start();
    let offered = cluster.until("node node-1", "/status/allocatable/pods", |v| v.is_string());
    let fit: usize = offered.as_str().unwrap().parse().unwrap();
    assert!((1..=13).contains(&fit), "{fit} pods");
    assert!(cluster.log().contains(&format!("this node takes {fit} pods")), "{}", cluster.log());
    assert!(cluster.log().contains("RLIMIT_AS"), "what to raise: {}", cluster.log());

    cluster.push("toolbox", "toolbox");
    let container = |i| format!("  - {{name: c{i}, image: toolbox, args: [serve, '0.0.0.0:{}']}}\n", 7000 + i);
    let containers: String = (0..fit).map(container).collect();
    cluster.apply(&format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: large}}\nspec:\n  containers:\n{containers}"));
    cluster.ok("wait --for=condition=Ready pod/large --timeout=120s");
    cluster.apply(&toolbox_pod("small", &["serve", "0.0.0.0:7777"], ""));
    let reason = "/status/containerStatuses/0/state/waiting/reason";
    cluster.until("pod small", reason, |v| v == "OutOfCapacity");
    wait_for("an event", || {
        let events = cluster.ok("get events --field-selector involvedObject.name=small");
        if events.contains("node is at capacity") { Ok(()) } else { Err(events) }
    });
    // Tried again, until there is room.
    cluster.ok("delete pod large --wait=false");
    cluster.ok("wait --for=condition=Ready pod/small --timeout=120s");
}
