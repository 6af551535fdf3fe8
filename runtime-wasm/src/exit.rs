//! How containers end.

use std::sync::Arc;

use tokio::sync::watch;
use wasmtime_wasi::I32Exit;

use crate::compile::bounded;
use crate::ctx::StartBudget;
use crate::limits::OutOfMemory;

/// Exit code of a container that was killed or ran out of memory: 128 + SIGKILL.
pub const KILLED: i32 = 137;
/// Exit code of a container whose guest trapped: 128 + SIGABRT.
pub const TRAPPED: i32 = 134;
/// Exit code of a container that this node failed.
pub const NODE_FAULT: i32 = 128;
/// Frames of a trap's backtrace that are kept in its message.
const BACKTRACE_LINES: usize = 12;

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The guest's own exit code, or [`KILLED`], [`TRAPPED`], [`NODE_FAULT`].
    pub code: i32,
    /// What happened.
    pub reason: ExitReason,
    /// For users: a trap's cause and the first frames of its backtrace, the limit that was hit.
    pub message: Option<String>,
}

/// What ended a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitReason {
    /// The guest returned or exited with 0.
    Completed,
    /// The guest exited with another code, or the node failed it.
    Error,
    /// The guest wanted more memory than its limit, or its pod's.
    OutOfMemory,
    /// The guest was not instantiated: a start-up budget was used up, or the node is at its capacity of instances.
    NotStarted,
    /// The guest trapped.
    Trap,
    /// [`Container::kill`].
    Killed,
}

/// Instantiating took longer than it may, in seconds.
#[derive(Debug, thiserror::Error)]
#[error("start-up timeout: the instance was not ready after {0} s")]
pub(crate) struct StartTimeout(pub(crate) u64);

impl Exit {
    pub(crate) fn of_code(code: i32) -> Exit {
        let reason = if code == 0 { ExitReason::Completed } else { ExitReason::Error };
        Exit { code, reason, message: None }
    }

    pub(crate) fn killed() -> Exit {
        Exit { code: KILLED, reason: ExitReason::Killed, message: None }
    }

    pub(crate) fn out_of_memory(error: &OutOfMemory) -> Exit {
        Exit { code: KILLED, reason: ExitReason::OutOfMemory, message: Some(error.to_string()) }
    }

    fn not_started(why: String) -> Exit {
        Exit { code: NODE_FAULT, reason: ExitReason::NotStarted, message: Some(why) }
    }

    pub(crate) fn node_fault(what: &str) -> Exit {
        Exit { code: NODE_FAULT, reason: ExitReason::Error, message: Some(format!("node fault: {what}")) }
    }

    /// What an error out of a guest's call means.
    pub(crate) fn of_error(error: &wasmtime::Error) -> Exit {
        if let Some(I32Exit(code)) = error.downcast_ref() {
            return Exit::of_code(*code);
        }
        if let Some(memory) = error.downcast_ref::<OutOfMemory>() {
            return Exit::out_of_memory(memory);
        }
        if let Some(limit) = error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>() {
            return Exit::not_started(format!("node is at capacity: {limit}"));
        }
        if is_refused_memory(error) {
            return Exit::not_started(format!("node is at capacity: the machine refuses memory: {error:#}"));
        }
        if error.is::<StartBudget>() || error.is::<StartTimeout>() {
            return Exit::not_started(error.root_cause().to_string());
        }
        let mut message = error.root_cause().to_string();
        if let Some(backtrace) = error.downcast_ref::<wasmtime::WasmBacktrace>() {
            for line in backtrace.to_string().lines().take(BACKTRACE_LINES) {
                message.push('\n');
                message.push_str(line);
            }
        }
        Exit { code: TRAPPED, reason: ExitReason::Trap, message: Some(bounded(&message)) }
    }
}

/// Whether the machine refused to map memory for an instance: it ran out of it, of address space or of mappings.
fn is_refused_memory(error: &wasmtime::Error) -> bool {
    error.chain().any(|cause| {
        let errno = cause.downcast_ref::<rustix::io::Errno>().copied();
        let system = cause.downcast_ref::<std::io::Error>().and_then(rustix::io::Errno::from_io_error);
        errno.or(system) == Some(rustix::io::Errno::NOMEM)
    })
}

/// Where a container's end is announced; the first end counts.
#[derive(Clone)]
pub(crate) struct Ending(Arc<watch::Sender<Option<Exit>>>);

impl Ending {
    pub(crate) fn new() -> (Ending, watch::Receiver<Option<Exit>>) {
        let (sender, receiver) = watch::channel(None);
        (Ending(Arc::new(sender)), receiver)
    }

    pub(crate) fn end(&self, exit: Exit) {
        self.0.send_if_modified(|ended| {
            let first = ended.is_none();
            if first {
                *ended = Some(exit);
            }
            first
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_memory_is_no_trap() {
        let out: std::io::Error = rustix::io::Errno::NOMEM.into();
        let exit = Exit::of_error(&wasmtime::Error::from(out).context("mmap failed"));
        assert_eq!((exit.code, exit.reason), (NODE_FAULT, ExitReason::NotStarted));
        assert!(exit.message.unwrap().starts_with("node is at capacity: the machine refuses memory: mmap failed"));
        let other: std::io::Error = rustix::io::Errno::NOENT.into();
        assert_eq!(Exit::of_error(&wasmtime::Error::from(other)).reason, ExitReason::Trap);
    }
}
