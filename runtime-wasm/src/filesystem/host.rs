//! The generated host traits, over descriptors and paths.

use std::time::SystemTime;

use wasmtime::component::Resource;
use wasmtime_wasi_io::streams::{DynInputStream, DynOutputStream, Error as IoError};

use super::descriptor::{Descriptor, EntryStream, directory_entry, hash, kind, new_time, stat};
use super::generated::wasi::filesystem::preopens;
use super::generated::wasi::filesystem::types::{
    self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, ErrorCode, Filesize,
    MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
};
use super::streams::{FileReader, FileWriter, MAX_TRANSFER};
use super::{FilesystemCtxView, FsFailure, FsResult, code, paths};
use crate::vfs::{Found, Location, New, NodeKind, Stat, VfsError};

impl FilesystemCtxView<'_> {
    /// An open directory's location.
    fn dir(&self, fd: &Resource<Descriptor>) -> FsResult<Location> {
        Ok(self.table.get(fd)?.directory()?.clone())
    }

    fn find(&self, fd: &Resource<Descriptor>, flags: PathFlags, path: &str) -> FsResult<Found> {
        Ok(paths::find(self.mounts, &self.dir(fd)?, flags, path)?)
    }

    /// A descriptor of a regular file.
    fn file(&self, fd: &Resource<Descriptor>) -> FsResult<&Descriptor> {
        let descriptor = self.table.get(fd)?;
        match descriptor.at.node.kind() {
            NodeKind::File => Ok(descriptor),
            _ => Err(VfsError::IsDirectory.into()),
        }
    }

    fn create(&self, fd: &Resource<Descriptor>, path: &str, new: New<'_>) -> FsResult<()> {
        let found = self.find(fd, PathFlags::empty(), path)?;
        let (dir, name) = found.vacant()?;
        if found.wants_directory && new != New::Directory {
            return Err(VfsError::NoEntry.into());
        }
        dir.node.create(name, new)?;
        Ok(())
    }

    /// The times that are given are set.
    pub(super) fn change_times(
        &self,
        fd: &Resource<Descriptor>,
        accessed: Option<SystemTime>,
        modified: Option<SystemTime>,
    ) -> FsResult<()> {
        Ok(self.table.get(fd)?.at.writable()?.node.set_times(accessed, modified)?)
    }

    pub(super) fn change_times_at(
        &self,
        fd: &Resource<Descriptor>,
        flags: PathFlags,
        path: &str,
        accessed: Option<SystemTime>,
        modified: Option<SystemTime>,
    ) -> FsResult<()> {
        Ok(self.find(fd, flags, path)?.existing()?.writable()?.node.set_times(accessed, modified)?)
    }

    pub(super) fn stat_of(&self, fd: &Resource<Descriptor>) -> FsResult<Stat> {
        Ok(self.table.get(fd)?.at.node.stat()?)
    }

    pub(super) fn stat_of_path(&self, fd: &Resource<Descriptor>, flags: PathFlags, path: &str) -> FsResult<Stat> {
        Ok(self.find(fd, flags, path)?.existing()?.node.stat()?)
    }

    pub(super) fn reader(&self, fd: &Resource<Descriptor>, position: Filesize) -> FsResult<FileReader> {
        Ok(FileReader { at: self.file(fd)?.readable()?.clone(), position })
    }

    /// Appends if no position is given.
    pub(super) fn writer(&self, fd: &Resource<Descriptor>, position: Option<Filesize>) -> FsResult<FileWriter> {
        Ok(FileWriter { at: self.file(fd)?.writable()?.clone(), position })
    }

    pub(super) fn entries(&self, fd: &Resource<Descriptor>) -> FsResult<EntryStream> {
        Ok(EntryStream::new(self.dir(fd)?))
    }
}

impl types::Host for FilesystemCtxView<'_> {
    fn convert_error_code(&mut self, error: FsFailure) -> wasmtime::Result<ErrorCode> {
        match error {
            FsFailure::Code(code) => Ok(code),
            FsFailure::Trap(error) => Err(error),
        }
    }

    fn filesystem_error_code(&mut self, error: Resource<IoError>) -> wasmtime::Result<Option<ErrorCode>> {
        Ok(self.table.get(&error)?.downcast_ref::<VfsError>().copied().map(code))
    }
}

impl preopens::Host for FilesystemCtxView<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        let flags = DescriptorFlags::READ | DescriptorFlags::MUTATE_DIRECTORY;
        let root = Descriptor { at: self.mounts.root(), flags, _open: None };
        Ok(vec![(self.table.push(root)?, "/".to_owned())])
    }
}

impl types::HostDescriptor for FilesystemCtxView<'_> {
    fn read_via_stream(&mut self, fd: Resource<Descriptor>, offset: Filesize) -> FsResult<Resource<DynInputStream>> {
        let stream: DynInputStream = Box::new(self.reader(&fd, offset)?);
        Ok(self.table.push(stream)?)
    }

    fn write_via_stream(&mut self, fd: Resource<Descriptor>, offset: Filesize) -> FsResult<Resource<DynOutputStream>> {
        let stream: DynOutputStream = Box::new(self.writer(&fd, Some(offset))?);
        Ok(self.table.push(stream)?)
    }

    fn append_via_stream(&mut self, fd: Resource<Descriptor>) -> FsResult<Resource<DynOutputStream>> {
        let stream: DynOutputStream = Box::new(self.writer(&fd, None)?);
        Ok(self.table.push(stream)?)
    }

    fn advise(&mut self, fd: Resource<Descriptor>, _: Filesize, _: Filesize, _: Advice) -> FsResult<()> {
        self.file(&fd).map(drop)
    }

    fn sync_data(&mut self, fd: Resource<Descriptor>) -> FsResult<()> {
        Ok(self.table.get(&fd)?.at.node.sync()?)
    }

    fn sync(&mut self, fd: Resource<Descriptor>) -> FsResult<()> {
        self.sync_data(fd)
    }

    fn get_flags(&mut self, fd: Resource<Descriptor>) -> FsResult<DescriptorFlags> {
        Ok(self.table.get(&fd)?.flags)
    }

    fn get_type(&mut self, fd: Resource<Descriptor>) -> FsResult<DescriptorType> {
        Ok(kind(self.table.get(&fd)?.at.node.kind()))
    }

    fn set_size(&mut self, fd: Resource<Descriptor>, size: Filesize) -> FsResult<()> {
        Ok(self.file(&fd)?.writable()?.node.set_len(size)?)
    }

    fn set_times(&mut self, fd: Resource<Descriptor>, accessed: NewTimestamp, modified: NewTimestamp) -> FsResult<()> {
        self.change_times(&fd, new_time(accessed)?, new_time(modified)?)
    }

    fn read(&mut self, fd: Resource<Descriptor>, length: Filesize, offset: Filesize) -> FsResult<(Vec<u8>, bool)> {
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(MAX_TRANSFER);
        let data = self.file(&fd)?.readable()?.node.read_at(offset, length)?;
        let is_end = data.is_empty() && length > 0;
        Ok((data.into(), is_end))
    }

    fn write(&mut self, fd: Resource<Descriptor>, data: Vec<u8>, offset: Filesize) -> FsResult<Filesize> {
        self.file(&fd)?.writable()?.node.write_at(offset, &data)?;
        Ok(data.len() as Filesize)
    }

    fn read_directory(&mut self, fd: Resource<Descriptor>) -> FsResult<Resource<EntryStream>> {
        let entries = self.entries(&fd)?;
        Ok(self.table.push(entries)?)
    }

    fn create_directory_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<()> {
        self.create(&fd, &path, New::Directory)
    }

    fn stat(&mut self, fd: Resource<Descriptor>) -> FsResult<DescriptorStat> {
        Ok(stat(self.stat_of(&fd)?))
    }

    fn stat_at(&mut self, fd: Resource<Descriptor>, flags: PathFlags, path: String) -> FsResult<DescriptorStat> {
        Ok(stat(self.stat_of_path(&fd, flags, &path)?))
    }

    fn set_times_at(
        &mut self,
        fd: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        self.change_times_at(&fd, flags, &path, new_time(accessed)?, new_time(modified)?)
    }

    fn link_at(
        &mut self,
        fd: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
        new_fd: Resource<Descriptor>,
        new_path: String,
    ) -> FsResult<()> {
        let old = self.find(&fd, flags, &path)?;
        Ok(paths::link(self.mounts, old, &self.dir(&new_fd)?, &new_path)?)
    }

    fn open_at(
        &mut self,
        fd: Resource<Descriptor>,
        path_flags: PathFlags,
        path: String,
        open_flags: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Resource<Descriptor>> {
        let descriptor = paths::open(self.mounts, self.table.get(&fd)?, path_flags, &path, open_flags, flags)?;
        Ok(self.table.push(descriptor)?)
    }

    fn readlink_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<String> {
        Ok(self.find(&fd, PathFlags::empty(), &path)?.existing()?.node.target()?)
    }

    fn remove_directory_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<()> {
        let found = self.find(&fd, PathFlags::empty(), &path)?;
        let (dir, name, _) = found.removable()?;
        Ok(dir.node.remove_dir(name)?)
    }

    fn rename_at(
        &mut self,
        fd: Resource<Descriptor>,
        path: String,
        new_fd: Resource<Descriptor>,
        new_path: String,
    ) -> FsResult<()> {
        Ok(paths::rename(self.mounts, &self.dir(&fd)?, &path, &self.dir(&new_fd)?, &new_path)?)
    }

    fn symlink_at(&mut self, fd: Resource<Descriptor>, target: String, path: String) -> FsResult<()> {
        if target.is_empty() {
            return Err(VfsError::NoEntry.into());
        }
        if target.len() > crate::vfs::MAX_PATH {
            return Err(VfsError::NameTooLong.into());
        }
        self.create(&fd, &path, New::Symlink(&target))
    }

    fn unlink_file_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<()> {
        let found = self.find(&fd, PathFlags::empty(), &path)?;
        let (dir, name, _) = found.removable()?;
        Ok(dir.node.unlink(name)?)
    }

    fn is_same_object(&mut self, fd: Resource<Descriptor>, other: Resource<Descriptor>) -> wasmtime::Result<bool> {
        Ok(self.table.get(&fd)?.at.node.id() == self.table.get(&other)?.at.node.id())
    }

    fn metadata_hash(&mut self, fd: Resource<Descriptor>) -> FsResult<MetadataHashValue> {
        Ok(hash(self.table.get(&fd)?.at.node.id()))
    }

    fn metadata_hash_at(
        &mut self,
        fd: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
    ) -> FsResult<MetadataHashValue> {
        Ok(hash(self.find(&fd, flags, &path)?.existing()?.node.id()))
    }

    fn drop(&mut self, fd: Resource<Descriptor>) -> wasmtime::Result<()> {
        self.table.delete(fd)?;
        Ok(())
    }
}

impl types::HostDirectoryEntryStream for FilesystemCtxView<'_> {
    fn read_directory_entry(&mut self, stream: Resource<EntryStream>) -> FsResult<Option<DirectoryEntry>> {
        Ok(self.table.get_mut(&stream)?.next()?.map(directory_entry))
    }

    fn drop(&mut self, stream: Resource<EntryStream>) -> wasmtime::Result<()> {
        self.table.delete(stream)?;
        Ok(())
    }
}
