//! Liveness, readiness and startup probes.
//! Source: <https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/>.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use copepod_runtime::network::{Endpoint, HttpBody, NetError};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::node_ports::empty_body;
use crate::runtime::{ExecSpec, PodSandbox, RunningContainer};

/// Most bytes of a probe's output that are told.
const MAX_PROBE_OUTPUT: usize = 10 << 10;

/// Which probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Failure restarts the container.
    Liveness,
    /// Failure takes the pod out of its Services.
    Readiness,
    /// The others wait for its success; failure restarts the container.
    Startup,
}

impl Kind {
    /// As in events: `Liveness probe failed`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
            Self::Startup => "Startup",
        }
    }
}

/// What a probe tells the pod worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The container.
    pub container: String,
    /// The instance it was about.
    pub instance: u32,
    /// Which probe.
    pub kind: Kind,
    /// One check failed, for the event; `None`: it succeeded.
    pub failure: Option<String>,
    /// The verdict, where a threshold was just reached.
    pub verdict: Option<bool>,
}

/// Counts checks until a threshold is reached.
#[derive(Debug, Clone)]
pub struct Tracker {
    successes_needed: u32,
    failures_allowed: u32,
    successes: u32,
    failures: u32,
    verdict: Option<bool>,
}

impl Tracker {
    /// A tracker with a probe's thresholds.
    pub fn new(probe: &Probe) -> Self {
        let number =
            |n: Option<i32>, default| n.and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0).unwrap_or(default);
        Self {
            successes_needed: number(probe.success_threshold, 1),
            failures_allowed: number(probe.failure_threshold, 3),
            successes: 0,
            failures: 0,
            verdict: None,
        }
    }

    /// Takes a check's result; returns the verdict if it has just changed.
    pub fn take(&mut self, ok: bool) -> Option<bool> {
        (self.successes, self.failures) = if ok { (self.successes + 1, 0) } else { (0, self.failures + 1) };
        let now = match ok {
            true if self.successes >= self.successes_needed => true,
            false if self.failures >= self.failures_allowed => false,
            _ => return None,
        };
        (self.verdict.replace(now) != Some(now)).then_some(now)
    }
}

/// The probes of one running instance; they end when this is dropped.
pub struct Probes {
    started: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Probes {
    /// Starts a container's probes.
    pub fn start(
        container: &Container,
        instance: u32,
        pod_ip: IpAddr,
        node_ip: IpAddr,
        sandbox: &Arc<dyn PodSandbox>,
        handle: &Arc<dyn RunningContainer>,
        reports: &mpsc::Sender<Report>,
    ) -> Self {
        let started = watch::channel(container.startup_probe.is_none()).0;
        let mut tasks = JoinSet::new();
        let all = [
            (Kind::Startup, &container.startup_probe),
            (Kind::Liveness, &container.liveness_probe),
            (Kind::Readiness, &container.readiness_probe),
        ];
        for (kind, probe) in all {
            let Some(probe) = probe.clone() else { continue };
            let (container, sandbox, handle) = (container.clone(), sandbox.clone(), handle.clone());
            let prober = Prober { container, probe, pod_ip, node_ip, sandbox, handle };
            tasks.spawn(prober.run(kind, instance, started.subscribe(), reports.clone()));
        }
        Self { started, _tasks: tasks }
    }

    /// The startup probe has succeeded: the others begin.
    pub fn set_started(&self) {
        self.started.send_replace(true);
    }
}

struct Prober {
    container: Container,
    probe: Probe,
    pod_ip: IpAddr,
    node_ip: IpAddr,
    sandbox: Arc<dyn PodSandbox>,
    handle: Arc<dyn RunningContainer>,
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default))
}

impl Prober {
    async fn run(self, kind: Kind, instance: u32, mut started: watch::Receiver<bool>, reports: mpsc::Sender<Report>) {
        tokio::time::sleep(seconds(self.probe.initial_delay_seconds, 0)).await;
        if kind != Kind::Startup && started.wait_for(|s| *s).await.is_err() {
            return;
        }
        let period = seconds(self.probe.period_seconds, 10).max(Duration::from_secs(1));
        let limit = seconds(self.probe.timeout_seconds, 1).max(Duration::from_secs(1));
        let mut tracker = Tracker::new(&self.probe);
        let mut next = Instant::now();
        loop {
            let failure = match tokio::time::timeout(limit, self.check()).await {
                Ok(Ok(())) => None,
                Ok(Err(why)) => Some(why),
                Err(_) => Some(format!("no answer within {}s", limit.as_secs())),
            };
            let verdict = tracker.take(failure.is_none());
            if failure.is_some() || verdict.is_some() {
                let container = self.container.name.clone();
                if reports.send(Report { container, instance, kind, failure, verdict }).await.is_err() {
                    return;
                }
            }
            if kind == Kind::Startup && verdict == Some(true) {
                return;
            }
            next = (next + period).max(Instant::now());
            tokio::time::sleep_until(next).await;
        }
    }

    async fn check(&self) -> Result<(), String> {
        if let Some(action) = &self.probe.http_get {
            self.http_get(action).await
        } else if let Some(action) = &self.probe.tcp_socket {
            let port = self.port(&action.port)?;
            self.connect(port)
                .await
                .map(drop)
                .map_err(|e| format!("dial tcp {}: {e}", SocketAddr::new(self.pod_ip, port)))
        } else if let Some(action) = &self.probe.exec {
            self.exec(action.command.clone().unwrap_or_default()).await
        } else {
            // Not supported yet: such a probe says nothing about the container, so it must not fail it.
            tracing::warn!("grpc probes are not carried out by this node yet: use httpGet, tcpSocket or exec");
            Ok(())
        }
    }

    /// Runs a command in the container; it is killed if the probe's time is over first.
    async fn exec(&self, args: Vec<String>) -> Result<(), String> {
        let (to, mut output) = mpsc::channel(1);
        let spec = ExecSpec { args: args.clone(), stdin: None, tty: false, output: to };
        let process = self.handle.exec(spec).map_err(|e| format!("cannot run {args:?}: {e}"))?;
        let mut text = Vec::new();
        let exit = loop {
            tokio::select! {
                biased;
                Some((_, data)) = output.recv() => {
                    let room = MAX_PROBE_OUTPUT.saturating_sub(text.len());
                    text.extend_from_slice(data.get(..room).unwrap_or(&data));
                }
                exit = process.wait() => break exit,
            }
        };
        match exit.code {
            0 => Ok(()),
            code => Err(format!("command exited with code {code}: {}{}", String::from_utf8_lossy(&text), exit.message)),
        }
    }

    async fn connect(&self, port: u16) -> Result<Endpoint, NetError> {
        self.sandbox.accept(SocketAddr::new(self.node_ip, 0), port).await
    }

    async fn http_get(&self, action: &HTTPGetAction) -> Result<(), String> {
        if action.scheme.as_deref().is_some_and(|s| s != "HTTP") {
            return Err("HTTPS probes are not supported by this node yet".into());
        }
        let port = self.port(&action.port)?;
        let path = action.path.as_deref().unwrap_or("/");
        let path = if path.starts_with('/') { path.to_string() } else { format!("/{path}") };
        let authority = SocketAddr::new(self.pod_ip, port).to_string();
        let url = format!("http://{authority}{path}");
        let headers = action.http_headers.iter().flatten();
        let host = headers.clone().find(|h| h.name.eq_ignore_ascii_case("host")).map(|h| h.value.clone());
        let build = |uri: &str| {
            let mut request = http::Request::get(uri)
                .header(http::header::HOST, host.as_deref().unwrap_or(&authority))
                .header(http::header::USER_AGENT, "kube-probe/1.36")
                .header(http::header::CONNECTION, "close");
            for h in headers.clone().filter(|h| !h.name.eq_ignore_ascii_case("host")) {
                request = request.header(&h.name, &h.value);
            }
            request.body(empty_body()).map_err(|e| format!("bad httpGet probe: {e}"))
        };
        let fail = |why: String| format!("Get {url:?}: {why}");
        let status = match self.connect(port).await.map_err(|e| fail(format!("dial tcp {authority}: {e}")))? {
            Endpoint::Http(handler) => handler.handle(build(&url)?).await.status(),
            Endpoint::Stream(stream) => {
                let handshake = hyper::client::conn::http1::handshake::<_, HttpBody>(TokioIo::new(stream)).await;
                let (mut sender, connection) = handshake.map_err(|e| fail(e.to_string()))?;
                let mut tasks = JoinSet::new();
                tasks.spawn(connection);
                sender.send_request(build(&path)?).await.map_err(|e| fail(e.to_string()))?.status()
            }
        };
        if (200..400).contains(&status.as_u16()) {
            Ok(())
        } else {
            Err(format!("HTTP probe failed with statuscode: {}", status.as_u16()))
        }
    }

    fn port(&self, port: &IntOrString) -> Result<u16, String> {
        let number = match port {
            IntOrString::Int(n) => Some(*n),
            IntOrString::String(name) => self
                .container
                .ports
                .iter()
                .flatten()
                .find(|p| p.name.as_deref() == Some(name))
                .map(|p| p.container_port)
                .or_else(|| name.parse().ok()),
        };
        number.and_then(|n| u16::try_from(n).ok()).ok_or_else(|| format!("the container has no port {port:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{SimContainer, SimSandbox};
    use serde_json::json;

    #[test]
    fn thresholds() {
        let probe: Probe = serde_json::from_value(json!({"failureThreshold": 2, "successThreshold": 2})).unwrap();
        let mut t = Tracker::new(&probe);
        let got: Vec<_> = [true, true, true, false, true, false, false, false].map(|ok| t.take(ok)).into();
        assert_eq!(got, [None, Some(true), None, None, None, None, Some(false), None]);
    }

    async fn check(sandbox: Arc<SimSandbox>, probe: serde_json::Value) -> Result<(), String> {
        let container =
            serde_json::from_value(json!({"name": "c", "ports": [{"name": "web", "containerPort": 8080}]})).unwrap();
        let probe = serde_json::from_value(probe).unwrap();
        let (pod_ip, node_ip) = ("10.64.0.2".parse().unwrap(), "10.0.0.1".parse().unwrap());
        let handle = SimContainer::new();
        Prober { container, probe, pod_ip, node_ip, sandbox, handle }.check().await
    }

    #[tokio::test]
    async fn checks() {
        let get = |port: serde_json::Value| json!({"httpGet": {"port": port, "path": "/healthz"}});
        let ok = || SimSandbox::http(8080, 204, "");
        assert_eq!(check(ok(), get(json!(8080))).await, Ok(()));
        assert_eq!(check(ok(), get(json!("web"))).await, Ok(()));
        assert_eq!(check(ok(), json!({"tcpSocket": {"port": "web"}})).await, Ok(()));
        assert_eq!(check(ok(), json!({"exec": {"command": ["x", "0"]}})).await, Ok(()));
        assert_eq!(check(ok(), json!({"grpc": {"port": 1}})).await, Ok(()), "not carried out, so not failed");
        let cases = [
            (SimSandbox::http(8080, 503, ""), get(json!(8080)), "HTTP probe failed with statuscode: 503"),
            (ok(), get(json!(81)), "connection refused"),
            (ok(), get(json!("nope")), "has no port"),
            (ok(), json!({"tcpSocket": {"port": 81}}), "connection refused"),
            (ok(), json!({"exec": {"command": ["ready?", "3"]}}), "command exited with code 3: ready? 3"),
            (ok(), json!({"exec": {"command": ["missing"]}}), "no command to run"),
        ];
        for (sandbox, probe, part) in cases {
            let error = check(sandbox, probe).await.unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let raw = SimSandbox::echoing(8080, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        assert!(check(raw, json!({"tcpSocket": {"port": 8080}})).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn liveness_waits_for_startup_and_reports_changes() {
        let sandbox = SimSandbox::http(8080, 500, "");
        let container: Container = serde_json::from_value(json!({"name": "c",
            "startupProbe": {"httpGet": {"port": 8080}, "periodSeconds": 1},
            "livenessProbe": {"httpGet": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 2}}))
        .unwrap();
        let (to, mut reports) = mpsc::channel(64);
        let as_dyn: Arc<dyn PodSandbox> = sandbox.clone();
        let ip: IpAddr = "10.64.0.2".parse().unwrap();
        let handle: Arc<dyn RunningContainer> = SimContainer::new();
        let probes = Probes::start(&container, 4, ip, ip, &as_dyn, &handle, &to);
        let first = reports.recv().await.unwrap();
        assert_eq!((first.kind, first.verdict, first.instance), (Kind::Startup, None, 4));
        sandbox.answer_http(8080, 200, "");
        loop {
            let r = reports.recv().await.unwrap();
            assert_eq!(r.kind, Kind::Startup, "liveness must wait");
            if r.verdict == Some(true) {
                break;
            }
        }
        probes.set_started();
        assert_eq!(reports.recv().await.unwrap().verdict, Some(true));
        sandbox.answer_http(8080, 500, "");
        let verdicts = [reports.recv().await.unwrap().verdict, reports.recv().await.unwrap().verdict];
        assert_eq!(verdicts, [None, Some(false)]);
    }
}
