//! One shared cache per kind and process, fed by a list and watch that survives every interruption.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures::{Stream, StreamExt, TryStreamExt};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_stream};
use kube::{Api, Resource, ResourceExt};
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::objects::Objects;
use crate::terms::Terms;

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
    terms: Option<Terms<K>>,
    /// Locked for as long as a change is applied and told, so that a new handler misses and repeats nothing.
    handlers: Mutex<Vec<Handler<K>>>,
    ready: watch::Sender<bool>,
    seen: watch::Sender<Seen>,
}

/// How far the watch has come.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// The newest resourceVersion of an object.
    revision: u64,
    /// Lists that were begun, and the last of them that is complete.
    begun: u64,
    complete: u64,
}

impl<K> Default for Shared<K> {
    fn default() -> Self {
        Self::new(None)
    }
}

impl<K> Shared<K> {
    /// A cache whose objects are found by terms too. What was seen of an object is found by its terms before handlers
    /// are told of it.
    pub fn indexed(terms: Terms<K>) -> Self {
        Self::new(Some(terms))
    }

    fn new(terms: Option<Terms<K>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                objects: RwLock::new(Objects::new(terms)),
                terms,
                handlers: Mutex::default(),
                ready: watch::Sender::new(false),
                seen: watch::Sender::new(Seen::default()),
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
        self.inner.objects.read().get(key).cloned()
    }
    /// The objects of a namespace (empty for cluster-scoped kinds) by name.
    pub fn list(&self, namespace: &str) -> Vec<Arc<K>> {
        self.inner.objects.read().list(namespace).cloned().collect()
    }
    /// The objects of a namespace whose controller has this kind and name, by name; one of the same name that is gone
    /// counts too. Costs what there are, however many others the namespace has.
    pub fn controlled(&self, namespace: &str, kind: &str, name: &str) -> Vec<Arc<K>> {
        self.inner.objects.read().controlled(namespace, kind, name).cloned().collect()
    }
    /// What a controller may have or take in: [`Self::controlled`] and what nobody controls, by name.
    pub fn claimable(&self, namespace: &str, kind: &str, name: &str) -> Vec<Arc<K>> {
        let objects = self.inner.objects.read();
        let mut found: Vec<Arc<K>> = objects.controlled(namespace, kind, name).cloned().collect();
        let its_own = found.len();
        found.extend(objects.uncontrolled(namespace).cloned());
        if its_own > 0 && found.len() > its_own {
            found.sort_by(|a, b| a.meta().name.cmp(&b.meta().name));
        }
        found
    }
    /// The objects found by a term ([`Self::indexed`]), by namespace and name. Costs what there are of them.
    pub fn found_by(&self, term: &str) -> Vec<Arc<K>> {
        self.inner.objects.read().groups().get(term).map(|(_, object)| object.clone()).collect()
    }
    /// The objects found by any of the terms, each once, by namespace and name.
    pub fn found_by_any(&self, terms: &[String]) -> Vec<Arc<K>> {
        let objects = self.inner.objects.read();
        let found: BTreeMap<&Key, &Arc<K>> = terms.iter().flat_map(|term| objects.groups().get(term)).collect();
        found.into_values().cloned().collect()
    }
    /// The objects found by the term by which the fewest are, by namespace and name: all that have all the terms, and
    /// others. None if there is no term.
    pub fn found_by_rarest(&self, terms: &[String]) -> Vec<Arc<K>> {
        let objects = self.inner.objects.read();
        let rarest = terms.iter().min_by_key(|term| objects.groups().len(term));
        rarest.into_iter().flat_map(|term| objects.groups().get(term)).map(|(_, object)| object.clone()).collect()
    }
    /// Whether a namespace has any.
    pub fn any_in(&self, namespace: &str) -> bool {
        self.inner.objects.read().any_in(namespace)
    }
    /// All objects, ordered within each namespace.
    pub fn all(&self) -> Vec<Arc<K>> {
        self.inner.objects.read().iter().cloned().collect()
    }
    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.inner.objects.read().len()
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
        self.inner.seen.borrow().revision
    }
    /// Waits until what was written at this resourceVersion before the call is seen, so that a writer reads its own
    /// writes: an object as new came, or a list that was begun after the write is complete, as after a cut watch. It
    /// waits for as long as the watch takes.
    pub async fn caught_up(&self, revision: u64) {
        let mut seen = self.inner.seen.subscribe();
        let begun = seen.borrow().begun;
        // Cannot fail: the sender lives in `self`.
        let _ = seen.wait_for(|seen| seen.revision >= revision || seen.complete > begun).await;
    }

    /// Applies a stream of watch events until it ends.
    pub async fn follow(&self, events: impl Stream<Item = Event<K>>) {
        let mut events = std::pin::pin!(events);
        let none = || Objects::new(self.inner.terms);
        let mut listing = none();
        while let Some(event) = events.next().await {
            match event {
                Event::Init => {
                    listing = none();
                    self.inner.seen.send_modify(|seen| seen.begun += 1);
                }
                Event::InitApply(object) => {
                    listing.insert(prepare(object));
                }
                Event::InitDone => {
                    self.replace(std::mem::replace(&mut listing, none()));
                    self.inner.seen.send_modify(|seen| seen.complete = seen.begun);
                    self.inner.ready.send_replace(true);
                }
                Event::Apply(object) => {
                    let object = prepare(object);
                    let handlers = self.inner.handlers.lock();
                    let old = self.inner.objects.write().insert(object.clone());
                    tell(&handlers, &Change { old, new: Some(object.clone()) });
                    self.saw(&*object);
                }
                Event::Delete(object) => {
                    let object = prepare(object);
                    let handlers = self.inner.handlers.lock();
                    let gone = self.inner.objects.write().remove(&Key::of(&*object)).is_some();
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
        let before = std::mem::replace(&mut *self.inner.objects.write(), listed);
        for old in before.iter().filter(|old| self.get(&Key::of(&***old)).is_none()) {
            tell(&handlers, &Change { old: Some(old.clone()), new: None });
        }
        for new in self.all() {
            let old = before.get(&Key::of(&*new)).cloned();
            if old.as_ref().is_none_or(|old| old.meta().resource_version != new.meta().resource_version) {
                tell(&handlers, &Change { old, new: Some(new.clone()) });
            }
            self.saw(&*new);
        }
    }

    fn saw(&self, object: &K) {
        let revision = revision_of(object);
        self.inner.seen.send_if_modified(|seen| {
            let newer = revision > seen.revision;
            if newer {
                seen.revision = revision;
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

fn prepare<K: Resource>(mut object: K) -> Arc<K> {
    object.managed_fields_mut().clear();
    Arc::new(object)
}

fn tell<K>(handlers: &[Handler<K>], change: &Change<K>) {
    for handler in handlers {
        handler(change);
    }
}

#[cfg(test)]
#[path = "reflector_tests.rs"]
mod tests;
