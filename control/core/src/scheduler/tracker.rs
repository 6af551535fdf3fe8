//! How many pods of a query each domain of a topology has, over all nodes or over a class of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::node_info::NodeInfo;
use super::pod_info::PodInfo;
use super::table::Table;
use super::topology::{Domain, NOWHERE, NodeId, NumberMap, Topology};

/// Which nodes count for spreading: those with all topology keys that the pod's selector and tolerations allow.
#[derive(Debug)]
pub(super) struct Class {
    pub pod: Arc<PodInfo>,
    pub honor_affinity: bool,
    pub honor_taints: bool,
    pub keys: Vec<u32>,
    pub eligible: Vec<bool>,
    /// By key: how many eligible nodes each domain has.
    pub domains: Vec<NumberMap<u32>>,
}

/// How many pods of a query each domain has.
#[derive(Debug)]
pub(super) struct Tracker {
    pub query: u32,
    pub class: Option<u32>,
    pub topology: u32,
    pub counts: NumberMap<i64>,
    /// How many domains have so many pods.
    pub histogram: BTreeMap<i64, usize>,
    pub total: i64,
    pub used: u64,
}

impl Class {
    pub fn enter(&mut self, id: NodeId, info: &NodeInfo, topologies: &Table<Topology>) {
        if self.eligible.len() <= id {
            self.eligible.resize(id + 1, false);
        }
        let at = |key: &u32| topologies.get(*key).map_or(NOWHERE, |t| t.of(id));
        let eligible = info.node.is_some()
            && self.keys.iter().all(|key| at(key) != NOWHERE)
            && (!self.honor_affinity || self.pod.nodes.matches(&info.name, info.labels()))
            && (!self.honor_taints || info.blocking_taints.iter().all(|taint| self.pod.tolerates(taint)));
        if let Some(place) = self.eligible.get_mut(id) {
            *place = eligible;
        }
        if eligible {
            for (key, domains) in self.keys.iter().zip(&mut self.domains) {
                *domains.entry(at(key)).or_default() += 1;
            }
        }
    }

    pub fn leave(&mut self, id: NodeId, topologies: &Table<Topology>) {
        let Some(place) = self.eligible.get_mut(id).filter(|e| **e) else { return };
        *place = false;
        for (key, domains) in self.keys.iter().zip(&mut self.domains) {
            let domain = topologies.get(*key).map_or(NOWHERE, |t| t.of(id));
            if let Some(count) = domains.get_mut(&domain) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    domains.remove(&domain);
                }
            }
        }
    }
}

impl Tracker {
    pub fn count(&mut self, node: NodeId, sign: i64, classes: &Table<Class>, topologies: &Table<Topology>) {
        if let Some(class) = self.class.and_then(|class| classes.get(class))
            && !class.eligible.get(node).copied().unwrap_or(false)
        {
            return;
        }
        let domain = topologies.get(self.topology).map_or(NOWHERE, |t| t.of(node));
        if domain == NOWHERE {
            return;
        }
        self.total += sign;
        let after = bump(&mut self.counts, domain, sign);
        if self.class.is_none() {
            return;
        }
        let before = after - sign;
        if before > 0
            && let Some(domains) = self.histogram.get_mut(&before)
        {
            *domains -= 1;
            if *domains == 0 {
                self.histogram.remove(&before);
            }
        }
        if after > 0 {
            *self.histogram.entry(after).or_default() += 1;
        }
    }
}

/// Adds to a count; a count of zero is not kept. Returns the count.
pub(super) fn bump(counts: &mut NumberMap<i64>, domain: Domain, sign: i64) -> i64 {
    let count = counts.entry(domain).or_default();
    *count += sign;
    let after = *count;
    if after == 0 {
        counts.remove(&domain);
    }
    after
}
