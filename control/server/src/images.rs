//! The cluster's image store: WebAssembly modules under their digest, and names for them.
//!
//! `DIR/blobs/sha256/HEX` are the modules, `DIR/tags/NAME/_tags/TAG` JSON records, `DIR/partial/*` unfinished uploads.

mod http_api;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use copepod_api::ApiError;
use copepod_api::image::{Digest, Tag, check_name, check_tag};
use futures::{Stream, StreamExt};
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

/// Uploads at once; a further one is told to come back (429).
pub const MAX_UPLOADS: usize = 4;
/// How long an upload may bring nothing before it is given up (408), so that it does not hold its place for ever.
pub const UPLOAD_STALL: Duration = Duration::from_secs(30);
/// Longest file name in a tag.
const MAX_FILE_NAME: usize = 255;
/// How every WebAssembly binary begins.
const MAGIC: &[u8; 4] = b"\0asm";

/// A content-addressed store in a directory.
pub struct ImageStore {
    dir: PathBuf,
    max_blob: u64,
    uploads: Semaphore,
    next_upload: AtomicU64,
}

impl ImageStore {
    /// Opens the store in `dir`, making it if needed and removing uploads that an earlier run left unfinished. Modules
    /// larger than `max_blob` bytes are refused.
    ///
    /// # Errors
    /// The directory cannot be made or written.
    pub fn open(dir: &Path, max_blob: u64) -> io::Result<Arc<Self>> {
        let partial = dir.join("partial");
        match std::fs::remove_dir_all(&partial) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        for sub in [&partial, &dir.join("blobs/sha256"), &dir.join("tags")] {
            std::fs::create_dir_all(sub)?;
        }
        let (uploads, next_upload) = (Semaphore::new(MAX_UPLOADS), AtomicU64::new(0));
        Ok(Arc::new(Self { dir: dir.into(), max_blob, uploads, next_upload }))
    }

    /// Takes a module whose content must have `digest`; on success it is on disk. `length` is what the sender announced.
    ///
    /// # Errors
    /// 400 for another digest or something that is not WebAssembly, 408 if nothing comes for [`UPLOAD_STALL`], 413 if
    /// too large, 429 if too many upload at once, 507 if the disk is full.
    pub async fn put_blob<S, E>(&self, digest: &Digest, length: Option<u64>, mut content: S) -> Result<(), ApiError>
    where
        S: Stream<Item = Result<Bytes, E>> + Unpin,
        E: std::fmt::Display,
    {
        if length.is_some_and(|n| n > self.max_blob) {
            return Err(self.too_large());
        }
        let busy = || ApiError::too_many_requests(format!("{MAX_UPLOADS} images are being uploaded already"), 1);
        let _place = self.uploads.try_acquire().map_err(|_| busy())?;
        let failed = |e: io::Error| disk_error(&e, &format!("cannot store {digest}"));
        let partial =
            Partial(self.dir.join("partial").join(self.next_upload.fetch_add(1, Ordering::Relaxed).to_string()));
        let mut file = File::create_new(&partial.0).await.map_err(failed)?;
        let (mut hash, mut size, mut head) = (Sha256::new(), 0u64, Vec::with_capacity(MAGIC.len()));
        let stalled = |_| {
            let why = format!("the upload of {digest} brought nothing for {} s; send it again", UPLOAD_STALL.as_secs());
            ApiError::new(408, "Timeout", why)
        };
        while let Some(chunk) = tokio::time::timeout(UPLOAD_STALL, content.next()).await.map_err(stalled)? {
            let chunk = chunk.map_err(|e| ApiError::bad_request(format!("the upload of {digest} broke off: {e}")))?;
            size += chunk.len() as u64;
            if size > self.max_blob {
                return Err(self.too_large());
            }
            if head.len() < MAGIC.len() {
                head.extend(chunk.iter().take(MAGIC.len() - head.len()));
                check_magic(&head, false)?;
            }
            hash.update(&chunk);
            file.write_all(&chunk).await.map_err(failed)?;
        }
        check_magic(&head, true)?;
        let actual = Digest::from(<[u8; 32]>::from(hash.finalize()));
        if actual != *digest {
            let message =
                format!("the content does not match its digest: the URL says {digest}, the content is {actual}");
            return Err(ApiError::bad_request(message));
        }
        file.flush().await.map_err(failed)?;
        file.sync_all().await.map_err(failed)?;
        let path = self.blob_path(digest);
        tokio::fs::rename(&partial.0, &path).await.map_err(failed)?;
        sync_parent(&path).await.map_err(failed)
    }

    /// A module's file and size; `None` if there is none of this digest.
    pub async fn blob(&self, digest: &Digest) -> Result<Option<(File, u64)>, ApiError> {
        let read = async {
            let file = File::open(self.blob_path(digest)).await?;
            let size = file.metadata().await?.len();
            Ok((file, size))
        };
        absent_is_none(read.await).map_err(|e| disk_error(&e, &format!("cannot read {digest}")))
    }

    /// Lets `name:tag` mean a module that is there.
    ///
    /// # Errors
    /// 400 for a bad name, tag or file name, 404 if the module is not there, 507 if the disk is full.
    pub async fn put_tag(&self, name: &str, tag: &str, record: &Tag) -> Result<(), ApiError> {
        let path = self.tag_path(name, tag)?;
        let digest: Digest = record.digest.parse()?;
        let plain = |c: char| !c.is_control() && !matches!(c, '/' | '\\');
        let file = record.file.as_str();
        if file.is_empty() || file.len() > MAX_FILE_NAME || [".", ".."].contains(&file) || !file.chars().all(plain) {
            return Err(ApiError::bad_request(format!("{file:?} is not a plain file name")));
        }
        if self.blob(&digest).await?.is_none() {
            return Err(unknown(format!("the image store has no {digest}; send it before its name")));
        }
        let failed = |e: io::Error| disk_error(&e, &format!("cannot store the name {name}:{tag}"));
        let text = serde_json::to_vec(record).map_err(ApiError::internal)?;
        let partial =
            Partial(self.dir.join("partial").join(self.next_upload.fetch_add(1, Ordering::Relaxed).to_string()));
        let write = async {
            let mut file = File::create_new(&partial.0).await?;
            file.write_all(&text).await?;
            file.flush().await?;
            file.sync_all().await?;
            if let Some(parent) = path.parent() {
                tokio::fs::create_dir_all(parent).await?;
            }
            tokio::fs::rename(&partial.0, &path).await?;
            sync_parent(&path).await
        };
        write.await.map_err(failed)
    }

    /// What `name:tag` means.
    ///
    /// # Errors
    /// 400 for a bad name or tag, 404 if there is none.
    pub async fn tag(&self, name: &str, tag: &str) -> Result<Tag, ApiError> {
        let read = absent_is_none(tokio::fs::read(self.tag_path(name, tag)?).await);
        let text = read.map_err(|e| disk_error(&e, &format!("cannot read the name {name}:{tag}")))?;
        let text = text.ok_or_else(|| {
            unknown(format!("image {name}:{tag} not found; `copepod push FILE {name}:{tag}` puts one there"))
        })?;
        serde_json::from_slice(&text)
            .map_err(|e| ApiError::internal(format!("the record of {name}:{tag} is damaged: {e}")))
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join("blobs/sha256").join(digest.hex())
    }

    /// Parts of names begin with a letter or digit, so `_tags` is none of them.
    fn tag_path(&self, name: &str, tag: &str) -> Result<PathBuf, ApiError> {
        check_name(name)?;
        check_tag(tag)?;
        Ok(self.dir.join("tags").join(name).join("_tags").join(tag))
    }

    fn too_large(&self) -> ApiError {
        ApiError::too_large(format!("the image store takes modules of at most {} bytes", self.max_blob))
    }
}

/// An unfinished upload: removed unless renamed into place.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Refuses what cannot become WebAssembly; `whole` if nothing follows `head`.
fn check_magic(head: &[u8], whole: bool) -> Result<(), ApiError> {
    if MAGIC.starts_with(head) && (!whole || head.len() == MAGIC.len()) {
        return Ok(());
    }
    let begins = match head {
        [] => "it is empty".to_string(),
        _ => format!("it begins with {}", head.iter().map(|b| format!("{b:02x}")).collect::<Vec<_>>().join(" ")),
    };
    Err(ApiError::bad_request(format!("not a WebAssembly module: {begins} instead of 00 61 73 6d")))
}

fn unknown(message: String) -> ApiError {
    ApiError::new(404, "NotFound", message)
}

fn disk_error(error: &io::Error, what: &str) -> ApiError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            let advice = "free space on the disk of the server's data directory";
            ApiError::new(507, "InsufficientStorage", format!("{what}: the disk is full; {advice}"))
        }
        _ => ApiError::internal(format!("{what}: {error}")),
    }
}

fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

async fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent).await?.sync_all().await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
