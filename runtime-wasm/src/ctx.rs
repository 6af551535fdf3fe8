//! What one guest instance can reach: the data of its wasmtime store.

use std::sync::Arc;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_config::WasiConfigVariables;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};
use wasmtime_wasi_io::IoView;

use crate::filesystem::{FilesystemCtxView, FilesystemView};
use crate::limits::{HANDLE_BYTES, Limiter};
use crate::outgoing::OutgoingHttp;
use crate::sockets::{PodNet, SocketsCtxView, SocketsView};
use crate::stdio::Output;
use crate::vfs::Mounts;

/// What a task, stream or future of WASI 0.3 costs, in handles.
const CONCURRENT_HANDLES: usize = 4;

/// The data of one store. Every WASI interface that the guest imports works on fields of this and on nothing else.
pub struct GuestCtx {
    /// Handles the guest holds: streams, sockets, descriptors, bodies. Bounded.
    pub table: ResourceTable,
    /// Arguments, environment, stdio, clocks and randomness.
    pub(crate) wasi: WasiCtx,
    /// The container's environment, as wasi:config has it.
    pub(crate) config: Arc<WasiConfigVariables>,
    /// Where wasi:logging goes.
    pub(crate) stderr: Output,
    /// Limits of wasi:http.
    pub(crate) http: WasiHttpCtx,
    /// Where requests that the guest makes go.
    pub(crate) outgoing: OutgoingHttp,
    /// Charges this instance's memory to its container.
    pub(crate) limiter: Limiter,
    /// Ticks that the instance may still run before it is instantiated; `None` once it is.
    pub(crate) start_ticks_left: Option<u32>,
    /// The pod's network.
    pub(crate) net: Arc<PodNet>,
    /// The container's files.
    pub(crate) files: Arc<Mounts>,
}

/// Instantiating, start functions included, used up its budget of CPU time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("start-up budget used up: the instance was not ready after the CPU time it may take to start")]
pub struct StartBudget;

impl GuestCtx {
    /// The instance has started.
    pub(crate) fn started(&mut self) {
        self.start_ticks_left = None;
    }

    /// Called when the guest comes to run, and at each tick in which it runs: what is counted rather than charged as
    /// it grows, beside its handles the `concurrent` streams and tasks of WASI 0.3.
    pub(crate) fn charge_handles(&mut self, concurrent: usize) -> wasmtime::Result<()> {
        let handles: u64 = self.table.iter_mut().map(|entry| crate::handles::bytes_of(entry)).sum();
        self.limiter.handles(handles + (concurrent * CONCURRENT_HANDLES) as u64 * HANDLE_BYTES)
    }

    /// Called at the end of each turn of the guest's.
    pub(crate) fn at_tick(&mut self) -> wasmtime::Result<()> {
        if let Some(left) = &mut self.start_ticks_left {
            *left = left.checked_sub(1).ok_or(StartBudget)?;
        }
        Ok(())
    }
}

impl WasiView for GuestCtx {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl IoView for GuestCtx {
    fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }
}

impl WasiHttpView for GuestCtx {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.outgoing, table: &mut self.table, ctx: &mut self.http }
    }
}

impl FilesystemView for GuestCtx {
    fn filesystem(&mut self) -> FilesystemCtxView<'_> {
        FilesystemCtxView { table: &mut self.table, mounts: &self.files }
    }
}

impl SocketsView for GuestCtx {
    fn sockets(&mut self) -> SocketsCtxView<'_> {
        SocketsCtxView { table: &mut self.table, net: &self.net }
    }
}
