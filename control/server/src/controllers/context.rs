//! What every controller has: its identity, the caches, its events and its queue.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use copepod_client::events::Severity;
use copepod_client::{Key, Outcome, Recorder, Settings, WorkQueue};
use copepod_core::controllers::backoff::Backoff;
use copepod_core::controllers::{Plan, meta};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Config;
use super::caches::Caches;
use super::executor::{Executor, Failure, Refusal, Writes, explain, namespace_going};
use crate::api::Clock;

/// A running controller.
pub(super) type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Keys that one controller works on at once.
const WORKERS: usize = 16;

/// One controller's surroundings; cheap to clone.
#[derive(Clone)]
pub(super) struct Context {
    pub name: Arc<str>,
    pub caches: Arc<Caches>,
    pub executor: Executor,
    pub recorder: Recorder,
    pub token: CancellationToken,
    clock: Clock,
    seed: u64,
}

impl Context {
    pub fn new(
        client: kube::Client,
        name: &str,
        caches: Arc<Caches>,
        config: &Config,
        token: CancellationToken,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let (recorder, write) = Recorder::new(client.clone(), name, None, token.clone());
        tasks.spawn(write);
        Self {
            name: name.into(),
            caches,
            executor: Executor::new(client),
            recorder,
            token,
            clock: config.clock.clone(),
            seed: config.seed,
        }
    }

    /// The present time by the configured clock.
    pub fn now(&self) -> jiff::Timestamp {
        (self.clock)()
    }

    /// A queue with the usual spacing.
    pub fn queue<K: Clone + Eq + std::hash::Hash + Send + 'static>(&self) -> WorkQueue<K> {
        WorkQueue::new(Settings { seed: self.seed, ..Settings::default() })
    }

    /// Works on a queue once the caches are filled.
    pub fn work<K, F, Fut>(self, queue: WorkQueue<K>, work: F) -> Running
    where
        K: Clone + Eq + std::hash::Hash + Send + Sync + 'static,
        F: Fn(Context, K) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Outcome> + Send + 'static,
    {
        Box::pin(async move {
            let token = self.token.clone();
            tokio::select! {
                () = token.cancelled() => return,
                () = self.caches.ready() => {}
            }
            queue.run(WORKERS, token, move |key| work(self.clone(), key)).await;
        })
    }

    /// Executes a plan about an object, records its events, and waits until the caches show what was written: whoever
    /// observes next, sees it.
    pub async fn apply(&self, plan: &Plan, about: &ObjectReference, path: &str) -> (Writes, Outcome, Option<Failure>) {
        if plan.confirm_owner {
            match self.executor.look(path).await {
                Ok(Some((uid, false))) if Some(&uid) == about.uid.as_ref() => {}
                Ok(_) => return (Writes::default(), Outcome::Done, None),
                Err(_) => return (Writes::default(), Outcome::Retry, None),
            }
        }
        if !plan.is_empty() {
            let name = about.name.as_deref().unwrap_or_default();
            tracing::debug!(controller = &*self.name, name, writes = plan.actions.len(), why = plan.why, "reconciling");
        }
        let (writes, result) = self.executor.run(plan).await;
        let outcome = match &result {
            Ok(()) => {
                for note in &plan.notes {
                    let severity = if note.warning { Severity::Warning } else { Severity::Normal };
                    self.recorder.event(about.clone(), severity, note.reason, &note.message);
                }
                plan.requeue_after.map_or(Outcome::Done, Outcome::After)
            }
            Err(Failure::Stale) => Outcome::Retry,
            Err(Failure::Refused(Refusal { error, .. })) if namespace_going(error) => Outcome::Done,
            Err(Failure::Refused(Refusal { error, .. })) => {
                let name = about.name.as_deref().unwrap_or_default();
                tracing::warn!(controller = &*self.name, name, error = explain(error), "write refused");
                Outcome::Retry
            }
        };
        self.caches.caught_up(&writes.revisions).await;
        (writes, outcome, result.err())
    }

    /// Says in events which pods were created and deleted for an object, and what was refused.
    pub fn tell_pods(&self, about: &ObjectReference, writes: &Writes, failure: Option<&Failure>) {
        let event = |severity, reason, message: String| self.recorder.event(about.clone(), severity, reason, &message);
        for (_, name) in writes.created.iter().filter(|(resource, _)| resource == "pods") {
            event(Severity::Normal, "SuccessfulCreate", format!("Created pod: {name}"));
        }
        for (_, name) in writes.deleted.iter().filter(|(resource, _)| resource == "pods") {
            event(Severity::Normal, "SuccessfulDelete", format!("Deleted pod: {name}"));
        }
        if let Some(Failure::Refused(refusal)) = failure
            && let Some((reason, verb)) = refusal.told().filter(|_| refusal.target.gvr == meta::pods())
        {
            event(Severity::Warning, reason, format!("Error {verb}: {}", explain(&refusal.error)));
        }
    }
}

/// By workload: how often its pods ended and were replaced; a handle to be cloned.
#[derive(Clone, Default)]
pub(super) struct Failures(Arc<Mutex<HashMap<Key, Arc<Mutex<Backoff>>>>>);

impl Failures {
    /// Decides with what is remembered of a workload; decisions on others go on meanwhile.
    pub fn with<T>(&self, key: &Key, decide: impl FnOnce(&mut Backoff) -> T) -> T {
        let one = self.0.lock().entry(key.clone()).or_default().clone();
        decide(&mut one.lock())
    }
    /// Forgets a workload that is gone.
    pub fn forget(&self, key: &Key) {
        self.0.lock().remove(key);
    }
}

/// An object as an event's subject.
pub(super) fn about(api_version: &str, kind: &str, meta: &ObjectMeta) -> ObjectReference {
    ObjectReference {
        api_version: Some(api_version.into()),
        kind: Some(kind.into()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// The present time.
pub(super) fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

/// A key as a queue's `add` target for each of several.
pub(super) fn add_all(queue: &WorkQueue<Key>, keys: impl IntoIterator<Item = Key>) {
    for key in keys {
        queue.add(key);
    }
}

#[cfg(test)]
#[path = "context_tests.rs"]
mod tests;
