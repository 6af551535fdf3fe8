use std::time::Duration;

/// Bounds of a store.
#[derive(Debug, Clone)]
pub struct Options {
    /// Changes kept for watches to resume from and lists to page at; older ones answer `Compacted`.
    pub history_count: usize,
    /// Bytes of keys, values and attributes that history may hold (a value counts twice: its consumers cache an encoding of
    /// it).
    pub history_bytes: usize,
    /// How long a change is kept; `None` for as long as the other bounds allow. Checked at each write.
    pub history_age: Option<Duration>,
    /// Events queued for one watcher before it is cut off, beyond those it resumes with.
    pub watch_buffer: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { history_count: 100_000, history_bytes: 64 << 20, history_age: None, watch_buffer: 4096 }
    }
}
