//! Writes a pod's status to the API server: the newest one only, and only what changed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use tokio::sync::watch;

use crate::pod_worker::Desired;

/// The first delay after a failed write; doubles up to [`RETRY_MAX`].
pub const RETRY_INITIAL: Duration = Duration::from_millis(500);
/// The longest delay between attempts to write.
pub const RETRY_MAX: Duration = Duration::from_secs(30);

/// Why a write failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteError {
    /// The pod is gone, or its name belongs to another UID now: writing on is pointless.
    Gone,
    /// Anything else, worth another try.
    Retry(String),
}

/// What a pod worker writes.
#[async_trait]
pub trait PodApi: Send + Sync + 'static {
    /// Patches the status from what `current` has to `desired`; the new object, or `None` if nothing differed.
    async fn patch_status(&self, current: &Pod, desired: &PodStatus) -> Result<Option<Pod>, WriteError>;
    /// Removes the object for good: grace period 0, this UID only.
    async fn remove(&self, pod: &Pod) -> Result<(), WriteError>;
}

/// The API server.
pub struct KubePods {
    client: kube::Client,
}

impl KubePods {
    /// Writes with this client.
    pub fn new(client: kube::Client) -> Self {
        Self { client }
    }
    fn api(&self, pod: &Pod) -> Api<Pod> {
        Api::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or("default"))
    }
}

fn classify(error: kube::Error) -> WriteError {
    match &error {
        kube::Error::Api(status) if status.code == 404 || status.code == 409 || status.code == 422 => WriteError::Gone,
        _ => WriteError::Retry(error.to_string()),
    }
}

#[async_trait]
impl PodApi for KubePods {
    async fn patch_status(&self, current: &Pod, desired: &PodStatus) -> Result<Option<Pod>, WriteError> {
        copepod_client::patch::status(&self.api(current), current, desired).await.map_err(classify)
    }
    async fn remove(&self, pod: &Pod) -> Result<(), WriteError> {
        let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        self.api(pod).delete(name, &params).await.map(drop).map_err(classify)
    }
}

/// Follows the newest desired status until its sender is dropped and all is written. Returns the pod as last written.
/// `observed` is the pod as the server shows it: when others changed what the agent is the authority on (the node
/// controller marks the pods of a silent node not ready), it is written again.
pub async fn publish(
    api: Arc<dyn PodApi>,
    mut base: Pod,
    mut desired: watch::Receiver<Option<PodStatus>>,
    mut observed: watch::Receiver<Desired>,
) -> Pod {
    let mut watching = true;
    loop {
        let open = tokio::select! {
            changed = desired.changed() => changed.is_ok(),
            changed = observed.changed(), if watching => {
                watching = changed.is_ok();
                let pod = observed.borrow_and_update().pod.clone();
                let wanted = desired.borrow().clone();
                match (&pod.status, &wanted) {
                    (Some(shown), Some(wanted)) if is_newer(&pod, &base) && has_drifted(shown, wanted) => {
                        base.metadata.resource_version = pod.metadata.resource_version.clone();
                        base.status.get_or_insert_default().conditions = shown.conditions.clone();
                    }
                    _ => continue,
                }
                true
            }
        };
        let mut delay = RETRY_INITIAL;
        loop {
            let Some(status) = desired.borrow_and_update().clone() else { break };
            match api.patch_status(&base, &status).await {
                Ok(written) => {
                    if let Some(written) = written {
                        base = written;
                    }
                    // What the server holds now, whatever it made of fields it does not keep.
                    base.status = Some(status);
                    break;
                }
                Err(WriteError::Gone) => return base,
                Err(WriteError::Retry(why)) => {
                    tracing::debug!(pod = base.metadata.name, "status not written yet: {why}");
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(RETRY_MAX);
                }
            }
        }
        if !open {
            return base;
        }
    }
}

/// Whether `pod` is a later state than `than`: revisions are decimal numbers that may be compared.
fn is_newer(pod: &Pod, than: &Pod) -> bool {
    let revision = |p: &Pod| p.metadata.resource_version.as_deref().and_then(|r| r.parse::<u64>().ok()).unwrap_or(0);
    revision(pod) > revision(than)
}

/// Whether a condition that the agent sets stands otherwise on the server.
fn has_drifted(shown: &PodStatus, wanted: &PodStatus) -> bool {
    let on_server = |kind: &str| shown.conditions.iter().flatten().find(|c| c.type_ == kind).map(|c| c.status.as_str());
    wanted.conditions.iter().flatten().any(|c| on_server(&c.type_) != Some(c.status.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[derive(Default)]
    struct Flaky {
        failures: Mutex<u32>,
        written: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl PodApi for Flaky {
        async fn patch_status(&self, current: &Pod, desired: &PodStatus) -> Result<Option<Pod>, WriteError> {
            if current.status.as_ref() == Some(desired) {
                return Ok(None);
            }
            let mut failures = self.failures.lock();
            if *failures > 0 {
                *failures -= 1;
                return Err(WriteError::Retry("down".into()));
            }
            self.written.lock().push(desired.phase.clone().unwrap());
            Ok(Some(current.clone()))
        }
        async fn remove(&self, _pod: &Pod) -> Result<(), WriteError> {
            Ok(())
        }
    }

    fn phase(p: &str) -> Option<PodStatus> {
        Some(PodStatus { phase: Some(p.into()), ..PodStatus::default() })
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_newest_is_written_and_nothing_is_lost() {
        let api = Arc::new(Flaky { failures: Mutex::new(3), ..Flaky::default() });
        let (to, from) = watch::channel(None);
        to.send_replace(phase("Pending"));
        let (_seen, observed) = watch::channel(Desired { pod: Arc::default(), gone: false });
        let task = tokio::spawn(publish(api.clone(), Pod::default(), from, observed));
        while *api.failures.lock() > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        to.send_replace(phase("Running"));
        to.send_replace(phase("Succeeded"));
        drop(to);
        let last = task.await.unwrap();
        assert_eq!(*api.written.lock(), ["Succeeded"]);
        assert_eq!(last.status, phase("Succeeded"));
    }

    fn pod(revision: &str, ready: &str) -> Pod {
        serde_json::from_value(serde_json::json!({"metadata": {"name": "p", "resourceVersion": revision},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}}))
        .unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_changed_is_written_again() {
        let api = Arc::new(Flaky::default());
        let (to, from) = watch::channel(None);
        let (seen, observed) = watch::channel(Desired { pod: Arc::default(), gone: false });
        let task = tokio::spawn(publish(api.clone(), Pod::default(), from, observed));
        let written = |n: usize| {
            let api = api.clone();
            async move {
                while api.written.lock().len() < n {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        };
        to.send_replace(pod("1", "True").status);
        written(1).await;
        // The node controller gave the node up; then the same news again, already known to be overwritten.
        seen.send_replace(Desired { pod: Arc::new(pod("7", "False")), gone: false });
        written(2).await;
        seen.send_replace(Desired { pod: Arc::new(pod("7", "False")), gone: false });
        seen.send_replace(Desired { pod: Arc::new(pod("9", "True")), gone: false });
        drop(to);
        task.await.unwrap();
        assert_eq!(api.written.lock().len(), 2);
    }
}
