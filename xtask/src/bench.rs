//! `cargo xtask bench NAME`: measures the release build, side by side with a peer where there is one, and prints a
//! Markdown table. It reports times and asserts none; it fails only when something does not work at all.

mod cluster;
mod load;
mod peer;
mod process;
mod program;
mod report;
mod spine;
mod watch;

use std::path::Path;

use anyhow::{Result, bail};

/// Runs one benchmark by its name.
///
/// # Errors
/// The name is unknown, a tool cannot be had, or a part of the benchmark failed (the table says which).
pub fn run(root: &Path, name: &str) -> Result<()> {
    match name {
        "spine" => spine::run(root),
        other => bail!("no benchmark is called {other}: there is `spine`"),
    }
}
