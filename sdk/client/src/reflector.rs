//! One shared cache per kind and process, fed by a list and watch that survives every interruption.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_stream};
use kube::{Api, Resource, ResourceExt};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Namespace and name; the namespace of cluster-scoped objects is empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Namespace, or empty.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Key {
    /// Builds a key.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
    /// The key of an object.
    pub fn of<K: Resource>(object: &K) -> Self {
        Self::new(object.meta().namespace.clone().unwrap_or_default(), object.meta().name.clone().unwrap_or_default())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() { f.write_str(&self.name) } else { write!(f, "{}/{}", self.namespace, self.name) }
    }
}

/// What happened to one object; at least one side is there.
#[derive(Debug)]
pub struct Change<K> {
    /// The object before, unless it is new.
    pub old: Option<Arc<K>>,
    /// The object now, unless it is gone.
    pub new: Option<Arc<K>>,
}

impl<K> Change<K> {
    /// The object now, or as it was last seen.
    pub fn last(&self) -> Option<&Arc<K>> {
        self.new.as_ref().or(self.old.as_ref())
    }
    /// The states the object was seen in: what it may have pointed to, and what it points to now.
    pub fn both(&self) -> impl Iterator<Item = &Arc<K>> {
        self.old.iter().chain(self.new.iter())
    }
}

type Handler<K> = Box<dyn Fn(&Change<K>) + Send + Sync>;
type Objects<K> = HashMap<String, BTreeMap<String, Arc<K>>>;

/// All objects of a kind as last seen; a handle to be cloned. `managedFields` are dropped to save memory.
pub struct Shared<K> {
    inner: Arc<Inner<K>>,
}

impl<K> Clone for Shared<K> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

struct Inner<K> {
    objects: RwLock<Objects<K>>,
    /// Locked for as long as a change is applied and told, so that a new handler misses and repeats nothing.
    handlers: Mutex<Vec<Handler<K>>>,
    ready: watch::Sender<bool>,
    revision: watch::Sender<u64>,
}

impl<K> Default for Shared<K> {
    fn default() -> Self {
        Self {
            inner: Arc::new(Inner {
                objects: RwLock::default(),
                handlers: Mutex::default(),
                ready: watch::Sender::new(false),
                revision: watch::Sender::new(0),
            }),
        }
    }
}

impl<K> Shared<K>
where
    K: Resource + Clone + fmt::Debug + Send + Sync + 'static,
{
    /// The object under a key.
    pub fn get(&self, key: &Key) -> Option<Arc<K>> {
        self.inner.objects.read().get(&key.namespace)?.get(&key.name).cloned()
    }
    /// The objects of a namespace (empty for cluster-scoped kinds) by name.
    pub fn list(&self, namespace: &str) -> Vec<Arc<K>> {
        self.inner.objects.read().get(namespace).map(|n| n.values().cloned().collect()).unwrap_or_default()
    }
    /// All objects, ordered within each namespace.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.inner.objects.read().values().flat_map(|n| n.values().cloned()).collect()
    }
    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.inner.objects.read().values().map(BTreeMap::len).sum()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `handler` for every present object (as new), then for every change, in order. It runs on the watch's task:
    /// it must be quick and must not call `on_change` of the same reflector.
    pub fn on_change(&self, handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        let mut handlers = self.inner.handlers.lock();
        for object in self.all() {
            handler(&Change { old: None, new: Some(object) });
        }
        handlers.push(Box::new(handler));
    }

    /// Whether the first list is complete.
    pub fn is_ready(&self) -> bool {
        *self.inner.ready.borrow()
    }
    /// Waits for the first list to be complete.
    pub async fn ready(&self) {
        // Cannot fail: the sender lives in `self`.
        let _ = self.inner.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// The newest resourceVersion seen.
    pub fn revision(&self) -> u64 {
        *self.inner.revision.borrow()
    }
    /// Waits until an object of at least this resourceVersion was seen, so that a writer reads its own writes; at most
    /// `limit`, since a cut watch may skip the very version. Returns whether it was seen.
    pub async fn caught_up(&self, revision: u64, limit: Duration) -> bool {
        let mut seen = self.inner.revision.subscribe();
        tokio::time::timeout(limit, seen.wait_for(|seen| *seen >= revision)).await.is_ok()
    }

    /// Applies a stream of watch events until it ends.
    pub async fn follow(&self, events: impl Stream<Item = Event<K>>) {
        let mut events = std::pin::pin!(events);
        let mut listing: Objects<K> = HashMap::new();
        while let Some(event) = events.next().await {
            match event {
                Event::Init => listing.clear(),
                Event::InitApply(object) => {
                    let (key, object) = prepare(object);
                    listing.entry(key.namespace).or_default().insert(key.name, object);
                }
                Event::InitDone => {
                    self.replace(std::mem::take(&mut listing));
                    self.inner.ready.send_replace(true);
                }
                Event::Apply(object) => {
                    let (key, object) = prepare(object);
                    let handlers = self.inner.handlers.lock();
                    let old =
                        self.inner.objects.write().entry(key.namespace).or_default().insert(key.name, object.clone());
                    tell(&handlers, &Change { old, new: Some(object.clone()) });
                    self.saw(&*object);
                }
                Event::Delete(object) => {
                    let (key, object) = prepare(object);
                    let handlers = self.inner.handlers.lock();
                    let mut objects = self.inner.objects.write();
                    let bucket = objects.get_mut(&key.namespace);
                    let gone = bucket.and_then(|bucket| bucket.remove(&key.name)).is_some();
                    objects.retain(|_, bucket| !bucket.is_empty());
                    drop(objects);
                    if gone {
                        // The event holds the last state, which is newer than or equal to the cached one.
                        tell(&handlers, &Change { old: Some(object.clone()), new: None });
                    }
                    self.saw(&*object);
                }
            }
        }
    }

    fn replace(&self, listed: Objects<K>) {
        let handlers = self.inner.handlers.lock();
        let before = std::mem::replace(&mut *self.inner.objects.write(), listed.clone());
        for (namespace, bucket) in &before {
            for (name, old) in bucket {
                if listed.get(namespace).is_none_or(|bucket| !bucket.contains_key(name)) {
                    tell(&handlers, &Change { old: Some(old.clone()), new: None });
                }
            }
        }
        for (namespace, bucket) in listed {
            for (name, new) in bucket {
                let old = before.get(&namespace).and_then(|bucket| bucket.get(&name)).cloned();
                if old.as_ref().is_none_or(|old| old.meta().resource_version != new.meta().resource_version) {
                    tell(&handlers, &Change { old, new: Some(new.clone()) });
                }
                self.saw(&*new);
            }
        }
    }

    fn saw(&self, object: &K) {
        let revision = revision_of(object);
        self.inner.revision.send_if_modified(|seen| {
            let newer = revision > *seen;
            if newer {
                *seen = revision;
            }
            newer
        });
    }
}

impl<K> Shared<K>
where
    K: Resource + Clone + DeserializeOwned + fmt::Debug + Send + Sync + 'static,
{
    /// Lists and watches until cancelled; errors are logged and retried with back-off.
    pub async fn run(self, api: Api<K>, config: watcher::Config, token: CancellationToken) {
        let events = watch_stream(api, config)
            .default_backoff()
            .inspect_err(|error| tracing::warn!(kind = std::any::type_name::<K>(), %error, "watch interrupted"))
            .filter_map(async |event| event.ok());
        tokio::select! {
            () = token.cancelled() => {}
            () = self.follow(events) => {}
        }
    }
}

/// An object's resourceVersion as a number; 0 if it has none.
pub fn revision_of<K: Resource>(object: &K) -> u64 {
    object.meta().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn prepare<K: Resource>(mut object: K) -> (Key, Arc<K>) {
    object.managed_fields_mut().clear();
    (Key::of(&object), Arc::new(object))
}

fn tell<K>(handlers: &[Handler<K>], change: &Change<K>) {
    for handler in handlers {
        handler(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn map(name: &str, revision: u64) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.namespace = Some("default".into());
        map.metadata.name = Some(name.into());
        map.metadata.resource_version = Some(revision.to_string());
        map
    }

    fn recorder(shared: &Shared<ConfigMap>) -> Arc<Mutex<Vec<String>>> {
        let log = Arc::new(Mutex::new(Vec::new()));
        let sink = log.clone();
        shared.on_change(move |change| {
            let sign = match (&change.old, &change.new) {
                (None, _) => '+',
                (_, None) => '-',
                _ => '~',
            };
            let object = change.last().unwrap();
            sink.lock().push(format!("{sign}{}@{}", object.name_any(), revision_of(&**object)));
        });
        log
    }

    #[tokio::test]
    async fn changes_are_told_once_and_in_order_through_a_relist() {
        let shared = Shared::default();
        let log = recorder(&shared);
        let events = vec![
            Event::Init,
            Event::InitApply(map("a", 1)),
            Event::InitApply(map("b", 2)),
            Event::InitDone,
            Event::Apply(map("c", 3)),
            Event::Apply(map("a", 4)),
            Event::Delete(map("b", 5)),
            // The watch was cut: a is unchanged, c is gone, d is new.
            Event::Init,
            Event::InitApply(map("a", 4)),
            Event::InitApply(map("d", 7)),
            Event::InitDone,
        ];
        shared.follow(stream::iter(events)).await;
        assert_eq!(*log.lock(), ["+a@1", "+b@2", "+c@3", "~a@4", "-b@5", "-c@3", "+d@7"]);
        assert!(shared.is_ready());
        assert_eq!((shared.len(), shared.revision()), (2, 7));
        assert_eq!(*recorder(&shared).lock(), ["+a@4", "+d@7"], "a late handler hears what is there");
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_waits_for_its_own_write() {
        let shared = Shared::default();
        assert!(!shared.caught_up(2, Duration::from_secs(5)).await);
        let waiting = tokio::spawn({
            let shared: Shared<ConfigMap> = shared.clone();
            async move { shared.caught_up(2, Duration::from_secs(5)).await }
        });
        shared.follow(stream::iter(vec![Event::Apply(map("a", 3))])).await;
        assert!(waiting.await.unwrap());
    }
}
