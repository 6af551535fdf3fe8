//! The store proper: index, history and fan-out over a [`Log`].

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};

use crate::fanout::Fanout;
use crate::index::Index;
use crate::log::{Batch, Log};
use crate::{Attrs, Event, EventKind, Expect, ListOptions, Options, Page, Record, Store, StoreError, Watch};

/// Writes that wait for the writer before a caller of `put` has to wait for a place in the queue.
const QUEUE: usize = 4096;
/// The most writes in one commit.
const BATCH_COUNT: usize = 1024;
/// The most bytes of values in one commit, give or take one value.
const BATCH_BYTES: usize = 8 << 20;

/// A store whose reads and watches are answered from memory, over a log that makes writes durable.
pub struct Indexed<L: Log> {
    shared: Arc<Shared>,
    writer: Writer<L>,
}

struct Shared {
    index: RwLock<Index>,
    fanout: Arc<Fanout>,
    read_only: OnceLock<String>,
    watch_buffer: usize,
}

enum Writer<L> {
    /// Commits on the caller's task.
    Inline(Mutex<Committer<L>>),
    /// One thread commits whatever has queued meanwhile, together. Both are `Some` until drop.
    Thread(Option<mpsc::Sender<Write>>, Option<JoinHandle<()>>),
}

impl<L: Log> Indexed<L> {
    /// A store that commits on its callers' tasks: for logs that do not block.
    pub(crate) fn inline(index: Index, log: L, options: Options) -> Self {
        let shared = Shared::new(index, options);
        let writer = Writer::Inline(Mutex::new(Committer { shared: shared.clone(), log }));
        Self { shared, writer }
    }

    /// A store with a writer thread: for logs that block.
    pub(crate) fn threaded(index: Index, log: L, options: Options) -> Result<Self, StoreError> {
        let shared = Shared::new(index, options);
        let (sender, mut queue) = mpsc::channel::<Write>(QUEUE);
        let mut committer = Committer { shared: shared.clone(), log };
        let run = move || {
            while let Some(first) = queue.blocking_recv() {
                let mut bytes = first.op.size();
                let mut batch = vec![first];
                while batch.len() < BATCH_COUNT && bytes < BATCH_BYTES {
                    let Ok(write) = queue.try_recv() else { break };
                    bytes += write.op.size();
                    batch.push(write);
                }
                committer.commit(batch);
            }
        };
        let thread = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(run)
            .map_err(|e| StoreError::Broken(format!("cannot start the store's writer thread: {e}")))?;
        Ok(Self { shared, writer: Writer::Thread(Some(sender), Some(thread)) })
    }

    async fn write(&self, op: Op) -> Result<Option<Record>, StoreError> {
        let (reply, answer) = oneshot::channel();
        let write = Write { op, reply };
        let stopped = || StoreError::ReadOnly("the store's writer has stopped".into());
        match &self.writer {
            Writer::Inline(committer) => committer.lock().commit(vec![write]),
            Writer::Thread(Some(queue), _) => queue.send(write).await.map_err(|_| stopped())?,
            Writer::Thread(None, _) => return Err(stopped()),
        }
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }
}

impl<L: Log> Drop for Indexed<L> {
    /// Commits what is queued, closes the log and ends all watches.
    fn drop(&mut self) {
        if let Writer::Thread(queue, thread) = &mut self.writer {
            drop(queue.take());
            if thread.take().is_some_and(|t| t.join().is_err()) {
                tracing::error!("the store's writer thread panicked");
            }
        }
        self.shared.fanout.close();
    }
}

#[async_trait]
impl<L: Log> Store for Indexed<L> {
    fn get(&self, key: &str) -> Option<Record> {
        self.shared.index.read().get(key).cloned()
    }
    fn list(&self, prefix: &str, options: &ListOptions) -> Result<Page, StoreError> {
        self.shared.index.read().list(prefix, options)
    }
    fn count(&self, prefix: &str) -> usize {
        self.shared.index.read().count(prefix)
    }
    async fn put(&self, key: &str, value: Bytes, attrs: Attrs, expect: Expect) -> Result<Record, StoreError> {
        let op = Op::Put { key: key.into(), value, attrs: Arc::new(attrs), expect };
        self.write(op).await?.ok_or_else(|| StoreError::Broken("a put returned no record".into()))
    }
    async fn delete(&self, key: &str, expect: Expect) -> Result<Record, StoreError> {
        let op = Op::Delete { key: key.into(), expect };
        self.write(op).await?.ok_or_else(|| StoreError::Broken("a delete returned no record".into()))
    }
    fn watch(&self, prefix: &str, after: u64) -> Result<Watch, StoreError> {
        let index = self.shared.index.read();
        let replay = index.replay(prefix, after)?;
        Ok(self.shared.fanout.watch(prefix, replay, index.revision(), self.shared.watch_buffer))
    }
    async fn compact(&self, revision: u64) -> Result<(), StoreError> {
        self.write(Op::Compact(revision)).await.map(|_| ())
    }
    fn current_revision(&self) -> u64 {
        self.shared.index.read().revision()
    }
    fn read_only(&self) -> Option<String> {
        let stopped = match &self.writer {
            Writer::Thread(queue, _) => queue.as_ref().is_none_or(mpsc::Sender::is_closed),
            Writer::Inline(_) => false,
        };
        self.shared.read_only.get().cloned().or_else(|| stopped.then(|| "the store's writer has stopped".into()))
    }
}

impl Shared {
    fn new(index: Index, options: Options) -> Arc<Self> {
        let fanout = Fanout::new(index.revision());
        let watch_buffer = options.watch_buffer;
        Arc::new(Self { index: RwLock::new(index), fanout, read_only: OnceLock::new(), watch_buffer })
    }
}

enum Op {
    Put { key: Arc<str>, value: Bytes, attrs: Arc<Attrs>, expect: Expect },
    Delete { key: Arc<str>, expect: Expect },
    Compact(u64),
}

impl Op {
    fn size(&self) -> usize {
        if let Op::Put { value, .. } = self { value.len() } else { 0 }
    }
}

type Outcome = Result<Option<Record>, StoreError>;

struct Write {
    op: Op,
    reply: oneshot::Sender<Outcome>,
}

/// Commits batches, one after another.
struct Committer<L> {
    shared: Arc<Shared>,
    log: L,
}

impl<L: Log> Committer<L> {
    fn commit(&mut self, batch: Vec<Write>) {
        if let Some(why) = self.shared.read_only.get() {
            return refuse(batch, why);
        }
        let mut plan;
        let outcomes: Vec<Outcome>;
        {
            let index = self.shared.index.read();
            plan = Plan::new(&index);
            outcomes = batch.iter().map(|write| plan.add(&index, &write.op)).collect();
        }
        if !plan.events.is_empty() || plan.compact.is_some() {
            let durable = Batch { events: &plan.events, revision: plan.revision, floor: plan.floor };
            if let Err(why) = self.log.commit(&durable) {
                tracing::error!(error = why, "a commit failed; the store takes no more writes until restart");
                let why = self.shared.read_only.get_or_init(|| why);
                return refuse(batch, why);
            }
            let mut index = self.shared.index.write();
            index.apply(&plan.events);
            if let Some(revision) = plan.compact {
                index.compact(revision);
            }
        }
        // Replies wait for the commit even when they only say "conflict": what they saw must not be undone.
        for (write, outcome) in batch.into_iter().zip(outcomes) {
            let _ = write.reply.send(outcome);
        }
        self.shared.fanout.publish(&plan.events, plan.revision);
    }
}

fn refuse(batch: Vec<Write>, why: &str) {
    for write in batch {
        let _ = write.reply.send(Err(StoreError::ReadOnly(why.into())));
    }
}

/// A batch in the making: the events that its writes lead to, each seeing those before it.
struct Plan {
    events: Vec<Arc<Event>>,
    /// What the batch leaves under the keys that it changes.
    pending: HashMap<Arc<str>, Option<Record>>,
    revision: u64,
    floor: u64,
    compact: Option<u64>,
}

impl Plan {
    fn new(index: &Index) -> Self {
        let (revision, floor) = (index.revision(), index.history().floor());
        Self { events: Vec::new(), pending: HashMap::new(), revision, floor, compact: None }
    }

    fn add(&mut self, index: &Index, op: &Op) -> Outcome {
        match op {
            Op::Put { key, value, attrs, expect } => {
                let previous = self.check(index, key, *expect)?;
                let revision = self.revision + 1;
                let created = previous.as_ref().map_or(revision, |p| p.created);
                // One allocation per key for its whole life.
                let key = previous.as_ref().map_or_else(|| key.clone(), |p| p.key.clone());
                let record = Record { key, value: value.clone(), attrs: attrs.clone(), created, revision };
                let kind = if previous.is_some() { EventKind::Updated } else { EventKind::Created };
                Ok(Some(self.push(kind, record, previous)))
            }
            Op::Delete { key, expect } => {
                let previous = self.check(index, key, *expect)?;
                let conflict = |current| StoreError::Conflict { key: key.to_string(), current };
                let previous = previous.ok_or_else(|| conflict(None))?;
                if *expect == Expect::Absent {
                    return Err(conflict(Some(Box::new(previous))));
                }
                let record = Record { revision: self.revision + 1, ..previous.clone() };
                Ok(Some(self.push(EventKind::Deleted, record, Some(previous))))
            }
            Op::Compact(revision) if *revision > self.revision => {
                Err(StoreError::Future { asked: *revision, current: self.revision })
            }
            Op::Compact(revision) => {
                if *revision > self.floor {
                    self.floor = *revision;
                    self.compact = Some(*revision);
                }
                Ok(None)
            }
        }
    }

    /// The present record, if the precondition holds.
    fn check(&self, index: &Index, key: &str, expect: Expect) -> Result<Option<Record>, StoreError> {
        let current = match self.pending.get(key) {
            Some(pending) => pending.clone(),
            None => index.get(key).cloned(),
        };
        let holds = match expect {
            Expect::Any => true,
            Expect::Absent => current.is_none(),
            Expect::Revision(revision) => current.as_ref().is_some_and(|r| r.revision == revision),
        };
        if holds { Ok(current) } else { Err(StoreError::Conflict { key: key.into(), current: current.map(Box::new) }) }
    }

    fn push(&mut self, kind: EventKind, record: Record, previous: Option<Record>) -> Record {
        self.revision = record.revision;
        self.pending.insert(record.key.clone(), (kind != EventKind::Deleted).then(|| record.clone()));
        self.events.push(Arc::new(Event { kind, record: record.clone(), previous, encoded: OnceLock::new() }));
        record
    }
}

#[cfg(test)]
mod tests;
