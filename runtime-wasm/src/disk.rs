//! The disk under the runtime's directories.

use std::io;
use std::path::Path;

/// Bytes of the filesystem that holds a path, used and free.
///
/// # Errors
/// The path cannot be looked at.
pub fn filesystem_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_blocks.saturating_mul(stat.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filesystem_has_a_size() {
        assert!(filesystem_bytes(&std::env::temp_dir()).unwrap() > 0);
        assert_eq!(filesystem_bytes(Path::new("/nowhere")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
