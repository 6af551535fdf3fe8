//! Keeps the service table, the names and the node ports as the API server has them.

use std::sync::Arc;
use std::time::Duration;

use copepod_api::names::LABEL_ZONE;
use copepod_client::events::Severity;
use copepod_client::{Key, Recorder, Shared as Reflector};
use k8s_openapi::api::core::v1::{Node, ObjectReference, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::runtime::watcher::Config;
use tokio::sync::Notify;

use crate::agent::{AgentConfig, Cluster};
use crate::fabric::Fabric;
use crate::node_ports::{NodePorts, PortTaken};
use crate::service_table::{Locality, ServiceTable};

/// Changes of Services, endpoints and this node's zone within this time lead to one new table.
const SETTLE: Duration = Duration::from_millis(10);

/// Follows Services, EndpointSlices and the zone in this node's own Node object, until the agent stops.
pub(crate) fn follow(cluster: &Cluster, config: &AgentConfig, fabric: &Arc<Fabric>, recorder: &Recorder) {
    let services = cluster.services.clone();
    let (slices, nodes) = (Reflector::<EndpointSlice>::default(), Reflector::<Node>::default());
    let changed = Arc::new(Notify::new());
    let (on_service, on_slice, on_node) = (changed.clone(), changed.clone(), changed.clone());
    services.on_change(move |_| on_service.notify_one());
    slices.on_change(move |_| on_slice.notify_one());
    nodes.on_change(move |change| {
        // Its status changes all the time.
        if zone(change.old.as_deref()) != zone(change.new.as_deref()) {
            on_node.notify_one();
        }
    });
    let (client, stop) = (&cluster.client, &cluster.stop);
    cluster.tasks.spawn(services.clone().run(Api::all(client.clone()), Config::default(), stop.clone()));
    cluster.tasks.spawn(slices.clone().run(Api::all(client.clone()), Config::default(), stop.clone()));
    let own = Config::default().fields(&format!("metadata.name={}", config.node_name));
    cluster.tasks.spawn(nodes.clone().run(Api::all(client.clone()), own, stop.clone()));

    let mut ports = NodePorts::new(fabric.clone(), config.node_port_address, port_taken(recorder, &services));
    let (fabric, domain, node) = (fabric.clone(), config.cluster_domain.clone(), config.node_name.clone());
    let stop = stop.clone();
    cluster.tasks.spawn(async move {
        let work = async {
            services.ready().await;
            slices.ready().await;
            nodes.ready().await;
            let own = Key::new("", &node);
            loop {
                let (all, ends) = (services.all(), slices.all());
                let here = Locality { node: node.clone(), zone: zone(nodes.get(&own).as_deref()).into() };
                let before = fabric.services();
                let refs = || (all.iter().map(AsRef::as_ref), ends.iter().map(AsRef::as_ref));
                let (s, e) = refs();
                let table = Arc::new(ServiceTable::build(&here, s, e, &before));
                let (s, e) = refs();
                fabric.set_records(Arc::new(copepod_dns::Records::build(&domain, s, e, &[])));
                ports.apply(&table.node_ports());
                fabric.set_services(table);
                changed.notified().await;
                tokio::time::sleep(SETTLE).await;
            }
        };
        stop.run_until_cancelled(work).await;
    });
}

/// The zone that a node is in; empty if it is in none.
fn zone(node: Option<&Node>) -> &str {
    node.and_then(|n| n.metadata.labels.as_ref()?.get(LABEL_ZONE)).map_or("", String::as_str)
}

/// Tells a Service that its node port cannot be listened on here.
fn port_taken(recorder: &Recorder, services: &Reflector<Service>) -> PortTaken {
    let (events, known) = (recorder.clone(), services.clone());
    Arc::new(move |port, message| {
        let found = known.get(&Key::new(port.namespace.as_str(), port.service.as_str()));
        let about = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Service".into()),
            namespace: Some(port.namespace.clone()),
            name: Some(port.service.clone()),
            uid: found.and_then(|s| s.metadata.uid.clone()),
            ..ObjectReference::default()
        };
        events.event(about, Severity::Warning, "NodePortUnavailable", message);
    })
}
