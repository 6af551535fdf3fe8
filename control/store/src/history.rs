//! The ring of recent changes.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::time::Instant;

use crate::{Event, Options, Record, StoreError};

/// Memory of an event besides its key, value and attributes, roughly.
const EVENT_OVERHEAD: usize = 256;

/// Recent events in revision order, without gaps: the one at `floor + 1` first.
pub(crate) struct History {
    events: VecDeque<(Instant, Arc<Event>)>,
    /// The last revision that is no longer kept (or was never an event).
    floor: u64,
    bytes: usize,
    options: Options,
}

/// What an event keeps in memory. The value before belongs to an earlier event: only that of a key's first event in
/// history comes on top, so that all is at most half as much again.
fn cost(event: &Event) -> usize {
    let Record { key, value, attrs, .. } = &event.record;
    EVENT_OVERHEAD + key.len() + 2 * value.len() + attrs.cost()
}

impl History {
    pub(crate) fn new(floor: u64, options: Options) -> Self {
        Self { events: VecDeque::new(), floor, bytes: 0, options }
    }

    /// The oldest revision that a watch or list may start from.
    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    /// Adds the next event and drops what exceeds the bounds.
    pub(crate) fn push(&mut self, event: Arc<Event>, now: Instant) {
        self.bytes += cost(&event);
        self.events.push_back((now, event));
        while let Some((then, _)) = self.events.front() {
            let old = self.options.history_age.is_some_and(|age| now.duration_since(*then) > age);
            if !old && self.events.len() <= self.options.history_count && self.bytes <= self.options.history_bytes {
                break;
            }
            self.pop();
        }
    }

    /// Drops events up to and including `revision`.
    pub(crate) fn compact(&mut self, revision: u64) {
        while self.floor < revision && !self.events.is_empty() {
            self.pop();
        }
        self.floor = self.floor.max(revision);
    }

    /// The events above `after`, oldest first.
    pub(crate) fn since(&self, after: u64) -> Result<impl DoubleEndedIterator<Item = &Arc<Event>>, StoreError> {
        let Some(skip) = after.checked_sub(self.floor) else {
            return Err(StoreError::Compacted { asked: after, oldest: self.floor });
        };
        let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(self.events.len());
        Ok(self.events.range(skip..).map(|(_, event)| event))
    }

    fn pop(&mut self) {
        if let Some((_, event)) = self.events.pop_front() {
            self.bytes -= cost(&event);
            self.floor = event.record.revision;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Attrs, EventKind};
    use std::sync::OnceLock;
    use std::time::Duration;

    fn event(revision: u64, size: usize) -> Arc<Event> {
        let record = Record {
            key: "/k".into(),
            value: vec![0; size].into(),
            attrs: Arc::new(Attrs::default()),
            created: revision,
            revision,
        };
        Arc::new(Event { kind: EventKind::Created, record, previous: None, encoded: OnceLock::new() })
    }

    fn event_of(event: &Event) -> Event {
        Event { kind: event.kind, record: event.record.clone(), previous: None, encoded: OnceLock::new() }
    }

    fn revisions(history: &History, after: u64) -> Vec<u64> {
        history.since(after).unwrap().map(|e| e.record.revision).collect()
    }

    #[test]
    fn is_bounded_by_count_bytes_and_age() {
        let now = Instant::now();
        let mut h = History::new(1, Options { history_count: 3, ..Options::default() });
        (2..10).for_each(|r| h.push(event(r, 0), now));
        assert_eq!(
            (h.floor(), revisions(&h, 6), revisions(&h, 8), revisions(&h, 9)),
            (6, vec![7, 8, 9], vec![9], vec![])
        );
        assert!(matches!(h.since(5).err(), Some(StoreError::Compacted { asked: 5, oldest: 6 })));

        let mut h = History::new(1, Options { history_bytes: 5000, ..Options::default() });
        (2..10).for_each(|r| h.push(event(r, 1000), now));
        assert_eq!(h.floor(), 7);
        h.push(event(10, 100_000), now);
        assert_eq!((h.floor(), h.bytes), (10, 0));

        // Attributes count too.
        let labels = (0..20).map(|i| (format!("label-{i}"), "x".repeat(50))).collect();
        let attrs = Arc::new(Attrs { labels, ..Attrs::default() });
        let plain = event(11, 0);
        let labelled = Event { record: Record { attrs, ..plain.record.clone() }, ..event_of(&plain) };
        assert!(cost(&labelled) > cost(&plain) + 20 * 50, "{} {}", cost(&labelled), cost(&plain));

        let mut h = History::new(1, Options { history_age: Some(Duration::from_secs(10)), ..Options::default() });
        (2..5).for_each(|r| h.push(event(r, 0), now + Duration::from_secs(r * 5)));
        assert_eq!(revisions(&h, h.floor()), vec![2, 3, 4]);
        h.push(event(5, 0), now + Duration::from_secs(26));
        assert_eq!(revisions(&h, h.floor()), vec![4, 5]);
    }

    #[test]
    fn compacts() {
        let mut h = History::new(1, Options::default());
        (2..6).for_each(|r| h.push(event(r, 0), Instant::now()));
        h.compact(3);
        assert_eq!((h.floor(), revisions(&h, 3)), (3, vec![4, 5]));
        h.compact(2);
        assert_eq!(h.floor(), 3);
        h.compact(5);
        assert_eq!((h.floor(), revisions(&h, 5)), (5, vec![]));
    }
}
