//! The compiler's process: its limits, and what its end means.

use std::io::Write;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use wasmtime::Engine;

use super::{LoadError, MAX_ERROR_BYTES, bounded};
use crate::engine::{Compiler, engine_config};

/// Wall time after which a compilation is given up.
pub const COMPILE_TIMEOUT: Duration = Duration::from_secs(600);
/// CPU seconds the compiler's process may use.
pub const COMPILE_CPU_SECONDS: u64 = 900;
/// Address space the compiler's process may use, in bytes.
pub const COMPILE_MEMORY: u64 = 8 << 30;
/// Largest artifact, in bytes.
pub const MAX_ARTIFACT_BYTES: u64 = 2 << 30;
/// CPU seconds between being told that the time is up and being killed.
const CPU_SECONDS_TO_END: u64 = 5;
/// The compiler's process ends with this if the module is at fault.
const EXIT_MODULE: i32 = 1;
/// The compiler's process ends with this if the disk or this machine is at fault.
const EXIT_IO: i32 = 2;

/// What the compiler's process does: limits itself, compiles the module at `input`, which must have the digest that the
/// name of the artifact `output` says, and writes that. Returns the exit code: 0, or with the reason on standard error
/// 1 if the module is at fault, 2 if the disk is.
pub fn child_main(input: &Path, output: &Path) -> i32 {
    limit_this_process();
    let compiled = Engine::new(&engine_config())
        .map_err(|error| LoadError::Io(bounded(&format!("{error:#}"))))
        .and_then(|engine| super::compile_file(&engine, input, output));
    let (code, reason) = match compiled {
        Ok(()) => return 0,
        Err(LoadError::Compile(reason)) => (EXIT_MODULE, reason),
        Err(LoadError::Io(reason)) => (EXIT_IO, reason),
        Err(error) if error.is_permanent() => (EXIT_MODULE, error.to_string()),
        Err(error) => (EXIT_IO, error.to_string()),
    };
    let _ = writeln!(std::io::stderr(), "{reason}");
    code
}

fn limit_this_process() {
    use rustix::process::{Resource, Rlimit, nice, setrlimit};
    let cpu = (COMPILE_CPU_SECONDS, COMPILE_CPU_SECONDS + CPU_SECONDS_TO_END);
    for (resource, (current, maximum)) in [
        (Resource::As, (COMPILE_MEMORY, COMPILE_MEMORY)),
        (Resource::Cpu, cpu),
        (Resource::Fsize, (MAX_ARTIFACT_BYTES, MAX_ARTIFACT_BYTES)),
        (Resource::Core, (0, 0)),
    ] {
        // A stricter limit that is already there stays.
        let _ = setrlimit(resource, Rlimit { current: Some(current), maximum: Some(maximum) });
    }
    let _ = nice(10);
}

/// Has a process compile the module at `input` into `output`.
pub(super) async fn run(compiler: &Compiler, input: &Path, output: &Path) -> Result<(), LoadError> {
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
    use std::os::unix::process::ExitStatusExt;

    use rustix::process::Signal;
    let Some(status) = status else {
        let why = format!("compiling was given up: not done after {} s", COMPILE_TIMEOUT.as_secs());
        return Err(LoadError::Io(why));
    };
    let budget = |why: String| Err(LoadError::CompileBudget(why));
    match (status.code(), status.signal().and_then(Signal::from_named_raw)) {
        (Some(0), _) => Ok(()),
        (Some(EXIT_MODULE), _) => Err(LoadError::Compile(bounded(text))),
        (Some(EXIT_IO), _) => Err(LoadError::Io(bounded(text))),
        (Some(_), _) => Err(LoadError::Compile(bounded(format!("compiler ended with {status} {text}").trim()))),
        (None, Some(Signal::XCPU)) => budget(format!("it takes more than {COMPILE_CPU_SECONDS} s of CPU time")),
        (None, Some(Signal::XFSZ)) => budget(format!("its code takes more than {MAX_ARTIFACT_BYTES} bytes")),
        (None, Some(Signal::ABORT)) if text.contains("memory allocation of") => {
            budget(format!("it takes more than {COMPILE_MEMORY} bytes of memory"))
        }
        (None, _) => {
            let why = "the node is short of memory, or somebody ended it";
            Err(LoadError::Io(bounded(format!("compiler was killed ({status}): {why} {text}").trim())))
        }
    }
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
            (killed(6), "assertion failed", false, "assertion failed"),
            (killed(6), "memory allocation of 8 bytes failed", true, "it takes more than 8589934592 bytes of memory"),
            (killed(24), "", true, "compiling was given up: it takes more than 900 s of CPU time"),
            (killed(25), "", true, "its code takes more than 2147483648 bytes"),
            (None, "", false, "not done after 600 s"),
        ] {
            let error = judge(status, text).unwrap_err();
            assert_eq!(error.is_permanent(), permanent, "{error}");
            assert!(error.to_string().contains(words), "{error} lacks {words:?}");
        }
        assert_eq!(judge(exited(0), ""), Ok(()));
    }
}
