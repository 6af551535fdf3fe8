//! How instances of one container are made: one store each, all charged to the container's accounts.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store, UpdateDeadline};
use wasmtime_wasi::WasiCtx;
use wasmtime_wasi_config::WasiConfigVariables;
use wasmtime_wasi_http::WasiHttpCtx;

use crate::ctx::GuestCtx;
use crate::engine::Instances;
use crate::limits::{Limiter, MemoryBudget};
use crate::outgoing::OutgoingHttp;
use crate::outgoing::tls::Tls;
use crate::sockets::PodNet;
use crate::stdio::{Input, Output, OutputSink};
use crate::vfs::Mounts;

/// Most handles (streams, sockets, descriptors, bodies) that one instance holds.
pub const MAX_HANDLES: usize = 16_384;
/// Most tasks, streams, futures and their ends that the async ABI of WASI 0.3 keeps for one instance. Streams that a guest
/// joined to each other are counted here though it has no handle of them.
pub const MAX_CONCURRENT: usize = 16_384;
/// Most bytes of lists and strings that a guest passes to the host in one call.
pub const MAX_HOSTCALL_BYTES: usize = 16 << 20;
/// Most random bytes in one call.
pub const MAX_RANDOM_BYTES: u64 = 1 << 20;
/// How long an ended guest's last output may take to be written.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// What all instances of a container have in common.
#[derive(Clone)]
pub(crate) struct Template {
    pub(crate) engine: Engine,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) config: Arc<WasiConfigVariables>,
    pub(crate) working_dir: Option<String>,
    /// Standard input; empty if `None`.
    pub(crate) stdin: Option<Input>,
    pub(crate) stdout: Arc<dyn OutputSink>,
    pub(crate) stderr: Arc<dyn OutputSink>,
    /// The standard streams are a terminal's.
    pub(crate) tty: bool,
    pub(crate) budget: Arc<MemoryBudget>,
    /// Ticks that an instance may run before it is instantiated.
    pub(crate) start_ticks: u32,
    pub(crate) net: Arc<PodNet>,
    pub(crate) files: Arc<Mounts>,
    /// The node's instances, of which each of the container's is one.
    pub(crate) instances: Arc<Instances>,
    /// For requests over TLS.
    pub(crate) tls: Arc<Tls>,
}

/// An instance's output streams, which outlive its store.
pub(crate) struct Outputs {
    stdout: Output,
    stderr: Output,
}

impl Outputs {
    /// Waits, within reason, until what the guest wrote is with the sinks.
    pub(crate) async fn drain(&self) {
        let both = async { tokio::join!(self.stdout.drain(), self.stderr.drain()) };
        if tokio::time::timeout(DRAIN_TIMEOUT, both).await.is_err() {
            tracing::warn!("a guest's last output was not taken in {} s and is lost", DRAIN_TIMEOUT.as_secs());
        }
    }
}

impl Template {
    /// Charges a new instance, before it is instantiated.
    pub(crate) fn charge(&self, store: &mut Store<GuestCtx>) -> wasmtime::Result<()> {
        let env = self.env.iter().map(|(name, value)| name.len() + value.len());
        let given: usize = self.args.iter().map(String::len).chain(env).sum();
        store.data_mut().limiter.begin(given as u64)
    }

    /// A store for one instance, limited and interruptible.
    pub(crate) fn store(&self) -> (Store<GuestCtx>, Outputs) {
        let output = |sink: &Arc<dyn OutputSink>| Output::new(sink.clone(), self.tty);
        let outputs = Outputs { stdout: output(&self.stdout), stderr: output(&self.stderr) };
        let mut wasi = WasiCtx::builder();
        wasi.args(&self.args)
            .envs(&self.env)
            .stdout(outputs.stdout.clone())
            .stderr(outputs.stderr.clone())
            .max_random_size(MAX_RANDOM_BYTES);
        if let Some(dir) = &self.working_dir {
            wasi.initial_cwd(dir);
        }
        if let Some(stdin) = &self.stdin {
            wasi.stdin(stdin.clone());
        }
        let mut http = WasiHttpCtx::new();
        http.set_field_size_limit(crate::handles::MAX_FIELDS_BYTES);
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        let ctx = GuestCtx {
            table,
            wasi: wasi.build(),
            config: self.config.clone(),
            stderr: outputs.stderr.clone(),
            http,
            outgoing: OutgoingHttp { net: self.net.clone(), tls: self.tls.clone() },
            limiter: Limiter::new(self.budget.clone()),
            start_ticks_left: Some(self.start_ticks),
            net: self.net.clone(),
            files: self.files.clone(),
        };
        let mut store = Store::new(&self.engine, ctx);
        store.limiter(|ctx| &mut ctx.limiter);
        store.set_hostcall_fuel(MAX_HOSTCALL_BYTES);
        store.set_max_component_handles(MAX_HANDLES);
        if let Some(concurrent) = store.concurrent_resource_table() {
            concurrent.set_max_capacity(MAX_CONCURRENT);
        }
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|mut store| {
            let concurrent = store.concurrent_resource_table().map_or(0, |table| table.iter_mut().count());
            store.data_mut().charge_handles(concurrent)?;
            if !crate::fair::used_its_turn() {
                return Ok(UpdateDeadline::Continue(1));
            }
            store.data_mut().at_tick()?;
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(crate::fair::until_next_turn())))
        });
        (store, outputs)
    }
}
