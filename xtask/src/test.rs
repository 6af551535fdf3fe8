//! `cargo xtask test`: everything that the tests need, then all tests.

use std::path::Path;

use anyhow::Result;

use crate::wheels::clients;
use crate::{cmd, guests, kubectl, programs, target_dir};

/// Builds guests and binary, then runs every test with nextest if it is installed, else with cargo's own runner.
pub fn run(root: &Path, args: &[String]) -> Result<()> {
    let kubectl = kubectl::ensure(root)?;
    let clients = clients::ensure(root)?;
    let programs = programs::ensure(root)?;
    let guests = guests::build(root)?;
    let binary = binary(root)?;
    cmd::step("building and running the tests");
    let nextest = cmd::output(cmd::cargo().args(["nextest", "--version"])).is_ok();
    let mut tests = cmd::cargo();
    tests.args(if nextest { ["nextest", "run"].as_slice() } else { ["test", "--no-fail-fast"].as_slice() });
    tests.args(["--workspace", "--locked", "--target-dir"]).arg(target_dir(root)).args(args).current_dir(root);
    tests.env("COPEPOD_BIN", binary).env("COPEPOD_GUESTS", guests).env("KUBECTL", kubectl);
    if let Some(clients) = clients {
        tests.env("COPEPOD_CLIENTS", clients);
    }
    if let Some(programs) = programs {
        tests.env("COPEPOD_PROGRAMS", programs);
    }
    cmd::run(&mut tests)
}

/// Builds `copepod` in the profile that the tests share; returns its path.
pub fn binary(root: &Path) -> Result<std::path::PathBuf> {
    cmd::step("building copepod (a few minutes the first time)");
    let target = target_dir(root);
    let mut cargo = cmd::cargo();
    cargo.args(["build", "--locked", "--package", "copepod", "--target-dir"]).arg(&target).current_dir(root);
    cmd::run(&mut cargo)?;
    Ok(target.join("debug/copepod"))
}
