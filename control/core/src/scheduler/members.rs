//! Which placed pods a query can match, by owner, or by namespace and label: counting starts with those, not with all
//! pods of a namespace.

use std::collections::HashMap;

use copepod_api::selector::Operator;

use super::pod_info::PodInfo;
use super::query::{Query, Selection};
use super::topology::NumberSet;

/// Placed pods' numbers by what queries ask for.
#[derive(Debug, Default)]
pub(super) struct Members {
    by_owner: HashMap<String, NumberSet>,
    by_namespace: HashMap<String, Group>,
}

/// The pods of a namespace.
#[derive(Debug, Default)]
struct Group {
    all: NumberSet,
    by_label: HashMap<String, HashMap<String, NumberSet>>,
}

impl Members {
    pub fn add(&mut self, pod: &PodInfo, id: u32) {
        if let Some(owner) = &pod.owner {
            join(&mut self.by_owner, owner, id);
        }
        match self.by_namespace.get_mut(pod.namespace()) {
            Some(group) => group.add(pod, id),
            None => {
                let mut group = Group::default();
                group.add(pod, id);
                self.by_namespace.insert(pod.namespace().into(), group);
            }
        }
    }

    pub fn remove(&mut self, pod: &PodInfo, id: u32) {
        if let Some(owner) = &pod.owner {
            leave(&mut self.by_owner, owner, id);
        }
        let Some(group) = self.by_namespace.get_mut(pod.namespace()) else { return };
        group.all.remove(&id);
        for (key, value) in pod.labels() {
            let Some(values) = group.by_label.get_mut(key) else { continue };
            leave(values, value, id);
            if values.is_empty() {
                group.by_label.remove(key);
            }
        }
        if group.all.is_empty() {
            self.by_namespace.remove(pod.namespace());
        }
    }

    /// Few pods among which are all that the query matches.
    pub fn candidates(&self, query: &Query) -> Vec<u32> {
        let sets = match &query.owner {
            Some(owner) => self.by_owner.get(owner).into_iter().collect(),
            None => {
                let found = query.selections.iter().map(|s| self.selected(s));
                found.min_by_key(|sets| sets.iter().map(|set| set.len()).sum::<usize>()).unwrap_or_default()
            }
        };
        let mut ids: Vec<u32> = sets.into_iter().flatten().copied().collect();
        // A namespace or a value may be named twice.
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn selected(&self, selection: &Selection) -> Vec<&NumberSet> {
        if selection.namespace_selector.is_some() {
            return self.by_namespace.values().flat_map(|group| group.selected(selection)).collect();
        }
        let groups = selection.namespaces.iter().filter_map(|namespace| self.by_namespace.get(namespace));
        groups.flat_map(|group| group.selected(selection)).collect()
    }
}

impl Group {
    fn add(&mut self, pod: &PodInfo, id: u32) {
        self.all.insert(id);
        for (key, value) in pod.labels() {
            match self.by_label.get_mut(key) {
                Some(values) => join(values, value, id),
                None => {
                    self.by_label.insert(key.clone(), [(value.clone(), [id].into_iter().collect())].into());
                }
            }
        }
    }

    fn selected(&self, selection: &Selection) -> Vec<&NumberSet> {
        let required = selection.selector.requirements().iter();
        let listed = required.filter(|r| matches!(r.operator, Operator::Equals | Operator::In)).map(|r| {
            let values = self.by_label.get(&r.key);
            values.iter().flat_map(|values| r.values.iter().filter_map(|v| values.get(v))).collect::<Vec<_>>()
        });
        let least = listed.min_by_key(|sets| sets.iter().map(|set| set.len()).sum::<usize>());
        least.unwrap_or_else(|| vec![&self.all])
    }
}

fn join(map: &mut HashMap<String, NumberSet>, key: &str, id: u32) {
    match map.get_mut(key) {
        Some(set) => {
            set.insert(id);
        }
        None => {
            map.insert(key.into(), [id].into_iter().collect());
        }
    }
}

fn leave(map: &mut HashMap<String, NumberSet>, key: &str, id: u32) {
    if let Some(set) = map.get_mut(key) {
        set.remove(&id);
        if set.is_empty() {
            map.remove(key);
        }
    }
}
