//! From a `.wasm` file to a [`Program`]: compiled once per digest by a limited process, kept as a private artifact.
//!
//! An artifact is native code that this process will run. It is trusted because this node made it, because only this
//! user can write the directory, and because its checksum is verified before it is mapped.

mod artifacts;
mod child;

use std::collections::HashSet;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures::future::Either;
use sha2::{Digest, Sha256};
use tokio::sync::{MutexGuard, watch};
use wasmtime::Engine;
use wasmtime::component::Component;

pub use artifacts::CacheLimits;
use artifacts::TemporaryFile;
pub(crate) use artifacts::{collect, remove_unfinished};
pub use child::{COMPILE_CPU_SECONDS, COMPILE_MEMORY, COMPILE_TIMEOUT, MAX_ARTIFACT_BYTES, child_main};

use crate::engine::Runtime;
use crate::program::Program;

/// Most compilations at once on a node.
pub const MAX_COMPILES: usize = 2;
/// Largest module that is compiled, in bytes.
pub const MAX_MODULE_BYTES: u64 = 256 << 20;
/// Longest error text passed on, in bytes.
pub const MAX_ERROR_BYTES: usize = 2048;
/// Loaded programs and remembered failures kept in memory; those in use are not counted out.
const MAX_SLOTS: usize = 1024;
/// Why a module cannot be run. The texts are for users.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Not `ALGORITHM:HEX`.
    #[error("bad digest {0:?}")]
    BadDigest(String),
    /// The file's content is not what the digest says.
    #[error("content does not match its digest {0}")]
    DigestMismatch(String),
    /// Not wasm at all.
    #[error("not a WebAssembly module: first bytes are {0}")]
    NotWasm(String),
    /// A core module that is no WASI 0.1 command.
    #[error("a core module without _start, not a component: build a component for wasm32-wasip2")]
    CoreModule,
    /// Larger than [`MAX_MODULE_BYTES`].
    #[error("module of {0} bytes is larger than the limit of {MAX_MODULE_BYTES} bytes")]
    TooLarge(u64),
    /// The compiler rejects it or has a fault of its own.
    #[error("cannot be compiled: {0}")]
    Compile(String),
    /// Compiling used up its CPU time, memory or space.
    #[error("compiling was given up: {0}")]
    CompileBudget(String),
    /// Imports what no node offers: the quoted names.
    #[error("imports {0}, which this node does not offer")]
    UnknownImport(String),
    /// An import or export has another type than WASI's.
    #[error("does not fit this node's interfaces: {0}")]
    Incompatible(String),
    /// Neither a command nor an HTTP handler.
    #[error("exports neither wasi:cli/run nor an HTTP handler; {}", exports(.0))]
    NoEntry(String),
    /// Both.
    #[error("exports both wasi:cli/run and an HTTP handler; a container runs one of them")]
    TwoWorlds,
    /// Built for another WASI.
    #[error("built for another WASI version than 0.2 and 0.3; it exports: {0}")]
    WasiVersion(String),
    /// The disk failed, or the compiler's process was killed from outside or not done in time; trying again may help.
    #[error("{0}")]
    Io(String),
}

impl LoadError {
    /// Whether the module itself is at fault, so that trying again is of no use.
    pub fn is_permanent(&self) -> bool {
        !matches!(self, LoadError::Io(_) | LoadError::DigestMismatch(_))
    }

    /// These imports are not on offer.
    pub(crate) fn missing(names: &[String]) -> LoadError {
        LoadError::UnknownImport(bounded(&names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")))
    }

    fn io(what: &str, path: &Path, error: impl std::fmt::Display) -> LoadError {
        LoadError::Io(bounded(&format!("{what} {}: {error}", path.display())))
    }
}

fn exports(names: &str) -> String {
    if names.is_empty() { "it exports nothing".into() } else { format!("it exports: {names}") }
}

/// What is known of one digest; whoever holds the lock loads it, the others wait.
#[derive(Default)]
pub(crate) struct Slot {
    state: tokio::sync::Mutex<SlotState>,
    compiling: watch::Sender<bool>,
}

impl Slot {
    /// Waits for its turn; `tell` is called if that takes a compilation.
    async fn lock(&self, tell: impl FnOnce()) -> MutexGuard<'_, SlotState> {
        if let Ok(state) = self.state.try_lock() {
            return state;
        }
        let mut compiling = self.compiling.subscribe();
        // What `wait_for` returns locks out the sender: it must not outlive this.
        let starts = async { compiling.wait_for(|compiling| *compiling).await.is_ok() };
        match futures::future::select(pin!(self.state.lock()), pin!(starts)).await {
            Either::Left((state, _)) => state,
            Either::Right((_, state)) => {
                tell();
                state.await
            }
        }
    }

    fn is_compiling(&self) -> bool {
        *self.compiling.borrow()
    }
}

#[derive(Default)]
struct SlotState {
    program: Weak<Program>,
    failure: Option<LoadError>,
}

/// What keeps a program from being there at once. Told as it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It is being compiled for another container, or others are compiled first.
    Waiting,
    /// It is being compiled.
    Compiling,
    /// It was compiled, in this time.
    Compiled(Duration),
}

impl Runtime {
    /// The program with this digest (`sha256:HEX`), compiled from `wasm_path` unless an artifact is at hand.
    ///
    /// However many ask, a module is compiled once. Faults of the module are remembered by digest.
    pub async fn load(self: &Arc<Self>, digest: &str, wasm_path: &Path) -> Result<Arc<Program>, LoadError> {
        self.load_telling(digest, wasm_path, &|_| {}).await
    }

    /// As [`Runtime::load`]; says meanwhile what it is waiting for.
    pub async fn load_telling(
        self: &Arc<Self>,
        digest: &str,
        wasm_path: &Path,
        tell: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Arc<Program>, LoadError> {
        let name = artifacts::name(&self.engine, digest)?;
        let slot = self.slot(digest);
        let mut state = slot.lock(|| tell(Progress::Waiting)).await;
        if let Some(program) = state.program.upgrade() {
            return Ok(program);
        }
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        let compiling = |progress| {
            slot.compiling.send_replace(!matches!(progress, Progress::Compiled(_)));
            tell(progress);
        };
        let loaded = self.load_uncached(digest, wasm_path, &self.config.cache_dir.join(name), &compiling).await;
        slot.compiling.send_replace(false);
        match &loaded {
            Ok(program) => state.program = Arc::downgrade(program),
            Err(error) if error.is_permanent() => state.failure = Some(error.clone()),
            Err(_) => {}
        }
        loaded
    }

    fn slot(&self, digest: &str) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if slots.len() >= MAX_SLOTS && !slots.contains_key(digest) {
            slots.retain(|_, slot| {
                let idle = slot.state.try_lock().is_ok_and(|state| state.program.strong_count() == 0);
                !(idle && Arc::strong_count(slot) == 1)
            });
        }
        slots.entry(digest.to_owned()).or_default().clone()
    }

    async fn load_uncached(
        self: &Arc<Self>,
        digest: &str,
        wasm: &Path,
        artifact: &Path,
        tell: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Arc<Program>, LoadError> {
        let component = match self.open(artifact, false).await? {
            Some(component) => component,
            None => {
                self.compile(wasm, artifact, tell).await?;
                let missing = || LoadError::io("artifact", artifact, "not what the compiler was to write");
                self.open(artifact, true).await?.ok_or_else(missing)?
            }
        };
        let (runtime, digest) = (self.clone(), digest.to_owned());
        let program = blocking(move || Program::link(&runtime, &digest, &component)).await??;
        Ok(Arc::new(program))
    }

    /// Maps an artifact; `None` if there is none or it is damaged or of another version. What cannot be mapped although
    /// it was made just now (`fresh`) is beyond the bounds of an instance.
    async fn open(&self, artifact: &Path, fresh: bool) -> Result<Option<Component>, LoadError> {
        let (engine, artifact) = (self.engine.clone(), artifact.to_owned());
        blocking(move || {
            let Ok(bytes) = std::fs::read(&artifact) else { return Ok(None) };
            if !artifacts::is_sealed(&bytes, &artifact) {
                tracing::warn!(artifact = %artifact.display(), "damaged artifact, compiling again");
                return Ok(None);
            }
            drop(bytes);
            artifacts::touch(&artifact);
            match deserialize(&engine, &artifact) {
                Ok(component) => Ok(Some(component)),
                Err(error) if fresh => Err(LoadError::Incompatible(bounded(&format!("{error:#}")))),
                Err(error) => {
                    tracing::warn!(artifact = %artifact.display(), "unusable artifact: {error:#}");
                    Ok(None)
                }
            }
        })
        .await?
    }

    async fn compile(
        self: &Arc<Self>,
        wasm: &Path,
        artifact: &Path,
        tell: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<(), LoadError> {
        let _slot = match self.compiling.try_acquire() {
            Ok(slot) => slot,
            Err(_) => {
                tell(Progress::Waiting);
                self.compiling.acquire().await.map_err(|error| LoadError::Io(error.to_string()))?
            }
        };
        let started = Instant::now();
        tell(Progress::Compiling);
        let temporary = TemporaryFile::beside(artifact);
        let (input, output) = (wasm.to_owned(), temporary.0.clone());
        match &self.config.compiler {
            Some(compiler) => {
                // What is wrong with the file is said better here than by a process.
                blocking(move || {
                    let bytes = read_module(&input)?;
                    check_digest(&bytes, &artifacts::digest_of(&output))?;
                    crate::wrap::check(&bytes)
                })
                .await??;
                child::run(compiler, wasm, &temporary.0).await?;
            }
            None => {
                let engine = self.engine.clone();
                blocking(move || compile_file(&engine, &input, &output)).await??;
            }
        }
        std::fs::rename(&temporary.0, artifact).map_err(|error| LoadError::io("keeping artifact", artifact, error))?;
        tell(Progress::Compiled(started.elapsed()));
        self.collect_artifacts(artifact).await;
        Ok(())
    }

    /// Removes artifacts beyond the limits, but those in use and the one just made.
    async fn collect_artifacts(&self, made: &Path) {
        let in_use = |slot: &Slot| slot.state.try_lock().is_ok_and(|state| state.program.strong_count() > 0);
        let mut used: HashSet<String> = {
            let slots = self.slots.lock();
            let digests = slots.iter().filter(|(_, slot)| slot.is_compiling() || in_use(slot));
            digests.filter_map(|(digest, _)| artifacts::name(&self.engine, digest).ok()).collect()
        };
        used.extend(made.file_name().and_then(|name| name.to_str()).map(str::to_owned));
        let (dir, limits) = (self.config.cache_dir.clone(), self.config.cache_limits);
        if let Ok(Err(error)) = blocking(move || collect(&dir, &used, limits)).await {
            tracing::warn!("old artifacts cannot be removed: {error}");
        }
    }
}

fn read_module(path: &Path) -> Result<Vec<u8>, LoadError> {
    let size = std::fs::metadata(path).map_err(|error| LoadError::io("module", path, error))?.len();
    if size > MAX_MODULE_BYTES {
        return Err(LoadError::TooLarge(size));
    }
    let bytes = std::fs::read(path).map_err(|error| LoadError::io("module", path, error))?;
    match bytes.get(..8) {
        Some([0, b'a', b's', b'm', 13, 0, 1, 0] | [0, b'a', b's', b'm', 1, 0, 0, 0]) => Ok(bytes),
        _ => {
            let first: Vec<String> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            Err(LoadError::NotWasm(if first.is_empty() { "none: the file is empty".into() } else { first.join(" ") }))
        }
    }
}

fn check_digest(bytes: &[u8], digest: &str) -> Result<(), LoadError> {
    match digest.strip_prefix("sha256:") {
        Some(hex) if hex == hex_digest(bytes) => Ok(()),
        _ => Err(LoadError::DigestMismatch(digest.to_owned())),
    }
}

fn hex_digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compiles the module at `input` into the artifact `output`, whose name says the module's digest.
fn compile_file(engine: &Engine, input: &Path, output: &Path) -> Result<(), LoadError> {
    let module = read_module(input)?;
    check_digest(&module, &artifacts::digest_of(output))?;
    let component = crate::wrap::component(&module)?;
    let code =
        engine.precompile_component(&component).map_err(|error| LoadError::Compile(bounded(&format!("{error:#}"))))?;
    artifacts::write(&code, output).map_err(|error| LoadError::io("writing artifact", output, error))
}

#[allow(unsafe_code, reason = "mapping native code is unsafe in wasmtime: it must trust whoever wrote the file")]
fn deserialize(engine: &Engine, artifact: &Path) -> wasmtime::Result<Component> {
    // SAFETY: the file was written by this node's compiler into a directory that only this user can enter, its
    // checksum was verified, it is never written again once renamed into place, and the engine checks that it was
    // compiled for this version and configuration.
    unsafe { Component::deserialize_file(engine, artifact) }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, LoadError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| LoadError::Io(bounded(&format!("node fault: {error}"))))
}

/// At most [`MAX_ERROR_BYTES`] of `text`, cut at a character.
pub(crate) fn bounded(text: &str) -> String {
    if text.len() <= MAX_ERROR_BYTES {
        return text.to_owned();
    }
    format!("{}...", text.get(..text.floor_char_boundary(MAX_ERROR_BYTES)).unwrap_or_default())
}
