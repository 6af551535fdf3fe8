//! The process-wide part: wasmtime's engine, its pool of instance slots, the epoch ticker and the guests' threads.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use wasmtime::component::Linker;
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::compile::{CacheLimits, Slot};
use crate::ctx::GuestCtx;
use crate::fair::GuestPool;
use crate::ticker::Ticker;

/// Most elements in one guest table; gcc has ten thousand functions in its own.
pub const MAX_TABLE_ELEMENTS: usize = 100_000;
/// Address space reserved per linear memory, so that bounds checks cost nothing.
const MEMORY_RESERVATION: u64 = 4 << 30;
/// Unmapped space behind each linear memory.
const MEMORY_GUARD: u64 = 32 << 20;
/// Stack that guest code may use; the rest of [`ASYNC_STACK`] is headroom for calls into the host.
pub const MAX_WASM_STACK: usize = 1 << 20;
const ASYNC_STACK: usize = 2 << 20;
/// Memory mappings per instance slot: two for its stack, four once it runs.
pub const MAPS_PER_INSTANCE: u64 = 6;
/// Memory mappings left to the rest of the process: threads, libraries, compiled components.
const MAPS_RESERVED: u64 = 4096;
/// What Linux allows when it does not say.
const DEFAULT_MAX_MAP_COUNT: u64 = 65_530;
/// Address space of a process on 64-bit machines, as Linux gives it out unasked.
const ADDRESS_SPACE: u64 = 1 << 47;
/// Address space left to the rest of the process.
const ADDRESS_SPACE_RESERVED: u64 = 8 << 30;
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

/// CPU time that instantiating a component may take, unless said otherwise.
pub const START_CPU: Duration = Duration::from_secs(10);
/// Wall time that a command may take to be instantiated, unless said otherwise.
pub const START_TIMEOUT: Duration = Duration::from_secs(120);

/// How a [`Runtime`] is set up.
#[derive(Debug, Clone)]
pub struct RuntimeConfig {
    /// Where compiled artifacts are kept; created with mode 0700. They are native code: nobody else may write here.
    pub cache_dir: PathBuf,
    /// What the artifact directory may hold.
    pub cache_limits: CacheLimits,
    /// The program that compiles modules in a limited process; `None` compiles in this process.
    pub compiler: Option<Compiler>,
    /// Threads that run guests; 0 means one per CPU.
    pub guest_threads: usize,
    /// Threads for guests' timers and connections; 0 means one per CPU.
    pub network_threads: usize,
    /// Most guest instances alive at once that is asked for; [`Runtime::capacity`] says what was granted.
    pub max_instances: u32,
    /// CPU time that instantiating a component may take, start functions included.
    pub start_cpu: Duration,
    /// Wall time that a command may take to be instantiated, its waits and its quota's pauses included.
    pub start_timeout: Duration,
}

impl RuntimeConfig {
    /// Artifacts in `cache_dir`, compiling in process, a thread per CPU, ten thousand instances.
    pub fn new(cache_dir: impl Into<PathBuf>) -> RuntimeConfig {
        RuntimeConfig {
            cache_dir: cache_dir.into(),
            cache_limits: CacheLimits::default(),
            compiler: None,
            guest_threads: 0,
            network_threads: 0,
            max_instances: 10_000,
            start_cpu: START_CPU,
            start_timeout: START_TIMEOUT,
        }
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

/// The node has as many guest instances as fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("node is at capacity: {0} guest instances are alive and no more fit")]
pub struct AtCapacity(pub u32);

/// The instances that are alive.
pub(crate) struct Instances {
    limit: u32,
    alive: AtomicU32,
}

impl Instances {
    fn new(limit: u32) -> Arc<Instances> {
        Arc::new(Instances { limit, alive: AtomicU32::new(0) })
    }

    /// A place for one more instance, until it is dropped.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<Place, AtCapacity> {
        let fits = |alive: u32| (alive < self.limit).then_some(alive + 1);
        let taken = self.alive.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        taken.map(|_| Place(self.clone())).map_err(|_| AtCapacity(self.limit))
    }
}

/// One instance's place among those that fit.
pub(crate) struct Place(Arc<Instances>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.alive.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How many guest instances fit, and what decided that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capacity {
    /// Instances that may be alive at once: one per command container, one per HTTP request in progress.
    pub instances: u32,
    /// One sentence for operators: what decided it and, if fewer fit than asked for, what to raise.
    pub why: String,
}

impl Capacity {
    /// What this machine allows of the instances that are `wanted`.
    fn plan(wanted: u32, machine: Machine) -> Capacity {
        let fit = |whole: u64, reserved: u64, each: u64| {
            u32::try_from(whole.saturating_sub(reserved) / each).unwrap_or(u32::MAX).max(1)
        };
        let maps = fit(machine.max_map_count, MAPS_RESERVED, MAPS_PER_INSTANCE);
        let each = MEMORY_RESERVATION + MEMORY_GUARD + ASYNC_STACK as u64;
        let space = fit(machine.address_space, ADDRESS_SPACE_RESERVED, each);
        let wanted = wanted.max(1);
        let (instances, limit, raise) = if space < maps {
            let raise = match machine.address_space < ADDRESS_SPACE {
                true => "raise the process's limit of address space (RLIMIT_AS: `ulimit -v`, LimitAS=)".to_owned(),
                false => "the machine has no more".to_owned(),
            };
            (space, format!("{} bytes of address space allow {space}", machine.address_space), raise)
        } else {
            let needed = MAPS_RESERVED + u64::from(wanted) * MAPS_PER_INSTANCE;
            let limit = format!("vm.max_map_count={} allows {maps}", machine.max_map_count);
            (maps, limit, format!("`sysctl vm.max_map_count={needed}` allows all"))
        };
        let why = match instances < wanted {
            true => format!("{limit} instances of the {wanted} configured: {raise}"),
            false => format!("as configured; {limit}"),
        };
        Capacity { instances: wanted.min(instances), why }
    }
}

/// What bounds the instances on a machine.
#[derive(Debug, Clone, Copy)]
struct Machine {
    max_map_count: u64,
    address_space: u64,
}

impl Machine {
    fn read() -> Machine {
        let limit = rustix::process::getrlimit(rustix::process::Resource::As).current;
        let address_space = limit.unwrap_or(u64::MAX).min(ADDRESS_SPACE);
        Machine { max_map_count: max_map_count(), address_space }
    }
}

/// Runs guests: engine, linker, compiled components, threads. One per process.
///
/// Guests have threads of their own ([`crate::fair`]), and so have their timers and connections; the threads that
/// call this, the agent's, run neither.
pub struct Runtime {
    pub(crate) config: RuntimeConfig,
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<GuestCtx>,
    pub(crate) ticker: Arc<Ticker>,
    pub(crate) slots: Mutex<HashMap<String, Arc<Slot>>>,
    pub(crate) compiling: tokio::sync::Semaphore,
    pub(crate) guests: GuestPool,
    pub(crate) instances: Arc<Instances>,
    capacity: Capacity,
    network: Option<tokio::runtime::Runtime>,
}

impl Runtime {
    /// Reserves the instance slots, starts the guests' threads, and prepares the artifact directory, in which it
    /// removes what an earlier process left unfinished.
    ///
    /// Where the machine does not let all of them be reserved, fewer are: [`Runtime::capacity`] says how many, and why.
    pub fn new(config: RuntimeConfig) -> Result<Arc<Runtime>, RuntimeError> {
        private_dir(&config.cache_dir)
            .and_then(|()| crate::compile::remove_unfinished(&config.cache_dir))
            .and_then(|()| crate::compile::collect(&config.cache_dir, &HashSet::new(), config.cache_limits))
            .map_err(|source| RuntimeError::CacheDir { path: config.cache_dir.clone(), source })?;
        let mut capacity = Capacity::plan(config.max_instances, Machine::read());
        let engine = pooled(&mut capacity)?;
        let linker = crate::link::linker(&engine).map_err(|error| RuntimeError::Engine(format!("{error:#}")))?;
        let network = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(one_per_cpu_unless(config.network_threads))
            .thread_name("guest-net")
            .enable_all()
            .build()
            .map_err(RuntimeError::Threads)?;
        let ticker = Ticker::start(engine.weak()).map_err(RuntimeError::Threads)?;
        let threads = one_per_cpu_unless(config.guest_threads);
        let guests = GuestPool::start(threads, network.handle(), ticker.clone()).map_err(RuntimeError::Threads)?;
        Ok(Arc::new(Runtime {
            config,
            engine,
            linker,
            ticker,
            slots: Mutex::default(),
            compiling: tokio::sync::Semaphore::new(crate::compile::MAX_COMPILES),
            guests,
            instances: Instances::new(capacity.instances),
            capacity,
            network: Some(network),
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
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // First the guests: their timers are the network's.
        self.guests.stop();
        self.ticker.stop();
        if let Some(network) = self.network.take() {
            network.shutdown_background();
        }
    }
}

/// An engine with slots for as many instances as planned or, where the machine refuses that, for fewer.
fn pooled(capacity: &mut Capacity) -> Result<Engine, RuntimeError> {
    let mut instances = capacity.instances;
    loop {
        match Engine::new(&pooled_config(instances)) {
            Ok(engine) if instances == capacity.instances => return Ok(engine),
            Ok(engine) => {
                capacity.why = format!("the machine refuses memory for {}: {}", capacity.instances, capacity.why);
                capacity.instances = instances;
                return Ok(engine);
            }
            Err(_) if instances > 1 => instances /= 2,
            Err(error) => return Err(RuntimeError::Engine(format!("{error:#}"))),
        }
    }
}

fn one_per_cpu_unless(threads: usize) -> usize {
    match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
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

/// wasmtime's configuration in a [`Runtime`] of so many instances: for peers that are measured beside it.
pub fn pooled_config(instances: u32) -> Config {
    let mut config = engine_config();
    config.allocation_strategy(pool(instances));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_follows_the_machine() {
        let all = ADDRESS_SPACE;
        for (wanted, maps, address_space, instances, words) in [
            (10_000, 65_530, all, 10_000, "as configured"),
            (20_000, 65_530, all, 10_239, "vm.max_map_count=65530 allows 10239 instances of the 20000 configured"),
            (20_000, 65_530, all, 10_239, "`sysctl vm.max_map_count=124096` allows all"),
            (20_000, 124_096, all, 20_000, "as configured"),
            (100, 65_530, 64 << 30, 13, "RLIMIT_AS"),
            (20_000, 1 << 20, all, 20_000, "as configured"),
            (100_000, 1 << 30, all, 32_496, "140737488355328 bytes of address space allow 32496"),
            (100, 65_530, 64 << 30, 13, "68719476736 bytes of address space allow 13 instances of the 100"),
            (10, 0, all, 1, "allows 1"),
            (10, 65_530, 0, 1, "allow 1"),
            (0, 65_530, all, 1, "as configured"),
        ] {
            let capacity = Capacity::plan(wanted, Machine { max_map_count: maps, address_space });
            assert_eq!(capacity.instances, instances, "{wanted} of {maps} and {address_space}: {}", capacity.why);
            assert!(capacity.why.contains(words), "{}", capacity.why);
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
