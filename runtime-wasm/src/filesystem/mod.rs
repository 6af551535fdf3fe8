//! The wasi:filesystem 0.2 host over the virtual filesystem. One preopen: `/`, the container's root. That
//! of 0.3 is [`p3`].

mod descriptor;
mod host;
pub mod p3;
mod paths;
mod streams;

use std::sync::Arc;

use wasmtime::component::{HasData, Linker, ResourceTable};

use crate::vfs::{Mounts, VfsError};
use generated::wasi::filesystem::{preopens, types};

pub(crate) use descriptor::DIRECTORY_STREAM_BYTES;
pub use descriptor::{Descriptor, EntryStream};

mod generated {
    #![allow(missing_docs, unused_qualifications, clippy::all, reason = "generated")]
    wasmtime::component::bindgen!({
        path: "wit",
        world: "copepod:runtime/files",
        imports: { default: trappable },
        require_store_data_send: true,
        trappable_error_type: { "wasi:filesystem/types.error-code" => super::FsFailure },
        with: {
            "wasi:io": wasmtime_wasi_io::bindings::wasi::io,
            "wasi:clocks": wasmtime_wasi::p2::bindings::clocks,
            "wasi:filesystem/types.descriptor": super::Descriptor,
            "wasi:filesystem/types.directory-entry-stream": super::EntryStream,
        },
    });
}

/// What the host functions work on: parts of a store's data.
pub struct FilesystemCtxView<'a> {
    /// The guest's handles.
    pub table: &'a mut ResourceTable,
    /// The container's filesystem.
    pub mounts: &'a Arc<Mounts>,
}

/// A store's data that has a filesystem.
pub trait FilesystemView: Send {
    /// Its parts.
    fn filesystem(&mut self) -> FilesystemCtxView<'_>;
}

struct Filesystem;

impl HasData for Filesystem {
    type Data<'a> = FilesystemCtxView<'a>;
}

/// Links wasi:filesystem/types and wasi:filesystem/preopens. wasi:io must come from `wasmtime-wasi-io`.
pub fn add_to_linker<T: FilesystemView + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    types::add_to_linker::<T, Filesystem>(linker, T::filesystem)?;
    preopens::add_to_linker::<T, Filesystem>(linker, T::filesystem)
}

/// Why a host function failed: an error the guest sees, or a trap.
#[derive(Debug)]
pub enum FsFailure {
    /// The guest sees its WASI code.
    Code(types::ErrorCode),
    /// The guest broke the rules of its handles.
    Trap(wasmtime::Error),
}

type FsResult<T> = Result<T, FsFailure>;

impl From<VfsError> for FsFailure {
    fn from(error: VfsError) -> Self {
        Self::Code(code(error))
    }
}

impl From<wasmtime::component::ResourceTableError> for FsFailure {
    fn from(error: wasmtime::component::ResourceTableError) -> Self {
        match error {
            wasmtime::component::ResourceTableError::Full => Self::Code(types::ErrorCode::InsufficientMemory),
            other => Self::Trap(other.into()),
        }
    }
}

fn code(error: VfsError) -> types::ErrorCode {
    use types::ErrorCode as Code;
    match error {
        VfsError::NoEntry => Code::NoEntry,
        VfsError::Exist => Code::Exist,
        VfsError::NotDirectory => Code::NotDirectory,
        VfsError::IsDirectory => Code::IsDirectory,
        VfsError::NotEmpty => Code::NotEmpty,
        VfsError::Loop => Code::Loop,
        VfsError::NameTooLong => Code::NameTooLong,
        VfsError::NoSpace => Code::InsufficientSpace,
        VfsError::FileTooLarge => Code::FileTooLarge,
        VfsError::ReadOnly => Code::ReadOnly,
        VfsError::Busy => Code::Busy,
        VfsError::CrossDevice => Code::CrossDevice,
        VfsError::Invalid => Code::Invalid,
        VfsError::NotPermitted => Code::NotPermitted,
        VfsError::BadDescriptor => Code::BadDescriptor,
        VfsError::TooManyLinks => Code::TooManyLinks,
        VfsError::Access => Code::Access,
        VfsError::Io => Code::Io,
        VfsError::TooManyOpen => Code::InsufficientMemory,
        VfsError::Unsupported => Code::Unsupported,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

    struct Data {
        table: ResourceTable,
        wasi: WasiCtx,
        mounts: Arc<Mounts>,
    }

    impl WasiView for Data {
        fn ctx(&mut self) -> WasiCtxView<'_> {
            WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
        }
    }

    impl FilesystemView for Data {
        fn filesystem(&mut self) -> FilesystemCtxView<'_> {
            FilesystemCtxView { table: &mut self.table, mounts: &self.mounts }
        }
    }

    #[test]
    fn filesystem_wit_is_the_version_wasmtime_links() {
        let mut linker = Linker::<Data>::new(&wasmtime::Engine::default());
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
        let error = add_to_linker(&mut linker).expect_err("the same names are taken already");
        assert!(format!("{error:?}").contains("defined twice"), "{error:?}");
    }
}
