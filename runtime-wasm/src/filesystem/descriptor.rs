//! What a guest's filesystem handles stand for.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::generated::wasi::filesystem::types::{
    DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, MetadataHashValue, NewTimestamp,
};
use crate::vfs::{Entry, Location, NodeId, NodeKind, OpenFile, Stat, VfsError};
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;

/// Entries a directory stream reads ahead.
const READ_AHEAD: usize = 64;
/// What a directory stream holds at most, in bytes.
pub(crate) const DIRECTORY_STREAM_BYTES: usize = READ_AHEAD * (crate::vfs::MAX_NAME + size_of::<Entry>());

/// An open file or directory.
pub struct Descriptor {
    pub(super) at: Location,
    pub(super) flags: DescriptorFlags,
    /// Counts it; `None` for the root, which every instance has.
    pub(super) _open: Option<OpenFile>,
}

impl Descriptor {
    /// The location, if it is an open directory.
    pub(super) fn directory(&self) -> Result<&Location, VfsError> {
        match self.at.node.kind() {
            NodeKind::Directory => Ok(&self.at),
            _ => Err(VfsError::NotDirectory),
        }
    }

    /// The location, if it may be read.
    pub(super) fn readable(&self) -> Result<&Location, VfsError> {
        match self.flags.contains(DescriptorFlags::READ) {
            true => Ok(&self.at),
            false => Err(VfsError::BadDescriptor),
        }
    }

    /// The location, if it may be written.
    pub(super) fn writable(&self) -> Result<&Location, VfsError> {
        match self.flags.contains(DescriptorFlags::WRITE) {
            true => self.at.writable(),
            false => Err(VfsError::BadDescriptor),
        }
    }
}

/// A directory being read: in order of names, so changes under way neither repeat nor lose the other entries.
pub struct EntryStream {
    at: Location,
    ahead: std::vec::IntoIter<Entry>,
    last: Option<String>,
}

impl EntryStream {
    pub(super) fn new(at: Location) -> Self {
        Self { at, ahead: Vec::new().into_iter(), last: None }
    }

    pub(super) fn next(&mut self) -> Result<Option<Entry>, VfsError> {
        if self.ahead.len() == 0 {
            self.ahead = self.at.node.list(self.last.as_deref(), READ_AHEAD)?.into_iter();
        }
        let entry = self.ahead.next();
        if let Some(entry) = &entry {
            self.last = Some(entry.name.clone());
        }
        Ok(entry)
    }
}

pub(super) fn directory_entry(entry: Entry) -> DirectoryEntry {
    DirectoryEntry { type_: kind(entry.kind), name: entry.name }
}

pub(super) fn kind(kind: NodeKind) -> DescriptorType {
    match kind {
        NodeKind::File => DescriptorType::RegularFile,
        NodeKind::Directory => DescriptorType::Directory,
        NodeKind::Symlink => DescriptorType::SymbolicLink,
    }
}

pub(super) fn stat(stat: Stat) -> DescriptorStat {
    DescriptorStat {
        type_: kind(stat.kind),
        link_count: stat.links,
        size: stat.size,
        data_access_timestamp: Some(datetime(stat.accessed)),
        data_modification_timestamp: Some(datetime(stat.modified)),
        status_change_timestamp: Some(datetime(stat.changed)),
    }
}

/// Hides inode numbers, which would tell of other pods, behind a key of this process.
pub(super) fn hash(id: NodeId) -> MetadataHashValue {
    static KEYS: LazyLock<(RandomState, RandomState)> = LazyLock::new(Default::default);
    MetadataHashValue { lower: KEYS.0.hash_one(id), upper: KEYS.1.hash_one(id) }
}

fn datetime(time: SystemTime) -> Datetime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Datetime { seconds: since.as_secs(), nanoseconds: since.subsec_nanos() }
}

/// The time a guest asks to set; `None` leaves it.
pub(super) fn new_time(time: NewTimestamp) -> Result<Option<SystemTime>, VfsError> {
    match time {
        NewTimestamp::NoChange => Ok(None),
        NewTimestamp::Now => Ok(Some(SystemTime::now())),
        NewTimestamp::Timestamp(Datetime { nanoseconds, .. }) if nanoseconds >= 1_000_000_000 => Err(VfsError::Invalid),
        NewTimestamp::Timestamp(at) => {
            let since = Duration::new(at.seconds, at.nanoseconds);
            UNIX_EPOCH.checked_add(since).map(Some).ok_or(VfsError::Invalid)
        }
    }
}
