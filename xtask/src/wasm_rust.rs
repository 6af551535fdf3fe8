//! A Rust compiler with std for wasm32-wasip2: rustup's target, or a private one from Debian's packages.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cmd;

/// The guests' target.
pub const TARGET: &str = "wasm32-wasip2";
/// How long `rustup target add` may take before the fallback is tried.
const RUSTUP_LIMIT: Duration = Duration::from_secs(120);

/// Returns the `RUSTC` to build guests with; `None` for the ordinary one.
///
/// # Errors
/// Neither rustup nor Debian's mirror gave a standard library for the target.
pub fn ensure(root: &Path) -> Result<Option<PathBuf>> {
    let rustc = std::env::var_os("RUSTC").map_or_else(|| PathBuf::from("rustc"), PathBuf::from);
    if has_target(&rustc) {
        return Ok(None);
    }
    let private = crate::target_dir(root).join("tools/wasm-rust");
    let private_rustc = private.join("bin/rustc");
    if has_target(&private_rustc) {
        return Ok(Some(private_rustc));
    }
    cmd::step(&format!("rustup target add {TARGET}"));
    if cmd::try_within(Command::new("rustup").args(["target", "add", TARGET]), RUSTUP_LIMIT) && has_target(&rustc) {
        return Ok(None);
    }
    cmd::step("rustup cannot get the target; fetching a private Rust for guests from Debian's mirror (about 190 MB)");
    cmd::run(Command::new("bash").arg(root.join("xtask/get-wasm-rust.sh")).arg(&private))
        .context("no Rust standard library for wasm32-wasip2: run `rustup target add wasm32-wasip2` yourself")?;
    if !has_target(&private_rustc) {
        bail!("{} does not know the target {TARGET}", private_rustc.display());
    }
    Ok(Some(private_rustc))
}

/// Whether this rustc comes with a standard library for the target.
fn has_target(rustc: &Path) -> bool {
    let dir = cmd::output(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]));
    let Ok(dir) = dir else { return false };
    std::fs::read_dir(dir.trim()).is_ok_and(|entries| {
        entries.flatten().any(|e| {
            let name = e.file_name().to_string_lossy().into_owned();
            name.starts_with("libstd-") && name.ends_with(".rlib")
        })
    })
}
