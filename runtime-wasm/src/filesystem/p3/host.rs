//! The generated host traits of WASI 0.3, over the functions of 0.2.

use wasmtime::component::{Access, Accessor, Resource, StreamReader};

use super::streams::{Listing, Reading, Writing};
use super::types::{
    self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, ErrorCode, Filesize,
    MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
};
use super::{convert, preopens};
use crate::filesystem::generated::wasi::filesystem::types::HostDescriptor as P2;
use crate::filesystem::generated::wasi::filesystem::{preopens as p2_preopens, types as p2};
use crate::filesystem::{Descriptor, Filesystem, FilesystemCtxView, FsFailure, FsResult};
use crate::transfer::{Outcome, Pace, stream_of};

type Fd = Resource<Descriptor>;
type Outcomes = crate::transfer::Outcomes<ErrorCode>;

/// What goes into a stream's future; a trap goes on.
fn told<T>(result: FsResult<T>) -> wasmtime::Result<Result<T, ErrorCode>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(FsFailure::Code(code)) => Ok(Err(convert::code(code))),
        Err(FsFailure::Trap(error)) => Err(error),
    }
}

fn write<T: 'static>(
    mut store: Access<'_, T, Filesystem>,
    fd: &Fd,
    mut data: StreamReader<u8>,
    position: Option<Filesize>,
) -> wasmtime::Result<Outcomes> {
    match told(store.get().writer(fd, position))? {
        Ok(file) => {
            let (outcome, future) = Outcome::new(&mut store)?;
            data.pipe(&mut store, Writing { file, outcome, pace: Pace::default() })?;
            Ok(future)
        }
        Err(error) => {
            data.close(&mut store)?;
            Outcome::failed(&mut store, error)
        }
    }
}

impl types::Host for FilesystemCtxView<'_> {
    fn convert_error_code(&mut self, error: FsFailure) -> wasmtime::Result<ErrorCode> {
        p2::Host::convert_error_code(self, error).map(convert::code)
    }
}

impl preopens::Host for FilesystemCtxView<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Fd, String)>> {
        p2_preopens::Host::get_directories(self)
    }
}

impl types::HostDescriptor for FilesystemCtxView<'_> {
    fn drop(&mut self, fd: Fd) -> wasmtime::Result<()> {
        P2::drop(self, fd)
    }
}

impl<T: 'static> types::HostDescriptorWithStore<T> for Filesystem {
    fn read_via_stream(
        mut store: Access<'_, T, Self>,
        fd: Fd,
        offset: Filesize,
    ) -> wasmtime::Result<(StreamReader<u8>, Outcomes)> {
        let file = told(store.get().reader(&fd, offset))?;
        stream_of(&mut store, file.map(|file| |outcome| Reading { file, outcome, pace: Pace::default() }))
    }

    fn write_via_stream(
        store: Access<'_, T, Self>,
        fd: Fd,
        data: StreamReader<u8>,
        offset: Filesize,
    ) -> wasmtime::Result<Outcomes> {
        write(store, &fd, data, Some(offset))
    }

    fn append_via_stream(store: Access<'_, T, Self>, fd: Fd, data: StreamReader<u8>) -> wasmtime::Result<Outcomes> {
        write(store, &fd, data, None)
    }

    fn read_directory(
        mut store: Access<'_, T, Self>,
        fd: Fd,
    ) -> wasmtime::Result<(StreamReader<DirectoryEntry>, Outcomes)> {
        let entries = told(store.get().entries(&fd))?;
        stream_of(&mut store, entries.map(|entries| |outcome| Listing { entries, outcome, pace: Pace::default() }))
    }

    async fn advise(store: &Accessor<T, Self>, fd: Fd, from: Filesize, length: Filesize, _: Advice) -> FsResult<()> {
        store.with(|mut store| store.get().advise(fd, from, length, p2::Advice::Normal))
    }

    async fn sync_data(store: &Accessor<T, Self>, fd: Fd) -> FsResult<()> {
        store.with(|mut store| store.get().sync_data(fd))
    }

    async fn sync(store: &Accessor<T, Self>, fd: Fd) -> FsResult<()> {
        store.with(|mut store| store.get().sync(fd))
    }

    async fn get_flags(store: &Accessor<T, Self>, fd: Fd) -> FsResult<DescriptorFlags> {
        store.with(|mut store| store.get().get_flags(fd)).map(convert::flags_of)
    }

    async fn get_type(store: &Accessor<T, Self>, fd: Fd) -> FsResult<DescriptorType> {
        store.with(|mut store| store.get().get_type(fd)).map(convert::kind_of)
    }

    async fn set_size(store: &Accessor<T, Self>, fd: Fd, size: Filesize) -> FsResult<()> {
        store.with(|mut store| store.get().set_size(fd, size))
    }

    async fn set_times(
        store: &Accessor<T, Self>,
        fd: Fd,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        let (accessed, modified) = (convert::new_time(accessed)?, convert::new_time(modified)?);
        store.with(|mut store| store.get().change_times(&fd, accessed, modified))
    }

    async fn create_directory_at(store: &Accessor<T, Self>, fd: Fd, path: String) -> FsResult<()> {
        store.with(|mut store| store.get().create_directory_at(fd, path))
    }

    async fn stat(store: &Accessor<T, Self>, fd: Fd) -> FsResult<DescriptorStat> {
        store.with(|mut store| store.get().stat_of(&fd)).map(convert::stat)
    }

    async fn stat_at(store: &Accessor<T, Self>, fd: Fd, flags: PathFlags, path: String) -> FsResult<DescriptorStat> {
        let flags = convert::path_flags(flags);
        store.with(|mut store| store.get().stat_of_path(&fd, flags, &path)).map(convert::stat)
    }

    async fn set_times_at(
        store: &Accessor<T, Self>,
        fd: Fd,
        flags: PathFlags,
        path: String,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        let (accessed, modified) = (convert::new_time(accessed)?, convert::new_time(modified)?);
        let flags = convert::path_flags(flags);
        store.with(|mut store| store.get().change_times_at(&fd, flags, &path, accessed, modified))
    }

    async fn link_at(
        store: &Accessor<T, Self>,
        fd: Fd,
        flags: PathFlags,
        path: String,
        new_fd: Fd,
        new_path: String,
    ) -> FsResult<()> {
        store.with(|mut store| store.get().link_at(fd, convert::path_flags(flags), path, new_fd, new_path))
    }

    async fn open_at(
        store: &Accessor<T, Self>,
        fd: Fd,
        path_flags: PathFlags,
        path: String,
        open_flags: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Fd> {
        let (path_flags, open_flags) = (convert::path_flags(path_flags), convert::open_flags(open_flags));
        let flags = convert::descriptor_flags(flags);
        store.with(|mut store| store.get().open_at(fd, path_flags, path, open_flags, flags))
    }

    async fn readlink_at(store: &Accessor<T, Self>, fd: Fd, path: String) -> FsResult<String> {
        store.with(|mut store| store.get().readlink_at(fd, path))
    }

    async fn remove_directory_at(store: &Accessor<T, Self>, fd: Fd, path: String) -> FsResult<()> {
        store.with(|mut store| store.get().remove_directory_at(fd, path))
    }

    async fn rename_at(store: &Accessor<T, Self>, fd: Fd, path: String, new_fd: Fd, new_path: String) -> FsResult<()> {
        store.with(|mut store| store.get().rename_at(fd, path, new_fd, new_path))
    }

    async fn symlink_at(store: &Accessor<T, Self>, fd: Fd, target: String, path: String) -> FsResult<()> {
        store.with(|mut store| store.get().symlink_at(fd, target, path))
    }

    async fn unlink_file_at(store: &Accessor<T, Self>, fd: Fd, path: String) -> FsResult<()> {
        store.with(|mut store| store.get().unlink_file_at(fd, path))
    }

    async fn is_same_object(store: &Accessor<T, Self>, fd: Fd, other: Fd) -> wasmtime::Result<bool> {
        store.with(|mut store| store.get().is_same_object(fd, other))
    }

    async fn metadata_hash(store: &Accessor<T, Self>, fd: Fd) -> FsResult<MetadataHashValue> {
        store.with(|mut store| store.get().metadata_hash(fd)).map(convert::hash)
    }

    async fn metadata_hash_at(
        store: &Accessor<T, Self>,
        fd: Fd,
        flags: PathFlags,
        path: String,
    ) -> FsResult<MetadataHashValue> {
        let flags = convert::path_flags(flags);
        store.with(|mut store| store.get().metadata_hash_at(fd, flags, path)).map(convert::hash)
    }
}
