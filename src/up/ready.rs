//! Waits until what was applied is ready, and says what it waits for.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DynamicObject};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::apply::Applied;

/// Waits for every applied object; kinds without readiness are ready at once.
///
/// # Errors
/// The time is over: says what is missing, with the pods' own reasons.
pub async fn wait(client: &kube::Client, applied: &[Applied], limit: Duration) -> Result<()> {
    let progress = indicatif::ProgressBar::new_spinner();
    progress.enable_steady_tick(Duration::from_millis(100));
    let all = async {
        for one in applied {
            wait_one(client, one, &progress).await?;
        }
        Ok(())
    };
    let outcome = tokio::time::timeout(limit, all).await;
    progress.finish_and_clear();
    match outcome {
        Ok(outcome) => outcome,
        Err(_) => {
            let mut reasons = BTreeSet::new();
            for namespace in applied.iter().filter_map(Applied::namespace).collect::<BTreeSet<_>>() {
                let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
                reasons.extend(pods.list(&Default::default()).await?.items.iter().filter_map(trouble));
            }
            bail!("not ready after {} s\n{}", limit.as_secs(), reasons.into_iter().collect::<Vec<_>>().join("\n"))
        }
    }
}

/// Waits until a node port leads somewhere: a connection that nothing answers is closed at once.
pub async fn wait_port(address: &str, limit: Duration) {
    let attempt = async {
        loop {
            if let Ok(mut stream) = TcpStream::connect(address).await {
                // Open after a moment without a word from us: somebody waits for a request at the other end.
                let closed = tokio::time::timeout(Duration::from_millis(30), stream.read_u8()).await;
                if !matches!(closed, Ok(Err(_))) {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    // The URL is printed either way; a port that is taken by another program says so in an event.
    let _ = tokio::time::timeout(limit, attempt).await;
}

async fn wait_one(client: &kube::Client, one: &Applied, progress: &indicatif::ProgressBar) -> Result<()> {
    if !matches!(one.kind(), "Deployment" | "Pod") {
        return Ok(());
    }
    let only = watcher::Config::default().fields(&format!("metadata.name={}", one.name()));
    let mut changes = std::pin::pin!(watcher(one.api(client), only).default_backoff().applied_objects());
    while let Some(object) = changes.try_next().await? {
        match state(one.kind(), &object) {
            State::Ready => return Ok(()),
            State::Failed(why) => bail!("{} {}: {why}", one.kind().to_ascii_lowercase(), one.name()),
            State::Waiting(what) => {
                progress.set_message(format!("{} {}: {what}", one.kind().to_ascii_lowercase(), one.name()))
            }
        }
    }
    bail!("the watch on {} {} ended", one.kind(), one.name())
}

#[derive(Debug, PartialEq)]
enum State {
    Ready,
    Failed(String),
    Waiting(String),
}

/// Whether an object is ready, as `kubectl rollout status` and `kubectl wait` judge it.
fn state(kind: &str, object: &DynamicObject) -> State {
    let number = |pointer: &str| object.data.pointer(pointer).and_then(Value::as_i64).unwrap_or(0);
    if kind == "Deployment" {
        let wanted = object.data.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or(1);
        let seen = number("/status/observedGeneration") >= object.metadata.generation.unwrap_or(0);
        let (total, updated, available) =
            (number("/status/replicas"), number("/status/updatedReplicas"), number("/status/availableReplicas"));
        return if seen && updated == wanted && total == wanted && available == wanted {
            State::Ready
        } else {
            State::Waiting(format!("{available} of {wanted} replicas available"))
        };
    }
    let phase = object.data.pointer("/status/phase").and_then(Value::as_str).unwrap_or("Pending");
    let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions.into_iter().flatten().any(|c| {
        c.get("type").and_then(Value::as_str) == Some("Ready")
            && c.get("status").and_then(Value::as_str) == Some("True")
    });
    if phase == "Failed" {
        let statuses = object.data.pointer("/status/containerStatuses").and_then(Value::as_array);
        let ended = statuses.into_iter().flatten().filter_map(|s| s.pointer("/state/terminated"));
        let failed = ended.filter(|t| t.get("exitCode").and_then(Value::as_i64) != Some(0));
        let why: Vec<String> = failed
            .map(|t| {
                format!(
                    "exit code {} {}",
                    t.get("exitCode").unwrap_or(&Value::Null),
                    t.get("message").and_then(Value::as_str).unwrap_or_default()
                )
            })
            .collect();
        return State::Failed(format!("failed: {}", why.join("; ")));
    }
    if ready || phase == "Succeeded" { State::Ready } else { State::Waiting(phase.to_string()) }
}

/// Why a pod does not run, if it says so.
fn trouble(pod: &Pod) -> Option<String> {
    let name = pod.metadata.name.as_deref()?;
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find_map(|s| {
        let waiting = s.state.as_ref()?.waiting.as_ref()?;
        let last = s.last_state.as_ref().and_then(|l| l.terminated.as_ref()).and_then(|t| t.message.as_deref());
        let message = [waiting.message.as_deref(), last].into_iter().flatten().collect::<Vec<_>>().join("; ");
        Some(format!(
            "  pod {name}, container {}: {}: {message}",
            s.name,
            waiting.reason.as_deref().unwrap_or("waiting")
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn readiness() {
        let object = |v: Value| serde_json::from_value::<DynamicObject>(v).unwrap();
        let deployment = |seen: i64, available: i64| {
            object(
                json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "generation": 2}, "spec": {"replicas": 3},
                "status": {"observedGeneration": seen, "replicas": 3, "updatedReplicas": 3, "availableReplicas": available}}),
            )
        };
        assert_eq!(state("Deployment", &deployment(2, 3)), State::Ready);
        assert_eq!(state("Deployment", &deployment(1, 3)), State::Waiting("3 of 3 replicas available".into()));
        assert_eq!(state("Deployment", &deployment(2, 1)), State::Waiting("1 of 3 replicas available".into()));
        let pod = object(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}));
        assert_eq!(state("Pod", &pod), State::Ready);
    }
}
