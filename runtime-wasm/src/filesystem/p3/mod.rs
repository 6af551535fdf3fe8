//! The wasi:filesystem 0.3 host: the functions of 0.2 under the names, types and streams of 0.3.

mod convert;
mod host;
mod streams;

use wasmtime::component::Linker;

use super::{Filesystem, FilesystemView};
use generated::wasi::filesystem::{preopens, types};

mod generated {
    #![allow(missing_docs, unused_qualifications, clippy::all, reason = "generated")]
    wasmtime::component::bindgen!({
        path: "wit/p3",
        world: "copepod:runtime/files",
        imports: {
            "wasi:filesystem/types.[method]descriptor.read-via-stream": store | trappable,
            "wasi:filesystem/types.[method]descriptor.write-via-stream": store | trappable,
            "wasi:filesystem/types.[method]descriptor.append-via-stream": store | trappable,
            "wasi:filesystem/types.[method]descriptor.read-directory": store | trappable,
            default: trappable,
        },
        require_store_data_send: true,
        trappable_error_type: { "wasi:filesystem/types.error-code" => crate::filesystem::FsFailure },
        with: {
            "wasi:clocks": wasmtime_wasi::p3::bindings::clocks,
            "wasi:filesystem/types.descriptor": crate::filesystem::Descriptor,
        },
    });
}

/// Links wasi:filesystem/types and wasi:filesystem/preopens of WASI 0.3. The engine must support concurrency.
pub fn add_to_linker<T: FilesystemView + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    types::add_to_linker::<T, Filesystem>(linker, T::filesystem)?;
    preopens::add_to_linker::<T, Filesystem>(linker, T::filesystem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filesystem_wit_is_the_version_wasmtime_links() {
        let linker = &mut Linker::<crate::ctx::GuestCtx>::new(&wasmtime::Engine::default());
        wasmtime_wasi::p3::add_to_linker(linker).unwrap();
        let error = add_to_linker(linker).expect_err("the same names are taken already");
        assert!(format!("{error:?}").contains("defined twice"), "{error:?}");
    }
}
