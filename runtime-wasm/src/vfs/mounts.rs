//! A container's view: a root directory and what is mounted over it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::{Bytes, BytesMut};
use parking_lot::RwLock;

use super::node::{New, Node, NodeId, NodeKind, Result, VfsError};
use super::snapshot::Snapshot;

/// Bytes read at a time by [`Mounts::read_file`].
const READ_STEP: usize = 64 << 10;
/// Entries listed at a time by [`Mounts::remove_all`].
const LIST_STEP: usize = 128;

/// Files and directories that a container holds open at once; opening more fails as out of memory (WASI has no code for
/// too many open files).
pub const MAX_OPEN_FILES: usize = 4096;

/// What a mount shows.
#[derive(Clone)]
pub enum Source {
    /// A node of any tree: usually a directory of the pod's [`super::Vfs`] (emptyDir); a file can be mounted too.
    Node(Arc<dyn Node>),
    /// The current content of a snapshot (configMap, secret); open files keep the content they were opened on.
    Snapshot(Arc<Snapshot>),
}

/// Something to mount.
#[derive(Clone)]
pub struct Mount {
    /// What is mounted.
    pub source: Source,
    /// Only this path of the source; empty for all. Cannot leave the source. Made as a directory if it does not exist
    /// and the source is writable.
    pub sub_path: String,
    /// The container cannot change it.
    pub read_only: bool,
}

/// A node as seen through a mount.
#[derive(Clone)]
pub struct Location {
    /// The node.
    pub node: Arc<dyn Node>,
    /// Nothing may be changed through this mount.
    pub read_only: bool,
    /// Number of the mount; 0 is the root's.
    pub(super) mount: u32,
}

impl Location {
    /// This location, or [`VfsError::ReadOnly`].
    pub fn writable(&self) -> Result<&Self> {
        if self.read_only { Err(VfsError::ReadOnly) } else { Ok(self) }
    }

    /// Another node of the same mount.
    pub fn with(&self, node: Arc<dyn Node>) -> Self {
        Self { node, read_only: self.read_only, mount: self.mount }
    }

    /// This location if it is on the same mount as `other`, or [`VfsError::CrossDevice`].
    pub fn same_mount(&self, other: &Location) -> Result<&Self> {
        if self.mount == other.mount { Ok(self) } else { Err(VfsError::CrossDevice) }
    }
}

/// One container's filesystem: the root directory and its mounts. Mounts are made before the guest starts; a mount point
/// stays mounted wherever it is moved.
pub struct Mounts {
    root: Location,
    mounted: RwLock<HashMap<NodeId, Mounted>>,
    open: Arc<AtomicUsize>,
}

/// One of a container's open files; given back when this is dropped.
pub struct OpenFile(Arc<AtomicUsize>);

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Clone)]
struct Mounted {
    source: Source,
    sub_path: String,
    read_only: bool,
    number: u32,
}

impl Mounts {
    /// A view of `root` with nothing mounted.
    pub fn new(root: Arc<dyn Node>) -> Self {
        let root = Location { node: root, read_only: false, mount: 0 };
        Self { root, mounted: RwLock::default(), open: Arc::default() }
    }

    /// Counts a file that a guest opens; [`VfsError::TooManyOpen`] beyond [`MAX_OPEN_FILES`].
    pub fn open_file(&self) -> Result<OpenFile> {
        let fits = |open: usize| (open < MAX_OPEN_FILES).then_some(open + 1);
        let counted = self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        counted.map(|_| OpenFile(self.open.clone())).map_err(|_| VfsError::TooManyOpen)
    }

    /// The root directory.
    pub fn root(&self) -> Location {
        self.root.clone()
    }

    /// Whether a location is the container's root.
    pub fn is_root(&self, location: &Location) -> bool {
        location.mount == 0 && location.node.id() == self.root.node.id()
    }

    /// Mounts `mount` at `path`, making the mount point (a directory, or an empty file for a file) if it does not exist.
    /// Mount outer paths first. [`VfsError::Busy`] if something is mounted there already.
    pub fn mount(&self, path: &str, mount: Mount) -> Result<()> {
        let Mount { mut source, mut sub_path, read_only } = mount;
        if let Source::Node(node) = &source
            && !sub_path.is_empty()
        {
            let inner = Mounts::new(node.clone());
            let at = match inner.find(&sub_path)? {
                Some(at) => at,
                None => inner.mkdir_all(&sub_path)?,
            };
            source = Source::Node(at.node);
            sub_path = String::new();
        }
        let number = u32::try_from(self.mounted.read().len() + 1).map_err(|_| VfsError::NoSpace)?;
        let mounted = Mounted { source, sub_path, read_only, number };
        let is_dir = mounted.current()?.kind() == NodeKind::Directory;
        let point = match self.find(path)? {
            Some(at) => at,
            None if is_dir => self.mkdir_all(path)?,
            None => {
                self.write_file(path, b"")?;
                self.resolve(&self.root, path, true)?.existing()?
            }
        };
        if is_dir != (point.node.kind() == NodeKind::Directory) {
            return Err(if is_dir { VfsError::NotDirectory } else { VfsError::IsDirectory });
        }
        if point.mount > 0 && self.is_mount_root(&point) {
            return Err(VfsError::Busy);
        }
        self.mounted.write().insert(point.node.id(), mounted);
        Ok(())
    }

    /// What is at `path`, if anything.
    fn find(&self, path: &str) -> Result<Option<Location>> {
        match self.resolve(&self.root, path, true) {
            Ok(found) => Ok(found.at),
            Err(VfsError::NoEntry) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where `node`, found in `dir`, leads: the node itself, or what is mounted on it.
    pub(super) fn cross(&self, dir: &Location, node: Arc<dyn Node>) -> Result<Location> {
        let mounted = self.mounted.read().get(&node.id()).cloned();
        match mounted {
            None => Ok(dir.with(node)),
            Some(mounted) => Ok(Location {
                node: mounted.current()?,
                read_only: mounted.read_only || matches!(mounted.source, Source::Snapshot(_)),
                mount: mounted.number,
            }),
        }
    }

    fn is_mount_root(&self, location: &Location) -> bool {
        let mounted = self.mounted.read();
        let mount = mounted.values().find(|mounted| mounted.number == location.mount);
        mount.and_then(|mount| mount.current().ok()).is_some_and(|node| node.id() == location.node.id())
    }

    /// Makes a directory and its parents; existing ones are fine.
    pub fn mkdir_all(&self, path: &str) -> Result<Location> {
        let mut made = String::new();
        let mut at = self.root();
        for part in path.split('/').filter(|part| !part.is_empty() && *part != ".") {
            made.push('/');
            made.push_str(part);
            let found = self.resolve(&self.root, &made, true)?;
            at = match &found.at {
                Some(at) => at.clone(),
                None => {
                    let (dir, name) = found.vacant()?;
                    match dir.node.create(name, New::Directory) {
                        Ok(node) => dir.with(node),
                        Err(VfsError::Exist) => self.resolve(&self.root, &made, true)?.existing()?,
                        Err(error) => return Err(error),
                    }
                }
            };
            if at.node.kind() != NodeKind::Directory {
                return Err(VfsError::NotDirectory);
            }
        }
        Ok(at)
    }

    /// Writes a whole file, making parents and replacing what it held.
    pub fn write_file(&self, path: &str, data: &[u8]) -> Result<()> {
        self.write_file_mode(path, data, 0o644)
    }

    /// As [`Self::write_file`]; a new file gets these permission bits.
    pub fn write_file_mode(&self, path: &str, data: &[u8], mode: u32) -> Result<()> {
        if let Some((parent, _)) = path.trim_end_matches('/').rsplit_once('/') {
            self.mkdir_all(parent)?;
        }
        let found = self.resolve(&self.root, path, true)?;
        let node = match &found.at {
            Some(at) => at.writable()?.node.clone(),
            None => {
                let (dir, name) = found.vacant()?;
                dir.node.create(name, New::File(mode))?
            }
        };
        node.set_len(0)?;
        node.write_at(0, data)
    }

    /// Reads a whole file.
    pub fn read_file(&self, path: &str) -> Result<Bytes> {
        self.read_file_up_to(path, usize::MAX)
    }

    /// Reads a whole file of at most `max` bytes; [`VfsError::FileTooLarge`] if it has more.
    pub fn read_file_up_to(&self, path: &str, max: usize) -> Result<Bytes> {
        let node = self.resolve(&self.root, path, true)?.existing()?.node;
        let mut out = BytesMut::new();
        loop {
            let part = node.read_at(out.len() as u64, READ_STEP)?;
            if part.is_empty() {
                return Ok(out.freeze());
            }
            out.extend_from_slice(&part);
            if out.len() > max {
                return Err(VfsError::FileTooLarge);
            }
        }
    }

    /// Removes a file or directory with all it holds; what does not exist is fine.
    pub fn remove_all(&self, path: &str) -> Result<()> {
        let found = match self.resolve(&self.root, path, false) {
            Ok(found) if found.at.is_some() => found,
            Ok(_) | Err(VfsError::NoEntry) => return Ok(()),
            Err(error) => return Err(error),
        };
        let (dir, name, at) = found.removable()?;
        if at.node.kind() != NodeKind::Directory {
            return dir.node.unlink(name);
        }
        // Without recursion: descend while there is something to descend into, then climb.
        let mut trail = vec![(dir.node.clone(), name.to_owned(), at.node.clone())];
        while let Some((parent, name, node)) = trail.last().cloned() {
            let mut below = None;
            for entry in node.list(None, LIST_STEP)? {
                if entry.kind == NodeKind::Directory {
                    below = Some((node.clone(), entry.name.clone(), node.lookup(&entry.name)?));
                    break;
                }
                node.unlink(&entry.name)?;
            }
            match below {
                Some(below) => trail.push(below),
                None => match parent.remove_dir(&name) {
                    Ok(()) => drop(trail.pop()),
                    Err(VfsError::NotEmpty) => {}
                    Err(error) => return Err(error),
                },
            }
        }
        Ok(())
    }
}

impl Mounted {
    /// The node the mount shows now.
    fn current(&self) -> Result<Arc<dyn Node>> {
        let root = match &self.source {
            Source::Node(node) => node.clone(),
            Source::Snapshot(snapshot) => snapshot.root(),
        };
        if self.sub_path.is_empty() {
            return Ok(root);
        }
        let inner = Mounts::new(root);
        Ok(inner.resolve(&inner.root, &self.sub_path, true)?.existing()?.node)
    }
}
