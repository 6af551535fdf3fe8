//! What descriptors do not say: how Go's types map their fields to JSON, and the messages with a form of their own.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost_reflect::{FieldDescriptor, MessageDescriptor};
use serde::Deserialize;

use crate::schema;

static FIELDS: &[u8] = include_bytes!("../../../data/protobuf-fields.json.gz");

/// How Go's JSON treats a field.
#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Fact {
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
    /// The message's fields are fields of its parent.
    #[serde(default, rename = "i")]
    pub inline: bool,
}

/// Facts by message and field name; fields without any are absent.
static FACTS: LazyLock<HashMap<String, HashMap<String, Fact>>> =
    LazyLock::new(|| schema::inflate(FIELDS).and_then(|json| serde_json::from_slice(&json).ok()).unwrap_or_default());

static NONE: Fact = Fact { name: None, pointer: false, keep: false, omit_zero: false, inline: false };

/// Whether Go's JSON of a message always has a field: one without `omitempty`, or a struct that is no pointer.
pub(crate) fn is_always_there(message: &str, field: &str, is_struct: bool) -> bool {
    let named = |facts: &'static HashMap<String, Fact>| {
        facts.get(field).or_else(|| facts.values().find(|f| f.name.as_deref() == Some(field)))
    };
    match FACTS.get(message).and_then(named) {
        Some(fact) => !fact.pointer && !fact.omit_zero && (fact.keep || is_struct),
        None => is_struct,
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
