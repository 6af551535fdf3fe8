//! The data directory: found, made, checked and locked before anything is started.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Pause between attempts to lock.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A data directory that this process alone uses, until it is dropped.
#[derive(Debug)]
pub struct DataDir {
    _lock: File,
}

impl DataDir {
    /// Makes the directory (0700) if needed, proves that it can be written, and locks it, waiting up to `limit` for an
    /// owner that is just ending. Blocks the thread.
    ///
    /// # Errors
    /// It cannot be made or written (with what to do), or another process uses it.
    pub fn open_within(path: &Path, limit: Duration) -> Result<Self> {
        let shown = path.display();
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(|| {
            format!("cannot make the data directory {shown}: choose one you may write to with --data-dir DIR")
        })?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path).with_context(|| {
            format!("cannot write to the data directory {shown}: choose another with --data-dir DIR")
        })?;
        match lock_within(&lock, limit) {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => bail!(
                "the data directory {shown} is in use by another copepod server: stop that one first, or start this \
                 one with another --data-dir"
            ),
            Err(std::fs::TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", lock_path.display()));
            }
        }
        prove_writable(path)?;
        let mode = std::fs::metadata(path)?.permissions().mode();
        if mode & 0o077 != 0 {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).with_context(|| {
                format!("others may read the data directory {shown}, and its mode cannot be changed")
            })?;
        }
        Ok(Self { _lock: lock })
    }
}

fn lock_within(lock: &File, limit: Duration) -> Result<(), std::fs::TryLockError> {
    let end = Instant::now() + limit;
    loop {
        match lock.try_lock() {
            Err(std::fs::TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(LOCK_PAUSE),
            outcome => return outcome,
        }
    }
}

/// A full or read-only disk is told now, not at the first write.
fn prove_writable(path: &Path) -> Result<()> {
    let probe = path.join(".probe");
    let outcome = std::fs::write(&probe, [0u8; 4096]).and_then(|()| File::open(&probe)?.sync_all());
    let _ = std::fs::remove_file(&probe);
    outcome.with_context(|| {
        format!(
            "cannot write to the data directory {}: free space on its disk, or choose another with --data-dir DIR",
            path.display()
        )
    })
}

/// `/var/lib/copepod` for root, else `$XDG_DATA_HOME/copepod` or `~/.local/share/copepod`
/// (<https://specifications.freedesktop.org/basedir-spec/>).
///
/// # Errors
/// There is no home directory to put it into.
pub fn default_path() -> Result<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/copepod".into());
    }
    if let Some(dir) = std::env::var_os("XDG_DATA_HOME").map(PathBuf::from).filter(|d| d.is_absolute()) {
        return Ok(dir.join("copepod"));
    }
    let home = std::env::var_os("HOME")
        .filter(|h| !h.is_empty())
        .context("HOME is not set: name a directory with --data-dir DIR")?;
    Ok(PathBuf::from(home).join(".local/share/copepod"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_refused_until_the_first_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let first = DataDir::open_within(&path, Duration::ZERO).unwrap();
        let error = DataDir::open_within(&path, Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains("in use by another copepod server"), "{error}");
        drop(first);
        DataDir::open_within(&path, Duration::ZERO).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "").unwrap();
        let error = format!("{:#}", DataDir::open_within(&path, Duration::ZERO).unwrap_err());
        assert!(error.contains(path.to_str().unwrap()) && error.contains("--data-dir"), "{error}");
    }
}
