//! Opening, linking and moving by path.

use super::descriptor::Descriptor;
use super::generated::wasi::filesystem::types::{DescriptorFlags, OpenFlags, PathFlags};
use crate::vfs::{Found, Location, Mounts, New, NodeKind, VfsError};

const NEW_FILE_MODE: u32 = 0o644;

/// Resolves a guest's path. WASI paths are relative.
pub(super) fn find(mounts: &Mounts, base: &Location, flags: PathFlags, path: &str) -> Result<Found, VfsError> {
    if path.starts_with('/') {
        return Err(VfsError::NotPermitted);
    }
    mounts.resolve(base, path, flags.contains(PathFlags::SYMLINK_FOLLOW))
}

/// `open-at`, as POSIX `openat` has it.
pub(super) fn open(
    mounts: &Mounts,
    base: &Descriptor,
    path_flags: PathFlags,
    path: &str,
    open: OpenFlags,
    flags: DescriptorFlags,
) -> Result<Descriptor, VfsError> {
    if open.contains(OpenFlags::DIRECTORY) && open.intersects(OpenFlags::CREATE | OpenFlags::TRUNCATE) {
        return Err(VfsError::Invalid);
    }
    let counted = mounts.open_file()?;
    // An exclusive creation does not look through a link at the end.
    let exclusive = open.contains(OpenFlags::CREATE | OpenFlags::EXCLUSIVE);
    let path_flags = if exclusive { PathFlags::empty() } else { path_flags };
    let changes = open.intersects(OpenFlags::CREATE | OpenFlags::TRUNCATE) || flags.contains(DescriptorFlags::WRITE);
    // Memory is as durable as it gets: the sync flags have nothing to add.
    let flags = flags & (DescriptorFlags::READ | DescriptorFlags::WRITE | DescriptorFlags::MUTATE_DIRECTORY);
    let found = find(mounts, base.directory()?, path_flags, path)?;
    let at = match &found.at {
        None if !open.contains(OpenFlags::CREATE) => return Err(VfsError::NoEntry),
        None if found.wants_directory => return Err(VfsError::IsDirectory),
        None => {
            let (dir, name) = found.vacant()?;
            match dir.node.create(name, New::File(NEW_FILE_MODE)) {
                Ok(node) => dir.with(node),
                // Someone else made it in between.
                Err(VfsError::Exist) if !exclusive => find(mounts, base.directory()?, path_flags, path)?.existing()?,
                Err(error) => return Err(error),
            }
        }
        Some(_) if exclusive => return Err(VfsError::Exist),
        Some(at) => at.clone(),
    };
    match at.node.kind() {
        NodeKind::Symlink => return Err(VfsError::Loop),
        NodeKind::Directory if changes => return Err(VfsError::IsDirectory),
        NodeKind::Directory => {}
        NodeKind::File if open.contains(OpenFlags::DIRECTORY) => return Err(VfsError::NotDirectory),
        NodeKind::File => {
            if flags.contains(DescriptorFlags::WRITE) || open.contains(OpenFlags::TRUNCATE) {
                at.writable()?;
            }
            if open.contains(OpenFlags::TRUNCATE) {
                at.node.set_len(0)?;
            }
        }
    }
    Ok(Descriptor { at, flags, _open: Some(counted) })
}

pub(super) fn link(mounts: &Mounts, old: Found, new_base: &Location, new_path: &str) -> Result<(), VfsError> {
    let node = old.existing()?;
    let new = find(mounts, new_base, PathFlags::empty(), new_path)?;
    let (dir, name) = new.vacant()?;
    if new.wants_directory {
        return Err(VfsError::NoEntry);
    }
    dir.same_mount(&node)?.node.link(name, &node.node)
}

pub(super) fn rename(
    mounts: &Mounts,
    base: &Location,
    path: &str,
    new_base: &Location,
    new_path: &str,
) -> Result<(), VfsError> {
    let old = find(mounts, base, PathFlags::empty(), path)?;
    let new = find(mounts, new_base, PathFlags::empty(), new_path)?;
    let (old_dir, old_name, node) = old.removable()?;
    let (new_dir, new_name) = match new.at {
        Some(_) => new.removable().map(|(dir, name, _)| (dir, name))?,
        None => new.vacant()?,
    };
    if new.wants_directory && node.node.kind() != NodeKind::Directory {
        return Err(VfsError::NotDirectory);
    }
    old_dir.same_mount(new_dir)?.node.rename(old_name, &new_dir.node, new_name)
}
