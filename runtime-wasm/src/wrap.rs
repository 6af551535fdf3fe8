//! WASI 0.1 core modules (`wasm32-wasip1`, Go, most C toolchains) as components.

use std::borrow::Cow;

use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
};
use wasm_encoder::reencode::{Reencode, RoundtripReencoder};
use wasm_encoder::{ImportSection, Module, RawSection};
use wasmparser::{Import, Parser, Payload};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::compile::{LoadError, bounded};

/// The interface that takes an exit code, and the part of it that modules get.
const EXIT: &str = "wasi:cli/exit@0.2.12";
const EXIT_WIT: &str = "package wasi:cli@0.2.12;
interface exit { exit: func(status: result); exit-with-code: func(status-code: u8); }
world exits { import exit; }";

/// The component in `bytes`: as it is, or a WASI 0.1 command wrapped into one.
///
/// The adapter between the two knows neither threads nor `sock_accept`, `sock_recv` and `sock_send`: a guest that calls
/// those traps.
pub(crate) fn component(bytes: &[u8]) -> Result<Cow<'_, [u8]>, LoadError> {
    check(bytes)?;
    if Parser::is_component(bytes) {
        return Ok(Cow::Borrowed(bytes));
    }
    wrap(bytes)
        .map(Cow::Owned)
        .map_err(|error| LoadError::Compile(bounded(&format!("wrapping the core module: {error:#}"))))
}

fn wrap(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    let module = keep_exit_code(module)?;
    let encoder = ComponentEncoder::default().module(&module)?;
    encoder.adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER)?.encode()
}

/// The module with `proc_exit` linked to `exit-with-code`, which keeps the low eight bits as Unix does; the adapter
/// would only pass on success or failure.
fn keep_exit_code(module: &[u8]) -> anyhow::Result<Cow<'_, [u8]>> {
    let mut out = Module::new();
    let mut exits = false;
    for payload in Parser::new(0).parse_all(module) {
        let payload = payload?;
        if let Payload::ImportSection(section) = &payload {
            let mut imports = ImportSection::new();
            for import in section.clone().into_imports() {
                let mut import = import?;
                if is_exit(&import) {
                    exits = true;
                    import = Import { module: EXIT, name: "exit-with-code", ty: import.ty };
                }
                RoundtripReencoder.parse_import(&mut imports, import)?;
            }
            out.section(&imports);
        } else if let Some((id, range)) = payload.as_section() {
            out.section(&RawSection { id, data: module.get(range).unwrap_or_default() });
        }
    }
    if !exits {
        return Ok(Cow::Borrowed(module));
    }
    let mut bytes = out.finish();
    let mut resolve = Resolve::default();
    let package = resolve.push_str("exit.wit", EXIT_WIT)?;
    let world = resolve.select_world(&[package], None)?;
    embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8)?;
    Ok(Cow::Owned(bytes))
}

fn is_exit(import: &Import<'_>) -> bool {
    import.module == WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME && import.name == "proc_exit"
}

/// Says what is wrong with a core module in better words than the encoder's. Components pass.
pub(crate) fn check(module: &[u8]) -> Result<(), LoadError> {
    if Parser::is_component(module) {
        return Ok(());
    }
    let invalid = |error: wasmparser::BinaryReaderError| LoadError::Compile(bounded(&error.to_string()));
    let mut missing = Vec::new();
    let mut is_command = false;
    for payload in Parser::new(0).parse_all(module) {
        match payload.map_err(invalid)? {
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import.map_err(invalid)?;
                    if import.module != WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME {
                        missing.push(format!("{}.{}", import.module, import.name));
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
    match (missing.is_empty(), is_command) {
        (false, _) => Err(LoadError::missing(&missing)),
        (true, true) => Ok(()),
        (true, false) => Err(LoadError::CoreModule),
    }
}
