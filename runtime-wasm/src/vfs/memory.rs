//! Nodes of the in-memory tree.
//!
//! Each directory's entries and each file's content have a lock of their own; every change of the name space of a tree
//! also holds the tree's `changes` lock, so that renames are atomic and locks have one order.

use std::any::Any;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use super::file::FileData;
use super::node::{Entry, New, Node, NodeId, NodeKind, Result, Stat, VfsError};
use super::quota::{Quota, VfsLimits};

/// What an inode costs besides its content, in bytes.
const INODE_COST: u64 = 320;
/// What a directory entry costs besides its name, in bytes.
const ENTRY_COST: u64 = 48;
/// Hard links to one file.
const MAX_HARD_LINKS: u64 = 65_000;

/// What the nodes of one tree share.
pub(super) struct Tree {
    id: u64,
    quota: Quota,
    next_inode: AtomicU64,
    changes: Mutex<()>,
}

impl Tree {
    /// A new tree: its root, and what it counts.
    pub(super) fn new(limits: VfsLimits) -> (Arc<Self>, Arc<MemoryNode>) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let tree = Arc::new(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            quota: Quota::new(limits),
            next_inode: AtomicU64::new(1),
            changes: Mutex::new(()),
        });
        let root = MemoryNode::new(&tree, Body::Directory(RwLock::default(), Mutex::default()), 0o755, 0, 1);
        (tree, root)
    }

    /// Charges the tree's bytes to this account as well.
    pub(super) fn charge_to(&self, memory: &Arc<crate::limits::MemoryBudget>) {
        self.quota.charge_to(memory);
    }

    /// Bytes and inodes in use.
    pub(super) fn usage(&self) -> (u64, u64) {
        self.quota.usage()
    }
}

/// A file, directory or symbolic link in memory.
pub(super) struct MemoryNode {
    me: Weak<MemoryNode>,
    tree: Arc<Tree>,
    inode: u64,
    mode: u32,
    /// Bytes charged for the node itself, besides content and entries.
    charged: u64,
    links: AtomicU64,
    times: Mutex<Times>,
    body: Body,
}

#[derive(Clone, Copy)]
struct Times {
    accessed: SystemTime,
    modified: SystemTime,
    changed: SystemTime,
}

enum Body {
    File(RwLock<FileData>),
    /// Entries, and the parent (for the check that a directory is not moved into itself).
    Directory(RwLock<Directory>, Mutex<Weak<MemoryNode>>),
    Symlink(Box<str>),
}

#[derive(Default)]
struct Directory {
    entries: BTreeMap<Box<str>, Arc<MemoryNode>>,
    /// It has no name any more; nothing can be made in it.
    removed: bool,
}

impl MemoryNode {
    fn new(tree: &Arc<Tree>, body: Body, mode: u32, charged: u64, links: u64) -> Arc<Self> {
        let now = SystemTime::now();
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            tree: tree.clone(),
            inode: tree.next_inode.fetch_add(1, Ordering::Relaxed),
            mode,
            charged,
            links: AtomicU64::new(links),
            times: Mutex::new(Times { accessed: now, modified: now, changed: now }),
            body,
        })
    }

    /// A node without a name yet, charged to the tree.
    fn charged(tree: &Arc<Tree>, new: New<'_>, parent: &Weak<MemoryNode>) -> Result<Arc<Self>> {
        let (body, mode, charged) = match new {
            New::File(mode) => (Body::File(RwLock::default()), mode, INODE_COST),
            New::Directory => (Body::Directory(RwLock::default(), Mutex::new(parent.clone())), 0o755, INODE_COST),
            New::Symlink(target) => (Body::Symlink(target.into()), 0o777, INODE_COST + target.len() as u64),
        };
        tree.quota.charge_inode()?;
        if let Err(error) = tree.quota.charge_bytes(charged) {
            tree.quota.release_inode();
            return Err(error);
        }
        Ok(Self::new(tree, body, mode, charged, 0))
    }

    fn file(&self) -> Result<&RwLock<FileData>> {
        match &self.body {
            Body::File(data) => Ok(data),
            Body::Directory(..) => Err(VfsError::IsDirectory),
            Body::Symlink(_) => Err(VfsError::Invalid),
        }
    }

    fn directory(&self) -> Result<&RwLock<Directory>> {
        match &self.body {
            Body::Directory(entries, _) => Ok(entries),
            _ => Err(VfsError::NotDirectory),
        }
    }

    /// Whether this directory is `other` or lies in it. The caller holds `changes`.
    fn is_within(&self, other: &MemoryNode) -> bool {
        let mut at = self.me.upgrade();
        while let Some(node) = at {
            if std::ptr::eq(&*node, other) {
                return true;
            }
            at = match &node.body {
                Body::Directory(_, parent) => parent.lock().upgrade(),
                _ => None,
            };
        }
        false
    }

    fn add(&self, dir: &mut Directory, name: &str, node: Arc<MemoryNode>) -> Result<()> {
        self.tree.quota.charge_bytes(entry_cost(name))?;
        node.links.fetch_add(1, Ordering::Relaxed);
        node.touch_changed();
        dir.entries.insert(name.into(), node);
        self.touch_modified();
        Ok(())
    }

    fn take(&self, dir: &mut Directory, name: &str) -> Option<Arc<MemoryNode>> {
        let node = dir.entries.remove(name)?;
        self.tree.quota.release_bytes(entry_cost(name));
        node.links.fetch_sub(1, Ordering::Relaxed);
        node.touch_changed();
        self.touch_modified();
        Some(node)
    }

    fn touch_modified(&self) {
        let mut times = self.times.lock();
        times.modified = SystemTime::now();
        times.changed = times.modified;
    }

    fn touch_changed(&self) {
        self.times.lock().changed = SystemTime::now();
    }

    /// Removes an empty directory's node from use, or says why not.
    fn retire(&self) -> Result<()> {
        let mut dir = self.directory()?.write();
        if !dir.entries.is_empty() {
            return Err(VfsError::NotEmpty);
        }
        dir.removed = true;
        Ok(())
    }
}

fn entry_cost(name: &str) -> u64 {
    ENTRY_COST + name.len() as u64
}

/// The node as one of this kind of tree.
fn memory(node: &Arc<dyn Node>) -> Result<Arc<MemoryNode>> {
    let any: Arc<dyn Any + Send + Sync> = node.clone();
    any.downcast().map_err(|_| VfsError::CrossDevice)
}

impl Node for MemoryNode {
    fn id(&self) -> NodeId {
        NodeId { tree: self.tree.id, inode: self.inode }
    }

    fn kind(&self) -> NodeKind {
        match &self.body {
            Body::File(_) => NodeKind::File,
            Body::Directory(..) => NodeKind::Directory,
            Body::Symlink(_) => NodeKind::Symlink,
        }
    }

    fn stat(&self) -> Result<Stat> {
        let size = match &self.body {
            Body::File(data) => data.read().len(),
            Body::Directory(dir, _) => dir.read().entries.len() as u64,
            Body::Symlink(target) => target.len() as u64,
        };
        let times = *self.times.lock();
        Ok(Stat {
            kind: self.kind(),
            size,
            links: self.links.load(Ordering::Relaxed),
            mode: self.mode,
            accessed: times.accessed,
            modified: times.modified,
            changed: times.changed,
        })
    }

    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        let data = self.file()?.read().read(offset, len);
        self.times.lock().accessed = SystemTime::now();
        Ok(data)
    }

    fn target(&self) -> Result<String> {
        match &self.body {
            Body::Symlink(target) => Ok(target.to_string()),
            _ => Err(VfsError::Invalid),
        }
    }

    fn lookup(&self, name: &str) -> Result<Arc<dyn Node>> {
        let node = self.directory()?.read().entries.get(name).cloned();
        node.map(|node| node as Arc<dyn Node>).ok_or(VfsError::NoEntry)
    }

    fn list(&self, after: Option<&str>, max: usize) -> Result<Vec<Entry>> {
        let dir = self.directory()?.read();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let entries = dir.entries.range::<str, _>((from, Bound::Unbounded)).take(max);
        Ok(entries.map(|(name, node)| Entry { name: name.to_string(), kind: node.kind() }).collect())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.file()?.write().write(offset, data, &self.tree.quota)?;
        self.touch_modified();
        Ok(())
    }

    fn append(&self, data: &[u8]) -> Result<()> {
        let mut file = self.file()?.write();
        let end = file.len();
        file.write(end, data, &self.tree.quota)?;
        drop(file);
        self.touch_modified();
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.file()?.write().set_len(len, &self.tree.quota)?;
        self.touch_modified();
        Ok(())
    }

    fn set_times(&self, accessed: Option<SystemTime>, modified: Option<SystemTime>) -> Result<()> {
        let mut times = self.times.lock();
        times.accessed = accessed.unwrap_or(times.accessed);
        times.modified = modified.unwrap_or(times.modified);
        times.changed = SystemTime::now();
        Ok(())
    }

    fn create(&self, name: &str, new: New<'_>) -> Result<Arc<dyn Node>> {
        let _changes = self.tree.changes.lock();
        let mut dir = self.directory()?.write();
        if dir.removed {
            return Err(VfsError::NoEntry);
        }
        if dir.entries.contains_key(name) {
            return Err(VfsError::Exist);
        }
        let node = MemoryNode::charged(&self.tree, new, &self.me)?;
        self.add(&mut dir, name, node.clone())?;
        Ok(node)
    }

    fn link(&self, name: &str, node: &Arc<dyn Node>) -> Result<()> {
        let node = memory(node)?;
        if node.tree.id != self.tree.id {
            return Err(VfsError::CrossDevice);
        }
        if node.kind() == NodeKind::Directory {
            return Err(VfsError::NotPermitted);
        }
        let _changes = self.tree.changes.lock();
        let mut dir = self.directory()?.write();
        // A file without a name cannot get one back.
        if dir.removed || node.links.load(Ordering::Relaxed) == 0 {
            return Err(VfsError::NoEntry);
        }
        if dir.entries.contains_key(name) {
            return Err(VfsError::Exist);
        }
        if node.links.load(Ordering::Relaxed) >= MAX_HARD_LINKS {
            return Err(VfsError::TooManyLinks);
        }
        self.add(&mut dir, name, node)
    }

    fn unlink(&self, name: &str) -> Result<()> {
        let _changes = self.tree.changes.lock();
        let mut dir = self.directory()?.write();
        let node = dir.entries.get(name).ok_or(VfsError::NoEntry)?;
        if node.kind() == NodeKind::Directory {
            return Err(VfsError::IsDirectory);
        }
        let gone = self.take(&mut dir, name);
        drop(dir);
        drop(gone);
        Ok(())
    }

    fn remove_dir(&self, name: &str) -> Result<()> {
        let _changes = self.tree.changes.lock();
        let mut dir = self.directory()?.write();
        dir.entries.get(name).ok_or(VfsError::NoEntry)?.retire()?;
        self.take(&mut dir, name);
        Ok(())
    }

    fn rename(&self, name: &str, dir: &Arc<dyn Node>, new_name: &str) -> Result<()> {
        let to = memory(dir)?;
        if to.tree.id != self.tree.id {
            return Err(VfsError::CrossDevice);
        }
        let _changes = self.tree.changes.lock();
        // No other change is under way, so what these reads find stays true.
        let node = self.directory()?.read().entries.get(name).cloned().ok_or(VfsError::NoEntry)?;
        let replaced = {
            let target = to.directory()?.read();
            if target.removed {
                return Err(VfsError::NoEntry);
            }
            target.entries.get(new_name).cloned()
        };
        let is_dir = node.kind() == NodeKind::Directory;
        if is_dir && to.is_within(&node) {
            return Err(VfsError::Invalid);
        }
        if let Some(replaced) = &replaced {
            if Arc::ptr_eq(replaced, &node) {
                return Ok(());
            }
            match (is_dir, replaced.kind() == NodeKind::Directory) {
                (true, true) => replaced.retire()?,
                (true, false) => return Err(VfsError::NotDirectory),
                (false, true) => return Err(VfsError::IsDirectory),
                (false, false) => {}
            }
        }
        self.exchange(name, &to, new_name)?;
        if let Body::Directory(_, parent) = &node.body {
            *parent.lock() = to.me.clone();
        }
        Ok(())
    }
}

impl MemoryNode {
    /// The moving part of a rename, under both directories' locks so that no reader sees the node twice or not at all.
    /// The caller holds `changes`, so nobody else holds two directories: the order of locks is free.
    fn exchange(&self, name: &str, to: &MemoryNode, new_name: &str) -> Result<()> {
        let mut target = to.directory()?.write();
        let mut source = if std::ptr::eq(self, to) { None } else { Some(self.directory()?.write()) };
        let entries = &source.as_ref().unwrap_or(&target).entries;
        let node = entries.get(name).cloned().ok_or(VfsError::NoEntry)?;
        if !target.entries.contains_key(new_name) {
            // The only failure, before anything changes. A replaced entry passes its charge on.
            self.tree.quota.charge_bytes(entry_cost(new_name))?;
        }
        let replaced = target.entries.insert(new_name.into(), node.clone());
        source.as_mut().unwrap_or(&mut target).entries.remove(name);
        self.tree.quota.release_bytes(entry_cost(name));
        if let Some(replaced) = &replaced {
            replaced.links.fetch_sub(1, Ordering::Relaxed);
            replaced.touch_changed();
        }
        node.touch_changed();
        self.touch_modified();
        to.touch_modified();
        Ok(())
    }
}

impl Drop for MemoryNode {
    fn drop(&mut self) {
        let content = match &mut self.body {
            Body::File(data) => data.get_mut().charged(),
            Body::Symlink(_) => 0,
            Body::Directory(dir, _) => {
                let mut cost = 0;
                let mut pending: Vec<_> = take_entries(dir.get_mut(), &mut cost);
                // Without recursion: a guest may nest directories as deep as its inodes allow.
                while let Some(node) = pending.pop() {
                    if let Some(mut node) = Arc::into_inner(node)
                        && let Body::Directory(dir, _) = &mut node.body
                    {
                        pending.extend(take_entries(dir.get_mut(), &mut cost));
                    }
                }
                cost
            }
        };
        self.tree.quota.release_bytes(self.charged + content);
        if self.charged > 0 {
            self.tree.quota.release_inode();
        }
    }
}

fn take_entries(dir: &mut Directory, cost: &mut u64) -> Vec<Arc<MemoryNode>> {
    let entries = std::mem::take(&mut dir.entries);
    *cost += entries.keys().map(|name| entry_cost(name)).sum::<u64>();
    entries.into_values().collect()
}
