//! From a `.wasm` file to a [`Program`]: compiled once per digest by a limited process, kept as a private artifact.
//!
//! An artifact is native code that this process will run. It is trusted because this node made it, because only this
//! user can write the directory, and because its checksum is verified before it is mapped.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Weak};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::engine::{Compiler, Runtime, engine_config};
use crate::program::Program;

/// Most compilations at once on a node.
pub const MAX_COMPILES: usize = 2;
/// Wall time after which a compilation is given up.
pub const COMPILE_TIMEOUT: Duration = Duration::from_secs(600);
/// CPU seconds the compiler's process may use.
pub const COMPILE_CPU_SECONDS: u64 = 900;
/// Address space the compiler's process may use, in bytes.
pub const COMPILE_MEMORY: u64 = 8 << 30;
/// Largest module that is compiled, in bytes.
pub const MAX_MODULE_BYTES: u64 = 256 << 20;
/// Longest error text passed on, in bytes.
pub const MAX_ERROR_BYTES: usize = 2048;
/// Loaded programs and remembered failures kept in memory; those in use are not counted out.
const MAX_SLOTS: usize = 1024;
/// Ends every artifact, after the SHA-256 of all that is before.
const SEAL: &[u8; 8] = b"cpodaot1";
const SEAL_BYTES: usize = 32 + SEAL.len();
/// The compiler's process ends with this if the module is at fault.
const EXIT_MODULE: i32 = 1;
/// The compiler's process ends with this if the disk or this machine is at fault.
const EXIT_IO: i32 = 2;
/// How unfinished artifacts' names end.
const UNFINISHED: &str = "tmp";

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
    /// The disk failed, or the compiler's process was killed or not done in time; trying again may help.
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
pub(crate) struct Slot(tokio::sync::Mutex<SlotState>);

#[derive(Default)]
struct SlotState {
    program: Weak<Program>,
    failure: Option<LoadError>,
}

impl Runtime {
    /// The program with this digest (`sha256:HEX`), compiled from `wasm_path` unless an artifact is at hand.
    ///
    /// However many ask, a module is compiled once. Faults of the module are remembered by digest.
    pub async fn load(self: &Arc<Self>, digest: &str, wasm_path: &Path) -> Result<Arc<Program>, LoadError> {
        let name = artifact_name(&self.engine, digest)?;
        let slot = self.slot(digest);
        let mut state = slot.0.lock().await;
        if let Some(program) = state.program.upgrade() {
            return Ok(program);
        }
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        let loaded = self.load_uncached(digest, wasm_path, &self.config.cache_dir.join(name)).await;
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
                let idle = slot.0.try_lock().is_ok_and(|state| state.program.strong_count() == 0);
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
    ) -> Result<Arc<Program>, LoadError> {
        let component = match self.open(artifact, false).await? {
            Some(component) => component,
            None => {
                self.compile(digest, wasm, artifact).await?;
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
            if !is_sealed(&bytes) {
                tracing::warn!(artifact = %artifact.display(), "damaged artifact, compiling again");
                return Ok(None);
            }
            drop(bytes);
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

    async fn compile(&self, digest: &str, wasm: &Path, artifact: &Path) -> Result<(), LoadError> {
        let _slot = self.compiling.acquire().await.map_err(|error| LoadError::Io(error.to_string()))?;
        let temporary = TemporaryFile::beside(artifact);
        let (engine, input, expected) = (self.engine.clone(), wasm.to_owned(), digest.to_owned());
        match &self.config.compiler {
            Some(compiler) => {
                blocking(move || {
                    let bytes = read_module(&input)?;
                    check_digest(&bytes, &expected)?;
                    crate::wrap::check(&bytes)
                })
                .await??;
                run_compiler(compiler, wasm, &temporary.0).await?;
            }
            None => {
                let output = temporary.0.clone();
                blocking(move || {
                    let bytes = read_module(&input)?;
                    check_digest(&bytes, &expected)?;
                    write_artifact(&engine, &bytes, &output)
                })
                .await??;
            }
        }
        std::fs::rename(&temporary.0, artifact).map_err(|error| LoadError::io("keeping artifact", artifact, error))
    }
}

/// What the compiler's process does: limits itself, compiles the module at `input` and writes the artifact `output`.
/// Returns the exit code: 0, or with the reason on standard error 1 if the module is at fault, 2 if the disk is.
pub fn child_main(input: &Path, output: &Path) -> i32 {
    limit_this_process();
    let compiled = Engine::new(&engine_config())
        .map_err(|error| LoadError::Io(bounded(&format!("{error:#}"))))
        .and_then(|engine| write_artifact(&engine, &read_module(input)?, output));
    let (code, reason) = match compiled {
        Ok(()) => return 0,
        Err(LoadError::Compile(reason)) => (EXIT_MODULE, reason),
        Err(LoadError::Io(reason)) => (EXIT_IO, reason),
        Err(error) => (EXIT_MODULE, error.to_string()),
    };
    let _ = writeln!(std::io::stderr(), "{reason}");
    code
}

/// Removes artifacts that an earlier process left unfinished in the artifact directory.
pub(crate) fn remove_unfinished(cache_dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(cache_dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == UNFINISHED) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn limit_this_process() {
    use rustix::process::{Resource, Rlimit, nice, setrlimit};
    let limit = |value| Rlimit { current: Some(value), maximum: Some(value) };
    for (resource, value) in [(Resource::As, COMPILE_MEMORY), (Resource::Cpu, COMPILE_CPU_SECONDS), (Resource::Core, 0)]
    {
        // A stricter limit that is already there stays.
        let _ = setrlimit(resource, limit(value));
    }
    let _ = nice(10);
}

async fn run_compiler(compiler: &Compiler, input: &Path, output: &Path) -> Result<(), LoadError> {
    let failed = |error: std::io::Error| LoadError::io("compiler", &compiler.program, error);
    let mut child = tokio::process::Command::new(&compiler.program)
        .args(&compiler.args)
        .arg(input)
        .arg(output)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let stderr = child.stderr.take();
    let run = async {
        let mut text = Vec::new();
        if let Some(stderr) = stderr {
            let mut stderr = stderr.take(MAX_ERROR_BYTES as u64);
            let _ = stderr.read_to_end(&mut text).await;
            let _ = tokio::io::copy(&mut stderr.into_inner(), &mut tokio::io::sink()).await;
        }
        (child.wait().await, text)
    };
    let Ok((status, text)) = tokio::time::timeout(COMPILE_TIMEOUT, run).await else {
        return judge(None, "");
    };
    judge(Some(status.map_err(failed)?), String::from_utf8_lossy(&text).trim())
}

/// What the end of the compiler's process means; without a status it was not done in time.
fn judge(status: Option<ExitStatus>, text: &str) -> Result<(), LoadError> {
    let Some(status) = status else {
        let why = format!("compiling was given up: not done after {} s", COMPILE_TIMEOUT.as_secs());
        return Err(LoadError::Io(why));
    };
    match status.code() {
        Some(0) => Ok(()),
        Some(EXIT_MODULE) => Err(LoadError::Compile(bounded(text))),
        Some(EXIT_IO) => Err(LoadError::Io(bounded(text))),
        Some(_) => Err(LoadError::Compile(bounded(format!("compiler ended with {status} {text}").trim()))),
        None => {
            let why = "the node is short of memory, or the module takes more memory or CPU time than a compilation may";
            Err(LoadError::Io(bounded(format!("compiler was killed ({status}): {why} {text}").trim())))
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

fn write_artifact(engine: &Engine, module: &[u8], output: &Path) -> Result<(), LoadError> {
    let component = crate::wrap::component(module)?;
    let code =
        engine.precompile_component(&component).map_err(|error| LoadError::Compile(bounded(&format!("{error:#}"))))?;
    let written = (|| {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(output)?;
        file.write_all(&code)?;
        file.write_all(&Sha256::digest(&code))?;
        file.write_all(SEAL)
    })();
    written.map_err(|error: std::io::Error| LoadError::io("writing artifact", output, error))
}

fn is_sealed(bytes: &[u8]) -> bool {
    let Some((code, seal)) = bytes.len().checked_sub(SEAL_BYTES).and_then(|at| bytes.split_at_checked(at)) else {
        return false;
    };
    seal.split_at_checked(32).is_some_and(|(sum, mark)| mark == SEAL && sum == Sha256::digest(code).as_slice())
}

#[allow(unsafe_code, reason = "mapping native code is unsafe in wasmtime: it must trust whoever wrote the file")]
fn deserialize(engine: &Engine, artifact: &Path) -> wasmtime::Result<Component> {
    // SAFETY: the file was written by this node's compiler into a directory that only this user can enter, its
    // checksum was verified, it is never written again once renamed into place, and the engine checks that it was
    // compiled for this version and configuration.
    unsafe { Component::deserialize_file(engine, artifact) }
}

/// `HEX-COMPATIBILITY.cwasm`: another engine version or CPU finds other files.
fn artifact_name(engine: &Engine, digest: &str) -> Result<String, LoadError> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let hex = digest.strip_prefix("sha256:").filter(|hex| hex.len() == 64);
    let hex = hex.filter(|hex| hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    let hex = hex.ok_or_else(|| LoadError::BadDigest(bounded(digest)))?;
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    Ok(format!("{hex}-{:016x}.cwasm", hasher.finish()))
}

/// Removed when dropped, unless renamed before.
struct TemporaryFile(PathBuf);

impl TemporaryFile {
    fn beside(path: &Path) -> TemporaryFile {
        TemporaryFile(path.with_extension(format!("{:016x}.{UNFINISHED}", rand::random::<u64>())))
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
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

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn only_the_modules_faults_are_permanent() {
        let exited = |code: i32| Some(ExitStatus::from_raw(code << 8));
        let killed = |signal: i32| Some(ExitStatus::from_raw(signal));
        for (status, text, permanent, words) in [
            (exited(1), "unknown opcode", true, "cannot be compiled: unknown opcode"),
            (exited(101), "it panicked", true, "exit status: 101 it panicked"),
            (exited(2), "writing artifact /x: No space left on device", false, "No space left on device"),
            (killed(9), "", false, "compiler was killed (signal: 9"),
            (killed(6), "memory allocation failed", false, "short of memory"),
            (None, "", false, "not done after 600 s"),
        ] {
            let error = judge(status, text).unwrap_err();
            assert_eq!(error.is_permanent(), permanent, "{error}");
            assert!(error.to_string().contains(words), "{error} lacks {words:?}");
        }
        assert_eq!(judge(exited(0), ""), Ok(()));
    }

    #[test]
    fn unfinished_artifacts_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let artifact = dir.path().join("aa-01.cwasm");
        let unfinished = TemporaryFile::beside(&artifact);
        for path in [&artifact, &unfinished.0] {
            std::fs::write(path, "x").unwrap();
        }
        remove_unfinished(dir.path()).unwrap();
        assert!(artifact.exists() && !unfinished.0.exists());
    }
}
