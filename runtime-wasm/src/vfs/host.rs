//! A directory of the machine as a tree, through cap-std.
//!
//! Paths are walked by [`super::Mounts`], one name at a time: here every name is opened below the directory that was
//! opened before it, and symbolic links are never followed by the machine. So neither "..", nor a link, nor a directory
//! that somebody swaps for a link at the right moment leads out. These calls reach the machine's file system: on a tokio
//! worker they let the worker's other tasks move on.

use std::any::Any;
use std::collections::BinaryHeap;
use std::fs::FileTimes;
use std::io::IoSlice;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use cap_fs_ext::{DirExt, FollowSymlinks, OpenOptionsFollowExt, SystemTimeSpec};
use cap_std::ambient_authority;
use cap_std::fs::{Dir, DirBuilder, DirBuilderExt, Metadata, MetadataExt, OpenOptions, OpenOptionsExt};
use rustix::fs::OFlags;
use rustix::io::{Errno, ReadWriteFlags, pwritev2};

use super::node::{Entry, New, Node, NodeId, NodeKind, Result, Stat, VfsError};

#[cfg(test)]
mod tests;

/// Files and directories that the guests of one host directory hold open at once.
pub const MAX_OPEN: usize = 1024;
/// Mode of new directories.
const DIRECTORY_MODE: u32 = 0o755;

/// A directory of the machine that can be mounted ([`super::Source::Node`]).
pub struct HostDir;

impl HostDir {
    /// The directory at `path`, with all that is in it but the directories `hidden`, which nobody gets into: what this
    /// node itself trusts, such as compiled code. Errors are the machine's.
    pub fn open(path: &Path, hidden: &[&Path]) -> std::io::Result<Arc<dyn Node>> {
        Ok(Tree::open(path, hidden)?)
    }

    /// The regular file at `path`, to be mounted alone.
    pub fn open_file(path: &Path, hidden: &[&Path]) -> std::io::Result<Arc<dyn Node>> {
        let path = std::fs::canonicalize(path)?;
        let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
            return Err(std::io::ErrorKind::IsADirectory.into());
        };
        let node = Tree::open(parent, hidden)?.lookup(name).map_err(std::io::Error::other)?;
        if node.kind() == NodeKind::File { Ok(node) } else { Err(std::io::ErrorKind::InvalidInput.into()) }
    }
}

/// What the nodes of one host directory share.
struct Tree {
    id: u64,
    open: AtomicUsize,
    hidden: Vec<u64>,
}

impl Tree {
    fn open(path: &Path, hidden: &[&Path]) -> std::io::Result<Arc<HostNode>> {
        static NEXT: AtomicU64 = AtomicU64::new(1 << 32);
        let path = std::fs::canonicalize(path)?;
        let inode_of = |path: &&Path| Some(inode(&Metadata::from_just_metadata(std::fs::metadata(path).ok()?)));
        let tree = Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            open: AtomicUsize::new(0),
            hidden: hidden.iter().filter_map(inode_of).collect(),
        };
        if path.ancestors().filter_map(|path| inode_of(&path)).any(|inode| tree.hidden.contains(&inode)) {
            return Err(std::io::ErrorKind::PermissionDenied.into());
        }
        let dir = Dir::open_ambient_dir(&path, ambient_authority())?;
        let meta = dir.dir_metadata()?;
        HostNode::new(&Arc::new(tree), &meta, Handle::Directory(Arc::new(dir)), None).map_err(std::io::Error::other)
    }
}

/// Inode and device in one number.
fn inode(meta: &Metadata) -> u64 {
    meta.ino() ^ meta.dev().rotate_left(32)
}

/// An open file, directory or link of the machine.
struct HostNode {
    tree: Arc<Tree>,
    inode: u64,
    handle: Handle,
    /// Where it was found, for links to it.
    place: Option<(Arc<Dir>, String)>,
}

enum Handle {
    Directory(Arc<Dir>),
    File(std::fs::File),
    /// A file that this process may not open.
    Closed(Stat, VfsError),
    Symlink(Stat, String),
}

impl HostNode {
    fn new(
        tree: &Arc<Tree>,
        meta: &Metadata,
        handle: Handle,
        place: Option<(Arc<Dir>, String)>,
    ) -> Result<Arc<HostNode>> {
        let fits = |open: usize| (open < MAX_OPEN).then_some(open + 1);
        tree.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map_err(|_| VfsError::TooManyOpen)?;
        Ok(Arc::new(Self { tree: tree.clone(), inode: inode(meta), handle, place }))
    }

    fn dir(&self) -> Result<&Arc<Dir>> {
        match &self.handle {
            Handle::Directory(dir) => Ok(dir),
            _ => Err(VfsError::NotDirectory),
        }
    }

    fn file(&self) -> Result<&std::fs::File> {
        match &self.handle {
            Handle::File(file) => Ok(file),
            Handle::Directory(_) => Err(VfsError::IsDirectory),
            Handle::Closed(_, error) => Err(*error),
            Handle::Symlink(..) => Err(VfsError::Invalid),
        }
    }

    fn find(&self, name: &str) -> Result<Arc<HostNode>> {
        let dir = self.dir()?;
        let (meta, handle) = host(|| open(dir, name))?;
        if self.tree.hidden.contains(&inode(&meta)) {
            return Err(VfsError::Access);
        }
        Self::new(&self.tree, &meta, handle, Some((dir.clone(), name.to_owned())))
    }
}

/// Opens what has this name, whatever it is, with all the rights this process has.
fn open(dir: &Dir, name: &str) -> std::io::Result<(Metadata, Handle)> {
    let meta = dir.symlink_metadata(name)?;
    if meta.is_dir() {
        let dir = dir.open_dir_nofollow(name)?;
        return Ok((dir.dir_metadata()?, Handle::Directory(Arc::new(dir))));
    }
    if meta.is_symlink() {
        let target = dir.read_link_contents(name)?;
        let target = target.to_str().ok_or(std::io::ErrorKind::InvalidData)?.to_owned();
        let stat = stat(&meta, NodeKind::Symlink);
        return Ok((meta, Handle::Symlink(stat, target)));
    }
    if !meta.is_file() {
        // A pipe would block, a device is no file.
        return Err(Errno::NOTSUP.into());
    }
    let mut options = options();
    let opened = dir.open_with(name, options.write(true)).or_else(|error| match Errno::from_io_error(&error) {
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY) => dir.open_with(name, options.write(false)),
        _ => Err(error),
    });
    match opened {
        Ok(file) => {
            let meta = file.metadata()?;
            if !meta.is_file() {
                return Err(Errno::NOTSUP.into());
            }
            Ok((meta, Handle::File(file.into_std())))
        }
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let stat = stat(&meta, NodeKind::File);
            Ok((meta, Handle::Closed(stat, failed(&error))))
        }
        Err(error) => Err(error),
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).follow(FollowSymlinks::No).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    options
}

fn stat(meta: &Metadata, kind: NodeKind) -> Stat {
    let time = |time: std::io::Result<cap_std::time::SystemTime>| time.map_or(UNIX_EPOCH, |time| time.into_std());
    let changed = u64::try_from(meta.ctime()).unwrap_or(0);
    Stat {
        kind,
        size: meta.len(),
        links: meta.nlink(),
        mode: meta.mode() & 0o7777,
        accessed: time(meta.accessed()),
        modified: time(meta.modified()),
        changed: UNIX_EPOCH + Duration::new(changed, u32::try_from(meta.ctime_nsec()).unwrap_or(0)),
    }
}

/// Runs a call that may wait for the disk.
fn host<T>(call: impl FnOnce() -> std::io::Result<T>) -> Result<T> {
    let shares_its_thread = tokio::runtime::Handle::try_current()
        .is_ok_and(|handle| handle.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread);
    let result = if shares_its_thread { tokio::task::block_in_place(call) } else { call() };
    result.map_err(|error| failed(&error))
}

fn failed(error: &std::io::Error) -> VfsError {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT) => VfsError::NoEntry,
        Some(Errno::EXIST) => VfsError::Exist,
        Some(Errno::NOTDIR) => VfsError::NotDirectory,
        Some(Errno::ISDIR) => VfsError::IsDirectory,
        Some(Errno::NOTEMPTY) => VfsError::NotEmpty,
        Some(Errno::LOOP) => VfsError::Loop,
        Some(Errno::NAMETOOLONG) => VfsError::NameTooLong,
        Some(Errno::NOSPC | Errno::DQUOT) => VfsError::NoSpace,
        Some(Errno::FBIG) => VfsError::FileTooLarge,
        Some(Errno::ROFS) => VfsError::ReadOnly,
        Some(Errno::BUSY | Errno::TXTBSY) => VfsError::Busy,
        Some(Errno::XDEV) => VfsError::CrossDevice,
        Some(Errno::INVAL) => VfsError::Invalid,
        Some(Errno::ACCESS) => VfsError::Access,
        Some(Errno::BADF) => VfsError::BadDescriptor,
        Some(Errno::MLINK) => VfsError::TooManyLinks,
        Some(Errno::NOTSUP) => VfsError::Unsupported,
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => VfsError::TooManyOpen,
        Some(Errno::PERM) => VfsError::NotPermitted,
        _ if error.kind() == std::io::ErrorKind::PermissionDenied => VfsError::NotPermitted,
        _ if error.kind() == std::io::ErrorKind::InvalidInput => VfsError::Invalid,
        _ => VfsError::Io,
    }
}

/// The node as one of this kind of tree.
fn same_tree(tree: &Arc<Tree>, node: &Arc<dyn Node>) -> Result<Arc<HostNode>> {
    let any: Arc<dyn Any + Send + Sync> = node.clone();
    let node: Arc<HostNode> = any.downcast().map_err(|_| VfsError::CrossDevice)?;
    if Arc::ptr_eq(&node.tree, tree) { Ok(node) } else { Err(VfsError::CrossDevice) }
}

impl Node for HostNode {
    fn id(&self) -> NodeId {
        NodeId { tree: self.tree.id, inode: self.inode }
    }

    fn kind(&self) -> NodeKind {
        match &self.handle {
            Handle::Directory(_) => NodeKind::Directory,
            Handle::File(_) | Handle::Closed(..) => NodeKind::File,
            Handle::Symlink(..) => NodeKind::Symlink,
        }
    }

    fn stat(&self) -> Result<Stat> {
        match &self.handle {
            Handle::Directory(dir) => host(|| dir.dir_metadata()).map(|meta| stat(&meta, NodeKind::Directory)),
            Handle::File(file) => host(|| Metadata::from_file(file)).map(|meta| stat(&meta, NodeKind::File)),
            Handle::Closed(stat, _) | Handle::Symlink(stat, _) => Ok(*stat),
        }
    }

    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes> {
        let file = self.file()?;
        let mut space = BytesMut::zeroed(len);
        let mut filled = 0;
        while let Some(rest) = space.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match host(|| file.read_at(rest, offset + filled as u64))? {
                0 => break,
                read => filled += read,
            }
        }
        space.truncate(filled);
        Ok(space.freeze())
    }

    fn sync(&self) -> Result<()> {
        match &self.handle {
            Handle::File(file) => host(|| file.sync_all()),
            _ => Ok(()),
        }
    }

    fn target(&self) -> Result<String> {
        match &self.handle {
            Handle::Symlink(_, target) => Ok(target.clone()),
            _ => Err(VfsError::Invalid),
        }
    }

    fn lookup(&self, name: &str) -> Result<Arc<dyn Node>> {
        Ok(self.find(name)?)
    }

    fn list(&self, after: Option<&str>, max: usize) -> Result<Vec<Entry>> {
        let dir = self.dir()?;
        // The first names after `after`: the largest of those kept gives way.
        let mut first: BinaryHeap<(String, u8)> = BinaryHeap::new();
        host(|| {
            for entry in dir.entries()? {
                let entry = entry?;
                let kind = entry.file_type()?;
                let rank = if kind.is_dir() {
                    0
                } else if kind.is_symlink() {
                    1
                } else {
                    2
                };
                let Ok(name) = entry.file_name().into_string() else { continue };
                if rank == 2 && !kind.is_file() || after.is_some_and(|after| name.as_str() <= after) {
                    continue;
                }
                first.push((name, rank));
                if first.len() > max {
                    first.pop();
                }
            }
            Ok(())
        })?;
        let kind = |rank| match rank {
            0 => NodeKind::Directory,
            1 => NodeKind::Symlink,
            _ => NodeKind::File,
        };
        Ok(first.into_sorted_vec().into_iter().map(|(name, rank)| Entry { name, kind: kind(rank) }).collect())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> Result<()> {
        let file = self.file()?;
        host(|| file.write_all_at(data, offset))
    }

    fn append(&self, data: &[u8]) -> Result<()> {
        let file = self.file()?;
        let mut rest = data;
        while !rest.is_empty() {
            let written = host(|| Ok(pwritev2(file, &[IoSlice::new(rest)], 0, ReadWriteFlags::APPEND)?))?;
            rest = rest.get(written..).filter(|_| written > 0).ok_or(VfsError::Io)?;
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<()> {
        let file = self.file()?;
        host(|| file.set_len(len))
    }

    fn set_times(&self, accessed: Option<SystemTime>, modified: Option<SystemTime>) -> Result<()> {
        if let Handle::Directory(dir) = &self.handle {
            let spec = |time: Option<SystemTime>| {
                time.map(|time| SystemTimeSpec::Absolute(cap_std::time::SystemTime::from_std(time)))
            };
            return host(|| dir.set_times(".", spec(accessed), spec(modified)));
        }
        let file = self.file()?;
        let mut times = FileTimes::new();
        if let Some(accessed) = accessed {
            times = times.set_accessed(accessed);
        }
        if let Some(modified) = modified {
            times = times.set_modified(modified);
        }
        host(|| file.set_times(times))
    }

    fn create(&self, name: &str, new: New<'_>) -> Result<Arc<dyn Node>> {
        let dir = self.dir()?;
        host(|| match new {
            New::File(mode) => dir.open_with(name, options().write(true).create_new(true).mode(mode)).map(drop),
            New::Directory => dir.create_dir_with(name, DirBuilder::new().mode(DIRECTORY_MODE)),
            New::Symlink(target) => dir.symlink_contents(target, name),
        })?;
        self.lookup(name)
    }

    fn link(&self, name: &str, node: &Arc<dyn Node>) -> Result<()> {
        let node = same_tree(&self.tree, node)?;
        let (from, old) = node.place.as_ref().ok_or(VfsError::NotPermitted)?;
        if node.kind() == NodeKind::Directory {
            return Err(VfsError::NotPermitted);
        }
        let dir = self.dir()?;
        host(|| from.hard_link(old, dir, name))
    }

    fn unlink(&self, name: &str) -> Result<()> {
        let dir = self.dir()?;
        host(|| dir.remove_file(name))
    }

    fn remove_dir(&self, name: &str) -> Result<()> {
        let dir = self.dir()?;
        host(|| dir.remove_dir(name))
    }

    fn rename(&self, name: &str, to: &Arc<dyn Node>, new_name: &str) -> Result<()> {
        let to = same_tree(&self.tree, to)?;
        let (dir, to) = (self.dir()?, to.dir()?);
        host(|| dir.rename(name, to, new_name))
    }
}

impl Drop for HostNode {
    fn drop(&mut self) {
        self.tree.open.fetch_sub(1, Ordering::Relaxed);
    }
}
