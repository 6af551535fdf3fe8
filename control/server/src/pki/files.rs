//! Small files that are whole or absent, and secret if they must be.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::PkiError;

/// Mode of keys and kubeconfigs.
pub(super) const SECRET: u32 = 0o600;
/// Mode of certificates.
pub(super) const PUBLIC: u32 = 0o644;

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> PkiError + use<> {
    let path = path.to_path_buf();
    move |source| PkiError::File { action, path, source }
}

/// Makes a directory that only its owner may enter, or makes it so.
pub(super) fn make_private_dir(dir: &Path) -> Result<(), PkiError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed("make", dir))?;
    std::fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(failed("make private", dir))
}

/// The text of a file; `None` if there is none.
pub(super) fn read(path: &Path) -> Result<Option<String>, PkiError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed("read", path)(e)),
    }
}

/// The same for a key: others lose access to it if they had any.
pub(super) fn read_secret(path: &Path) -> Result<Option<String>, PkiError> {
    let text = read(path)?;
    if text.is_some() && std::fs::metadata(path).map_err(failed("read", path))?.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others could read this key; taking that away");
        std::fs::set_permissions(path, Permissions::from_mode(SECRET)).map_err(failed("make private", path))?;
    }
    Ok(text)
}

/// Writes a file under another name, syncs it and renames it into place.
pub(super) fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), PkiError> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let temporary = path.with_file_name(name);
    let attempt = || -> io::Result<()> {
        // An earlier attempt's file could have another mode.
        match std::fs::remove_file(&temporary) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        match path.parent().filter(|p| !p.as_os_str().is_empty()) {
            Some(parent) => File::open(parent)?.sync_all(),
            None => Ok(()),
        }
    };
    attempt().map_err(failed("write", path))
}
