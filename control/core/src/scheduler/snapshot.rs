//! The cluster as the scheduler sees it, kept up to date by one change at a time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use copepod_api::Quantity;
use k8s_openapi::api::core::v1::{Container, Node, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;

use crate::controllers::{meta, pod};

/// What a pod asks of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// CPU in thousandths of a core.
    pub cpu_milli: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// Other resources by name, in units.
    pub other: BTreeMap<String, i64>,
}

impl Request {
    /// A pod's effective request: the sum of its containers and sidecars, or an init container's if that is more,
    /// and the overhead.
    pub fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let mut total = Self::default();
        for container in &spec.containers {
            total.add(&Self::of_container(container));
        }
        let mut sidecars = Self::default();
        let mut peak = Self::default();
        for container in spec.init_containers.iter().flatten() {
            let request = Self::of_container(container);
            if container.restart_policy.as_deref() == Some("Always") {
                sidecars.add(&request);
                peak.raise(&sidecars);
            } else {
                let mut with = sidecars.clone();
                with.add(&request);
                peak.raise(&with);
            }
        }
        total.add(&sidecars);
        total.raise(&peak);
        total.add(&Self::of_list(spec.overhead.as_ref()));
        total
    }

    fn of_container(container: &Container) -> Self {
        let resources: Option<&ResourceRequirements> = container.resources.as_ref();
        // A limit without a request is the request too.
        let mut list = resources.and_then(|r| r.limits.clone()).unwrap_or_default();
        list.extend(resources.and_then(|r| r.requests.clone()).unwrap_or_default());
        Self::of_list(Some(&list))
    }

    fn of_list(list: Option<&BTreeMap<String, WireQuantity>>) -> Self {
        let mut request = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            // The API server refuses malformed quantities; should one come, it asks for nothing.
            let Ok(quantity) = Quantity::parse(&quantity.0) else { continue };
            match name.as_str() {
                "cpu" => request.cpu_milli = quantity.milli(),
                "memory" => request.memory = quantity.value(),
                _ => {
                    request.other.insert(name.clone(), quantity.value());
                }
            }
        }
        request
    }

    fn add(&mut self, more: &Self) {
        self.cpu_milli = self.cpu_milli.saturating_add(more.cpu_milli);
        self.memory = self.memory.saturating_add(more.memory);
        for (name, amount) in &more.other {
            let have = self.other.entry(name.clone()).or_default();
            *have = have.saturating_add(*amount);
        }
    }
    fn subtract(&mut self, less: &Self) {
        self.cpu_milli = self.cpu_milli.saturating_sub(less.cpu_milli);
        self.memory = self.memory.saturating_sub(less.memory);
        for (name, amount) in &less.other {
            let have = self.other.entry(name.clone()).or_default();
            *have = have.saturating_sub(*amount);
        }
    }
    fn raise(&mut self, floor: &Self) {
        self.cpu_milli = self.cpu_milli.max(floor.cpu_milli);
        self.memory = self.memory.max(floor.memory);
        for (name, amount) in &floor.other {
            let have = self.other.entry(name.clone()).or_default();
            *have = (*have).max(*amount);
        }
    }
}

/// A node and what its pods use.
#[derive(Debug, Default)]
pub struct NodeInfo {
    /// The node; absent while only pods bound to it are known.
    pub node: Option<Arc<Node>>,
    /// What it can give.
    pub allocatable: Request,
    /// How many pods it takes.
    pub max_pods: i64,
    /// What its pods ask for.
    pub used: Request,
    /// How many pods it has.
    pub pods: i64,
    /// Pods by the UID of their controller.
    pub by_owner: HashMap<String, i64>,
}

struct Placed {
    node: String,
    request: Request,
    owner: Option<String>,
}

/// All nodes with their pods. A pod that was decided but whose binding was not seen yet is *assumed*: it counts.
#[derive(Default)]
pub struct Snapshot {
    nodes: BTreeMap<String, NodeInfo>,
    placed: HashMap<String, Placed>,
}

impl Snapshot {
    /// Takes in a node as it is now.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let info = self.nodes.entry(meta::text(&node.metadata.name).to_string()).or_default();
        let list = node.status.as_ref().and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        info.allocatable = Request::of_list(list);
        info.max_pods = info.allocatable.other.get("pods").copied().unwrap_or(0);
        info.node = Some(node);
    }

    /// Takes in that a node is gone; its pods stay known until they go.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.get_mut(name) {
            info.node = None;
            if info.pods == 0 {
                self.nodes.remove(name);
            }
        }
    }

    /// Takes in a pod as it is now: it counts on its node as long as it has one and has not ended. An unbound pod does
    /// not undo an assumption; only [`Self::forget_pod`] does.
    pub fn set_pod(&mut self, pod: &Pod) {
        let uid = meta::text(&pod.metadata.uid);
        let node = pod::node_name(pod);
        if pod::terminal(pod) {
            self.forget_pod(uid);
        } else if !node.is_empty() {
            self.assume(pod, node);
        }
    }

    /// Counts a pod on a node from now on.
    pub fn assume(&mut self, pod: &Pod, node: &str) {
        let uid = meta::text(&pod.metadata.uid);
        let request = Request::of(pod);
        if self.placed.get(uid).is_some_and(|p| p.node == node && p.request == request) {
            return;
        }
        self.forget_pod(uid);
        let owner = meta::controller_of(&pod.metadata).map(|o| o.uid.clone());
        let info = self.nodes.entry(node.to_string()).or_default();
        info.used.add(&request);
        info.pods += 1;
        if let Some(owner) = &owner {
            *info.by_owner.entry(owner.clone()).or_default() += 1;
        }
        self.placed.insert(uid.to_string(), Placed { node: node.to_string(), request, owner });
    }

    /// Stops counting a pod: it ended, is gone, or its binding failed.
    pub fn forget_pod(&mut self, uid: &str) {
        let Some(placed) = self.placed.remove(uid) else { return };
        let Some(info) = self.nodes.get_mut(&placed.node) else { return };
        info.used.subtract(&placed.request);
        info.pods -= 1;
        if let Some(owner) = &placed.owner
            && let Some(count) = info.by_owner.get_mut(owner)
        {
            *count -= 1;
            if *count == 0 {
                info.by_owner.remove(owner);
            }
        }
        if info.pods == 0 && info.node.is_none() {
            self.nodes.remove(&placed.node);
        }
    }

    /// Whether the pod is counted on a node.
    pub fn is_placed(&self, uid: &str) -> bool {
        self.placed.contains_key(uid)
    }

    /// The nodes by name.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &NodeInfo)> {
        self.nodes.iter().filter(|(_, info)| info.node.is_some()).map(|(name, info)| (name.as_str(), info))
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes().count()
    }
    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
