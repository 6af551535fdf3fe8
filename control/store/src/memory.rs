//! The store that forgets: the model of the others, and what tests and simulations use.

use crate::indexed::Indexed;
use crate::log::{Batch, Log};
use crate::{Options, index::Index};

/// Keeps nothing.
pub struct NoLog;

impl Log for NoLog {
    fn commit(&mut self, _: &Batch<'_>) -> Result<(), String> {
        Ok(())
    }
}

/// A store in memory only. Writes commit on the caller's task, so that a paused clock stays in step.
pub type MemoryStore = Indexed<NoLog>;

impl MemoryStore {
    /// An empty store.
    pub fn new(options: Options) -> Self {
        Self::inline(Index::new(options.clone()), NoLog, options)
    }
}

#[cfg(test)]
mod tests {
    crate::conformance_suite!(|options| super::MemoryStore::new(options));
}
