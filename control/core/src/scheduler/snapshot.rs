//! The cluster as the scheduler sees it, kept up to date by one change at a time. A pod that was decided but whose
//! binding was not seen yet is *assumed*: it counts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use copepod_api::LabelSelector;
use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::cycle::RefusedBy;
use super::index::{Index, TermSet, View};
use super::node_info::NodeInfo;
use super::pod_info::PodInfo;
use super::query::{Namespaces, Query, Spread};
use super::request::Request;
use super::topology::NodeId;
use super::volumes::Volumes;
use crate::controllers::meta;
use crate::controllers::pod;

/// The labels by which neighbours in the order of nodes are kept apart.
const ZONE: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

#[derive(Debug)]
struct Placed {
    pod: Arc<PodInfo>,
    node: NodeId,
}

/// A disruption budget as preemption asks it.
#[derive(Debug, Clone)]
pub(super) struct Budget {
    pub namespace: String,
    pub selector: LabelSelector,
    pub allowed: i64,
    /// Pods that are going already, and were counted.
    pub disrupted: BTreeSet<String>,
}

/// All nodes with their pods, and what else decisions look at.
#[derive(Default)]
pub struct Snapshot {
    nodes: Vec<NodeInfo>,
    names: BTreeMap<String, NodeId>,
    free: Vec<NodeId>,
    order: Arc<[NodeId]>,
    order_is_old: bool,
    placed: HashMap<Arc<str>, Placed>,
    by_namespace: HashMap<String, BTreeSet<Arc<str>>>,
    by_owner: HashMap<String, BTreeSet<Arc<str>>>,
    namespaces: Namespaces,
    pub(super) index: Index,
    /// By image: how many nodes have it.
    images: HashMap<String, usize>,
    /// Pods for which room is being made, with the node.
    nominated: HashMap<Arc<str>, String>,
    nominated_on: HashMap<String, Vec<Arc<PodInfo>>>,
    budgets: BTreeMap<(String, String), Budget>,
    /// What is known of volumes.
    pub volumes: Volumes,
}

impl Snapshot {
    /// Takes in a node as it is now.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = meta::text(&node.metadata.name).to_string();
        let id = self.node_id(&name);
        let Some(info) = self.nodes.get_mut(id) else { return };
        let list = node.status.as_ref().and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        info.allocatable = Request::of_list(list);
        info.max_pods = info.allocatable.other("pods");
        let images = images_of(&node);
        if images != info.images {
            let old = std::mem::replace(&mut info.images, images);
            for name in old.keys() {
                if let Some(count) = self.images.get_mut(name) {
                    *count -= 1;
                    if *count == 0 {
                        self.images.remove(name);
                    }
                }
            }
            for name in info.images.keys() {
                *self.images.entry(name.clone()).or_default() += 1;
            }
        }
        let placing = |n: &Node| (n.metadata.labels.clone(), n.spec.as_ref().and_then(|s| s.taints.clone()));
        let same = info.node.as_ref().is_some_and(|old| placing(old) == placing(&node));
        self.order_is_old |= info.node.is_none() || !same;
        if same {
            info.node = Some(node);
        } else {
            self.reindex(id, Some(node));
        }
    }

    /// Takes in that a node is gone; its pods stay known until they go.
    pub fn remove_node(&mut self, name: &str) {
        let Some(id) = self.names.get(name).copied() else { return };
        self.order_is_old = true;
        self.reindex(id, None);
        let Some(info) = self.nodes.get_mut(id) else { return };
        for image in std::mem::take(&mut info.images).into_keys() {
            if let Some(count) = self.images.get_mut(&image) {
                *count -= 1;
                if *count == 0 {
                    self.images.remove(&image);
                }
            }
        }
        info.allocatable = Request::default();
        info.max_pods = 0;
        self.drop_if_unknown(id);
    }

    fn node_id(&mut self, name: &str) -> NodeId {
        if let Some(id) = self.names.get(name) {
            return *id;
        }
        let id = self.free.pop().unwrap_or(self.nodes.len());
        let info = NodeInfo { name: name.into(), id, ..NodeInfo::default() };
        match self.nodes.get_mut(id) {
            Some(place) => *place = info,
            None => self.nodes.push(info),
        }
        self.names.insert(name.into(), id);
        id
    }

    fn drop_if_unknown(&mut self, id: NodeId) {
        let Some(info) = self.nodes.get_mut(id) else { return };
        if info.node.is_none() && info.pods.is_empty() {
            self.names.remove(&info.name);
            *info = NodeInfo { id, ..NodeInfo::default() };
            self.free.push(id);
        }
    }

    /// Replaces the node and moves its pods' counts to where its labels now put them.
    fn reindex(&mut self, id: NodeId, node: Option<Arc<Node>>) {
        let Some(info) = self.nodes.get(id) else { return };
        let pods: Vec<Arc<PodInfo>> = info.pods.values().cloned().collect();
        for pod in &pods {
            self.count(pod, id, -1);
        }
        let Some(info) = self.nodes.get_mut(id) else { return };
        info.node = node;
        self.index.node(id, info);
        for pod in &pods {
            self.count(pod, id, 1);
        }
    }

    fn count(&mut self, pod: &PodInfo, node: NodeId, sign: i64) {
        self.index.pod(pod, node, sign, &View { nodes: &self.nodes, namespaces: &self.namespaces });
    }

    /// Takes in a pod as it is now: it counts on its node as long as it has one and has not ended. An unbound pod does
    /// not undo an assumption; only [`Self::forget_pod`] does.
    pub fn set_pod(&mut self, pod: &Arc<PodInfo>) {
        let node = pod::node_name(&pod.pod);
        if pod::terminal(&pod.pod) {
            self.forget_pod(&pod.uid);
        } else if !node.is_empty() {
            self.assume(pod, node);
        } else if let Some(node) = self.withdraw(&pod.uid) {
            self.nominate(pod, &node);
        }
    }

    /// Counts a pod on a node from now on.
    pub fn assume(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.withdraw(&pod.uid);
        if let Some(placed) = self.placed.get(&pod.uid) {
            let same_node = self.nodes.get(placed.node).is_some_and(|n| n.name == node);
            let old = &placed.pod;
            // What comes and goes while a pod runs, such as its status, changes no count.
            let same = same_node
                && old.pod.spec == pod.pod.spec
                && old.terminating == pod.terminating
                && old.labels() == pod.labels()
                && old.owner == pod.owner
                && old.started() == pod.started();
            if same {
                return;
            }
        }
        self.forget_pod(&pod.uid);
        let id = self.node_id(node);
        self.place(pod, id);
    }

    /// Puts a pod on a node.
    pub(super) fn place(&mut self, pod: &Arc<PodInfo>, id: NodeId) {
        let Some(info) = self.nodes.get_mut(id) else { return };
        info.add(pod);
        self.by_namespace.entry(pod.namespace().into()).or_default().insert(pod.uid.clone());
        if let Some(owner) = &pod.owner {
            self.by_owner.entry(owner.clone()).or_default().insert(pod.uid.clone());
        }
        self.volumes.pod(pod, 1);
        self.placed.insert(pod.uid.clone(), Placed { pod: pod.clone(), node: id });
        self.count(pod, id, 1);
    }

    /// Takes a pod off its node; the node stays.
    pub(super) fn unplace(&mut self, uid: &str) -> Option<NodeId> {
        let placed = self.placed.remove(uid)?;
        let (pod, id) = (placed.pod, placed.node);
        self.count(&pod, id, -1);
        self.volumes.pod(&pod, -1);
        let leave = |map: &mut HashMap<String, BTreeSet<Arc<str>>>, key: &str| {
            if let Some(set) = map.get_mut(key) {
                set.remove(uid);
                if set.is_empty() {
                    map.remove(key);
                }
            }
        };
        leave(&mut self.by_namespace, pod.namespace());
        if let Some(owner) = &pod.owner {
            leave(&mut self.by_owner, owner);
        }
        if let Some(info) = self.nodes.get_mut(id) {
            info.remove(&pod);
        }
        Some(id)
    }

    /// Stops counting a pod: it ended, is gone, or its binding failed. Returns the node that has more room now.
    pub fn forget_pod(&mut self, uid: &str) -> Option<String> {
        let nominated = self.withdraw(uid);
        let Some(id) = self.unplace(uid) else { return nominated };
        let name = self.nodes.get(id).map(|n| n.name.clone());
        self.drop_if_unknown(id);
        name
    }

    /// Whether the pod is counted on a node.
    pub fn is_placed(&self, uid: &str) -> bool {
        self.placed.contains_key(uid)
    }

    /// The pod as it is counted.
    pub fn placed(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.placed.get(uid).map(|p| &p.pod)
    }

    /// Keeps room on a node for a pod until it is placed or forgotten, against pods that matter no more than it.
    pub fn nominate(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.withdraw(&pod.uid);
        if !self.is_placed(&pod.uid) {
            self.nominated.insert(pod.uid.clone(), node.to_string());
            self.nominated_on.entry(node.to_string()).or_default().push(pod.clone());
        }
    }

    /// Keeps no more room for a pod. Returns the node where it was kept.
    pub fn withdraw(&mut self, uid: &str) -> Option<String> {
        let node = self.nominated.remove(uid)?;
        if let Some(pods) = self.nominated_on.get_mut(&node) {
            pods.retain(|p| &*p.uid != uid);
            if pods.is_empty() {
                self.nominated_on.remove(&node);
            }
        }
        Some(node)
    }

    /// Where room is kept for a pod.
    pub fn nomination(&self, uid: &str) -> Option<&str> {
        self.nominated.get(uid).map(String::as_str)
    }

    /// The pods for which room is kept on a node.
    pub(super) fn nominated_on(&self, node: &str) -> &[Arc<PodInfo>] {
        if self.nominated_on.is_empty() {
            return &[];
        }
        self.nominated_on.get(node).map(Vec::as_slice).unwrap_or_default()
    }

    /// The rules that refuse a pod whose claims are not bound yet.
    pub fn claims_refused() -> RefusedBy {
        RefusedBy::by("VolumeBinding")
    }

    /// Takes in a namespace; `None` if it is gone.
    pub fn set_namespace(&mut self, name: &str, namespace: Option<&Namespace>) {
        let labels = namespace.map(|n| n.metadata.labels.clone().unwrap_or_default());
        if self.namespaces.get(name) == labels.as_ref() {
            return;
        }
        match labels {
            Some(labels) => self.namespaces.insert(name.into(), labels),
            None => self.namespaces.remove(name),
        };
        self.index.namespaces_changed();
    }

    /// Takes in a disruption budget.
    pub fn set_budget(&mut self, budget: &PodDisruptionBudget) {
        let (namespace, name) = (meta::text(&budget.metadata.namespace), meta::text(&budget.metadata.name));
        let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
        let status = budget.status.as_ref();
        let entry = Budget {
            namespace: namespace.into(),
            selector: LabelSelector::from_typed(selector).unwrap_or_else(|_| LabelSelector::nothing()),
            allowed: status.and_then(|s| s.disruptions_allowed).map_or(0, i64::from),
            disrupted: status.iter().flat_map(|s| s.disrupted_pods.iter().flatten()).map(|(k, _)| k.clone()).collect(),
        };
        self.budgets.insert((namespace.into(), name.into()), entry);
    }

    /// Takes in that a disruption budget is gone.
    pub fn remove_budget(&mut self, namespace: &str, name: &str) {
        self.budgets.remove(&(namespace.to_string(), name.to_string()));
    }

    pub(super) fn budgets(&self) -> impl Iterator<Item = &Budget> {
        self.budgets.values()
    }

    pub(super) fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// The tracker of a spread constraint of a pod, with the topology keys that nodes must have.
    pub(super) fn spread(&mut self, pod: &Arc<PodInfo>, spread: &Spread, keys: &[&str]) -> u32 {
        let view = View { nodes: &self.nodes, namespaces: &self.namespaces };
        let uids = candidates(&self.by_namespace, &self.by_owner, &spread.query);
        let mut pods = pods_of(&self.placed, uids);
        self.index.spread(pod, spread, keys, &view, &mut pods)
    }

    /// The tracker of a query over all nodes.
    pub(super) fn tracker(&mut self, query: &Query, topology_key: &str) -> u32 {
        let view = View { nodes: &self.nodes, namespaces: &self.namespaces };
        let uids = candidates(&self.by_namespace, &self.by_owner, query);
        let mut pods = pods_of(&self.placed, uids);
        self.index.tracker(query, None, topology_key, &view, &mut pods)
    }

    /// The sets of placed pods' terms that match a pod.
    pub(super) fn terms_about(&self, pod: &PodInfo) -> Vec<(u32, &TermSet)> {
        self.index.terms_about(pod, &self.namespaces)
    }

    /// How many nodes have an image.
    pub(super) fn nodes_with_image(&self, name: &str) -> usize {
        self.images.get(name).copied().unwrap_or(0)
    }

    /// A node by name.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.names.get(name).and_then(|id| self.nodes.get(*id)).filter(|n| n.node.is_some())
    }

    pub(super) fn info(&self, id: NodeId) -> Option<&NodeInfo> {
        self.nodes.get(id).filter(|n| n.node.is_some())
    }

    /// The nodes in the order in which decisions look at them: zones take turns, names count within each.
    pub(super) fn order(&mut self) -> Arc<[NodeId]> {
        if self.order_is_old {
            self.order_is_old = false;
            let mut zones: BTreeMap<[&str; 2], Vec<NodeId>> = BTreeMap::new();
            for id in self.names.values() {
                let Some(info) = self.nodes.get(*id).filter(|n| n.node.is_some()) else { continue };
                let zone = ZONE.map(|key| info.labels().get(key).map_or("", String::as_str));
                zones.entry(zone).or_default().push(*id);
            }
            let longest = zones.values().map(Vec::len).max().unwrap_or(0);
            let rows = (0..longest).flat_map(|i| zones.values().filter_map(move |nodes| nodes.get(i)));
            self.order = rows.copied().collect();
        }
        self.order.clone()
    }

    /// The nodes by name.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &NodeInfo)> {
        let infos = self.names.values().filter_map(|id| self.nodes.get(*id));
        infos.filter(|info| info.node.is_some()).map(|info| (info.name.as_str(), info))
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

/// The UIDs of the pods that a query can match.
fn candidates<'a>(
    by_namespace: &'a HashMap<String, BTreeSet<Arc<str>>>,
    by_owner: &'a HashMap<String, BTreeSet<Arc<str>>>,
    query: &Query,
) -> Vec<&'a Arc<str>> {
    if let Some(owner) = &query.owner {
        return by_owner.get(owner).into_iter().flatten().collect();
    }
    match query.selections.iter().find(|s| s.namespace_selector.is_none()) {
        Some(fixed) => fixed.namespaces.iter().filter_map(|n| by_namespace.get(n)).flatten().collect(),
        None => by_namespace.values().flatten().collect(),
    }
}

fn pods_of<'a>(
    placed: &'a HashMap<Arc<str>, Placed>,
    uids: Vec<&'a Arc<str>>,
) -> impl Iterator<Item = (NodeId, &'a Arc<PodInfo>)> {
    uids.into_iter().filter_map(|uid| placed.get(uid)).map(|p| (p.node, &p.pod))
}

fn images_of(node: &Node) -> BTreeMap<String, i64> {
    let images = node.status.iter().flat_map(|s| s.images.iter().flatten());
    let named = images.flat_map(|i| i.names.iter().flatten().map(move |n| (n, i.size_bytes.unwrap_or(0))));
    named.map(|(name, size)| (full_image_name(name), size)).collect()
}

/// An image's name with the tag that it means.
pub(super) fn full_image_name(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') || last.contains('@') { name.to_string() } else { format!("{name}:latest") }
}
