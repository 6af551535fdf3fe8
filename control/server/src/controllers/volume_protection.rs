//! Drives the protection of claims in use and of bound volumes.

use copepod_api::names::FINALIZER_CLAIM;
use copepod_client::{Key, Outcome};
use copepod_core::controllers::{meta, volume_protection};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;

use super::context::{Context, Running, about, add_all};

/// Pods read at once.
const PAGE: u32 = 500;

/// Runs the controller of claims.
pub(super) fn run_claims(context: Context) -> Running {
    let queue = context.queue::<Key>();
    let caches = context.caches.clone();
    let q = queue.clone();
    caches.claims.on_change(move |change| add_all(&q, change.new.as_ref().map(|c| Key::of(&**c))));
    let (q, c) = (queue.clone(), caches.clone());
    caches.pods.on_change(move |change| {
        let gone = change
            .old
            .as_ref()
            .filter(|old| change.new.as_ref().is_none_or(|new| new.metadata.uid != old.metadata.uid));
        let Some(pod) = gone else { return };
        let namespace = meta::text(&pod.metadata.namespace);
        let used = volume_protection::claims_of(pod).into_iter().map(|name| Key::new(namespace, name));
        let held = |key: &Key| {
            c.claims.get(key).is_some_and(|claim| volume_protection::is_held(&claim.metadata, FINALIZER_CLAIM))
        };
        add_all(&q, used.filter(held));
    });
    context.work(queue, |context, key| async move { reconcile_claim(&context, &key).await })
}

/// Runs the controller of volumes.
pub(super) fn run_volumes(context: Context) -> Running {
    let queue = context.queue::<Key>();
    let q = queue.clone();
    context.caches.volumes.on_change(move |change| add_all(&q, change.new.as_ref().map(|v| Key::of(&**v))));
    context.work(queue, |context, key| async move {
        let Some(volume) = context.caches.volumes.get(&key) else { return Outcome::Done };
        let plan = volume_protection::volume(&volume);
        context.apply(&plan, &about("v1", "PersistentVolume", &volume.metadata), "").await.1
    })
}

async fn reconcile_claim(context: &Context, key: &Key) -> Outcome {
    let Some(claim) = context.caches.claims.get(key) else { return Outcome::Done };
    let mut used = true;
    if volume_protection::is_held(&claim.metadata, FINALIZER_CLAIM) {
        used = !context.caches.pods_using(key).is_empty();
        if !used {
            // A cache may lag.
            used = match is_used(context, key).await {
                Ok(used) => used,
                Err(error) => {
                    tracing::debug!(claim = %key, %error, "pods not read");
                    return Outcome::Retry;
                }
            };
        }
    }
    let plan = volume_protection::claim(&claim, used);
    context.apply(&plan, &about("v1", "PersistentVolumeClaim", &claim.metadata), "").await.1
}

/// Whether some pod uses a claim, by live reads of the pods, page by page.
async fn is_used(context: &Context, claim: &Key) -> Result<bool, kube::Error> {
    let api: Api<Pod> = Api::namespaced(context.executor.client().clone(), &claim.namespace);
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let pods = api.list(&page).await?;
        if pods.items.iter().any(|pod| volume_protection::claims_of(pod).contains(&claim.name)) {
            return Ok(true);
        }
        match pods.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(false),
        }
    }
}
