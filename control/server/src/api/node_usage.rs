//! What nodes and their pods use, asked of the nodes' agents (`/stats/summary`) and kept for a moment: many clients that
//! look at once ask each node once.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use copepod_core::kinds::resource_metrics::Usage;
use futures::StreamExt;
use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::time::Instant;

use super::node_request;
use super::request::Request;

/// How long an answer, or that there was none, is good for.
const FRESH: Duration = Duration::from_secs(5);
/// How long one node may take for its whole answer.
const NODE_LIMIT: Duration = Duration::from_secs(3);
/// How long all nodes of one request may take together; who has not answered by then is left out.
const GATHER_LIMIT: Duration = Duration::from_secs(15);
/// Nodes asked at once for one request.
const MAX_PARALLEL: usize = 64;
/// Most bytes of one node's answer: some hundred containers take 100 KiB.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// What nodes answered, by node.
#[derive(Default)]
pub(crate) struct Usages(Mutex<HashMap<String, Arc<Slot>>>);

/// Who holds the lock asks; the others wait for what it hears.
type Slot = tokio::sync::Mutex<Option<Heard>>;

struct Heard {
    at: Instant,
    node: Option<Arc<NodeUsage>>,
}

/// When and over which time something was measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Measured {
    /// By the node's clock.
    pub at: jiff::Timestamp,
    pub window: Duration,
    pub usage: Usage,
}

/// One node's answer.
#[derive(Debug, Default)]
pub(crate) struct NodeUsage {
    /// The machine's; `None` before it can tell a rate.
    pub machine: Option<Measured>,
    /// By namespace and name: each container with its use. Pods of which one cannot be told yet are left out.
    pub pods: HashMap<(String, String), Vec<(String, Measured)>>,
}

impl Usages {
    /// Asks nodes. Those that do not answer in time are left out.
    pub async fn gather(
        &self,
        request: &Request,
        nodes: impl IntoIterator<Item = String>,
    ) -> HashMap<String, Arc<NodeUsage>> {
        self.forget_old();
        let asks = nodes.into_iter().map(|node| async move {
            let usage = self.of(request, &node).await?;
            Some((node, usage))
        });
        let answers = futures::stream::iter(asks).buffer_unordered(MAX_PARALLEL);
        answers.take_until(tokio::time::sleep(GATHER_LIMIT)).filter_map(std::future::ready).collect().await
    }

    async fn of(&self, request: &Request, node: &str) -> Option<Arc<NodeUsage>> {
        let slot = self.0.lock().entry(node.to_string()).or_default().clone();
        let mut heard = slot.lock().await;
        if let Some(heard) = heard.as_ref().filter(|h| h.at.elapsed() < FRESH) {
            return heard.node.clone();
        }
        let asked = tokio::time::timeout(NODE_LIMIT, ask(request, node)).await;
        let usage = asked.unwrap_or_else(|_| Err(format!("no answer within {} s", NODE_LIMIT.as_secs())));
        let usage = usage.inspect_err(|why| tracing::debug!(node, why, "a node's usage is not known")).ok();
        let usage = usage.map(Arc::new);
        *heard = Some(Heard { at: Instant::now(), node: usage.clone() });
        usage
    }

    /// Forgets what is not good any more and not being asked for.
    fn forget_old(&self) {
        self.0.lock().retain(|_, slot| {
            Arc::strong_count(slot) > 1
                || slot.try_lock().is_ok_and(|heard| heard.as_ref().is_some_and(|h| h.at.elapsed() < FRESH))
        });
    }
}

async fn ask(request: &Request, node: &str) -> Result<NodeUsage, String> {
    let answer =
        node_request::send(request, node, http::Request::get("/stats/summary")).await.map_err(|e| e.message)?;
    if answer.status() != StatusCode::OK {
        return Err(node_request::refusal(answer).await.message);
    }
    let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await.map_err(|e| e.to_string())?;
    let summary: Summary = serde_json::from_slice(&body.to_bytes()).map_err(|e| e.to_string())?;
    Ok(NodeUsage::from(summary))
}

/// The part of the kubelet's Summary that is used.
#[derive(Deserialize)]
struct Summary {
    #[serde(default)]
    node: Stats,
    #[serde(default)]
    pods: Vec<PodStats>,
}

#[derive(Default, Deserialize)]
struct Stats {
    cpu: Option<Cpu>,
    memory: Option<Memory>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cpu {
    time: jiff::Timestamp,
    usage_nano_cores: Option<u64>,
    window_nano_seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    working_set_bytes: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStats {
    pod_ref: PodRef,
    #[serde(default)]
    containers: Vec<ContainerStats>,
}

#[derive(Deserialize)]
struct PodRef {
    name: String,
    namespace: String,
}

#[derive(Deserialize)]
struct ContainerStats {
    name: String,
    #[serde(flatten)]
    stats: Stats,
}

impl Stats {
    fn measured(&self) -> Option<Measured> {
        let (cpu, memory) = (self.cpu.as_ref()?, self.memory.as_ref()?);
        let usage = Usage { nano_cores: cpu.usage_nano_cores?, working_set: memory.working_set_bytes };
        Some(Measured { at: cpu.time, window: Duration::from_nanos(cpu.window_nano_seconds?), usage })
    }
}

impl From<Summary> for NodeUsage {
    fn from(summary: Summary) -> Self {
        let mut pods = HashMap::new();
        for pod in summary.pods {
            let containers: Option<Vec<(String, Measured)>> =
                pod.containers.into_iter().map(|c| Some((c.name, c.stats.measured()?))).collect();
            if let Some(containers) = containers.filter(|all| !all.is_empty()) {
                pods.insert((pod.pod_ref.namespace, pod.pod_ref.name), containers);
            }
        }
        Self { machine: summary.node.measured(), pods }
    }
}
