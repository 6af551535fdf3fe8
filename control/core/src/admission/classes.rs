//! Default classes: of storage for claims, and of Ingresses. The newest class that is marked as the default is it.
//! Sources: <https://kubernetes.io/docs/concepts/storage/storage-classes/#default-storageclass>,
//! <https://kubernetes.io/docs/concepts/services-networking/ingress/#default-ingress-class>.

use serde_json::Value;

use crate::kinds::storage_class::IS_DEFAULT;
use crate::kinds::value::{child, has, set, text};

const CLAIM_CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const INGRESS_CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
const INGRESS_MARKS: [&str; 1] = ["ingressclass.kubernetes.io/is-default-class"];

/// A class that is marked as the default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marked {
    /// When it was made, RFC 3339.
    pub created: String,
    /// Its name.
    pub name: String,
}

fn marked(class: &Value, marks: &[&str]) -> Option<Marked> {
    let is_set = marks.iter().any(|mark| annotation(class, mark) == Some("true"));
    is_set.then(|| Marked {
        created: text(class, "/metadata/creationTimestamp").into(),
        name: text(class, "/metadata/name").into(),
    })
}

/// A StorageClass that is marked as the default.
pub fn default_storage_class(class: &Value) -> Option<Marked> {
    marked(class, &IS_DEFAULT)
}

/// An IngressClass that is marked as the default.
pub fn default_ingress_class(class: &Value) -> Option<Marked> {
    marked(class, &INGRESS_MARKS)
}

/// The class to take: the newest, of equally old ones the first by name.
pub fn choose(classes: impl IntoIterator<Item = Marked>) -> Option<String> {
    let newest = |a: &Marked, b: &Marked| b.created.cmp(&a.created).then_with(|| a.name.cmp(&b.name));
    classes.into_iter().min_by(newest).map(|class| class.name)
}

/// The storage class that a claim names, by the field or the old annotation; `Some("")` asks for none.
pub fn claim_class(claim: &Value) -> Option<&str> {
    let field = || claim.pointer("/spec/storageClassName").and_then(Value::as_str);
    annotation(claim, CLAIM_CLASS_ANNOTATION).or_else(field)
}

/// Whether an Ingress names its class.
pub fn has_ingress_class(ingress: &Value) -> bool {
    has(ingress, "/spec/ingressClassName") || annotation(ingress, INGRESS_CLASS_ANNOTATION).is_some()
}

/// Sets a field of the object's spec.
pub fn give(object: &mut Value, field: &str, class: &str) {
    if let Some(spec) = child(object, "spec") {
        set(spec, field, class);
    }
}

fn annotation<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.pointer("/metadata/annotations")?.get(name)?.as_str()
}
