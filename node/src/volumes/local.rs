//! Directories that this node makes for volumes of its own: private, by name, in one place.

use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use copepod_runtime::vfs::{HostDir, Node};

/// Longest name of a directory in bytes, as of a DNS subdomain.
const MAX_NAME: usize = 253;
/// Mode of the directories: the node's alone.
const MODE: u32 = 0o700;

/// The place with the directories.
#[derive(Debug, Clone)]
pub struct LocalVolumes {
    dir: PathBuf,
}

impl LocalVolumes {
    /// Keeps them in a node's data directory.
    pub fn new(data_dir: &Path) -> Self {
        Self { dir: data_dir.join("volumes") }
    }

    /// Opens a volume's directory, which is made if it is not there. Waits for the disk.
    ///
    /// # Errors
    /// The name is none, something else is there, or what the machine says.
    pub fn open(&self, name: &str) -> Result<Arc<dyn Node>, String> {
        let path = self.dir.join(checked(name)?);
        let failed = |error: std::io::Error| format!("directory of volume {name:?}: {error}");
        std::fs::DirBuilder::new().recursive(true).mode(MODE).create(&self.dir).map_err(failed)?;
        match std::fs::DirBuilder::new().mode(MODE).create(&path) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        if !std::fs::symlink_metadata(&path).map_err(failed)?.is_dir() {
            return Err(failed(ErrorKind::NotADirectory.into()));
        }
        HostDir::open(&path, &[]).map_err(failed)
    }

    /// Takes a volume's directory away with all that is in it; links are not followed. Waits for the disk.
    ///
    /// # Errors
    /// The name is none, or what the machine says; that nothing is there is none.
    pub fn remove(&self, name: &str) -> Result<(), String> {
        match std::fs::remove_dir_all(self.dir.join(checked(name)?)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(format!("directory of volume {name:?}: {error}")),
            _ => Ok(()),
        }
    }
}

/// A name that leads to nothing but an entry of the place: a DNS subdomain.
pub(super) fn checked(name: &str) -> Result<&str, String> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let label = |label: &str| {
        let ends = (label.bytes().next(), label.bytes().last());
        label.bytes().all(|b| plain(b) || b == b'-') && ends.0.is_some_and(plain) && ends.1.is_some_and(plain)
    };
    if name.len() <= MAX_NAME && name.split('.').all(label) {
        return Ok(name);
    }
    let shown: String = name.chars().take(MAX_NAME).collect();
    Err(format!("volumeHandle {shown:?} names no directory: it must be a DNS subdomain"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn names() {
        for (name, good) in [
            ("pvc-0b1c", true),
            ("a.b-c.1", true),
            ("", false),
            (".", false),
            ("..", false),
            ("a..b", false),
            ("../a", false),
            ("a/b", false),
            ("/a", false),
            ("-a", false),
            ("a-", false),
            ("A", false),
            ("a\0", false),
            (&"a".repeat(MAX_NAME), true),
            (&"a".repeat(MAX_NAME + 1), false),
        ] {
            assert_eq!(checked(name).is_ok(), good, "{name:?}");
        }
    }

    #[test]
    fn directories_are_private_kept_and_taken_away() {
        let root = tempfile::tempdir().unwrap();
        let local = LocalVolumes::new(root.path());
        local.open("pvc-1").unwrap();
        let path = root.path().join("volumes/pvc-1");
        for private in [&path, &root.path().join("volumes")] {
            assert_eq!(std::fs::metadata(private).unwrap().permissions().mode() & 0o777, MODE);
        }
        std::fs::write(path.join("kept"), "x").unwrap();
        local.open("pvc-1").unwrap();
        assert!(path.join("kept").exists());
        local.remove("pvc-1").unwrap();
        assert!(!path.exists());
        local.remove("pvc-1").unwrap();
        assert!(local.open("../x").is_err() && local.remove("..").is_err());
        assert!(root.path().join("volumes").exists());
    }

    #[test]
    fn links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("theirs"), "x").unwrap();
        let local = LocalVolumes::new(root.path());
        local.open("pvc-1").unwrap();
        symlink(outside.path(), root.path().join("volumes/pvc-1/link")).unwrap();
        symlink(outside.path(), root.path().join("volumes/pvc-2")).unwrap();
        assert!(local.open("pvc-2").is_err());
        for name in ["pvc-1", "pvc-2"] {
            local.remove(name).unwrap();
            assert!(std::fs::symlink_metadata(root.path().join("volumes").join(name)).is_err());
        }
        assert!(outside.path().join("theirs").exists());
    }
}
