//! The virtual filesystem: one in-memory tree per pod ([`Vfs`]), and each container's view of it ([`Mounts`]).
//!
//! Nothing in memory makes a system call or blocks; only a mounted directory of the machine ([`HostDir`]) does. Everything
//! a guest can make grow is charged to the tree's limits.

mod disk;
mod file;
mod host;
mod memory;
mod mounts;
mod node;
mod quota;
mod resolve;
mod snapshot;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;

pub use disk::disk_size;
pub use host::{HostDir, MAX_OPEN as MAX_OPEN_HOST_FILES};
pub use mounts::{Location, MAX_OPEN_FILES, Mount, Mounts, OpenFile, Source};
pub use node::{Entry, MAX_LINKS, MAX_NAME, MAX_PATH, New, Node, NodeId, NodeKind, Result, Stat, VfsError};
pub use quota::VfsLimits;
pub use resolve::Found;
pub use snapshot::{Snapshot, SnapshotFile};

/// An in-memory tree with limits of its own: a pod's, an emptyDir's with a size limit, or a snapshot's. Cheap to clone.
///
/// Paths in this API are relative to the tree's root (a leading `/` is allowed) and cannot leave it.
#[derive(Clone)]
pub struct Vfs {
    tree: Arc<memory::Tree>,
    root: Arc<memory::MemoryNode>,
}

impl Vfs {
    /// An empty tree.
    pub fn new(limits: VfsLimits) -> Self {
        let (tree, root) = memory::Tree::new(limits);
        Self { tree, root }
    }

    /// Bytes (content, names, bookkeeping) and inodes in use.
    pub fn usage(&self) -> (u64, u64) {
        self.tree.usage()
    }

    /// Charges this tree's bytes, those it has and those to come, to a pod's memory account as well; the first counts.
    pub fn charge_to(&self, memory: &Arc<crate::limits::MemoryBudget>) {
        self.tree.charge_to(memory);
    }

    /// The root directory.
    pub fn root(&self) -> Arc<dyn Node> {
        self.root.clone()
    }

    /// Makes the directory and its parents; returns it. Existing directories are fine.
    pub fn mkdir_all(&self, path: &str) -> Result<Arc<dyn Node>> {
        Ok(self.view().mkdir_all(path)?.node)
    }

    /// Writes a whole file, making parents and replacing what it held.
    pub fn write_file(&self, path: &str, data: &[u8]) -> Result<()> {
        self.view().write_file(path, data)
    }

    /// Reads a whole file.
    pub fn read_file(&self, path: &str) -> Result<Bytes> {
        self.view().read_file(path)
    }

    /// Removes a file or directory with all it holds; what does not exist is fine.
    pub fn remove_all(&self, path: &str) -> Result<()> {
        self.view().remove_all(path)
    }

    fn view(&self) -> Mounts {
        Mounts::new(self.root())
    }
}

impl std::fmt::Debug for Vfs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (bytes, inodes) = self.usage();
        f.debug_struct("Vfs").field("bytes", &bytes).field("inodes", &inodes).finish()
    }
}
