//! What decisions cost, in steps instead of time: the same on every machine.

/// Steps that decisions took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Nodes that were asked whether they may have a pod, each time.
    pub asked: u64,
    /// Nodes that were compared with others.
    pub scored: u64,
    /// Pods that were looked at to begin a count of them.
    pub counted: u64,
    /// Nodes that were looked at to begin a count by topology, or to put them in order.
    pub grouped: u64,
}

impl Work {
    /// All steps.
    pub fn steps(&self) -> u64 {
        self.asked + self.scored + self.counted + self.grouped
    }
}

/// A number of things as steps.
pub(super) fn steps(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}
