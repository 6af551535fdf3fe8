//! Keeps the DNS records at what the Services, slices and nodes say.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use copepod_dns::server::SharedRecords;
use copepod_dns::{NodeAddresses, Records};
use copepod_server::controllers::Views;
use k8s_openapi::api::core::v1::Node;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Changes that come together are taken together.
const SETTLE: Duration = Duration::from_millis(10);

/// A node whose node ports listen on one address alone: that is where machines outside reach it.
#[derive(Debug, Clone)]
pub struct Pinned {
    /// The node's name.
    pub node: String,
    /// Where its node ports listen.
    pub address: IpAddr,
}

/// Builds the records anew after changes, until `stop`. Before the first sync the server answers SERVFAIL.
pub async fn follow(
    views: Views,
    domain: String,
    pinned: Option<Pinned>,
    records: SharedRecords,
    stop: CancellationToken,
) {
    let changed = Arc::new(Notify::new());
    let on = |changed: &Arc<Notify>| {
        let changed = changed.clone();
        move || changed.notify_one()
    };
    let (services, slices, nodes) = (on(&changed), on(&changed), on(&changed));
    views.services.on_change(move |_| services());
    views.slices.on_change(move |_| slices());
    views.nodes.on_change(move |_| nodes());
    tokio::join!(views.services.ready(), views.slices.ready(), views.nodes.ready());
    loop {
        let (services, slices, nodes) = (views.services.all(), views.slices.all(), views.nodes.all());
        let addresses: Vec<NodeAddresses> = nodes.iter().filter_map(|n| reachable(n, pinned.as_ref())).collect();
        let table =
            Records::build(&domain, services.iter().map(AsRef::as_ref), slices.iter().map(AsRef::as_ref), &addresses);
        records.set(Arc::new(table));
        tokio::select! {
            () = changed.notified() => tokio::time::sleep(SETTLE).await,
            () = stop.cancelled() => return,
        }
    }
}

/// Waits until a node reports ready.
pub async fn node_ready(views: &Views, name: &str) {
    let changed = Arc::new(Notify::new());
    let tell = changed.clone();
    views.nodes.on_change(move |_| tell.notify_one());
    let key = copepod_client::Key::new("", name);
    while !views.nodes.get(&key).is_some_and(|n| is_ready(&n)) {
        changed.notified().await;
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Where machines outside reach a ready node: where its node ports listen, else at its external addresses, else at its
/// internal ones.
fn reachable(node: &Node, pinned: Option<&Pinned>) -> Option<NodeAddresses> {
    let status = node.status.as_ref().filter(|_| is_ready(node))?;
    if let Some(pinned) = pinned.filter(|p| node.metadata.name.as_deref() == Some(&p.node)) {
        return Some(NodeAddresses { addresses: vec![pinned.address] });
    }
    let of = |kind: &str| -> Vec<IpAddr> {
        let all = status.addresses.iter().flatten();
        all.filter(|a| a.type_ == kind).filter_map(|a| a.address.parse().ok()).collect()
    };
    let external = of("ExternalIP");
    let addresses = if external.is_empty() { of("InternalIP") } else { external };
    (!addresses.is_empty()).then_some(NodeAddresses { addresses })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn machines_outside_get_addresses_that_answer() {
        let node = |ready: &str, addresses: serde_json::Value| -> Node {
            let status = json!({"conditions": [{"type": "Ready", "status": ready}], "addresses": addresses});
            serde_json::from_value(json!({"metadata": {"name": "n1"}, "status": status})).unwrap()
        };
        let internal = json!({"type": "InternalIP", "address": "192.0.2.1"});
        let external = json!({"type": "ExternalIP", "address": "198.51.100.1"});
        let pin = |name: &str| Some(Pinned { node: name.into(), address: "127.0.0.1".parse().unwrap() });
        let cases = [
            (node("True", json!([internal])), None, "192.0.2.1"),
            (node("True", json!([internal, external])), None, "198.51.100.1"),
            (node("True", json!([internal, external])), pin("n1"), "127.0.0.1"),
            (node("True", json!([internal])), pin("n2"), "192.0.2.1"),
            (node("False", json!([internal])), pin("n1"), ""),
            (node("True", json!([])), None, ""),
        ];
        for (node, pinned, expected) in cases {
            let found = reachable(&node, pinned.as_ref()).map(|n| n.addresses).unwrap_or_default();
            assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "), expected, "{node:?}");
        }
    }
}
