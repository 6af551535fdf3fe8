//! What survives a restart of the agent: one small file per pod.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::observed::Containers;

/// A pod's state on disk.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// The pod's addresses, kept over a restart where possible.
    pub ips: Vec<IpAddr>,
    /// Its containers.
    pub containers: Containers,
}

/// The directory of all pods' checkpoints.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    dir: PathBuf,
}

impl Checkpoints {
    /// Uses a directory, making it if need be.
    pub fn open(dir: impl Into<PathBuf>) -> std::io::Result<Self> {
        let dir = dir.into();
        std::fs::create_dir_all(&dir)?;
        Ok(Self { dir })
    }

    fn path(&self, uid: &str) -> PathBuf {
        self.dir.join(format!("{}.json", safe(uid)))
    }

    /// Writes a pod's state; readers see the old or the new one, never a part.
    pub async fn save(&self, uid: &str, checkpoint: &Checkpoint) -> std::io::Result<()> {
        let bytes = serde_json::to_vec(checkpoint)?;
        let path = self.path(uid);
        let temporary = path.with_extension("tmp");
        tokio::fs::write(&temporary, bytes).await?;
        tokio::fs::rename(&temporary, &path).await
    }

    /// A pod's state, if it was saved; a damaged file counts as none.
    pub async fn load(&self, uid: &str) -> Option<Checkpoint> {
        let bytes = tokio::fs::read(self.path(uid)).await.ok()?;
        serde_json::from_slice(&bytes).inspect_err(|e| tracing::warn!(uid, "checkpoint is damaged: {e}")).ok()
    }

    /// Forgets a pod.
    pub async fn remove(&self, uid: &str) {
        let _ = tokio::fs::remove_file(self.path(uid)).await;
    }

    /// The UIDs of all saved pods with their states.
    pub async fn all(&self) -> Vec<(String, Checkpoint)> {
        let mut out = Vec::new();
        let Ok(mut entries) = tokio::fs::read_dir(&self.dir).await else { return out };
        while let Ok(Some(entry)) = entries.next_entry().await {
            let path = entry.path();
            if path.extension().is_some_and(|e| e == "json")
                && let Some(uid) = path.file_stem().and_then(|s| s.to_str())
                && let Some(found) = self.load(uid).await
            {
                out.push((uid.to_string(), found));
            }
        }
        out
    }
}

/// A name made safe as one path component: UIDs and names of the API are already, whatever else is not.
pub fn safe(name: &str) -> String {
    let kept: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' }).take(253).collect();
    if kept.chars().all(|c| c == '.') { "_".into() } else { kept }
}

/// A pod's log directory: `NAMESPACE_NAME_UID` under the logs' root.
pub fn log_dir(root: &Path, namespace: &str, name: &str, uid: &str) -> PathBuf {
    root.join(format!("{}_{}_{}", safe(namespace), safe(name), safe(uid)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::Observed;

    #[tokio::test]
    async fn survives_and_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let store = Checkpoints::open(dir.path().join("pods")).unwrap();
        let c = Checkpoint {
            namespace: "n".into(),
            name: "p".into(),
            ips: vec!["10.64.0.2".parse().unwrap()],
            containers: [("a".to_string(), Observed { restarts: 3, ..Observed::default() })].into(),
        };
        store.save("u-1", &c).await.unwrap();
        assert_eq!(store.load("u-1").await, Some(c.clone()));
        std::fs::write(dir.path().join("pods/bad.json"), "{").unwrap();
        assert_eq!(store.all().await, [("u-1".to_string(), c)]);
        store.remove("u-1").await;
        assert_eq!(store.load("u-1").await, None);
    }

    #[test]
    fn names_stay_one_component() {
        for (name, expected) in [("a-b.c", "a-b.c"), ("../x", ".._x"), ("..", "_"), ("", "_")] {
            assert_eq!(safe(name), expected);
        }
    }
}
