//! One task per pod UID: observes its containers, asks `pod_actions` what to do, does it, and reports the status.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, PodSpec, PodStatus};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::checkpoint::{Checkpoint, Checkpoints, log_dir, safe};
use crate::fabric::Fabric;
use crate::logs::ContainerLog;
use crate::observed::{
    BackOff, Containers, Exit, Observed, PodKey, Stage, Waiting, after_node_restart, init_containers,
};
use crate::pod_actions::{self, Action, Plan};
use crate::pod_ips::PodIps;
use crate::probes::{self, Probes};
use crate::publish::{self, PodApi, WriteError};
use crate::refs::{self, Needed};
use crate::runtime::{ContainerExit, PodRuntime, PodSandbox, RunningContainer, SandboxSpec};
use crate::start::{NotStarted, Started, Starter, Tell, hostname};
use crate::status::{self, Surroundings};
use crate::volumes;

/// How often files of configMap, secret and downwardAPI volumes are brought up to date.
pub const VOLUME_REFRESH: Duration = Duration::from_secs(15);
/// Waiting messages, reports and exits of a pod that may queue up.
const MAX_QUEUED: usize = 64;

/// Records an event: about what, whether it is a warning, reason, message.
pub type Record = Arc<dyn Fn(ObjectReference, bool, &str, &str) + Send + Sync>;

/// What all pod workers of a node share.
pub struct Shared {
    /// Hosts the pods.
    pub runtime: Arc<dyn PodRuntime>,
    /// The pod network.
    pub fabric: Arc<Fabric>,
    /// Starts containers.
    pub starter: Starter,
    /// Writes status.
    pub api: Arc<dyn PodApi>,
    /// Records events.
    pub record: Record,
    /// Survives restarts.
    pub checkpoints: Checkpoints,
    /// Root of the logs.
    pub logs: PathBuf,
    /// Pod addresses.
    pub ips: Mutex<PodIps>,
    /// Delays between restarts.
    pub back_off: BackOff,
    /// Delays after what is missing (ConfigMaps, volumes).
    pub retry: BackOff,
}

/// What others may see of a running pod: for logs and statistics.
#[derive(Default)]
pub struct View {
    /// Its containers.
    pub containers: Containers,
    /// The newest log of each container that runs or ran under this agent.
    pub logs: HashMap<String, Arc<ContainerLog>>,
    /// Running instances.
    pub handles: HashMap<String, Arc<dyn RunningContainer>>,
}

/// What is asked of a worker.
#[derive(Clone)]
pub struct Desired {
    /// The newest object.
    pub pod: Arc<Pod>,
    /// The object is gone from the server: end at once and write nothing.
    pub gone: bool,
}

enum Note {
    Started(String, u32, Result<Started, NotStarted>),
    Exited(String, u32, ContainerExit),
    Sandbox(Result<Arc<dyn PodSandbox>, String>),
}

struct Live {
    handle: Arc<dyn RunningContainer>,
    log: Arc<ContainerLog>,
    probes: Probes,
}

/// A pod's task.
pub struct PodWorker {
    shared: Arc<Shared>,
    key: PodKey,
    pod: Arc<Pod>,
    desired: watch::Receiver<Desired>,
    view: Arc<RwLock<View>>,
    seen: Containers,
    live: HashMap<String, Live>,
    starting: HashMap<String, AbortHandle>,
    sandbox: Option<Arc<dyn PodSandbox>>,
    sandbox_retry: Option<(tokio::time::Instant, Duration)>,
    preparing: bool,
    ips: Vec<IpAddr>,
    before: PodStatus,
    saved: Option<Checkpoint>,
    notes: mpsc::Sender<Note>,
    tasks: JoinSet<()>,
}

impl PodWorker {
    /// Runs a pod until its object is gone, or until the agent stops: guests end then, and the checkpoint stays.
    pub async fn run(
        shared: Arc<Shared>,
        key: PodKey,
        desired: watch::Receiver<Desired>,
        view: Arc<RwLock<View>>,
        stop: CancellationToken,
    ) {
        let (notes, mut inbox) = mpsc::channel(MAX_QUEUED);
        let (reports, mut probe_reports) = mpsc::channel(MAX_QUEUED);
        let pod = desired.borrow().pod.clone();
        let mut worker = Self {
            before: pod.status.clone().unwrap_or_default(),
            shared,
            key,
            pod,
            desired,
            view,
            seen: Containers::new(),
            live: HashMap::new(),
            starting: HashMap::new(),
            sandbox: None,
            sandbox_retry: None,
            preparing: false,
            ips: Vec::new(),
            saved: None,
            notes,
            tasks: JoinSet::new(),
        };
        worker.restore().await;
        let (status, statuses) = watch::channel(None);
        let publishing = tokio::spawn(publish::publish(
            worker.shared.api.clone(),
            (*worker.pod).clone(),
            statuses,
            worker.desired.clone(),
        ));
        let mut refresh = tokio::time::interval(VOLUME_REFRESH);
        refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        refresh.reset();
        loop {
            let plan = worker.plan();
            worker.act(&plan);
            if plan.done {
                worker.take_down().await;
            }
            let ended = plan.done && worker.deleting();
            worker.report(&status, ended);
            worker.save().await;
            let gone = worker.desired.borrow().gone;
            if ended || (gone && plan.done) {
                break;
            }
            let wake = worker.wake_after(&plan);
            tokio::select! {
                () = stop.cancelled() => {
                    worker.take_down().await;
                    publishing.abort();
                    return;
                }
                Some(note) = inbox.recv() => worker.note(note, &reports),
                Some(report) = probe_reports.recv() => worker.probed(report),
                changed = worker.desired.changed() => if changed.is_err() { break } else { worker.adopt() },
                () = tokio::time::sleep(wake.unwrap_or(Duration::MAX)), if wake.is_some() => {}
                _ = refresh.tick() => worker.refresh_volumes().await,
            }
            while let Some(finished) = worker.tasks.try_join_next() {
                if let Err(error) = finished
                    && error.is_panic()
                {
                    tracing::error!(pod = %worker.key, "a task of the pod panicked");
                }
            }
        }
        drop(status);
        let gone = worker.desired.borrow().gone;
        if gone {
            publishing.abort();
        } else {
            let written = tokio::select! {
                written = publishing => written.ok(),
                () = wait_gone(worker.desired.clone()) => None,
            };
            let removed = async {
                worker.remove(written).await;
                // Finalizers may keep the object for long: until then its status and logs are still asked for.
                wait_gone(worker.desired.clone()).await;
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = removed => {}
            }
        }
        worker.forget().await;
    }

    fn spec(&self) -> PodSpec {
        self.pod.spec.clone().unwrap_or_default()
    }
    fn deleting(&self) -> bool {
        self.pod.metadata.deletion_timestamp.is_some() || self.desired.borrow().gone
    }
    fn container(&self, name: &str) -> Option<Container> {
        let spec = self.pod.spec.as_ref()?;
        spec.containers.iter().chain(init_containers(spec)).find(|c| c.name == name).cloned()
    }
    fn logs_of(&self, container: &str) -> PathBuf {
        log_dir(&self.shared.logs, &self.key.namespace, &self.key.name, &self.key.uid).join(safe(container))
    }
    fn tell(&self, container: Option<&str>) -> Tell {
        let (record, involved) = (self.shared.record.clone(), reference(&self.pod, container));
        Arc::new(move |warning, reason, message| record(involved.clone(), warning, reason, message))
    }

    /// Takes up what a former run of the agent left.
    async fn restore(&mut self) {
        if let Some(saved) = self.shared.checkpoints.load(&self.key.uid).await {
            self.seen = saved.containers.clone();
            self.ips = saved.ips.clone();
            after_node_restart(&self.spec(), &mut self.seen, Timestamp::now());
        } else if let Some(ip) = self.before.pod_ip.as_deref().and_then(|ip| ip.parse().ok()) {
            self.ips = vec![ip];
        }
    }

    /// The pod's object has changed.
    fn adopt(&mut self) {
        self.pod = self.desired.borrow_and_update().pod.clone();
        // Conditions that others own.
        let ours = self.before.conditions.clone().unwrap_or_default();
        let theirs = self.pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let mut all: Vec<_> = ours.into_iter().filter(|c| is_ours(&c.type_)).collect();
        all.extend(theirs.filter(|c| !is_ours(&c.type_)).cloned());
        self.before.conditions = Some(all);
    }

    fn plan(&self) -> Plan {
        if !self.deleting() && matches!(self.before.phase.as_deref(), Some("Succeeded" | "Failed")) {
            let done = !self.seen.values().any(Observed::is_alive);
            return Plan { done, ..Plan::default() };
        }
        let mut plan = pod_actions::compute(&self.key, &self.spec(), self.deleting(), &self.seen, Timestamp::now());
        plan.actions.retain(|a| !matches!(a, Action::Start(name) if self.starting.contains_key(name)));
        plan
    }

    fn wake_after(&self, plan: &Plan) -> Option<Duration> {
        let sandbox = self.sandbox_retry.map(|(at, _)| at.saturating_duration_since(tokio::time::Instant::now()));
        [plan.requeue_after, sandbox].into_iter().flatten().min()
    }

    fn act(&mut self, plan: &Plan) {
        if self.deleting() || plan.done {
            self.starting.drain().for_each(|(_, task)| task.abort());
        }
        for (name, waiting) in &plan.waiting {
            if let Some(seen) = self.seen.get_mut(name)
                && seen.waiting.as_ref() != Some(waiting)
            {
                seen.waiting = Some(waiting.clone());
                // Without the delay, so that the event is counted and not written anew each time.
                let said = format!("Back-off restarting failed container {name} in pod {}", self.key);
                self.tell(Some(name))(true, "BackOff", &said);
            }
        }
        for action in &plan.actions {
            match action {
                Action::Start(name) => self.start(name),
                Action::Kill(name) => self.kill(name, &format!("Stopping container {name}")),
            }
        }
    }

    fn kill(&mut self, name: &str, why: &str) {
        let grace = self.grace();
        if let Some(live) = self.live.get(name) {
            self.tell(Some(name))(false, "Killing", why);
            live.handle.kill(grace);
        }
        if let Some(seen) = self.seen.get_mut(name) {
            seen.stopping = true;
        }
    }

    /// What is left of the pod's grace period.
    fn grace(&self) -> Duration {
        if self.desired.borrow().gone {
            return Duration::ZERO;
        }
        let m = &self.pod.metadata;
        let asked =
            m.deletion_grace_period_seconds.or_else(|| self.pod.spec.as_ref()?.termination_grace_period_seconds);
        let whole = Duration::from_secs(asked.and_then(|s| u64::try_from(s).ok()).unwrap_or(30));
        match &m.deletion_timestamp {
            // The deletion timestamp is when the grace period ends.
            Some(end) => end.0.duration_since(Timestamp::now()).try_into().unwrap_or(Duration::ZERO).min(whole),
            None => whole,
        }
    }

    /// Computes the status and hands it to the writer if it has changed.
    fn report(&mut self, to: &watch::Sender<Option<PodStatus>>, ended: bool) {
        let around = Surroundings {
            host_ips: self.shared.starter.host_ips.clone(),
            pod_ips: if self.sandbox.is_some() || self.before.pod_ip.is_some() { self.ips.clone() } else { vec![] },
            sandbox: self.sandbox.is_some(),
            ended_by_deletion: ended,
        };
        let mut pod = (*self.pod).clone();
        pod.status = Some(self.before.clone());
        let status = status::compute(&pod, &self.key.uid, &self.seen, &around, Timestamp::now());
        if to.borrow().as_ref() != Some(&status) && !self.desired.borrow().gone {
            to.send_replace(Some(status.clone()));
        }
        self.before = status;
        let mut view = self.view.write();
        view.containers = self.seen.clone();
        view.handles = self.live.iter().map(|(n, l)| (n.clone(), l.handle.clone())).collect();
        for (name, live) in &self.live {
            view.logs.insert(name.clone(), live.log.clone());
        }
    }

    async fn save(&mut self) {
        let now = Checkpoint {
            namespace: self.key.namespace.clone(),
            name: self.key.name.clone(),
            ips: self.ips.clone(),
            containers: self.seen.clone(),
        };
        if self.saved.as_ref() != Some(&now) {
            match self.shared.checkpoints.save(&self.key.uid, &now).await {
                Ok(()) => self.saved = Some(now),
                Err(error) => tracing::warn!(pod = %self.key, "cannot save the pod's state: {error}"),
            }
        }
    }

    async fn refresh_volumes(&mut self) {
        let spec = self.spec();
        let Some(sandbox) = self.sandbox.clone().filter(|_| spec.volumes.iter().flatten().any(volumes::is_live)) else {
            return;
        };
        let needed = Needed::by_volumes(&self.pod);
        let source = self.shared.starter.configs.as_ref();
        // What is missing now leaves the files as they were.
        let Ok(found) = refs::fetch(source, &self.key.namespace, &needed, VOLUME_REFRESH / 2).await else { return };
        let place = self.shared.starter.place(&self.ips);
        let Ok(made) = volumes::volumes(&self.pod, &found, &place) else { return };
        for (name, volume) in made {
            if let crate::runtime::Volume::Files(files) = volume {
                sandbox.replace_files(&name, files);
            }
        }
    }

    /// Frees what the pod holds on the node; its status stays.
    async fn take_down(&mut self) {
        self.shared.fabric.detach(&self.key.uid);
        for live in std::mem::take(&mut self.live).into_values() {
            live.handle.kill(Duration::ZERO);
            live.log.close();
        }
        if let Some(sandbox) = self.sandbox.take() {
            sandbox.stop().await;
        }
        for ip in &self.ips {
            self.shared.ips.lock().release(&self.key.uid, *ip);
        }
    }

    /// Removes the object, however long that takes.
    async fn remove(&self, written: Option<Pod>) {
        let pod = written.unwrap_or_else(|| (*self.pod).clone());
        let mut delay = publish::RETRY_INITIAL;
        loop {
            match self.shared.api.remove(&pod).await {
                Ok(()) | Err(WriteError::Gone) => return,
                Err(WriteError::Retry(why)) => tracing::debug!(pod = %self.key, "not removed yet: {why}"),
            }
            tokio::select! {
                () = wait_gone(self.desired.clone()) => return,
                () = tokio::time::sleep(delay) => delay = (delay * 2).min(publish::RETRY_MAX),
            }
        }
    }

    /// Removes the pod's traces from the disk.
    async fn forget(&self) {
        self.shared.checkpoints.remove(&self.key.uid).await;
        let dir = log_dir(&self.shared.logs, &self.key.namespace, &self.key.name, &self.key.uid);
        let _ = tokio::fs::remove_dir_all(dir).await;
    }
}

async fn wait_gone(mut desired: watch::Receiver<Desired>) {
    let _ = desired.wait_for(|d| d.gone).await;
}

fn is_ours(condition: &str) -> bool {
    matches!(condition, "PodReadyToStartContainers" | "Initialized" | "Ready" | "ContainersReady" | "PodScheduled")
}

/// What an event about a pod, or about one of its containers, is about.
fn reference(pod: &Pod, container: Option<&str>) -> ObjectReference {
    let m = &pod.metadata;
    let field = container.map(|name| {
        let init = pod.spec.iter().flat_map(init_containers).any(|c| c.name == name);
        let list = if init { "initContainers" } else { "containers" };
        format!("spec.{list}{{{name}}}")
    });
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: m.namespace.clone(),
        name: m.name.clone(),
        uid: m.uid.clone(),
        resource_version: m.resource_version.clone(),
        field_path: field,
    }
}

mod containers;
#[cfg(test)]
mod tests;
