//! All pods bound to this node: starts, feeds and finds their workers.

use std::collections::HashMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::observed::PodKey;
use crate::pod_worker::{Desired, PodWorker, Shared, View};

struct Entry {
    key: PodKey,
    desired: watch::Sender<Desired>,
    view: Arc<RwLock<View>>,
}

/// A pod found by its name.
#[derive(Clone)]
pub struct Found {
    /// Its identity.
    pub key: PodKey,
    /// The object.
    pub pod: Arc<Pod>,
    /// Its containers and logs.
    pub view: Arc<RwLock<View>>,
}

/// The node's pods by UID: a pod that is deleted and made anew under the same name has two workers for a while.
pub struct Pods {
    shared: Arc<Shared>,
    entries: Arc<Mutex<HashMap<String, Entry>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Pods {
    /// No pods yet.
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, entries: Arc::default(), tasks: TaskTracker::new(), stop: CancellationToken::new() }
    }

    /// What the workers share.
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// A pod is bound to this node, or has changed.
    pub fn upsert(&self, pod: Arc<Pod>) {
        let Some(key) = PodKey::of(&pod) else { return };
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get(&key.uid) {
            entry.desired.send_replace(Desired { pod, gone: false });
            return;
        }
        let (desired, receiver) = watch::channel(Desired { pod, gone: false });
        let view = Arc::<RwLock<View>>::default();
        let work = PodWorker::run(self.shared.clone(), key.clone(), receiver, view.clone(), self.stop.clone());
        let (uid, all) = (key.uid.clone(), self.entries.clone());
        self.tasks.spawn(async move {
            work.await;
            all.lock().remove(&uid);
        });
        entries.insert(key.uid.clone(), Entry { key, desired, view });
    }

    /// A pod's object is gone.
    pub fn gone(&self, uid: &str) {
        if let Some(entry) = self.entries.lock().get(uid) {
            entry.desired.send_modify(|d| d.gone = true);
        }
    }

    /// After a complete list: ends pods that are not in it, and forgets what the disk still knows of such.
    pub async fn retain(&self, uids: &std::collections::HashSet<String>) {
        let stray: Vec<String> = self.entries.lock().keys().filter(|u| !uids.contains(*u)).cloned().collect();
        stray.iter().for_each(|uid| self.gone(uid));
        for (uid, saved) in self.shared.checkpoints.all().await {
            if !uids.contains(&uid) && !self.entries.lock().contains_key(&uid) {
                saved.ips.iter().for_each(|ip| self.shared.ips.lock().release(&uid, *ip));
                self.shared.checkpoints.remove(&uid).await;
                let dir = crate::checkpoint::log_dir(&self.shared.logs, &saved.namespace, &saved.name, &uid);
                let _ = tokio::fs::remove_dir_all(dir).await;
            }
        }
    }

    /// Finds a pod by its name; of two with the same name, the one that is not being deleted.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Found> {
        let entries = self.entries.lock();
        let named = entries.values().filter(|e| e.key.namespace == namespace && e.key.name == name);
        let found = named.max_by_key(|e| e.desired.borrow().pod.metadata.deletion_timestamp.is_none())?;
        Some(Found { key: found.key.clone(), pod: found.desired.borrow().pod.clone(), view: found.view.clone() })
    }

    /// All pods.
    pub fn all(&self) -> Vec<Found> {
        let entries = self.entries.lock();
        entries
            .values()
            .map(|e| Found { key: e.key.clone(), pod: e.desired.borrow().pod.clone(), view: e.view.clone() })
            .collect()
    }

    /// Ends all guests; their pods stay bound and go on when the agent starts again.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
