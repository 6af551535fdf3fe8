//! Drives the binding of claims to volumes, and the volumes' phases.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;

use copepod_api::names::LOCAL_PATH;
use copepod_client::{Change, Key, Outcome, WorkQueue};
use copepod_core::controllers::volume_claims::{self, BIND_COMPLETED, Seen, annotation, claim_class, volume_name};
use copepod_core::controllers::{Target, local_path, meta, pod, volume_phases};
use copepod_core::scheduler::volumes::{SELECTED_NODE, asked, capacity, class_of, may_hold};
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use parking_lot::Mutex;

use super::caches::Caches;
use super::context::{Context, Running, about};
use super::terms;

#[derive(Clone, PartialEq, Eq, Hash)]
enum Item {
    Claim(Key),
    Volume(String),
}

/// Names of volumes, by the claim that they are kept for, and of those that are not by class, the smallest first; and
/// names of pods that have no node yet, by the claims that they use.
#[derive(Default)]
struct Index {
    kept: HashMap<Key, BTreeSet<String>>,
    free: HashMap<String, BTreeSet<(i64, String)>>,
    pods: HashMap<Key, BTreeSet<String>>,
}

impl Index {
    fn follow(&mut self, change: &Change<PersistentVolume>) {
        if let Some(old) = &change.old {
            let name = meta::text(&old.metadata.name).to_string();
            match claim_of(old) {
                Some(key) => take(&mut self.kept, &key, &name),
                None => take(&mut self.free, &class(old), &(capacity(old), name)),
            }
        }
        if let Some(new) = &change.new {
            let name = meta::text(&new.metadata.name).to_string();
            match claim_of(new) {
                Some(key) => self.kept.entry(key).or_default().insert(name),
                None => self.free.entry(class(new)).or_default().insert((capacity(new), name)),
            };
        }
    }

    /// Returns the claims that have a new reason to wait: a pod that no node is found for, and no other pod.
    fn follow_pod(&mut self, change: &Change<Pod>) -> Vec<Key> {
        let name = change.last().map(|pod| meta::text(&pod.metadata.name)).unwrap_or_default();
        for key in change.old.iter().flat_map(|pod| waits_for(pod)) {
            take(&mut self.pods, &key, &name.to_string());
        }
        let keys: Vec<Key> = change.new.iter().flat_map(|pod| waits_for(pod)).collect();
        for key in &keys {
            self.pods.entry(key.clone()).or_default().insert(name.into());
        }
        let refused = |pod: &Pod| pod::condition(pod, "PodScheduled").is_some_and(|c| c.status == "False");
        let is_new =
            change.new.as_ref().is_some_and(|p| refused(p)) && !change.old.as_ref().is_some_and(|p| refused(p));
        let alone = |key: &Key| self.pods.get(key).is_some_and(|pods| pods.len() == 1);
        keys.into_iter().filter(|key| is_new && alone(key)).collect()
    }

    /// Volumes kept for a claim.
    fn kept(&self, claim: &Key) -> impl Iterator<Item = &String> {
        self.kept.get(claim).into_iter().flatten()
    }

    /// Volumes of a class that are kept for nobody and have so many bytes, the smallest first.
    fn free(&self, class: &str, bytes: i64) -> impl Iterator<Item = &String> {
        let of_class = self.free.get(class).into_iter();
        of_class.flat_map(move |free| free.range((bytes, String::new())..)).map(|(_, name)| name)
    }
}

/// The claims of a pod that has no node yet.
fn waits_for(pod: &Pod) -> Vec<Key> {
    if pod::terminal(pod) || !pod::node_name(pod).is_empty() {
        return Vec::new();
    }
    let namespace = meta::text(&pod.metadata.namespace);
    pod::claims(pod).into_iter().map(|name| Key::new(namespace, name)).collect()
}

fn take<K: Hash + Eq, V: Ord>(map: &mut HashMap<K, BTreeSet<V>>, key: &K, member: &V) {
    if let Some(members) = map.get_mut(key) {
        members.remove(member);
        if members.is_empty() {
            map.remove(key);
        }
    }
}

/// Volumes kept for a claim, and with a class the smallest free one of it that the claim may have.
fn candidates(
    caches: &Caches,
    index: &Index,
    claim: &PersistentVolumeClaim,
    class: Option<&str>,
) -> Vec<Arc<PersistentVolume>> {
    let volume = |name: &String| caches.volumes.get(&Key::new("", name));
    let mut found: Vec<_> = index.kept(&Key::of(claim)).filter_map(volume).collect();
    let free = class.and_then(|class| index.free(class, asked(claim)).filter_map(volume).find(|v| may_hold(v, claim)));
    found.extend(free);
    found
}

/// Runs the controller.
pub(super) fn run(context: Context) -> Running {
    let queue = context.queue::<Item>();
    let caches = context.caches.clone();
    let index = Arc::new(Mutex::new(Index::default()));
    let (q, i) = (queue.clone(), index.clone());
    caches.claims.on_change(move |change| {
        let Some(last) = change.last() else { return };
        let key = Key::of(&**last);
        for name in i.lock().kept(&key) {
            q.add(Item::Volume(name.clone()));
        }
        for claim in change.both().filter(|c| !volume_name(c).is_empty()) {
            q.add(Item::Volume(volume_name(claim).into()));
        }
        q.add(Item::Claim(key));
    });
    let (q, i, c) = (queue.clone(), index.clone(), caches.clone());
    caches.volumes.on_change(move |change| {
        i.lock().follow(change);
        volume_changed(&q, &c, change);
    });
    let (q, i) = (queue.clone(), index.clone());
    caches.pods.on_change(move |change| {
        for claim in i.lock().follow_pod(change) {
            q.add(Item::Claim(claim));
        }
    });
    let (q, c) = (queue.clone(), caches.clone());
    caches.storage_classes.on_change(move |change| {
        let Some(class) = change.last() else { return };
        let name = meta::text(&class.metadata.name);
        // Those that name none may get it as the default.
        add_claims(&q, &c, &[terms::unbound(None), terms::unbound(Some(name))], |_| true);
    });
    context.work(queue, move |context, item| {
        let index = index.clone();
        async move {
            match item {
                Item::Claim(key) => reconcile_claim(&context, &index, &key).await,
                Item::Volume(name) => reconcile_volume(&context, &name).await,
            }
        }
    })
}

fn volume_changed(queue: &WorkQueue<Item>, caches: &Caches, change: &Change<PersistentVolume>) {
    let Some(last) = change.last() else { return };
    let name = meta::text(&last.metadata.name);
    queue.add(Item::Volume(name.into()));
    for key in change.both().filter_map(|v| claim_of(v)) {
        queue.add(Item::Claim(key));
    }
    // One that is free, or gone, may concern claims that it does not name.
    match &change.new {
        Some(volume) if claim_of(volume).is_some() => {}
        Some(volume) => {
            let class = class(volume);
            let mut concerned = vec![terms::wanting(name), terms::unbound(Some(&class))];
            concerned.extend(class.is_empty().then(|| terms::unbound(None)));
            add_claims(queue, caches, &concerned, |claim| match volume_name(claim) {
                "" => may_hold(volume, claim),
                named => named == name,
            });
        }
        None => add_claims(queue, caches, &[terms::wanting(name)], |_| true),
    }
}

/// Queues claims that are found by these terms.
fn add_claims(
    queue: &WorkQueue<Item>,
    caches: &Caches,
    terms: &[String],
    concerned: impl Fn(&PersistentVolumeClaim) -> bool,
) {
    for claim in caches.claims.found_by_any(terms).iter().filter(|c| concerned(c)) {
        queue.add(Item::Claim(Key::of(&**claim)));
    }
}

/// The claim that a volume is kept for.
fn claim_of(volume: &PersistentVolume) -> Option<Key> {
    let reference = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(Key::new(meta::text(&reference.namespace), meta::text(&reference.name)))
}

fn class(volume: &PersistentVolume) -> String {
    let field = volume.spec.as_ref().and_then(|s| s.storage_class_name.as_deref());
    class_of(&volume.metadata, field).unwrap_or_default().into()
}

async fn reconcile_claim(context: &Context, index: &Mutex<Index>, key: &Key) -> Outcome {
    let caches = &context.caches;
    let Some(claim) = caches.claims.get(key) else { return Outcome::Done };
    let named = volume_name(&claim);
    let volume = if named.is_empty() { None } else { caches.volumes.get(&Key::new("", named)) };
    if !named.is_empty() && volume.is_none() && annotation(&claim.metadata, BIND_COMPLETED).is_some() {
        // Nothing is said to be lost because a cache lags.
        let path = Target::new(volume_claims::volumes(), "", named).path();
        if !matches!(context.executor.look(&path).await, Ok(None)) {
            return Outcome::Retry;
        }
    }
    let class_name = claim_class(&claim);
    let class = class_name.and_then(|name| caches.storage_classes.get(&Key::new("", name)));
    // Those that wait for a pod take only what is kept for them.
    let of_class = class_name.filter(|_| !class.as_deref().is_some_and(volume_claims::is_late));
    let candidates = if named.is_empty() { candidates(caches, &index.lock(), &claim, of_class) } else { Vec::new() };
    let classes = if class_name.is_none() { caches.storage_classes.all() } else { Vec::new() };
    let waits = named.is_empty() && annotation(&claim.metadata, SELECTED_NODE).is_none();
    let late = class.as_deref().filter(|class| waits && volume_claims::is_late(class));
    let pods: Vec<String> = match late {
        Some(_) => index.lock().pods.get(key).into_iter().flatten().cloned().collect(),
        None => Vec::new(),
    };
    let too_small = late
        .filter(|class| class.provisioner == LOCAL_PATH)
        .and_then(|_| local_path::too_small(&claim, &caches.nodes.all()));
    let seen = Seen {
        volume: volume.as_deref(),
        candidates: &candidates,
        class: class.as_deref(),
        default_class: volume_claims::default_class(&classes),
        pods: &pods,
        too_small,
    };
    let plan = volume_claims::reconcile(&claim, &seen);
    context.apply(&plan, &about("v1", "PersistentVolumeClaim", &claim.metadata), "").await.1
}

async fn reconcile_volume(context: &Context, name: &str) -> Outcome {
    let caches = &context.caches;
    let Some(volume) = caches.volumes.get(&Key::new("", name)) else { return Outcome::Done };
    let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    let mut claim = None;
    if let Some(ObjectReference { namespace, name, uid: uid @ Some(_), .. }) = reference {
        let key = Key::new(meta::text(namespace), meta::text(name));
        claim = caches.claims.get(&key).filter(|c| c.metadata.uid == *uid);
        if claim.is_none() && !volume_phases::is_released(&volume) {
            // Nothing is released, and perhaps deleted, because a cache lags.
            let path = Target::new(volume_claims::claims(), &key.namespace, &key.name).path();
            match context.executor.look(&path).await {
                Ok(found) if found.as_ref().map(|(uid, _)| uid) != uid.as_ref() => {}
                _ => return Outcome::Retry,
            }
        }
    }
    let plan = volume_phases::reconcile(&volume, claim.as_deref(), context.now());
    context.apply(&plan, &about("v1", "PersistentVolume", &volume.metadata), "").await.1
}
