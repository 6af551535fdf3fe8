//! Images: references, the cluster's image store as their source, and a content-addressed cache on the node's disk.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use copepod_api::image::{Digest, MAX_BLOB, Reference, Tag, Version, encode_segment};
use copepod_api::names::IMAGES_PATH;
use futures::StreamExt;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt;

/// The largest answer to a question about a tag, in bytes.
const MAX_TAG_BYTES: usize = 64 << 10;
/// How unfinished files' names end.
const UNFINISHED: &str = "part";

/// Why an image cannot be used; the variant decides the waiting reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// `InvalidImageName`.
    #[error("{0}")]
    InvalidName(String),
    /// `ErrImageNeverPull`.
    #[error("{0}")]
    NeverPull(String),
    /// `ErrImagePull`, then `ImagePullBackOff`.
    #[error("{0}")]
    Pull(String),
}

impl ImageError {
    /// The waiting reason of a first failure.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::InvalidName(_) => "InvalidImageName",
            Self::NeverPull(_) => "ErrImageNeverPull",
            Self::Pull(_) => "ErrImagePull",
        }
    }
}

/// An artifact on the node's disk, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `sha256:HEX`.
    pub digest: String,
    /// argv[0] of a container without a command.
    pub file_name: String,
    /// Where its bytes are.
    pub path: PathBuf,
    /// It was on the node already.
    pub cached: bool,
}

/// When to ask the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPolicy {
    /// The tag is resolved at every start.
    Always,
    /// Only if the node does not have it.
    IfNotPresent,
    /// Not at all.
    Never,
}

impl PullPolicy {
    /// A container's policy; without one, `Always` for `latest`, else `IfNotPresent`.
    pub fn of(policy: Option<&str>, reference: &Reference) -> Self {
        match policy {
            Some("Always") => Self::Always,
            Some("Never") => Self::Never,
            Some("IfNotPresent") => Self::IfNotPresent,
            _ if reference.version == Version::Tag("latest".into()) => Self::Always,
            _ => Self::IfNotPresent,
        }
    }
}

/// Where artifacts come from.
#[async_trait]
pub trait ImageSource: Send + Sync + 'static {
    /// What a tag points to; `None`: there is no such tag.
    async fn tag(&self, name: &str, tag: &str) -> Result<Option<Tag>, String>;
    /// Writes a blob to a file; `false`: there is no such blob. More than [`MAX_BLOB`] is an error.
    async fn blob(&self, digest: &str, to: &mut tokio::fs::File) -> Result<bool, String>;
}

/// The node's images.
pub struct Images {
    dir: PathBuf,
    source: Arc<dyn ImageSource>,
    pulling: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Images {
    /// Keeps blobs and tags under `dir`, of which this is the only user; removes what an earlier one left unfinished.
    pub fn open(dir: impl Into<PathBuf>, source: Arc<dyn ImageSource>) -> std::io::Result<Self> {
        let dir = dir.into();
        for sub in ["blobs", "tags"] {
            std::fs::create_dir_all(dir.join(sub))?;
            remove_unfinished(&dir.join(sub))?;
        }
        Ok(Self { dir, source, pulling: Mutex::default() })
    }

    /// Whether an image would have to be fetched; for the `Pulling` event.
    pub async fn is_present(&self, text: &str) -> bool {
        let Ok(reference) = text.parse::<Reference>() else { return false };
        match &reference.version {
            Version::Digest(digest) => exists(&self.blob_path(digest.as_str())).await,
            Version::Tag(tag) => match self.known_tag(&reference.name, tag).await {
                Some(known) => exists(&self.blob_path(&known.digest)).await,
                None => false,
            },
        }
    }

    /// Finds or fetches an image.
    pub async fn get(&self, text: &str, policy: Option<&str>) -> Result<Image, ImageError> {
        let reference: Reference = text
            .parse()
            .map_err(|why| ImageError::InvalidName(format!("couldn't parse image name {text:?}: {why}")))?;
        let policy = PullPolicy::of(policy, &reference);
        let tag = match &reference.version {
            Version::Digest(digest) => Tag { digest: digest.to_string(), file: reference.file_name() },
            Version::Tag(tag) => self.resolve(text, &reference.name, tag, policy).await?,
        };
        let path = self.blob_path(&tag.digest);
        let cached = exists(&path).await;
        if !cached {
            if policy == PullPolicy::Never {
                return Err(never(text));
            }
            self.pull(text, &tag.digest, &path).await?;
        }
        Ok(Image { digest: tag.digest, file_name: tag.file, path, cached })
    }

    async fn resolve(&self, text: &str, name: &str, tag: &str, policy: PullPolicy) -> Result<Tag, ImageError> {
        if policy != PullPolicy::Always
            && let Some(known) = self.known_tag(name, tag).await
            && (policy == PullPolicy::Never || exists(&self.blob_path(&known.digest)).await)
        {
            return Ok(known);
        }
        if policy == PullPolicy::Never {
            return Err(never(text));
        }
        match self.source.tag(name, tag).await {
            Ok(Some(found)) if found.digest.parse::<Digest>().is_ok() => {
                let bytes = serde_json::to_vec(&found).unwrap_or_default();
                if let Err(error) = write_whole(&self.tag_path(name, tag), &bytes).await {
                    tracing::warn!("cannot remember what {text} points to: {error}");
                }
                Ok(found)
            }
            Ok(Some(found)) => {
                Err(ImageError::Pull(format!("image {text:?}: bad digest {:?} in the store", found.digest)))
            }
            Ok(None) => Err(ImageError::Pull(format!(
                "image {text:?} is not in the cluster's image store: push it with: copepod push FILE {name}:{tag}"
            ))),
            Err(error) => Err(ImageError::Pull(format!("cannot ask the cluster's image store for {text:?}: {error}"))),
        }
    }

    async fn pull(&self, text: &str, digest: &str, path: &Path) -> Result<(), ImageError> {
        let gate = self.pulling.lock().entry(digest.into()).or_default().clone();
        let held = gate.lock().await;
        let result = if exists(path).await { Ok(()) } else { self.fetch(text, digest, path).await };
        drop(held);
        self.pulling.lock().retain(|d, g| d != digest || Arc::strong_count(g) > 2);
        result
    }

    async fn fetch(&self, text: &str, digest: &str, path: &Path) -> Result<(), ImageError> {
        let io =
            |e: std::io::Error| ImageError::Pull(format!("cannot keep image {text:?} in {}: {e}", self.dir.display()));
        let temporary = path.with_extension(UNFINISHED);
        let mut file = tokio::fs::File::create(&temporary).await.map_err(io)?;
        let found = self.source.blob(digest, &mut file).await;
        file.flush().await.map_err(io)?;
        match found {
            Ok(true) => {}
            Ok(false) => {
                return Err(ImageError::Pull(format!(
                    "image {text:?}: blob {digest} is not in the cluster's image store: push it again with: copepod push FILE NAME"
                )));
            }
            Err(error) => return Err(ImageError::Pull(format!("cannot fetch image {text:?}: {error}"))),
        }
        let read = temporary.clone();
        let actual =
            tokio::task::spawn_blocking(move || hash_file(&read)).await.map_err(|e| io(std::io::Error::other(e)))?;
        let actual = actual.map_err(io)?;
        if actual != digest {
            let _ = tokio::fs::remove_file(&temporary).await;
            return Err(ImageError::Pull(format!("image {text:?} is damaged: expected {digest}, got {actual}")));
        }
        tokio::fs::rename(&temporary, path).await.map_err(io)
    }

    fn blob_path(&self, digest: &str) -> PathBuf {
        self.dir.join("blobs").join(digest.replace(':', "-"))
    }
    fn tag_path(&self, name: &str, tag: &str) -> PathBuf {
        self.dir.join("tags").join(format!("{}@{tag}.json", encode_segment(name)))
    }
    async fn known_tag(&self, name: &str, tag: &str) -> Option<Tag> {
        let bytes = tokio::fs::read(self.tag_path(name, tag)).await.ok()?;
        serde_json::from_slice(&bytes).ok().filter(|t: &Tag| t.digest.parse::<Digest>().is_ok())
    }
}

fn never(text: &str) -> ImageError {
    ImageError::NeverPull(format!("Container image {text:?} is not present with pull policy of Never"))
}

async fn exists(path: &Path) -> bool {
    tokio::fs::try_exists(path).await.unwrap_or(false)
}

async fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    // Several pods may resolve one name at once: each writes a file of its own.
    static WRITES: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let number = WRITES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let temporary = path.with_extension(format!("{number}.{UNFINISHED}"));
    tokio::fs::write(&temporary, bytes).await?;
    tokio::fs::rename(&temporary, path).await
}

fn remove_unfinished(dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == UNFINISHED) {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn hash_file(path: &Path) -> std::io::Result<String> {
    let mut hasher = Sha256::new();
    std::io::copy(&mut std::fs::File::open(path)?, &mut hasher)?;
    Ok(Digest::from(<[u8; 32]>::from(hasher.finalize())).to_string())
}

/// The cluster's image store, over the node's kube client.
pub struct ClusterImages {
    client: kube::Client,
}

impl ClusterImages {
    /// Asks with this client's credentials.
    pub fn new(client: kube::Client) -> Self {
        Self { client }
    }
    async fn get(&self, path: String) -> Result<Option<http::Response<kube::client::Body>>, String> {
        let request = http::Request::get(path).body(kube::client::Body::empty()).map_err(|e| e.to_string())?;
        let response = self.client.send(request).await.map_err(|e| e.to_string())?;
        match response.status() {
            http::StatusCode::OK => Ok(Some(response)),
            http::StatusCode::NOT_FOUND => Ok(None),
            status => Err(format!("the server answered {status}")),
        }
    }
}

#[async_trait]
impl ImageSource for ClusterImages {
    async fn tag(&self, name: &str, tag: &str) -> Result<Option<Tag>, String> {
        let path = format!("{IMAGES_PATH}/tags/{}/{}", encode_segment(name), encode_segment(tag));
        let Some(response) = self.get(path).await? else { return Ok(None) };
        let body = http_body_util::Limited::new(response.into_body(), MAX_TAG_BYTES);
        let bytes = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
        serde_json::from_slice(&bytes).map(Some).map_err(|e| e.to_string())
    }
    async fn blob(&self, digest: &str, to: &mut tokio::fs::File) -> Result<bool, String> {
        let Some(response) = self.get(format!("{IMAGES_PATH}/blobs/{digest}")).await? else { return Ok(false) };
        let mut stream = response.into_body().into_data_stream();
        let mut total = 0u64;
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|e| e.to_string())?;
            total += chunk.len() as u64;
            if total > MAX_BLOB {
                return Err(format!("it is larger than {MAX_BLOB} bytes"));
            }
            to.write_all(&chunk).await.map_err(|e| e.to_string())?;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store whose tag can be moved.
    struct Fake {
        tag: Mutex<Option<Tag>>,
        blob: Vec<u8>,
        pulls: Mutex<u32>,
    }

    #[async_trait]
    impl ImageSource for Fake {
        async fn tag(&self, name: &str, _tag: &str) -> Result<Option<Tag>, String> {
            if name == "down" { Err("connection refused".into()) } else { Ok(self.tag.lock().clone()) }
        }
        async fn blob(&self, _digest: &str, to: &mut tokio::fs::File) -> Result<bool, String> {
            *self.pulls.lock() += 1;
            to.write_all(&self.blob).await.unwrap();
            Ok(true)
        }
    }

    fn digest_of(data: &[u8]) -> String {
        Digest::from(<[u8; 32]>::from(Sha256::digest(data))).to_string()
    }
    fn setup(digest: &str) -> (tempfile::TempDir, Arc<Fake>, Images) {
        let dir = tempfile::tempdir().unwrap();
        let tag = Tag { digest: digest.into(), file: "hello.wasm".into() };
        let fake = Arc::new(Fake { tag: Mutex::new(Some(tag)), blob: b"wasm".to_vec(), pulls: Mutex::default() });
        let images = Images::open(dir.path(), fake.clone()).unwrap();
        (dir, fake, images)
    }

    #[tokio::test]
    async fn pulls_once_and_follows_the_policy() {
        let (_dir, fake, images) = setup(&digest_of(b"wasm"));
        assert!(matches!(images.get("x:1", Some("Never")).await, Err(ImageError::NeverPull(_))));
        let (a, b) = tokio::join!(images.get("x:1", None), images.get("x:1", None));
        let image = a.unwrap();
        assert_eq!(
            (image.file_name.as_str(), b.unwrap().digest == image.digest, *fake.pulls.lock()),
            ("hello.wasm", true, 1)
        );
        assert_eq!(std::fs::read(&image.path).unwrap(), b"wasm");
        assert!(images.get("x:1", Some("Never")).await.unwrap().cached);
        *fake.tag.lock() = None;
        assert!(images.get("x:1", Some("IfNotPresent")).await.is_ok(), "known without asking");
        let error = images.get("x:1", Some("Always")).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "image \"x:1\" is not in the cluster's image store: push it with: copepod push FILE x:1"
        );
        assert_eq!(error.reason(), "ErrImagePull");
        assert!(images.get("down:1", None).await.unwrap_err().to_string().contains("connection refused"));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_pods_may_remember_one_name_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x@1.2.json");
        let writes: Vec<_> = (0..64)
            .map(|_| {
                let path = path.clone();
                tokio::spawn(async move { write_whole(&path, b"same").await })
            })
            .collect();
        for write in writes {
            write.await.unwrap().unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"same");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[tokio::test]
    async fn leftovers_of_a_crash_are_removed() {
        let (dir, fake, images) = setup(&digest_of(b"wasm"));
        let blob = images.get("x:1", None).await.unwrap().path;
        let tag = images.tag_path("x", "1");
        let leftovers = [blob.with_extension(UNFINISHED), tag.with_extension(format!("7.{UNFINISHED}"))];
        for path in &leftovers {
            std::fs::write(path, "half").unwrap();
        }
        let images = Images::open(dir.path(), fake).unwrap();
        assert!(leftovers.iter().all(|path| !path.exists()));
        assert!(images.get("x:1", Some("Never")).await.unwrap().cached, "what is whole stays");
    }

    #[tokio::test]
    async fn damaged_blobs_are_refused() {
        let (dir, _fake, images) = setup(&digest_of(b"something else"));
        let error = images.get("x:1", None).await.unwrap_err().to_string();
        assert!(error.contains("is damaged"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path().join("blobs")).unwrap().count(), 0);
    }
}
