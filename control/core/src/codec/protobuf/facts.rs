//! What descriptors do not say: how Go's types map their fields to JSON, and the messages with a form of their own.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost_reflect::{FieldDescriptor, MessageDescriptor};
use serde::Deserialize;

use crate::schema;

/// How deep inlined messages stand in each other; they do not in Kubernetes' types, beyond two.
const MAX_INLINED: usize = 4;

static FIELDS: &[u8] = include_bytes!("../../../data/protobuf-fields.json.gz");

/// How Go's JSON treats a field.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Fact {
    /// The JSON name, if it is not the protobuf one.
    #[serde(default, rename = "n")]
    pub name: Option<String>,
    /// A pointer: a zero value that is present stays (`replicas: 0`).
    #[serde(default, rename = "p")]
    pub pointer: bool,
    /// No `omitempty`: zero values stay (`containerPort: 0`).
    #[serde(default, rename = "k")]
    pub keep: bool,
    /// `omitzero`: empty objects go.
    #[serde(default, rename = "z")]
    pub omit_zero: bool,
    /// The message of this name, in the same package, whose fields are fields of its parent.
    #[serde(default, rename = "i")]
    pub inline: Option<String>,
}

/// Facts by message and field name; fields without any are absent.
static FACTS: LazyLock<HashMap<String, HashMap<String, Fact>>> =
    LazyLock::new(|| schema::inflate(FIELDS).and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default());

static NONE: Fact = Fact { name: None, pointer: false, keep: false, omit_zero: false, inline: None };

/// How Go's JSON treats the field that JSON calls `field`, inlined ones included; `None` if nothing is known of the
/// message.
pub(crate) fn fact(message: &str, field: &str) -> Option<&'static Fact> {
    let known = message.strip_prefix("k8s.io.")?;
    if !["api.", "apimachinery.", "apiextensions_apiserver.", "kube_aggregator."]
        .iter()
        .any(|from| known.starts_with(from))
    {
        return None;
    }
    Some(named(message, field, 0).unwrap_or(&NONE))
}

fn named(message: &str, field: &str, depth: usize) -> Option<&'static Fact> {
    let facts = FACTS.get(message).filter(|_| depth < MAX_INLINED)?;
    let own = facts.get(field).filter(|f| f.name.is_none());
    own.or_else(|| facts.values().find(|f| f.name.as_deref() == Some(field))).or_else(|| {
        let package = message.rsplit_once('.')?.0;
        let inlined = facts.values().filter_map(|f| f.inline.as_deref());
        inlined.into_iter().find_map(|inner| named(&format!("{package}.{inner}"), field, depth + 1))
    })
}

impl Fact {
    /// Whether Go's JSON of a message always has the field: one without `omitempty`, or a struct that is no pointer.
    pub(crate) fn is_always_there(&self, is_struct: bool) -> bool {
        !self.pointer && !self.omit_zero && (self.keep || is_struct)
    }
    /// Whether Go's JSON leaves out a zero value of the field.
    pub(crate) fn omits_zero(&self, is_struct: bool) -> bool {
        !self.pointer && if is_struct { self.omit_zero } else { !self.keep }
    }
}

/// The facts of a message's fields, looked up once per message.
pub(super) struct Facts(Option<&'static HashMap<String, Fact>>);

impl Facts {
    pub(super) fn of(message: &MessageDescriptor) -> Self {
        Self(FACTS.get(message.full_name()))
    }
    pub(super) fn field(&self, field: &FieldDescriptor) -> &'static Fact {
        self.0.and_then(|facts| facts.get(field.name())).unwrap_or(&NONE)
    }
}

/// Messages that are not JSON objects with their own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Special {
    Time,
    MicroTime,
    Duration,
    Quantity,
    IntOrString,
    /// JSON bytes in field `raw` (`Raw` in FieldsV1).
    Raw,
    /// A list in field `items`: `metav1.Verbs`, `ExtraValue`.
    List,
    /// A schema in field `schema`, or what the named field holds: a list, or whether everything is allowed.
    SchemaOr(&'static str),
}

impl Special {
    pub(super) fn of(message: &MessageDescriptor) -> Option<Self> {
        match message.full_name().strip_prefix("k8s.io.")? {
            "apimachinery.pkg.apis.meta.v1.Time" => Some(Self::Time),
            "apimachinery.pkg.apis.meta.v1.MicroTime" => Some(Self::MicroTime),
            "apimachinery.pkg.apis.meta.v1.Duration" => Some(Self::Duration),
            "apimachinery.pkg.api.resource.Quantity" | "apimachinery.pkg.api.resource.QuantityValue" => {
                Some(Self::Quantity)
            }
            "apimachinery.pkg.util.intstr.IntOrString" => Some(Self::IntOrString),
            "apimachinery.pkg.apis.meta.v1.FieldsV1" | "apimachinery.pkg.runtime.RawExtension" => Some(Self::Raw),
            "apimachinery.pkg.apis.meta.v1.Verbs" => Some(Self::List),
            name if name.ends_with(".ExtraValue") => Some(Self::List),
            name => match name.strip_prefix("apiextensions_apiserver.pkg.apis.apiextensions.v1.")? {
                "JSON" => Some(Self::Raw),
                "JSONSchemaPropsOrArray" => Some(Self::SchemaOr("jSONSchemas")),
                "JSONSchemaPropsOrBool" => Some(Self::SchemaOr("allows")),
                "JSONSchemaPropsOrStringArray" => Some(Self::SchemaOr("property")),
                _ => None,
            },
        }
    }
}
