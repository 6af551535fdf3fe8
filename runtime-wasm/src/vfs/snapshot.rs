//! Read-only content that is replaced as a whole: configMap and secret volumes.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;

use super::mounts::Mounts;
use super::node::{Node, Result};
use super::{Vfs, VfsLimits};

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
    current: RwLock<Vfs>,
}

impl Snapshot {
    /// A snapshot of these files, by path; [`super::VfsError::NoSpace`] if they do not fit `limits`.
    pub fn new(files: &BTreeMap<String, SnapshotFile>, limits: VfsLimits) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { limits, current: RwLock::new(build(files, limits)?) }))
    }

    /// Replaces the content at once. On an error the old content stays.
    pub fn replace(&self, files: &BTreeMap<String, SnapshotFile>) -> Result<()> {
        let next = build(files, self.limits)?;
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

fn build(files: &BTreeMap<String, SnapshotFile>, limits: VfsLimits) -> Result<Vfs> {
    let vfs = Vfs::new(limits);
    let view = Mounts::new(vfs.root());
    for (path, file) in files {
        view.write_file_mode(path, &file.data, file.mode)?;
    }
    Ok(vfs)
}
