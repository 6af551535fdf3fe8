//! Read-only content that is replaced as a whole: configMap and secret volumes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use super::mounts::Mounts;
use super::node::{Node, Result};
use super::{Vfs, VfsLimits};
use crate::limits::MemoryBudget;

/// One file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Its content.
    pub data: Bytes,
    /// Unix permission bits.
    pub mode: u32,
}

/// Files that change together: readers see either all of the old content or all of the new.
pub struct Snapshot {
    limits: VfsLimits,
    memory: Option<Arc<MemoryBudget>>,
    current: RwLock<Vfs>,
}

impl Snapshot {
    /// A snapshot of these files, by path; [`super::VfsError::NoSpace`] if they do not fit `limits`.
    pub fn new(files: &BTreeMap<String, SnapshotFile>, limits: VfsLimits) -> Result<Arc<Self>> {
        Self::make(files, limits, None)
    }

    /// As [`Self::new`], at the cost of a pod's memory too: [`super::VfsError::NoSpace`] if that has no room for it.
    pub fn charged(
        files: &BTreeMap<String, SnapshotFile>,
        limits: VfsLimits,
        memory: &Arc<MemoryBudget>,
    ) -> Result<Arc<Self>> {
        Self::make(files, limits, Some(memory.clone()))
    }

    fn make(
        files: &BTreeMap<String, SnapshotFile>,
        limits: VfsLimits,
        memory: Option<Arc<MemoryBudget>>,
    ) -> Result<Arc<Self>> {
        let current = RwLock::new(build(files, limits, memory.as_ref())?);
        Ok(Arc::new(Self { limits, memory, current }))
    }

    /// Replaces the content at once: for a moment there is memory for both. On an error the old content stays.
    pub fn replace(&self, files: &BTreeMap<String, SnapshotFile>) -> Result<()> {
        let next = build(files, self.limits, self.memory.as_ref())?;
        *self.current.write() = next;
        Ok(())
    }

    /// Bytes and inodes in use.
    pub fn usage(&self) -> (u64, u64) {
        self.current.read().usage()
    }

    pub(super) fn root(&self) -> Arc<dyn Node> {
        self.current.read().root()
    }
}

fn build(files: &BTreeMap<String, SnapshotFile>, limits: VfsLimits, memory: Option<&Arc<MemoryBudget>>) -> Result<Vfs> {
    let vfs = Vfs::new(limits);
    if let Some(memory) = memory {
        vfs.charge_to(memory);
    }
    let view = Mounts::new(vfs.root());
    for (path, file) in files {
        view.write_file_mode(path, &file.data, file.mode)?;
    }
    Ok(vfs)
}
