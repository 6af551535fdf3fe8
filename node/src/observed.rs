//! What the agent knows of a pod's containers: the input of `pod_actions` and `status`, and what a restart of the node
//! finds again on disk.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use serde::{Deserialize, Serialize};

/// How an instance of a container ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code; 137 when killed, 128 when it could not be started.
    pub code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`.
    pub reason: String,
    /// For people: the trap, for example. May be empty.
    pub message: String,
    /// When the instance started.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// The instance's number, for its container id.
    pub instance: u32,
}

/// Where a container stands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Stage {
    /// No instance of it has run in this sandbox.
    #[default]
    Created,
    /// An instance is being started.
    Starting,
    /// An instance runs.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// The newest instance has ended.
    Exited(Exit),
}

/// Why a container does not run, as users read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// `CrashLoopBackOff`, `ErrImagePull`, ...
    pub reason: String,
    /// What is wrong and what to do.
    pub message: String,
}

/// One container as the agent sees it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Observed {
    /// Where it stands.
    pub stage: Stage,
    /// Shown instead of the stage while it does not run.
    #[serde(default)]
    pub waiting: Option<Waiting>,
    /// How the instance before the newest ended.
    #[serde(default)]
    pub last: Option<Exit>,
    /// Restarts so far.
    #[serde(default)]
    pub restarts: u32,
    /// Instances started so far; the newest one's number plus one.
    #[serde(default)]
    pub instances: u32,
    /// Not to be started before.
    #[serde(default)]
    pub retry_at: Option<Timestamp>,
    /// The back-off that led to `retry_at`; zero: none yet.
    #[serde(default)]
    pub back_off: Duration,
    /// The startup probe has succeeded, or there is none.
    #[serde(default)]
    pub started: bool,
    /// The readiness probe succeeds, or there is none and it has started.
    #[serde(default)]
    pub ready: bool,
    /// Its end has been asked for.
    #[serde(default)]
    pub stopping: bool,
    /// Digest of the image it runs, `sha256:HEX`; empty before it is known.
    #[serde(default)]
    pub image_id: String,
    /// The resources that its newest instance was started with.
    #[serde(default)]
    pub resources: Option<ResourceRequirements>,
}

impl Observed {
    /// Whether an instance exists now.
    pub fn is_alive(&self) -> bool {
        matches!(self.stage, Stage::Running { .. } | Stage::Starting)
    }
    /// How the newest instance ended, if it did.
    pub fn exit(&self) -> Option<&Exit> {
        match &self.stage {
            Stage::Exited(exit) => Some(exit),
            _ => None,
        }
    }
    /// Whether an instance ran to its end with exit code 0.
    pub fn succeeded(&self) -> bool {
        self.exit().is_some_and(|e| e.code == 0)
    }
    /// The newest instance's number.
    pub fn instance(&self) -> u32 {
        self.instances.saturating_sub(1)
    }

    /// An instance is about to start.
    pub fn begin(&mut self) {
        if let Stage::Exited(exit) = &self.stage {
            self.last = Some(exit.clone());
        }
        if self.instances > 0 {
            self.restarts = self.restarts.saturating_add(1);
        }
        self.instances = self.instances.saturating_add(1);
        self.stage = Stage::Starting;
        self.retry_at = None;
        (self.started, self.ready, self.stopping) = (false, false, false);
    }

    /// The instance runs since `now`.
    pub fn running(&mut self, now: Timestamp) {
        self.stage = Stage::Running { since: now };
        self.waiting = None;
    }

    /// The newest instance ended. The first end, and one after a long run, is retried at once; others
    /// after a back-off that doubles.
    pub fn exited(&mut self, exit: Exit, policy: BackOff) {
        let ran = exit.finished_at.duration_since(exit.started_at).unsigned_abs();
        if self.restarts == 0 || ran >= policy.reset_after {
            self.back_off = Duration::ZERO;
            self.retry_at = None;
        } else {
            self.delay(exit.finished_at, policy);
        }
        self.stage = Stage::Exited(exit);
        self.waiting = None;
        (self.started, self.ready, self.stopping) = (false, false, false);
    }

    /// It could not be started (no instance was made): tried again after a back-off.
    pub fn not_started(&mut self, waiting: Waiting, now: Timestamp, policy: BackOff) {
        self.waiting = Some(waiting);
        self.delay(now, policy);
    }

    fn delay(&mut self, from: Timestamp, policy: BackOff) {
        self.back_off = policy.next(self.back_off);
        self.retry_at = from.checked_add(self.back_off).ok();
    }
}

/// Delays between restarts of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackOff {
    /// The first delay.
    pub initial: Duration,
    /// The longest.
    pub max: Duration,
    /// A run this long forgets the delays before it.
    pub reset_after: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        Self { initial: Duration::from_secs(10), max: Duration::from_secs(300), reset_after: Duration::from_secs(600) }
    }
}

impl BackOff {
    /// The delay after `current`; zero stands for none yet.
    pub fn next(&self, current: Duration) -> Duration {
        if current.is_zero() { self.initial } else { current.saturating_mul(2).min(self.max) }
    }
}

/// All containers of a pod, by name.
pub type Containers = BTreeMap<String, Observed>;

/// A pod's identity and names, once parsed out of its metadata.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

impl PodKey {
    /// The key of a pod that a server has stored; `None` if it has no name, namespace or UID.
    pub fn of(pod: &Pod) -> Option<Self> {
        let m = &pod.metadata;
        Some(Self { namespace: m.namespace.clone()?, name: m.name.clone()?, uid: m.uid.clone()? })
    }
}

impl std::fmt::Display for PodKey {
    /// `name_namespace(uid)`, as the kubelet prints it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}_{}({})", self.name, self.namespace, self.uid)
    }
}

/// A pod's restart policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Whatever the exit code.
    Always,
    /// When the exit code is not 0.
    OnFailure,
    /// Not at all.
    Never,
}

impl RestartPolicy {
    /// The pod's policy; the default is `Always`.
    pub fn of(spec: &PodSpec) -> Self {
        match spec.restart_policy.as_deref() {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }
    /// Whether a container that ended with `code` runs again.
    pub fn restarts(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// Whether an init container is a sidecar: it keeps running beside the pod's containers.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// A pod's init containers, in order.
pub fn init_containers(spec: &PodSpec) -> &[Container] {
    spec.init_containers.as_deref().unwrap_or_default()
}

/// Prepares what a former run of the agent knew for a new sandbox: what ran is gone, and is started anew unless the
/// pod has ended. The first start after this is not delayed.
pub fn after_node_restart(spec: &PodSpec, containers: &mut Containers, now: Timestamp) {
    for seen in containers.values_mut() {
        seen.retry_at = None;
        if seen.is_alive() {
            let started_at = if let Stage::Running { since } = seen.stage { since } else { now };
            seen.stage = Stage::Exited(Exit {
                code: 137,
                reason: "ContainerStatusUnknown".into(),
                message: "the node agent restarted while the container was running".into(),
                started_at,
                finished_at: now,
                instance: seen.instance(),
            });
            (seen.started, seen.ready, seen.stopping) = (false, false, false);
        }
    }
    if crate::pod_actions::outcome(spec, containers).is_some() {
        return;
    }
    // Memory volumes are empty again, so initialisation has to be repeated.
    for init in init_containers(spec) {
        if let Some(seen) = containers.get_mut(&init.name)
            && let Stage::Exited(exit) = &seen.stage
        {
            seen.last = Some(exit.clone());
            seen.stage = Stage::Created;
        }
    }
}
