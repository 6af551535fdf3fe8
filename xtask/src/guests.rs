//! Builds the wasm components of `examples/` and `tests/guests/`, each a workspace of its own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{cmd, target_dir, wasm_rust};

/// Where an example's YAML expects its component.
const EXAMPLES: [(&str, &str); 5] = [
    ("hello", "examples/hello/hello.wasm"),
    ("pair_writer", "examples/pair/pair-writer.wasm"),
    ("pair_reader", "examples/pair/pair-reader.wasm"),
    ("guestbook_frontend", "examples/guestbook/guestbook-frontend.wasm"),
    ("guestbook_backend", "examples/guestbook/guestbook-backend.wasm"),
];

/// Builds all guests; returns the folder that holds every component under its crate's name with `_` for `-`.
pub fn build(root: &Path) -> Result<PathBuf> {
    let rustc = wasm_rust::ensure(root)?;
    let out = target_dir(root).join("guests");
    std::fs::create_dir_all(&out)?;
    for workspace in ["examples", "tests/guests"] {
        cmd::step(&format!("building the components of {workspace}/"));
        let mut cargo = cmd::cargo();
        cargo.args(["build", "--release", "--locked", "--quiet", "--target", wasm_rust::TARGET]);
        cargo.arg("--target-dir").arg(target_dir(root).join("guests-build")).current_dir(root.join(workspace));
        // Meant for the host's programs, not for components.
        for host in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_TARGET"] {
            cargo.env_remove(host);
        }
        if let Some(rustc) = &rustc {
            cargo.env("RUSTC", rustc);
        }
        cmd::run(&mut cargo)?;
    }
    let built = target_dir(root).join("guests-build").join(wasm_rust::TARGET).join("release");
    for entry in std::fs::read_dir(&built).with_context(|| format!("no guests in {}", built.display()))? {
        let path = entry?.path();
        if let (Some("wasm"), Some(stem)) = (path.extension().and_then(|e| e.to_str()), path.file_stem()) {
            let name = stem.to_string_lossy().replace('-', "_");
            std::fs::copy(&path, out.join(format!("{name}.wasm")))?;
        }
    }
    for (name, place) in EXAMPLES {
        std::fs::copy(out.join(format!("{name}.wasm")), root.join(place))
            .with_context(|| format!("no component {name}"))?;
    }
    Ok(out)
}
