//! Nodes by the values of a label, as numbers: what a topology key of spreading or affinity means for each node.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

/// A node's place in the snapshot.
pub(super) type NodeId = usize;
/// A value of a topology key.
pub(super) type Domain = u32;
/// The node has no such label.
pub(super) const NOWHERE: Domain = u32::MAX;

/// A map with small whole numbers as keys, which need no protection against made-up ones.
pub(super) type NumberMap<V> = HashMap<u32, V, BuildHasherDefault<Spreader>>;

/// A map by nodes.
pub(super) type NodeMap<V> = HashMap<NodeId, V, BuildHasherDefault<Spreader>>;

/// A set of such numbers.
pub(super) type NumberSet = HashSet<u32, BuildHasherDefault<Spreader>>;

/// Spreads whole numbers by multiplication.
#[derive(Default)]
pub(super) struct Spreader(u64);

impl Hasher for Spreader {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.write_u32(u32::from(*b)));
    }
    fn write_u32(&mut self, n: u32) {
        self.0 = (self.0.rotate_left(5) ^ u64::from(n)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
    fn write_usize(&mut self, n: usize) {
        self.0 = (self.0.rotate_left(5) ^ n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

/// One key's values and which node has which.
#[derive(Debug)]
pub(super) struct Topology {
    pub key: String,
    domains: Vec<Domain>,
    numbers: HashMap<String, Domain>,
}

impl Topology {
    pub fn new(key: &str) -> Self {
        Self { key: key.into(), domains: Vec::new(), numbers: HashMap::new() }
    }

    /// The node's domain, or [`NOWHERE`].
    pub fn of(&self, node: NodeId) -> Domain {
        self.domains.get(node).copied().unwrap_or(NOWHERE)
    }

    /// How many domains the nodes are in.
    pub fn distinct(&self, nodes: impl Iterator<Item = NodeId>) -> usize {
        let mut seen = vec![false; self.numbers.len()];
        let mut first = |node: &NodeId| {
            let place = seen.get_mut(self.of(*node) as usize);
            place.is_some_and(|seen| !std::mem::replace(seen, true))
        };
        nodes.filter(|node| first(node)).count()
    }

    /// What a node's labels say; `None` for a node that is gone. Values' numbers are never taken back: a cluster has
    /// as many values of a key as its nodes ever had, and the whole is dropped when nobody asks for the key.
    pub fn set(&mut self, node: NodeId, labels: Option<&BTreeMap<String, String>>) {
        if self.domains.len() <= node {
            self.domains.resize(node + 1, NOWHERE);
        }
        let domain = match labels.and_then(|l| l.get(&self.key)) {
            None => NOWHERE,
            Some(value) => match self.numbers.get(value) {
                Some(number) => *number,
                None => {
                    let number = Domain::try_from(self.numbers.len()).unwrap_or(NOWHERE);
                    self.numbers.insert(value.clone(), number);
                    number
                }
            },
        };
        if let Some(place) = self.domains.get_mut(node) {
            *place = domain;
        }
    }
}
