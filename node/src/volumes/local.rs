//! Directories that this node makes for volumes of its own: private, by name, in one place.

use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use copepod_runtime::vfs::{HostDir, Node};
use serde::{Deserialize, Serialize};

/// Longest name of a directory in bytes, as of a DNS subdomain.
const MAX_NAME: usize = 253;
/// Mode of the directories: the node's alone.
const MODE: u32 = 0o700;

/// Where the marks are, beside the directories; no volume has such a name.
const MARKS: &str = ".marks";

/// What is noted of a volume whose directory is to go with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The cluster that the volume was seen in: the UID of its namespace `kube-system`.
    pub cluster: String,
    /// The volume's resourceVersion when it was first seen.
    pub revision: u64,
}

/// The place with the directories, each made here for the volume of its name, and with what is noted of them.
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

    /// Takes a volume's directory away with all that is in it, and then its mark; links are not followed. Waits for the
    /// disk.
    ///
    /// # Errors
    /// The name is none, or what the machine says; that nothing is there is none.
    pub fn remove(&self, name: &str) -> Result<(), String> {
        missing_is_fine(std::fs::remove_dir_all(self.dir.join(checked(name)?)))
            .map_err(|error| format!("directory of volume {name:?}: {error}"))?;
        self.unmark(name)
    }

    /// Notes that a volume's directory is to go once no PersistentVolume names it any more. Waits for the disk.
    ///
    /// # Errors
    /// The name is none, or what the machine says.
    pub fn mark(&self, name: &str, mark: &Mark) -> Result<(), String> {
        let path = self.mark_of(name)?;
        let failed = |error: std::io::Error| format!("mark of volume {name:?}: {error}");
        let text = serde_json::to_vec(mark).map_err(|e| failed(e.into()))?;
        std::fs::DirBuilder::new().recursive(true).mode(MODE).create(self.dir.join(MARKS)).map_err(failed)?;
        // Whole or not at all. No volume has a name like the first one's.
        let new = self.dir.join(MARKS).join(format!("{name}~"));
        std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, path)).map_err(failed)
    }

    /// Forgets the mark: whatever happens to the volume, its directory stays. Waits for the disk.
    ///
    /// # Errors
    /// The name is none, or what the machine says; that there is no mark is none.
    pub fn unmark(&self, name: &str) -> Result<(), String> {
        let removed = std::fs::remove_file(self.mark_of(name)?);
        missing_is_fine(removed).map_err(|error| format!("mark of volume {name:?}: {error}"))
    }

    /// Whether a volume's directory is marked. Waits for the disk.
    pub fn is_marked(&self, name: &str) -> bool {
        self.mark_of(name).is_ok_and(|path| path.exists())
    }

    /// All marks by the names of their volumes; one that cannot be read counts as none. Waits for the disk.
    ///
    /// # Errors
    /// What the machine says.
    pub fn marks(&self) -> std::io::Result<Vec<(String, Mark)>> {
        let entries = match std::fs::read_dir(self.dir.join(MARKS)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Some(name) = entry.file_name().to_str().and_then(|name| Some(checked(name).ok()?.to_owned())) else {
                continue;
            };
            let mark = std::fs::read(entry.path()).ok().and_then(|text| serde_json::from_slice(&text).ok());
            found.extend(mark.map(|mark| (name, mark)));
        }
        Ok(found)
    }

    fn mark_of(&self, name: &str) -> Result<PathBuf, String> {
        Ok(self.dir.join(MARKS).join(checked(name)?))
    }
}

/// Does what waits for the disk.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(e.to_string()))
}

fn missing_is_fine(done: std::io::Result<()>) -> std::io::Result<()> {
    match done {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
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
    fn marks_are_kept_beside_the_directories() {
        let root = tempfile::tempdir().unwrap();
        let local = LocalVolumes::new(root.path());
        assert_eq!(local.marks().unwrap(), []);
        let mark = |revision| Mark { cluster: "c1".into(), revision };
        local.mark("pvc-1", &mark(7)).unwrap();
        local.mark("pvc-1", &mark(8)).unwrap();
        local.mark("pvc-2", &mark(9)).unwrap();
        local.open("pvc-1").unwrap();
        // Neither what was cut short nor what is no mark counts.
        for (name, text) in [("pvc-3~", "{}"), ("pvc-4", "{\"cluster\""), ("pvc-5", "")] {
            std::fs::write(root.path().join("volumes/.marks").join(name), text).unwrap();
        }
        let sorted = || {
            let mut all = local.marks().unwrap();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            all
        };
        assert_eq!(sorted(), [("pvc-1".into(), mark(8)), ("pvc-2".into(), mark(9))]);
        assert!(local.is_marked("pvc-2") && !local.is_marked("pvc-9") && !local.is_marked("../marks"));
        local.unmark("pvc-2").unwrap();
        local.unmark("pvc-2").unwrap();
        local.remove("pvc-1").unwrap();
        assert_eq!(sorted(), []);
        assert!(local.mark("../x", &mark(1)).is_err() && local.unmark("..").is_err());
        assert!(local.open(".marks").is_err(), "no guest gets there");
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
