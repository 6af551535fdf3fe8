//! A loaded component, linked and classified: what a container runs.

use std::sync::Arc;

use wasmtime::component::Component;
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi::p3::bindings::CommandPre as CommandPreP3;
use wasmtime_wasi_http::handler::ProxyPre;
use wasmtime_wasi_http::p2::bindings::ProxyPre as ProxyPreP2;
use wasmtime_wasi_http::p3::bindings::ServicePre;

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
    /// Exports `wasi:http/incoming-handler` or, of WASI 0.3, `wasi:http/handler`: the node serves HTTP for it.
    Http,
}

/// A component ready to be instantiated, with all its imports resolved.
pub struct Program {
    digest: String,
    pub(crate) pre: Pre,
}

pub(crate) enum Pre {
    Command(CommandPre<GuestCtx>),
    CommandP3(CommandPreP3<GuestCtx>),
    Http(Arc<ProxyPre<GuestCtx>>),
}

impl Program {
    /// The digest it was loaded by.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// How it is run.
    pub fn kind(&self) -> Kind {
        match self.pre {
            Pre::Command(_) | Pre::CommandP3(_) => Kind::Command,
            Pre::Http(_) => Kind::Http,
        }
    }

    pub(crate) fn link(runtime: &Runtime, digest: &str, component: &Component) -> Result<Program, LoadError> {
        let engine = &runtime.engine;
        let ty = component.component_type();
        let missing = crate::imports::missing(engine, &ty);
        if !missing.is_empty() {
            return Err(LoadError::missing(&missing));
        }
        let exports: Vec<&str> = ty.exports(engine).map(|(name, _)| name).collect();
        let (kind, wasi) = classify(&exports)?;
        let incompatible = |error: wasmtime::Error| LoadError::Incompatible(bounded(&format!("{error:#}")));
        let pre = runtime.linker.instantiate_pre(component).map_err(incompatible)?;
        let pre = match (kind, wasi) {
            (Kind::Command, Wasi::P2) => CommandPre::new(pre).map(Pre::Command),
            (Kind::Command, Wasi::P3) => CommandPreP3::new(pre).map(Pre::CommandP3),
            (Kind::Http, Wasi::P2) => ProxyPreP2::new(pre).map(|pre| Pre::Http(Arc::new(ProxyPre::P2(pre)))),
            (Kind::Http, Wasi::P3) => ServicePre::new(pre).map(|pre| Pre::Http(Arc::new(ProxyPre::P3(pre)))),
        };
        Ok(Program { digest: digest.to_owned(), pre: pre.map_err(incompatible)? })
    }
}

/// The WASI that an entry point is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wasi {
    P2,
    P3,
}

/// Finds the entry point. Where there are two of one kind the newer WASI's is taken.
fn classify(exports: &[&str]) -> Result<(Kind, Wasi), LoadError> {
    let has = |interface: &str, series: &str| {
        let version = |name: &&str| name.strip_prefix(interface).map(str::to_owned);
        exports.iter().filter_map(version).any(|version| version.starts_with(series) && !version.contains('-'))
    };
    let newest = |p3: &str, p2: &str| match (has(p3, "0.3."), has(p2, "0.2.")) {
        (true, _) => Some(Wasi::P3),
        (false, true) => Some(Wasi::P2),
        (false, false) => None,
    };
    match (newest(RUN, RUN), newest(HANDLER_P3, INCOMING)) {
        (Some(wasi), None) => Ok((Kind::Command, wasi)),
        (None, Some(wasi)) => Ok((Kind::Http, wasi)),
        (Some(_), Some(_)) => Err(LoadError::TwoWorlds),
        (None, None)
            if [RUN, INCOMING, HANDLER_P3].iter().any(|at| exports.iter().any(|name| name.starts_with(at))) =>
        {
            Err(LoadError::WasiVersion(bounded(&exports.join(", "))))
        }
        (None, None) => Err(LoadError::NoEntry(bounded(&exports.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exports_decide_the_kind() {
        let named = |exports: &[&str]| match classify(exports) {
            Ok((kind, wasi)) => format!("{kind:?} {wasi:?}"),
            Err(error) => error.to_string(),
        };
        for (exports, expected) in [
            (&["wasi:cli/run@0.2.0"][..], "Command P2"),
            (&["acme:x/y", "wasi:http/incoming-handler@0.2.6"], "Http P2"),
            (&["wasi:cli/run@0.3.2"], "Command P3"),
            (&["wasi:http/handler@0.3.0"], "Http P3"),
            (&["wasi:cli/run@0.2.0", "wasi:cli/run@0.3.0"], "Command P3"),
            (&["wasi:cli/run@0.2.0", "wasi:http/incoming-handler@0.2.6"], "exports both"),
            (&["wasi:cli/run@0.3.0-rc-2025-09-16"], "WASI version"),
            (&["wasi:http/handler@0.4.0"], "WASI version"),
            (&["acme:x/y"], "it exports: acme:x/y"),
            (&[], "exports nothing"),
        ] {
            assert!(named(exports).contains(expected), "{exports:?}: {}", named(exports));
        }
    }
}
