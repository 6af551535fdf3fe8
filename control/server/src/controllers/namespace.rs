//! Empties namespaces that are being deleted.

use copepod_api::Gvr;
use copepod_client::{Key, Outcome};
use copepod_core::controllers::namespace::{self, Remains};
use copepod_core::controllers::{Plan, Target, meta};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::context::{Context, Running, about, add_all};
use super::discovery::Discovery;
use super::executor::explain;

/// Objects looked at per resource to say which finalizers hold them.
const SAMPLE: usize = 100;
/// Objects deleted by one request: neither side has more of them in memory at once.
const PAGE: usize = 500;

/// Runs the controller.
pub(super) fn run(context: Context, discovery: Discovery) -> Running {
    let queue = context.queue::<Key>();
    let caches = context.caches.clone();
    let q = queue.clone();
    caches.namespaces.on_change(move |change| {
        add_all(&q, change.new.as_ref().filter(|n| namespace::waits(n)).map(|n| Key::of(&**n)));
    });
    let (q, c) = (queue.clone(), caches.clone());
    caches.pods.on_change(move |change| {
        // Its last pod went: what waited for pods may go on. While there are others, it is looked at from time to time.
        let (None, Some(pod)) = (&change.new, &change.old) else { return };
        let key = Key::new("", meta::text(&pod.metadata.namespace));
        if c.pods.any_in(&key.name) {
            return;
        }
        add_all(&q, c.namespaces.get(&key).filter(|n| namespace::waits(n)).map(|_| key));
    });
    context.work(queue, move |context, key| {
        let discovery = discovery.clone();
        async move { empty(&context, &discovery, &key).await }
    })
}

async fn empty(context: &Context, discovery: &Discovery, key: &Key) -> Outcome {
    let Some(object) = context.caches.namespaces.get(key).filter(|n| namespace::waits(n)) else { return Outcome::Done };
    let served = discovery.all();
    let mut resources: Vec<Gvr> =
        served.iter().filter(|s| s.namespaced && s.delete_collection).map(|s| s.gvr()).collect();
    if resources.is_empty() {
        return Outcome::Retry;
    }
    namespace::order(&mut resources);
    let mut remains = Remains::default();
    for gvr in &resources {
        let shown = format!("{}.{}", gvr.resource, gvr.group);
        let path = Target::new(gvr.clone(), &key.name, "").collection_path();
        if let Err(error) = clear(context, &path, &shown, &mut remains).await {
            remains.failures.push(format!("{shown}: {}", explain(&error)));
        }
    }
    let subject = about("v1", "Namespace", &object.metadata);
    if !remains.none() {
        let plan =
            Plan { status: namespace::status(&object, &remains, context.now()), ..Plan::nothing("something remains") };
        context.apply(&plan, &subject, "").await;
        return Outcome::After(namespace::again(&object, context.now()));
    }
    let (target, body) = namespace::finalized(&object);
    let path = format!("{}/finalize", target.path());
    match context.executor.send::<Value>(Method::PUT, &path, &body).await {
        Ok(_) => Outcome::Done,
        Err(kube::Error::Api(status)) if status.code == 404 => Outcome::Done,
        Err(kube::Error::Api(status)) if status.code == 409 => Outcome::Retry,
        Err(error) => {
            tracing::warn!(namespace = key.name, error = explain(&error), "cannot finalize");
            Outcome::Retry
        }
    }
}

#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    metadata: ListedMeta,
    #[serde(default)]
    items: Option<Vec<Item>>,
}
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ListedMeta {
    remaining_item_count: Option<usize>,
    #[serde(rename = "continue")]
    token: Option<String>,
}
#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    metadata: ItemMeta,
}
#[derive(Deserialize, Default)]
#[serde(default)]
struct ItemMeta {
    finalizers: Option<Vec<String>>,
}

/// Deletes all objects of a resource in a namespace, and counts what remains.
async fn clear(context: &Context, path: &str, shown: &str, remains: &mut Remains) -> Result<(), kube::Error> {
    let sample = format!("{path}?limit={SAMPLE}");
    let list = || context.executor.get::<Listed>(&sample);
    let count = |l: &Listed| l.items.as_ref().map_or(0, Vec::len) + l.metadata.remaining_item_count.unwrap_or(0);
    if count(&list().await?) == 0 {
        return Ok(());
    }
    delete_all(context, path).await?;
    let left = list().await?;
    if count(&left) > 0 {
        remains.counts.insert(shown.to_string(), count(&left));
        for finalizer in left.items.iter().flatten().flat_map(|i| i.metadata.finalizers.iter().flatten()) {
            *remains.finalizers.entry(finalizer.clone()).or_default() += 1;
        }
    }
    Ok(())
}

/// Deletes all objects of a collection, page by page.
async fn delete_all(context: &Context, path: &str) -> Result<(), kube::Error> {
    let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"});
    let mut next = format!("{path}?limit={PAGE}");
    loop {
        let token = match context.executor.send::<Listed>(Method::DELETE, &next, &options).await {
            Ok(page) => page.metadata.token,
            // So much was written meanwhile that the page's revision is compacted: the answer says where to go on.
            Err(kube::Error::Api(status)) if status.code == 410 => status.metadata.and_then(|m| m.continue_),
            Err(error) => return Err(error),
        };
        // The token is of characters that a URL may carry.
        match token.filter(|token| !token.is_empty()) {
            Some(token) => next = format!("{path}?limit={PAGE}&continue={token}"),
            None => return Ok(()),
        }
    }
}
