//! The cluster as the scheduler sees it, kept up to date by one change at a time. A pod that was decided but whose
//! binding was not seen yet is *assumed*: it counts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use copepod_api::LabelSelector;
use k8s_openapi::api::core::v1::{Namespace, Node, Taint};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;

use super::cycle::RefusedBy;
use super::images::{Images, images_of};
use super::index::{Index, TermSet, View};
use super::members::Members;
use super::node_info::NodeInfo;
use super::nominated::Nominated;
use super::pod_info::PodInfo;
use super::query::{Namespaces, Query, Spread};
use super::request::Request;
use super::table::Table;
use super::topology::{NodeId, NodeMap};
use super::volumes::Volumes;
use super::work::{Work, steps};
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
    placed: Table<Placed>,
    placed_ids: HashMap<Arc<str>, u32>,
    members: Members,
    /// How many placed pods have each priority.
    priorities: BTreeMap<i32, usize>,
    namespaces: Namespaces,
    pub(super) index: Index,
    images: Images,
    /// Pods for which room is being made, with the node.
    nominated: Nominated,
    budgets: BTreeMap<(String, String), Budget>,
    /// Grows with each change that may change a decision about a pod without claims.
    version: u64,
    /// What is known of volumes.
    pub volumes: Volumes,
}

impl Snapshot {
    /// Takes in a node as it is now.
    pub fn set_node(&mut self, node: Arc<Node>) {
        let name = meta::text(&node.metadata.name).to_string();
        let id = self.node_id(&name);
        self.version += 1;
        let Some(info) = self.nodes.get_mut(id) else { return };
        let list = node.status.as_ref().and_then(|s| s.allocatable.as_ref().or(s.capacity.as_ref()));
        info.allocatable = Request::of_list(list);
        info.max_pods = info.allocatable.other("pods");
        let images = images_of(&node);
        if images != info.images {
            self.images.replace(id, &info.images, &images);
            info.images = images;
        }
        let Some(old) = &info.node else {
            self.order_is_old = true;
            self.reindex(id, Some(node));
            return;
        };
        let relabelled = old.metadata.labels != node.metadata.labels;
        fn taints(node: &Node) -> Option<&Vec<Taint>> {
            node.spec.as_ref().and_then(|s| s.taints.as_ref())
        }
        if relabelled || taints(old) != taints(&node) {
            self.order_is_old |= zone_of(old) != zone_of(&node);
            self.reindex(id, Some(node));
        } else {
            info.become_node(Some(node));
        }
    }

    /// Takes in that a node is gone; its pods stay known until they go.
    pub fn remove_node(&mut self, name: &str) {
        let Some(id) = self.names.get(name).copied() else { return };
        self.order_is_old = true;
        self.version += 1;
        self.reindex(id, None);
        let Some(info) = self.nodes.get_mut(id) else { return };
        self.images.replace(id, &std::mem::take(&mut info.images), &BTreeMap::new());
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
        info.become_node(node);
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
        if let Some(placed) = self.placed_ids.get(&pod.uid).and_then(|id| self.placed.get(*id)) {
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

    fn place(&mut self, pod: &Arc<PodInfo>, node: NodeId) {
        self.version += 1;
        self.suppose(pod, node);
        let id = self.placed.insert(Placed { pod: pod.clone(), node });
        self.placed_ids.insert(pod.uid.clone(), id);
        self.members.add(pod, id);
        *self.priorities.entry(pod.priority).or_default() += 1;
    }

    /// Counts a pod on a node for a decision that asks what would be; [`Self::retract`] takes it back.
    pub(super) fn suppose(&mut self, pod: &Arc<PodInfo>, node: NodeId) {
        let Some(info) = self.nodes.get_mut(node) else { return };
        info.add(pod);
        self.volumes.pod(pod, 1);
        self.count(pod, node, 1);
    }

    /// Counts a pod no longer on its node, for a decision that asks what would be; [`Self::suppose`] takes it back.
    pub(super) fn retract(&mut self, pod: &PodInfo, node: NodeId) {
        self.count(pod, node, -1);
        self.volumes.pod(pod, -1);
        if let Some(info) = self.nodes.get_mut(node) {
            info.remove(pod);
        }
    }

    /// Takes a pod off its node; the node stays.
    fn unplace(&mut self, uid: &str) -> Option<NodeId> {
        let id = self.placed_ids.remove(uid)?;
        let Placed { pod, node } = self.placed.remove(id)?;
        self.version += 1;
        self.retract(&pod, node);
        self.members.remove(&pod, id);
        if let Some(count) = self.priorities.get_mut(&pod.priority) {
            *count -= 1;
            if *count == 0 {
                self.priorities.remove(&pod.priority);
            }
        }
        Some(node)
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
        self.placed_ids.contains_key(uid)
    }

    /// The pod as it is counted.
    pub fn placed(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.placed_ids.get(uid).and_then(|id| self.placed.get(*id)).map(|p| &p.pod)
    }

    /// Keeps room on a node for a pod until it is placed or forgotten, against pods that matter no more than it.
    pub fn nominate(&mut self, pod: &Arc<PodInfo>, node: &str) {
        self.withdraw(&pod.uid);
        if !self.is_placed(&pod.uid) {
            self.version += 1;
            self.nominated.add(pod, node);
        }
    }

    /// Keeps no more room for a pod. Returns the node where it was kept.
    pub fn withdraw(&mut self, uid: &str) -> Option<String> {
        let node = self.nominated.remove(uid)?;
        self.version += 1;
        Some(node)
    }

    /// Where room is kept for a pod.
    pub fn nomination(&self, uid: &str) -> Option<&str> {
        self.nominated.node_of(uid)
    }

    /// The pods for which room is kept on a node.
    pub(super) fn nominated_on(&self, node: &str) -> &[Arc<PodInfo>] {
        self.nominated.on(node)
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
        self.version += 1;
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
        self.index.spread(pod, spread, keys, &view, &mut pods_of(&self.members, &self.placed, &spread.query))
    }

    /// The tracker of a query over all nodes.
    pub(super) fn tracker(&mut self, query: &Query, topology_key: &str) -> u32 {
        let view = View { nodes: &self.nodes, namespaces: &self.namespaces };
        self.index.tracker(query, None, topology_key, &view, &mut pods_of(&self.members, &self.placed, query))
    }

    /// The sets of placed pods' terms that match a pod.
    pub(super) fn terms_about(&self, pod: &PodInfo) -> Vec<(u32, &TermSet)> {
        self.index.terms_about(pod, &self.namespaces)
    }

    /// Whether a placed pod matters less than this.
    pub(super) fn has_lower(&self, priority: i32) -> bool {
        self.priorities.first_key_value().is_some_and(|(least, _)| *least < priority)
    }

    /// Grows with each change that may change a decision about a pod without claims.
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// What decisions cost so far.
    pub fn work(&self) -> Work {
        self.index.work
    }

    /// An image's size in bytes on each node that has it.
    pub(super) fn nodes_with_image(&self, name: &str) -> Option<&NodeMap<i64>> {
        self.images.nodes(name)
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
            self.index.work.grouped += steps(self.nodes.len());
            let mut zones: BTreeMap<[&str; 2], Vec<NodeId>> = BTreeMap::new();
            for id in self.names.values() {
                let Some(info) = self.nodes.get(*id).filter(|n| n.node.is_some()) else { continue };
                let zone = info.node.as_deref().map(zone_of).unwrap_or_default();
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

/// The pods that a query can match, looked for only when the first is asked for.
fn pods_of<'a>(
    members: &'a Members,
    placed: &'a Table<Placed>,
    query: &'a Query,
) -> impl Iterator<Item = (NodeId, &'a Arc<PodInfo>)> {
    let ids = std::iter::once_with(|| members.candidates(query)).flatten();
    ids.filter_map(|id| placed.get(id)).map(|p| (p.node, &p.pod))
}

fn zone_of(node: &Node) -> [&str; 2] {
    ZONE.map(|key| node.metadata.labels.as_ref().and_then(|l| l.get(key)).map_or("", String::as_str))
}
