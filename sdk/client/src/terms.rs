//! Groups of a cache's objects by terms, so that what concerns something is looked up and not sought among all.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::Key;

/// By which terms a cache's objects are found. A term is any text; it names the namespace if that counts.
pub enum Terms<K> {
    /// An object is found by each of its terms.
    Each(fn(&K) -> Vec<String>),
    /// An object is found by one of its terms, that which the fewest others are found by: for who looks by everything
    /// that could be such a term, as with the labels of a pod for the selectors that take it.
    One(fn(&K) -> Vec<String>),
}

impl<K> Clone for Terms<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Terms<K> {}

/// Objects by their keys.
type Group<K> = BTreeMap<Arc<Key>, Arc<K>>;

/// The groups; none if there are no terms.
pub(crate) struct Groups<K> {
    terms: Option<Terms<K>>,
    by_term: HashMap<String, Group<K>>,
}

impl<K> Groups<K> {
    pub fn new(terms: Option<Terms<K>>) -> Self {
        Self { terms, by_term: HashMap::new() }
    }

    /// Takes an object in, in place of the one that had its key before.
    pub fn put(&mut self, key: &Key, old: Option<&K>, new: &Arc<K>) {
        let Some(terms) = self.terms else { return };
        let (before, mut now) = (old.map(|old| self.of(terms, key, old)).unwrap_or_default(), terms.of(new));
        if let Terms::One(_) = terms {
            let stays = before.iter().position(|term| now.contains(term)).and_then(|at| before.get(at).cloned());
            let term = stays.or_else(|| now.into_iter().min_by_key(|term| self.len(term)));
            now = term.into_iter().collect();
        }
        for term in before.iter().filter(|term| !now.contains(term)) {
            self.leave(term, key);
        }
        let key = Arc::new(key.clone());
        for term in now {
            self.by_term.entry(term).or_default().insert(key.clone(), new.clone());
        }
    }

    /// Takes an object out.
    pub fn remove(&mut self, key: &Key, old: &K) {
        let Some(terms) = self.terms else { return };
        for term in self.of(terms, key, old) {
            self.leave(&term, key);
        }
    }

    /// The objects found by a term, in the order of their keys.
    pub fn get(&self, term: &str) -> impl Iterator<Item = (&Key, &Arc<K>)> {
        self.by_term.get(term).into_iter().flatten().map(|(key, object)| (key.as_ref(), object))
    }

    /// How many objects are found by a term.
    pub fn len(&self, term: &str) -> usize {
        self.by_term.get(term).map_or(0, BTreeMap::len)
    }

    /// The terms by which an object that was taken in is found.
    fn of(&self, terms: Terms<K>, key: &Key, object: &K) -> Vec<String> {
        let mut all = terms.of(object);
        if let Terms::One(_) = terms {
            all.retain(|term| self.by_term.get(term).is_some_and(|group| group.contains_key(key)));
        }
        all
    }

    fn leave(&mut self, term: &str, key: &Key) {
        if let Some(group) = self.by_term.get_mut(term) {
            group.remove(key);
            if group.is_empty() {
                self.by_term.remove(term);
            }
        }
    }
}

impl<K> Terms<K> {
    fn of(self, object: &K) -> Vec<String> {
        match self {
            Self::Each(of) | Self::One(of) => of(object),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Text(&'static str);

    /// Words are terms.
    fn words(text: &Text) -> Vec<String> {
        text.0.split_whitespace().map(String::from).collect()
    }

    struct Cache {
        groups: Groups<Text>,
        objects: BTreeMap<Key, Arc<Text>>,
    }

    impl Cache {
        fn new(terms: Terms<Text>) -> Self {
            Self { groups: Groups::new(Some(terms)), objects: BTreeMap::new() }
        }
        fn put(&mut self, name: &str, text: &'static str) {
            let (key, new) = (Key::new("", name), Arc::new(Text(text)));
            let old = self.objects.insert(key.clone(), new.clone());
            self.groups.put(&key, old.as_deref(), &new);
        }
        fn remove(&mut self, name: &str) {
            let key = Key::new("", name);
            self.groups.remove(&key, &self.objects.remove(&key).unwrap());
        }
        fn found(&self, term: &str) -> Vec<(&str, &str)> {
            self.groups.get(term).map(|(key, object)| (key.name.as_str(), object.0)).collect()
        }
    }

    #[test]
    fn objects_are_found_by_each_of_their_terms_as_they_are_now() {
        let mut cache = Cache::new(Terms::Each(words));
        cache.put("b", "red big");
        cache.put("a", "red");
        assert_eq!(cache.found("red"), [("a", "red"), ("b", "red big")]);
        assert_eq!((cache.groups.len("red"), cache.groups.len("big"), cache.groups.len("blue")), (2, 1, 0));
        cache.put("b", "blue big");
        assert_eq!((cache.found("red"), cache.found("big")), (vec![("a", "red")], vec![("b", "blue big")]));
        cache.put("a", "");
        cache.remove("b");
        assert!(cache.groups.by_term.is_empty());
        cache.remove("a");
    }

    #[test]
    fn objects_found_by_one_term_are_in_the_smallest_group_and_stay_there() {
        let mut cache = Cache::new(Terms::One(words));
        for (name, text) in [("a", "shop one"), ("b", "shop two"), ("c", "shop three")] {
            cache.put(name, text);
        }
        // The first was in no group that others were in; the others are where nobody else is.
        let sizes = |cache: &Cache| ["shop", "one", "two", "three"].map(|term| cache.groups.len(term));
        assert_eq!(sizes(&cache), [1, 0, 1, 1]);
        cache.put("b", "two shop four");
        assert_eq!(cache.found("two"), [("b", "two shop four")], "as it is now");
        cache.put("b", "three");
        assert_eq!((sizes(&cache), cache.found("three").len()), ([1, 0, 0, 2], 2));
        cache.put("c", "");
        cache.remove("a");
        cache.remove("b");
        assert!(cache.groups.by_term.is_empty());
    }
}
