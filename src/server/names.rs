//! Keeps the DNS records at what the Services, slices and nodes say.

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

/// Builds the records anew after changes, until `stop`. Before the first sync the server answers SERVFAIL.
pub async fn follow(views: Views, domain: String, records: SharedRecords, stop: CancellationToken) {
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
        let addresses: Vec<NodeAddresses> = nodes.iter().filter_map(|n| reachable(n)).collect();
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

/// Where machines outside reach a ready node: its external addresses, else its internal ones.
fn reachable(node: &Node) -> Option<NodeAddresses> {
    let status = node.status.as_ref()?;
    let of = |kind: &str| -> Vec<std::net::IpAddr> {
        let all = status.addresses.iter().flatten();
        all.filter(|a| a.type_ == kind).filter_map(|a| a.address.parse().ok()).collect()
    };
    let external = of("ExternalIP");
    let addresses = if external.is_empty() { of("InternalIP") } else { external };
    (is_ready(node) && !addresses.is_empty()).then_some(NodeAddresses { addresses })
}
