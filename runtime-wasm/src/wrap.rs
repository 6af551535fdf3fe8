//! WASI 0.1 core modules (`wasm32-wasip1`, Go, most C toolchains) as components.

use std::borrow::Cow;

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
};
use wasmparser::{Parser, Payload};
use wit_component::ComponentEncoder;

use crate::compile::{LoadError, bounded};

/// The component in `bytes`: as it is, or a WASI 0.1 command wrapped into one.
///
/// The adapter between the two knows neither threads nor `sock_accept`, `sock_recv` and `sock_send`: a guest that calls
/// those traps.
pub(crate) fn component(bytes: &[u8]) -> Result<Cow<'_, [u8]>, LoadError> {
    check(bytes)?;
    if Parser::is_component(bytes) {
        return Ok(Cow::Borrowed(bytes));
    }
    ComponentEncoder::default()
        .module(bytes)
        .and_then(|encoder| {
            encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER)
        })
        .and_then(|mut encoder| encoder.encode())
        .map(Cow::Owned)
        .map_err(|error| LoadError::Compile(bounded(&format!("wrapping the core module: {error:#}"))))
}

/// Says what is wrong with a core module in better words than the encoder's. Components pass.
pub(crate) fn check(module: &[u8]) -> Result<(), LoadError> {
    if Parser::is_component(module) {
        return Ok(());
    }
    let invalid = |error: wasmparser::BinaryReaderError| LoadError::Compile(bounded(&error.to_string()));
    let mut is_command = false;
    for payload in Parser::new(0).parse_all(module) {
        match payload.map_err(invalid)? {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import.map_err(invalid)?;
                    if import.module != WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME {
                        return Err(LoadError::UnknownImport(bounded(&format!("{}.{}", import.module, import.name))));
                    }
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    is_command |= export.map_err(invalid)?.name == "_start";
                }
            }
            _ => {}
        }
    }
    if is_command { Ok(()) } else { Err(LoadError::CoreModule) }
}
