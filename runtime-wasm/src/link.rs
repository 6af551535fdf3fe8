//! What guests may import: each WASI interface by name, nothing by accident.

use wasmtime::Engine;
use wasmtime::component::Linker;
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView as _};
use wasmtime_wasi::p2::bindings::{cli, clocks, random};
use wasmtime_wasi::random::{WasiRandom, WasiRandomView as _};
use wasmtime_wasi_config::WasiConfig;

use crate::ctx::GuestCtx;

/// A linker with every interface that [`crate::imports`] names: wasi:io, cli, clocks, random, filesystem, sockets and
/// http 0.2; all of these but io 0.3; config and logging. Filesystem, sockets and logging are Copepod's own; the
/// rest is wasmtime's.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<GuestCtx>> {
    let mut linker = Linker::new(engine);
    let l = &mut linker;
    wasmtime_wasi_io::add_to_linker_async(l)?;
    clocks::wall_clock::add_to_linker::<_, WasiClocks>(l, GuestCtx::clocks)?;
    clocks::monotonic_clock::add_to_linker::<_, WasiClocks>(l, GuestCtx::clocks)?;
    random::random::add_to_linker::<_, WasiRandom>(l, |ctx: &mut GuestCtx| ctx.random())?;
    random::insecure::add_to_linker::<_, WasiRandom>(l, |ctx: &mut GuestCtx| ctx.random())?;
    random::insecure_seed::add_to_linker::<_, WasiRandom>(l, |ctx: &mut GuestCtx| ctx.random())?;
    cli::environment::add_to_linker::<_, WasiCli>(l, GuestCtx::cli)?;
    cli::exit::add_to_linker::<_, WasiCli>(l, GuestCtx::cli)?;
    cli::stdin::add_to_linker::<_, WasiCli>(l, GuestCtx::cli)?;
    cli::stdout::add_to_linker::<_, WasiCli>(l, GuestCtx::cli)?;
    cli::stderr::add_to_linker::<_, WasiCli>(l, GuestCtx::cli)?;
    cli::terminal_input::add_to_linker::<_, WasiCli>(l, GuestCtx::cli)?;
    cli::terminal_output::add_to_linker::<_, WasiCli>(l, GuestCtx::cli)?;
    cli::terminal_stdin::add_to_linker::<_, WasiCli>(l, GuestCtx::cli)?;
    cli::terminal_stdout::add_to_linker::<_, WasiCli>(l, GuestCtx::cli)?;
    cli::terminal_stderr::add_to_linker::<_, WasiCli>(l, GuestCtx::cli)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(l)?;
    crate::filesystem::add_to_linker(l)?;
    crate::sockets::add_to_linker(l)?;
    crate::filesystem::p3::add_to_linker(l)?;
    crate::sockets::p3::add_to_linker(l)?;
    wasmtime_wasi::p3::cli::add_to_linker(l)?;
    wasmtime_wasi::p3::clocks::add_to_linker(l)?;
    wasmtime_wasi::p3::random::add_to_linker(l)?;
    wasmtime_wasi_http::p3::add_to_linker(l)?;
    wasmtime_wasi_config::add_to_linker(l, |ctx| WasiConfig::from(&*ctx.config))?;
    crate::logging::add_to_linker(l)?;
    Ok(linker)
}

#[cfg(test)]
mod tests {
    use wasmtime::component::Component;

    use super::*;

    #[test]
    fn every_name_on_offer_is_linked() {
        let engine = Engine::new(&crate::engine::engine_config()).unwrap();
        let linker = linker(&engine).unwrap();
        for name in crate::imports::offered() {
            let component = |export: &str| {
                let text = format!(r#"(component (import "{name}" (instance {export})))"#);
                linker.instantiate_pre(&Component::new(&engine, wat::parse_str(text).unwrap()).unwrap()).map(drop)
            };
            component("").unwrap();
            let error = format!("{:#}", component(r#"(export "no-such" (func))"#).unwrap_err());
            assert!(error.contains("no-such"), "{name}: {error}");
        }
    }
}
