//! Accounting of one tree: every byte and inode is charged before it exists and released when it goes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::node::{Result, VfsError};
use crate::limits::MemoryBudget;

/// Limits of one tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VfsLimits {
    /// Bytes of content, names and bookkeeping.
    pub bytes: u64,
    /// Files, directories and symbolic links.
    pub inodes: u64,
}

impl Default for VfsLimits {
    /// 64 MiB and 16,384 inodes.
    fn default() -> Self {
        Self { bytes: 64 << 20, inodes: 16 << 10 }
    }
}

pub(super) struct Quota {
    limits: VfsLimits,
    /// The pod's memory account, which pays too.
    memory: OnceLock<Arc<MemoryBudget>>,
    bytes: AtomicU64,
    inodes: AtomicU64,
}

impl Quota {
    pub(super) fn new(limits: VfsLimits) -> Self {
        Self { limits, memory: OnceLock::new(), bytes: AtomicU64::new(0), inodes: AtomicU64::new(0) }
    }

    /// From now on, what is held included, bytes are charged to this account too.
    pub(super) fn charge_to(&self, memory: &Arc<MemoryBudget>) {
        if self.memory.set(memory.clone()).is_ok() {
            memory.take_held(self.bytes.load(Ordering::Relaxed));
        }
    }

    pub(super) fn usage(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.inodes.load(Ordering::Relaxed))
    }

    pub(super) fn charge_bytes(&self, bytes: u64) -> Result<()> {
        charge(&self.bytes, bytes, self.limits.bytes)?;
        if let Some(memory) = self.memory.get() {
            memory.take_shared(bytes).map_err(|_| {
                self.bytes.fetch_sub(bytes, Ordering::Relaxed);
                VfsError::NoSpace
            })?;
        }
        Ok(())
    }

    pub(super) fn charge_inode(&self) -> Result<()> {
        charge(&self.inodes, 1, self.limits.inodes)
    }

    pub(super) fn release_bytes(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(memory) = self.memory.get() {
            memory.give(bytes);
        }
    }

    pub(super) fn release_inode(&self) {
        self.inodes.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.get() {
            memory.give(self.bytes.load(Ordering::Relaxed));
        }
    }
}

fn charge(counter: &AtomicU64, amount: u64, limit: u64) -> Result<()> {
    let grow = |used: u64| used.checked_add(amount).filter(|total| *total <= limit);
    counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grow).map(drop).map_err(|_| VfsError::NoSpace)
}
