//! `cargo xtask sim [--seeds N]`: more of the simulation's seeds than the tests run, for a night.

use std::path::Path;

use anyhow::Result;

use crate::{cmd, target_dir};

/// Simulates clusters of each kind, so many seeds of small ones and a hundredth of that of large ones; those that fail are
/// printed, each with the command that runs it again.
///
/// # Errors
/// It cannot be built, or a seed fails.
pub fn run(root: &Path, seeds: u64) -> Result<()> {
    for (part, seeds) in [("--skip=hundreds", seeds), ("hundreds", seeds.div_ceil(100))] {
        cmd::step(&format!("simulating clusters: {seeds} seeds of each kind"));
        let mut cargo = cmd::cargo();
        cargo.args(["test", "--locked", "--package", "copepod-sim", "--target-dir"]).arg(target_dir(root));
        cargo.args(["--", part, "--nocapture"]).env("COPEPOD_SIM_SEEDS", seeds.to_string()).current_dir(root);
        cmd::run(&mut cargo)?;
    }
    Ok(())
}
