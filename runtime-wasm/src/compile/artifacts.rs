//! Artifacts on the disk: what they are called, how they are sealed, and which are thrown away.
//!
//! An artifact's name is the module's digest and the fingerprint of engine, configuration and CPU; its seal is the
//! SHA-256 of code and name. So a file is mapped only if it is whole, and only as what it was made for.

use std::collections::HashSet;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use wasmtime::Engine;

use super::{LoadError, bounded};

/// Ends every artifact, after the SHA-256.
const SEAL: &[u8; 8] = b"cpodaot2";
const SEAL_BYTES: usize = 32 + SEAL.len();
const ARTIFACT: &str = "cwasm";
/// How unfinished artifacts' names end.
const UNFINISHED: &str = "tmp";

/// What the artifact directory may hold. Artifacts of loaded programs count, and stay whatever the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheLimits {
    /// Most bytes; the longest unused go first.
    pub bytes: u64,
    /// How long an artifact is kept after its last use.
    pub age: Duration,
}

impl Default for CacheLimits {
    /// 8 GiB, 30 days.
    fn default() -> CacheLimits {
        CacheLimits { bytes: 8 << 30, age: Duration::from_secs(30 * 24 * 3600) }
    }
}

/// `HEX-FINGERPRINT.cwasm`: another engine version, configuration or CPU finds other files.
pub(super) fn name(engine: &Engine, digest: &str) -> Result<String, LoadError> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let hex = digest.strip_prefix("sha256:").filter(|hex| hex.len() == 64);
    let hex = hex.filter(|hex| hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')));
    let hex = hex.ok_or_else(|| LoadError::BadDigest(bounded(digest)))?;
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    Ok(format!("{hex}-{:016x}.{ARTIFACT}", hasher.finish()))
}

/// A file's name up to its first dot: what its seal vouches for.
fn stem(path: &Path) -> &str {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.split('.').next().unwrap_or_default()
}

/// The digest of the module that an artifact, finished or not, is made of.
pub(super) fn digest_of(path: &Path) -> String {
    format!("sha256:{}", stem(path).split('-').next().unwrap_or_default())
}

fn checksum(code: &[u8], path: &Path) -> [u8; 32] {
    Sha256::new().chain_update(code).chain_update(stem(path)).finalize().into()
}

/// Writes a new artifact that nobody else may read or write.
pub(super) fn write(code: &[u8], path: &Path) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(code)?;
    file.write_all(&checksum(code, path))?;
    file.write_all(SEAL)
}

/// Whether the file holds what was written under this name.
pub(super) fn is_sealed(bytes: &[u8], path: &Path) -> bool {
    let Some((code, seal)) = bytes.len().checked_sub(SEAL_BYTES).and_then(|at| bytes.split_at_checked(at)) else {
        return false;
    };
    seal.split_at_checked(32).is_some_and(|(sum, mark)| mark == SEAL && sum == checksum(code, path))
}

/// Notes that an artifact is used now.
pub(super) fn touch(path: &Path) {
    let touched = std::fs::File::open(path).and_then(|file| file.set_modified(SystemTime::now()));
    if let Err(error) = touched {
        tracing::debug!(artifact = %path.display(), "its use cannot be noted: {error}");
    }
}

/// An unfinished artifact; removed when dropped, unless renamed before.
pub(super) struct TemporaryFile(pub(super) PathBuf);

impl TemporaryFile {
    pub(super) fn beside(path: &Path) -> TemporaryFile {
        TemporaryFile(path.with_extension(format!("{:016x}.{UNFINISHED}", rand::random::<u64>())))
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Removes artifacts that an earlier process left unfinished.
pub(crate) fn remove_unfinished(cache_dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(cache_dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == UNFINISHED) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Removes artifacts that are not used (by name) and too old or too many.
pub(crate) fn collect(cache_dir: &Path, used: &HashSet<String>, limits: CacheLimits) -> std::io::Result<()> {
    let mut artifacts = Vec::new();
    for entry in std::fs::read_dir(cache_dir)? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != ARTIFACT) {
            continue;
        }
        // One that is gone meanwhile is not there to be counted.
        let Ok(about) = std::fs::metadata(&path) else { continue };
        let in_use = path.file_name().and_then(|name| name.to_str()).is_some_and(|name| used.contains(name));
        artifacts.push(Artifact { path, bytes: about.len(), last_used: about.modified()?, in_use });
    }
    for path in superfluous(artifacts, SystemTime::now(), limits) {
        tracing::info!(artifact = %path.display(), "removed: too old, or the artifacts take too much space");
        std::fs::remove_file(path)?;
    }
    Ok(())
}

struct Artifact {
    path: PathBuf,
    bytes: u64,
    last_used: SystemTime,
    in_use: bool,
}

/// Which artifacts to remove. Pure.
fn superfluous(mut artifacts: Vec<Artifact>, now: SystemTime, limits: CacheLimits) -> Vec<PathBuf> {
    // Those in use first, then the latest used.
    artifacts.sort_by_key(|artifact| (!artifact.in_use, std::cmp::Reverse(artifact.last_used)));
    let mut kept = 0_u64;
    let keep = |artifact: &Artifact| {
        let age = now.duration_since(artifact.last_used).unwrap_or_default();
        let with = kept.saturating_add(artifact.bytes);
        let keep = artifact.in_use || (with <= limits.bytes && age <= limits.age);
        kept = if keep { with } else { kept };
        keep
    };
    let (_, gone): (Vec<_>, Vec<_>) = artifacts.into_iter().partition(keep);
    gone.into_iter().map(|artifact| artifact.path).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_of_code_and_name() {
        let dir = tempfile::tempdir().unwrap();
        let [path, other] = ["aa-01.cwasm", "aa-02.cwasm"].map(|name| dir.path().join(name));
        let unfinished = TemporaryFile::beside(&path);
        write(b"code", &unfinished.0).unwrap();
        std::fs::rename(&unfinished.0, &path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        assert!(is_sealed(&bytes, &path));
        assert!(!is_sealed(&bytes, &other), "made for another engine");
        for (at, why) in [(0, "code"), (4, "checksum"), (bytes.len() - 1, "mark")] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(!is_sealed(&damaged, &path), "{why}");
        }
        assert!(!is_sealed(&bytes[..20], &path) && !is_sealed(b"", &path));
        assert!(write(b"other", &path).is_err(), "never overwritten");
        assert_eq!(digest_of(&path), "sha256:aa");
    }

    #[test]
    fn unfinished_artifacts_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let artifact = dir.path().join("aa-01.cwasm");
        let unfinished = TemporaryFile::beside(&artifact);
        for path in [&artifact, &unfinished.0] {
            std::fs::write(path, "x").unwrap();
        }
        remove_unfinished(dir.path()).unwrap();
        assert!(artifact.exists() && !unfinished.0.exists());
    }

    #[test]
    fn the_old_and_the_many_go() {
        let now = SystemTime::now();
        let limits = CacheLimits { bytes: 100, age: Duration::from_secs(50) };
        type File = (&'static str, u64, u64, bool);
        // Name, bytes, seconds since the last use, in use.
        let cases: [(&[File], &[&str]); 5] = [
            (&[], &[]),
            (&[("a", 60, 1, false), ("b", 40, 2, false)], &[]),
            (&[("a", 60, 3, false), ("b", 41, 2, false), ("c", 59, 1, false)], &["a"]),
            (&[("a", 1, 51, false), ("b", 1, 50, false)], &["a"]),
            (&[("a", 1000, 99, true), ("b", 1, 1, false)], &["b"]),
        ];
        for (artifacts, gone) in cases {
            let artifacts = artifacts.iter().map(|&(name, bytes, age, in_use)| Artifact {
                path: name.into(),
                bytes,
                last_used: now - Duration::from_secs(age),
                in_use,
            });
            let gone: Vec<PathBuf> = gone.iter().map(PathBuf::from).collect();
            assert_eq!(superfluous(artifacts.collect(), now, limits), gone);
        }
    }

    #[test]
    fn collecting_leaves_other_files_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["a.cwasm", "b.cwasm", "notes.txt"] {
            std::fs::write(path(name), [0; 60]).unwrap();
        }
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        for name in ["a.cwasm", "b.cwasm"] {
            std::fs::File::open(path(name)).unwrap().set_modified(long_ago).unwrap();
        }
        touch(&path("b.cwasm"));
        collect(dir.path(), &HashSet::new(), CacheLimits { bytes: 100, ..CacheLimits::default() }).unwrap();
        assert!(!path("a.cwasm").exists() && path("b.cwasm").exists() && path("notes.txt").exists());
        let used = HashSet::from(["b.cwasm".to_owned()]);
        collect(dir.path(), &used, CacheLimits { bytes: 0, age: Duration::ZERO }).unwrap();
        assert!(path("b.cwasm").exists(), "in use");
    }
}
