//! From OpenAPI to the compiled arena.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::builtin::{self, REF_PREFIX};
use super::values::Rules;
use super::{ListType, MAX_DEPTH, PatchStrategy, SchemaError, Type};
use crate::codec::protobuf;

/// Most nodes that one schema given at run time may have.
pub(crate) const MAX_NODES: usize = 20_000;
const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// Nodes that refer to each other by index, so that types may be recursive.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    nodes: Vec<NodeData>,
    names: HashMap<Box<str>, u32>,
}

#[derive(Debug)]
pub(crate) struct NodeData {
    pub ty: Type,
    pub name: String,
    /// The Go type as decode errors print it, such as `v1.Container`; empty if it follows from `ty`.
    pub go_type: String,
    pub fields: Vec<FieldData>,
    pub element: Option<u32>,
    pub preserve: bool,
    pub embedded: bool,
    pub nullable: bool,
    pub meta: Meta,
    pub rules: Option<Box<Rules>>,
}

#[derive(Debug)]
pub(crate) struct FieldData {
    pub name: Box<str>,
    pub node: u32,
    pub required: bool,
    /// Whether built-in objects always have it, if only as an empty one.
    pub always: bool,
    /// Whether built-in objects never have it when it is zero.
    pub omits_zero: bool,
    /// `default`, of schemas given at run time.
    pub default: Option<Value>,
    pub meta: Meta,
}

/// What merging needs to know of a place.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meta {
    pub patch_strategy: PatchStrategy,
    pub merge_key: Option<String>,
    pub list_type: ListType,
    pub list_keys: Vec<String>,
    pub map_atomic: bool,
}

impl NodeData {
    fn new(ty: Type) -> Self {
        Self {
            ty,
            name: String::new(),
            go_type: String::new(),
            fields: Vec::new(),
            element: None,
            preserve: false,
            embedded: false,
            nullable: false,
            meta: Meta::default(),
            rules: None,
        }
    }
}

/// Stands in for an index that cannot be.
static ANY: std::sync::LazyLock<NodeData> = std::sync::LazyLock::new(|| NodeData::new(Type::Any));

impl Arena {
    pub(crate) fn node(&self, id: u32) -> &NodeData {
        self.nodes.get(id as usize).unwrap_or(&ANY)
    }
    pub(crate) fn by_name(&self, name: &str) -> Option<u32> {
        self.names.get(name).copied()
    }
    fn push(&mut self, node: NodeData) -> u32 {
        self.nodes.push(node);
        u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX)
    }
}

/// Compiles the built-in definitions. What the data cannot say is `Any`.
pub(crate) fn definitions(definitions: &Map<String, Value>) -> Arena {
    let mut arena = Arena::default();
    for name in definitions.keys() {
        let id = arena.push(NodeData::new(Type::Any));
        arena.names.insert(name.as_str().into(), id);
    }
    for (name, definition) in definitions {
        let Some(id) = arena.by_name(name) else { continue };
        let mut node = builtin_node(&mut arena, name, definition);
        (node.name, node.go_type) = go_names(name, node.ty);
        if let Some(slot) = arena.nodes.get_mut(id as usize) {
            *slot = node;
        }
    }
    // A field's declaration adds to what its type says of itself (atomic maps).
    for i in 0..arena.nodes.len() {
        let Some(node) = arena.nodes.get(i) else { continue };
        let atomic: Vec<bool> = node.fields.iter().map(|f| arena.node(f.node).meta.map_atomic).collect();
        if let Some(node) = arena.nodes.get_mut(i) {
            for (field, atomic) in node.fields.iter_mut().zip(atomic) {
                field.meta.map_atomic |= atomic;
            }
        }
    }
    // What Go's types always print, if only as an empty value, and what they never print when it is zero.
    for name in definitions.keys() {
        let (Some(id), Some(message)) = (arena.by_name(name), protobuf::message_name(name)) else { continue };
        let printed = |f: &FieldData| {
            let ty = arena.node(f.node).ty;
            let is_struct = ty == Type::Struct;
            match protobuf::fact(&message, &f.name) {
                Some(fact) => (fact.is_always_there(is_struct), fact.omits_zero(is_struct)),
                None => (is_struct, false),
            }
        };
        let printed: Vec<_> = arena.node(id).fields.iter().map(printed).collect();
        if let Some(node) = arena.nodes.get_mut(id as usize) {
            for (field, printed) in node.fields.iter_mut().zip(printed) {
                (field.always, field.omits_zero) = printed;
            }
        }
    }
    arena
}

/// `io.k8s.api.core.v1.Container` is `Container`, in Go `v1.Container`.
fn go_names(definition: &str, ty: Type) -> (String, String) {
    let mut parts = definition.rsplit('.');
    let name = parts.next().unwrap_or_default();
    let package = parts.next().unwrap_or_default();
    let go_type = if ty == Type::Struct { format!("{package}.{name}") } else { String::new() };
    (name.to_owned(), go_type)
}

fn builtin_node(arena: &mut Arena, name: &str, schema: &Value) -> NodeData {
    let special = match name.rsplit_once("io.k8s.apimachinery.pkg.").map(|(_, rest)| rest) {
        Some("api.resource.Quantity") => Some(Type::Quantity),
        Some("util.intstr.IntOrString") => Some(Type::IntOrString),
        Some("apis.meta.v1.Time") => Some(Type::Time),
        Some("apis.meta.v1.MicroTime") => Some(Type::MicroTime),
        _ => None,
    };
    let mut node = NodeData::new(special.unwrap_or_else(|| scalar_type(schema)));
    node.meta = meta(schema);
    match node.ty {
        Type::Struct => {
            let required = required(schema);
            for (field, sub) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                let id = builtin_ref(arena, sub);
                node.fields.push(FieldData {
                    name: field.as_str().into(),
                    node: id,
                    required: required.contains(&field.as_str()),
                    always: false,
                    omits_zero: false,
                    default: None,
                    meta: meta(sub),
                });
            }
            node.fields.sort_by(|a, b| a.name.cmp(&b.name));
        }
        Type::Map => node.element = schema.get("additionalProperties").map(|sub| builtin_ref(arena, sub)),
        Type::List => node.element = schema.get("items").map(|sub| builtin_ref(arena, sub)),
        _ => {}
    }
    node
}

fn builtin_ref(arena: &mut Arena, schema: &Value) -> u32 {
    let target = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix(REF_PREFIX));
    if let Some(id) = target.and_then(|name| arena.by_name(name)) {
        return id;
    }
    let node = builtin_node(arena, "", schema);
    arena.push(node)
}

/// The type by `type` and `format` alone.
fn scalar_type(schema: &Value) -> Type {
    let get = |key| schema.get(key).and_then(Value::as_str).unwrap_or_default();
    match (get("type"), get("format")) {
        ("object", _) if schema.get("properties").is_some_and(Value::is_object) => Type::Struct,
        ("object", _) if schema.get("additionalProperties").is_some_and(Value::is_object) => Type::Map,
        ("array", _) => Type::List,
        ("boolean", _) => Type::Bool,
        ("integer", "int32") => Type::Int32,
        ("integer", _) => Type::Int64,
        ("number", _) => Type::Float,
        ("string", "byte") => Type::Bytes,
        ("string", "date-time") => Type::Time,
        ("string", _) => Type::String,
        _ => Type::Any,
    }
}

fn required(schema: &Value) -> Vec<&str> {
    schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

fn meta(schema: &Value) -> Meta {
    let get = |key| schema.get(key).and_then(Value::as_str).unwrap_or_default();
    let strategy = get("x-kubernetes-patch-strategy");
    let has = |word: &str| strategy.split(',').any(|s| s.trim() == word);
    Meta {
        patch_strategy: match (has("merge"), has("retainKeys"), has("replace")) {
            (true, true, _) => PatchStrategy::MergeRetainKeys,
            (true, false, _) => PatchStrategy::Merge,
            (false, true, _) => PatchStrategy::RetainKeys,
            (false, false, true) => PatchStrategy::Replace,
            _ => PatchStrategy::Default,
        },
        merge_key: schema.get("x-kubernetes-patch-merge-key").and_then(Value::as_str).map(str::to_owned),
        list_type: match get("x-kubernetes-list-type") {
            "map" => ListType::Map,
            "set" => ListType::Set,
            _ => ListType::Atomic,
        },
        list_keys: schema
            .get("x-kubernetes-list-map-keys")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(|k| k.as_str().map(str::to_owned))
            .collect(),
        map_atomic: get("x-kubernetes-map-type") == "atomic",
    }
}

/// Compiles a schema given at run time. Its whole objects share the built-in `ObjectMeta`, copied in.
pub(crate) fn custom(name: &str, openapi: &Value) -> Result<(Arena, u32), SchemaError> {
    let mut compiler = Custom { arena: Arena::default(), copied: HashMap::new(), object_meta: None };
    let root = compiler.node(openapi, "", 0, true)?;
    if let Some(node) = compiler.arena.nodes.get_mut(root as usize) {
        if node.ty != Type::Struct {
            return Err(error("type", "must be object at the root"));
        }
        node.name = name.to_owned();
        node.go_type = format!("v1.{name}");
    }
    Ok((compiler.arena, root))
}

fn error(path: &str, message: impl Into<String>) -> SchemaError {
    SchemaError { path: path.to_owned(), message: message.into() }
}

struct Custom {
    arena: Arena,
    copied: HashMap<u32, u32>,
    object_meta: Option<u32>,
}

impl Custom {
    fn node(&mut self, schema: &Value, path: &str, depth: usize, whole: bool) -> Result<u32, SchemaError> {
        let at = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        if depth > MAX_DEPTH {
            return Err(error(path, format!("nests deeper than {MAX_DEPTH}")));
        }
        if self.arena.nodes.len() >= MAX_NODES {
            return Err(error(path, format!("has more than {MAX_NODES} parts")));
        }
        let Some(object) = schema.as_object() else { return Err(error(path, "must be an object")) };
        if object.contains_key("$ref") {
            return Err(error(&at("$ref"), "references are not supported in structural schemas"));
        }
        let flag = |key: &str| object.get(key).and_then(Value::as_bool).unwrap_or(false);
        let preserve = flag("x-kubernetes-preserve-unknown-fields");
        let embedded = flag("x-kubernetes-embedded-resource");
        let ty = match object.get("type").map(|t| t.as_str().unwrap_or_default()) {
            _ if flag("x-kubernetes-int-or-string") => Type::IntOrString,
            Some("object")
                if !object.contains_key("properties")
                    && schema.get("additionalProperties").is_some_and(|a| a.as_bool() != Some(false)) =>
            {
                Type::Map
            }
            Some("object") => Type::Struct,
            // Only formats that upstream checks in custom resources change the type; times stay strings there.
            Some("string") => Type::String,
            Some("array" | "boolean" | "integer" | "number") => scalar_type(schema),
            None if preserve => Type::Any,
            None if embedded || whole => Type::Struct,
            None => return Err(error(&at("type"), "Required value: must not be empty for specified object fields")),
            Some(other) => return Err(error(&at("type"), format!("Unsupported value: {other:?}"))),
        };
        let mut node = NodeData::new(ty);
        node.preserve = preserve;
        node.embedded = embedded;
        node.nullable = flag("nullable");
        node.meta = meta(schema);
        node.rules = Rules::of(schema);
        match ty {
            Type::Struct => node.fields = self.fields(schema, path, depth, embedded || whole)?,
            Type::Map => {
                let sub = object.get("additionalProperties").filter(|a| a.is_object());
                node.element = Some(match sub {
                    Some(sub) => self.node(sub, &at("additionalProperties"), depth + 1, false)?,
                    None => self.arena.push(NodeData::new(Type::Any)),
                });
            }
            Type::List => {
                let Some(items) = object.get("items") else { return Err(error(&at("items"), "Required value")) };
                node.element = Some(self.node(items, &at("items"), depth + 1, false)?);
            }
            _ => {}
        }
        Ok(self.arena.push(node))
    }

    fn fields(&mut self, schema: &Value, path: &str, depth: usize, whole: bool) -> Result<Vec<FieldData>, SchemaError> {
        let mut fields = Vec::new();
        let required = required(schema);
        let mut add = |name: &str, node: u32, default: Option<Value>, meta: Meta| {
            let required = required.contains(&name);
            fields.push(FieldData {
                name: name.into(),
                node,
                required,
                always: false,
                omits_zero: false,
                default,
                meta,
            });
        };
        for (name, sub) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            if whole && matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                continue;
            }
            let sub_path =
                if path.is_empty() { format!("properties.{name}") } else { format!("{path}.properties.{name}") };
            let id = self.node(sub, &sub_path, depth + 1, false)?;
            add(name, id, sub.get("default").cloned(), meta(sub));
        }
        if whole {
            let string = self.arena.push(NodeData::new(Type::String));
            add("apiVersion", string, None, Meta::default());
            add("kind", string, None, Meta::default());
            let object_meta = match self.object_meta {
                Some(id) => id,
                None => self.copy_object_meta(),
            };
            add("metadata", object_meta, None, Meta::default());
        }
        fields.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(fields)
    }

    fn copy_object_meta(&mut self) -> u32 {
        let builtin = builtin::arena();
        let id = match builtin.by_name(OBJECT_META) {
            Some(id) => self.copy(builtin, id, 0),
            None => self.arena.push(NodeData::new(Type::Any)),
        };
        self.object_meta = Some(id);
        id
    }

    /// Copies a built-in type with all that it refers to.
    fn copy(&mut self, from: &Arena, id: u32, depth: usize) -> u32 {
        if let Some(copied) = self.copied.get(&id) {
            return *copied;
        }
        let source = from.node(id);
        let slot = self.arena.push(NodeData::new(source.ty));
        self.copied.insert(id, slot);
        if depth > MAX_DEPTH {
            return slot;
        }
        let mut node = NodeData::new(source.ty);
        node.name.clone_from(&source.name);
        node.go_type.clone_from(&source.go_type);
        node.meta = source.meta.clone();
        node.element = source.element.map(|e| self.copy(from, e, depth + 1));
        for field in &source.fields {
            let id = self.copy(from, field.node, depth + 1);
            node.fields.push(FieldData {
                name: field.name.clone(),
                node: id,
                required: field.required,
                always: field.always,
                omits_zero: field.omits_zero,
                default: field.default.clone(),
                meta: field.meta.clone(),
            });
        }
        if let Some(target) = self.arena.nodes.get_mut(slot as usize) {
            *target = node;
        }
        slot
    }
}
