//! Drives the EndpointSlice and Endpoints decisions.

use copepod_api::LabelSelector;
use copepod_api::names::LABEL_SERVICE_NAME;
use copepod_client::{Key, Outcome, WorkQueue};
use copepod_core::controllers::{Target, endpoints, endpointslice, meta};
use k8s_openapi::api::core::v1::{Pod, Service};

use super::caches::Caches;
use super::context::{Context, Running, about, add_all};

/// Runs the EndpointSlice controller.
pub(super) fn run_slices(context: Context) -> Running {
    let queue = context.queue::<Key>();
    follow(&context, &queue);
    let q = queue.clone();
    context.caches.slices.on_change(move |change| {
        for slice in change.both() {
            let service = slice.metadata.labels.as_ref().and_then(|l| l.get(LABEL_SERVICE_NAME));
            add_all(&q, service.map(|s| Key::new(meta::text(&slice.metadata.namespace), s)));
        }
    });
    context.work(queue, |context, key| async move {
        let caches = &context.caches;
        let Some(service) = caches.services.get(&key) else { return Outcome::Done };
        let of_service =
            |labels: &std::collections::BTreeMap<String, String>| labels.get(LABEL_SERVICE_NAME) == Some(&key.name);
        let mut slices = caches.slices.list(&key.namespace);
        slices.retain(|s| s.metadata.labels.as_ref().is_some_and(of_service));
        let plan = endpointslice::reconcile(&service, &caches.pods.list(&key.namespace), &slices);
        context.apply(&plan, &about("v1", "Service", &service.metadata), &path(&key)).await.1
    })
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
                endpoints::reconcile(&service, &caches.pods.list(&key.namespace), current.as_deref()),
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
            add_all(&q, services_of(&c, pod));
        }
    });
}

fn services_of(caches: &Caches, pod: &Pod) -> Vec<Key> {
    let selects = |service: &Service| {
        let selector = service.spec.as_ref().and_then(|s| s.selector.as_ref()).filter(|s| !s.is_empty());
        selector.is_some_and(|s| meta::selects(&LabelSelector::from_labels(s), &pod.metadata))
    };
    let services = caches.services.list(meta::text(&pod.metadata.namespace));
    services.iter().filter(|s| selects(s)).map(|s| Key::of(&**s)).collect()
}
