//! Which nodes have which images.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::Node;

use super::topology::{NodeId, NodeMap};

/// Images by name, each with its size in bytes on the nodes that have it.
#[derive(Debug, Default)]
pub(super) struct Images(HashMap<String, NodeMap<i64>>);

impl Images {
    /// Takes in that a node has these images instead of others.
    pub fn replace(&mut self, node: NodeId, old: &BTreeMap<String, i64>, new: &BTreeMap<String, i64>) {
        for name in old.keys() {
            if let Some(nodes) = self.0.get_mut(name) {
                nodes.remove(&node);
                if nodes.is_empty() {
                    self.0.remove(name);
                }
            }
        }
        for (name, size) in new {
            self.0.entry(name.clone()).or_default().insert(node, *size);
        }
    }

    /// The nodes that have an image.
    pub fn nodes(&self, name: &str) -> Option<&NodeMap<i64>> {
        self.0.get(name)
    }
}

/// A node's images with their sizes in bytes.
pub(super) fn images_of(node: &Node) -> BTreeMap<String, i64> {
    let images = node.status.iter().flat_map(|s| s.images.iter().flatten());
    let named = images.flat_map(|i| i.names.iter().flatten().map(move |n| (n, i.size_bytes.unwrap_or(0))));
    named.map(|(name, size)| (full_image_name(name), size)).collect()
}

/// An image's name with the tag that it means.
pub(super) fn full_image_name(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    if last.contains(':') || last.contains('@') { name.to_string() } else { format!("{name}:latest") }
}
