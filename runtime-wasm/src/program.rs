//! A loaded component, linked and classified: what a container runs.

use wasmtime::component::Component;
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::compile::{LoadError, bounded};
use crate::ctx::GuestCtx;
use crate::engine::Runtime;

const RUN: &str = "wasi:cli/run@";
const INCOMING: &str = "wasi:http/incoming-handler@";
const HANDLER_P3: &str = "wasi:http/handler@";

/// How a component is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Exports `wasi:cli/run`: a process.
    Command,
    /// Exports `wasi:http/incoming-handler`: the node serves HTTP for it.
    Http,
}

/// A component ready to be instantiated, with all its imports resolved.
pub struct Program {
    digest: String,
    pub(crate) pre: Pre,
}

pub(crate) enum Pre {
    Command(CommandPre<GuestCtx>),
    Http(ProxyPre<GuestCtx>),
}

impl Program {
    /// The digest it was loaded by.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// How it is run.
    pub fn kind(&self) -> Kind {
        match self.pre {
            Pre::Command(_) => Kind::Command,
            Pre::Http(_) => Kind::Http,
        }
    }

    pub(crate) fn link(runtime: &Runtime, digest: &str, component: &Component) -> Result<Program, LoadError> {
        let engine = &runtime.engine;
        let ty = component.component_type();
        let pre = runtime.linker.instantiate_pre(component).map_err(|error| {
            let text = format!("{error:#}");
            match ty.imports(engine).map(|(name, _)| name).find(|name| text.contains(&format!("`{name}`"))) {
                Some(name) if text.contains("not found in the linker") => LoadError::UnknownImport(bounded(name)),
                _ => LoadError::Incompatible(bounded(&text)),
            }
        })?;
        let exports: Vec<&str> = ty.exports(engine).map(|(name, _)| name).collect();
        let kind = classify(&exports)?;
        let incompatible = |error: wasmtime::Error| LoadError::Incompatible(bounded(&format!("{error:#}")));
        let pre = match kind {
            Kind::Command => Pre::Command(CommandPre::new(pre).map_err(incompatible)?),
            Kind::Http => Pre::Http(ProxyPre::new(pre).map_err(incompatible)?),
        };
        Ok(Program { digest: digest.to_owned(), pre })
    }
}

fn classify(exports: &[&str]) -> Result<Kind, LoadError> {
    let exports_p2 = |interface: &str| {
        exports.iter().any(|name| name.strip_prefix(interface).is_some_and(|version| version.starts_with("0.2.")))
    };
    let exports_any = |interface: &str| exports.iter().any(|name| name.starts_with(interface));
    match (exports_p2(RUN), exports_p2(INCOMING)) {
        (true, false) => Ok(Kind::Command),
        (false, true) => Ok(Kind::Http),
        (true, true) => Err(LoadError::TwoWorlds),
        (false, false) if exports_any(RUN) || exports_any(INCOMING) || exports_any(HANDLER_P3) => {
            Err(LoadError::WasiVersion(bounded(&exports.join(", "))))
        }
        (false, false) => Err(LoadError::NoEntry(bounded(&exports.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_decide_the_kind() {
        let named = |exports: &[&str]| match classify(exports) {
            Ok(kind) => format!("{kind:?}"),
            Err(error) => error.to_string(),
        };
        for (exports, expected) in [
            (&["wasi:cli/run@0.2.0"][..], "Command"),
            (&["acme:x/y", "wasi:http/incoming-handler@0.2.6"], "Http"),
            (&["wasi:cli/run@0.2.0", "wasi:http/incoming-handler@0.2.6"], "exports both"),
            (&["wasi:cli/run@0.3.2"], "WASI version"),
            (&["wasi:http/handler@0.3.0"], "WASI version"),
            (&["acme:x/y"], "it exports: acme:x/y"),
            (&[], "exports nothing"),
        ] {
            assert!(named(exports).contains(expected), "{exports:?}: {}", named(exports));
        }
    }
}
