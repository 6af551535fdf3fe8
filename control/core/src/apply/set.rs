//! Sets of field paths: what a manager owns, what a write changed.

use std::cmp::Ordering;

use serde_json::{Map, Value};

use super::element::Element;
use crate::schema::MAX_DEPTH;

/// A set of field paths, as a tree. A path in it says nothing of the paths below or above.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Sorted; none is without members.
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Node {
    pub element: Element,
    /// Whether the path that ends here is in the set.
    pub member: bool,
    pub children: FieldSet,
}

impl FieldSet {
    /// Whether no path is in the set.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    pub(super) fn get(&self, element: &Element) -> Option<&Node> {
        self.nodes.get(self.find(element).ok()?)
    }

    fn find(&self, element: &Element) -> Result<usize, usize> {
        // Walks insert in order.
        match self.nodes.last() {
            Some(last) if last.element < *element => Err(self.nodes.len()),
            _ => self.nodes.binary_search_by(|n| n.element.cmp(element)),
        }
    }

    /// Adds an element with what is below it, to what is there.
    pub(super) fn add(&mut self, element: Element, member: bool, children: Self) {
        if !member && children.is_empty() {
            return;
        }
        match self.find(&element) {
            Err(at) => self.nodes.insert(at, Node { element, member, children }),
            Ok(at) => {
                if let Some(node) = self.nodes.get_mut(at) {
                    node.member |= member;
                    node.children = node.children.union(&children);
                }
            }
        }
    }

    /// The set of one path; empty for the empty path, which nobody owns.
    pub fn of_path(path: &[Element]) -> Self {
        let mut set = Self::default();
        if let Some((first, rest)) = path.split_first() {
            set.add(first.clone(), rest.is_empty(), Self::of_path(rest));
        }
        set
    }

    /// The set of one path of fields, such as `spec.replicas`.
    pub fn of_fields(path: &str) -> Self {
        Self::of_path(&path.trim_start_matches('.').split('.').map(Element::field).collect::<Vec<_>>())
    }

    /// Whether a path is in the set.
    pub fn has(&self, path: &[Element]) -> bool {
        match path.split_first() {
            None => false,
            Some((only, [])) => self.get(only).is_some_and(|n| n.member),
            Some((first, rest)) => self.get(first).is_some_and(|n| n.children.has(rest)),
        }
    }

    /// Every path, in upstream's order: at each level first those that end there.
    pub fn paths(&self) -> Vec<Vec<Element>> {
        let mut all = Vec::new();
        self.visit(&mut Vec::new(), &mut all);
        all
    }

    fn visit(&self, prefix: &mut Vec<Element>, all: &mut Vec<Vec<Element>>) {
        for node in self.nodes.iter().filter(|n| n.member) {
            all.push(prefix.iter().chain([&node.element]).cloned().collect());
        }
        for node in &self.nodes {
            prefix.push(node.element.clone());
            node.children.visit(prefix, all);
            prefix.pop();
        }
    }

    /// What is in either.
    pub fn union(&self, other: &Self) -> Self {
        self.zip(other, |a, b| match (a, b) {
            (Some(a), Some(b)) => (a.member || b.member, a.children.union(&b.children)),
            (Some(one), None) | (None, Some(one)) => (one.member, one.children.clone()),
            (None, None) => (false, Self::default()),
        })
    }

    /// What is in both.
    pub fn intersection(&self, other: &Self) -> Self {
        self.zip(other, |a, b| match (a, b) {
            (Some(a), Some(b)) => (a.member && b.member, a.children.intersection(&b.children)),
            _ => (false, Self::default()),
        })
    }

    /// What is in this and not in the other.
    pub fn difference(&self, other: &Self) -> Self {
        self.zip(other, |a, b| match (a, b) {
            (Some(a), Some(b)) => (a.member && !b.member, a.children.difference(&b.children)),
            (Some(a), None) => (a.member, a.children.clone()),
            (None, _) => (false, Self::default()),
        })
    }

    /// What is in this and neither in the other nor below a path of the other.
    pub fn recursive_difference(&self, other: &Self) -> Self {
        self.zip(other, |a, b| match (a, b) {
            (Some(_), Some(b)) if b.member => (false, Self::default()),
            (Some(a), Some(b)) => (a.member, a.children.recursive_difference(&b.children)),
            (Some(a), None) => (a.member, a.children.clone()),
            (None, _) => (false, Self::default()),
        })
    }

    /// The paths with none below them.
    pub fn leaves(&self) -> Self {
        let nodes = self.nodes.iter().map(|n| Node {
            element: n.element.clone(),
            member: n.children.is_empty(),
            children: n.children.leaves(),
        });
        Self { nodes: nodes.collect() }
    }

    /// Whether any path is in both.
    pub fn intersects(&self, other: &Self) -> bool {
        self.nodes.iter().any(|a| {
            other.get(&a.element).is_some_and(|b| (a.member && b.member) || a.children.intersects(&b.children))
        })
    }

    /// Whether every path of the other is in this.
    pub fn contains(&self, other: &Self) -> bool {
        other
            .nodes
            .iter()
            .all(|b| self.get(&b.element).is_some_and(|a| (a.member || !b.member) && a.children.contains(&b.children)))
    }

    /// Builds a set from both sides' nodes, element by element.
    fn zip(&self, other: &Self, join: impl Fn(Option<&Node>, Option<&Node>) -> (bool, Self)) -> Self {
        let mut out = Self::default();
        let (mut left, mut right) = (self.nodes.iter().peekable(), other.nodes.iter().peekable());
        loop {
            let order = match (left.peek(), right.peek()) {
                (None, None) => return out,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => a.element.cmp(&b.element),
            };
            let a = if order.is_le() { left.next() } else { None };
            let b = if order.is_ge() { right.next() } else { None };
            let (member, children) = join(a, b);
            if let Some(node) = a.or(b).filter(|_| member || !children.is_empty()) {
                out.nodes.push(Node { element: node.element.clone(), member, children });
            }
        }
    }

    /// Parses FieldsV1. Elements of unknown kinds are passed over.
    ///
    /// # Errors
    /// If it is no tree of objects, an element is malformed, or it nests deeper than an object may.
    pub fn from_fields_v1(fields: &Value) -> Result<Self, String> {
        Self::parse(fields, 0).map(|(set, _)| set)
    }

    /// The set below, and whether the place itself is in it.
    fn parse(fields: &Value, depth: usize) -> Result<(Self, bool), String> {
        // An object's deepest place, and one level for the dot.
        if depth > MAX_DEPTH + 1 {
            return Err(format!("fieldsV1 nests deeper than {MAX_DEPTH}"));
        }
        let fields = fields.as_object().ok_or("fieldsV1 is not a tree of objects")?;
        let (mut nodes, mut dot) = (Vec::with_capacity(fields.len()), false);
        for (key, below) in fields {
            if key == "." {
                dot = true;
            } else if let Some(element) = Element::parse(key)? {
                let (children, member) = Self::parse(below, depth + 1)?;
                nodes.push(Node { element, member, children });
            }
        }
        // Keys have another order as texts, and one element may have been written in two ways.
        nodes.sort_by(|a, b| a.element.cmp(&b.element));
        let mut set = Self { nodes: Vec::with_capacity(nodes.len()) };
        nodes.into_iter().for_each(|n| set.add(n.element, n.member, n.children));
        let member = dot || set.is_empty();
        Ok((set, member))
    }

    /// Prints FieldsV1.
    pub fn to_fields_v1(&self) -> Value {
        let mut fields = Map::new();
        for node in &self.nodes {
            let mut below = node.children.to_fields_v1();
            if let (true, false, Some(below)) = (node.member, node.children.is_empty(), below.as_object_mut()) {
                below.insert(".".into(), Value::Object(Map::new()));
            }
            fields.insert(node.element.print(), below);
        }
        Value::Object(fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn set(paths: &[&str]) -> FieldSet {
        paths.iter().fold(FieldSet::default(), |all, p| all.union(&FieldSet::of_fields(p)))
    }

    #[test]
    fn fields_v1() {
        let fields = json!({"f:spec": {"f:replicas": {}, "f:containers": {".": {}, "k:{\"name\":\"a\"}": {".": {}, "f:image": {}}}}});
        let parsed = FieldSet::from_fields_v1(&fields).unwrap();
        assert_eq!(parsed.to_fields_v1(), fields);
        let shown: Vec<String> = parsed.paths().iter().map(|p| p.iter().map(ToString::to_string).collect()).collect();
        assert_eq!(
            shown,
            [
                ".spec.containers",
                ".spec.replicas",
                ".spec.containers[name=\"a\"]",
                ".spec.containers[name=\"a\"].image"
            ]
        );
        let future = json!({"f:a": {}, "z:new": {"f:b": {}}});
        assert_eq!(FieldSet::from_fields_v1(&future).unwrap(), set(&["a"]));
        let mut deep = json!({});
        for _ in 0..110 {
            deep = json!({"f:a": deep});
        }
        for bad in [json!([]), json!({"f:a": 1}), json!({"k:{": {}}), json!({"x": {}}), deep] {
            assert!(FieldSet::from_fields_v1(&bad).is_err());
        }
    }

    #[test]
    fn parents_and_children() {
        let (parent, child) = (set(&["a.b"]), set(&["a.b.c"]));
        assert_eq!(parent.difference(&child), parent);
        assert_eq!(child.difference(&parent), child);
        assert_eq!(child.recursive_difference(&parent), set(&[]));
        assert_eq!(set(&["a", "a.b.c"]).recursive_difference(&parent), set(&["a"]));
        assert_eq!(parent.union(&child).leaves(), child);
        assert!(!parent.intersects(&child) && !parent.contains(&child));
        assert!(FieldSet::of_path(&[]).is_empty());
    }

    fn sets() -> impl Strategy<Value = FieldSet> {
        let path = proptest::collection::vec("[abc]", 1..4).prop_map(|p| p.join("."));
        proptest::collection::vec(path, 0..8)
            .prop_map(|paths| set(&paths.iter().map(String::as_str).collect::<Vec<_>>()))
    }

    proptest! {
        #[test]
        fn algebra(a in sets(), b in sets()) {
            prop_assert_eq!(a.union(&b), b.union(&a));
            prop_assert_eq!(a.intersection(&b), a.difference(&a.difference(&b)));
            prop_assert_eq!(a.difference(&b).union(&a.intersection(&b)), a.clone());
            prop_assert_eq!(a.intersects(&b), !a.intersection(&b).is_empty());
            prop_assert_eq!(a.contains(&b), b.difference(&a).is_empty());
            prop_assert!(a.difference(&b).contains(&a.recursive_difference(&b)));
            prop_assert!(a.paths().iter().all(|p| a.has(p)) && a.contains(&a.leaves()));
            prop_assert_eq!(FieldSet::from_fields_v1(&a.to_fields_v1()).unwrap(), a);
        }
    }
}
