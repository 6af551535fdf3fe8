//! Finding what concerns a pod by one of its labels, instead of asking everything.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Numbers by a label that all matching pods have; those without such a label on their own.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    by_label: HashMap<String, HashMap<String, Vec<u32>>>,
    others: BTreeSet<u32>,
}

impl Hooks {
    pub fn add(&mut self, hook: Option<(&str, &str)>, id: u32) {
        match hook {
            Some((k, v)) => self.by_label.entry(k.into()).or_default().entry(v.into()).or_default().push(id),
            None => {
                self.others.insert(id);
            }
        }
    }
    pub fn remove(&mut self, hook: Option<(&str, &str)>, id: u32) {
        let Some((k, v)) = hook else {
            self.others.remove(&id);
            return;
        };
        let Some(values) = self.by_label.get_mut(k) else { return };
        if let Some(ids) = values.get_mut(v) {
            ids.retain(|i| *i != id);
            if ids.is_empty() {
                values.remove(v);
            }
        }
        if values.is_empty() {
            self.by_label.remove(k);
        }
    }
    pub fn of<'a>(&'a self, labels: &'a BTreeMap<String, String>) -> impl Iterator<Item = u32> + 'a {
        let found = labels.iter().filter_map(|(k, v)| self.by_label.get(k)?.get(v));
        found.flatten().copied().chain(self.others.iter().copied())
    }
}
