//! Drives the provisioner of directories on nodes.

use copepod_api::names::{FINALIZER_LOCAL_PATH, LABEL_HOSTNAME};
use copepod_client::{Key, Outcome};
use copepod_core::controllers::volume_claims::{annotation, claim_class};
use copepod_core::controllers::{Target, local_path, meta, volume_protection};
use copepod_core::scheduler::volumes::SELECTED_NODE;
use k8s_openapi::api::core::v1::PersistentVolume;

use super::context::{Context, Running, about};

#[derive(Clone, PartialEq, Eq, Hash)]
enum Item {
    Claim(Key),
    Volume(Key),
}

/// Runs the controller.
pub(super) fn run(context: Context) -> Running {
    let queue = context.queue::<Item>();
    let caches = context.caches.clone();
    let q = queue.clone();
    caches.claims.on_change(move |change| {
        if let Some(claim) = change.new.as_ref().filter(|c| local_path::is_asked(c)) {
            q.add(Item::Claim(Key::of(&**claim)));
        }
    });
    let q = queue.clone();
    caches.volumes.on_change(move |change| {
        if let Some(volume) = change.new.as_ref().filter(|v| is_held(v)) {
            q.add(Item::Volume(Key::of(&**volume)));
        }
    });
    let (q, c) = (queue.clone(), caches.clone());
    caches.nodes.on_change(move |change| {
        if change.new.is_none() {
            for volume in c.volumes.all().iter().filter(|v| is_held(v)) {
                q.add(Item::Volume(Key::of(&**volume)));
            }
        }
    });
    context.work(queue, |context, item| async move {
        match item {
            Item::Claim(key) => provision(&context, &key).await,
            Item::Volume(key) => forget(&context, &key).await,
        }
    })
}

fn is_held(volume: &PersistentVolume) -> bool {
    volume_protection::is_held(&volume.metadata, FINALIZER_LOCAL_PATH)
}

async fn provision(context: &Context, key: &Key) -> Outcome {
    let caches = &context.caches;
    let Some(claim) = caches.claims.get(key).filter(|c| local_path::is_asked(c)) else { return Outcome::Done };
    if caches.volumes.get(&Key::new("", local_path::volume_for(&claim))).is_some() {
        return Outcome::Done;
    }
    let class = claim_class(&claim).and_then(|name| caches.storage_classes.get(&Key::new("", name)));
    let node = annotation(&claim.metadata, SELECTED_NODE).and_then(|name| caches.nodes.get(&Key::new("", name)));
    let plan = local_path::provision(&claim, class.as_deref(), node.as_deref());
    context.apply(&plan, &about("v1", "PersistentVolumeClaim", &claim.metadata), "").await.1
}

/// Lets a volume go whose node is gone.
async fn forget(context: &Context, key: &Key) -> Outcome {
    let Some(volume) = context.caches.volumes.get(key) else { return Outcome::Done };
    let node = volume.metadata.labels.as_ref().and_then(|l| l.get(LABEL_HOSTNAME)).map_or("", String::as_str);
    let there = if context.caches.nodes.get(&Key::new("", node)).is_some() {
        true
    } else {
        let path = Target::new(meta::v1("", "nodes"), "", node).path();
        !node.is_empty() && !matches!(context.executor.look(&path).await, Ok(None))
    };
    let plan = local_path::forget(&volume, there);
    context.apply(&plan, &about("v1", "PersistentVolume", &volume.metadata), "").await.1
}
