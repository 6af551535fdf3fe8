//! wasi:logging: what a guest logs is a line of its standard error.

use tokio::io::AsyncWriteExt;
use wasmtime::component::{ComponentType, Lift, Linker};

use crate::ctx::GuestCtx;

/// The draft, and the same without a version, as the first toolchains had it.
const NAMES: [&str; 2] = ["wasi:logging/logging@0.1.0-draft", "wasi:logging/logging"];

#[derive(Debug, Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[allow(dead_code, reason = "made by guests")]
enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
    #[component(name = "critical")]
    Critical,
}

/// Links `log`: it waits for the log's writer as a write to standard error does.
pub(crate) fn add_to_linker(linker: &mut Linker<GuestCtx>) -> wasmtime::Result<()> {
    for name in NAMES {
        linker.instance(name)?.func_wrap_async(
            "log",
            |store, (level, context, message): (Level, String, String)| {
                let mut stderr = store.data().stderr.clone();
                Box::new(async move {
                    // A lost log is not the guest's affair.
                    let _ = stderr.write_all(line(level, &context, &message).as_bytes()).await;
                    Ok(())
                })
            },
        )?;
    }
    Ok(())
}

fn line(level: Level, context: &str, message: &str) -> String {
    let level = match level {
        Level::Trace => "TRACE",
        Level::Debug => "DEBUG",
        Level::Info => "INFO",
        Level::Warn => "WARN",
        Level::Error => "ERROR",
        Level::Critical => "CRITICAL",
    };
    let colon = if context.is_empty() { "" } else { ": " };
    format!("{level} {context}{colon}{message}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        assert_eq!(line(Level::Warn, "db", "slow"), "WARN db: slow\n");
        assert_eq!(line(Level::Critical, "", "gone"), "CRITICAL gone\n");
    }
}
