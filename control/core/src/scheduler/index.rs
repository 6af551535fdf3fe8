//! Counts of pods by topology, kept change by change, so that a decision about spreading or affinity looks numbers up
//! instead of walking nodes and their pods. Three things are kept:
//!
//! - a [`Tracker`] for each (query, class of nodes, topology key) that decisions ask for, made when first asked for and
//!   dropped when not asked for lately;
//! - a [`TermSet`] for each distinct affinity term that placed pods have, found by a label of the pods that it matches,
//!   so that pods which no term matches cost one look-up per label;
//! - a [`Topology`] for each key of these.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::hooks::Hooks;
use super::node_info::NodeInfo;
use super::pod_info::PodInfo;
use super::query::{AffinityTerm, Namespaces, Query, Spread};
use super::table::Table;
use super::topology::{NOWHERE, NodeId, NumberMap, Topology};
use super::tracker::{Class, Tracker, bump};
use super::work::{Work, steps};

/// Trackers that are kept; above it, the half that was not asked for longest goes.
pub const MAX_TRACKERS: usize = 2048;

/// What a placed pod's term means for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Role {
    /// Required anti-affinity: nobody whom it matches may come.
    Apart,
    /// Required affinity: whom it matches is welcome.
    Together,
    /// Preferred, with its weight; negative for anti-affinity.
    Preferred(i64),
}

/// Equal terms of placed pods.
#[derive(Debug)]
pub(super) struct TermSet {
    pub role: Role,
    term: AffinityTerm,
    pub topology: u32,
    /// Pods that have the term, by their nodes' domains.
    pub counts: NumberMap<i64>,
    pods: usize,
}

#[derive(Debug)]
struct Queried {
    query: Query,
    trackers: Vec<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    clock: u64,
    topologies: Table<Topology>,
    topology_ids: HashMap<String, u32>,
    classes: Table<Class>,
    class_ids: HashMap<String, u32>,
    queries: Table<Queried>,
    query_ids: HashMap<String, u32>,
    query_hooks: Hooks,
    owner_queries: HashMap<String, u32>,
    trackers: Table<Tracker>,
    tracker_ids: HashMap<(u32, Option<u32>, u32), u32>,
    terms: Table<TermSet>,
    term_ids: HashMap<(Role, String), u32>,
    term_hooks: Hooks,
    /// Sets without pods, to be dropped between decisions: a decision under way may still hold their numbers.
    empty_terms: BTreeSet<u32>,
    /// What decisions cost.
    pub work: Work,
}

/// Numbers of pods by domain, to be read for many nodes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts<'a> {
    pub topology: &'a Topology,
    counts: &'a NumberMap<i64>,
}

impl Counts<'_> {
    /// Pods in a node's domain; `None` if the node has no such label.
    pub fn of(&self, node: NodeId) -> Option<i64> {
        match self.topology.of(node) {
            NOWHERE => None,
            domain => Some(self.counts.get(&domain).copied().unwrap_or(0)),
        }
    }
}

/// What the index is asked with.
pub(super) struct View<'a> {
    pub nodes: &'a [NodeInfo],
    pub namespaces: &'a Namespaces,
}

impl Index {
    pub fn topology(&mut self, key: &str, view: &View<'_>) -> u32 {
        if let Some(id) = self.topology_ids.get(key) {
            return *id;
        }
        let mut topology = Topology::new(key);
        for (id, info) in view.nodes.iter().enumerate() {
            topology.set(id, info.node.is_some().then(|| info.labels()));
        }
        self.work.grouped += steps(view.nodes.len());
        let id = self.topologies.insert(topology);
        self.topology_ids.insert(key.into(), id);
        id
    }

    /// The class of nodes over which a pod's constraint counts.
    fn class(&mut self, pod: &Arc<PodInfo>, spread: &Spread, keys: &[&str], view: &View<'_>) -> u32 {
        let nodes = if spread.honor_affinity { pod.nodes.id.as_str() } else { "" };
        let taints = if spread.honor_taints { format!("{:?}", pod.tolerations()) } else { String::new() };
        let text = format!("{}|{nodes}|{taints}", keys.join(","));
        if let Some(id) = self.class_ids.get(&text) {
            return *id;
        }
        let keys: Vec<u32> = keys.iter().map(|key| self.topology(key, view)).collect();
        let mut class = Class {
            pod: pod.clone(),
            honor_affinity: spread.honor_affinity,
            honor_taints: spread.honor_taints,
            domains: vec![NumberMap::default(); keys.len()],
            keys,
            eligible: Vec::new(),
        };
        for (id, info) in view.nodes.iter().enumerate() {
            class.enter(id, info, &self.topologies);
        }
        self.work.grouped += steps(view.nodes.len());
        let id = self.classes.insert(class);
        self.class_ids.insert(text, id);
        id
    }

    /// The tracker of a pod's spread constraint.
    pub fn spread(
        &mut self,
        pod: &Arc<PodInfo>,
        spread: &Spread,
        keys: &[&str],
        view: &View<'_>,
        pods: &mut dyn Iterator<Item = (NodeId, &Arc<PodInfo>)>,
    ) -> u32 {
        let class = self.class(pod, spread, keys, view);
        self.tracker(&spread.query, Some(class), &spread.topology_key, view, pods)
    }

    /// The tracker of a query over all nodes, or over a class.
    pub fn tracker(
        &mut self,
        query: &Query,
        class: Option<u32>,
        topology_key: &str,
        view: &View<'_>,
        pods: &mut dyn Iterator<Item = (NodeId, &Arc<PodInfo>)>,
    ) -> u32 {
        self.clock += 1;
        let topology = self.topology(topology_key, view);
        let query_id = match self.query_ids.get(&query.id) {
            Some(id) => *id,
            None => {
                let id = self.queries.insert(Queried { query: query.clone(), trackers: Vec::new() });
                match &query.owner {
                    Some(owner) => {
                        self.owner_queries.insert(owner.clone(), id);
                    }
                    None => self.query_hooks.add(query.hook(), id),
                }
                self.query_ids.insert(query.id.clone(), id);
                id
            }
        };
        let key = (query_id, class, topology);
        if let Some(id) = self.tracker_ids.get(&key) {
            if let Some(tracker) = self.trackers.get_mut(*id) {
                tracker.used = self.clock;
            }
            return *id;
        }
        let mut tracker = Tracker {
            query: query_id,
            class,
            topology,
            counts: NumberMap::default(),
            histogram: BTreeMap::new(),
            total: 0,
            used: self.clock,
        };
        for (node, pod) in pods {
            self.work.counted += 1;
            if query.matches(pod, view.namespaces) {
                tracker.count(node, 1, &self.classes, &self.topologies);
            }
        }
        let id = self.trackers.insert(tracker);
        self.tracker_ids.insert(key, id);
        if let Some(queried) = self.queries.get_mut(query_id) {
            queried.trackers.push(id);
        }
        id
    }

    /// The pods of a tracker.
    pub fn counts(&self, tracker: u32) -> Option<Counts<'_>> {
        let tracker = self.trackers.get(tracker)?;
        Some(Counts { topology: self.topologies.get(tracker.topology)?, counts: &tracker.counts })
    }

    /// Pods of a tracker in a node's domain; `None` if the node has no such label.
    pub fn count(&self, tracker: u32, node: NodeId) -> Option<i64> {
        self.counts(tracker)?.of(node)
    }

    /// All pods of a tracker that are anywhere in its topology.
    pub fn total(&self, tracker: u32) -> i64 {
        self.trackers.get(tracker).map_or(0, |t| t.total)
    }

    /// The least number of pods that an eligible domain has, and how many such domains there are.
    pub fn least(&self, tracker: u32) -> (i64, usize) {
        let Some(tracker) = self.trackers.get(tracker) else { return (0, 0) };
        let class = tracker.class.and_then(|class| self.classes.get(class));
        let at = class.and_then(|c| c.keys.iter().position(|k| *k == tracker.topology).and_then(|i| c.domains.get(i)));
        let domains = at.map_or(0, NumberMap::len);
        let least = tracker.histogram.first_key_value().map_or(0, |(least, _)| *least);
        (if tracker.counts.len() < domains { 0 } else { least }, domains)
    }

    /// The sets of placed pods' terms that match a pod.
    pub fn terms_about(&self, pod: &PodInfo, namespaces: &Namespaces) -> Vec<(u32, &TermSet)> {
        if self.terms.is_empty() {
            return Vec::new();
        }
        let found = self.term_hooks.of(pod.labels()).filter_map(|id| Some((id, self.terms.get(id)?)));
        found.filter(|(_, set)| set.pods > 0 && set.term.matches(pod, namespaces)).collect()
    }

    /// How many pods in the node's domain have the term.
    pub fn term_count(&self, set: u32, node: NodeId) -> i64 {
        self.term_counts(set).and_then(|counts| counts.of(node)).unwrap_or(0)
    }

    /// The pods that have the term.
    pub fn term_counts(&self, set: u32) -> Option<Counts<'_>> {
        let set = self.terms.get(set)?;
        Some(Counts { topology: self.topologies.get(set.topology)?, counts: &set.counts })
    }

    /// A pod came to a node (`1`) or left it (`-1`).
    pub fn pod(&mut self, pod: &PodInfo, node: NodeId, sign: i64, view: &View<'_>) {
        if !self.queries.is_empty() {
            let owner = pod.owner.as_ref().and_then(|o| self.owner_queries.get(o)).copied();
            let found: Vec<u32> = self.query_hooks.of(pod.labels()).chain(owner).collect();
            for id in found {
                let Some(queried) = self.queries.get(id) else { continue };
                if !queried.query.matches(pod, view.namespaces) {
                    continue;
                }
                for tracker in &queried.trackers {
                    if let Some(tracker) = self.trackers.get_mut(*tracker) {
                        tracker.count(node, sign, &self.classes, &self.topologies);
                    }
                }
            }
        }
        for term in &pod.anti_affinity {
            self.term(Role::Apart, term, node, sign, view);
        }
        for term in &pod.affinity {
            self.term(Role::Together, term, node, sign, view);
        }
        for (weight, term) in &pod.preferred {
            self.term(Role::Preferred(*weight), term, node, sign, view);
        }
    }

    fn term(&mut self, role: Role, term: &AffinityTerm, node: NodeId, sign: i64, view: &View<'_>) {
        let key = (role, term.id.clone());
        let id = match self.term_ids.get(&key) {
            Some(id) => *id,
            None if sign < 0 => return,
            None => {
                let topology = self.topology(&term.topology_key, view);
                let set = TermSet { role, term: term.clone(), topology, counts: NumberMap::default(), pods: 0 };
                let id = self.terms.insert(set);
                self.term_hooks.add(term.selection.hook(), id);
                self.term_ids.insert(key, id);
                id
            }
        };
        let Some(set) = self.terms.get_mut(id) else { return };
        set.pods = set.pods.saturating_add_signed(if sign < 0 { -1 } else { 1 });
        if set.pods == 0 {
            self.empty_terms.insert(id);
        } else {
            self.empty_terms.remove(&id);
        }
        let domain = self.topologies.get(set.topology).map_or(NOWHERE, |t| t.of(node));
        if domain != NOWHERE {
            bump(&mut set.counts, domain, sign);
        }
    }

    /// A node's labels or taints are about to change: its pods were taken out before, and come back after.
    pub fn node(&mut self, id: NodeId, info: &NodeInfo) {
        for class in self.classes.values_mut() {
            class.leave(id, &self.topologies);
        }
        for topology in self.topologies.values_mut() {
            topology.set(id, info.node.is_some().then(|| info.labels()));
        }
        for class in self.classes.values_mut() {
            class.enter(id, info, &self.topologies);
        }
    }

    /// Namespaces' labels changed: what asks for them is counted anew when next asked for.
    pub fn namespaces_changed(&mut self) {
        let asks = |q: &u32| self.queries.get(*q).is_some_and(|q| q.query.asks_namespaces());
        let gone: Vec<u32> = self.trackers.iter().filter(|(_, t)| asks(&t.query)).map(|(id, _)| id).collect();
        self.drop_trackers(&gone);
    }

    /// Drops what nobody asks for. Called between decisions only.
    pub fn sweep(&mut self) {
        for id in std::mem::take(&mut self.empty_terms) {
            if let Some(set) = self.terms.remove(id) {
                self.term_hooks.remove(set.term.selection.hook(), id);
                self.term_ids.remove(&(set.role, set.term.id));
            }
        }
        if self.trackers.len() <= MAX_TRACKERS {
            return;
        }
        let mut ages: Vec<(u64, u32)> = self.trackers.iter().map(|(id, t)| (t.used, id)).collect();
        ages.sort_unstable();
        ages.truncate(ages.len() - MAX_TRACKERS / 2);
        let gone: Vec<u32> = ages.into_iter().map(|(_, id)| id).collect();
        self.drop_trackers(&gone);
    }

    fn drop_trackers(&mut self, gone: &[u32]) {
        for id in gone {
            let Some(tracker) = self.trackers.remove(*id) else { continue };
            self.tracker_ids.remove(&(tracker.query, tracker.class, tracker.topology));
            let Some(queried) = self.queries.get_mut(tracker.query) else { continue };
            queried.trackers.retain(|t| t != id);
            if queried.trackers.is_empty()
                && let Some(queried) = self.queries.remove(tracker.query)
            {
                self.query_ids.remove(&queried.query.id);
                match &queried.query.owner {
                    Some(owner) => {
                        self.owner_queries.remove(owner);
                    }
                    None => self.query_hooks.remove(queried.query.hook(), tracker.query),
                }
            }
        }
        let used: BTreeSet<u32> = self.trackers.values().filter_map(|t| t.class).collect();
        self.classes.retain(|id| used.contains(&id));
        self.class_ids.retain(|_, id| used.contains(id));
        let mut used: BTreeSet<u32> = self.trackers.values().map(|t| t.topology).collect();
        used.extend(self.terms.values().map(|t| t.topology));
        used.extend(self.classes.values().flat_map(|c| c.keys.iter().copied()));
        self.topologies.retain(|id| used.contains(&id));
        self.topology_ids.retain(|_, id| used.contains(id));
    }

    /// How many trackers and sets of terms there are.
    #[cfg(test)]
    pub fn sizes(&self) -> (usize, usize) {
        (self.trackers.len(), self.terms.len())
    }
}
