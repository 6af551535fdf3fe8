//! hostPath volumes: a directory or file of this machine, checked and made as its type says.

use std::path::{Component, Path};
use std::sync::Arc;

use copepod_runtime::vfs::{HostDir, Node};

use crate::runtime::HostKind;

/// Opens what is at `path`; `hidden` are directories that no guest may enter. Waits for the disk.
///
/// # Errors
/// What the machine says, or that something else is there than `kind` asks for.
pub fn open(path: &Path, kind: HostKind, hidden: &[&Path]) -> Result<Arc<dyn Node>, String> {
    let shown = path.display();
    let failed = |error: std::io::Error| format!("hostPath {shown}: {error}");
    if !path.is_absolute() {
        return Err(format!("hostPath {shown}: must be an absolute path"));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(format!("hostPath {shown}: must not contain '..'"));
    }
    let there = match std::fs::metadata(path) {
        Ok(found) => Some(found),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    if there.is_none() {
        // What is to be made must not be where no guest may enter.
        if let Some(above) = path.ancestors().skip(1).find(|above| above.is_dir()) {
            HostDir::open(above, hidden).map_err(failed)?;
        }
        match kind {
            HostKind::Any | HostKind::DirectoryOrCreate => std::fs::create_dir_all(path).map_err(failed)?,
            HostKind::FileOrCreate => std::fs::File::create_new(path).map(drop).map_err(failed)?,
            HostKind::Directory | HostKind::File => {}
        }
    }
    let is_file = there.as_ref().map_or(kind == HostKind::FileOrCreate, std::fs::Metadata::is_file);
    let is_dir = there.as_ref().map_or(matches!(kind, HostKind::Any | HostKind::DirectoryOrCreate), |t| t.is_dir());
    match kind {
        HostKind::Directory | HostKind::DirectoryOrCreate if !is_dir => {
            Err(format!("hostPath type check failed: {shown} is not a directory"))
        }
        HostKind::File | HostKind::FileOrCreate if !is_file => {
            Err(format!("hostPath type check failed: {shown} is not a file"))
        }
        _ if is_file => HostDir::open_file(path, hidden).map_err(failed),
        _ if is_dir => HostDir::open(path, hidden).map_err(failed),
        _ => Err(format!("hostPath {shown}: neither a directory nor a regular file")),
    }
}

#[cfg(test)]
mod tests {
    use copepod_runtime::vfs::NodeKind;

    use super::*;

    #[test]
    fn types_are_checked_and_made() {
        use HostKind::*;
        for (name, kind, expected) in [
            ("dir", Any, Ok(NodeKind::Directory)),
            ("file", Any, Ok(NodeKind::File)),
            ("new/deep", Any, Ok(NodeKind::Directory)),
            ("dir", Directory, Ok(NodeKind::Directory)),
            ("link", Directory, Ok(NodeKind::Directory)),
            ("file", Directory, Err("type check failed: ")),
            ("new", Directory, Err("is not a directory")),
            ("new", DirectoryOrCreate, Ok(NodeKind::Directory)),
            ("file", DirectoryOrCreate, Err("is not a directory")),
            ("file", File, Ok(NodeKind::File)),
            ("dir", File, Err("is not a file")),
            ("new", File, Err("is not a file")),
            ("new", FileOrCreate, Ok(NodeKind::File)),
            ("new/file", FileOrCreate, Err("No such file")),
            ("dir", FileOrCreate, Err("is not a file")),
            ("private", Any, Err("denied")),
            ("private/file", Any, Err("denied")),
            ("private/new/deep", Any, Err("denied")),
            ("private/new", FileOrCreate, Err("denied")),
            ("dir/../private/new", DirectoryOrCreate, Err("must not contain '..'")),
        ] {
            let root = tempfile::tempdir().unwrap();
            for dir in ["dir", "private"] {
                std::fs::create_dir(root.path().join(dir)).unwrap();
            }
            for file in ["file", "private/file"] {
                std::fs::write(root.path().join(file), "").unwrap();
            }
            std::os::unix::fs::symlink("dir", root.path().join("link")).unwrap();
            let private = root.path().join("private");
            let opened = open(&root.path().join(name), kind, &[&private]).map(|node| node.kind());
            match (&opened, expected) {
                (Ok(got), Ok(expected)) => assert_eq!(*got, expected, "{name} {kind:?}"),
                (Err(got), Err(expected)) => assert!(got.contains(expected), "{name} {kind:?}: {got}"),
                _ => panic!("{name} {kind:?}: {opened:?}"),
            }
            assert_eq!(std::fs::read_dir(&private).unwrap().count(), 1, "{name} {kind:?} left something in private");
        }
        assert!(open(Path::new("relative"), Any, &[]).err().unwrap().contains("absolute"));
    }
}
