//! The process-wide part: wasmtime's engine, its pool of instance slots, the epoch ticker and the guests' threads.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::Duration;

use parking_lot::Mutex;
use wasmtime::component::Linker;
use wasmtime::{Config, Engine, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::compile::Slot;
use crate::ctx::GuestCtx;

/// Most elements in one guest table.
pub const MAX_TABLE_ELEMENTS: usize = 10_000;
/// How often a running guest is made to yield its thread.
pub const TICK: Duration = Duration::from_millis(1);
/// Address space reserved per linear memory, so that bounds checks cost nothing.
const MEMORY_RESERVATION: u64 = 4 << 30;
/// Unmapped space behind each linear memory.
const MEMORY_GUARD: u64 = 32 << 20;
/// Stack that guest code may use; the rest of [`ASYNC_STACK`] is headroom for calls into the host.
const MAX_WASM_STACK: usize = 1 << 20;
const ASYNC_STACK: usize = 2 << 20;
/// Memory mappings per instance slot: two for its stack, four once it runs.
const MAPS_PER_INSTANCE: u64 = 6;
/// Memory mappings left to the rest of the process: threads, libraries, compiled components.
const MAPS_RESERVED: u64 = 4096;
/// What Linux allows when it does not say.
const DEFAULT_MAX_MAP_COUNT: u64 = 65_530;
/// Bytes of a freed memory that are cleared by hand instead of being given back to the kernel: an instance per request
/// costs half the CPU this way. Only the few free slots that the pool keeps warm hold them.
const KEEP_RESIDENT: usize = 128 << 10;
/// Bounds for one component; wit-component output has three to five core instances and one memory.
const MAX_CORE_INSTANCES_PER_COMPONENT: u32 = 32;
const MAX_MEMORIES_PER_COMPONENT: u32 = 4;
const MAX_TABLES_PER_COMPONENT: u32 = 16;
/// Most bytes of one instance's own bookkeeping.
const MAX_INSTANCE_BYTES: usize = 4 << 20;
/// Frames that a trap's backtrace records.
const MAX_BACKTRACE_FRAMES: usize = 32;
/// Ticks without a running guest after which the ticker sleeps.
const IDLE_TICKS: u32 = 20;

/// How a [`Runtime`] is set up.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Where compiled artifacts are kept; created with mode 0700. They are native code: nobody else may write here.
    pub cache_dir: PathBuf,
    /// The program that compiles modules in a limited process; `None` compiles in this process.
    pub compiler: Option<Compiler>,
    /// Threads that run guests; 0 means one per CPU.
    pub guest_threads: usize,
    /// Most guest instances alive at once that is asked for; [`Runtime::capacity`] says what was granted.
    pub max_instances: u32,
}

impl RuntimeConfig {
    /// Artifacts in `cache_dir`, compiling in process, a thread per CPU, ten thousand instances.
    pub fn new(cache_dir: impl Into<PathBuf>) -> RuntimeConfig {
        RuntimeConfig { cache_dir: cache_dir.into(), compiler: None, guest_threads: 0, max_instances: 10_000 }
    }
}

/// A command that is run as `program args... INPUT OUTPUT` and does what [`crate::compile::child_main`] does.
#[derive(Debug, Clone)]
pub struct Compiler {
    /// The executable, usually this one.
    pub program: PathBuf,
    /// Arguments before the two paths, such as `compile`.
    pub args: Vec<String>,
}

/// Why there is no runtime.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The artifact directory cannot be used.
    #[error("artifact directory {path}: {source}")]
    CacheDir {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The engine refuses this machine or configuration.
    #[error("wasm engine: {0}")]
    Engine(String),
    /// No threads.
    #[error("guest threads: {0}")]
    Threads(std::io::Error),
}

/// How many guest instances fit, and what decided that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// Instances that may be alive at once: one per command container, one per HTTP request in progress.
    pub instances: u32,
    /// One sentence for operators.
    pub why: String,
}

impl Capacity {
    /// What `vm.max_map_count` allows of the instances that are `wanted`.
    fn plan(wanted: u32, max_map_count: u64) -> Capacity {
        let fit = u32::try_from(max_map_count.saturating_sub(MAPS_RESERVED) / MAPS_PER_INSTANCE).unwrap_or(u32::MAX);
        let (wanted, fit) = (wanted.max(1), fit.max(1));
        let why = if fit < wanted {
            format!("vm.max_map_count={max_map_count} allows {fit} instances of the {wanted} configured")
        } else {
            format!("as configured; vm.max_map_count={max_map_count} allows {fit}")
        };
        Capacity { instances: wanted.min(fit), why }
    }
}

/// Runs guests: engine, linker, compiled components, threads. One per process.
pub struct Runtime {
    pub(crate) config: RuntimeConfig,
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<GuestCtx>,
    pub(crate) ticker: Arc<Ticker>,
    pub(crate) slots: Mutex<HashMap<String, Arc<Slot>>>,
    pub(crate) compiling: tokio::sync::Semaphore,
    capacity: Capacity,
    threads: Option<tokio::runtime::Runtime>,
}

impl Runtime {
    /// Reserves the instance slots, starts the guests' threads, and prepares the artifact directory, in which it
    /// removes what an earlier process left unfinished.
    ///
    /// Where the machine does not let the pool be reserved (address space limits), instances are allocated one by
    /// one instead; [`Capacity::why`] says so.
    pub fn new(config: RuntimeConfig) -> Result<Arc<Runtime>, RuntimeError> {
        private_dir(&config.cache_dir)
            .and_then(|()| crate::compile::remove_unfinished(&config.cache_dir))
            .map_err(|source| RuntimeError::CacheDir { path: config.cache_dir.clone(), source })?;
        let mut capacity = Capacity::plan(config.max_instances, max_map_count());
        let engine = match Engine::new(engine_config().allocation_strategy(pool(capacity.instances))) {
            Ok(engine) => engine,
            Err(error) => {
                capacity.why = format!("{}; no pooled memory: {error:#}", capacity.why);
                Engine::new(&engine_config()).map_err(|error| RuntimeError::Engine(format!("{error:#}")))?
            }
        };
        let linker = crate::link::linker(&engine).map_err(|error| RuntimeError::Engine(format!("{error:#}")))?;
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(match config.guest_threads {
                0 => std::thread::available_parallelism().map_or(1, usize::from),
                threads => threads,
            })
            .thread_name("guest")
            .enable_all()
            .build()
            .map_err(RuntimeError::Threads)?;
        let ticker = Ticker::start(engine.weak()).map_err(RuntimeError::Threads)?;
        Ok(Arc::new(Runtime {
            config,
            engine,
            linker,
            ticker,
            slots: Mutex::default(),
            compiling: tokio::sync::Semaphore::new(crate::compile::MAX_COMPILES),
            capacity,
            threads: Some(threads),
        }))
    }

    /// Where compiled code is kept: nobody else may ever write there.
    pub fn cache_dir(&self) -> &std::path::Path {
        &self.config.cache_dir
    }

    /// How many instances fit.
    pub fn capacity(&self) -> &Capacity {
        &self.capacity
    }

    /// Starts a task on the guests' threads, which the agent's own work never shares.
    pub(crate) fn spawn<F>(&self, future: F) -> Option<tokio::task::JoinHandle<F::Output>>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        self.threads.as_ref().map(|threads| threads.spawn(future))
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.ticker.stop();
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

/// What decides the compiled code: the same for the compiler's process and for the one that runs guests.
pub(crate) fn engine_config() -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .wasm_memory64(false)
        .wasm_component_model(true)
        .wasm_backtrace_max_frames(NonZeroUsize::new(MAX_BACKTRACE_FRAMES))
        .memory_reservation(MEMORY_RESERVATION)
        .memory_guard_size(MEMORY_GUARD)
        .max_wasm_stack(MAX_WASM_STACK)
        .async_stack_size(ASYNC_STACK);
    config
}

fn pool(instances: u32) -> InstanceAllocationStrategy {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_stacks(instances)
        .total_memories(instances)
        .total_core_instances(instances.saturating_mul(8))
        .total_tables(instances.saturating_mul(4))
        .table_elements(MAX_TABLE_ELEMENTS)
        .max_core_instances_per_component(MAX_CORE_INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MAX_MEMORIES_PER_COMPONENT)
        .max_tables_per_component(MAX_TABLES_PER_COMPONENT)
        .max_component_instance_size(MAX_INSTANCE_BYTES)
        .max_core_instance_size(MAX_INSTANCE_BYTES)
        .max_memory_size(MEMORY_RESERVATION as usize)
        .linear_memory_keep_resident(KEEP_RESIDENT)
        .table_keep_resident(KEEP_RESIDENT / 2);
    InstanceAllocationStrategy::Pooling(pool)
}

fn max_map_count() -> u64 {
    std::fs::read_to_string("/proc/sys/vm/max_map_count")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(DEFAULT_MAX_MAP_COUNT)
}

fn private_dir(path: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}

/// Advances the engine's epoch once a millisecond while any guest is on a thread, and sleeps otherwise.
pub(crate) struct Ticker {
    running: AtomicUsize,
    asleep: AtomicBool,
    stopped: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Ticker {
    fn start(engine: EngineWeak) -> std::io::Result<Arc<Ticker>> {
        let ticker = Arc::new(Ticker {
            running: AtomicUsize::new(0),
            asleep: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            thread: OnceLock::new(),
        });
        let own = ticker.clone();
        let handle = std::thread::Builder::new().name("epoch".into()).spawn(move || own.run(&engine))?;
        let _ = ticker.thread.set(handle.thread().clone());
        Ok(ticker)
    }

    fn run(&self, engine: &EngineWeak) {
        let mut idle = 0;
        while !self.stopped.load(Ordering::SeqCst) {
            if self.running.load(Ordering::SeqCst) > 0 {
                idle = 0;
            } else {
                idle += 1;
            }
            if idle > IDLE_TICKS {
                // Announce sleep first, then look again: a guest that starts in between either is seen here or
                // sees the flag and wakes this thread.
                self.asleep.store(true, Ordering::SeqCst);
                if self.running.load(Ordering::SeqCst) == 0 && !self.stopped.load(Ordering::SeqCst) {
                    std::thread::park();
                }
                self.asleep.store(false, Ordering::SeqCst);
                idle = 0;
            }
            std::thread::sleep(TICK);
            match engine.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
        }
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.wake();
    }

    /// Held while a guest is on a thread.
    pub(crate) fn running(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) && self.asleep.swap(false, Ordering::SeqCst) {
            self.wake();
        }
        Running(self)
    }
}

/// A guest is on this thread.
pub(crate) struct Running<'a>(&'a Ticker);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_follows_the_map_count() {
        for (wanted, maps, instances, word) in [
            (10_000, 65_530, 10_000, "as configured"),
            (20_000, 65_530, 10_239, "vm.max_map_count=65530 allows 10239"),
            (20_000, 1 << 20, 20_000, "as configured"),
            (10, 0, 1, "allows 1"),
            (0, 65_530, 1, "as configured"),
        ] {
            let capacity = Capacity::plan(wanted, maps);
            assert_eq!(capacity.instances, instances, "{wanted} of {maps}");
            assert!(capacity.why.contains(word), "{}", capacity.why);
        }
    }

    #[test]
    fn pooling_does_not_change_compiled_code() {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let hash = |engine: Engine| {
            let mut hasher = DefaultHasher::new();
            engine.precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        let pooled = Engine::new(engine_config().allocation_strategy(pool(4))).unwrap();
        assert_eq!(hash(pooled), hash(Engine::new(&engine_config()).unwrap()));
    }
}
