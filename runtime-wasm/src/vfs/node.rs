//! The interface every file tree implements, and its errors.

use std::any::Any;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

/// Longest file name, in bytes.
pub const MAX_NAME: usize = 255;
/// Longest path, in bytes.
pub const MAX_PATH: usize = 4096;
/// Symbolic links followed while resolving one path.
pub const MAX_LINKS: usize = 40;

/// Why a filesystem call failed; each maps onto one WASI error code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum VfsError {
    /// No such file or directory.
    #[error("no such file or directory")]
    NoEntry,
    /// It exists already.
    #[error("file exists")]
    Exist,
    /// A directory was needed.
    #[error("not a directory")]
    NotDirectory,
    /// A file was needed.
    #[error("is a directory")]
    IsDirectory,
    /// The directory has entries.
    #[error("directory not empty")]
    NotEmpty,
    /// More than [`MAX_LINKS`] symbolic links.
    #[error("too many levels of symbolic links")]
    Loop,
    /// A name beyond [`MAX_NAME`] or a path beyond [`MAX_PATH`].
    #[error("file name too long")]
    NameTooLong,
    /// The tree's limit of bytes or inodes is reached.
    #[error("no space left on device")]
    NoSpace,
    /// Beyond the largest file size.
    #[error("file too large")]
    FileTooLarge,
    /// The mount or tree is read-only.
    #[error("read-only file system")]
    ReadOnly,
    /// A mount point is in the way.
    #[error("device or resource busy")]
    Busy,
    /// Source and target lie on different mounts.
    #[error("invalid cross-device link")]
    CrossDevice,
    /// The argument makes no sense here.
    #[error("invalid argument")]
    Invalid,
    /// The path leaves its base, or the descriptor does not allow it.
    #[error("operation not permitted")]
    NotPermitted,
    /// The descriptor is not open for this.
    #[error("bad file descriptor")]
    BadDescriptor,
    /// Too many hard links to one file.
    #[error("too many links")]
    TooManyLinks,
    /// The machine's owner of the file does not allow it.
    #[error("permission denied")]
    Access,
    /// The machine's file system failed.
    #[error("input/output error")]
    Io,
    /// More open files of a host directory than [`super::MAX_OPEN_HOST_FILES`], or than the machine has memory for.
    #[error("too many open files")]
    TooManyOpen,
    /// Not supported by this tree.
    #[error("not supported")]
    Unsupported,
}

/// Result of a filesystem call.
pub type Result<T> = std::result::Result<T, VfsError>;

/// Identity of a node: its tree and its inode there. Unique within the process's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    /// The tree.
    pub tree: u64,
    /// The inode within the tree.
    pub inode: u64,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
}

/// Metadata of a node.
#[derive(Debug, Clone, Copy)]
pub struct Stat {
    /// What it is.
    pub kind: NodeKind,
    /// Bytes of content (of the target's name for a symbolic link).
    pub size: u64,
    /// Hard links.
    pub links: u64,
    /// Unix permission bits; informative, WASI has none.
    pub mode: u32,
    /// Last read.
    pub accessed: SystemTime,
    /// Last change of content.
    pub modified: SystemTime,
    /// Last change of metadata.
    pub changed: SystemTime,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: NodeKind,
}

/// What [`Node::create`] makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum New<'a> {
    /// An empty file with these permission bits.
    File(u32),
    /// An empty directory.
    Directory,
    /// A symbolic link to this target.
    Symlink(&'a str),
}

/// A file, directory or symbolic link of some tree. Only a host directory's calls wait, for its disk. Names are single components, checked by the caller.
/// A tree that only reads need not implement the changing calls.
pub trait Node: Any + Send + Sync {
    /// Its identity.
    fn id(&self) -> NodeId;
    /// What it is.
    fn kind(&self) -> NodeKind;
    /// Its metadata.
    fn stat(&self) -> Result<Stat>;
    /// Makes what was written outlive a crash of the machine, where there is more to it than memory.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// Reads up to `len` bytes; fewer only at the end of the file.
    fn read_at(&self, offset: u64, len: usize) -> Result<Bytes>;
    /// The target of a symbolic link; [`VfsError::Invalid`] for anything else.
    fn target(&self) -> Result<String>;
    /// A directory's entry.
    fn lookup(&self, name: &str) -> Result<Arc<dyn Node>>;
    /// Up to `max` entries whose names sort after `after`.
    fn list(&self, after: Option<&str>, max: usize) -> Result<Vec<Entry>>;

    /// Writes all of `data` or nothing, growing the file as needed.
    fn write_at(&self, _offset: u64, _data: &[u8]) -> Result<()> {
        Err(VfsError::ReadOnly)
    }
    /// Writes at the end, atomically with regard to other appends.
    fn append(&self, _data: &[u8]) -> Result<()> {
        Err(VfsError::ReadOnly)
    }
    /// Truncates or extends (sparsely).
    fn set_len(&self, _len: u64) -> Result<()> {
        Err(VfsError::ReadOnly)
    }
    /// Sets the times that are given.
    fn set_times(&self, _accessed: Option<SystemTime>, _modified: Option<SystemTime>) -> Result<()> {
        Err(VfsError::ReadOnly)
    }
    /// Makes a new entry; [`VfsError::Exist`] if the name is taken.
    fn create(&self, _name: &str, _new: New<'_>) -> Result<Arc<dyn Node>> {
        Err(VfsError::ReadOnly)
    }
    /// Makes `name` a further hard link to `node` of the same tree.
    fn link(&self, _name: &str, _node: &Arc<dyn Node>) -> Result<()> {
        Err(VfsError::ReadOnly)
    }
    /// Removes an entry that is not a directory; the node lives on while it is open.
    fn unlink(&self, _name: &str) -> Result<()> {
        Err(VfsError::ReadOnly)
    }
    /// Removes an empty directory.
    fn remove_dir(&self, _name: &str) -> Result<()> {
        Err(VfsError::ReadOnly)
    }
    /// Moves `name` to `new_name` in `dir` of the same tree, replacing what is there as POSIX has it. Atomic.
    fn rename(&self, _name: &str, _dir: &Arc<dyn Node>, _new_name: &str) -> Result<()> {
        Err(VfsError::ReadOnly)
    }
}
