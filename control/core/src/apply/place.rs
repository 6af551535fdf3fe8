//! What a place of an object is to server-side apply: who may own what there follows from the schema, and where the
//! schema says nothing, from the value.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use super::element::Element;
use crate::schema::{ListType, Node, Schema, Type};

/// Keys of lists that the built-in kinds' defaulting fills in: type of the items, key, value.
const KEY_DEFAULTS: &[(&str, &str, &str)] =
    &[("ContainerPort", "protocol", "TCP"), ("ServicePort", "protocol", "TCP"), ("LocalObjectReference", "name", "")];

/// A place in an object.
#[derive(Clone, Copy)]
pub(super) struct Place<'s> {
    /// `None`: the schema says nothing; the type is deduced.
    node: Option<Node<'s>>,
    /// Owned as a whole.
    atomic: bool,
    /// There as long as its parent is, if only empty.
    always: bool,
}

/// How the value at a place is owned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// As a whole.
    Leaf,
    /// Each field or key by itself.
    Map,
    /// Each item by itself.
    List,
}

impl<'s> Place<'s> {
    const UNKNOWN: Self = Self { node: None, atomic: false, always: false };

    /// What stands here where the object has nothing but its parent.
    pub fn empty(self) -> Option<&'static Value> {
        static STRUCT: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));
        match self.node.filter(|_| self.always)?.kind() {
            Type::Struct => Some(&STRUCT),
            Type::Map | Type::List => Some(&Value::Null),
            _ => None,
        }
    }

    /// A whole object.
    pub fn root(schema: &'s Schema) -> Self {
        Self::of(schema.root())
    }

    fn of(node: Node<'s>) -> Self {
        let raw = node.kind() == Type::Any && node.name() == "RawExtension";
        // A schema that says nothing of a place is no schema there.
        let known = node.kind() != Type::Any;
        Self { node: known.then_some(node), atomic: node.map_atomic() || raw, always: false }
    }

    /// How a value is owned here.
    pub fn shape(self, value: &Value) -> Shape {
        if self.atomic {
            return Shape::Leaf;
        }
        match (self.node.map(Node::kind), value) {
            (None, Value::Object(_) | Value::Null) => Shape::Map,
            (Some(Type::Struct | Type::Map), Value::Object(_) | Value::Null) => Shape::Map,
            (Some(Type::List), Value::Array(_) | Value::Null) if self.list_type() != ListType::Atomic => Shape::List,
            _ => Shape::Leaf,
        }
    }

    fn list_type(self) -> ListType {
        self.node.map_or(ListType::Atomic, Node::list_type)
    }

    /// Whether values here are owned as a whole whatever they are.
    pub fn is_atomic(self) -> bool {
        self.atomic || (self.node.map(Node::kind) == Some(Type::List) && self.list_type() == ListType::Atomic)
    }

    /// The place of a field or key, and whether the schema names it.
    pub fn field(self, name: &str) -> (Self, bool) {
        let Some(node) = self.node else { return (Self::UNKNOWN, false) };
        if let Some(field) = node.field(name) {
            let place = Self::of(field.node());
            let atomic = place.atomic || field.map_atomic();
            return (Self { atomic, always: field.always_there(), ..place }, true);
        }
        (self.element(), false)
    }

    /// The place of a list's items or a map's values.
    pub fn element(self) -> Self {
        self.node.and_then(Node::element).map_or(Self::UNKNOWN, Self::of)
    }

    /// The place below an element of a set.
    pub fn at(self, element: &Element) -> (Self, bool) {
        match element {
            Element::Field(name) => self.field(name),
            _ => (self.element(), false),
        }
    }

    /// What identifies an item of the list here.
    ///
    /// # Errors
    /// If the item cannot be told from others.
    pub fn item(self, item: &Value) -> Result<Element, String> {
        if self.list_type() == ListType::Set {
            let why = match item {
                Value::Object(_) => "associative list without keys has an element that's a map type",
                Value::Array(_) => "not supported: associative list with lists as elements",
                Value::Null => "associative list without keys has an element that's an explicit null",
                scalar => return Ok(Element::Value(scalar.clone())),
            };
            return Err(why.into());
        }
        let fields = match item {
            Value::Object(fields) => fields,
            Value::Null => return Err("associative list with keys may not have a null element".into()),
            _ => return Err("associative list with keys may not have non-map elements".into()),
        };
        let names = self.node.map_or(&[][..], Node::list_keys);
        let mut keys: Vec<(Box<str>, Value)> = names
            .iter()
            .filter_map(|name| {
                let value = fields.get(name).cloned().or_else(|| self.key_default(name))?;
                Some((name.as_str().into(), value))
            })
            .collect();
        if keys.is_empty() {
            let names: Vec<String> = names.iter().map(|n| format!("{n:?}")).collect();
            return Err(format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default \
                 values for any key fields)",
                names.join(" ")
            ));
        }
        keys.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Element::Key(keys))
    }

    fn key_default(self, key: &str) -> Option<Value> {
        let items = self.node.and_then(Node::element)?;
        if let Some(value) = items.field(key).and_then(|f| f.default_value()) {
            return Some(value.clone());
        }
        let known = KEY_DEFAULTS.iter().find(|(ty, k, _)| *ty == items.name() && *k == key);
        known.map(|(_, _, value)| (*value).into())
    }
}
