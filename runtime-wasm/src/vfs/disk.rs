//! What the machine's own file systems hold.

use std::path::Path;

/// Bytes of the file system that holds `path`, used and free. Waits for the disk; errors are the machine's.
pub fn disk_size(path: &Path) -> std::io::Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    Ok(found.f_blocks.saturating_mul(found.f_frsize))
}
