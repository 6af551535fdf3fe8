//! Drives the quota decision: when a quota changes, and when something that it counts is gone, ends or changes.

use std::sync::Arc;
use std::time::Duration;

use copepod_api::{GroupResource, Gvr};
use copepod_client::{Key, Outcome, WorkQueue};
use copepod_core::controllers::resource_quota::{MEASURED, Observed, concerns, is_stale, reconcile};
use copepod_core::controllers::{Target, meta, pod};
use k8s_openapi::api::core::v1::{Namespace, ResourceQuota};
use serde::Deserialize;
use serde_json::Value;

use super::caches::Caches;
use super::context::{Context, Running, about, add_all};
use super::discovery::Discovery;

/// How soon after a quota's usage changed it is counted anew: an object may be seen to go before the charge for it is
/// seen, and then nothing else would tell that the charge is void.
const SETTLED: Duration = Duration::from_secs(1);
/// Objects read or looked at at once where all must be looked at.
const PAGE: usize = 500;
/// What a count rests for each object that it looked at: when many go, each of them asks for a count, and all that are
/// there are looked at again.
const REST: Duration = Duration::from_micros(50);

/// Runs the controller.
pub(super) fn run(context: Context, discovery: Discovery) -> Running {
    let queue = context.queue::<Key>();
    let caches = context.caches.clone();
    let q = queue.clone();
    caches.quotas.on_change(move |change| {
        let stale = change.new.as_ref().filter(|quota| change.old.is_none() || is_stale(&meta::value(&***quota)));
        add_all(&q, stale.map(|quota| Key::of(&**quota)));
        let used = |quota: &Option<Arc<ResourceQuota>>| quota.as_ref().and_then(|q| q.status.as_ref()?.used.clone());
        if let Some(quota) = change.new.as_ref().filter(|_| used(&change.new) != used(&change.old)) {
            q.add_after(Key::of(&**quota), SETTLED);
        }
    });
    let (q, c) = (queue.clone(), caches.clone());
    caches.gone.on(move |gvr, gone| look(&q, &c, gvr, meta::text(&gone.namespace)));
    let (q, c) = (queue.clone(), caches.clone());
    caches.pods.on_change(move |change| {
        let (Some(old), Some(new)) = (&change.old, &change.new) else { return };
        if pod::terminal(new) && !pod::terminal(old) {
            look(&q, &c, &meta::pods(), meta::text(&new.metadata.namespace));
        }
    });
    let (q, c) = (queue.clone(), caches.clone());
    caches.services.on_change(move |change| {
        let (Some(old), Some(new)) = (&change.old, &change.new) else { return };
        if old.spec != new.spec {
            look(&q, &c, &meta::v1("", "services"), meta::text(&new.metadata.namespace));
        }
    });
    context.work(queue, move |context, key| {
        let discovery = discovery.clone();
        async move { recalculate(&context, &discovery, &key).await }
    })
}

/// Looks at the quotas of a namespace that count objects of a resource.
fn look(queue: &WorkQueue<Key>, caches: &Caches, gvr: &Gvr, namespace: &str) {
    if namespace.is_empty() {
        return;
    }
    let resource = group_resource(gvr);
    let counts = |quota: &ResourceQuota| concerns(&meta::value(quota), &resource);
    add_all(queue, caches.quotas.list(namespace).iter().filter(|q| counts(q)).map(|q| Key::of(&**q)));
}

fn group_resource(gvr: &Gvr) -> GroupResource {
    GroupResource { group: gvr.group.clone(), resource: gvr.resource.clone() }
}

async fn recalculate(context: &Context, discovery: &Discovery, key: &Key) -> Outcome {
    let caches = &context.caches;
    let Some(typed) = caches.quotas.get(key) else { return Outcome::Done };
    let namespace: Option<Arc<Namespace>> = caches.namespaces.get(&Key::new("", &key.namespace));
    if namespace.is_some_and(|n| n.metadata.deletion_timestamp.is_some()) {
        return Outcome::Done;
    }
    if discovery.all().is_empty() {
        return Outcome::Retry;
    }
    let quota = meta::value(&*typed);
    let observed = match observe(context, discovery, &quota, &key.namespace).await {
        Ok(observed) => observed,
        Err(error) => {
            tracing::debug!(quota = %key, %error, "usage not counted");
            return Outcome::Retry;
        }
    };
    let plan = reconcile(&observed);
    let outcome = context.apply(&plan, &about("v1", "ResourceQuota", &typed.metadata), "").await.1;
    let rest = REST * u32::try_from(observed.len()).unwrap_or(u32::MAX);
    if rest >= Duration::from_millis(10) {
        tokio::time::sleep(rest).await;
    }
    outcome
}

async fn observe<'a>(
    context: &Context,
    discovery: &Discovery,
    quota: &'a Value,
    namespace: &str,
) -> Result<Observed<'a>, kube::Error> {
    let (mut observed, caches) = (Observed::of(quota, context.now()), &context.caches);
    for plural in MEASURED {
        let gvr = meta::v1("", plural);
        if !concerns(quota, &group_resource(&gvr)) {
            continue;
        }
        match plural {
            "pods" => cached(&mut observed, plural, &caches.pods.list(namespace)).await,
            "services" => cached(&mut observed, plural, &caches.services.list(namespace)).await,
            _ => listed(context, &mut observed, plural, &Target::new(gvr, namespace, "").collection_path()).await?,
        }
    }
    for served in discovery.all().iter().filter(|s| s.namespaced) {
        let (gvr, resource) = (served.gvr(), group_resource(&served.gvr()));
        let measured = gvr.group.is_empty() && MEASURED.contains(&gvr.resource.as_str());
        if !measured && concerns(quota, &resource) {
            let path = Target::new(gvr, namespace, "").collection_path();
            let first: Listed = context.executor.get(&format!("{path}?limit=1")).await?;
            observed
                .count(resource, first.items.map_or(0, |i| i.len()) + first.metadata.remaining_item_count.unwrap_or(0));
        }
    }
    Ok(observed)
}

/// Shows objects of a cache. Only one is decoded at a time, and others may work in between.
async fn cached<K: serde::Serialize>(observed: &mut Observed<'_>, plural: &str, objects: &[Arc<K>]) {
    observed.measure(plural, []);
    for some in objects.chunks(PAGE) {
        observed.measure(plural, some.iter().map(|object| meta::value(&**object)));
        tokio::task::yield_now().await;
    }
}

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    metadata: ListedMeta,
    #[serde(default)]
    items: Option<Vec<Value>>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ListedMeta {
    remaining_item_count: Option<usize>,
    #[serde(rename = "continue")]
    token: Option<String>,
}

/// Shows objects of no cache.
async fn listed(context: &Context, observed: &mut Observed<'_>, plural: &str, path: &str) -> Result<(), kube::Error> {
    let mut next = format!("{path}?limit={PAGE}");
    loop {
        let listed = context.executor.get::<Listed>(&next).await?;
        observed.measure(plural, listed.items.unwrap_or_default());
        match listed.metadata.token.filter(|token| !token.is_empty()) {
            // The token is of characters that a URL may carry.
            Some(token) => next = format!("{path}?limit={PAGE}&continue={token}"),
            None => return Ok(()),
        }
    }
}
