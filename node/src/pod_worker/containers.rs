//! What a pod worker does for its containers: sandbox, start, exit, probes.

use super::*;
use crate::fields;
use crate::runtime::Volume;
use crate::start::StartRequest;
use crate::wasm::{DEFAULT_MEMORY, SHARED_MEMORY};

/// Room in a pod's memory for the names and bookkeeping of a volume's file, in bytes.
const FILE_BYTES: u64 = 4 << 10;
/// Old instances whose logs are kept per container.
const KEPT_INSTANCES: u32 = 1;

impl PodWorker {
    pub(super) fn start(&mut self, name: &str) {
        let Some(sandbox) = self.sandbox.clone() else {
            self.prepare_sandbox();
            return;
        };
        let Some(container) = self.container(name) else { return };
        let instance = self.seen.get(name).map_or(0, |s| s.instances);
        let (shared, key, pod, pod_ips) = (self.shared.clone(), self.key.clone(), self.pod.clone(), self.ips.clone());
        let (dir, tell, notes) = (self.logs_of(name), self.tell(Some(name)), self.notes.clone());
        let name = name.to_string();
        let sent = name.clone();
        let task = self.tasks.spawn(async move {
            let request = StartRequest { key, pod, container, instance, pod_ips, log_dir: dir.clone(), sandbox, tell };
            let result = shared.starter.start(request).await;
            if result.is_ok() {
                drop_old_logs(dir, instance).await;
            }
            let _ = notes.send(Note::Started(sent, instance, result)).await;
        });
        self.starting.insert(name, task);
    }

    /// Makes the sandbox: an address, volumes, network.
    fn prepare_sandbox(&mut self) {
        let waits = self.sandbox_retry.is_some_and(|(at, _)| at > tokio::time::Instant::now());
        if self.preparing || waits {
            return;
        }
        self.preparing = true;
        let allocated = self.shared.ips.lock().allocate(&self.key.uid, self.ips.first().copied());
        let ip = match allocated {
            Ok(ip) => ip,
            Err(error) => {
                self.sandbox_failed("FailedCreatePodSandBox", &error.to_string());
                return;
            }
        };
        self.ips = vec![ip];
        let (shared, key, pod, ips) = (self.shared.clone(), self.key.clone(), self.pod.clone(), self.ips.clone());
        let notes = self.notes.clone();
        self.tasks.spawn(async move {
            let made = make_sandbox(&shared, &key, &pod, &ips).await;
            let _ = notes.send(Note::Sandbox(made)).await;
        });
    }

    fn sandbox_failed(&mut self, reason: &str, why: &str) {
        self.preparing = false;
        self.tell(None)(true, reason, why);
        let delay = self.shared.retry.next(self.sandbox_retry.map_or(Duration::ZERO, |(_, d)| d));
        self.sandbox_retry = Some((tokio::time::Instant::now() + delay, delay));
    }

    pub(super) fn note(&mut self, note: Note, reports: &mpsc::Sender<probes::Report>) {
        match note {
            Note::Sandbox(Ok(sandbox)) => {
                self.preparing = false;
                self.sandbox_retry = None;
                self.shared.fabric.attach(&self.key.uid, &self.ips, sandbox.clone());
                self.sandbox = Some(sandbox);
            }
            Note::Sandbox(Err(why)) => self.sandbox_failed("FailedMount", &why),
            Note::Started(name, instance, result) => {
                if self.starting.remove(&name).is_some() {
                    match result {
                        Ok(started) => self.started(&name, instance, started, reports),
                        Err(failure) => self.not_started(&name, failure),
                    }
                }
            }
            Note::Exited(name, instance, exit) => self.exited(&name, instance, exit),
        }
    }

    fn started(&mut self, name: &str, instance: u32, started: Started, reports: &mpsc::Sender<probes::Report>) {
        let (Some(container), Some(sandbox)) = (self.container(name), &self.sandbox) else { return };
        let host = self.shared.starter.host_ips.first().copied().unwrap_or(IpAddr::from([127, 0, 0, 1]));
        let own = self.ips.first().copied().unwrap_or(host);
        let probes = Probes::start(&container, instance, own, host, sandbox, &started.handle, reports);
        let seen = self.seen.entry(name.into()).or_default();
        seen.begin();
        seen.running(Timestamp::now());
        seen.image_id = started.image_id;
        seen.resources = Some(container.resources.clone().unwrap_or_default());
        seen.started = container.startup_probe.is_none();
        seen.ready = seen.started && container.readiness_probe.is_none();
        let (handle, notes, name) = (started.handle.clone(), self.notes.clone(), name.to_string());
        let waited = name.clone();
        self.tasks.spawn(async move {
            let exit = handle.wait().await;
            let _ = notes.send(Note::Exited(waited, instance, exit)).await;
        });
        self.live.insert(name, Live { handle: started.handle, log: started.log, probes });
    }

    fn not_started(&mut self, name: &str, failure: NotStarted) {
        let seen = self.seen.entry(name.into()).or_default();
        let mut waiting = failure.waiting;
        let again = seen.waiting.as_ref().is_some_and(|w| w.reason == waiting.reason || w.reason == "ImagePullBackOff");
        if failure.image && again {
            let image = self.pod.spec.iter().flat_map(|s| s.containers.iter().chain(init_containers(s)));
            let image = image.filter(|c| c.name == name).find_map(|c| c.image.clone()).unwrap_or_default();
            waiting = Waiting {
                reason: "ImagePullBackOff".into(),
                message: format!("Back-off pulling image {image:?}: ErrImagePull: {}", waiting.message),
            };
        }
        let policy =
            if waiting.reason == "CreateContainerConfigError" { self.shared.retry } else { self.shared.back_off };
        seen.not_started(waiting, Timestamp::now(), policy);
        if failure.image && again {
            let message = seen.waiting.as_ref().map(|w| w.message.clone()).unwrap_or_default();
            self.tell(Some(name))(true, "BackOff", &message);
        }
    }

    fn exited(&mut self, name: &str, instance: u32, exit: ContainerExit) {
        if let Some(live) = self.live.remove(name) {
            live.log.close();
        }
        let now = Timestamp::now();
        let policy = self.shared.back_off;
        let Some(seen) = self.seen.get_mut(name).filter(|s| s.is_alive() && s.instance() == instance) else { return };
        let started_at = if let Stage::Running { since } = seen.stage { since } else { now };
        let reason = exit.reason.to_string();
        let record = Exit { code: exit.code, reason, message: exit.message, started_at, finished_at: now, instance };
        seen.exited(record, policy);
    }

    pub(super) fn probed(&mut self, report: probes::Report) {
        let name = report.container.as_str();
        let Some(seen) = self.seen.get_mut(name) else { return };
        if !seen.is_alive() || seen.instance() != report.instance {
            return;
        }
        let has_readiness = |c: &Container| c.readiness_probe.is_some();
        let kind = report.kind;
        match (kind, report.verdict) {
            (probes::Kind::Readiness, Some(ok)) => seen.ready = ok,
            (probes::Kind::Startup, Some(true)) => {
                seen.started = true;
                let waits = self.pod.spec.iter().flat_map(|s| s.containers.iter().chain(init_containers(s)));
                seen.ready = !waits.filter(|c| c.name == name).any(has_readiness);
                if let Some(live) = self.live.get(name) {
                    live.probes.set_started();
                }
            }
            _ => {}
        }
        if let Some(why) = &report.failure {
            self.tell(Some(name))(true, "Unhealthy", &format!("{} probe failed: {why}", kind.name()));
        }
        let fatal = kind != probes::Kind::Readiness && report.verdict == Some(false);
        let stopping = self.seen.get(name).is_some_and(|s| s.stopping);
        if fatal && !stopping {
            let probe = kind.name().to_ascii_lowercase();
            self.kill(name, &format!("Container {name} failed {probe} probe, will be restarted"));
        }
    }
}

async fn make_sandbox(shared: &Shared, key: &PodKey, pod: &Pod, ips: &[IpAddr]) -> Result<Arc<dyn PodSandbox>, String> {
    let pod_spec = pod.spec.clone().unwrap_or_default();
    let source = shared.starter.configs.as_ref();
    let found = refs::fetch(source, &key.namespace, &Needed::by_volumes(pod), Duration::ZERO).await?;
    let volumes: BTreeMap<_, _> = volumes::volumes(pod, &found, &shared.starter.place(ips))?;
    let hostname = hostname(key, pod);
    let uplink = shared.fabric.uplink(key, &hostname, ips);
    let sized = volumes.values().map(|volume| match volume {
        Volume::Empty { size_limit } => size_limit.unwrap_or(0),
        // Old and new content for a moment, in chunks of the next power of two.
        Volume::Files(files) => files.values().map(|file| 4 * file.data.len() as u64 + FILE_BYTES).sum(),
        Volume::Host { .. } | Volume::Local { .. } => 0,
    });
    let shared_memory = sized.fold(SHARED_MEMORY, u64::saturating_add);
    let spec = SandboxSpec {
        id: key.uid.clone(),
        label: format!("{}/{}", key.namespace, key.name),
        hostname,
        ips: ips.to_vec(),
        uplink,
        volumes,
        memory_limit: fields::pod_memory_limit(&pod_spec, DEFAULT_MEMORY, shared_memory),
    };
    shared.runtime.sandbox(spec).await.map_err(|e| e.to_string())
}

/// Keeps the logs of the newest instances only.
async fn drop_old_logs(dir: PathBuf, newest: u32) {
    let Some(oldest_kept) = newest.checked_sub(KEPT_INSTANCES) else { return };
    let Ok(mut entries) = tokio::fs::read_dir(&dir).await else { return };
    while let Ok(Some(entry)) = entries.next_entry().await {
        let name = entry.file_name();
        let number = name.to_str().and_then(|n| n.split('.').next()).and_then(|n| n.parse::<u32>().ok());
        if number.is_some_and(|n| n < oldest_kept) {
            let _ = tokio::fs::remove_file(entry.path()).await;
        }
    }
}
