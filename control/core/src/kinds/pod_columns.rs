//! A pod's table row, with the STATUS that people know from `kubectl get pods`.

use serde_json::{Value, json};

use super::value::{flag, has, int, list, text};
use crate::table::{self, Column, epoch_seconds, human_duration};

pub(super) fn columns() -> Vec<Column> {
    vec![
        Column::name(),
        Column::new("Ready", "string", "Ready containers of all."),
        Column::new("Status", "string", "What the pod is doing, or why it is not."),
        Column::new("Restarts", "string", "Restarts of its containers, and when the last was."),
        Column::age(),
        Column::new("IP", "string", "Address of the pod.").wide(),
        Column::new("Node", "string", "Node that it is bound to.").wide(),
        Column::new("Nominated Node", "string", "Node where others make room for it.").wide(),
        Column::new("Readiness Gates", "string", "Fulfilled readiness gates of all.").wide(),
    ]
}

pub(super) fn cells(pod: &Value, now: i64) -> Vec<Value> {
    let row = summary(pod);
    let or_none = |s: &str| json!(if s.is_empty() { "<none>" } else { s });
    let restarts = match (row.restarts.count, row.restarts.last) {
        (n @ 1.., Some(last)) => format!("{n} ({} ago)", human_duration(now.saturating_sub(last))),
        (n, _) => n.to_string(),
    };
    let ip = list(pod, "/status/podIPs").first().map_or(text(pod, "/status/podIP"), |ip| text(ip, "/ip"));
    vec![
        table::name(pod),
        json!(format!("{}/{}", row.ready, row.total)),
        json!(row.status),
        json!(restarts),
        table::age(pod, now),
        or_none(ip),
        or_none(text(pod, "/spec/nodeName")),
        or_none(text(pod, "/status/nominatedNodeName")),
        json!(readiness_gates(pod)),
    ]
}

struct Summary {
    ready: usize,
    total: usize,
    status: String,
    restarts: Restarts,
}

/// Restarts counted, and the end of the latest run before one (seconds since the epoch).
#[derive(Default, Clone, Copy)]
struct Restarts {
    count: i64,
    last: Option<i64>,
}

impl Restarts {
    fn add(&mut self, container: &Value) {
        self.count += int(container, "/restartCount").unwrap_or(0);
        self.last = self.last.max(epoch_seconds(text(container, "/lastState/terminated/finishedAt")));
    }
}

fn summary(pod: &Value) -> Summary {
    let init_specs = list(pod, "/spec/initContainers");
    let sidecar = |name: &str| init_specs.iter().any(|c| text(c, "/name") == name && is_sidecar(c));
    let total = list(pod, "/spec/containers").len() + init_specs.iter().filter(|c| is_sidecar(c)).count();
    let phase = text(pod, "/status/phase");
    let own_reason = text(pod, "/status/reason");
    let mut status = if own_reason.is_empty() { phase } else { own_reason }.to_string();
    if condition(pod, "PodScheduled").is_some_and(|c| text(c, "/reason") == "SchedulingGated") {
        status = "SchedulingGated".into();
    }
    let (mut ready, mut all, mut sidecars, mut initializing) = (0, Restarts::default(), Restarts::default(), false);
    for (i, container) in list(pod, "/status/initContainerStatuses").iter().enumerate() {
        all.add(container);
        let is_sidecar = sidecar(text(container, "/name"));
        if is_sidecar {
            sidecars.add(container);
        }
        match init_status(container, is_sidecar) {
            Init::Done => {}
            Init::Started => ready += usize::from(flag(container, "/ready")),
            Init::Failing(reason) => {
                status = format!("Init:{reason}");
                initializing = true;
                break;
            }
            Init::Running => {
                status = format!("Init:{i}/{}", init_specs.len());
                initializing = true;
                break;
            }
        }
    }
    if !initializing || condition(pod, "Initialized").is_some_and(|c| text(c, "/status") == "True") {
        all = sidecars;
        let mut has_running = false;
        for container in list(pod, "/status/containerStatuses").iter().rev() {
            all.add(container);
            if let Some(reason) = container_reason(container) {
                status = reason;
            } else if flag(container, "/ready") && has(container, "/state/running") {
                has_running = true;
                ready += 1;
            }
        }
        if status == "Completed" && has_running {
            let is_ready = condition(pod, "Ready").is_some_and(|c| text(c, "/status") == "True");
            status = if is_ready { "Running" } else { "NotReady" }.into();
        }
    }
    if has(pod, "/metadata/deletionTimestamp") {
        if own_reason == "NodeLost" {
            status = "Unknown".into();
        } else if !matches!(phase, "Succeeded" | "Failed") {
            status = "Terminating".into();
        }
    }
    Summary { ready, total, status, restarts: all }
}

fn is_sidecar(container: &Value) -> bool {
    text(container, "/restartPolicy") == "Always"
}

fn condition<'a>(pod: &'a Value, type_: &str) -> Option<&'a Value> {
    list(pod, "/status/conditions").iter().find(|c| text(c, "/type") == type_)
}

enum Init {
    /// It ended well.
    Done,
    /// A sidecar that runs.
    Started,
    /// It failed, or waits for a reason of its own.
    Failing(String),
    /// It runs, or waits for its turn.
    Running,
}

fn init_status(container: &Value, is_sidecar: bool) -> Init {
    let waiting = text(container, "/state/waiting/reason");
    if has(container, "/state/terminated") {
        match int(container, "/state/terminated/exitCode") {
            Some(0) => Init::Done,
            _ if is_sidecar && flag(container, "/started") => Init::Started,
            _ => Init::Failing(terminated_reason(container)),
        }
    } else if is_sidecar && flag(container, "/started") {
        Init::Started
    } else if !waiting.is_empty() && waiting != "PodInitializing" {
        Init::Failing(waiting.into())
    } else {
        Init::Running
    }
}

/// Why a container does not run: its waiting reason (`CrashLoopBackOff`, `ErrImagePull`) or how it ended.
fn container_reason(container: &Value) -> Option<String> {
    let waiting = text(container, "/state/waiting/reason");
    if !waiting.is_empty() {
        return Some(waiting.into());
    }
    has(container, "/state/terminated").then(|| terminated_reason(container))
}

fn terminated_reason(container: &Value) -> String {
    let number = |key: &str| int(container, &format!("/state/terminated/{key}")).unwrap_or(0);
    match (text(container, "/state/terminated/reason"), number("signal")) {
        ("", 0) => format!("ExitCode:{}", number("exitCode")),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.into(),
    }
}

fn readiness_gates(pod: &Value) -> String {
    let gates = list(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let holds =
        |gate: &&Value| condition(pod, text(gate, "/conditionType")).is_some_and(|c| text(c, "/status") == "True");
    format!("{}/{}", gates.iter().filter(holds).count(), gates.len())
}
