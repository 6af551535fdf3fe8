//! Guests in C and in Python, for the tests of `runtime-wasm/tests/foreign.rs`: too heavy to build for every commit
//! (120 MB of compilers, half a gigabyte of memory and a minute for Python).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{cmd, target_dir, wasm_rust, wheels};

/// clang, with wasi-libc's headers.
const ZIG: &str = "ziglang==0.17.0";
/// Builds components of Python programs, with CPython in them.
const COMPONENTIZE: &str = "componentize-py==0.25.1";
/// What a command in Python is; its definition is in the crate wasip2, which guests in Rust have.
const WORLD: &str = "wasi:cli/command@0.2.12";

/// Builds the guests from `tests/foreign`, then runs their tests.
pub fn run(root: &Path) -> Result<()> {
    let guests = target_dir(root).join("guests");
    std::fs::create_dir_all(&guests)?;
    let rustc = wasm_rust::ensure(root)?.unwrap_or_else(|| PathBuf::from("rustc"));
    let tools = target_dir(root).join("tools/foreign");
    cmd::step("compilers for C and Python from registry packages (120 MB the first time)");
    wheels::libraries(&[ZIG, COMPONENTIZE], &tools)?;
    c(root, &tools, &rustc, &guests.join("net_c.wasm"))?;
    python_component(root, &tools, &guests.join("net_python.wasm"))?;
    let mut tests = cmd::cargo();
    tests.args(["test", "--package", "copepod-runtime", "--locked", "--test", "foreign", "--target-dir"]);
    tests.arg(target_dir(root)).args(["--", "--ignored"]).current_dir(root).env("COPEPOD_GUESTS", guests);
    cmd::run(&mut tests)
}

/// Compiles C with zig's clang and links it with the C library of Rust's std, which has sockets.
fn c(root: &Path, tools: &Path, rustc: &Path, to: &Path) -> Result<()> {
    cmd::step("building the guest in C");
    let object = tools.join("net.o");
    let mut zig = python(tools, "import ziglang.__main__");
    zig.args(["cc", "-target", "wasm32-wasi", "-D__wasilibc_use_wasip2", "-Os", "-Wall", "-Wextra", "-Werror", "-c"]);
    cmd::run(zig.arg(root.join("tests/foreign/net.c")).arg("-o").arg(&object))?;
    // rustc knows its linker, its C library and what else it takes: main is the C program's.
    let empty = tools.join("empty.rs");
    std::fs::write(&empty, "#![no_main]\n")?;
    let mut link = Command::new(rustc);
    link.args(["--target", wasm_rust::TARGET, "-C", "panic=abort", "-C", "strip=symbols"]);
    link.arg("-C").arg(format!("link-arg={}", object.display())).arg(empty).arg("-o").arg(to);
    cmd::run(&mut link)
}

fn python_component(root: &Path, tools: &Path, to: &Path) -> Result<()> {
    cmd::step("building the guest in Python (a minute)");
    let mut metadata = cmd::cargo();
    metadata.args(["metadata", "--format-version=1", "--locked"]).current_dir(root.join("tests/guests"));
    let metadata: serde_json::Value = serde_json::from_str(&cmd::output(&mut metadata)?)?;
    let packages = metadata.pointer("/packages").and_then(|packages| packages.as_array());
    let wasip2 = packages.into_iter().flatten().find(|package| package["name"] == "wasip2");
    let manifest =
        wasip2.and_then(|package| package["manifest_path"].as_str()).context("no guest uses the crate wasip2")?;
    let mut build = python(tools, "import componentize_py; componentize_py.script()");
    build.arg("--wit-path").arg(Path::new(manifest).with_file_name("wit")).args(["--world", WORLD, "componentize"]);
    build.arg("--python-path").arg(root.join("tests/foreign")).arg("net").arg("--output").arg(to);
    cmd::run(&mut build)
}

/// Runs a tool that is installed as a Python library.
fn python(tools: &Path, entry: &str) -> Command {
    let mut python = Command::new("python3");
    python.args(["-c", entry]).env("PYTHONPATH", tools);
    python
}
