//! `cargo xtask sim [--seeds N]`: more of the simulation's seeds than the tests run, for a night.

use std::path::Path;

use anyhow::Result;

use crate::{cmd, target_dir};

/// Simulates the small clusters of so many seeds; those that fail are printed, each with the command that runs it again.
///
/// # Errors
/// It cannot be built, or a seed fails.
pub fn run(root: &Path, seeds: u64) -> Result<()> {
    cmd::step(&format!("simulating {seeds} small clusters"));
    let mut cargo = cmd::cargo();
    cargo.args(["test", "--locked", "--package", "copepod-sim", "--target-dir"]).arg(target_dir(root));
    cargo.args(["small_clusters", "--", "--nocapture"]).env("COPEPOD_SIM_SEEDS", seeds.to_string()).current_dir(root);
    cmd::run(&mut cargo)
}
