//! The visible state: records by key, history, and the revision that both are at.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use tokio::time::Instant;

use crate::history::History;
use crate::{Event, EventKind, ListOptions, Options, Page, Record, StoreError};

/// The revision of a store before its first write: 0 means "any" to clients.
pub(crate) const FIRST_REVISION: u64 = 1;

pub(crate) struct Index {
    records: BTreeMap<Arc<str>, Record>,
    history: History,
    revision: u64,
}

impl Index {
    pub(crate) fn new(options: Options) -> Self {
        Self { records: BTreeMap::new(), history: History::new(FIRST_REVISION, options), revision: FIRST_REVISION }
    }

    /// Takes up records and history from a log. `history` continues `floor` without gaps up to `revision`.
    pub(crate) fn restore(
        records: BTreeMap<Arc<str>, Record>,
        history: Vec<Arc<Event>>,
        floor: u64,
        revision: u64,
        options: Options,
    ) -> Self {
        let mut index = Self { records, history: History::new(floor, options), revision };
        let now = Instant::now();
        history.into_iter().for_each(|event| index.history.push(event, now));
        index
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }
    pub(crate) fn history(&self) -> &History {
        &self.history
    }
    pub(crate) fn get(&self, key: &str) -> Option<&Record> {
        self.records.get(key)
    }
    pub(crate) fn count(&self, prefix: &str) -> usize {
        self.range(prefix, None).count()
    }

    /// Makes events visible; they follow the present revision without gaps.
    pub(crate) fn apply(&mut self, events: &[Arc<Event>]) {
        let now = Instant::now();
        for event in events {
            let record = &event.record;
            match event.kind {
                EventKind::Deleted => self.records.remove(&record.key),
                EventKind::Created | EventKind::Updated => self.records.insert(record.key.clone(), record.clone()),
            };
            self.revision = record.revision;
            self.history.push(event.clone(), now);
        }
    }

    pub(crate) fn compact(&mut self, revision: u64) {
        self.history.compact(revision);
    }

    /// Events under `prefix` above `after`, for a watch that starts there.
    pub(crate) fn replay(&self, prefix: &str, after: u64) -> Result<Vec<Arc<Event>>, StoreError> {
        self.not_future(after)?;
        Ok(self.history.since(after)?.filter(|e| e.record.key.starts_with(prefix)).cloned().collect())
    }

    pub(crate) fn list(&self, prefix: &str, options: &ListOptions) -> Result<Page, StoreError> {
        let revision = options.at_revision.unwrap_or(self.revision);
        self.not_future(revision)?;
        let after = options.after.as_deref();
        // What keys held at `revision`, where that differs from now: the first later change knows.
        let mut then: BTreeMap<&str, Option<&Record>> = BTreeMap::new();
        for event in self.history.since(revision)? {
            let key: &str = &event.record.key;
            if key.starts_with(prefix) && after.is_none_or(|a| key > a) {
                then.entry(key).or_insert(event.previous.as_ref());
            }
        }
        let unchanged = self.range(prefix, after).filter(|r| !then.contains_key(&*r.key));
        let changed = then.values().filter_map(|r| *r);
        let mut merged = Merge { a: unchanged.peekable(), b: changed.peekable() };
        let limit = if options.limit == 0 { usize::MAX } else { options.limit };
        let records: Vec<Record> = merged.by_ref().take(limit).cloned().collect();
        let remaining = merged.count() as u64;
        Ok(Page { records, revision, more: remaining > 0, remaining })
    }

    fn not_future(&self, asked: u64) -> Result<(), StoreError> {
        if asked > self.revision {
            return Err(StoreError::Future { asked, current: self.revision });
        }
        Ok(())
    }

    fn range<'a>(&'a self, prefix: &'a str, after: Option<&'a str>) -> impl Iterator<Item = &'a Record> {
        let start = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        self.records
            .range::<str, _>((start, Bound::Unbounded))
            .map(|(_, r)| r)
            .take_while(move |r| r.key.starts_with(prefix))
    }
}

/// Two iterators in key order as one.
struct Merge<A: Iterator, B: Iterator> {
    a: std::iter::Peekable<A>,
    b: std::iter::Peekable<B>,
}

impl<'a, A: Iterator<Item = &'a Record>, B: Iterator<Item = &'a Record>> Iterator for Merge<A, B> {
    type Item = &'a Record;
    fn next(&mut self) -> Option<&'a Record> {
        match (self.a.peek(), self.b.peek()) {
            (Some(a), Some(b)) if a.key > b.key => self.b.next(),
            (None, _) => self.b.next(),
            _ => self.a.next(),
        }
    }
}
