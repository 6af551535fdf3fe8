//! Drives the decisions on EndpointSlices, on those that mirror Endpoints, and on Endpoints.

use std::sync::Arc;

use copepod_api::names::{LABEL_SERVICE_NAME, LABEL_ZONE};
use copepod_client::{Key, Outcome, WorkQueue};
use copepod_core::controllers::{Target, endpoints, endpointslice, endpointslice_mirroring as mirroring, meta};
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::caches::Caches;
use super::context::{Context, Running, about, add_all};

/// Runs the EndpointSlice controller.
pub(super) fn run_slices(context: Context) -> Running {
    let queue = context.queue::<Key>();
    follow(&context, &queue);
    let q = queue.clone();
    context.caches.slices.on_change(move |change| add_all(&q, change.both().filter_map(|s| service_of(s))));
    let (q, c) = (queue.clone(), context.caches.clone());
    context.caches.nodes.on_change(move |change| {
        // A node moves to another zone. One that comes or goes is asked for again.
        let (Some(old), Some(new)) = (&change.old, &change.new) else { return };
        if zone(old) == zone(new) {
            return;
        }
        let name = meta::text(&new.metadata.name);
        for pod in c.pods_on(name) {
            add_all(&q, c.services_of(&pod));
        }
    });
    context.work(queue, |context, key| async move {
        let caches = &context.caches;
        let Some(service) = caches.services.get(&key) else { return Outcome::Done };
        let zone_of = |node: &str| caches.nodes.get(&Key::new("", node)).map(|node| zone(&node).to_string());
        let (pods, slices) = (selected(caches, &service), caches.slices_of(&key));
        let plan = endpointslice::reconcile(&service, &pods, &slices, &zone_of);
        context.apply(&plan, &about("v1", "Service", &service.metadata), &path(&key)).await.1
    })
}

/// Runs the controller that mirrors Endpoints.
pub(super) fn run_mirroring(context: Context) -> Running {
    let queue = context.queue::<Key>();
    let q = queue.clone();
    context.caches.endpoints.on_change(move |change| add_all(&q, change.last().map(|e| Key::of(&**e))));
    let q = queue.clone();
    context.caches.services.on_change(move |change| add_all(&q, change.last().map(|s| Key::of(&**s))));
    let q = queue.clone();
    context.caches.slices.on_change(move |change| add_all(&q, change.both().filter_map(|s| service_of(s))));
    context.work(queue, |context, key| async move {
        let caches = &context.caches;
        let (endpoints, service) = (caches.endpoints.get(&key), caches.services.get(&key));
        let slices = caches.slices_of(&key);
        let plan = mirroring::reconcile(&key.namespace, endpoints.as_deref(), service.as_deref(), &slices);
        let subject = endpoints.map(|e| about("v1", "Endpoints", &e.metadata)).unwrap_or_default();
        context.apply(&plan, &subject, &path(&key)).await.1
    })
}

/// The pods that a Service selects.
fn selected(caches: &Caches, service: &Service) -> Vec<Arc<Pod>> {
    let selector = endpointslice::selector(service);
    selector
        .map(|selector| caches.pods_selected(meta::text(&service.metadata.namespace), &selector))
        .unwrap_or_default()
}

/// The Service that a slice is labelled with.
fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.as_ref()?.get(LABEL_SERVICE_NAME)?;
    Some(Key::new(meta::text(&slice.metadata.namespace), name))
}

/// The zone of a node, empty if it is in none.
fn zone(node: &Node) -> &str {
    node.metadata.labels.as_ref().and_then(|l| l.get(LABEL_ZONE)).map(String::as_str).unwrap_or_default()
}

/// Runs the Endpoints controller.
pub(super) fn run_endpoints(context: Context) -> Running {
    let queue = context.queue::<Key>();
    follow(&context, &queue);
    let q = queue.clone();
    context.caches.endpoints.on_change(move |change| {
        add_all(&q, change.last().map(|e| Key::of(&**e)));
    });
    context.work(queue, |context, key| async move {
        let caches = &context.caches;
        let current = caches.endpoints.get(&key);
        let (plan, subject) = match caches.services.get(&key) {
            Some(service) => (
                endpoints::reconcile(&service, &selected(caches, &service), current.as_deref()),
                about("v1", "Service", &service.metadata),
            ),
            None => {
                // Endpoints of no Service are the user's, unless they were made here.
                let made_here = current.as_ref().is_some_and(|c| endpoints::made_here(c));
                let plan = endpoints::service_gone(&key.namespace, &key.name, current.as_deref().filter(|_| made_here));
                (plan, Default::default())
            }
        };
        context.apply(&plan, &subject, &path(&key)).await.1
    })
}

fn path(key: &Key) -> String {
    Target::new(meta::v1("", "services"), &key.namespace, &key.name).path()
}

/// Queues a Service when it changes, and when a pod does that it selects or selected.
fn follow(context: &Context, queue: &WorkQueue<Key>) {
    let caches = context.caches.clone();
    let q = queue.clone();
    caches.services.on_change(move |change| add_all(&q, change.last().map(|s| Key::of(&**s))));
    let (q, c) = (queue.clone(), caches.clone());
    caches.pods.on_change(move |change| {
        for pod in change.both() {
            add_all(&q, c.services_of(pod));
        }
    });
}
