//! Starting one container: image, configuration, log, instance. Each step has its own way to fail, which users read
//! as the container's waiting reason.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use copepod_runtime::compile::Progress;
use k8s_openapi::api::core::v1::{Container, Pod, Service};

use crate::env::{self, Inputs};
use crate::fields::{self, Place};
use crate::http_settings::http_limits;
use crate::images::Images;
use crate::logs::ContainerLog;
use crate::observed::{PodKey, Waiting};
use crate::refs::{self, ConfigSource, Needed};
use crate::runtime::{Compiling, ContainerSpec, PodSandbox, RunningContainer, RuntimeError};
use crate::volumes;

/// An instance that runs.
pub struct Started {
    /// The instance.
    pub handle: Arc<dyn RunningContainer>,
    /// Its log.
    pub log: Arc<ContainerLog>,
    /// The image's digest.
    pub image_id: String,
}

/// Why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotStarted {
    /// Shown in the container's status.
    pub waiting: Waiting,
    /// The image is at fault: later attempts show `ImagePullBackOff`.
    pub image: bool,
}

fn because(reason: &str, message: impl Into<String>) -> NotStarted {
    NotStarted { waiting: Waiting { reason: reason.into(), message: message.into() }, image: false }
}

/// Records an event about a container: warning, reason, message.
pub type Tell = Arc<dyn Fn(bool, &str, &str) + Send + Sync>;

/// Finds the Services whose addresses a namespace's containers get as variables.
pub type ServicesOf = Arc<dyn Fn(&str) -> Vec<Arc<Service>> + Send + Sync>;

/// One instance to start.
pub struct StartRequest {
    /// The pod's identity.
    pub key: PodKey,
    /// The pod.
    pub pod: Arc<Pod>,
    /// Which of its containers.
    pub container: Container,
    /// The instance's number.
    pub instance: u32,
    /// The pod's addresses.
    pub pod_ips: Vec<IpAddr>,
    /// The container's directory for logs.
    pub log_dir: PathBuf,
    /// The pod's sandbox.
    pub sandbox: Arc<dyn PodSandbox>,
    /// Records events about the container.
    pub tell: Tell,
}

/// What starting takes.
pub struct Starter {
    /// Images.
    pub images: Arc<Images>,
    /// ConfigMaps and Secrets.
    pub configs: Arc<dyn ConfigSource>,
    /// Services for service links.
    pub services: ServicesOf,
    /// The node's addresses.
    pub host_ips: Vec<IpAddr>,
    /// The node's cores.
    pub node_cpus: u64,
    /// The node's memory in bytes.
    pub node_memory: u64,
}

impl Starter {
    /// The downward API's facts for a pod.
    pub fn place(&self, pod_ips: &[IpAddr]) -> Place {
        Place {
            host_ips: self.host_ips.clone(),
            pod_ips: pod_ips.to_vec(),
            node_cpus: self.node_cpus,
            node_memory: self.node_memory,
        }
    }

    /// Starts an instance of a container in its pod's sandbox.
    pub async fn start(&self, ask: StartRequest) -> Result<Started, NotStarted> {
        let StartRequest { key, pod, container, instance, pod_ips, log_dir, sandbox, tell } = &ask;
        let (instance, log_dir) = (*instance, log_dir.clone());
        let name = container.image.clone().unwrap_or_default();
        if !self.images.is_present(&name).await {
            tell(false, "Pulling", &format!("Pulling image {name:?}"));
        }
        let image = self.images.get(&name, container.image_pull_policy.as_deref()).await.map_err(|error| {
            tell(true, "Failed", &format!("Failed to pull image {name:?}: {error}"));
            tell(true, "Failed", &format!("Error: {}", error.reason()));
            NotStarted {
                waiting: Waiting { reason: error.reason().into(), message: error.to_string() },
                image: error.reason() == "ErrImagePull",
            }
        })?;
        let how = if image.cached { "already present on machine" } else { "successfully pulled" };
        tell(false, "Pulled", &format!("Container image {name:?} {how}"));

        let config_error = |why: String| {
            tell(true, "Failed", &format!("Error: {why}"));
            because("CreateContainerConfigError", why)
        };
        let refs = refs::fetch(self.configs.as_ref(), &key.namespace, &Needed::by_env(container), Duration::ZERO)
            .await
            .map_err(config_error)?;
        let place = self.place(pod_ips);
        let hostname = hostname(key, pod);
        let services = (self.services)(&key.namespace);
        let inputs = Inputs { pod, container, refs: &refs, place: &place, services: &services, hostname: &hostname };
        let variables = env::environment(&inputs).map_err(config_error)?;
        let spec = pod.spec.clone().unwrap_or_default();
        let mounts = volumes::mounts(&spec, container, &variables).map_err(config_error)?;
        let http = http_limits(pod, &container.name).map_err(config_error)?;
        let log = tokio::task::spawn_blocking(move || ContainerLog::create(&log_dir, instance))
            .await
            .map_err(std::io::Error::other)
            .and_then(|made| made)
            .map_err(|e| because("CreateContainerError", format!("cannot create the container's log: {e}")))?;

        let milli = |limits| fields::quantity(container, limits, "cpu").and_then(|q| u64::try_from(q.milli()).ok());
        let started = sandbox
            .start(ContainerSpec {
                name: container.name.clone(),
                args: env::arguments(container, &image.file_name, &variables),
                digest: image.digest.clone(),
                artifact: image.path,
                env: variables,
                working_dir: container.working_dir.clone().filter(|d| !d.is_empty()),
                mounts,
                ports: tcp_ports(container),
                http,
                memory_limit: fields::memory_limit(container),
                cpu_limit_milli: milli(true).filter(|m| *m > 0),
                cpu_request_milli: milli(false).unwrap_or(0),
                stdin: container.stdin == Some(true),
                stdin_once: container.stdin_once == Some(true),
                tty: container.tty == Some(true),
                output: log.clone(),
                compiling: compile_events(tell.clone(), name.clone()),
            })
            .await;
        match started {
            Ok(handle) => {
                tell(false, "Created", &format!("Container created: {}", container.name));
                tell(false, "Started", &format!("Container started: {}", container.name));
                Ok(Started { handle, log, image_id: image.digest })
            }
            Err(error) => {
                log.close();
                let reason = match &error {
                    RuntimeError::InvalidImage(_) => "InvalidImage",
                    RuntimeError::Exhausted(_) => "OutOfCapacity",
                    RuntimeError::Failed(_) => "RunContainerError",
                };
                let message = match &error {
                    RuntimeError::InvalidImage(why) => format!("image {name:?} cannot run: {why}"),
                    other => other.to_string(),
                };
                tell(true, "Failed", &format!("Error: {message}"));
                Err(because(reason, message))
            }
        }
    }
}

/// Events of an image's compilation.
fn compile_events(tell: Tell, image: String) -> Compiling {
    Arc::new(move |progress| match progress {
        Progress::Waiting => tell(false, "Compiling", &format!("Waiting for image {image:?} to be compiled")),
        Progress::Compiling => tell(false, "Compiling", &format!("Compiling image {image:?}")),
        Progress::Compiled(took) => {
            tell(false, "Compiled", &format!("Successfully compiled image {image:?} in {:.3}s", took.as_secs_f64()));
        }
    })
}

/// TCP ports that a container declares, in order.
fn tcp_ports(container: &Container) -> Vec<u16> {
    let ports = container.ports.iter().flatten().filter(|p| p.protocol.as_deref().unwrap_or("TCP") == "TCP");
    ports.filter_map(|p| u16::try_from(p.container_port).ok()).collect()
}

/// The host name that a pod's guests see; at most 63 characters.
pub fn hostname(key: &PodKey, pod: &Pod) -> String {
    let asked = pod.spec.as_ref().and_then(|s| s.hostname.clone()).filter(|h| !h.is_empty());
    let name: String = asked.unwrap_or_else(|| key.name.clone()).chars().take(63).collect();
    name.trim_end_matches(['-', '.']).to_string()
}
