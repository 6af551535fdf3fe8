//! Reads of the objects that a write depends on, straight from the store's memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use copepod_api::{ApiError, GroupResource};
use copepod_store::{ListOptions, Record, Store};
use parking_lot::Mutex;
use serde_json::Value;

use crate::api::error;

/// How long a write waits at most for what a controller is about to make.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// The object of a record.
pub(super) fn decode(record: &Record) -> Result<Value, ApiError> {
    serde_json::from_slice(&record.value).map_err(ApiError::internal)
}

/// The object under a key.
pub(super) fn get(store: &dyn Store, key: &str) -> Result<Option<Value>, ApiError> {
    store.get(key).map(|record| decode(&record)).transpose()
}

/// The records under a prefix.
pub(super) fn records(store: &dyn Store, prefix: &str) -> Result<Vec<Record>, ApiError> {
    let resource = GroupResource { group: String::new(), resource: prefix.trim_matches('/').into() };
    let page = store.list(prefix, &ListOptions::default()).map_err(|e| error::from_store(e, &resource, ""))?;
    Ok(page.records)
}

/// The objects under a prefix: for the few of one kind in one namespace.
pub(super) fn list(store: &dyn Store, prefix: &str) -> Result<Vec<Value>, ApiError> {
    records(store, prefix)?.iter().map(decode).collect()
}

/// Asks again with every change under a prefix until there is an answer, for [`PATIENCE`] at most.
pub(super) async fn wait<T>(
    store: &dyn Store,
    prefix: &str,
    ask: impl Fn() -> Result<Option<T>, ApiError>,
) -> Result<Option<T>, ApiError> {
    if let Some(answer) = ask()? {
        return Ok(Some(answer));
    }
    let changes = store.watch(prefix, store.current_revision());
    let mut changes = changes.map_err(ApiError::internal)?;
    // What came between the first look and the watch.
    if let Some(answer) = ask()? {
        return Ok(Some(answer));
    }
    let answered = async {
        while changes.next().await.is_ok() {
            if let Some(answer) = ask()? {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    };
    tokio::time::timeout(PATIENCE, answered).await.unwrap_or(Ok(None))
}

/// Answers by key, with the revision of the object that gave it; `None` if it had nothing to say.
type Answers<T> = BTreeMap<Arc<str>, (u64, Option<T>)>;

/// What the objects under a prefix say to one question; only those that changed since the last look are decoded.
pub(super) struct Digest<T> {
    prefix: &'static str,
    of: fn(&Value) -> Option<T>,
    seen: Mutex<Answers<T>>,
}

impl<T: Clone> Digest<T> {
    pub fn new(prefix: &'static str, of: fn(&Value) -> Option<T>) -> Self {
        Self { prefix, of, seen: Mutex::default() }
    }

    /// The answers now, in the order of the objects' names.
    pub fn now(&self, store: &dyn Store) -> Result<Vec<T>, ApiError> {
        let records = records(store, self.prefix)?;
        let mut seen = self.seen.lock();
        let mut next = BTreeMap::new();
        for record in records {
            let known = seen.remove(&record.key).filter(|(revision, _)| *revision == record.revision);
            let said = match known {
                Some((_, said)) => said,
                None => (self.of)(&decode(&record)?),
            };
            next.insert(record.key.clone(), (record.revision, said));
        }
        let answers = next.values().filter_map(|(_, said)| said.clone()).collect();
        *seen = next;
        Ok(answers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use copepod_store::{Attrs, Expect, MemoryStore, Options};
    use serde_json::json;

    async fn put(store: &MemoryStore, key: &str, object: Value) {
        store.put(key, object.to_string().into(), Attrs::default(), Expect::Any).await.unwrap();
    }

    #[tokio::test]
    async fn digests_follow_the_objects() {
        let store = MemoryStore::new(Options::default());
        let digest = Digest::new("/g/things/", |thing| thing.get("n").and_then(Value::as_i64));
        assert_eq!(digest.now(&store).unwrap(), Vec::<i64>::new());
        put(&store, "/g/things/a", json!({"n": 1})).await;
        put(&store, "/g/things/b", json!({})).await;
        put(&store, "/g/other/c", json!({"n": 9})).await;
        assert_eq!(digest.now(&store).unwrap(), [1]);
        put(&store, "/g/things/b", json!({"n": 2})).await;
        assert_eq!(digest.now(&store).unwrap(), [1, 2]);
        store.delete("/g/things/a", Expect::Any).await.unwrap();
        assert_eq!(digest.now(&store).unwrap(), [2]);
    }

    #[tokio::test(start_paused = true)]
    async fn waits_for_what_comes_and_not_for_ever() {
        let store = MemoryStore::new(Options::default());
        put(&store, "/g/things/first", json!({})).await;
        let ask = || get(&store, "/g/things/x");
        let (found, ()) = tokio::join!(wait(&store, "/g/things/", ask), put(&store, "/g/things/x", json!({"n": 1})));
        assert_eq!(found.unwrap(), Some(json!({"n": 1})));
        assert_eq!(wait(&store, "/g/things/", || get(&store, "/g/things/y")).await.unwrap(), None);
    }
}
