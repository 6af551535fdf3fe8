//! Takes directories of this node away when their volumes are deleted: a finalizer holds a volume until that is done.
//! A volume may go without waiting for its node, which was away or thought to be gone for good. So the node notes which
//! directories are to go with their volumes, and takes those away that no volume names any more ([`strays`]).

use std::sync::Arc;

use copepod_api::names::{FINALIZER_LOCAL_PATH, FINALIZER_VOLUME, LABEL_HOSTNAME, LOCAL_PATH};
use copepod_client::events::Severity;
use copepod_client::reflector::revision_of;
use copepod_client::{Key, Outcome, Recorder, Settings, Shared, WorkQueue};
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume};
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::local::{LocalVolumes, Mark, blocking, checked};
use super::strays;

/// Volumes that are seen to at once.
const WORKERS: usize = 4;

/// What is to be done about a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reclaim {
    /// It is not ours to see to.
    Nothing,
    /// It is there: this directory is to go with it.
    Mark(String),
    /// It is there: this directory is to outlive it.
    Unmark(String),
    /// It is deleted, and its directory, if it has one, stays; it is let go.
    Keep(Option<String>),
    /// It is deleted: this directory is taken away; then it is let go.
    Remove(String),
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Item {
    Volume(Key),
    /// The volume of this directory is gone.
    Gone(String),
    /// Directories that no volume names any more.
    Strays,
}

#[derive(Clone)]
struct Reclaimer {
    client: kube::Client,
    volumes: Shared<PersistentVolume>,
    local: LocalVolumes,
    recorder: Recorder,
}

/// Follows this node's volumes until `stop`.
pub async fn run(client: kube::Client, node: String, local: LocalVolumes, recorder: Recorder, stop: CancellationToken) {
    let volumes = Shared::<PersistentVolume>::default();
    let queue = WorkQueue::<Item>::new(Settings::default());
    let q = queue.clone();
    volumes.on_change(move |change| match (&change.old, &change.new) {
        (_, Some(volume)) if decide(volume) != Reclaim::Nothing => q.add(Item::Volume(Key::of(&**volume))),
        (Some(volume), None) => {
            if let Some(directory) = handle(volume) {
                q.add(Item::Gone(directory.into()));
            }
        }
        _ => {}
    });
    let here = watcher::Config::default().labels(&format!("{LABEL_HOSTNAME}={node}"));
    let following = volumes.clone().run(Api::all(client.clone()), here, stop.clone());
    let (listed, q) = (volumes.clone(), queue.clone());
    let starting = async {
        // What went while this agent did not run.
        listed.ready().await;
        q.add(Item::Strays);
    };
    let reclaimer = Reclaimer { client, volumes, local, recorder };
    let q = queue.clone();
    let working = queue.run(WORKERS, stop.clone(), move |item| {
        let (reclaimer, queue) = (reclaimer.clone(), q.clone());
        async move {
            match item {
                Item::Volume(key) => reclaimer.volume(&key).await,
                Item::Gone(directory) => {
                    let (local, name) = (reclaimer.local.clone(), directory.clone());
                    if blocking(move || Ok(local.is_marked(&name))).await != Ok(false) {
                        queue.add(Item::Strays);
                    }
                    Outcome::Done
                }
                Item::Strays => reclaimer.strays().await,
            }
        }
    });
    tokio::join!(following, working, stop.run_until_cancelled(starting));
}

/// What a volume of this provisioner names as its directory.
fn handle(volume: &PersistentVolume) -> Option<&str> {
    let csi = volume.spec.as_ref()?.csi.as_ref()?;
    Some(csi.volume_handle.as_str()).filter(|_| csi.driver == LOCAL_PATH)
}

/// What is to be done about a volume: those that are deleted, no longer bound, and wait for their node, are let go.
fn decide(volume: &PersistentVolume) -> Reclaim {
    let has = |finalizer| volume.metadata.finalizers.iter().flatten().any(|f| f == finalizer);
    let Some(handle) = handle(volume) else { return Reclaim::Nothing };
    let directory = checked(handle).ok().map(str::to_owned);
    let goes = volume.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref()) == Some("Delete");
    let held = has(FINALIZER_LOCAL_PATH) && !has(FINALIZER_VOLUME);
    match (volume.metadata.deletion_timestamp.is_some() && held, directory) {
        (true, Some(directory)) if goes => Reclaim::Remove(directory),
        (true, directory) => Reclaim::Keep(directory),
        (false, Some(directory)) if goes => Reclaim::Mark(directory),
        (false, Some(directory)) => Reclaim::Unmark(directory),
        (false, None) => Reclaim::Nothing,
    }
}

impl Reclaimer {
    async fn volume(&self, key: &Key) -> Outcome {
        let Some(volume) = self.volumes.get(key) else { return Outcome::Done };
        let local = self.local.clone();
        let done = match decide(&volume) {
            Reclaim::Nothing => return Outcome::Done,
            Reclaim::Mark(directory) => return self.mark(directory, revision_of(&*volume)).await,
            Reclaim::Unmark(directory) => {
                return match blocking(move || local.unmark(&directory)).await {
                    Ok(()) => Outcome::Done,
                    Err(why) => retry(&why),
                };
            }
            Reclaim::Keep(None) => Ok(()),
            Reclaim::Keep(Some(directory)) => blocking(move || local.unmark(&directory)).await,
            Reclaim::Remove(directory) => blocking(move || local.remove(&directory)).await,
        };
        match done {
            Ok(()) => self.let_go(&volume).await,
            Err(why) => {
                let about = ObjectReference {
                    api_version: Some("v1".into()),
                    kind: Some("PersistentVolume".into()),
                    name: volume.metadata.name.clone(),
                    uid: volume.metadata.uid.clone(),
                    ..ObjectReference::default()
                };
                self.recorder.event(about, Severity::Warning, "VolumeFailedDelete", &why);
                Outcome::Retry
            }
        }
    }

    /// Notes once that a directory is to go with its volume.
    async fn mark(&self, directory: String, revision: u64) -> Outcome {
        let (local, name) = (self.local.clone(), directory.clone());
        if blocking(move || Ok(local.is_marked(&name))).await == Ok(true) {
            return Outcome::Done;
        }
        let cluster = match strays::cluster(&self.client).await {
            Ok(cluster) => cluster,
            Err(error) => return retry(&error.to_string()),
        };
        let local = self.local.clone();
        match blocking(move || local.mark(&directory, &Mark { cluster, revision })).await {
            Ok(()) => Outcome::Done,
            Err(why) => retry(&why),
        }
    }

    async fn strays(&self) -> Outcome {
        match strays::remove(&self.client, &self.local).await {
            Ok(()) => Outcome::Done,
            Err(why) => retry(&why),
        }
    }

    /// Takes the finalizer off a volume whose directory was seen to.
    async fn let_go(&self, volume: &Arc<PersistentVolume>) -> Outcome {
        let meta = &volume.metadata;
        let rest: Vec<_> = meta.finalizers.iter().flatten().filter(|f| *f != FINALIZER_LOCAL_PATH).collect();
        let patch = json!({"metadata": {
            "uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": rest,
        }});
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        let name = meta.name.as_deref().unwrap_or_default();
        match api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => Outcome::Done,
            Err(kube::Error::Api(status)) if status.code == 404 => Outcome::Done,
            Err(error) => {
                tracing::debug!(volume = meta.name, %error, "volume not let go");
                Outcome::Retry
            }
        }
    }
}

fn retry(why: &str) -> Outcome {
    tracing::warn!("directories of volumes: {why}; trying again");
    Outcome::Retry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_volumes_directories() {
        let mine = json!([FINALIZER_LOCAL_PATH]);
        let deleted = json!("2026-11-21T00:00:00Z");
        let bound = json!([FINALIZER_LOCAL_PATH, FINALIZER_VOLUME]);
        let (remove, keep) = (Reclaim::Remove("pvc-1".into()), Reclaim::Keep(Some("pvc-1".into())));
        let (mark, unmark) = (Reclaim::Mark("pvc-1".into()), Reclaim::Unmark("pvc-1".into()));
        for (deleted, finalizers, driver, directory, policy, expected) in [
            (&deleted, &mine, LOCAL_PATH, "pvc-1", "Delete", remove),
            (&deleted, &mine, LOCAL_PATH, "pvc-1", "Retain", keep),
            (&deleted, &mine, LOCAL_PATH, "../pvc-1", "Delete", Reclaim::Keep(None)),
            (&json!(null), &mine, LOCAL_PATH, "pvc-1", "Delete", mark.clone()),
            (&json!(null), &mine, LOCAL_PATH, "pvc-1", "Retain", unmark.clone()),
            (&json!(null), &mine, LOCAL_PATH, "..", "Delete", Reclaim::Nothing),
            (&deleted, &mine, "other.example", "pvc-1", "Delete", Reclaim::Nothing),
            (&deleted, &json!(["other/one"]), LOCAL_PATH, "pvc-1", "Delete", mark.clone()),
            (&deleted, &bound, LOCAL_PATH, "pvc-1", "Delete", mark),
            (&deleted, &bound, LOCAL_PATH, "pvc-1", "Retain", unmark),
        ] {
            let volume = json!({
                "metadata": {"name": "pv", "deletionTimestamp": deleted, "finalizers": finalizers},
                "spec": {
                    "csi": {"driver": driver, "volumeHandle": directory}, "persistentVolumeReclaimPolicy": policy,
                },
            });
            assert_eq!(decide(&serde_json::from_value(volume.clone()).unwrap()), expected, "{volume}");
        }
    }
}
