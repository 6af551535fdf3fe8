//! The schema engine: one compiled form for built-in kinds (from the generated data) and for kinds given by an
//! OpenAPI v3 schema. Decoding, pruning, patches, protobuf and the published OpenAPI documents all read it.

mod builtin;
mod compile;
mod decode;
pub mod openapi;
mod scalar;
mod values;

use std::sync::Arc;

use serde_json::Value;

pub(crate) use builtin::inflate;
pub use builtin::{builtin, builtin_definition, builtin_name};
pub use decode::{DecodeError, Decoded, strict_error};
pub(crate) use scalar::print_time;

use compile::Arena;

/// Deepest nesting that a decoded object may have.
pub const MAX_DEPTH: usize = 100;
/// Most unknown fields that one decode reports; upstream stops at the same order of magnitude.
pub const MAX_UNKNOWN: usize = 100;

/// What a place in an object holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    /// Anything: raw JSON that is kept as it is.
    Any,
    /// An object with named fields.
    Struct,
    /// An object with free keys and values of one type (`element`).
    Map,
    /// A list with items of one type (`element`).
    List,
    /// A boolean.
    Bool,
    /// A 32-bit integer.
    Int32,
    /// A 64-bit integer.
    Int64,
    /// A floating point number.
    Float,
    /// A string.
    String,
    /// Bytes, a base64 string in JSON.
    Bytes,
    /// A resource quantity, a canonical string once decoded.
    Quantity,
    /// An integer or a string.
    IntOrString,
    /// A time with seconds, RFC 3339.
    Time,
    /// A time with microseconds, RFC 3339.
    MicroTime,
}

/// `x-kubernetes-patch-strategy`: how strategic merge treats a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PatchStrategy {
    /// Lists are replaced, maps are merged (the default).
    #[default]
    Default,
    /// Lists are merged by `merge_key`, or as sets if it is absent.
    Merge,
    /// Maps keep only the keys that the patch names in `$retainKeys`.
    RetainKeys,
    /// Both: `merge,retainKeys`.
    MergeRetainKeys,
    /// The value is replaced.
    Replace,
}

impl PatchStrategy {
    /// Whether lists are merged.
    pub fn merges(self) -> bool {
        matches!(self, Self::Merge | Self::MergeRetainKeys)
    }
    /// Whether `$retainKeys` applies.
    pub fn retains_keys(self) -> bool {
        matches!(self, Self::RetainKeys | Self::MergeRetainKeys)
    }
}

/// `x-kubernetes-list-type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ListType {
    /// One owner for the whole list (also when the schema says nothing).
    #[default]
    Atomic,
    /// Unique scalars.
    Set,
    /// Items identified by `list_keys`.
    Map,
}

/// A compiled schema with its root. Cheap to clone and share; all built-in kinds share one arena.
#[derive(Debug, Clone)]
pub struct Schema {
    arena: Arc<Arena>,
    root: u32,
    /// The OpenAPI source, for schemas given at run time.
    source: Option<Arc<Value>>,
}

/// Why an OpenAPI schema was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct SchemaError {
    /// Where in the schema, such as `properties.spec.items`.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl Schema {
    /// Compiles an OpenAPI v3 (structural) schema of a whole object. `apiVersion`, `kind` and `metadata` are added as
    /// the built-in ones. The name (usually the kind) is the type's name in decode errors.
    ///
    /// # Errors
    /// If a part of the schema is not an object, a type is unknown, it nests deeper than [`MAX_DEPTH`], or it refers
    /// to another schema.
    pub fn from_openapi(name: &str, openapi: &Value) -> Result<Arc<Self>, SchemaError> {
        let (arena, root) = compile::custom(name, openapi)?;
        Ok(Arc::new(Self { arena: Arc::new(arena), root, source: Some(Arc::new(openapi.clone())) }))
    }

    /// The schema of the whole object.
    pub fn root(&self) -> Node<'_> {
        Node { arena: &self.arena, id: self.root }
    }

    /// The OpenAPI schema that this was compiled from, if it is not a built-in one.
    pub fn source(&self) -> Option<&Value> {
        self.source.as_deref()
    }

    /// Walks a dotted path of struct fields, such as `spec.template`; list and map steps are entered by themselves.
    pub fn at(&self, path: &str) -> Option<Node<'_>> {
        let mut node = self.root();
        for part in path.split('.') {
            while node.kind() == Type::List {
                node = node.element()?;
            }
            node = match node.kind() {
                Type::Map => node.element()?,
                _ => node.field(part)?.node(),
            };
        }
        Some(node)
    }
}

/// A place in a schema.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    arena: &'a Arena,
    id: u32,
}

impl<'a> Node<'a> {
    fn data(self) -> &'a compile::NodeData {
        self.arena.node(self.id)
    }
    /// What is here.
    pub fn kind(self) -> Type {
        self.data().ty
    }
    /// The type's short name (`DeploymentSpec`), empty for unnamed types.
    pub fn name(self) -> &'a str {
        self.data().name.as_str()
    }
    /// A struct's field.
    pub fn field(self, name: &str) -> Option<Field<'a>> {
        let data = self.data();
        let i = data.fields.binary_search_by(|f| (*f.name).cmp(name)).ok()?;
        data.fields.get(i).map(|field| Field { arena: self.arena, data: field })
    }
    /// All fields of a struct, sorted by name.
    pub fn fields(self) -> impl Iterator<Item = Field<'a>> {
        let arena = self.arena;
        self.data().fields.iter().map(move |data| Field { arena, data })
    }
    /// The type of a list's items or of a map's values.
    pub fn element(self) -> Option<Node<'a>> {
        self.data().element.map(|id| Node { arena: self.arena, id })
    }
    /// Whether unknown fields of a struct are kept (`x-kubernetes-preserve-unknown-fields`).
    pub fn preserves_unknown(self) -> bool {
        self.data().preserve
    }
    /// Whether this is a whole object with its own apiVersion, kind and metadata (`x-kubernetes-embedded-resource`).
    pub fn embedded_resource(self) -> bool {
        self.data().embedded
    }
    /// Whether null is a value of its own (`nullable`) rather than an absent one.
    pub fn nullable(self) -> bool {
        self.data().nullable
    }
    /// The list type, for a list reached as an element (a field's own is [`Field::list_type`]).
    pub fn list_type(self) -> ListType {
        self.data().meta.list_type
    }
    /// The keys of a list of type map.
    pub fn list_keys(self) -> &'a [String] {
        &self.data().meta.list_keys
    }
    /// Whether the object is owned as a whole (`x-kubernetes-map-type: atomic`).
    pub fn map_atomic(self) -> bool {
        self.data().meta.map_atomic
    }
}

/// A field of a struct, with what its declaration adds to its type.
#[derive(Clone, Copy)]
pub struct Field<'a> {
    arena: &'a Arena,
    data: &'a compile::FieldData,
}

impl<'a> Field<'a> {
    /// JSON name.
    pub fn name(self) -> &'a str {
        &self.data.name
    }
    /// Type.
    pub fn node(self) -> Node<'a> {
        Node { arena: self.arena, id: self.data.node }
    }
    /// Whether the schema requires it.
    pub fn required(self) -> bool {
        self.data.required
    }
    /// Whether built-in objects always have the field, if only as an empty one: Go prints structs that are no pointers.
    pub fn always_there(self) -> bool {
        self.data.always
    }
    /// Whether a zero value (empty, 0, false) of the field means the same as none: Go does not print it.
    pub fn omits_zero(self) -> bool {
        self.data.omits_zero
    }
    /// The value of an absent field, in schemas given at run time.
    pub fn default_value(self) -> Option<&'a Value> {
        self.data.default.as_ref()
    }
    /// Strategic merge strategy.
    pub fn patch_strategy(self) -> PatchStrategy {
        self.data.meta.patch_strategy
    }
    /// The key that strategic merge matches list items by; `None` in a merged list means a set of scalars.
    pub fn merge_key(self) -> Option<&'a str> {
        self.data.meta.merge_key.as_deref()
    }
    /// List type, for server-side apply.
    pub fn list_type(self) -> ListType {
        self.data.meta.list_type
    }
    /// Keys of a list of type map.
    pub fn list_keys(self) -> &'a [String] {
        &self.data.meta.list_keys
    }
    /// Whether the value is owned as a whole (atomic map or struct).
    pub fn map_atomic(self) -> bool {
        self.data.meta.map_atomic
    }
}

#[cfg(test)]
mod tests;
