//! The types of WASI 0.3 and of 0.2, one as the other.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use wasmtime_wasi::p3::bindings::clocks::system_clock::Instant;

use super::types;
use crate::filesystem::generated::wasi::filesystem::types as p2;
use crate::vfs::{Entry, NodeKind, Stat, VfsError};

const NANOSECONDS: u32 = 1_000_000_000;

macro_rules! flags {
    ($function:ident, $from:ty => $to:ty, $($flag:ident)*) => {
        pub(super) fn $function(flags: $from) -> $to {
            let mut converted = <$to>::empty();
            $(if flags.contains(<$from>::$flag) {
                converted |= <$to>::$flag;
            })*
            converted
        }
    };
}

flags!(path_flags, types::PathFlags => p2::PathFlags, SYMLINK_FOLLOW);
flags!(open_flags, types::OpenFlags => p2::OpenFlags, CREATE DIRECTORY EXCLUSIVE TRUNCATE);
flags!(descriptor_flags, types::DescriptorFlags => p2::DescriptorFlags, READ WRITE MUTATE_DIRECTORY);
flags!(flags_of, p2::DescriptorFlags => types::DescriptorFlags, READ WRITE MUTATE_DIRECTORY);

macro_rules! codes {
    ($($code:ident)*) => {
        pub(super) fn code(code: p2::ErrorCode) -> types::ErrorCode {
            match code {
                p2::ErrorCode::WouldBlock => types::ErrorCode::InProgress,
                $(p2::ErrorCode::$code => types::ErrorCode::$code,)*
            }
        }
    };
}

codes!(Access Already BadDescriptor Busy Deadlock Quota Exist FileTooLarge IllegalByteSequence InProgress Interrupted
    Invalid Io IsDirectory Loop TooManyLinks MessageSize NameTooLong NoDevice NoEntry NoLock InsufficientMemory
    InsufficientSpace NotDirectory NotEmpty NotRecoverable Unsupported NoTty NoSuchDevice Overflow NotPermitted Pipe
    ReadOnly InvalidSeek TextFileBusy CrossDevice);

fn kind(kind: NodeKind) -> types::DescriptorType {
    match kind {
        NodeKind::File => types::DescriptorType::RegularFile,
        NodeKind::Directory => types::DescriptorType::Directory,
        NodeKind::Symlink => types::DescriptorType::SymbolicLink,
    }
}

pub(super) fn kind_of(kind: p2::DescriptorType) -> types::DescriptorType {
    match kind {
        p2::DescriptorType::RegularFile => types::DescriptorType::RegularFile,
        p2::DescriptorType::Directory => types::DescriptorType::Directory,
        p2::DescriptorType::SymbolicLink => types::DescriptorType::SymbolicLink,
        // A tree has no other kinds.
        _ => types::DescriptorType::Other(None),
    }
}

pub(super) fn directory_entry(entry: Entry) -> types::DirectoryEntry {
    types::DirectoryEntry { type_: kind(entry.kind), name: entry.name }
}

pub(super) fn stat(stat: Stat) -> types::DescriptorStat {
    types::DescriptorStat {
        type_: kind(stat.kind),
        link_count: stat.links,
        size: stat.size,
        data_access_timestamp: Some(instant(stat.accessed)),
        data_modification_timestamp: Some(instant(stat.modified)),
        status_change_timestamp: Some(instant(stat.changed)),
    }
}

pub(super) fn hash(hash: p2::MetadataHashValue) -> types::MetadataHashValue {
    types::MetadataHashValue { lower: hash.lower, upper: hash.upper }
}

/// Nanoseconds count forward, before 1970 as well.
fn instant(time: SystemTime) -> Instant {
    let seconds = |since: Duration| i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => Instant { seconds: seconds(since), nanoseconds: since.subsec_nanos() },
        Err(before) => match (seconds(before.duration()), before.duration().subsec_nanos()) {
            (seconds, 0) => Instant { seconds: -seconds, nanoseconds: 0 },
            (seconds, rest) => Instant { seconds: (-seconds).saturating_sub(1), nanoseconds: NANOSECONDS - rest },
        },
    }
}

/// The time a guest asks to set; `None` leaves it.
pub(super) fn new_time(time: types::NewTimestamp) -> Result<Option<SystemTime>, VfsError> {
    let Instant { seconds, nanoseconds } = match time {
        types::NewTimestamp::NoChange => return Ok(None),
        types::NewTimestamp::Now => return Ok(Some(SystemTime::now())),
        types::NewTimestamp::Timestamp(at) if at.nanoseconds >= NANOSECONDS => return Err(VfsError::Invalid),
        types::NewTimestamp::Timestamp(at) => at,
    };
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let second = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    let time = second.and_then(|second| second.checked_add(Duration::from_nanos(nanoseconds.into())));
    time.map(Some).ok_or(VfsError::Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_and_after_1970() {
        for (seconds, nanoseconds) in [(0, 0), (1, 5), (-1, 0), (-1, 999_999_999), (-5, 1), (1 << 40, 7)] {
            let time = new_time(types::NewTimestamp::Timestamp(Instant { seconds, nanoseconds })).unwrap().unwrap();
            let back = instant(time);
            assert_eq!((back.seconds, back.nanoseconds), (seconds, nanoseconds));
        }
        for (seconds, nanoseconds) in [(i64::MAX, 0), (i64::MIN, 0), (0, NANOSECONDS)] {
            let time = new_time(types::NewTimestamp::Timestamp(Instant { seconds, nanoseconds }));
            assert!(time == Err(VfsError::Invalid) || time.is_ok_and(|time| time.is_some()), "{seconds}: no panic");
        }
    }
}
