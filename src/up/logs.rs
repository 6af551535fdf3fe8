//! Follows the logs of the app's pods, new ones included.

use std::collections::{BTreeSet, HashSet};

use anyhow::Result;
use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, LogParams};
use kube::runtime::{WatchStreamExt, watcher};

use super::apply::Applied;

/// Most logs followed at once; further pods are left to `kubectl logs`.
const MAX_FOLLOWED: usize = 64;

/// Prints the lines of all containers in the app's namespaces until the watch ends.
pub async fn follow(client: &kube::Client, applied: &[Applied]) -> Result<()> {
    let namespaces: BTreeSet<String> = applied.iter().filter_map(Applied::namespace).collect();
    let mut tasks = tokio::task::JoinSet::new();
    for namespace in namespaces {
        tasks.spawn(follow_namespace(Api::namespaced(client.clone(), &namespace)));
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    Ok(())
}

async fn follow_namespace(pods: Api<Pod>) -> Result<()> {
    let mut changes =
        std::pin::pin!(watcher(pods.clone(), watcher::Config::default()).default_backoff().applied_objects());
    let mut followed = HashSet::new();
    while let Some(pod) = changes.try_next().await? {
        let Some(name) = pod.metadata.name.clone() else { continue };
        let statuses = pod.status.and_then(|s| s.container_statuses).unwrap_or_default();
        for status in statuses {
            let running = status.state.as_ref().is_some_and(|s| s.running.is_some());
            let key = (name.clone(), status.name.clone(), status.restart_count);
            if running && followed.len() < MAX_FOLLOWED && followed.insert(key) {
                tokio::spawn(print(pods.clone(), name.clone(), status.name));
            }
        }
    }
    Ok(())
}

/// One container's log, each line behind its pod's name. Ends with the container.
async fn print(pods: Api<Pod>, pod: String, container: String) {
    let options = LogParams { follow: true, container: Some(container.clone()), ..LogParams::default() };
    let Ok(stream) = pods.log_stream(&pod, &options).await else { return };
    let mut lines = stream.lines();
    while let Ok(Some(line)) = lines.try_next().await {
        println!("[{pod} {container}] {line}");
    }
}
