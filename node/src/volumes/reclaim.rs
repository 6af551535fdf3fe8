//! Takes directories of this node away when their volumes are deleted: a finalizer holds a volume until that is done.

use std::sync::Arc;

use copepod_api::names::{FINALIZER_LOCAL_PATH, FINALIZER_VOLUME, LABEL_HOSTNAME, LOCAL_PATH};
use copepod_client::events::Severity;
use copepod_client::{Key, Outcome, Recorder, Settings, Shared, WorkQueue};
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume};
use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::local::{LocalVolumes, checked};

/// Volumes that are seen to at once.
const WORKERS: usize = 4;

/// What is to be done about a deleted volume.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Reclaim {
    /// It is not ours to see to, or not yet.
    Nothing,
    /// Its directory stays; it is let go.
    Keep,
    /// The directory of this name is taken away; then it is let go.
    Remove(String),
}

/// Follows this node's volumes until `stop`.
pub async fn run(client: kube::Client, node: String, local: LocalVolumes, recorder: Recorder, stop: CancellationToken) {
    let volumes = Shared::<PersistentVolume>::default();
    let queue = WorkQueue::<Key>::new(Settings::default());
    let q = queue.clone();
    volumes.on_change(move |change| {
        if let Some(volume) = change.new.as_ref().filter(|v| decide(v) != Reclaim::Nothing) {
            q.add(Key::of(&**volume));
        }
    });
    let api: Api<PersistentVolume> = Api::all(client);
    let here = watcher::Config::default().labels(&format!("{LABEL_HOSTNAME}={node}"));
    let following = volumes.clone().run(api.clone(), here, stop.clone());
    let working = queue.run(WORKERS, stop, move |key| {
        let (volume, api, local, recorder) = (volumes.get(&key), api.clone(), local.clone(), recorder.clone());
        async move {
            match volume {
                Some(volume) => reclaim(&api, local, &recorder, volume).await,
                None => Outcome::Done,
            }
        }
    });
    tokio::join!(following, working);
}

/// Whether a volume of this provisioner is being deleted, no longer bound, and waits for its node.
fn decide(volume: &PersistentVolume) -> Reclaim {
    let has = |finalizer| volume.metadata.finalizers.iter().flatten().any(|f| f == finalizer);
    let spec = volume.spec.as_ref();
    let Some(csi) = spec.and_then(|s| s.csi.as_ref()).filter(|csi| csi.driver == LOCAL_PATH) else {
        return Reclaim::Nothing;
    };
    if volume.metadata.deletion_timestamp.is_none() || has(FINALIZER_VOLUME) || !has(FINALIZER_LOCAL_PATH) {
        return Reclaim::Nothing;
    }
    match spec.and_then(|s| s.persistent_volume_reclaim_policy.as_deref()) {
        Some("Delete") if checked(&csi.volume_handle).is_ok() => Reclaim::Remove(csi.volume_handle.clone()),
        _ => Reclaim::Keep,
    }
}

async fn reclaim(
    api: &Api<PersistentVolume>,
    local: LocalVolumes,
    recorder: &Recorder,
    volume: Arc<PersistentVolume>,
) -> Outcome {
    let meta = &volume.metadata;
    let removed = match decide(&volume) {
        Reclaim::Nothing => return Outcome::Done,
        Reclaim::Keep => Ok(()),
        Reclaim::Remove(directory) => {
            let removing = tokio::task::spawn_blocking(move || local.remove(&directory)).await;
            removing.unwrap_or_else(|e| Err(e.to_string()))
        }
    };
    if let Err(why) = removed {
        let about = ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("PersistentVolume".into()),
            name: meta.name.clone(),
            uid: meta.uid.clone(),
            ..ObjectReference::default()
        };
        recorder.event(about, Severity::Warning, "VolumeFailedDelete", &why);
        return Outcome::Retry;
    }
    let rest: Vec<_> = meta.finalizers.iter().flatten().filter(|f| *f != FINALIZER_LOCAL_PATH).collect();
    let patch = json!({"metadata": {
        "uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": rest,
    }});
    match api.patch(meta.name.as_deref().unwrap_or_default(), &PatchParams::default(), &Patch::Merge(&patch)).await {
        Ok(_) => Outcome::Done,
        Err(kube::Error::Api(status)) if status.code == 404 => Outcome::Done,
        Err(error) => {
            tracing::debug!(volume = meta.name, %error, "volume not let go");
            Outcome::Retry
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_deleted_volumes_that_are_no_longer_bound_are_seen_to() {
        let mine = json!([FINALIZER_LOCAL_PATH]);
        let deleted = json!("2026-11-21T00:00:00Z");
        let remove = Reclaim::Remove("pvc-1".into());
        let bound = json!([FINALIZER_LOCAL_PATH, FINALIZER_VOLUME]);
        for (deleted, finalizers, driver, directory, policy, expected) in [
            (&deleted, &mine, LOCAL_PATH, "pvc-1", "Delete", remove),
            (&deleted, &mine, LOCAL_PATH, "pvc-1", "Retain", Reclaim::Keep),
            (&deleted, &mine, LOCAL_PATH, "../pvc-1", "Delete", Reclaim::Keep),
            (&json!(null), &mine, LOCAL_PATH, "pvc-1", "Delete", Reclaim::Nothing),
            (&deleted, &mine, "other.example", "pvc-1", "Delete", Reclaim::Nothing),
            (&deleted, &json!(["other/one"]), LOCAL_PATH, "pvc-1", "Delete", Reclaim::Nothing),
            (&deleted, &bound, LOCAL_PATH, "pvc-1", "Delete", Reclaim::Nothing),
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
