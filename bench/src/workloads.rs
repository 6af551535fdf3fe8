//! `cargo xtask bench workloads`: controllers and the scheduler.

use anyhow::{Result, ensure};

use crate::{Tools, report, scheduler};

/// Measures, prints the tables.
///
/// # Errors
/// A part failed; its heading says so.
pub fn run(tools: &Tools, only: &str) -> Result<()> {
    println!("{}\n", report::about("workloads", &tools.copepod, "no peer")?);
    let mut failed = Vec::new();
    let mut part = |name: &'static str, measure: &dyn Fn() -> Result<String>| {
        if !name.to_lowercase().contains(&only.to_lowercase()) {
            return;
        }
        match measure() {
            Ok(text) => println!("## {name}\n\n{text}"),
            Err(error) => {
                println!("## {name}\n\nfailed: {error:#}\n");
                failed.push(name);
            }
        }
    };
    part("Scheduler", &scheduler::run);
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}
