//! What is under the index: something that makes a batch of changes durable.

use std::sync::Arc;

use crate::Event;

/// Changes that become durable together.
pub struct Batch<'a> {
    /// In revision order; may be empty when only `floor` moves.
    pub events: &'a [Arc<Event>],
    /// The revision after the batch.
    pub revision: u64,
    /// History up to and including this revision is no longer needed.
    pub floor: u64,
}

/// Keeps committed changes across restarts.
pub trait Log: Send + 'static {
    /// Returns once the batch is durable. After an error nothing of the batch may be seen by a later open, or all of it;
    /// the store takes no more writes. The error says what failed and where.
    fn commit(&mut self, batch: &Batch<'_>) -> Result<(), String>;
}
