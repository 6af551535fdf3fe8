//! The peer in process: wasmtime's crates with its own WASI and without anything around them.

use std::path::Path;

use anyhow::{Context, Result};
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Config, Engine, Store};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

/// Most bytes that a guest may print.
const OUTPUT: usize = 4096;

/// A command, ready to be instantiated.
pub struct Bare {
    engine: Engine,
    pre: CommandPre<Ctx>,
}

struct Ctx {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Ctx {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl Bare {
    /// Compiles a component.
    ///
    /// # Errors
    /// It cannot be compiled or linked.
    pub fn compile(config: &Config, component: &Path) -> Result<Self> {
        let engine = Engine::new(config)?;
        let component = Component::from_file(&engine, component)?;
        Self::link(engine, &component)
    }

    /// Maps the code that [`copepod_runtime::Runtime`] of the same configuration has compiled.
    ///
    /// # Errors
    /// It is of another configuration.
    pub fn map(config: &Config, artifact: &Path) -> Result<Self> {
        let engine = Engine::new(config)?;
        #[allow(
            unsafe_code,
            reason = "mapping native code is unsafe in wasmtime: it must trust whoever wrote the file"
        )]
        // SAFETY: this benchmark's own runtime wrote it into its own folder and does not change it.
        let component = unsafe { Component::deserialize_file(&engine, artifact) }?;
        Self::link(engine, &component)
    }

    fn link(engine: Engine, component: &Component) -> Result<Self> {
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        let pre = CommandPre::new(linker.instantiate_pre(component)?)?;
        Ok(Self { engine, pre })
    }

    /// Instantiates, runs to the end and drops; what was printed.
    ///
    /// # Errors
    /// The guest failed.
    pub async fn run(&self, args: &[&str], output: MemoryOutputPipe) -> Result<()> {
        let wasi = WasiCtx::builder().arg("bench").args(args).stdout(output).build();
        let mut store = Store::new(&self.engine, Ctx { wasi, table: ResourceTable::new() });
        // The epoch does not move.
        store.set_epoch_deadline(1);
        let command = self.pre.instantiate_async(&mut store).await?;
        command.wasi_cli_run().call_run(&mut store).await?.ok().context("the guest failed")
    }
}

/// Takes what a guest prints.
pub fn output() -> MemoryOutputPipe {
    MemoryOutputPipe::new(OUTPUT)
}
