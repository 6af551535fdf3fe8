//! A revisioned key-value store with watch, over bytes. Semantics follow etcd's: one global revision, linearizable
//! writes, a total order of events, no event lost or repeated to a watcher that resumes within history, and
//! [`StoreError::Compacted`] otherwise. Knows no Kubernetes types.
//!
//! Keys are `/`-separated strings; a list or watch takes a prefix that ends in `/`.
//!
//! [`MemoryStore`] forgets on restart; [`RedbStore`] keeps records and history in one file. Both are [`Indexed`]: index,
//! history and fan-out live once in memory, above a small log ([`log::Log`]) that makes each batch of writes durable
//! before anyone sees it.

pub mod conformance;
mod fanout;
mod history;
mod index;
mod indexed;
pub mod log;
mod memory;
mod options;
mod redb;

pub use indexed::Indexed;
pub use memory::{MemoryStore, NoLog};
pub use options::Options;
pub use redb::{RedbLog, RedbStore};

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;

/// What the index knows of a value besides its bytes: enough for selectors and for serving without decoding.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Attrs {
    /// Labels, for label selectors.
    pub labels: BTreeMap<String, String>,
    /// Indexed fields (path to value), for field selectors.
    pub fields: BTreeMap<String, String>,
    /// Byte offset in the value at which the caller splices the revision when it serves the value.
    pub splice: u32,
}

impl Attrs {
    /// Their bytes in memory, roughly.
    pub fn cost(&self) -> usize {
        /// A node of a map holds so many entries, and is allocated whole.
        const NODE: usize = 11;
        /// Bytes that an allocation takes besides what was asked for.
        const SPARE: usize = 16;
        let map = |map: &BTreeMap<String, String>| {
            let nodes = map.len().div_ceil(NODE) * NODE * 2 * size_of::<String>();
            let texts: usize = map.iter().map(|(key, value)| key.len() + value.len() + 2 * SPARE).sum();
            nodes + texts
        };
        size_of::<Self>() + map(&self.labels) + map(&self.fields)
    }
}

/// A value at one revision. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Record {
    /// The key.
    pub key: Arc<str>,
    /// The value's bytes.
    pub value: Bytes,
    /// The caller's attributes of the value.
    pub attrs: Arc<Attrs>,
    /// Revision of the key's creation.
    pub created: u64,
    /// Revision of this value (of the deletion, in a delete event).
    pub revision: u64,
}

/// The precondition of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// No precondition.
    Any,
    /// The key must not exist.
    Absent,
    /// The key must exist at exactly this revision.
    Revision(u64),
}

/// What happened to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The key came to be.
    Created,
    /// The key's value changed.
    Updated,
    /// The key went away; the event's record holds the last value under the deletion's revision.
    Deleted,
}

/// One committed change, shared by all its watchers.
#[derive(Debug)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The new value (for deletions the last one, under the deletion's revision).
    pub record: Record,
    /// The value before, if the key existed: selectors need it to see objects enter and leave.
    pub previous: Option<Record>,
    /// Room for the consumer's one encoding of this event, made by the first watcher and shared by the others.
    pub encoded: OnceLock<Bytes>,
}

/// One page of a list.
#[derive(Debug, Clone)]
pub struct Page {
    /// Records in key order.
    pub records: Vec<Record>,
    /// The revision that the whole list is consistent at.
    pub revision: u64,
    /// More keys follow after the last record.
    pub more: bool,
    /// How many records follow this page.
    pub remaining: u64,
}

/// What a list asks for.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// At most this many records; 0 for all.
    pub limit: usize,
    /// Only keys after this one (exclusive), from an earlier page.
    pub after: Option<String>,
    /// List as of this revision (within history) instead of now.
    pub at_revision: Option<u64>,
}

/// Why a store refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The precondition failed; the present record, if the key exists.
    #[error("precondition failed on {key}")]
    Conflict {
        /// The key written.
        key: String,
        /// What is there now.
        current: Option<Box<Record>>,
    },
    /// The revision asked for is older than history.
    #[error("revision {asked} is compacted; the oldest kept is {oldest}")]
    Compacted {
        /// The revision asked for.
        asked: u64,
        /// The oldest revision that a watch or list may start from.
        oldest: u64,
    },
    /// The revision asked for is not reached yet.
    #[error("revision {asked} is in the future; the store is at {current}")]
    Future {
        /// The revision asked for.
        asked: u64,
        /// The store's revision.
        current: u64,
    },
    /// A commit failed (disk full, IO error); the store accepts no more writes until restart.
    #[error("the store is read-only: {0}")]
    ReadOnly(String),
    /// The store cannot be opened or read.
    #[error("{0}")]
    Broken(String),
}

/// A cut-off watch was too slow; it may resume from the last revision it saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("watch closed: the watcher fell behind")]
pub struct Lagged;

/// A running watch: events of a prefix in revision order.
pub struct Watch {
    /// Bounded; closed by the store when the watcher falls behind.
    events: tokio::sync::mpsc::Receiver<Arc<Event>>,
    /// Ends the watch at the store when this is dropped.
    registration: fanout::Registration,
}

impl Watch {
    /// The next event; `Err(Lagged)` once the store cut this watcher off (or shut down) and the queue is drained.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Result<Arc<Event>, Lagged> {
        self.events.recv().await.ok_or(Lagged)
    }
    /// The next event if one is queued already.
    pub fn try_next(&mut self) -> Option<Arc<Event>> {
        self.events.try_recv().ok()
    }
    /// The revision up to which all events are queued: read it first, drain the queue, then a bookmark at it is true.
    /// 0 once the watch is cut off, when no bookmark is true any more.
    pub fn progress(&self) -> u64 {
        let published = self.registration.published();
        // Read in this order: a cut that lost an event up to `published` is visible by now.
        if self.events.is_closed() { 0 } else { published }
    }
}

/// The store. Reads are answered from memory; writes return after they are durable.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The record under `key`, as of the last visible commit.
    fn get(&self, key: &str) -> Option<Record>;
    /// The records under `prefix` in key order.
    fn list(&self, prefix: &str, options: &ListOptions) -> Result<Page, StoreError>;
    /// How many keys stand under `prefix`.
    fn count(&self, prefix: &str) -> usize;
    /// Writes a value; returns its record once durable.
    async fn put(&self, key: &str, value: Bytes, attrs: Attrs, expect: Expect) -> Result<Record, StoreError>;
    /// Removes a key; returns the last value under the deletion's revision once durable. Conflict if absent.
    async fn delete(&self, key: &str, expect: Expect) -> Result<Record, StoreError>;
    /// Events under `prefix` with a revision above `after`; 0 is an error of the caller, use the list's revision.
    fn watch(&self, prefix: &str, after: u64) -> Result<Watch, StoreError>;
    /// Drops history up to and including `revision`.
    async fn compact(&self, revision: u64) -> Result<(), StoreError>;
    /// The revision of the last visible commit.
    fn current_revision(&self) -> u64;
    /// Why writes fail, if they do.
    fn read_only(&self) -> Option<String>;
}
